//! What the fast path makes of a request and of a response, for [`crate::proxy::fuzzing`].

use bytes::{Bytes, BytesMut};
use http::{Method, header};

use super::request::RequestHead;
use super::response::{ResponseBody, ResponseHead};
use crate::proxy::headers::sanitize_response;

/// A response as the caller receives it.
#[derive(Debug)]
pub struct Relayed {
    /// Head and body.
    pub wire: Vec<u8>,
    /// Whether the response is complete.
    pub complete: bool,
    /// The number of content bytes.
    pub content: u64,
}

/// The method, the target and the wire form of a request.
pub(in crate::proxy) fn request(head: &Bytes) -> Option<(Method, String, Vec<u8>)> {
    let parsed = RequestHead::parse(head)?;
    let wire = parsed.encode(parsed.target());
    Some((
        parsed.method.clone(),
        parsed.target().to_owned(),
        wire.to_vec(),
    ))
}

/// A response to `method`, of which `piece` bytes arrive at a time.
pub(in crate::proxy) fn response(method: &Method, data: &[u8], piece: usize) -> Option<Relayed> {
    let mut pieces = data.chunks(piece.max(1));
    let (mut received, mut out) = (BytesMut::new(), BytesMut::new());
    let mut head = loop {
        if !received.is_empty()
            && let Some(head) = ResponseHead::parse(&mut received).ok()?
        {
            if !head.status.is_informational() {
                break head;
            }
            if head.status == 101 {
                return None;
            }
        } else {
            received.extend_from_slice(pieces.next()?);
        }
    };
    let mut body = head.body(method);
    sanitize_response(&mut head.fields, head.status).ok()?;
    if body.is_chunked() {
        head.fields.set(&header::TRANSFER_ENCODING, b"chunked");
    }
    head.encode(&mut out);
    let mut content = 0;
    loop {
        let forwarded = body.forward(&mut received, &mut out).ok()?;
        content += forwarded.data;
        if forwarded.done {
            break;
        }
        match pieces.next() {
            Some(piece) => received.extend_from_slice(piece),
            None if body == ResponseBody::CloseDelimited => body.on_eof().ok()?,
            None => return relayed(out, false, content),
        }
    }
    relayed(out, true, content)
}

fn relayed(wire: BytesMut, complete: bool, content: u64) -> Option<Relayed> {
    Some(Relayed {
        wire: wire.to_vec(),
        complete,
        content,
    })
}
