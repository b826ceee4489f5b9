//! Read access to the header fields of a request, independent of the type that stores them.

use std::fmt;

use http::{HeaderMap, HeaderName};

/// Header fields, looked up by name.
pub trait HeaderFields: Sync {
    /// Returns the value of the next field line named `name`, and the `position` from which the one
    /// after it is found. The first is found from 0.
    fn next_from(&self, name: &HeaderName, position: usize) -> Option<(&[u8], usize)>;

    /// Returns the value of the first field line named `name`.
    fn first(&self, name: &HeaderName) -> Option<&[u8]> {
        self.next_from(name, 0).map(|(value, _)| value)
    }
}

impl HeaderFields for HeaderMap {
    fn next_from(&self, name: &HeaderName, position: usize) -> Option<(&[u8], usize)> {
        let value = self.get_all(name).iter().nth(position)?;
        Some((value.as_bytes(), position + 1))
    }
}

/// Omits the fields, which can contain tokens.
impl fmt::Debug for dyn HeaderFields + '_ {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HeaderFields(..)")
    }
}

/// Returns the values of all field lines named `name`, in order.
pub fn all<'a, 'n, F: HeaderFields + ?Sized>(
    fields: &'a F,
    name: &'n HeaderName,
) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n, F> {
    let mut position = 0;
    std::iter::from_fn(move || {
        let (value, next) = fields.next_from(name, position)?;
        position = next;
        Some(value)
    })
}

/// Returns the value of the only field line named `name`, if there is one.
///
/// # Errors
/// Returns [`Repeated`] if there is more than one.
pub fn only<'a, F: HeaderFields + ?Sized>(
    fields: &'a F,
    name: &HeaderName,
) -> Result<Option<&'a [u8]>, Repeated> {
    let Some((value, next)) = fields.next_from(name, 0) else {
        return Ok(None);
    };
    match fields.next_from(name, next) {
        None => Ok(Some(value)),
        Some(_) => Err(Repeated),
    }
}

/// The error for a field that may occur at most once but is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repeated;

/// Returns a value as text if it consists only of visible ASCII characters, spaces and tabs.
pub fn text(value: &[u8]) -> Option<&str> {
    let plain = |byte: &u8| matches!(byte, b'\t' | b' '..=b'~');
    let plain = value.iter().all(plain);
    std::str::from_utf8(value).ok().filter(|_| plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderValue, header};

    #[test]
    fn fields_are_found_by_name_in_order() {
        let mut map = HeaderMap::new();
        for value in ["a", "b", "a"] {
            map.append(header::COOKIE, HeaderValue::from_static(value));
        }
        map.append(header::HOST, HeaderValue::from_static("h"));
        let fields: &dyn HeaderFields = &map;
        assert_eq!(fields.first(&header::COOKIE), Some(&b"a"[..]));
        assert_eq!(all(fields, &header::COOKIE).nth(3), None);
        let cookies: Vec<_> = all(fields, &header::COOKIE).collect();
        assert_eq!(cookies, [b"a", b"b", b"a"]);
        assert_eq!(only(fields, &header::COOKIE), Err(Repeated));
        assert_eq!(only(fields, &header::HOST), Ok(Some(&b"h"[..])));
        assert_eq!(only(fields, &header::ETAG), Ok(None));
    }

    #[test]
    fn text_is_visible_ascii() {
        assert_eq!(text(b"a \t~"), Some("a \t~"));
        for value in [&b"\xc3\xa4"[..], b"\x7f", b"\n", b"\0", b"\xff"] {
            assert_eq!(text(value), None);
        }
    }
}
