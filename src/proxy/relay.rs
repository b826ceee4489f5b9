//! Serves every request: admits it, sends it to its upstream in as many attempts as it takes,
//! forwards the answer, and records how it ended. No decision depends on the protocol of either
//! side, unless that protocol demands it.

mod admit;
mod attempt;
mod body;
mod connect;
mod duplex;
mod endpoints;
mod forward_auth;
mod prepare;
mod respond;
mod retry;
#[cfg(test)]
mod tests;
mod tunnel;
mod unauthorized;
mod upstream_retry;
mod waits;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use arc_swap::ArcSwap;
use async_trait::async_trait;

use super::client::{ConnMetadata, PeerInfo};
use super::connection_limit::StreamGuard;
use super::context::Context;
use super::downstream::Downstream;
use super::error::{RelayError, Side};
use super::head::RequestHead;
use super::in_flight::{Address, InFlight};
use super::peer::Peers;
use super::record::{Exchange, Recorder, RequestError, path_of};
use super::replay::{BodyLimits, Budget};
use super::service::{ConnInfo, Request, Served, Service};
use super::upstream::Connector;
use crate::clock::{Now, SharedClock};
use crate::gateway::Gateway;
use crate::gateway::reason::Reason;
use crate::gateway::rejection::Rejection;
use crate::proxy::settings::Limits;
use body::RequestBody;
use duplex::Caller;
use upstream_retry::PlannedRetry;

/// Serves requests. Clones share all state.
#[derive(Clone)]
pub struct Relay(Arc<State>);

struct State {
    gateway: Arc<ArcSwap<Gateway>>,
    limits: Arc<ArcSwap<Limits>>,
    budget: Arc<Budget>,
    clock: SharedClock,
    recorder: Recorder,
    peers: Peers,
    in_flight: InFlight,
    serial: AtomicU64,
    /// The prefix of every request id.
    serial_start: String,
    /// One for each worker, so that no response has to wake another thread.
    connectors: Vec<Connector>,
}

impl Relay {
    /// Creates a relay for connections that are distributed over this number of `workers`. Each
    /// request uses the `gateway` and `limits` that are current when it begins.
    pub fn new(
        gateway: Arc<ArcSwap<Gateway>>,
        limits: Arc<ArcSwap<Limits>>,
        budget: Arc<Budget>,
        clock: SharedClock,
        recorder: Recorder,
        workers: usize,
    ) -> Self {
        let in_flight = InFlight::new(&limits.load());
        let connectors = Connector::for_workers(workers.max(1), &clock);
        Self(Arc::new(State {
            gateway,
            limits,
            budget,
            recorder,
            peers: Peers::default(),
            in_flight,
            serial: AtomicU64::new(0),
            // Makes the request ids of successive runs differ in the logs. Nothing else depends
            // on it.
            serial_start: format!("{:x}-", clock.now().0.max(0)),
            clock,
            connectors,
        }))
    }

    /// Returns the counters of requests in flight.
    pub fn in_flight(&self) -> InFlight {
        self.0.in_flight.clone()
    }
}

#[async_trait]
impl Service for Relay {
    async fn serve(&self, request: Request<'_>) -> Served {
        let mut transaction = Transaction::new(&self.0, request);
        let ended = transaction.run().await;
        transaction.record(ended)
    }

    fn peer_address(&self, peer: Option<IpAddr>, metadata: &ConnMetadata) -> Option<Arc<Address>> {
        let peer = peer.filter(|_| metadata.trusted_proxies.is_none())?;
        Some(self.0.in_flight.address(peer))
    }
}

/// One request, from its head to its outcome.
struct Transaction<'r> {
    relay: &'r State,
    conn: &'r ConnInfo,
    head: RequestHead,
    /// The connected peer and the client behind it.
    peer: PeerInfo,
    caller: Caller<'r>,
    context: Context,
    /// Counts an HTTP/2 request as being served on its connection.
    stream: Option<StreamGuard>,
    began: Now,
    answer: Answer,
}

/// What was sent to the caller.
#[derive(Default)]
struct Answer {
    /// The last status code; 0 if there was none.
    code: u16,
    /// Whether it is a complete rejection after a failure.
    rejected: bool,
    /// Whether the caller's connection closes after it.
    close: bool,
}

/// Why a request does not continue.
enum Stop {
    /// Another attempt follows.
    Again,
    /// Another attempt follows after a wait, because the upstream failed.
    Retry(Box<PlannedRetry>),
    /// hawkgate sends this response.
    Reject(Box<Rejection>),
    Fail(RelayError),
}

impl From<RelayError> for Stop {
    fn from(error: RelayError) -> Self {
        Self::Fail(error)
    }
}

impl From<Rejection> for Stop {
    fn from(rejection: Rejection) -> Self {
        Self::Reject(Box::new(rejection))
    }
}

impl<'r> Transaction<'r> {
    fn new(relay: &'r State, request: Request<'r>) -> Self {
        let Request {
            head,
            downstream,
            conn,
            deadline,
            stream,
        } = request;
        let began = Now::read(&*relay.clock);
        let context = Context::new(relay.gateway.load_full(), began.monotonic);
        let peer = PeerInfo::new(conn.peer, conn.tls, Some(&conn.metadata), &head.fields);
        let limits = BodyLimits::from(&**relay.limits.load());
        let http2 = matches!(downstream, Downstream::H2(_));
        Self {
            relay,
            conn,
            head,
            peer,
            caller: Caller {
                downstream,
                body: RequestBody::new(limits, http2, None),
                deadline,
                write_timeout: conn.write_timeout,
                sent: 0,
            },
            context,
            stream,
            began,
            answer: Answer::default(),
        }
    }

    /// Records how the request ended, and returns what happens to the caller's connection.
    fn record(mut self, ended: Result<(), RelayError>) -> Served {
        self.caller.body.close();
        let served = match &ended {
            Ok(()) if self.answer.close => Served::Close,
            Ok(()) => Served::KeepAlive,
            // The caller received a rejection instead of the upstream's response.
            Err(_) if self.answer.rejected => Served::Close,
            Err(_) => Served::Aborted,
        };
        if served == Served::Aborted {
            self.caller.downstream.abort();
        }
        let failed = ended.err().map(|error| RequestError::from(&error));
        let exchange = Exchange {
            path: path_of(self.head.target()),
            method: self.head.method,
            version: self.head.version,
            peer: self.peer,
            code: self.answer.code,
            received: self.caller.body.received(),
            sent: self.caller.sent,
        };
        let context = &mut self.context;
        let now = match context.times.ended {
            Some(now) => now,
            None => self.relay.clock.monotonic(),
        };
        let outcome = context.outcome(exchange, now, failed);
        context.finish_trace(&outcome, now);
        (self.relay.recorder)(&outcome);
        served
    }

    /// Records on the connection that the request was refused. Returns whether the connection
    /// has to close after the response.
    fn request_refused(&mut self, reason: Reason) -> bool {
        let http2 = self.stream.is_some();
        self.release_request();
        let close = self.conn.state.request_refused(reason);
        if close && http2 {
            // HTTP/2 has no `Connection: close`; the connection ends with GOAWAY.
            self.conn.state.evict();
        }
        close
    }

    /// Marks the request as no longer worth protecting from the closure of its connection:
    /// because it is refused, or because it is not yet authenticated and its caller is slow.
    fn release_request(&mut self) {
        if self.stream.take().is_none() {
            self.conn.state.release_request();
        }
    }

    /// Whether the connection closes after the response that is about to be sent.
    fn closes(&mut self) -> bool {
        self.answer.close |= self.conn.signal.is_draining();
        self.answer.close
    }
}

/// Returns the error for a fault of hawkgate's own.
fn internal(cause: &'static str) -> RelayError {
    RelayError::new(Side::Gateway, super::error::ErrorKind::Internal, cause)
}
