//! The fast path relays requests without a body, with HTTP/1.1 on both sides, from socket to
//! socket. Most requests are of this kind, and serving them through pingora costs several times
//! as much.
//!
//! This module makes no policy decisions. The gateway, `headers` and functions shared with the
//! hooks decide for both paths whether a request is admitted, with which credential, which
//! header fields are forwarded and how a 401 is handled. All other requests (those with bodies,
//! upgrades, HTTP/2, tracing, hawkgate's own endpoints, and those rejected before routing) are
//! declined before they have had any effect, and are served through [`super::hooks`].

mod attempt;
mod fields;
#[cfg(fuzzing)]
pub(super) mod fuzzing;
mod look_ahead;
mod pool;
mod request;
mod response;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use http::{Version, header};
use pingora::Error;
use pingora::connectors::TransportConnector;

use super::client::{ConnMetadata, PeerInfo};
use super::connection::Connection;
use super::connection_limit::ConnState;
use super::context::Context;
use super::deadline::Deadline;
use super::drain::Signal;
use super::failure::{self, RequestError};
use super::hooks::{self, Hooks};
use super::in_flight::{Address, Counted};
use super::local_response;
use super::record::{Exchange, path_of};
use crate::clock::Now;
use crate::gateway::rejection::Rejection;
use crate::gateway::{Gateway, RouteMatch};
use crate::header_fields::{HeaderFields, text};
use pool::Pool;
use request::RequestHead;

/// Serves requests on the fast path. Clones share all state.
#[derive(Clone)]
pub struct FastPath {
    hooks: Hooks,
    connector: Arc<TransportConnector>,
    pools: Arc<[Arc<Pool>]>,
}

/// The caller's connection.
pub(super) struct Caller<'a> {
    pub(super) connection: &'a mut Connection,
    pub(super) peer: Option<IpAddr>,
    pub(super) metadata: Option<&'a ConnMetadata>,
    /// The counters of the peer, unless it may be a proxy that many clients share.
    pub(super) address: Option<&'a Arc<Address>>,
    /// Signals a drain, during which the connection closes after its current request.
    pub(super) signal: &'a Signal,
    /// Learns whether requests are admitted.
    pub(super) state: &'a ConnState,
    /// The deadline for whatever the request is currently waiting for.
    pub(super) deadline: &'a mut Deadline,
    /// Timeout for each write of a response.
    pub(super) write_timeout: Duration,
    /// The index of the worker that serves the connection.
    pub(super) worker: usize,
}

/// The result of serving a request.
pub(super) enum ServeResult {
    /// The fast path does not support the request. Contains its head, unchanged.
    Declined(BytesMut),
    /// A response was sent, and the connection can serve another request.
    KeepAlive,
    /// A response was sent, and the connection must be closed.
    Close,
    /// The caller has disconnected, or its response was truncated. Nothing more may be sent.
    Aborted,
}

/// What has been sent to the caller so far.
#[derive(Default)]
struct SentResponse {
    /// The last status code sent.
    code: u16,
    /// Whether a final response head was sent.
    head_sent: bool,
    /// Whether the response is a complete rejection.
    rejected: bool,
    /// Whether the connection closes after the response.
    last: bool,
    /// The number of body bytes sent.
    body: u64,
}

impl FastPath {
    /// Creates a fast path for connections that are distributed over this number of `workers`.
    pub fn new(hooks: Hooks, workers: usize) -> Self {
        let pool = |_| Pool::new(hooks.clock.clone());
        Self {
            connector: Arc::new(TransportConnector::new(None)),
            pools: (0..workers.max(1)).map(pool).collect(),
            hooks,
        }
    }

    /// Returns the counters of a connected peer. `None` if it may be a trusted proxy: then each
    /// request has its own client.
    pub(super) fn peer_address(
        &self,
        peer: Option<IpAddr>,
        metadata: Option<&ConnMetadata>,
    ) -> Option<Arc<Address>> {
        let proxied = metadata.is_some_and(|metadata| metadata.trusted_proxies.is_some());
        let peer = peer.filter(|_| !proxied)?;
        Some(self.hooks.in_flight.address(peer))
    }

    fn pool(&self, worker: usize) -> Option<&Arc<Pool>> {
        self.pools.get(worker % self.pools.len().max(1))
    }

    /// Serves the request with the validated `head` and no body, or declines it.
    pub(super) async fn serve(&self, mut caller: Caller<'_>, head: BytesMut) -> ServeResult {
        if !RequestHead::is_candidate(&head) {
            return ServeResult::Declined(head);
        }
        let head = head.freeze();
        let gateway = self.hooks.gateway.load_full();
        match RequestHead::parse(&head).filter(|request| is_eligible(&gateway, request)) {
            // Boxed, so that the task of an idle connection stays small.
            Some(request) => Box::pin(self.relay(&mut caller, gateway, request))
                .await
                .unwrap_or_else(|| ServeResult::Declined(BytesMut::from(head))),
            None => ServeResult::Declined(BytesMut::from(head)),
        }
    }

    /// Relays the request, or returns `None` if the fast path does not support the route.
    async fn relay(
        &self,
        caller: &mut Caller<'_>,
        gateway: Arc<Gateway>,
        mut request: RequestHead,
    ) -> Option<ServeResult> {
        let tls = caller.connection.is_tls();
        let peer = PeerInfo::new(caller.peer, tls, caller.metadata, &request.fields);
        let host = text(request.fields.first(&header::HOST)?)?;
        let head = peer.head(&request.method, host, request.target(), &request.fields);
        let now = Now::read(&*self.hooks.clock);
        let mut context = Context::new(gateway, now.monotonic);
        let found = context
            .gateway
            .match_route(head)
            .ok()
            .filter(is_supported)?;
        let in_flight = &self.hooks.in_flight;
        let own = match caller.address {
            Some(_) => None,
            None => peer.accountable.map(|ip| in_flight.address(ip)),
        };
        let address = own.as_ref().or(caller.address).map(|address| &**address);
        let counted = Counted::begin(in_flight, address);
        context.request_id = self.hooks.request_id(&request.fields);
        let admitted = match &counted {
            Ok(_) => Ok(context.gateway.admit_matched(found, head, now).await),
            Err(overloaded) => Err(overloaded.clone()),
        };
        context.peer = Some(peer);
        context.times.admitted = Some(self.hooks.clock.monotonic());
        let mut sent = SentResponse {
            last: caller.signal.is_draining(),
            ..SentResponse::default()
        };
        let served = match admitted {
            Ok(Ok(admission)) => {
                caller.state.request_admitted();
                context.admission = Some(admission);
                self.forward(caller, &mut context, &mut request, &mut sent)
                    .await
            }
            Ok(Err(refused)) => {
                let rejection = context.reject(refused);
                caller.state.release_request();
                sent.last |= caller.state.request_refused(rejection.reason);
                self.reject(caller, &mut context, &request, rejection, &mut sent)
                    .await
            }
            Err(overloaded) => {
                caller.state.release_request();
                self.reject(caller, &mut context, &request, overloaded, &mut sent)
                    .await
            }
        };
        Some(self.finish(&mut context, request, &sent, served))
    }

    /// Responds with a rejection.
    async fn reject(
        &self,
        caller: &mut Caller<'_>,
        context: &mut Context,
        request: &RequestHead,
        rejection: Rejection,
        sent: &mut SentResponse,
    ) -> Result<(), Box<Error>> {
        let now = self.hooks.clock.now();
        let response = rejection.to_response(&request.method, now);
        let id = Some(context.request_id.as_str());
        let wire = local_response::encode_http1(&response, &request.method, now, id, sent.last);
        context.rejection = Some(rejection);
        send(caller.connection, [&wire, &[]]).await?;
        sent.head_sent = true;
        sent.rejected = true;
        sent.code = response.status.as_u16();
        if request.method != http::Method::HEAD {
            sent.body = response.body.len() as u64;
        }
        Ok(())
    }

    /// Ends a request that received no response from its upstream, as [`super::hooks`] does:
    /// with a rejection, unless a response was started or the caller has disconnected.
    async fn fail(
        &self,
        caller: &mut Caller<'_>,
        context: &mut Context,
        request: &RequestHead,
        error: Box<Error>,
        sent: &mut SentResponse,
    ) -> Result<(), Box<Error>> {
        let Some(rejection) = failure::rejection(&error, context).filter(|_| !sent.head_sent)
        else {
            return Err(error);
        };
        sent.last = true;
        // Fails only if the caller has disconnected.
        let _ = self.reject(caller, context, request, rejection, sent).await;
        Err(error)
    }

    /// Records how the request ended, and returns what happens to the caller's connection.
    fn finish(
        &self,
        context: &mut Context,
        request: RequestHead,
        sent: &SentResponse,
        served: Result<(), Box<Error>>,
    ) -> ServeResult {
        let result = match &served {
            Ok(()) if sent.last => ServeResult::Close,
            Ok(()) => ServeResult::KeepAlive,
            // The caller received a rejection instead of the upstream's response.
            Err(_) if sent.rejected => ServeResult::Close,
            Err(_) => ServeResult::Aborted,
        };
        let failed = served.err().map(|error| RequestError::from(&*error));
        let exchange = Exchange {
            path: path_of(request.target()),
            method: request.method,
            version: Version::HTTP_11,
            peer: context.peer.take().unwrap_or_default(),
            code: sent.code,
            received: 0,
            sent: sent.body,
        };
        let now = context.times.ended;
        let now = now.unwrap_or_else(|| self.hooks.clock.monotonic());
        let outcome = context.outcome(exchange, now, failed);
        (self.hooks.recorder)(&outcome);
        result
    }
}

/// Whether the fast path supports the request, as far as that is known before routing.
fn is_eligible(gateway: &Gateway, request: &RequestHead) -> bool {
    gateway.observability.trace.is_none() && !hooks::is_own(request.target(), gateway)
}

/// Whether the fast path supports the route.
fn is_supported(found: &RouteMatch<'_>) -> bool {
    !found.route.upstream.http2 && !found.route.takes_password()
}

/// Writes all of `parts` to the caller.
async fn send(connection: &mut Connection, parts: [&[u8]; 2]) -> Result<(), Box<Error>> {
    connection.send(parts).await.map_err(|error| {
        Error::because(pingora::ErrorType::WriteError, "writing a response", error).into_down()
    })
}
