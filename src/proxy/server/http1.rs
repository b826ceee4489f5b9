//! HTTP/1 connections: each request's head is read and checked here, then handed to
//! pingora, which parses it again and serves it.

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

use super::drain::Signal;
use super::{Bounds, Shared, refuse};
use crate::gateway::reason::Reason;
use crate::gateway::rejection::Rejection;
use crate::proxy::client::Origin;
use crate::proxy::connection::{Connection, Handoff};
use crate::proxy::deadline::Deadline;
use crate::proxy::fast_path::{Caller, Relayed};
use crate::proxy::validate::{self, Framing, Progress, Refusal, Scan};

/// Longest time spent on reading what is left of a body after its answer.
const DRAIN: Duration = Duration::from_secs(5);

/// What the caller sends next.
enum Next {
    Request(BytesMut),
    Refused(Box<Refusal>),
    /// Nothing: he is gone, or idle for too long, or the server ends.
    Over,
}

/// Where a connection comes from, and which worker serves it.
pub(super) struct ConnInfo {
    pub(super) worker: usize,
    pub(super) signal: Signal,
    pub(super) peer: Option<IpAddr>,
    pub(super) origin: Option<Arc<ProxyDigest>>,
}

/// Serves requests one after the other until either side closes.
pub(super) async fn serve<A>(shared: &Shared<A>, app: &Arc<A>, stream: Stream, info: ConnInfo)
where
    A: HttpServerApp + Send + Sync + 'static,
{
    let handoff = Handoff::default();
    let connection = Connection::http1(stream, shared.bounds.stall, handoff.clone());
    let mut connection = Box::new(connection.from(info.origin.clone()));
    let mut patience = shared.bounds.header_timeout;
    let leaving = shared.control.watch_leaving();
    let mut deadline = Deadline::new(patience);
    let mut settings = None;
    loop {
        deadline.set(patience);
        match next(&shared.bounds, &mut connection, &mut deadline, &info.signal).await {
            Next::Request(head) => {
                match relayed(shared, &mut connection, &info, &mut deadline, head).await {
                    Relayed::Declined(head) => {
                        let session = session(&shared.bounds, connection, settings, head);
                        match process(app, session, &leaving).await {
                            Some((back, kept)) => (connection, settings) = (back, kept),
                            None => break,
                        }
                    }
                    Relayed::Next => {}
                    ended @ (Relayed::Last | Relayed::Broken) => {
                        if matches!(ended, Relayed::Last) {
                            connection.complete();
                        }
                        drop(connection);
                        break;
                    }
                }
            }
            Next::Refused(refusal) => {
                refuse::reply(shared, *connection, &refusal, info.peer).await;
                break;
            }
            Next::Over => {
                connection.complete();
                drop(connection);
                break;
            }
        }
        patience = shared.bounds.keepalive_timeout;
    }
    if let Some(closed) = handoff.take() {
        refuse::lingering_close(closed).await;
    }
}

/// Offers the request to the fast path.
async fn relayed<A>(
    shared: &Shared<A>,
    connection: &mut Connection,
    info: &ConnInfo,
    deadline: &mut Deadline,
    head: BytesMut,
) -> Relayed {
    match &shared.fast_path {
        // Nothing of a body is to come.
        Some(fast_path) if connection.is_between_requests() => {
            let caller = Caller {
                connection,
                peer: info.peer,
                origin: Origin::of(info.origin.as_ref()),
                signal: &info.signal,
                deadline,
                worker: info.worker,
            };
            fast_path.serve(caller, head).await
        }
        _ => Relayed::Declined(head),
    }
}

/// Has pingora serve one request; gives the connection back if there may be another.
async fn process<A>(
    app: &Arc<A>,
    session: ServerSession,
    leaving: &ShutdownWatch,
) -> Option<(Box<Connection>, Option<HttpPersistentSettings>)>
where
    A: HttpServerApp + Send + Sync + 'static,
{
    if *leaving.borrow() {
        // pingora would rather drop a request than yield between reading and serving it
        // now: it must not run out of its share of this poll.
        tokio::task::yield_now().await;
    }
    let reused = app.process_new_http(session, leaving).await?;
    let (stream, settings) = reused.consume();
    let connection = stream.into_any().downcast::<Connection>().ok()?;
    connection
        .is_between_requests()
        .then_some((connection, settings))
}

fn session(
    bounds: &Bounds,
    connection: Box<Connection>,
    settings: Option<HttpPersistentSettings>,
    head: BytesMut,
) -> ServerSession {
    let mut session = ServerSession::new_http1(connection);
    if let Some(settings) = settings {
        settings.apply_to_session(&mut session);
    }
    // Nothing of the next request ever gets there, so that pingora has nothing to pass on.
    session.set_pipelining_enabled(false);
    session.set_pipelined_prefix(head);
    session.set_read_timeout(Some(bounds.stall));
    session.set_write_timeout(Some(bounds.stall));
    session.set_total_drain_timeout(Some(DRAIN));
    session
}

/// Waits for the next request until the deadline, and for its head to be complete.
async fn next(
    bounds: &Bounds,
    connection: &mut Connection,
    deadline: &mut Deadline,
    signal: &Signal,
) -> Next {
    if connection.received().is_empty() {
        let first = poll_fn(|cx| {
            if let Poll::Ready(first) = connection.poll_receive(cx) {
                return Poll::Ready(first.ok());
            }
            if signal.poll(cx).is_ready() {
                return Poll::Ready(None);
            }
            deadline.poll(cx).map(|()| None)
        });
        if first.await.is_none_or(|read| read == 0) {
            return Next::Over;
        }
    }
    let head = read_head(bounds, connection);
    match deadline.within(bounds.header_timeout, head).await {
        Some(next) => next,
        None if connection.received() == b"\r\n" => Next::Over,
        None => refused(connection, Reason::HeaderTimeout.into()),
    }
}

async fn read_head(bounds: &Bounds, connection: &mut Connection) -> Next {
    let mut scan = Scan::default();
    loop {
        match scan.advance(connection.received(), &bounds.head) {
            Ok(Progress::Complete { start, end }) => {
                return checked(bounds, connection, start, end);
            }
            Ok(Progress::Partial) => {}
            Err(rejection) => return refused(connection, rejection),
        }
        if !matches!(connection.receive().await, Ok(read) if read > 0) {
            return Next::Over;
        }
    }
}

fn checked(bounds: &Bounds, connection: &mut Connection, start: usize, end: usize) -> Next {
    let head = connection.received().get(start..end).unwrap_or_default();
    match validate::check_raw(head, &bounds.head) {
        Ok(framing) => Next::Request(connection.begin(start, end, framing)),
        Err(refusal) => {
            connection.begin(start, end, Framing::Length(0));
            Next::Refused(refusal)
        }
    }
}

fn refused(connection: &Connection, rejection: Rejection) -> Next {
    let received = connection.received();
    let line = received.strip_prefix(b"\r\n").unwrap_or(received);
    Next::Refused(Box::new(validate::refusal(line, rejection)))
}
