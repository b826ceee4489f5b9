//! Requests of every shape, and what their callers see of the answers.

use std::io;

use bytes::Bytes;
use http::HeaderMap;
use tokio::io::AsyncWriteExt;

use super::answers::{DATE, Date, Length};
use crate::known_differences::patiently;
use crate::support::client::{connect, fields};
use crate::support::gateway::TestGateway;
use crate::support::wire::{BodyReader, Fields, Framing, Head, Reader, Reading, Writing, chunk};

/// The body of requests that have one.
const BODY: &str = "the body";

/// What a request looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Get,
    PostLength,
    PostChunked,
    GetClose,
    Http10Get,
    Http2Get,
    Http2Post,
}

impl Shape {
    pub(super) const ALL: [Self; 7] = [
        Self::Get,
        Self::PostLength,
        Self::PostChunked,
        Self::GetClose,
        Self::Http10Get,
        Self::Http2Get,
        Self::Http2Post,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::PostLength => "POST",
            Self::PostChunked => "POST chunked",
            Self::GetClose => "GET close",
            Self::Http10Get => "GET 1.0",
            Self::Http2Get => "h2 GET",
            Self::Http2Post => "h2 POST",
        }
    }

    pub(super) fn has_body(self) -> bool {
        matches!(self, Self::PostLength | Self::PostChunked | Self::Http2Post)
    }

    pub(super) fn is_http1(self) -> bool {
        !matches!(self, Self::Http2Get | Self::Http2Post)
    }

    /// The bytes of a request in HTTP/1.
    fn encode(self, method: &str, path: &str) -> Vec<u8> {
        let method = if self.has_body() { "POST" } else { method };
        let version = if self == Self::Http10Get {
            "1.0"
        } else {
            "1.1"
        };
        let head = format!("{method} /{path} HTTP/{version}\r\nHost: localhost\r\n");
        let rest = match self {
            Self::PostLength => format!("Content-Length: {}\r\n\r\n{BODY}", BODY.len()),
            Self::PostChunked => {
                let body = String::from_utf8(chunk(BODY.as_bytes())).unwrap();
                format!("Transfer-Encoding: chunked\r\n\r\n{body}0\r\n\r\n")
            }
            Self::GetClose => "Connection: close\r\n\r\n".into(),
            _ => "\r\n".into(),
        };
        (head + &rest).into_bytes()
    }
}

/// An answer as its caller sees it.
#[derive(Debug)]
pub(super) struct Seen {
    /// The 1xx answers before it, with their fields.
    pub(super) interim: Vec<Interim>,
    pub(super) status: u16,
    /// HTTP/1 only.
    pub(super) reason: Option<String>,
    pub(super) length: Length,
    pub(super) body: String,
    /// False if the connection or stream ended before the body.
    pub(super) complete: bool,
    /// All other fields, sorted by name.
    pub(super) fields: Vec<(String, String)>,
    pub(super) date: Date,
    pub(super) error_reason: Option<String>,
    /// What the caller's protocol forbids.
    pub(super) illegal: Vec<String>,
}

/// A 1xx answer: its status, and its fields in lower case, sorted by name.
pub(super) type Interim = (u16, Vec<(String, String)>);

/// A connection for requests of one shape.
pub(super) struct Caller {
    pub(super) shape: Shape,
    connection: Connection,
}

enum Connection {
    Http1 {
        reader: Reader<Reading>,
        writer: Writing,
        persistent: bool,
    },
    Http2(h2::client::SendRequest<Bytes>),
}

impl Caller {
    pub(super) async fn connect(gateway: &TestGateway, shape: Shape) -> Self {
        let listener = &gateway.running.listeners[usize::from(!shape.is_http1())];
        let stream = connect(listener).await.unwrap();
        let connection = if shape.is_http1() {
            let (reading, writer) = tokio::io::split(stream);
            Connection::Http1 {
                reader: Reader::new(reading),
                writer,
                persistent: true,
            }
        } else {
            let (sender, connection) = h2::client::handshake(stream).await.unwrap();
            tokio::spawn(async move {
                // Connection errors also surface as errors of the streams.
                let _ = connection.await;
            });
            Connection::Http2(sender)
        };
        Self { shape, connection }
    }

    /// Whether another request may follow on this connection.
    pub(super) fn is_persistent(&self) -> bool {
        match &self.connection {
            Connection::Http1 { persistent, .. } => *persistent,
            Connection::Http2(_) => true,
        }
    }

    /// Sends a request and reads the answer; fails with a description if it cannot be read.
    pub(super) async fn exchange(&mut self, method: &str, path: &str) -> Result<Seen, String> {
        let Self { shape, connection } = self;
        let exchange = async {
            match connection {
                Connection::Http1 {
                    reader,
                    writer,
                    persistent,
                } => {
                    // Until the answer has been read to its end.
                    *persistent = false;
                    let request = shape.encode(method, path);
                    writer.write_all(&request).await.unwrap();
                    let (seen, kept) = read_http1(reader, *shape, method).await?;
                    *persistent = kept;
                    Ok(seen)
                }
                Connection::Http2(sender) => http2(sender, *shape, method, path).await,
            }
        };
        patiently(exchange).await?
    }
}

fn unreadable(error: &io::Error) -> String {
    format!("unreadable: {error}")
}

/// Reads an answer, and whether another request may follow.
async fn read_http1(
    reader: &mut Reader<Reading>,
    shape: Shape,
    method: &str,
) -> Result<(Seen, bool), String> {
    let mut illegal = Vec::new();
    let mut interim = Vec::new();
    let (head, status) = loop {
        let head = reader.head().await.map_err(|e| unreadable(&e))?;
        let head = head.ok_or("no answer")?;
        let status = status(&head)?;
        if !(100..200).contains(&status) || status == 101 {
            break (head, status);
        }
        illegal.extend(framing_fields(status, &head.fields));
        interim.push((status, sorted(&head.fields)));
    };
    let bodiless = method == "HEAD" || matches!(status, 101 | 204 | 304);
    let length = length(&head.fields)?;
    if matches!(status, 101 | 204) {
        illegal.extend(framing_fields(status, &head.fields));
    }
    let chunked = head.fields.first("transfer-encoding").is_some();
    if chunked && shape == Shape::Http10Get {
        illegal.push("Transfer-Encoding in HTTP/1.0".into());
    }
    let framing = match (bodiless, length, chunked) {
        (true, ..) => Framing::Length(0),
        (_, Length::Known(length), _) => Framing::Length(length),
        (_, Length::Unknown, true) => Framing::Chunked,
        (_, Length::Unknown, false) => Framing::UntilClose,
    };
    if framing == Framing::UntilClose && shape != Shape::Http10Get {
        illegal.push("ends with its connection".into());
    }
    let mut reading = BodyReader::new(framing);
    let mut body = Vec::new();
    let complete = loop {
        match reading.next(reader).await {
            Ok(Some(piece)) => body.extend_from_slice(&piece),
            Ok(None) => break true,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(unreadable(&error));
            }
            Err(_) => break false,
        }
    };
    illegal.extend(forbidden_trailers(&reading.trailers));
    let closes = || {
        let mut options = head.fields.all("connection").flat_map(|v| v.split(','));
        options.any(|option| option.trim().eq_ignore_ascii_case("close"))
    };
    let persistent = complete
        && status != 101
        && framing != Framing::UntilClose
        && !matches!(shape, Shape::GetClose | Shape::Http10Get)
        && !closes();
    let reason = head.start.splitn(3, ' ').nth(2).unwrap_or_default();
    let mut seen = seen(status, &head.fields, length);
    seen.interim = interim;
    seen.reason = Some(reason.to_owned());
    seen.body = String::from_utf8_lossy(&body).into_owned();
    seen.complete = complete;
    seen.illegal = illegal;
    Ok((seen, persistent))
}

fn status(head: &Head) -> Result<u16, String> {
    let code = head.start.split(' ').nth(1).unwrap_or_default();
    let parsed = code.parse().ok().filter(|_| code.len() == 3);
    parsed.ok_or_else(|| format!("status line {:?}", head.start))
}

/// The length that an answer states, which must be a single number, without a transfer coding
/// beside it.
fn length(fields: &Fields) -> Result<Length, String> {
    let codings: Vec<_> = fields.all("transfer-encoding").collect();
    let lengths: Vec<_> = fields.all("content-length").collect();
    match (&codings[..], &lengths[..]) {
        ([], []) => Ok(Length::Unknown),
        ([coding], []) if coding.eq_ignore_ascii_case("chunked") => Ok(Length::Unknown),
        ([], [length]) if length.bytes().all(|byte| byte.is_ascii_digit()) => {
            Ok(Length::Known(length.parse().map_err(|_| "a huge length")?))
        }
        ([], _) => Err(format!("Content-Length: {}", lengths.join(" and "))),
        (_, []) => Err(format!("Transfer-Encoding: {}", codings.join(" and "))),
        _ => Err("Transfer-Encoding and Content-Length".into()),
    }
}

/// The fields that must not be in answers without content (RFC 9110 §8.6, RFC 9112 §6.1).
fn framing_fields(status: u16, fields: &Fields) -> Vec<String> {
    ["Content-Length", "Transfer-Encoding"]
        .into_iter()
        .filter(|name| fields.first(name).is_some())
        .map(|name| format!("{name} in {status}"))
        .collect()
}

/// Fields that must not be in trailers (RFC 9110 §6.5.1).
fn forbidden_trailers(trailers: &Fields) -> Vec<String> {
    [
        "content-length",
        "transfer-encoding",
        "authorization",
        "host",
    ]
    .into_iter()
    .filter(|name| trailers.first(name).is_some())
    .map(|name| format!("{name} in the trailers"))
    .collect()
}

/// All fields but those that frame the message or belong to the connection.
fn sorted(fields: &Fields) -> Vec<(String, String)> {
    const OWN: [&str; 3] = ["content-length", "transfer-encoding", "date"];
    let lower = fields
        .0
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value.clone()));
    let mut fields: Vec<_> = lower
        .filter(|(name, value)| {
            let persistence =
                name == "connection" && matches!(value.as_str(), "close" | "keep-alive");
            !OWN.contains(&name.as_str()) && !persistence
        })
        .collect();
    fields.sort_by(|(one, _), (other, _)| one.cmp(other));
    fields
}

fn seen(status: u16, fields: &Fields, length: Length) -> Seen {
    let dates: Vec<_> = fields.all("date").collect();
    let date = match &dates[..] {
        [] => Date::Missing,
        [date] if *date == DATE => Date::Kept,
        [_] => Date::Added,
        _ => Date::Repeated,
    };
    Seen {
        interim: Vec::new(),
        status,
        reason: None,
        length,
        body: String::new(),
        complete: true,
        fields: sorted(fields),
        date,
        error_reason: fields.first("x-hawkgate-error").map(str::to_owned),
        illegal: Vec::new(),
    }
}

async fn http2(
    sender: &h2::client::SendRequest<Bytes>,
    shape: Shape,
    method: &str,
    path: &str,
) -> Result<Seen, String> {
    let lost = |_: h2::Error| "no answer".to_owned();
    let method = if shape.has_body() { "POST" } else { method };
    let request = http::Request::builder()
        .method(method)
        .uri(format!("http://localhost/{path}"))
        .body(())
        .unwrap();
    let mut sender = sender.clone().ready().await.map_err(lost)?;
    let (mut response, mut upload) = sender
        .send_request(request, !shape.has_body())
        .map_err(lost)?;
    if shape.has_body() {
        // Fits into the initial window.
        upload.send_data(BODY.into(), true).map_err(lost)?;
    }
    let mut interim = Vec::new();
    let mut illegal = Vec::new();
    while let Some(head) = std::future::poll_fn(|cx| response.poll_informational(cx)).await {
        let head = head.map_err(lost)?;
        let (status, fields) = (head.status().as_u16(), fields(head.headers()));
        illegal.extend(framing_fields(status, &fields));
        interim.push((status, sorted(&fields)));
    }
    let answer = response.await.map_err(lost)?;
    let (parts, mut stream) = answer.into_parts();
    let (body, complete, trailers) = read_http2(&mut stream).await;
    let head = fields(&parts.headers);
    let status = parts.status.as_u16();
    if status == 204 {
        illegal.extend(framing_fields(status, &head));
    }
    illegal.extend(forbidden_trailers(&fields(&trailers)));
    let mut seen = seen(status, &head, length(&head)?);
    seen.interim = interim;
    seen.body = String::from_utf8_lossy(&body).into_owned();
    seen.complete = complete;
    seen.illegal = illegal;
    Ok(seen)
}

/// Reads a body and its trailers, and whether it is complete.
async fn read_http2(stream: &mut h2::RecvStream) -> (Vec<u8>, bool, HeaderMap) {
    let mut body = Vec::new();
    while let Some(piece) = stream.data().await {
        let Ok(piece) = piece else {
            return (body, false, HeaderMap::new());
        };
        stream.flow_control().release_capacity(piece.len()).unwrap();
        body.extend_from_slice(&piece);
    }
    match stream.trailers().await {
        Ok(trailers) => (body, true, trailers.unwrap_or_default()),
        Err(_) => (body, false, HeaderMap::new()),
    }
}
