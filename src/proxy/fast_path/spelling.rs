//! How the names of a head's fields were written. They mean the same in any case (RFC 9110
//! §5.1), but what passes through should not look different afterwards.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName};

/// The names of a head in their order, as they came.
#[derive(Default)]
pub(super) struct Spelling {
    head: Bytes,
    names: Vec<(HeaderName, Range<usize>)>,
}

impl Spelling {
    /// Of so many `fields` in `head`.
    pub(super) fn of(head: Bytes, fields: usize) -> Self {
        let names = Vec::with_capacity(fields);
        Self { head, names }
    }

    /// The next field's name, and where in the head it stands.
    pub(super) fn learn(&mut self, name: &HeaderName, place: Range<usize>) {
        self.names.push((name.clone(), place));
    }

    /// Writes every field, those that were added since in the usual spelling.
    pub(super) fn write(&self, headers: &HeaderMap, wire: &mut BytesMut) {
        // Both lists have nearly the same order, so the next one is where it is looked for
        // first.
        let mut next = 0;
        for (name, value) in headers {
            let is_it = |at: &usize| self.names.get(*at).is_some_and(|(known, _)| known == name);
            let found = (next..self.names.len()).chain(0..next).find(is_it);
            match found.and_then(|at| Some((at, self.written(at)?))) {
                Some((at, written)) => {
                    next = at + 1;
                    wire.extend_from_slice(written);
                }
                None => usual(name, wire),
            }
            wire.extend_from_slice(b": ");
            wire.extend_from_slice(value.as_bytes());
            wire.extend_from_slice(b"\r\n");
        }
    }

    fn written(&self, at: usize) -> Option<&[u8]> {
        let (_, place) = self.names.get(at)?;
        self.head.get(place.clone())
    }
}

/// `X-Request-Id`.
fn usual(name: &HeaderName, wire: &mut BytesMut) {
    let mut begins = true;
    wire.extend(name.as_str().bytes().map(|byte| {
        let capital = std::mem::replace(&mut begins, byte == b'-');
        if capital {
            byte.to_ascii_uppercase()
        } else {
            byte
        }
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn what_was_added_is_written_as_usual_whatever_was_taken_out() {
        let head = "hOSTx-aX-Baccept";
        let mut spelling = Spelling::of(Bytes::from_static(head.as_bytes()), 4);
        let mut headers = HeaderMap::new();
        for place in [0..4, 4..7, 7..10, 10..16] {
            let name = HeaderName::from_bytes(head[place.clone()].as_bytes()).unwrap();
            spelling.learn(&name, place);
            headers.append(name, HeaderValue::from_static("v"));
        }
        headers.remove("x-a");
        headers.insert("x-forwarded-for", HeaderValue::from_static("w"));
        let mut wire = BytesMut::new();
        spelling.write(&headers, &mut wire);
        let mut lines: Vec<_> = std::str::from_utf8(&wire).unwrap().lines().collect();
        lines.sort_unstable();
        assert_eq!(
            lines,
            ["X-B: v", "X-Forwarded-For: w", "accept: v", "hOST: v"]
        );
    }
}
