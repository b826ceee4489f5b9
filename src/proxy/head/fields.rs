//! The field lines of a head in one buffer, in their original order and spelling. Heads have few
//! fields, so a linear search is faster than a map.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::header_fields::HeaderFields;
use crate::proxy::headers::{HeaderFieldsMut, InvalidField};

type Result<T> = std::result::Result<T, InvalidField>;

/// Extra capacity for added fields, in bytes.
const EXTRA_BYTES: usize = 64;

/// Maximum length of a name that is converted to lower case without a heap allocation.
const MAX_STACK_NAME: usize = 64;

/// The field lines of a head. Not `Debug`, because they can contain cookies and tokens.
#[derive(Default)]
pub(in crate::proxy) struct FieldList {
    text: Vec<u8>,
    fields: Vec<Field>,
}

/// The offsets of a field line in [`FieldList::text`].
struct Field {
    name: Range<usize>,
    value: Range<usize>,
}

impl FieldList {
    /// Collects `fields`, pairs of names and values in order, whose total length is about
    /// `bytes` bytes.
    pub(in crate::proxy) fn of<'f>(
        fields: impl ExactSizeIterator<Item = (&'f [u8], &'f [u8])>,
        bytes: usize,
    ) -> Self {
        let mut this = Self {
            text: Vec::with_capacity(bytes + EXTRA_BYTES),
            fields: Vec::with_capacity(fields.len() + 2),
        };
        for (name, value) in fields {
            let (name, value) = (this.append(name), this.append(value));
            this.fields.push(Field { name, value });
        }
        this
    }

    /// Creates an empty list for this number of field lines of about `bytes` bytes in all.
    pub(in crate::proxy) fn with_capacity(fields: usize, bytes: usize) -> Self {
        Self {
            text: Vec::with_capacity(bytes + EXTRA_BYTES),
            fields: Vec::with_capacity(fields + 2),
        }
    }

    /// Appends a field line.
    pub(in crate::proxy) fn push(&mut self, name: &[u8], value: &[u8]) {
        let (name, value) = (self.append(name), self.append(value));
        self.fields.push(Field { name, value });
    }

    /// Returns the names and values of all field lines, in order.
    pub(in crate::proxy) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let text = &self.text;
        let pair = |field: &Field| (slice(text, &field.name), slice(text, &field.value));
        self.fields.iter().map(pair)
    }

    /// Copies the field lines for which `keep`, called with the lower-case name and the value,
    /// returns true. All values share one allocation.
    ///
    /// # Errors
    /// If a name or a value cannot be sent.
    pub(in crate::proxy) fn to_map(
        &self,
        keep: impl Fn(&str, &[u8]) -> bool,
    ) -> std::result::Result<HeaderMap, http::Error> {
        let text = Bytes::copy_from_slice(&self.text);
        let mut map = HeaderMap::with_capacity(self.fields.len() + 2);
        for field in &self.fields {
            let name = HeaderName::from_bytes(slice(&text, &field.name))?;
            if keep(name.as_str(), slice(&text, &field.value)) {
                let value = HeaderValue::from_maybe_shared(text.slice(field.value.clone()))?;
                map.append(name, value);
            }
        }
        Ok(map)
    }

    /// Whether there is a field named `name`.
    pub(in crate::proxy) fn contains(&self, name: &HeaderName) -> bool {
        self.first(name).is_some()
    }

    /// Replaces all field lines named `name` with one, which keeps the position and spelling of
    /// the first. Appends one if there are none.
    pub(in crate::proxy) fn set(&mut self, name: &HeaderName, value: &[u8]) {
        let span = self.append(value);
        let text = &self.text;
        let mut found = false;
        self.fields.retain_mut(|field| {
            if !name_matches(text, &field.name, name) {
                return true;
            }
            field.value = span.clone();
            !std::mem::replace(&mut found, true)
        });
        if !found {
            let begin = self.text.len();
            self.text.extend(title_case(name));
            let name = begin..self.text.len();
            self.fields.push(Field { name, value: span });
        }
    }

    /// Removes all field lines named `name`.
    pub(in crate::proxy) fn remove(&mut self, name: &HeaderName) {
        let text = &self.text;
        self.fields
            .retain(|field| !name_matches(text, &field.name, name));
    }

    /// Keeps the field lines for whose lower-case name `keep` returns true.
    pub(in crate::proxy) fn keep(&mut self, keep: impl Fn(&str) -> bool) {
        let text = &self.text;
        self.fields
            .retain(|field| with_lower_case(slice(text, &field.name), &keep));
    }

    /// Encodes all field lines.
    pub(in crate::proxy) fn encode(&self, wire: &mut BytesMut) {
        for field in &self.fields {
            for part in [
                slice(&self.text, &field.name),
                b": ",
                slice(&self.text, &field.value),
                b"\r\n",
            ] {
                wire.extend_from_slice(part);
            }
        }
    }

    fn append(&mut self, bytes: &[u8]) -> Range<usize> {
        let begin = self.text.len();
        self.text.extend_from_slice(bytes);
        begin..self.text.len()
    }
}

impl HeaderFields for FieldList {
    fn nth(&self, name: &HeaderName, index: usize) -> Option<&[u8]> {
        let matches = |field: &&Field| name_matches(&self.text, &field.name, name);
        let field = self.fields.iter().filter(matches).nth(index)?;
        Some(slice(&self.text, &field.value))
    }
}

impl HeaderFieldsMut for FieldList {
    fn retain(&mut self, keep: impl Fn(&str, &[u8]) -> bool) -> Result<()> {
        let text = &self.text;
        self.fields.retain(|field| {
            let value = slice(text, &field.value);
            with_lower_case(slice(text, &field.name), |name| keep(name, value))
        });
        Ok(())
    }

    fn insert(&mut self, name: HeaderName, value: HeaderValue) -> Result<()> {
        self.set(&name, value.as_bytes());
        Ok(())
    }

    fn insert_bytes(&mut self, name: HeaderName, bytes: &[u8]) -> Result<()> {
        // The same rule as in the `http` crate, but without an early exit, so that the compiler
        // can vectorize the loop.
        let fits = |b: u8| (b >= b' ' && b != 0x7f) || b == b'\t';
        if !bytes.iter().fold(true, |all, b| all & fits(*b)) {
            return Err(InvalidField("invalid header value"));
        }
        self.set(&name, bytes);
        Ok(())
    }
}

/// Returns the name in its usual spelling, such as `X-Request-Id`.
fn title_case(name: &HeaderName) -> impl Iterator<Item = u8> {
    let mut begins = true;
    name.as_str().bytes().map(move |byte| {
        let capital = std::mem::replace(&mut begins, byte == b'-');
        if capital {
            byte.to_ascii_uppercase()
        } else {
            byte
        }
    })
}

fn slice<'t>(text: &'t [u8], span: &Range<usize>) -> &'t [u8] {
    text.get(span.clone()).unwrap_or_default()
}

fn name_matches(text: &[u8], span: &Range<usize>, name: &HeaderName) -> bool {
    let name = name.as_str().as_bytes();
    span.len() == name.len() && slice(text, span).eq_ignore_ascii_case(name)
}

/// Calls `f` with the name in lower case. The parser accepts only ASCII names.
fn with_lower_case<T>(name: &[u8], f: impl FnOnce(&str) -> T) -> T {
    let mut short = [0; MAX_STACK_NAME];
    match short.get_mut(..name.len()) {
        Some(lower) => {
            lower.copy_from_slice(name);
            lower.make_ascii_lowercase();
            f(std::str::from_utf8(lower).unwrap_or_default())
        }
        None => f(&String::from_utf8_lossy(name).to_ascii_lowercase()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header_fields::all;
    use http::header;

    fn list(fields: &[(&str, &str)]) -> FieldList {
        let fields = fields.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes()));
        FieldList::of(fields, 0)
    }

    fn encoded(list: &FieldList) -> String {
        let mut wire = BytesMut::new();
        list.encode(&mut wire);
        String::from_utf8(wire.to_vec()).unwrap()
    }

    #[test]
    fn unchanged_fields_keep_order_and_spelling() {
        let list = list(&[("hOST", "a"), ("X-b", ""), ("x-B", "2"), ("Date", "d")]);
        assert_eq!(encoded(&list), "hOST: a\r\nX-b: \r\nx-B: 2\r\nDate: d\r\n");
        let name = HeaderName::from_static("x-b");
        let values: Vec<_> = all(&list, &name).collect();
        assert_eq!(values, [&b""[..], b"2"]);
        assert!(list.contains(&header::HOST) && !list.contains(&header::ETAG));
    }

    #[test]
    fn set_replaces_all_lines_of_a_field_or_appends_one() {
        let mut list = list(&[("x-A", "1"), ("B", "2"), ("X-a", "3")]);
        list.set(&HeaderName::from_static("x-a"), b"new");
        assert_eq!(encoded(&list), "x-A: new\r\nB: 2\r\n");
        let close = HeaderValue::from_static("close");
        list.insert(header::CONNECTION, close).unwrap();
        list.set(&HeaderName::from_static("b"), b"");
        assert_eq!(encoded(&list), "x-A: new\r\nB: \r\nConnection: close\r\n");
        list.remove(&HeaderName::from_static("x-a"));
        assert_eq!(encoded(&list), "B: \r\nConnection: close\r\n");
    }

    #[test]
    fn field_values_cannot_contain_line_breaks() {
        let mut list = FieldList::default();
        for byte in 0..=u8::MAX {
            let put = list.insert_bytes(header::HOST, &[b'a', byte]);
            let expected = HeaderValue::from_bytes(&[b'a', byte]);
            assert_eq!(put.is_ok(), expected.is_ok(), "{byte}");
        }
    }

    #[test]
    fn retain_passes_lower_case_names_and_values() {
        let long = "L".repeat(MAX_STACK_NAME + 1);
        let mut list = list(&[("A", "x"), ("a", "y"), (&long, "x"), (&long[1..], "x")]);
        list.retain(|name, value| {
            assert!(name.bytes().all(|b| b.is_ascii_lowercase()), "{name}");
            value != b"y" && name.len() != MAX_STACK_NAME + 1
        })
        .unwrap();
        assert_eq!(encoded(&list), format!("A: x\r\n{}: x\r\n", &long[1..]));
    }
}
