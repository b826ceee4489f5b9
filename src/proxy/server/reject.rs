//! Error responses on connections that pingora does not serve.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use pingora::protocols::GetProxyDigest;
use pingora::protocols::l4::stream::Stream as L4Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::Shared;
use crate::gateway::outcome::{Ending, Outcome};
use crate::gateway::reason::Reason;
use crate::gateway::rejection::{Answer, Rejection};
use crate::proxy::client::ConnMetadata;
use crate::proxy::connection::{ClosedConn, Connection};
use crate::proxy::listener::Incoming;
use crate::proxy::local_response;
use crate::proxy::validate::{self, Refusal};

/// Longest time spent on closing a connection whose caller is still sending.
const LINGER: Duration = Duration::from_secs(10);
/// Longest pause between two reads while lingering.
const LINGER_IDLE: Duration = Duration::from_secs(2);
/// Most bytes read and discarded while lingering.
const LINGER_BYTES: usize = 16 * 1024 * 1024;
/// Longest time spent on rejecting a connection.
const REJECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Answers a rejected head and records it. Nothing else is served on the connection.
pub(super) async fn respond_and_close<A>(
    shared: &Shared<A>,
    mut connection: Connection,
    refusal: &Refusal,
    peer: Option<IpAddr>,
) {
    let now = shared.clock.now();
    let answer = refusal.rejection.answer(&refusal.method, now);
    let wire = local_response::encode_http1(&answer, &refusal.method, now, None, true);
    let sent = connection.write_all(&wire).await.is_ok() && connection.flush().await.is_ok();
    connection.mark_response_complete();
    connection.mark_unread_input();
    let digest = connection.get_proxy_digest();
    let metadata = ConnMetadata::from_digest(digest.as_ref());
    (shared.recorder)(&Outcome {
        client_cert: metadata.and_then(|o| o.certificate.as_ref().map(|c| c.label())),
        ..outcome(refusal, &answer, sent, peer)
    });
}

/// Answers a connection over the limit, without reading anything.
pub(super) async fn reject_overload<A>(shared: &Shared<A>, incoming: Incoming) {
    let peer = incoming.peer();
    let Ok(stream) = incoming.into_stream() else {
        return;
    };
    write_rejection(shared, stream, peer, Reason::Overloaded.into()).await;
}

/// Rejects a peer that may not connect, and records it. A response is sent only if the listener
/// speaks `plain` HTTP/1; nothing is read.
pub(super) async fn reject_peer<A>(
    shared: &Shared<A>,
    incoming: Incoming,
    rejection: Rejection,
    plain: bool,
) {
    let peer = incoming.peer();
    match incoming.into_stream() {
        Ok(stream) if plain => write_rejection(shared, stream, peer, rejection).await,
        _ => {
            let refusal = validate::refusal(b"", rejection);
            let answer = refusal
                .rejection
                .answer(&refusal.method, shared.clock.now());
            let outcome = Outcome {
                ending: Ending::Rejected,
                ..outcome(&refusal, &answer, false, peer)
            };
            (shared.recorder)(&outcome);
        }
    }
}

async fn write_rejection<A>(
    shared: &Shared<A>,
    mut stream: L4Stream,
    peer: Option<IpAddr>,
    rejection: Rejection,
) {
    let refusal = validate::refusal(b"", rejection);
    let now = shared.clock.now();
    let answer = refusal.rejection.answer(&refusal.method, now);
    let wire = local_response::encode_http1(&answer, &refusal.method, now, None, true);
    let telling = async {
        let sent = stream.write_all(&wire).await.is_ok();
        (shared.recorder)(&outcome(&refusal, &answer, sent, peer));
        let _ = stream.shutdown().await;
        discard(&mut stream).await;
    };
    // The response fits into the empty socket buffer, so only the closing can be slow.
    let _ = timeout(REJECT_TIMEOUT, telling).await;
}

fn outcome(refusal: &Refusal, answer: &Answer, sent: bool, peer: Option<IpAddr>) -> Outcome {
    let Rejection { reason, cause, .. } = &refusal.rejection;
    Outcome {
        request_id: request_id(),
        method: refusal.method.clone(),
        path: refusal.path.clone(),
        version: refusal.version,
        peer,
        client: None,
        client_cert: None,
        route: None,
        issuer: None,
        verification: None,
        rule: None,
        source: None,
        lookup: None,
        code: if sent { answer.status.as_u16() } else { 0 },
        ending: if sent {
            Ending::Rejected
        } else {
            Ending::CallerGone
        },
        rejection: Some(*reason),
        cause: cause.clone(),
        unauthorized: Vec::new(),
        total: Duration::ZERO,
        admission: Duration::ZERO,
        upstream: None,
        received: 0,
        sent: if sent { answer.body.len() as u64 } else { 0 },
        trace: None,
        audit: None,
    }
}

/// 128 random bits, enough to tell log lines apart.
fn request_id() -> String {
    let mut bytes = [0_u8; 16];
    if aws_lc_rs::rand::fill(&mut bytes).is_err() {
        return "-".to_owned();
    }
    bytes.iter().fold(String::new(), |mut id, byte| {
        let _ = write!(id, "{byte:02x}");
        id
    })
}

/// Sends what is buffered and closes the write side, cleanly if the response is complete. As
/// long as the caller may still be sending, keeps reading: data that arrives at a closed socket
/// makes the kernel reset the connection, and the caller might never see the response (RFC 9112
/// §9.6).
pub(super) async fn lingering_close(closed: ClosedConn) {
    let ClosedConn {
        mut stream,
        unsent,
        response_complete,
        unread_input,
    } = closed;
    let closing = async {
        if !unsent.is_empty() && stream.write_all(&unsent).await.is_err() {
            return;
        }
        if stream.flush().await.is_err() {
            return;
        }
        // Without TLS a clean close and a truncation look the same.
        if response_complete || stream.get_ssl_digest().is_none() {
            let _ = AsyncWriteExt::shutdown(&mut stream).await;
        }
        if unread_input {
            discard(&mut stream).await;
        }
    };
    // On timeout or too much data, the connection is reset.
    let _ = timeout(LINGER, closing).await;
}

async fn discard(stream: &mut (impl tokio::io::AsyncRead + Unpin)) {
    let mut scratch = vec![0_u8; 8 * 1024];
    let mut left = LINGER_BYTES;
    while left > 0 {
        match timeout(LINGER_IDLE, stream.read(&mut scratch)).await {
            Ok(Ok(read)) if read > 0 => left = left.saturating_sub(read),
            _ => return,
        }
    }
}
