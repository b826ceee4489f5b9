//! One request of a caller: an HTTP/2 stream.

use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;

use crate::proxy::error::RelayError;
use crate::proxy::head::ResponseHead;

/// See [`crate::proxy::downstream::Downstream`] for the methods.
pub(in crate::proxy) struct Session {
    stream: (),
}

#[allow(clippy::todo, unused_variables)]
impl Session {
    pub(in crate::proxy) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, RelayError>> {
        todo!()
    }
    pub(in crate::proxy) fn is_body_done(&self) -> bool {
        todo!()
    }
    pub(in crate::proxy) fn take_trailers(&mut self) -> Option<HeaderMap> {
        todo!()
    }
    pub(in crate::proxy) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        todo!()
    }
    pub(in crate::proxy) fn queue_interim(
        &mut self,
        head: &ResponseHead,
    ) -> Result<(), RelayError> {
        todo!()
    }
    pub(in crate::proxy) fn queue_head(
        &mut self,
        head: ResponseHead,
        close: bool,
    ) -> Result<(), RelayError> {
        todo!()
    }
    pub(in crate::proxy) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        content: &[u8],
        end: bool,
    ) -> Poll<Result<usize, RelayError>> {
        todo!()
    }
    pub(in crate::proxy) fn poll_finish(
        &mut self,
        cx: &mut Context<'_>,
        trailers: &mut Option<HeaderMap>,
    ) -> Poll<Result<(), RelayError>> {
        todo!()
    }
    pub(in crate::proxy) fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), RelayError>> {
        todo!()
    }
    pub(in crate::proxy) fn is_answered(&self) -> bool {
        todo!()
    }
    pub(in crate::proxy) fn abort(&mut self) {
        todo!()
    }
}
