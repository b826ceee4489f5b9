//! hawkgate's own answers on HTTP/1 connections, and closing them so that they arrive.

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
use crate::proxy::answer;
use crate::proxy::client::Origin;
use crate::proxy::connection::{ClosedConn, Connection};
use crate::proxy::listener::Incoming;
use crate::proxy::validate::{self, Refusal};

/// Longest time for closing a connection whose caller is still sending.
const LINGER: Duration = Duration::from_secs(10);
/// The same for silence between two reads.
const LINGER_IDLE: Duration = Duration::from_secs(2);
/// Most bytes read and thrown away meanwhile.
const LINGER_BYTES: usize = 16 * 1024 * 1024;
/// Longest time for telling a caller that there is no room for him.
const TURN_AWAY: Duration = Duration::from_secs(1);

/// Answers a refused head and has it recorded. Nothing else of the connection is served.
pub(super) async fn reply<A>(
    shared: &Shared<A>,
    mut connection: Connection,
    refusal: &Refusal,
    peer: Option<IpAddr>,
) {
    let now = shared.clock.now();
    let answer = refusal.rejection.answer(&refusal.method, now);
    let wire = answer::on_wire(&answer, &refusal.method, now, None, true);
    let sent = connection.write_all(&wire).await.is_ok() && connection.flush().await.is_ok();
    connection.complete();
    connection.expect_more();
    let digest = connection.get_proxy_digest();
    let origin = Origin::of(digest.as_ref());
    (shared.recorder)(&Outcome {
        client_cert: origin.and_then(|o| o.certificate.as_ref().map(|c| c.label())),
        ..outcome(refusal, &answer, sent, peer)
    });
}

/// Says that there is no room, without reading anything first.
pub(super) async fn turn_away<A>(shared: &Shared<A>, incoming: Incoming) {
    let peer = incoming.peer();
    let Ok(stream) = incoming.into_stream() else {
        return;
    };
    tell(shared, stream, peer, Reason::Overloaded.into()).await;
}

/// Says to a peer that may not connect that it may not, if it can be said in `plain` HTTP/1
/// at all, and has it recorded. Nothing is read before.
pub(super) async fn keep_out<A>(
    shared: &Shared<A>,
    incoming: Incoming,
    rejection: Rejection,
    plain: bool,
) {
    let peer = incoming.peer();
    match incoming.into_stream() {
        Ok(stream) if plain => tell(shared, stream, peer, rejection).await,
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

async fn tell<A>(
    shared: &Shared<A>,
    mut stream: L4Stream,
    peer: Option<IpAddr>,
    rejection: Rejection,
) {
    let refusal = validate::refusal(b"", rejection);
    let now = shared.clock.now();
    let answer = refusal.rejection.answer(&refusal.method, now);
    let wire = answer::on_wire(&answer, &refusal.method, now, None, true);
    let telling = async {
        let sent = stream.write_all(&wire).await.is_ok();
        (shared.recorder)(&outcome(&refusal, &answer, sent, peer));
        let _ = stream.shutdown().await;
        discard(&mut stream).await;
    };
    // The answer fits into an empty socket's buffer: too slow is only the closing.
    let _ = timeout(TURN_AWAY, telling).await;
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

/// 128 random bits: enough to tell log lines apart.
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

/// Sends what is left, closes our side properly if the answer is complete, and as long as the caller may still be sending
/// reads on: a system that is sent data for a closed socket resets the connection, and the
/// caller might never see the answer (RFC 9112 §9.6).
pub(super) async fn lingering_close(closed: ClosedConn) {
    let ClosedConn {
        mut stream,
        unsent,
        complete,
        unread,
    } = closed;
    let closing = async {
        if !unsent.is_empty() && stream.write_all(&unsent).await.is_err() {
            return;
        }
        if stream.flush().await.is_err() {
            return;
        }
        // Without TLS every end looks alike.
        if complete || stream.get_ssl_digest().is_none() {
            let _ = AsyncWriteExt::shutdown(&mut stream).await;
        }
        if unread {
            discard(&mut stream).await;
        }
    };
    // Too slow or too much: then a reset is what he gets.
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
