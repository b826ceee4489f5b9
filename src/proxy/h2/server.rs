//! A caller's HTTP/2 connection. All its streams are served in the connection's own task, so that
//! heads and short responses that become ready together are written together, and none outlives the
//! connection.

mod cork;
#[cfg(test)]
mod tests;
mod turn;

use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use h2::server::{Builder, Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::request::Parts;
use http::{Method, Request as HttpRequest, Response, header};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::fields;
use super::session::{Session, Truncated};
use super::stall::StallGuard;
use crate::clock::SharedClock;
use crate::gateway::rejection::{ErrorResponse, Rejection};
use crate::proxy::connection_limit::StreamGuard;
use crate::proxy::deadline::Deadline;
use crate::proxy::downstream::Downstream;
use crate::proxy::head::{BodySize, RequestHead};
use crate::proxy::local_response;
use crate::proxy::record::{self, Delivery, Recorder};
use crate::proxy::service::{ConnInfo, Request, Service};
use crate::proxy::validate::{self, HeadLimits};
use cork::Cork;
use turn::TurnWaker;

/// Maximum number of concurrent streams of a connection.
const STREAMS: u32 = 100;
/// Maximum number of streams of a connection that the caller has reset before they were accepted
/// (CVE-2023-44487).
const PENDING_RESETS: usize = 20;
/// Maximum number of streams of a connection that were reset because of the caller's protocol
/// errors.
const ERROR_RESETS: usize = 100;
/// Maximum number of malformed heads on a connection of one client. The value is pingora's.
const MALFORMED: u32 = 32;
/// Maximum time for a connection that serves no request to close after its GOAWAY frame (RFC
/// 9113 §6.8), if it makes room for another or was idle for too long.
const GOAWAY_TIMEOUT: Duration = Duration::from_millis(250);
/// The same in a drain, which has more time: most callers are nearer than that, so requests that
/// they sent before they received the GOAWAY frame are still served.
const DRAIN_GOAWAY_TIMEOUT: Duration = Duration::from_secs(1);
/// Maximum time for the requests of a connection to notice that it is gone.
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// What applies to all connections.
pub(in crate::proxy) struct Settings<'s> {
    pub(in crate::proxy) head: HeadLimits,
    /// Maximum time for the connection preface.
    pub(in crate::proxy) header_timeout: Duration,
    /// How long a connection without requests stays open.
    pub(in crate::proxy) keepalive_timeout: Duration,
    /// The same for a connection on which no request was admitted yet.
    pub(in crate::proxy) unadmitted_keepalive: Duration,
    pub(in crate::proxy) clock: &'s SharedClock,
    pub(in crate::proxy) recorder: &'s Recorder,
}

/// Serves a connection until it closes. A write that makes no progress for
/// [`ConnInfo::write_timeout`] fails.
pub(in crate::proxy) async fn serve<S, I>(
    service: &S,
    conn: &ConnInfo,
    io: I,
    settings: &Settings<'_>,
) where
    S: Service + ?Sized,
    I: AsyncRead + AsyncWrite + Unpin,
{
    let io = Cork::new(StallGuard::new(io, conn.write_timeout));
    let handshake = builder(settings).handshake(io.clone());
    let handshake = timeout(settings.header_timeout, handshake);
    let Some(Ok(Ok(h2))) = conn.signal.unless_evicted(handshake).await else {
        return;
    };
    io.cork();
    let mut server = Server {
        conn,
        settings,
        h2,
        deadline: Deadline::new(settings.keepalive_timeout),
        phase: Phase::Open,
        malformed: 0,
        truncated: Truncated::default(),
    };
    let mut streams = FuturesUnordered::new();
    // The timers of requests that have ended, for the next ones.
    let mut timers = Vec::new();
    let mut unadmitted = pin!(conn.state.unadmitted_idle(settings.unadmitted_keepalive));
    let turn = Arc::new(TurnWaker::default());
    let turn_waker = Waker::from(Arc::clone(&turn));
    poll_fn(|cx| {
        turn.begin(cx.waker());
        let mut round = 0;
        loop {
            while let Poll::Ready(Some(timer)) = streams.poll_next_unpin(cx) {
                timers.push(timer);
                if streams.is_empty() {
                    server.limit_idle_time();
                }
            }
            turn.begin_round();
            round += 1;
            match server.h2.poll_accept(&mut Context::from_waker(&turn_waker)) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    if let Some(accepted) = server.accept(request, respond) {
                        let timer = timers.pop();
                        streams.push(serve_stream(service, conn, accepted, timer));
                    }
                    continue;
                }
                Poll::Ready(None | Some(Err(_))) => {
                    // Without waiting: what is left is a GOAWAY frame.
                    let _ = io.poll_flush_turn(cx);
                    return Poll::Ready(());
                }
                Poll::Pending if server.truncated.reset() => continue,
                Poll::Pending => {}
            }
            let is_written = match io.poll_flush_turn(&mut Context::from_waker(&turn_waker)) {
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                flushed => flushed.is_ready(),
            };
            let work = match (streams.is_empty(), is_written) {
                (false, _) => Work::Serving,
                (true, false) => Work::Writing,
                (true, true) => Work::None,
            };
            match server.poll_end(cx, work, unadmitted.as_mut()) {
                End::Closed => {
                    server.send_last_goaway(cx);
                    let _ = io.poll_flush_turn(cx);
                    return Poll::Ready(());
                }
                End::Open if turn.end(round) => return Poll::Pending,
                End::Open | End::Closing => {}
            }
        }
    })
    .await;
    // The requests that are still being served fail, and are recorded.
    drop(server);
    let _ = timeout(END_TIMEOUT, async {
        while streams.next().await.is_some() {}
    })
    .await;
}

fn builder(settings: &Settings<'_>) -> Builder {
    let mut builder = Builder::new();
    builder
        .max_header_list_size(u32::try_from(settings.head.header_bytes).unwrap_or(u32::MAX))
        .max_concurrent_streams(STREAMS)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(Some(ERROR_RESETS))
        .max_send_buffer_size(super::SEND_BUFFER);
    builder
}

/// A request that is not malformed.
struct Accepted {
    head: RequestHead,
    session: Session,
    guard: StreamGuard,
}

/// Serves one request. Returns its timer.
async fn serve_stream<S: Service + ?Sized>(
    service: &S,
    conn: &ConnInfo,
    accepted: Accepted,
    timer: Option<Deadline>,
) -> Deadline {
    let mut deadline = timer.unwrap_or_else(|| Deadline::new(conn.write_timeout));
    let request = Request {
        head: accepted.head,
        downstream: Downstream::H2(Box::new(accepted.session)),
        conn,
        deadline: &mut deadline,
        stream: Some(accepted.guard),
    };
    let serving = AssertUnwindSafe(service.serve(request));
    if serving.catch_unwind().await.is_err() {
        // The panic itself has been logged. Its stream is reset; the others, which can be those of
        // other callers, go on.
        tracing::error!("a request ended in a panic");
    }
    deadline
}

/// How far a connection is from its end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// GOAWAY was sent. The connection closes once its requests have been served, and the caller
    /// has answered or had the time to.
    Draining,
    /// The same, but it closes soon, unless there are requests worth protecting.
    Leaving,
}

/// What a connection is busy with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Work {
    Serving,
    /// No request is being served, but the caller has not taken all that was sent.
    Writing,
    None,
}

/// The result of [`Server::poll_end`].
enum End {
    Open,
    /// The connection has begun to close: it has frames to send.
    Closing,
    Closed,
}

struct Server<'s, I> {
    conn: &'s ConnInfo,
    settings: &'s Settings<'s>,
    h2: Connection<Cork<StallGuard<I>>, Bytes>,
    /// Limits how long the connection stays open without requests.
    deadline: Deadline,
    phase: Phase,
    /// The number of malformed heads.
    malformed: u32,
    truncated: Truncated,
}

impl<I: AsyncRead + AsyncWrite + Unpin> Server<'_, I> {
    /// Limits how long the connection stays open from now on. Called when the last of the
    /// concurrent requests has ended, or when another phase has begun.
    fn limit_idle_time(&mut self) {
        self.deadline.set(match self.phase {
            Phase::Open => self.settings.keepalive_timeout,
            Phase::Draining => DRAIN_GOAWAY_TIMEOUT,
            Phase::Leaving => GOAWAY_TIMEOUT,
        });
    }

    /// Checks whether the connection has to close. `unadmitted` is ready if no request was
    /// admitted in time.
    fn poll_end(
        &mut self,
        cx: &mut Context<'_>,
        work: Work,
        unadmitted: Pin<&mut impl Future<Output = ()>>,
    ) -> End {
        let signal = &self.conn.signal;
        match self.phase {
            Phase::Open => {
                let phase = if signal.poll_closing(cx).is_ready() {
                    Phase::Draining
                } else if unadmitted.poll(cx).is_ready() {
                    signal.evict();
                    Phase::Draining
                } else if work != Work::Serving && self.deadline.poll(cx).is_ready() {
                    Phase::Leaving
                } else {
                    return End::Open;
                };
                self.phase = phase;
                self.limit_idle_time();
                self.h2.graceful_shutdown();
                End::Closing
            }
            Phase::Draining => {
                if signal.poll_evicted(cx).is_ready() {
                    self.phase = Phase::Leaving;
                    self.limit_idle_time();
                    return End::Closing;
                }
                // A caller that takes its responses slowly has the time to.
                while work != Work::Serving && self.deadline.poll(cx).is_ready() {
                    if work == Work::None {
                        return End::Closed;
                    }
                    self.deadline.set(DRAIN_GOAWAY_TIMEOUT);
                }
                End::Open
            }
            Phase::Leaving => {
                while self.deadline.poll(cx).is_ready() {
                    if !self.conn.state.is_busy() {
                        return End::Closed;
                    }
                    self.deadline.set(GOAWAY_TIMEOUT);
                }
                End::Open
            }
        }
    }

    /// Tells the caller which of its requests were processed, without waiting for it to take that
    /// (RFC 9113 §6.8). It can send the others again on another connection.
    fn send_last_goaway(&mut self, cx: &mut Context<'_>) {
        self.h2.abrupt_shutdown(Reason::NO_ERROR);
        // Accepts nothing more.
        let _ = self.h2.poll_accept(cx);
    }

    /// Accepts a stream, unless its head is malformed: then it is answered here.
    fn accept(
        &mut self,
        request: HttpRequest<RecvStream>,
        respond: SendResponse<Bytes>,
    ) -> Option<Accepted> {
        let guard = self.conn.state.begin_stream();
        let (parts, body) = request.into_parts();
        if let Err(rejection) = validate::check_http2(&parts, &self.settings.head) {
            self.refuse(&parts, rejection, respond);
            return None;
        }
        Some(Accepted {
            head: head(parts, &body),
            session: Session::new(body, respond, self.truncated.clone()),
            guard,
        })
    }

    /// Answers a malformed head and records it.
    fn refuse(&mut self, parts: &Parts, rejection: Rejection, mut respond: SendResponse<Bytes>) {
        let reason = rejection.reason;
        let rejected = validate::rejected_http2(parts, rejection);
        let now = self.settings.clock.now();
        let response = rejected.rejection.to_response(&rejected.method, now);
        let date = local_response::date(now);
        let delivery = match send(&mut respond, &response, &date, &rejected.method) {
            Some(()) => Delivery::Sent(&response),
            None => Delivery::Failed,
        };
        let conn = self.conn;
        let metadata = Some(&conn.metadata);
        (self.settings.recorder)(&record::rejected_outcome(
            &rejected, delivery, conn.peer, metadata,
        ));
        if conn.state.request_refused(reason) {
            conn.state.evict();
        }
        self.malformed = self.malformed.saturating_add(1);
        // On a trusted proxy's connection, one client must not fail those of others.
        if self.malformed >= MALFORMED && conn.address.is_some() {
            self.h2.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
        }
    }
}

/// Sends a response with a body so short that it need not wait for the windows. Returns `None` if
/// the stream has failed.
fn send(
    respond: &mut SendResponse<Bytes>,
    response: &ErrorResponse,
    date: &str,
    method: &Method,
) -> Option<()> {
    let mut head = Response::builder()
        .status(response.status)
        .header(header::DATE, date)
        .header(header::CONTENT_LENGTH, response.body.len());
    for (name, value) in &response.headers {
        head = head.header(*name, value);
    }
    let bodiless = *method == Method::HEAD || response.body.is_empty();
    let mut content = respond.send_response(head.body(()).ok()?, bodiless).ok()?;
    if !bodiless {
        let body = Bytes::copy_from_slice(response.body.as_bytes());
        content.send_data(body, true).ok()?;
    }
    Some(())
}

/// Converts a head that was checked.
fn head(parts: Parts, body: &RecvStream) -> RequestHead {
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    let authority = parts
        .uri
        .authority()
        .map(|authority| bytes(authority.as_str()));
    let target = parts
        .uri
        .path_and_query()
        .map(|target| bytes(target.as_str()));
    let length = parts.headers.get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
    let size = match length {
        Some(length) => BodySize::Known(length),
        None if body.is_end_stream() => BodySize::Empty,
        None => BodySize::Unknown,
    };
    RequestHead::new(
        parts.method,
        parts.version,
        (authority, target.unwrap_or_default()),
        fields::list(&parts.headers, |_| true),
        size,
    )
}
