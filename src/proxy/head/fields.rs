//! The field lines of a head in one buffer, in their original order and spelling. Heads have few
//! fields, so a linear search is faster than a map.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::header_fields::HeaderFields;
use crate::proxy::headers::{HeaderFieldsMut, InvalidField};

type Result<T> = std::result::Result<T, InvalidField>;

/// Extra capacity for added fields, in bytes. hawkgate adds more to a request than to a response.
const EXTRA_BYTES: usize = 64;
/// The same for the head of a request.
const EXTRA_REQUEST_BYTES: usize = 512;

/// The usual length of a name, in bytes.
const NAME_BYTES: usize = 12;

const SEPARATOR: &[u8] = b": ";
const LINE_END: &[u8] = b"\r\n";

/// The field lines of a head. Not `Debug`, because they can contain cookies and tokens.
#[derive(Default)]
pub(in crate::proxy) struct FieldList {
    /// Contains each field line as it is sent, so that those next to each other are copied at once.
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
    /// In [`FieldList::text`], after the name and [`SEPARATOR`]. [`LINE_END`] follows.
    value: Range<usize>,
}

impl Field {
    /// `name` is in lower case.
    fn is_named(&self, names: &str, name: &[u8]) -> bool {
        self.lower.len() == name.len() && slice(names.as_bytes(), &self.lower) == name
    }

    /// The whole line in [`FieldList::text`].
    fn line(&self) -> Range<usize> {
        self.name.start..self.value.end + LINE_END.len()
    }
}

/// How a field line is sent.
pub(in crate::proxy) enum Sent<'v> {
    AsItIs,
    /// With this value instead of its own.
    With(&'v [u8]),
    Omitted,
}

/// Collects the field lines of an HTTP/1 head while it is parsed.
pub(in crate::proxy) struct Parsed {
    text: Vec<u8>,
    /// In lower case. Converted to text at once, because checking each name costs more.
    names: Vec<u8>,
    fields: Vec<Field>,
}

impl Parsed {
    /// Begins with the lines in `head`, the head of a request or its field lines, which are about
    /// `fields`.
    pub(in crate::proxy) fn request(head: &[u8], fields: usize) -> Self {
        Self::over(head, fields, EXTRA_REQUEST_BYTES)
    }

    /// Like [`Self::request`], for a response.
    pub(in crate::proxy) fn response(head: &[u8], fields: usize) -> Self {
        Self::over(head, fields, EXTRA_BYTES)
    }

    fn over(head: &[u8], fields: usize, extra: usize) -> Self {
        let mut text = Vec::with_capacity(head.len() + extra);
        text.extend_from_slice(head);
        Self {
            text,
            names: Vec::with_capacity((fields + 2) * NAME_BYTES),
            fields: Vec::with_capacity(fields + 2),
        }
    }

    /// Adds the field line whose name and value, without the whitespace around it, are in these
    /// places of the head.
    pub(in crate::proxy) fn push(&mut self, name: Range<usize>, value: Range<usize>) {
        let begin = self.names.len();
        self.names.extend_from_slice(slice(&self.text, &name));
        let lower = begin..self.names.len();
        let between = |begin, end| self.text.get(begin..end);
        let end = value.end + LINE_END.len();
        let as_sent = between(name.end, value.start) == Some(SEPARATOR)
            && between(value.end, end) == Some(LINE_END);
        let (name, value) = if as_sent {
            (name, value)
        } else {
            let begin = self.text.len();
            let name_end = begin + name.len();
            self.text.extend_from_within(name);
            self.text.extend_from_slice(SEPARATOR);
            self.text.extend_from_within(value);
            let value_end = self.text.len();
            self.text.extend_from_slice(LINE_END);
            (begin..name_end, name_end + SEPARATOR.len()..value_end)
        };
        self.fields.push(Field { name, lower, value });
    }

    /// Returns the field lines.
    pub(in crate::proxy) fn into_list(mut self) -> FieldList {
        self.names.make_ascii_lowercase();
        FieldList {
            text: self.text,
            names: ascii(self.names),
            fields: self.fields,
        }
    }
}

/// Converts names to text. The parsers accept only ASCII; any other byte becomes a character that no
/// name has, in the same place.
fn ascii(mut names: Vec<u8>) -> String {
    if !names.is_ascii() {
        for byte in names.iter_mut().filter(|byte| !byte.is_ascii()) {
            *byte = b'\x1a';
        }
    }
    String::from_utf8(names).unwrap_or_default()
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
        let around = fields * (SEPARATOR.len() + LINE_END.len());
        Self {
            text: Vec::with_capacity(bytes + around + EXTRA_BYTES),
            names: String::with_capacity((fields + 2) * NAME_BYTES),
            fields: Vec::with_capacity(fields + 2),
        }
    }

    /// Appends a field line.
    pub(in crate::proxy) fn push(&mut self, name: &[u8], value: &[u8]) {
        let begin = self.names.len();
        self.names.push_str(&ascii(name.to_ascii_lowercase()));
        self.append_line(begin..self.names.len(), name, value);
    }

    /// Appends a field line with a name in lower case.
    pub(in crate::proxy) fn push_lower(&mut self, name: &HeaderName, value: &[u8]) {
        let lower = self.append_lower(name);
        self.append_line(lower, name.as_str().as_bytes(), value);
    }

    /// Returns the names and values of all field lines, in order.
    #[cfg(test)]
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
        let wanted = name.as_str().as_bytes();
        let is_named = |field: &Field| field.is_named(&self.names, wanted);
        let Some(first) = self.fields.iter().position(is_named) else {
            self.add(name, value);
            return;
        };
        let mut others = self.fields.iter().skip(first + 1);
        if others.any(|field| field.is_named(&self.names, wanted)) {
            let mut found = false;
            self.fields.retain(|field| {
                !field.is_named(&self.names, wanted) || !std::mem::replace(&mut found, true)
            });
        }
        let begin = self.text.len();
        if let Some(field) = self.fields.get_mut(first) {
            let name_end = begin + field.name.len();
            self.text.extend_from_within(field.name.clone());
            self.text.extend_from_slice(SEPARATOR);
            let value_begin = self.text.len();
            self.text.extend_from_slice(value);
            field.name = begin..name_end;
            field.value = value_begin..self.text.len();
            self.text.extend_from_slice(LINE_END);
        }
    }

    /// Appends a field line in its usual spelling.
    fn add(&mut self, name: &HeaderName, value: &[u8]) {
        let lower = self.append_lower(name);
        match usual_spelling(name.as_str()) {
            Some(spelling) => self.append_line(lower, spelling.as_bytes(), value),
            None => self.append_line(lower, &title_case(name), value),
        }
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
        self.encode_with(wire, |_, _| Sent::AsItIs);
    }

    /// Encodes each field line as `sent` says, which is called with the lower-case name and the
    /// value.
    pub(in crate::proxy) fn encode_with<'v>(
        &self,
        wire: &mut BytesMut,
        mut sent: impl FnMut(&str, &[u8]) -> Sent<'v>,
    ) {
        // Lines next to each other that are to be copied.
        let mut lines = 0..0;
        for field in &self.fields {
            let name = self.names.get(field.lower.clone()).unwrap_or_default();
            match sent(name, slice(&self.text, &field.value)) {
                Sent::AsItIs => {
                    let line = field.line();
                    if line.start == lines.end {
                        lines.end = line.end;
                    } else {
                        wire.extend_from_slice(slice(&self.text, &lines));
                        lines = line;
                    }
                }
                Sent::With(value) => {
                    wire.extend_from_slice(slice(&self.text, &lines));
                    lines = 0..0;
                    for part in [slice(&self.text, &field.name), SEPARATOR, value, LINE_END] {
                        wire.extend_from_slice(part);
                    }
                }
                Sent::Omitted => {}
            }
        }
        wire.extend_from_slice(slice(&self.text, &lines));
    }

    /// Appends a field line whose name in lower case is `lower`.
    fn append_line(&mut self, lower: Range<usize>, name: &[u8], value: &[u8]) {
        let begin = self.text.len();
        let name_end = begin + name.len();
        let value_begin = name_end + SEPARATOR.len();
        let value_end = value_begin + value.len();
        self.text.reserve(value_end + LINE_END.len() - begin);
        for part in [name, SEPARATOR, value, LINE_END] {
            self.text.extend_from_slice(part);
        }
        self.fields.push(Field {
            name: begin..name_end,
            lower,
            value: value_begin..value_end,
        });
    }

    fn append_lower(&mut self, name: &HeaderName) -> Range<usize> {
        let begin = self.names.len();
        self.names.push_str(name.as_str());
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

/// Returns the usual spelling of the names that hawkgate adds to many messages.
fn usual_spelling(name: &str) -> Option<&'static str> {
    Some(match name {
        "authorization" => "Authorization",
        "connection" => "Connection",
        "content-length" => "Content-Length",
        "date" => "Date",
        "host" => "Host",
        "transfer-encoding" => "Transfer-Encoding",
        "x-forwarded-for" => "X-Forwarded-For",
        "x-forwarded-port" => "X-Forwarded-Port",
        "x-forwarded-proto" => "X-Forwarded-Proto",
        "x-request-id" => "X-Request-Id",
        _ => return None,
    })
}

/// Returns the name in its usual spelling, such as `X-Request-Id`.
fn title_case(name: &HeaderName) -> Vec<u8> {
    let mut begins = true;
    let bytes = name.as_str().bytes().map(|byte| {
        let capital = std::mem::replace(&mut begins, byte == b'-');
        if capital {
            byte.to_ascii_uppercase()
        } else {
            byte
        }
    });
    bytes.collect()
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
    fn parsed_lines_are_sent_in_canonical_form() {
        let head = b"A: 1\r\nb:2\r\nC: \t3 \r\nD: \r\nE:\r\nf: 6\n";
        let mut parsed = Parsed::response(head, 1);
        for (name, value) in [
            (0..1, 3..4),
            (6..7, 8..9),
            (11..12, 15..16),
            (19..20, 22..22),
            (24..25, 26..26),
            (28..29, 31..32),
        ] {
            parsed.push(name, value);
        }
        let mut list = parsed.into_list();
        let canonical = "A: 1\r\nb: 2\r\nC: 3\r\nD: \r\nE: \r\nf: 6\r\n";
        assert_eq!(encoded(&list), canonical);
        assert_eq!(list.first(&HeaderName::from_static("c")), Some(&b"3"[..]));
        list.set(&HeaderName::from_static("d"), b"4");
        list.set(&HeaderName::from_static("x-forwarded-for"), b"5");
        list.remove(&HeaderName::from_static("b"));
        let changed = "A: 1\r\nC: 3\r\nD: 4\r\nE: \r\nf: 6\r\nX-Forwarded-For: 5\r\n";
        assert_eq!(encoded(&list), changed);
        let mut wire = BytesMut::new();
        list.encode_with(&mut wire, |name, _| match name {
            "a" => Sent::Omitted,
            "c" => Sent::With(b"new"),
            _ => Sent::AsItIs,
        });
        let sent = "C: new\r\nD: 4\r\nE: \r\nf: 6\r\nX-Forwarded-For: 5\r\n";
        assert_eq!(wire, sent);
    }

    #[test]
    fn the_usual_spelling_is_title_case() {
        for name in [
            "authorization",
            "connection",
            "content-length",
            "date",
            "host",
            "transfer-encoding",
            "x-forwarded-for",
            "x-forwarded-port",
            "x-forwarded-proto",
            "x-request-id",
        ] {
            let spelling = usual_spelling(name).unwrap();
            let title = title_case(&HeaderName::from_static(name));
            assert_eq!(title, spelling.as_bytes());
        }
    }

    #[test]
    fn names_that_are_not_ascii_take_no_other_name_along() {
        let head = b"a\xff: 1\r\n\xc3: 2\r\n\xa9: 3\r\nhost: 4\r\n";
        let mut parsed = Parsed::request(head, 4);
        for (name, value) in [
            (0..2, 4..5),
            (7..8, 10..11),
            (13..14, 16..17),
            (19..23, 25..26),
        ] {
            parsed.push(name, value);
        }
        let mut list = parsed.into_list();
        assert_eq!(list.first(&header::HOST), Some(&b"4"[..]));
        list.keep(|name| name == "host" || name == "\u{1a}");
        assert_eq!(list.iter().count(), 3);
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
