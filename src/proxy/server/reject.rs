//! Sends error responses on connections that are closed before a request is served.

use std::net::IpAddr;
use std::time::Duration;

use pingora::protocols::l4::stream::Stream as L4Stream;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::Shared;
use crate::gateway::reason::Reason;
use crate::gateway::rejection::Rejection;
use crate::proxy::connection_limit::Limit;
use crate::proxy::h1::lingering_close::discard;
use crate::proxy::h1::server::encode_rejection;
use crate::proxy::listener::Incoming;
use crate::proxy::record::{self, Delivery};
use crate::proxy::validate;

/// Maximum time for rejecting a connection.
const REJECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Responds to a connection over a connection limit, without reading from it.
pub(super) async fn reject_overload<A>(shared: &Shared<A>, incoming: Incoming, limit: Limit) {
    let peer = incoming.peer();
    let Ok(stream) = incoming.into_stream() else {
        return;
    };
    let rejection = Rejection::from(Reason::Overloaded).with_cause(limit.cause());
    write_rejection(shared, stream, peer, rejection).await;
}

/// Rejects a peer that may not connect, and records it, without reading from the connection. A
/// response is sent only with `plain`, that is, if the listener speaks HTTP/1 without TLS.
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
            let rejected = validate::rejected_head(b"", rejection);
            (shared.recorder)(&record::rejected_outcome(
                &rejected,
                Delivery::None,
                peer,
                None,
            ));
        }
    }
}

/// Responds with `rejection`, records it, and closes.
async fn write_rejection<A>(
    shared: &Shared<A>,
    mut stream: L4Stream,
    peer: Option<IpAddr>,
    rejection: Rejection,
) {
    let rejected = validate::rejected_head(b"", rejection);
    let (response, wire) = encode_rejection(&shared.clock, &rejected);
    let closing = async {
        let delivery = match stream.write_all(&wire).await {
            Ok(()) => Delivery::Sent(&response),
            Err(_) => Delivery::Failed,
        };
        (shared.recorder)(&record::rejected_outcome(&rejected, delivery, peer, None));
        let _ = stream.shutdown().await;
        discard(&mut stream).await;
    };
    // The response fits into the empty socket buffer, so only closing can be slow.
    let _ = timeout(REJECT_TIMEOUT, closing).await;
}
