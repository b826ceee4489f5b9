//! A caller's HTTP/1 connection: reads and validates the head of each request, has it served, and
//! closes the connection so that the last response reaches the caller.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use pingora::protocols::Stream;

use super::connection::Connection;
use super::head;
use super::session::Session;
use crate::clock::SharedClock;
use crate::gateway::reason::Reason;
use crate::gateway::rejection::{ErrorResponse, Rejection};
use crate::proxy::deadline::Deadline;
use crate::proxy::downstream::Downstream;
use crate::proxy::drain::Signal;
use crate::proxy::head::RequestHead;
use crate::proxy::local_response::encode_http1;
use crate::proxy::record::{self, Delivery, Recorder};
use crate::proxy::service::{ConnInfo, Request, Served, Service};
use crate::proxy::validate::{self, Framing, HeadEndFinder, HeadLimits, HeadStatus, RejectedHead};

/// What applies to all connections.
pub(in crate::proxy) struct Settings<'s> {
    pub(in crate::proxy) head: HeadLimits,
    /// Maximum time for the head of a request.
    pub(in crate::proxy) header_timeout: Duration,
    /// How long a connection stays open between requests.
    pub(in crate::proxy) keepalive_timeout: Duration,
    /// The same for a connection on which no request was admitted yet.
    pub(in crate::proxy) unadmitted_keepalive: Duration,
    /// Maximum time for closing a connection whose caller is still sending.
    pub(in crate::proxy) linger: Duration,
    pub(in crate::proxy) clock: &'s SharedClock,
    pub(in crate::proxy) recorder: &'s Recorder,
}

/// The next event on a connection.
enum NextRequest {
    Request(RequestHead, Framing),
    Rejected(Box<RejectedHead>),
    /// There is no further request: the caller has disconnected or was idle for too long, or the
    /// server is closing.
    Closed,
}

/// Serves requests one after another until either side closes the connection.
pub(in crate::proxy) async fn serve<S: Service + ?Sized>(
    service: &S,
    conn: &ConnInfo,
    stream: Stream,
    settings: &Settings<'_>,
) {
    let mut connection = Connection::new(stream);
    let mut idle_timeout = settings.header_timeout;
    let mut deadline = Deadline::new(idle_timeout);
    let complete = loop {
        deadline.set(idle_timeout);
        match next_request(settings, &mut connection, &mut deadline, &conn.signal).await {
            NextRequest::Request(head, framing) => {
                let _serving = conn.state.begin_request();
                let serving = serve_request(
                    service,
                    conn,
                    &mut connection,
                    &mut deadline,
                    (head, framing),
                );
                match conn.state.serve(serving).await {
                    Some(Served::KeepAlive) if connection.is_reusable() => {}
                    Some(Served::KeepAlive | Served::Close) => {
                        break connection.is_response_complete();
                    }
                    Some(Served::Aborted) | None => break false,
                }
            }
            NextRequest::Rejected(rejected) => {
                let rejecting = reject(settings, conn, &mut connection, &mut deadline, &rejected);
                conn.signal.unless_evicted(rejecting).await;
                break true;
            }
            NextRequest::Closed => break true,
        }
        idle_timeout = if conn.state.closes_early() {
            settings.unadmitted_keepalive
        } else {
            settings.keepalive_timeout
        };
    };
    let closing = connection.close(complete, settings.linger);
    conn.signal.unless_evicted(closing).await;
}

/// Serves one request, and sees to it that its response is written.
async fn serve_request<S: Service + ?Sized>(
    service: &S,
    conn: &ConnInfo,
    connection: &mut Connection,
    deadline: &mut Deadline,
    (head, framing): (RequestHead, Framing),
) -> Served {
    let session = Session::begin(connection, &head, framing);
    let request = Request {
        head,
        downstream: Downstream::H1(session),
        conn,
        deadline,
        stream: None,
    };
    let served = service.serve(request).await;
    if served == Served::Aborted || connection.is_flushed() {
        return served;
    }
    match deadline
        .within(conn.write_timeout, connection.flush())
        .await
    {
        Some(Ok(())) => served,
        Some(Err(_)) | None => Served::Aborted,
    }
}

/// Waits until the deadline for the next request to begin, and then reads its head.
async fn next_request(
    settings: &Settings<'_>,
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
    let head = signal.unless_evicted(read_head(settings, connection));
    match deadline.within(settings.header_timeout, head).await {
        Some(next) => next.unwrap_or(NextRequest::Closed),
        None if connection.received() == b"\r\n" => NextRequest::Closed,
        None => reject_head(connection, Reason::HeaderTimeout.into()),
    }
}

async fn read_head(settings: &Settings<'_>, connection: &mut Connection) -> NextRequest {
    let mut finder = HeadEndFinder::default();
    loop {
        match finder.advance(connection.received(), &settings.head) {
            Ok(HeadStatus::Complete { start, end }) => {
                return take_head(settings, connection, start, end);
            }
            Ok(HeadStatus::Partial) => {}
            Err(rejection) => return reject_head(connection, rejection),
        }
        if !matches!(connection.receive().await, Ok(read) if read > 0) {
            return NextRequest::Closed;
        }
    }
}

fn take_head(
    settings: &Settings<'_>,
    connection: &mut Connection,
    start: usize,
    end: usize,
) -> NextRequest {
    let head = connection.split_head(start, end);
    match validate::check_raw(&head, &settings.head) {
        Ok(framing) => match head::parse_request(&head, framing) {
            Some(head) => NextRequest::Request(head, framing),
            None => reject_line(&head, Reason::BadRequest.into()),
        },
        Err(rejected) => NextRequest::Rejected(rejected),
    }
}

fn reject_head(connection: &Connection, rejection: Rejection) -> NextRequest {
    let received = connection.received();
    let line = received.strip_prefix(b"\r\n").unwrap_or(received);
    reject_line(line, rejection)
}

fn reject_line(line: &[u8], rejection: Rejection) -> NextRequest {
    NextRequest::Rejected(Box::new(validate::rejected_head(line, rejection)))
}

/// Responds to a rejected head, and records it. The caller may not have taken the responses to the
/// requests before, so the write has the same deadline as those.
async fn reject(
    settings: &Settings<'_>,
    conn: &ConnInfo,
    connection: &mut Connection,
    deadline: &mut Deadline,
    rejected: &RejectedHead,
) {
    let (response, wire) = encode_rejection(settings.clock, rejected);
    let sent = deadline.within(conn.write_timeout, connection.send_last(&wire));
    let delivery = match sent.await {
        Some(Ok(())) => Delivery::Sent(&response),
        Some(Err(_)) | None => Delivery::Failed,
    };
    let metadata = Some(&conn.metadata);
    let outcome = record::rejected_outcome(rejected, delivery, conn.peer, metadata);
    (settings.recorder)(&outcome);
}

/// Builds and encodes the response to a rejected head. It contains `Connection: close`.
pub(in crate::proxy) fn encode_rejection(
    clock: &SharedClock,
    rejected: &RejectedHead,
) -> (ErrorResponse, Vec<u8>) {
    let now = clock.now();
    let response = rejected.rejection.to_response(&rejected.method, now);
    let wire = encode_http1(&response, &rejected.method, now, None, true);
    (response, wire)
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use tokio::io::{AsyncWriteExt, duplex};

    use super::*;
    use crate::proxy::test_support::{TIMEOUT, TestConn, limits};

    struct NoRequests;

    #[async_trait]
    impl Service for NoRequests {
        async fn serve(&self, _: Request<'_>) -> Served {
            panic!("a malformed request is not served");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_does_not_read_its_rejection_is_given_up() {
        let conn = TestConn::new(limits(), Signal::default());
        let settings = conn.h1_settings();
        // Has room for a part of the response.
        let (local, mut caller) = duplex(16);
        caller.write_all(b"GET\r\n\r\n").await.unwrap();
        let serving = serve(&NoRequests, &conn.info, Box::new(local), &settings);
        let served = tokio::time::timeout(10 * TIMEOUT, serving).await;
        assert!(served.is_ok(), "the connection is still open");
        assert_eq!(conn.outcomes().lock().unwrap().len(), 1);
    }
}
