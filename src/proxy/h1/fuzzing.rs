//! What HTTP/1 makes of messages, for [`crate::proxy::fuzzing`].

use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode, Version};
use tokio::io::{AsyncRead, DuplexStream, ReadBuf, duplex};

use super::connection::Connection;
use super::decode::BodyDecoder;
use super::encode::Writer;
use super::head::{Response, encode_request, parse_request, parse_response};
use super::session::Session;
use crate::proxy::head::{BodySize, FieldList, RequestHead};
use crate::proxy::headers::sanitize_response;
use crate::proxy::validate::Framing;

/// More than an input becomes.
const ROOM: usize = 64 << 20;

/// A request as the upstream receives it.
#[derive(Debug)]
pub struct RelayedRequest {
    /// The method.
    pub method: Method,
    /// The target in origin-form, or `*`.
    pub target: String,
    /// The host for which the request is routed.
    pub host: Option<String>,
    /// Whether the request asks for an upgrade.
    pub tunnel: bool,
    /// Head and body.
    pub wire: Vec<u8>,
}

/// A response as the caller receives it.
#[derive(Debug)]
pub struct RelayedResponse {
    /// Head and body.
    pub wire: Vec<u8>,
    /// Whether the response is complete.
    pub complete: bool,
    /// The number of content bytes.
    pub content: u64,
}

/// The content, the number of bytes taken, and whether the body has ended.
pub(in crate::proxy) type Decoded = (Vec<u8>, usize, bool);

/// Decodes a body of which `pieces` arrive one after the other; `None` if it is malformed.
pub(in crate::proxy) fn decode<'p>(
    framing: Framing,
    pieces: impl IntoIterator<Item = &'p [u8]>,
) -> Option<Decoded> {
    let mut decoder = BodyDecoder::from(framing);
    let (mut received, mut content, mut arrived) = (BytesMut::new(), Vec::new(), 0);
    for piece in pieces {
        arrived += piece.len();
        received.extend_from_slice(piece);
        if !decoder.is_done() {
            let length = decoder.decode_content(&mut received).ok()?;
            content.extend_from_slice(&received.split_to(length));
        }
    }
    Some((content, arrived - received.len(), decoder.is_done()))
}

/// A request with `content`; its head has passed the checks.
pub(in crate::proxy) fn request(
    head: &[u8],
    framing: Framing,
    content: &[u8],
) -> Option<RelayedRequest> {
    let tunnel = framing == Framing::Tunnel;
    let head = parse_request(&Bytes::copy_from_slice(head), framing)?;
    let mut writer = Writer::new();
    encode_request(&head, head.target(), writer.head());
    writer.begin_body(head.body.into());
    let (local, mut peer) = duplex(ROOM);
    let (mut stream, mut rest): (pingora::protocols::Stream, _) = (Box::new(local), content);
    let cx = &mut Context::from_waker(Waker::noop());
    while !rest.is_empty() {
        let taken = ready(writer.poll_write(&mut stream, cx, rest, true));
        rest.advance(taken.expect("content of this length was announced"));
    }
    ready(writer.poll_finish(&mut stream, cx)).expect("the content is complete");
    Some(RelayedRequest {
        target: head.target().to_owned(),
        host: head.host().map(str::to_owned),
        tunnel,
        wire: read(&mut peer),
        method: head.method,
    })
}

/// A response to `method`, of which `piece` bytes arrive at a time.
pub(in crate::proxy) fn response(
    method: &Method,
    data: &[u8],
    piece: usize,
) -> Option<RelayedResponse> {
    let mut pieces = data.chunks(piece.max(1));
    let mut received = BytesMut::new();
    let Response { mut head, body, .. } = loop {
        if !received.is_empty()
            && let Some(response) = parse_response(&mut received, method, false).ok()?
        {
            assert_ne!(response.head.status, StatusCode::SWITCHING_PROTOCOLS);
            if !response.head.status.is_informational() {
                break response;
            }
        } else {
            received.extend_from_slice(pieces.next()?);
        }
    };
    sanitize_response(&mut head.fields, head.status).ok()?;
    let (local, mut peer) = duplex(ROOM);
    let mut connection = Connection::new(Box::new(local));
    let request = RequestHead::new(
        method.clone(),
        Version::HTTP_11,
        (None, Bytes::from_static(b"/")),
        FieldList::with_capacity(0, 0),
        BodySize::Empty,
    );
    let mut session = Session::begin(&mut connection, &request, Framing::Length(0));
    session.queue_head(head, false).expect("the first response");
    let relayed = body_to(&mut session, body, received, pieces)?;
    let (complete, content) = relayed;
    Some(RelayedResponse {
        wire: read(&mut peer),
        complete,
        content,
    })
}

/// Relays the body of which `received` has arrived. Returns whether it is complete, and its length.
fn body_to<'p>(
    session: &mut Session<'_>,
    mut body: BodyDecoder,
    mut received: BytesMut,
    mut pieces: impl Iterator<Item = &'p [u8]>,
) -> Option<(bool, u64)> {
    let cx = &mut Context::from_waker(Waker::noop());
    let mut length = 0;
    loop {
        let decoded = body.decode_content(&mut received).ok()?;
        let mut content = &received.split_to(decoded)[..];
        length += content.len() as u64;
        while !content.is_empty() {
            let taken = ready(session.poll_write(cx, content, body.is_done()));
            content.advance(taken.expect("content of this length was announced"));
        }
        let last = match pieces.next().filter(|_| !body.is_done()) {
            Some(piece) => {
                received.extend_from_slice(piece);
                continue;
            }
            None => body.is_done() || body == BodyDecoder::UntilClose,
        };
        if last {
            ready(session.poll_finish(cx, &mut None::<HeaderMap>)).expect("the body is complete");
        } else {
            ready(session.poll_flush(cx)).expect("the peer is there");
            session.abort();
        }
        return Some((last, length));
    }
}

fn ready<T>(poll: Poll<T>) -> T {
    match poll {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("the stream has room"),
    }
}

/// What has been written to the other end.
fn read(peer: &mut DuplexStream) -> Vec<u8> {
    let cx = &mut Context::from_waker(Waker::noop());
    let (mut wire, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let mut part = ReadBuf::new(&mut buffer);
        match std::pin::Pin::new(&mut *peer).poll_read(cx, &mut part) {
            Poll::Ready(Ok(())) if !part.filled().is_empty() => {
                wire.extend_from_slice(part.filled());
            }
            _ => return wire,
        }
    }
}
