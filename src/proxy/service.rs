//! What serves the requests that the connections receive: the relay, or the admin pages.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;

use super::client::ConnMetadata;
use super::connection_limit::{ConnState, StreamGuard};
use super::deadline::Deadline;
use super::downstream::Downstream;
use super::drain::Signal;
use super::head::RequestHead;
use super::in_flight::Address;
use crate::gateway::CallerMemo;

/// Serves requests.
#[async_trait]
pub(super) trait Service: Send + Sync + 'static {
    /// Serves one request to its end: the response has been written and flushed, or the caller
    /// is gone.
    async fn serve(&self, request: Request<'_>) -> Served;

    /// Returns the counters of a connected peer, which its requests share. `None` if it may be a
    /// trusted proxy: then each request has its own client.
    fn peer_address(
        &self,
        _peer: Option<IpAddr>,
        _metadata: &ConnMetadata,
    ) -> Option<Arc<Address>> {
        None
    }
}

/// One request.
pub(super) struct Request<'c> {
    /// Validated, in every version.
    pub(super) head: RequestHead,
    pub(super) downstream: Downstream<'c>,
    pub(super) conn: &'c ConnInfo,
    /// The deadline for whatever the request is currently waiting for.
    pub(super) deadline: &'c mut Deadline,
    /// Counts an HTTP/2 request as being served on its connection.
    pub(super) stream: Option<StreamGuard>,
}

/// What is known of the caller's connection.
pub(super) struct ConnInfo {
    /// The index of the worker that serves the connection.
    pub(super) worker: usize,
    /// Signals a drain, during which the connection closes after its current request.
    pub(super) signal: Signal,
    /// Learns whether requests are admitted.
    pub(super) state: Arc<ConnState>,
    pub(super) peer: Option<IpAddr>,
    pub(super) tls: bool,
    pub(super) metadata: ConnMetadata,
    /// The result of [`Service::peer_address`].
    pub(super) address: Option<Arc<Address>>,
    /// Timeout for each write of a response that makes no progress.
    pub(super) write_timeout: Duration,
    /// The token and the session of the latest request. Taken out while a request is admitted, so that the lock is
    /// never held for long; the streams of an HTTP/2 connection share it.
    pub(super) memo: Mutex<CallerMemo>,
}

/// What happens to the caller's connection after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Served {
    /// It can serve another request, if the request's body was read to its end.
    KeepAlive,
    /// The response is complete, and the connection is closed.
    Close,
    /// The caller is gone, or its response was truncated. Nothing more may be sent.
    Aborted,
}
