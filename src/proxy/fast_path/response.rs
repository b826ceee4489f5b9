//! Parses the upstream's response and encodes it for the caller (RFC 9112 §6.3).

use bytes::{Buf, BytesMut};
use http::{Method, StatusCode, header};

use crate::header_fields::{Repeated, all, only};
use crate::proxy::h1::decode::{ChunkedState, MalformedChunk};
use crate::proxy::head::FieldList;
use crate::proxy::headers::SentCredentials;

/// Maximum size of a response head, in bytes.
pub(super) const MAX_HEAD: usize = 128 * 1024;
/// Maximum number of field lines in a response head.
const MAX_FIELDS: usize = 256;

/// The error for a response that is not valid, unambiguous HTTP/1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct InvalidResponse(pub(super) &'static str);

impl From<MalformedChunk> for InvalidResponse {
    fn from(_: MalformedChunk) -> Self {
        Self("malformed chunked body")
    }
}

/// The head of an upstream's response. Not `Debug`, because it can contain cookies and tokens.
pub(super) struct ResponseHead {
    pub(super) status: StatusCode,
    /// The reason phrase, unless it is the canonical one.
    reason: Option<Box<[u8]>>,
    pub(super) fields: FieldList,
    /// The value of `Content-Length`, if it determines the length of the body.
    length: Option<u64>,
    /// Whether the connection can be reused.
    pub(super) persistent: bool,
}

/// How the end of the body is determined, and how much of it is left.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ResponseBody {
    /// The body ends after this number of bytes.
    Length(u64),
    /// The body ends with the last chunk.
    Chunked(ChunkedState),
    /// The body ends when the connection closes.
    CloseDelimited,
    /// The connection has been closed, which ended the body.
    Eof,
}

/// The result of [`ResponseBody::forward`].
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Forwarded {
    /// The number of content bytes.
    pub(super) data: u64,
    /// Whether the body is complete.
    pub(super) done: bool,
}

impl ResponseHead {
    /// Parses a head at the beginning of `received` and removes it. Returns `None` while it is
    /// incomplete.
    pub(super) fn parse(received: &mut BytesMut) -> Result<Option<Self>, InvalidResponse> {
        let mut headers = [const { std::mem::MaybeUninit::uninit() }; MAX_FIELDS];
        let mut parsed = httparse::Response::new(&mut []);
        let status = httparse::ParserConfig::default().parse_response_with_uninit_headers(
            &mut parsed,
            received,
            &mut headers,
        );
        let end = match status {
            Ok(httparse::Status::Complete(end)) => end,
            Ok(httparse::Status::Partial) if received.len() < MAX_HEAD => return Ok(None),
            Ok(httparse::Status::Partial) => {
                return Err(InvalidResponse("response head too large"));
            }
            Err(_) => return Err(InvalidResponse("malformed response head")),
        };
        let code = parsed.code.and_then(|code| StatusCode::from_u16(code).ok());
        let status = code.ok_or(InvalidResponse("malformed status code"))?;
        let http11 = parsed.version == Some(1);
        let reason = parsed.reason.unwrap_or_default();
        let custom = status.canonical_reason() != Some(reason);
        let reason = custom.then(|| reason.as_bytes().into());
        let fields = parsed.headers.iter();
        let fields = FieldList::of(fields.map(|f| (f.name.as_bytes(), f.value)), end);
        received.advance(end);
        let mut this = Self {
            status,
            reason,
            persistent: persistent(&fields, http11),
            length: None,
            fields,
        };
        this.check_framing(http11)?;
        Ok(Some(this))
    }

    /// Rejects ambiguous framing before anything is forwarded (RFC 9112 §6.3).
    fn check_framing(&mut self, http11: bool) -> Result<(), InvalidResponse> {
        match only(&self.fields, &header::TRANSFER_ENCODING) {
            Ok(None) => {}
            Ok(Some(coding)) if http11 && coding.eq_ignore_ascii_case(b"chunked") => {
                if self.fields.contains(&header::CONTENT_LENGTH) {
                    self.fields.remove(&header::CONTENT_LENGTH);
                    // Other recipients may frame this response differently, so the connection is
                    // not reused (RFC 9112 §6.1).
                    self.persistent = false;
                }
                return Ok(());
            }
            Ok(Some(_)) | Err(Repeated) => {
                return Err(InvalidResponse("Transfer-Encoding other than chunked"));
            }
        }
        self.length = content_length(&self.fields)?;
        if let Some(length) = self.length {
            let mut digits = itoa::Buffer::new();
            let digits = digits.format(length).as_bytes();
            if only(&self.fields, &header::CONTENT_LENGTH) != Ok(Some(digits)) {
                // The same value repeated, or in a list, is forwarded as a single value.
                self.fields.set(&header::CONTENT_LENGTH, digits);
            }
        }
        Ok(())
    }

    /// Returns the body that follows this head in a response to `method`.
    pub(super) fn body(&mut self, method: &Method) -> ResponseBody {
        let bodiless = matches!(
            self.status,
            StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
        );
        if bodiless {
            self.fields.remove(&header::TRANSFER_ENCODING);
        }
        if bodiless || *method == Method::HEAD {
            return ResponseBody::Length(0);
        }
        if self.fields.contains(&header::TRANSFER_ENCODING) {
            return ResponseBody::Chunked(ChunkedState::start());
        }
        self.persistent &= self.length.is_some();
        self.length
            .map_or(ResponseBody::CloseDelimited, ResponseBody::Length)
    }

    /// Replaces a reason phrase that contains a secret of `sent` with the canonical one.
    pub(super) fn remove_echoed_reason(&mut self, sent: &SentCredentials) {
        self.reason.take_if(|reason| sent.are_echoed_in(reason));
    }

    /// Encodes the head.
    pub(super) fn encode(&self, wire: &mut BytesMut) {
        wire.extend_from_slice(b"HTTP/1.1 ");
        wire.extend_from_slice(self.status.as_str().as_bytes());
        wire.extend_from_slice(b" ");
        let canonical = || {
            self.status
                .canonical_reason()
                .unwrap_or_default()
                .as_bytes()
        };
        wire.extend_from_slice(self.reason.as_deref().unwrap_or_else(canonical));
        wire.extend_from_slice(b"\r\n");
        self.fields.encode(wire);
        wire.extend_from_slice(b"\r\n");
    }
}

/// Returns the value of `Content-Length`, if the field is present.
fn content_length(fields: &FieldList) -> Result<Option<u64>, InvalidResponse> {
    let mut found = None;
    for value in all(fields, &header::CONTENT_LENGTH) {
        for part in value.split(|b| *b == b',') {
            let part = part.trim_ascii();
            let digits = !part.is_empty() && part.iter().all(u8::is_ascii_digit);
            let length = std::str::from_utf8(part)
                .ok()
                .filter(|_| digits)
                .and_then(|part| part.parse().ok())
                .ok_or(InvalidResponse("malformed Content-Length"))?;
            if found.replace(length).is_some_and(|other| other != length) {
                return Err(InvalidResponse("conflicting Content-Length values"));
            }
        }
    }
    Ok(found)
}

/// Whether the connection persists after this response (RFC 9112 §9.3).
fn persistent(fields: &FieldList, http11: bool) -> bool {
    let contains = |option: &[u8]| {
        all(fields, &header::CONNECTION)
            .flat_map(|value| value.split(|b| *b == b','))
            .any(|found| found.trim_ascii().eq_ignore_ascii_case(option))
    };
    !contains(b"close") && (http11 || contains(b"keep-alive"))
}

impl ResponseBody {
    /// Moves the part of the body that is in `received` to `wire`, with the framing for the
    /// caller.
    pub(super) fn forward(
        &mut self,
        received: &mut BytesMut,
        wire: &mut BytesMut,
    ) -> Result<Forwarded, InvalidResponse> {
        let mut data = 0;
        let done = match self {
            Self::Length(left) => {
                let here = usize::try_from(*left).unwrap_or(usize::MAX);
                let here = here.min(received.len());
                wire.extend_from_slice(received.get(..here).unwrap_or_default());
                received.advance(here);
                data = here as u64;
                *left -= data;
                *left == 0
            }
            Self::Chunked(chunk) => {
                let taken = chunk.decode_data(received, |part| {
                    data += part.len() as u64;
                    write_chunk(part, wire);
                })?;
                received.advance(taken);
                *chunk == ChunkedState::End
            }
            Self::CloseDelimited | Self::Eof => {
                data = received.len() as u64;
                write_chunk(received, wire);
                received.clear();
                *self == Self::Eof
            }
        };
        if done && self.is_chunked() {
            wire.extend_from_slice(b"0\r\n\r\n");
        }
        Ok(Forwarded { data, done })
    }

    /// The beginning of the content, of which `received` contains the framed form, and whether it
    /// is all of it. Only before anything was forwarded; consumes nothing.
    pub(super) fn preview(&self, received: &[u8]) -> (Vec<u8>, bool) {
        match self {
            Self::Length(left) => {
                let here = usize::try_from(*left).unwrap_or(usize::MAX);
                let here = received.get(..here).unwrap_or(received);
                (here.to_vec(), here.len() as u64 == *left)
            }
            Self::Chunked(_) => {
                let (mut chunk, mut content) = (ChunkedState::start(), Vec::new());
                let decoded = chunk.decode_data(received, |part| content.extend_from_slice(part));
                (content, decoded.is_err() || chunk == ChunkedState::End)
            }
            Self::CloseDelimited | Self::Eof => (received.to_vec(), *self == Self::Eof),
        }
    }

    /// Accounts for this number of leading bytes of a body of known length, which the caller of
    /// this method forwards itself.
    pub(super) fn advance(&mut self, bytes: usize) -> Forwarded {
        let data = bytes as u64;
        let done = match self {
            Self::Length(left) => {
                *left = left.saturating_sub(data);
                *left == 0
            }
            _ => false,
        };
        Forwarded { data, done }
    }

    /// Handles the end of the connection.
    ///
    /// # Errors
    /// Returns an error unless the body is delimited by the end of the connection.
    pub(super) fn on_eof(&mut self) -> Result<(), InvalidResponse> {
        if *self != Self::CloseDelimited {
            return Err(InvalidResponse(
                "connection closed before the end of the body",
            ));
        }
        *self = Self::Eof;
        Ok(())
    }

    /// Whether the caller receives the body in chunks.
    pub(super) fn is_chunked(&self) -> bool {
        !matches!(self, Self::Length(_))
    }
}

fn write_chunk(data: &[u8], wire: &mut BytesMut) {
    if data.is_empty() {
        // An empty chunk would end the body.
        return;
    }
    wire.extend_from_slice(format!("{:x}\r\n", data.len()).as_bytes());
    wire.extend_from_slice(data);
    wire.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Result<Option<ResponseHead>, InvalidResponse> {
        ResponseHead::parse(&mut BytesMut::from(text))
    }

    fn framed(fields: &str) -> Result<(ResponseBody, bool), InvalidResponse> {
        let mut head = head(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n"))?.unwrap();
        let body = head.body(&Method::GET);
        Ok((body, head.persistent))
    }

    #[test]
    fn ambiguous_response_framing_is_rejected() {
        let chunked = || ResponseBody::Chunked(ChunkedState::start());
        for (fields, expected) in [
            ("", (ResponseBody::CloseDelimited, false)),
            ("Content-Length: 5\r\n", (ResponseBody::Length(5), true)),
            ("Content-Length: 5, 5\r\n", (ResponseBody::Length(5), true)),
            (
                "Content-Length: 5\r\nContent-Length: 5\r\n",
                (ResponseBody::Length(5), true),
            ),
            ("Transfer-Encoding: Chunked\r\n", (chunked(), true)),
            (
                "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
                (chunked(), false),
            ),
            (
                "Content-Length: 0\r\nConnection: x, Close\r\n",
                (ResponseBody::Length(0), false),
            ),
        ] {
            assert_eq!(framed(fields), Ok(expected), "{fields:?}");
        }
        for fields in [
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Content-Length: 5, 6\r\n",
            "Content-Length: -1\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: 5,\r\n",
            "Content-Length: \r\n",
            "Content-Length: 0x5\r\n",
            "Content-Length: 99999999999999999999\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: identity\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        ] {
            assert!(framed(fields).is_err(), "{fields:?}");
        }
        assert!(head("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
        let old = head("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n");
        assert!(!old.unwrap().unwrap().persistent);
        let old = head("HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\n\r\n");
        assert!(old.unwrap().unwrap().persistent);
    }

    #[test]
    fn responses_to_head_204_and_304_have_no_body() {
        for status in ["204 No Content", "304 Not Modified"] {
            let fields = "Content-Length: 9\r\n";
            let mut found = head(&format!("HTTP/1.1 {status}\r\n{fields}\r\n"))
                .unwrap()
                .unwrap();
            assert_eq!(found.body(&Method::GET), ResponseBody::Length(0));
            assert!(found.persistent);
        }
        let mut found = head("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")
            .unwrap()
            .unwrap();
        assert_eq!(found.body(&Method::HEAD), ResponseBody::Length(0));
        let length: Vec<_> = all(&found.fields, &header::CONTENT_LENGTH).collect();
        assert_eq!(length, [b"9"]);
    }

    #[test]
    fn parsing_a_response_head_leaves_the_body_in_the_buffer() {
        let mut received =
            BytesMut::from("HTTP/1.1 200 Fine, Thanks\r\nX-Odd_Name:  v \r\n\r\nrest");
        let head = ResponseHead::parse(&mut received).unwrap().unwrap();
        assert_eq!(&received[..], b"rest");
        let mut wire = BytesMut::new();
        head.encode(&mut wire);
        assert_eq!(
            std::str::from_utf8(&wire).unwrap(),
            "HTTP/1.1 200 Fine, Thanks\r\nX-Odd_Name: v\r\n\r\n"
        );
        let mut partial = BytesMut::from("HTTP/1.1 200 OK\r\nX: ");
        assert!(ResponseHead::parse(&mut partial).unwrap().is_none());
        assert_eq!(partial.len(), 20, "an incomplete head stays in the buffer");
        for bad in [
            "HTTP/2.0 200 OK\r\n\r\n",
            "ICY 200 OK\r\n\r\n",
            "HTTP/1.1 099 X\r\n\r\n",
            "HTTP/1.1 20 X\r\n\r\n",
            "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            "HTTP/1.1 200 OK\r\n folded: x\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX : a\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n",
        ] {
            assert!(super::tests::head(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn response_head_size_and_field_count_are_limited() {
        let mut long = BytesMut::from("HTTP/1.1 200 OK\r\nX: ");
        long.resize(MAX_HEAD - 1, b'x');
        assert!(matches!(ResponseHead::parse(&mut long), Ok(None)));
        long.extend_from_slice(b"x");
        assert!(ResponseHead::parse(&mut long).is_err());
        let many = format!(
            "HTTP/1.1 200 OK\r\n{}\r\n",
            "a: b\r\n".repeat(MAX_FIELDS + 1)
        );
        assert!(head(&many).is_err());
    }

    fn forward_all(
        mut body: ResponseBody,
        pieces: &[&str],
    ) -> Result<(String, bool, usize), InvalidResponse> {
        let (mut wire, mut received) = (BytesMut::new(), BytesMut::new());
        let mut last = Forwarded::default();
        for piece in pieces {
            received.extend_from_slice(piece.as_bytes());
            last = body.forward(&mut received, &mut wire)?;
        }
        let text = String::from_utf8(wire.to_vec()).unwrap();
        Ok((text, last.done, received.len()))
    }

    #[test]
    fn response_bodies_are_reframed() {
        let chunked = || ResponseBody::Chunked(ChunkedState::start());
        assert_eq!(
            forward_all(ResponseBody::Length(5), &["he", "lloX"]),
            Ok(("hello".into(), true, 1))
        );
        assert_eq!(
            forward_all(ResponseBody::Length(0), &["X"]),
            Ok((String::new(), true, 1))
        );
        // Extensions and trailers are dropped.
        assert_eq!(
            forward_all(chunked(), &["3;a=b\r\nab", "c\r\n0\r\nX: y\r", "\n\r\nZ"]),
            Ok(("2\r\nab\r\n1\r\nc\r\n0\r\n\r\n".into(), true, 1))
        );
        assert_eq!(
            forward_all(chunked(), &["5\r\nhel"]),
            Ok(("3\r\nhel\r\n".into(), false, 0))
        );
        assert_eq!(
            forward_all(ResponseBody::CloseDelimited, &["", "hello"]),
            Ok(("5\r\nhello\r\n".into(), false, 0))
        );
        assert!(forward_all(chunked(), &["5\nhello"]).is_err());
    }

    #[test]
    fn only_close_delimited_bodies_end_at_eof() {
        assert!(
            ResponseBody::Chunked(ChunkedState::start())
                .on_eof()
                .is_err()
        );
        assert!(ResponseBody::Length(1).on_eof().is_err());
        let mut body = ResponseBody::CloseDelimited;
        let mut wire = BytesMut::new();
        let forwarded = body.forward(&mut BytesMut::from("hello"), &mut wire);
        assert_eq!(forwarded.unwrap().data, 5);
        body.on_eof().unwrap();
        let forwarded = body.forward(&mut BytesMut::new(), &mut wire);
        assert_eq!(
            forwarded,
            Ok(Forwarded {
                data: 0,
                done: true
            })
        );
        assert_eq!(&wire[..], b"5\r\nhello\r\n0\r\n\r\n");
    }
}
