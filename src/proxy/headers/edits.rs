//! The header fields that a route removes, sets or adds.

use super::{HeaderFieldsMut, Result};
use crate::gateway::header_edits::HeaderEdits;
use crate::header_fields::all;

/// Applies the `edits` of a route. Idempotent, because a request may be prepared once per attempt.
pub(in crate::proxy) fn edit(head: &mut impl HeaderFieldsMut, edits: &HeaderEdits) -> Result<()> {
    if edits.is_empty() {
        return Ok(());
    }
    head.retain(|name, _| !edits.removes(name))?;
    for (name, value) in &edits.set {
        head.insert(name.clone(), value.clone())?;
    }
    for (name, value) in &edits.add {
        if !all(head, name).any(|own| own == value.as_bytes()) {
            head.append(name.clone(), value.clone())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use http::header::{HeaderMap, HeaderName, HeaderValue};

    use super::*;

    fn pair(name: &'static str, value: &'static str) -> (HeaderName, HeaderValue) {
        let value = HeaderValue::from_static(value);
        (HeaderName::from_static(name), value)
    }

    #[test]
    fn fields_are_removed_set_and_added_once() {
        let edits = HeaderEdits {
            remove: vec![HeaderName::from_static("x-gone")],
            set: vec![pair("x-set", "new")],
            add: vec![pair("x-add", "more"), pair("x-add", "own")],
        };
        let mut head: HeaderMap = [
            pair("x-gone", "1"),
            pair("x_gone", "1"),
            pair("x-set", "old"),
            pair("x_set", "old"),
            pair("x-add", "own"),
            pair("x-kept", "1"),
        ]
        .into_iter()
        .collect();
        for _ in 0..2 {
            edit(&mut head, &edits).unwrap();
            let mut lines: Vec<_> = head
                .iter()
                .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
                .collect();
            lines.sort();
            let expected = ["x-add: more", "x-add: own", "x-kept: 1", "x-set: new"];
            assert_eq!(lines, expected);
        }
    }
}
