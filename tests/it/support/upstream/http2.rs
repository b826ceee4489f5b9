//! HTTP/2 for the fake upstream.

use std::sync::Arc;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};

use super::{AfterReply, BodySum, ReceivedRequest, Reply, ReplyAt, ReplyBody, Shared};
use crate::support::client::fields;
use crate::support::wire::Stream;

pub(super) async fn serve(stream: Stream, shared: Arc<Shared>, number: usize) {
    let Ok(mut connection) = h2::server::handshake(stream).await else {
        return;
    };
    // An error ends the connection; the recorded attempts show how far they got.
    while let Some(Ok((request, respond))) = connection.accept().await {
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let _ = handle(request, respond, shared, number).await;
        });
    }
}

async fn handle(
    request: http::Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    shared: Arc<Shared>,
    number: usize,
) -> Result<(), h2::Error> {
    let (parts, mut body) = request.into_parts();
    let (index, reply) = shared.arrived(received_request(&parts, number));
    let mut sum = BodySum::new(&shared, index);
    let whole = match reply.when {
        ReplyAt::BeforeBody => false,
        ReplyAt::AfterBytes(bytes) => read(&mut body, &mut sum, bytes).await?,
        ReplyAt::AfterBody => read(&mut body, &mut sum, u64::MAX).await?,
    };
    if let Some(latch) = &reply.latch {
        latch.wait().await;
    }
    shared.update(index, |a| a.status = reply.status);
    let rest = reply.rest;
    send(&mut respond, reply).await?;
    if !whole && rest == AfterReply::Drain {
        read(&mut body, &mut sum, u64::MAX).await?;
    }
    Ok(())
}

/// Reads until `enough` bytes have arrived; true if the body is complete.
async fn read(body: &mut RecvStream, sum: &mut BodySum, enough: u64) -> Result<bool, h2::Error> {
    while sum.received < enough {
        let Some(piece) = body.data().await else {
            sum.end();
            return Ok(true);
        };
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        sum.add(&piece);
    }
    Ok(false)
}

async fn send(respond: &mut SendResponse<Bytes>, reply: Reply) -> Result<(), h2::Error> {
    let mut head = http::Response::builder().status(reply.status);
    for (name, value) in &reply.fields {
        head = head.header(name, value);
    }
    match reply.payload {
        ReplyBody::Whole(body) => {
            let head = head.header("content-length", body.len());
            let mut stream = respond.send_response(head.body(()).unwrap(), body.is_empty())?;
            if body.is_empty() {
                return Ok(());
            }
            push(&mut stream, body).await?;
            stream.send_data(Bytes::new(), true)
        }
        ReplyBody::Streamed(mut pieces) => {
            let mut stream = respond.send_response(head.body(()).unwrap(), false)?;
            while let Some(piece) = pieces.recv().await {
                push(&mut stream, piece).await?;
            }
            stream.send_data(Bytes::new(), true)
        }
        ReplyBody::Raw(_) | ReplyBody::Echo => panic!("HTTP/1.1 only"),
    }
}

/// Sends as flow control allows.
async fn push(stream: &mut SendStream<Bytes>, mut data: Bytes) -> Result<(), h2::Error> {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let granted = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
        let granted = granted.ok_or(h2::Reason::CANCEL)??;
        stream.send_data(data.split_to(granted.min(data.len())), false)?;
    }
    Ok(())
}

fn received_request(parts: &http::request::Parts, connection: usize) -> ReceivedRequest {
    let target = parts.uri.path_and_query().map_or("", |p| p.as_str());
    let authority = parts.uri.authority().map_or("", |a| a.as_str());
    ReceivedRequest {
        index: 0,
        repeat: 0,
        connection,
        protocol: "HTTP/2",
        method: parts.method.to_string(),
        target: target.to_owned(),
        authority: authority.to_owned(),
        fields: fields(&parts.headers),
        raw: Bytes::new(),
    }
}
