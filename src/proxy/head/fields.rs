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

/// The usual length of a name, in bytes.
const NAME_BYTES: usize = 12;

/// The field lines of a head. Not `Debug`, because they can contain cookies and tokens.
#[derive(Default)]
pub(in crate::proxy) struct FieldList {
    text: Vec<u8>,
    /// The names in lower case, in which they are looked up.
    names: String,
    fields: Vec<Field>,
}

/// Where a field line is.
struct Field {
    /// In [`FieldList::text`].
    name: Range<usize>,
    /// In [`FieldList::names`].
    lower: Range<usize>,
    /// In [`FieldList::text`].
    value: Range<usize>,
}

impl Field {
    /// `name` is in lower case.
    fn is_named(&self, names: &str, name: &[u8]) -> bool {
        self.lower.len() == name.len() && slice(names.as_bytes(), &self.lower) == name
    }
}

impl FieldList {
    /// Collects `fields`, pairs of names and values in order, whose total length is about
    /// `bytes` bytes.
    pub(in crate::proxy) fn of<'f>(
        fields: impl ExactSizeIterator<Item = (&'f [u8], &'f [u8])>,
        bytes: usize,
    ) -> Self {
        let mut this = Self::with_capacity(fields.len(), bytes);
        for (name, value) in fields {
            this.push(name, value);
        }
        this
    }

    /// Creates an empty list for this number of field lines of about `bytes` bytes in all.
    pub(in crate::proxy) fn with_capacity(fields: usize, bytes: usize) -> Self {
        Self {
            text: Vec::with_capacity(bytes + EXTRA_BYTES),
            names: String::with_capacity((fields + 2) * NAME_BYTES),
            fields: Vec::with_capacity(fields + 2),
        }
    }

    /// Appends a field line.
    pub(in crate::proxy) fn push(&mut self, name: &[u8], value: &[u8]) {
        let lower = self.append_lower(name);
        let (name, value) = (self.append_text(name), self.append_text(value));
        self.fields.push(Field { name, lower, value });
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
        let span = self.append_text(value);
        let (names, wanted) = (&self.names, name.as_str().as_bytes());
        let mut found = false;
        self.fields.retain_mut(|field| {
            if !field.is_named(names, wanted) {
                return true;
            }
            field.value = span.clone();
            !std::mem::replace(&mut found, true)
        });
        if !found {
            self.add_field(name, span);
        }
    }

    /// Appends a field line in its usual spelling.
    fn add(&mut self, name: &HeaderName, value: &[u8]) {
        let value = self.append_text(value);
        self.add_field(name, value);
    }

    fn add_field(&mut self, name: &HeaderName, value: Range<usize>) {
        let lower = self.append_lower(name.as_str().as_bytes());
        let begin = self.text.len();
        self.text.extend(title_case(name));
        self.fields.push(Field {
            name: begin..self.text.len(),
            lower,
            value,
        });
    }

    /// Removes all field lines named `name`.
    pub(in crate::proxy) fn remove(&mut self, name: &HeaderName) {
        let (names, name) = (&self.names, name.as_str().as_bytes());
        self.fields.retain(|field| !field.is_named(names, name));
    }

    /// Keeps the field lines for whose lower-case name `keep` returns true.
    pub(in crate::proxy) fn keep(&mut self, keep: impl Fn(&str) -> bool) {
        let names = &self.names;
        self.fields
            .retain(|field| keep(names.get(field.lower.clone()).unwrap_or_default()));
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

    fn append_text(&mut self, bytes: &[u8]) -> Range<usize> {
        let begin = self.text.len();
        self.text.extend_from_slice(bytes);
        begin..self.text.len()
    }

    /// Appends the name in lower case. The parsers accept only ASCII names.
    fn append_lower(&mut self, name: &[u8]) -> Range<usize> {
        let begin = self.names.len();
        match std::str::from_utf8(name) {
            Ok(name) => self.names.push_str(name),
            Err(_) => self.names.push_str(&String::from_utf8_lossy(name)),
        }
        if let Some(name) = self.names.get_mut(begin..) {
            name.make_ascii_lowercase();
        }
        begin..self.names.len()
    }
}

impl HeaderFields for FieldList {
    fn next_from(&self, name: &HeaderName, position: usize) -> Option<(&[u8], usize)> {
        let name = name.as_str().as_bytes();
        let mut fields = self.fields.iter().enumerate().skip(position);
        let (found, field) = fields.find(|(_, field)| field.is_named(&self.names, name))?;
        Some((slice(&self.text, &field.value), found + 1))
    }
}

impl HeaderFieldsMut for FieldList {
    fn retain(&mut self, keep: impl Fn(&str, &[u8]) -> bool) -> Result<()> {
        let (names, text) = (&self.names, &self.text);
        self.fields.retain(|field| {
            let name = names.get(field.lower.clone()).unwrap_or_default();
            keep(name, slice(text, &field.value))
        });
        Ok(())
    }

    fn insert(&mut self, name: HeaderName, value: HeaderValue) -> Result<()> {
        self.set(&name, value.as_bytes());
        Ok(())
    }

    fn append(&mut self, name: HeaderName, value: HeaderValue) -> Result<()> {
        self.add(&name, value.as_bytes());
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header_fields::{Repeated, all, only};
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
    fn fields_are_found_from_a_position() {
        let mut list = list(&[("A", "1"), ("b", "2"), ("a", "3"), ("\u{e9}", "4")]);
        list.push(b"\xff", b"5");
        let a = HeaderName::from_static("a");
        assert_eq!(list.next_from(&a, 0), Some((&b"1"[..], 1)));
        assert_eq!(list.next_from(&a, 1), Some((&b"3"[..], 3)));
        assert_eq!(list.next_from(&a, 3), None);
        assert_eq!(list.next_from(&a, usize::MAX), None);
        assert_eq!(only(&list, &a), Err(Repeated));
        list.remove(&a);
        assert_eq!(only(&list, &a), Ok(None));
        list.keep(|name| name != "b");
        assert_eq!(list.iter().count(), 2, "names that are not ASCII");
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
        let long = "L".repeat(65);
        let mut list = list(&[("A", "x"), ("a", "y"), (&long, "x"), (&long[1..], "x")]);
        list.retain(|name, value| {
            assert!(name.bytes().all(|b| b.is_ascii_lowercase()), "{name}");
            value != b"y" && name.len() != 65
        })
        .unwrap();
        assert_eq!(encoded(&list), format!("A: x\r\n{}: x\r\n", &long[1..]));
    }
}
