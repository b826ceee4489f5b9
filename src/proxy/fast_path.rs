//! The fast path: a request without a body, in HTTP/1.1 on both sides, is relayed here from
//! socket to socket. It is what most requests are, and what pingora's machinery, made for
//! everything that a proxy can meet, costs several times as much for as for an exchange of
//! two heads.
//!
//! Nothing is decided here. Whether a request may pass, with which credential, what of its
//! head goes on and what becomes of a 401: the gateway, `headers` and the hooks' own
//! functions say so for both paths. Whatever is not a plain exchange (bodies, upgrades,
//! HTTP/2, traces, endpoints of hawkgate's own, refusals before routing) is declined before
//! anything was done for it, and goes through [`super::hooks`].

mod exchange;
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

use super::answer;
use super::client::{Origin, PeerInfo};
use super::connection::Connection;
use super::context::{Context, Exchanged, InFlight, path_of};
use super::deadline::Deadline;
use super::failure::{self, Failure};
use super::hooks::{self, Hooks};
use super::server::Signal;
use crate::clock::Now;
use crate::gateway::reason::Reason;
use crate::gateway::rejection::Rejection;
use crate::gateway::{Found, Gateway, Head};
use crate::header_fields::{HeaderFields, text};
use pool::Pool;
use request::RequestHead;

/// See the module. Clones share everything.
#[derive(Clone)]
pub struct FastPath {
    hooks: Hooks,
    connector: Arc<TransportConnector>,
    pools: Arc<[Arc<Pool>]>,
}

/// Who asks, on which connection.
pub(super) struct Caller<'a> {
    pub(super) connection: &'a mut Connection,
    pub(super) peer: Option<IpAddr>,
    pub(super) origin: Option<&'a Origin>,
    /// Has come once connections are to end with their current request.
    pub(super) signal: &'a Signal,
    /// For what is waited for.
    pub(super) deadline: &'a mut Deadline,
    /// Which worker serves it.
    pub(super) worker: usize,
}

/// What became of a request.
pub(super) enum Relayed {
    /// It is not one for here: its head, unchanged.
    Declined(BytesMut),
    /// It was answered, and there may be another.
    Next,
    /// It was answered, and the caller told that the connection ends.
    Last,
    /// The caller is gone, or its answer broke off: nothing more may be sent.
    Broken,
}

/// What was sent to the caller.
#[derive(Default)]
struct Sent {
    /// The last status.
    code: u16,
    /// A final head went out.
    answered: bool,
    /// It was a refusal, and is complete.
    refused: bool,
    /// The connection ends with it.
    last: bool,
    /// Bytes of body.
    body: u64,
}

impl FastPath {
    /// For connections that are dealt out to so many `workers`.
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

    /// Serves the request with this checked `head`, behind which there is no body, or
    /// declines to.
    pub(super) async fn serve(&self, mut caller: Caller<'_>, head: BytesMut) -> Relayed {
        if !RequestHead::may_begin(&head) {
            return Relayed::Declined(head);
        }
        let head = head.freeze();
        let gateway = self.hooks.gateway.load_full();
        match RequestHead::parse(&head).filter(|request| accepts(&gateway, request)) {
            // Boxed, so that a waiting connection's task stays small.
            Some(request) => Box::pin(self.relay(&mut caller, gateway, request))
                .await
                .unwrap_or_else(|| Relayed::Declined(BytesMut::from(head))),
            None => Relayed::Declined(BytesMut::from(head)),
        }
    }

    /// `None` where the route is none for here.
    async fn relay(
        &self,
        caller: &mut Caller<'_>,
        gateway: Arc<Gateway>,
        mut request: RequestHead,
    ) -> Option<Relayed> {
        let tls = caller.connection.is_tls();
        let peer = PeerInfo::new(caller.peer, tls, caller.origin, &request.fields);
        let head = Head {
            method: &request.method,
            host: text(request.fields.first(&header::HOST)?)?,
            target: request.target(),
            headers: &request.fields,
            peer: peer.client,
            certificate: peer.certificate.as_deref(),
        };
        let now = Now::read(&*self.hooks.clock);
        let in_flight = InFlight::one_of(&self.hooks.in_flight);
        let mut context = Context::new(gateway, now.monotonic, in_flight);
        let found = context.gateway.find(head).ok().filter(is_plain)?;
        context.request_id = self.hooks.request_id(&request.fields);
        let admitted = context.gateway.admit_to(found, head, now).await;
        context.peer = Some(peer);
        context.times.admitted = Some(self.hooks.clock.monotonic());
        let mut sent = Sent {
            last: caller.signal.has_come(),
            ..Sent::default()
        };
        let served = match admitted {
            Ok(admission) => {
                context.admission = Some(admission);
                self.forward(caller, &mut context, &mut request, &mut sent)
                    .await
            }
            Err(mut refused) => {
                let rejection = std::mem::replace(&mut refused.rejection, Reason::Internal.into());
                context.refused = Some(refused);
                self.refuse(caller, &mut context, &request, rejection, &mut sent)
                    .await
            }
        };
        Some(self.finish(&mut context, request, &sent, served))
    }

    /// Answers with a refusal.
    async fn refuse(
        &self,
        caller: &mut Caller<'_>,
        context: &mut Context,
        request: &RequestHead,
        rejection: Rejection,
        sent: &mut Sent,
    ) -> Result<(), Box<Error>> {
        let now = self.hooks.clock.now();
        let answer = rejection.answer(&request.method, now);
        let id = Some(context.request_id.as_str());
        let wire = answer::on_wire(&answer, &request.method, now, id, sent.last);
        context.rejection = Some(rejection);
        send(caller.connection, [&wire, &[]]).await?;
        sent.answered = true;
        sent.refused = true;
        sent.code = answer.status.as_u16();
        if request.method != http::Method::HEAD {
            sent.body = answer.body.len() as u64;
        }
        Ok(())
    }

    /// The end of a request that could not be answered by its upstream, in the way in which
    /// [`super::hooks`] ends one: with a refusal, if nothing was answered yet and somebody
    /// is there to read it.
    async fn give_up(
        &self,
        caller: &mut Caller<'_>,
        context: &mut Context,
        request: &RequestHead,
        error: Box<Error>,
        sent: &mut Sent,
    ) -> Result<(), Box<Error>> {
        let rejection = match (context.rejection.take(), failure::judge(&error)) {
            (Some(rejection), _) | (None, Failure::Refuse(rejection)) => rejection,
            (None, Failure::CallerGone) => return Err(error),
        };
        if sent.answered {
            return Err(error);
        }
        let rejection = Rejection {
            recovery_code: context.take_recovery_code(),
            ..rejection
        };
        sent.last = true;
        // A caller that cannot be written to is gone; there is nothing else to do.
        let _ = self.refuse(caller, context, request, rejection, sent).await;
        Err(error)
    }

    /// Records how the request ended, and says what becomes of the caller's connection.
    fn finish(
        &self,
        context: &mut Context,
        request: RequestHead,
        sent: &Sent,
        served: Result<(), Box<Error>>,
    ) -> Relayed {
        let relayed = match &served {
            Ok(()) if sent.last => Relayed::Last,
            Ok(()) => Relayed::Next,
            // In the upstream's place.
            Err(_) if sent.refused => Relayed::Last,
            Err(_) => Relayed::Broken,
        };
        let broke = served.err().map(|error| {
            let gone = matches!(failure::judge(&error), Failure::CallerGone);
            (gone, failure::cause(&error))
        });
        let exchanged = Exchanged {
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
        let outcome = context.outcome(exchanged, now, broke);
        (self.hooks.recorder)(&outcome);
        relayed
    }
}

/// Whether a request is one for here, as far as can be said without its route.
fn accepts(gateway: &Gateway, request: &RequestHead) -> bool {
    gateway.observe.trace.is_none() && !hooks::is_own(request.target(), gateway)
}

/// Whether a route is one for here.
fn is_plain(found: &Found<'_>) -> bool {
    !found.route.upstream.http2 && !found.route.takes_password()
}

/// Sends all of `parts` to the caller, now.
async fn send(connection: &mut Connection, parts: [&[u8]; 2]) -> Result<(), Box<Error>> {
    connection.send(parts).await.map_err(|error| {
        Error::because(pingora::ErrorType::WriteError, "sending an answer", error).into_down()
    })
}
