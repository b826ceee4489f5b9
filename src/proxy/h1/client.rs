//! One attempt at an upstream in HTTP/1.

use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;

use crate::proxy::error::RelayError;
use crate::proxy::head::{RequestHead, ResponseHead};

/// See [`crate::proxy::upstream::Upstream`] for the methods.
pub(in crate::proxy) struct Session {
    connection: (),
}

/// Stub.
pub(in crate::proxy) struct Pool;

#[allow(clippy::todo, unused_variables)]
impl Pool {
    pub(in crate::proxy) fn new(clock: crate::clock::SharedClock) -> std::sync::Arc<Self> {
        std::sync::Arc::new(Self)
    }
    pub(in crate::proxy) fn take(
        &self,
        upstream: &std::sync::Arc<crate::gateway::route::Upstream>,
        address: std::net::SocketAddr,
        now: std::time::Duration,
    ) -> Option<Session> {
        todo!()
    }
    pub(in crate::proxy) fn begin(
        self: &std::sync::Arc<Self>,
        upstream: &std::sync::Arc<crate::gateway::route::Upstream>,
        address: std::net::SocketAddr,
        stream: pingora::protocols::Stream,
    ) -> Session {
        todo!()
    }
}

#[allow(clippy::todo, unused_variables)]
impl Session {
    pub(in crate::proxy) fn release(&mut self, now: std::time::Duration) {
        todo!()
    }
    pub(in crate::proxy) fn is_reused(&self) -> bool {
        todo!()
    }
    pub(in crate::proxy) fn queue_head(
        &mut self,
        head: &RequestHead,
        target: &str,
    ) -> Result<(), RelayError> {
        todo!()
    }
    pub(in crate::proxy) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        content: &mut Bytes,
        end: bool,
    ) -> Poll<Result<(), RelayError>> {
        todo!()
    }
    pub(in crate::proxy) fn poll_finish(
        &mut self,
        cx: &mut Context<'_>,
        trailers: &mut Option<HeaderMap>,
    ) -> Poll<Result<(), RelayError>> {
        todo!()
    }
    pub(in crate::proxy) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<ResponseHead, RelayError>> {
        todo!()
    }
    pub(in crate::proxy) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<bool, RelayError>> {
        todo!()
    }
    pub(in crate::proxy) fn chunk(&self) -> &[u8] {
        todo!()
    }
    pub(in crate::proxy) fn consume(&mut self, bytes: usize) {
        todo!()
    }
    pub(in crate::proxy) fn ends_with_chunk(&self) -> bool {
        todo!()
    }
    pub(in crate::proxy) fn take_trailers(&mut self) -> Option<HeaderMap> {
        todo!()
    }
}
