//! Taskcluster's 401 for `authorizedScopes` that the client does not hold: how it is recognised, and
//! how the operator learns which rule asks for too much (`docs/design/taskcluster.md`, "Errors and
//! status codes").
//!
//! The body of such a 401 repeats the request, so nothing of it is ever logged.

use std::collections::HashMap;
use std::io::Read as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flate2::read::GzDecoder;
use http::header;

use crate::header_fields::{HeaderFields, only};

/// Maximum number of bytes of a body that are looked at, before and after decompression.
const MAX_LOOK_BYTES: usize = 8 * 1024;

/// Maximum time to wait for these bytes. A 401 that takes longer is one like any other.
pub const LOOK_TIMEOUT: Duration = Duration::from_secs(2);

/// Maximum number of pieces in which the body may arrive, because each is parsed with those before.
const MAX_PIECES: usize = 64;

/// What the message begins with; Taskcluster's API library prefixes authentication errors.
const MESSAGES: [&[u8]; 2] = [
    b"Supplied credentials do not satisfy authorizedScopes",
    b"Unauthorized: Supplied credentials do not satisfy authorizedScopes",
];

/// How often the refusal of one rule's scopes is logged.
const LOG_INTERVAL: Duration = Duration::from_mins(1);

/// The beginning of the body of a 401.
#[derive(Debug)]
pub struct UnauthorizedBody {
    gzip: bool,
    received: Vec<u8>,
    pieces: usize,
}

/// Whether a 401 is about `authorizedScopes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScopesVerdict {
    /// It depends on the rest of the body.
    Undecided,
    /// The client does not hold the scopes that the request was narrowed to.
    Refused,
    /// It is about something else, or nothing is known about it.
    Other,
}

impl UnauthorizedBody {
    /// For the response with these `fields`; `None` if its body could not be read: it is not JSON,
    /// empty, or in a content coding other than gzip.
    pub fn new(fields: &dyn HeaderFields) -> Option<Self> {
        let json = |value: &[u8]| {
            let kind = value.split(|b| *b == b';').next().unwrap_or_default();
            kind.trim_ascii().eq_ignore_ascii_case(b"application/json")
        };
        if !only(fields, &header::CONTENT_TYPE).ok()?.is_some_and(json)
            || only(fields, &header::CONTENT_LENGTH) == Ok(Some(b"0"))
        {
            return None;
        }
        let gzip = match only(fields, &header::CONTENT_ENCODING).ok()? {
            None => false,
            Some(coding) if coding.eq_ignore_ascii_case(b"identity") => false,
            Some(coding) if coding.eq_ignore_ascii_case(b"gzip") => true,
            Some(_) => return None,
        };
        Some(Self {
            gzip,
            received: Vec::new(),
            pieces: 0,
        })
    }

    /// Adds the next `piece` of the body.
    pub fn add(&mut self, piece: &[u8]) -> ScopesVerdict {
        let room = MAX_LOOK_BYTES.saturating_sub(self.received.len());
        let piece = piece.get(..room).unwrap_or(piece);
        self.received.extend_from_slice(piece);
        self.pieces += 1;
        match self.verdict() {
            ScopesVerdict::Undecided
                if self.received.len() >= MAX_LOOK_BYTES || self.pieces >= MAX_PIECES =>
            {
                ScopesVerdict::Other
            }
            verdict => verdict,
        }
    }

    fn verdict(&self) -> ScopesVerdict {
        if !self.gzip {
            return judge(&self.received);
        }
        let mut plain = Vec::new();
        let limit = MAX_LOOK_BYTES as u64;
        // An error only means that the rest is missing, or damaged; what was decoded counts.
        let _ = GzDecoder::new(&self.received[..])
            .take(limit)
            .read_to_end(&mut plain);
        judge(&plain)
    }
}

/// Judges a body by its beginning: the top-level member `message` of a JSON object.
fn judge(body: &[u8]) -> ScopesVerdict {
    match message(body) {
        Scan::Found(text) => {
            let refused = MESSAGES.iter().any(|known| text.starts_with(known));
            let maybe = MESSAGES.iter().any(|known| known.starts_with(text));
            match (refused, maybe) {
                (true, _) => ScopesVerdict::Refused,
                (false, true) => ScopesVerdict::Undecided,
                (false, false) => ScopesVerdict::Other,
            }
        }
        Scan::Incomplete => ScopesVerdict::Undecided,
        Scan::Absent => ScopesVerdict::Other,
    }
}

/// Where the member `message` is.
enum Scan<'a> {
    /// The text from its beginning to the end of what has arrived, as written in JSON.
    Found(&'a [u8]),
    /// Not in what has arrived.
    Incomplete,
    /// The body is not an object, or is one without this member.
    Absent,
}

fn message(body: &[u8]) -> Scan<'_> {
    scan(body).unwrap_or_else(|end| match end {
        End::OfInput => Scan::Incomplete,
        End::OfMembers => Scan::Absent,
    })
}

fn scan(body: &[u8]) -> Result<Scan<'_>, End> {
    let mut rest = skip(body, b'{')?;
    loop {
        let name_on = skip(rest, b'"')?;
        let end = end_of_string(name_on).ok_or(End::OfInput)?;
        let (name, after) = name_on.split_at(end);
        let value = skip(after.get(1..).unwrap_or_default(), b':')?;
        if name == b"message" {
            return Ok(Scan::Found(skip(value, b'"')?));
        }
        let end = end_of_value(value).ok_or(End::OfInput)?;
        rest = skip(value.get(end..).unwrap_or_default(), b',')?;
    }
}

/// Why there is no such member.
enum End {
    /// What has arrived ends before it.
    OfInput,
    /// The object ends before it, or something else than an object begins.
    OfMembers,
}

/// What follows `expected`, which may be preceded by white space.
fn skip(text: &[u8], expected: u8) -> Result<&[u8], End> {
    match text.trim_ascii_start().split_first() {
        Some((first, rest)) if *first == expected => Ok(rest),
        Some(_) => Err(End::OfMembers),
        None => Err(End::OfInput),
    }
}

/// The index of the quote that closes the string whose opening quote is before `text`.
fn end_of_string(text: &[u8]) -> Option<usize> {
    let mut escaped = false;
    text.iter().position(|b| {
        let closes = *b == b'"' && !escaped;
        escaped = *b == b'\\' && !escaped;
        closes
    })
}

/// The index of the comma or bracket after the value at the beginning of `text`.
fn end_of_value(text: &[u8]) -> Option<usize> {
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => at += 1 + end_of_string(text.get(at + 1..)?)?,
            b'{' | b'[' => depth += 1,
            b'}' | b']' | b',' if depth == 0 => return Some(at),
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        at += 1;
    }
    None
}

/// When the refusals of a route's rules were last logged, in monotonic time.
#[derive(Debug, Default)]
pub struct RefusalLog(Mutex<HashMap<Option<Arc<str>>, Duration>>);

impl RefusalLog {
    /// Whether `rule` may be logged at `now`. Bounded by the number of rules.
    pub(super) fn is_due(&self, rule: Option<&Arc<str>>, now: Duration) -> bool {
        let mut logged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let last = logged.get(&rule.cloned());
        if last.is_some_and(|last| now < last.saturating_add(LOG_INTERVAL)) {
            return false;
        }
        logged.insert(rule.cloned(), now);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use http::{HeaderMap, HeaderValue};

    use super::*;

    const REFUSED: &str = r#"{"code":"AuthenticationFailed","message":"Unauthorized: Supplied credentials do not satisfy authorizedScopes; credentials have scopes [a]","requestInfo":{}}"#;

    fn body(fields: &[(&'static str, &'static str)]) -> Option<UnauthorizedBody> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        UnauthorizedBody::new(&headers)
    }

    fn plain() -> UnauthorizedBody {
        body(&[("content-type", "application/json; charset=utf-8")]).unwrap()
    }

    #[test]
    fn the_refusal_is_recognised_by_the_beginning_of_the_message() {
        use ScopesVerdict::{Other, Refused, Undecided};
        let long = format!(
            r#"{{"message":"Supplied credentials do not satisfy authorizedScopes; {}"#,
            "x".repeat(9000)
        );
        let payload = r#"{"code":"x","message":"Unauthorized: Bad mac","requestInfo":{"payload":{"message":"Supplied credentials do not satisfy authorizedScopes"}}}"#;
        let nested = r#"{"requestInfo":{"a":["}",{"message":"Supplied credentials do not satisfy authorizedScopes"}]},"n":1,"message":"no"}"#;
        for (text, expected) in [
            (REFUSED, Refused),
            (&long, Refused),
            (&format!(" \n{REFUSED}"), Refused),
            (payload, Other),
            (nested, Other),
            (r#"{"message" : "Unauth"#, Undecided),
            (r#"{"message":"Unauthorized: Bad mac"#, Other),
            (r#"{"message":7}"#, Other),
            (r#"{"code":"a\"b","mess"#, Undecided),
            (r#"{"code":"x"}"#, Other),
            ("{}", Other),
            ("", Undecided),
            ("<html>", Other),
            ("[1]", Other),
        ] {
            assert_eq!(plain().add(text.as_bytes()), expected, "{text:.80}");
        }
    }

    #[test]
    fn pieces_add_up_and_their_size_and_number_are_bounded() {
        let mut body = plain();
        let (one, two) = REFUSED.as_bytes().split_at(50);
        assert_eq!(body.add(one), ScopesVerdict::Undecided);
        assert_eq!(body.add(two), ScopesVerdict::Refused);
        let mut body = plain();
        body.add(b"{\"a\":\"");
        assert_eq!(body.add(&[b'x'; MAX_LOOK_BYTES]), ScopesVerdict::Other);
        assert_eq!(body.received.len(), MAX_LOOK_BYTES);
        let mut body = plain();
        body.add(b"{\"a\":\"");
        let last = (1..MAX_PIECES).map(|_| body.add(b"x")).last();
        assert_eq!(last, Some(ScopesVerdict::Other));
    }

    #[test]
    fn gzip_is_decompressed_as_far_as_it_arrives() {
        let json = ("content-type", "application/json");
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        write!(encoder, "{}", &REFUSED[..REFUSED.len() - 20]).unwrap();
        for number in 0..4000 {
            write!(encoder, "{number}, ").unwrap();
        }
        let compressed = encoder.finish().unwrap();
        let mut gzip = body(&[json, ("content-encoding", "GZIP")]).unwrap();
        assert_eq!(gzip.add(&compressed[..5000]), ScopesVerdict::Refused);
        let mut gzip = body(&[json, ("content-encoding", "gzip")]).unwrap();
        assert_eq!(gzip.add(&compressed[..20]), ScopesVerdict::Undecided);
        assert!(body(&[json, ("content-encoding", "br")]).is_none());
        assert!(body(&[json, ("content-length", "0")]).is_none());
        assert!(body(&[json, json]).is_none());
        assert!(body(&[]).is_none() && body(&[("content-type", "text/html")]).is_none());
    }

    #[test]
    fn a_refusal_is_logged_once_in_each_interval_and_for_each_rule() {
        let log = RefusalLog::default();
        let rule: Arc<str> = "r".into();
        let second = Duration::from_secs(1);
        assert!(log.is_due(Some(&rule), second));
        assert!(!log.is_due(Some(&rule), LOG_INTERVAL));
        assert!(log.is_due(None, LOG_INTERVAL));
        assert!(log.is_due(Some(&rule), LOG_INTERVAL + second));
    }
}
