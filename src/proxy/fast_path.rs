//! The fast path: requests without a body, HTTP/1.1 on both sides, are relayed from socket to
//! socket. Most requests are of this kind, and pingora's general machinery costs several times
//! as much for them.
//!
//! Nothing is decided here. Whether a request may pass, with which credential, which header
//! fields are forwarded and how a 401 is handled is decided by the gateway, `headers` and
//! functions shared with the hooks, for both paths. Everything else (bodies, upgrades, HTTP/2,
//! traced requests, hawkgate's own endpoints, rejections before routing) is declined before
//! anything was done for it, and served through [`super::hooks`].

mod attempt;
mod fields;
mod pool;
mod request;
mod response;

use std::net::IpAddr;
use std::sync::Arc;

use bytes::BytesMut;
use http::{Version, header};
use pingora::Error;
use pingora::connectors::TransportConnector;

use super::client::{ConnMetadata, PeerInfo};
use super::connection::Connection;
use super::context::{Context, InFlightGuard};
use super::deadline::Deadline;
use super::drain::Signal;
use super::failure::{self, Failed};
use super::hooks::{self, Hooks};
use super::local_response;
use super::record::{Exchange, path_of};
use crate::clock::Now;
use crate::gateway::rejection::Rejection;
use crate::gateway::{Gateway, RouteMatch};
use crate::header_fields::{HeaderFields, text};
use pool::Pool;
use request::RequestHead;

/// Serves requests on the fast path. Clones share everything.
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
    /// Draining: the connection closes after its current request.
    pub(super) signal: &'a Signal,
    /// For everything the request waits for.
    pub(super) deadline: &'a mut Deadline,
    /// The index of the worker that serves the connection.
    pub(super) worker: usize,
}

/// The result of serving a request.
pub(super) enum ServeResult {
    /// The request is not for the fast path. Holds its head, unchanged.
    Declined(BytesMut),
    /// A response was sent, and another request may follow.
    KeepAlive,
    /// A response was sent, which closes the connection.
    Close,
    /// The caller has left, or its response was truncated: nothing more may be sent.
    Aborted,
}

/// What has been sent to the caller.
#[derive(Default)]
struct SentResponse {
    /// The last status sent.
    code: u16,
    /// A final head was sent.
    answered: bool,
    /// The response is a complete rejection.
    rejected: bool,
    /// The connection closes after the response.
    last: bool,
    /// Body bytes sent.
    body: u64,
}

impl FastPath {
    /// For connections that are distributed over this many `workers`.
    pub fn new(hooks: Hooks, workers: usize) -> Self {
        let pool = |_| Pool::new(hooks.clock.clone());
        Self {
            connector: Arc::new(TransportConnector::new(None)),
            pools: (0..workers.max(1)).map(pool).collect(),
            hooks,
        }
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
            // Boxed, so that the task of a waiting connection stays small.
            Some(request) => Box::pin(self.relay(&mut caller, gateway, request))
                .await
                .unwrap_or_else(|| ServeResult::Declined(BytesMut::from(head))),
            None => ServeResult::Declined(BytesMut::from(head)),
        }
    }

    /// `None` if the route cannot be served here.
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
        let in_flight = InFlightGuard::new(&self.hooks.in_flight);
        let mut context = Context::new(gateway, now.monotonic, in_flight);
        let found = context
            .gateway
            .match_route(head)
            .ok()
            .filter(is_supported)?;
        context.request_id = self.hooks.request_id(&request.fields);
        let admitted = context.gateway.admit_matched(found, head, now).await;
        context.peer = Some(peer);
        context.times.admitted = Some(self.hooks.clock.monotonic());
        let mut sent = SentResponse {
            last: caller.signal.is_draining(),
            ..SentResponse::default()
        };
        let served = match admitted {
            Ok(admission) => {
                context.admission = Some(admission);
                self.forward(caller, &mut context, &mut request, &mut sent)
                    .await
            }
            Err(refused) => {
                let rejection = context.reject(refused);
                self.reject(caller, &mut context, &request, rejection, &mut sent)
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
        let answer = rejection.to_response(&request.method, now);
        let id = Some(context.request_id.as_str());
        let wire = local_response::encode_http1(&answer, &request.method, now, id, sent.last);
        context.rejection = Some(rejection);
        send(caller.connection, [&wire, &[]]).await?;
        sent.answered = true;
        sent.rejected = true;
        sent.code = answer.status.as_u16();
        if request.method != http::Method::HEAD {
            sent.body = answer.body.len() as u64;
        }
        Ok(())
    }

    /// Ends a request that got no response from its upstream, as [`super::hooks`] does: with a
    /// rejection, unless a response was started or the caller has left.
    async fn fail(
        &self,
        caller: &mut Caller<'_>,
        context: &mut Context,
        request: &RequestHead,
        error: Box<Error>,
        sent: &mut SentResponse,
    ) -> Result<(), Box<Error>> {
        let Some(rejection) = failure::rejection(&error, context).filter(|_| !sent.answered) else {
            return Err(error);
        };
        sent.last = true;
        // A caller that cannot be written to has left; there is nothing else to do.
        let _ = self.reject(caller, context, request, rejection, sent).await;
        Err(error)
    }

    /// Records how the request ended, and what happens to the caller's connection.
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
            // The rejection took the place of the upstream's response.
            Err(_) if sent.rejected => ServeResult::Close,
            Err(_) => ServeResult::Aborted,
        };
        let failed = served.err().map(|error| Failed::from(&*error));
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

/// Whether the request can be served here, as far as that is known before routing.
fn is_eligible(gateway: &Gateway, request: &RequestHead) -> bool {
    gateway.observability.trace.is_none() && !hooks::is_own(request.target(), gateway)
}

/// Whether the route can be served here.
fn is_supported(found: &RouteMatch<'_>) -> bool {
    !found.route.upstream.http2 && !found.route.takes_password()
}

/// Writes all of `parts` to the caller.
async fn send(connection: &mut Connection, parts: [&[u8]; 2]) -> Result<(), Box<Error>> {
    connection.send(parts).await.map_err(|error| {
        Error::because(pingora::ErrorType::WriteError, "writing a response", error).into_down()
    })
}
