//! HTTP/1 connections: reads and validates the head of each request, then hands it to the fast
//! path, or to pingora, which parses the head again.

use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use pingora::apps::{HttpPersistentSettings, HttpServerApp};
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::server::ShutdownWatch;

use super::lingering_close::lingering_close;
use super::{ConnLimits, Shared, reject};
use crate::gateway::reason::Reason;
use crate::gateway::rejection::Rejection;
use crate::proxy::client::ConnMetadata;
use crate::proxy::connection::{Connection, Handoff};
use crate::proxy::connection_limit::ConnState;
use crate::proxy::deadline::Deadline;
use crate::proxy::drain::Signal;
use crate::proxy::fast_path::{Caller, ServeResult};
use crate::proxy::in_flight::Address;
use crate::proxy::validate::{self, Framing, HeadEndFinder, HeadStatus, RejectedHead};

/// Maximum time for reading the rest of a request body after the response.
const DRAIN: Duration = Duration::from_secs(5);

/// The next event on a connection.
enum NextRequest {
    Request(BytesMut),
    Rejected(Box<RejectedHead>),
    /// There is no further request: the caller has disconnected or was idle for too long, or the
    /// server is closing.
    Closed,
}

/// The peer of a connection, and the worker that serves it.
pub(super) struct ConnInfo {
    pub(super) worker: usize,
    pub(super) signal: Signal,
    pub(super) state: Arc<ConnState>,
    pub(super) peer: Option<IpAddr>,
    pub(super) proxy_digest: Option<Arc<ProxyDigest>>,
}

/// Serves requests one after another until either side closes the connection.
pub(super) async fn serve<A>(shared: &Shared<A>, app: &Arc<A>, stream: Stream, info: ConnInfo)
where
    A: HttpServerApp + Send + Sync + 'static,
{
    let handoff = Handoff::default();
    let connection = Connection::http1(stream, shared.limits.stall, handoff.clone());
    let mut connection = Box::new(connection.with_proxy_digest(info.proxy_digest.clone()));
    let mut idle_timeout = shared.limits.header_timeout;
    let draining = shared.drain.draining_watch();
    let mut deadline = Deadline::new(idle_timeout);
    let mut settings = None;
    let metadata = ConnMetadata::from_digest(info.proxy_digest.as_ref());
    let fast_path = shared.fast_path.as_ref();
    let address = fast_path.and_then(|path| path.peer_address(info.peer, metadata));
    loop {
        deadline.set(idle_timeout);
        match next_request(&shared.limits, &mut connection, &mut deadline, &info.signal).await {
            NextRequest::Request(head) => {
                let _serving = info.state.begin_request();
                let serving = try_fast_path(
                    shared,
                    &mut connection,
                    &info,
                    address.as_ref(),
                    &mut deadline,
                    head,
                );
                match info
                    .state
                    .serve(serving)
                    .await
                    .unwrap_or(ServeResult::Aborted)
                {
                    ServeResult::Declined(head) => {
                        let session = session(&shared.limits, connection, settings, head);
                        let serving = process(app, session, &draining);
                        match info.state.serve(serving).await.flatten() {
                            Some((back, persistent)) => (connection, settings) = (back, persistent),
                            None => break,
                        }
                    }
                    ServeResult::KeepAlive => {}
                    ended @ (ServeResult::Close | ServeResult::Aborted) => {
                        if matches!(ended, ServeResult::Close) {
                            connection.mark_response_complete();
                        }
                        drop(connection);
                        break;
                    }
                }
            }
            NextRequest::Rejected(rejected) => {
                let rejecting =
                    reject::respond_and_close(shared, *connection, &rejected, info.peer);
                info.signal.unless_evicted(rejecting).await;
                break;
            }
            NextRequest::Closed => {
                connection.mark_response_complete();
                drop(connection);
                break;
            }
        }
        idle_timeout = if info.state.closes_early() {
            shared.limits.unadmitted_keepalive
        } else {
            shared.limits.keepalive_timeout
        };
    }
    if let Some(closed) = handoff.take() {
        let closing = lingering_close(closed, shared.limits.linger);
        info.signal.unless_evicted(closing).await;
    }
}

/// Offers the request to the fast path.
async fn try_fast_path<A>(
    shared: &Shared<A>,
    connection: &mut Connection,
    info: &ConnInfo,
    address: Option<&Arc<Address>>,
    deadline: &mut Deadline,
    head: BytesMut,
) -> ServeResult {
    match &shared.fast_path {
        // Only requests without a body.
        Some(fast_path) if connection.is_between_requests() => {
            let caller = Caller {
                connection,
                peer: info.peer,
                metadata: ConnMetadata::from_digest(info.proxy_digest.as_ref()),
                address,
                signal: &info.signal,
                state: &info.state,
                deadline,
                write_timeout: shared.limits.stall,
                worker: info.worker,
            };
            fast_path.serve(caller, head).await
        }
        _ => ServeResult::Declined(head),
    }
}

/// Serves one request through pingora. Returns the connection if it can be reused.
async fn process<A>(
    app: &Arc<A>,
    session: ServerSession,
    draining: &ShutdownWatch,
) -> Option<(Box<Connection>, Option<HttpPersistentSettings>)>
where
    A: HttpServerApp + Send + Sync + 'static,
{
    if *draining.borrow() {
        // During shutdown, pingora drops a request if its task has to yield between reading and
        // serving it, so the task must start with a full cooperative budget.
        tokio::task::yield_now().await;
    }
    let reused = app.process_new_http(session, draining).await?;
    let (stream, settings) = reused.consume();
    let connection = stream.into_any().downcast::<Connection>().ok()?;
    connection
        .is_between_requests()
        .then_some((connection, settings))
}

fn session(
    limits: &ConnLimits,
    connection: Box<Connection>,
    settings: Option<HttpPersistentSettings>,
    head: BytesMut,
) -> ServerSession {
    let mut session = ServerSession::new_http1(connection);
    if let Some(settings) = settings {
        settings.apply_to_session(&mut session);
    }
    // pingora never receives bytes of the next request, so it does not need to carry any over.
    session.set_pipelining_enabled(false);
    session.set_pipelined_prefix(head);
    session.set_read_timeout(Some(limits.stall));
    session.set_write_timeout(Some(limits.stall));
    session.set_total_drain_timeout(Some(DRAIN));
    session
}

/// Waits until the deadline for the next request to begin, and then reads its head.
async fn next_request(
    limits: &ConnLimits,
    connection: &mut Connection,
    deadline: &mut Deadline,
    signal: &Signal,
) -> NextRequest {
    if connection.received().is_empty() {
        let first = poll_fn(|cx| {
            if let Poll::Ready(first) = connection.poll_receive(cx) {
                return Poll::Ready(first.ok());
            }
            if signal.poll_closing(cx).is_ready() {
                return Poll::Ready(None);
            }
            deadline.poll(cx).map(|()| None)
        });
        if first.await.is_none_or(|read| read == 0) {
            return NextRequest::Closed;
        }
    }
    let head = signal.unless_evicted(read_head(limits, connection));
    match deadline.within(limits.header_timeout, head).await {
        Some(next) => next.unwrap_or(NextRequest::Closed),
        None if connection.received() == b"\r\n" => NextRequest::Closed,
        None => reject_head(connection, Reason::HeaderTimeout.into()),
    }
}

async fn read_head(limits: &ConnLimits, connection: &mut Connection) -> NextRequest {
    let mut finder = HeadEndFinder::default();
    loop {
        match finder.advance(connection.received(), &limits.head) {
            Ok(HeadStatus::Complete { start, end }) => {
                return validate_head(limits, connection, start, end);
            }
            Ok(HeadStatus::Partial) => {}
            Err(rejection) => return reject_head(connection, rejection),
        }
        if !matches!(connection.receive().await, Ok(read) if read > 0) {
            return NextRequest::Closed;
        }
    }
}

fn validate_head(
    limits: &ConnLimits,
    connection: &mut Connection,
    start: usize,
    end: usize,
) -> NextRequest {
    let head = connection.received().get(start..end).unwrap_or_default();
    match validate::check_raw(head, &limits.head) {
        Ok(framing) => NextRequest::Request(connection.split_head(start, end, framing)),
        Err(rejected) => {
            connection.split_head(start, end, Framing::Length(0));
            NextRequest::Rejected(rejected)
        }
    }
}

fn reject_head(connection: &Connection, rejection: Rejection) -> NextRequest {
    let received = connection.received();
    let line = received.strip_prefix(b"\r\n").unwrap_or(received);
    NextRequest::Rejected(Box::new(validate::rejected_head(line, rejection)))
}
