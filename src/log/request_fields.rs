//! Fields that access and audit lines have in common.

use std::borrow::Cow;

use super::line::Line;
use crate::gateway::outcome::{Outcome, UnauthorizedAction};

/// Maximum length of a path, in bytes; [`truncate`] cuts off the rest.
const MAX_PATH: usize = 2048;
/// Maximum length of a request id or method, in bytes.
const MAX_ID: usize = 128;
/// Maximum length of a certificate name, in bytes.
pub(super) const MAX_CERT: usize = 256;

/// The ids that identify this request in other log lines and other systems.
pub(super) fn request_ids(line: &mut Line<'_>, outcome: &Outcome) {
    line.text("request_id", truncate(&outcome.request_id, MAX_ID).as_ref());
    if let Some(trace) = outcome.trace {
        line.text("trace_id", trace.id.to_string().as_str());
    }
}

/// The origin of the request.
pub(super) fn client(line: &mut Line<'_>, outcome: &Outcome) {
    if let Some(peer) = outcome.peer {
        line.field("peer", &peer);
    }
    if let Some(client) = outcome.client {
        line.field("client", &client);
    }
    if let Some(name) = &outcome.client_cert {
        line.text("client_cert", truncate(name, MAX_CERT).as_ref());
    }
}

/// Method and path. The path should have no query, but because a query may contain a bewit, it is
/// cut off here again.
pub(super) fn request_line(line: &mut Line<'_>, outcome: &Outcome) {
    line.text("method", truncate(outcome.method.as_str(), MAX_ID).as_ref());
    let path = outcome.path.split('?').next().unwrap_or_default();
    line.text("path", truncate(path, MAX_PATH).as_ref());
}

/// Adds those of `fields` that have a value.
pub(super) fn present<'a>(
    line: &mut Line<'_>,
    fields: impl IntoIterator<Item = (&'a str, Option<&'a str>)>,
) {
    for (name, value) in fields {
        if let Some(value) = value {
            line.text(name, value);
        }
    }
}

/// How many times the request was replayed.
pub(super) fn replays(outcome: &Outcome) -> u64 {
    let actions = outcome.unauthorized.iter().map(|u| u.action);
    actions
        .map(|a| u64::from(a == UnauthorizedAction::Replayed))
        .sum()
}

/// At most the first `max` bytes of `text`, cut at a character boundary and followed by `…` if
/// anything was cut off.
pub(super) fn truncate(text: &str, max: usize) -> Cow<'_, str> {
    if text.len() <= max {
        return text.into();
    }
    let mut end = max;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end]).into()
}
