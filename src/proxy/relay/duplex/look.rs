//! Looks at the body of a 401 before it is decided what becomes of it.

use std::future::poll_fn;
use std::task::{Context, Poll};

use super::Duplex;
use crate::gateway::{LOOK_TIMEOUT, Replayable, ScopesVerdict, UnauthorizedBody};
use crate::proxy::error::{RelayError, Side};
use crate::proxy::relay::waits::Wait;

/// Maximum number of bytes of a 401 that are read ahead.
const MAX_READ_AHEAD: usize = 32 * 1024;

/// A look at the body of a 401.
pub(in crate::proxy::relay) struct Look {
    body: UnauthorizedBody,
    verdict: ScopesVerdict,
}

impl Look {
    pub(in crate::proxy::relay) fn new(body: UnauthorizedBody) -> Self {
        let verdict = ScopesVerdict::Undecided;
        Self { body, verdict }
    }

    /// Whether the body says that the client does not hold the `authorizedScopes`.
    pub(in crate::proxy::relay) fn is_refusal(&self) -> bool {
        self.verdict == ScopesVerdict::Refused
    }

    /// Looks at the next piece.
    pub(super) fn add(&mut self, piece: &[u8]) {
        if self.verdict == ScopesVerdict::Undecided {
            self.verdict = self.body.add(piece);
        }
    }
}

/// How a look at the body of a 401 ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy::relay) enum Looked {
    /// The body has said what it can say in time.
    Done,
    /// The request cannot be sent again any more, so nothing is waited for.
    TooLate,
}

impl Duplex<'_, '_> {
    /// Reads the beginning of the body of a 401 ahead, until it is decisive. Takes at most
    /// [`LOOK_TIMEOUT`]; a body that is broken or late says nothing. The request is sent on in the
    /// meantime.
    ///
    /// # Errors
    /// If the caller is gone or its body is not acceptable.
    pub(in crate::proxy::relay) async fn look(
        &mut self,
        look: &mut Look,
    ) -> Result<Looked, RelayError> {
        self.waits.end(Wait::Look);
        let looked = poll_fn(|cx| self.poll_look(look, cx)).await;
        self.waits.end(Wait::Look);
        looked
    }

    fn poll_look(
        &mut self,
        look: &mut Look,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Looked, RelayError>> {
        self.waits.begin_poll();
        loop {
            if self.caller.body.replayable() != Replayable::Yes {
                return Poll::Ready(Ok(Looked::TooLate));
            }
            match self.upstream.poll_body(cx) {
                Poll::Ready(Ok(true)) => {
                    let chunk = self.upstream.chunk();
                    look.add(chunk);
                    self.ahead.extend_from_slice(chunk);
                    let length = chunk.len();
                    self.upstream.consume(length);
                    let decided = look.verdict != ScopesVerdict::Undecided;
                    if decided || self.ahead.len() >= MAX_READ_AHEAD {
                        return Poll::Ready(Ok(Looked::Done));
                    }
                }
                Poll::Ready(ended) => {
                    self.ended = Some(ended.map(|_| ()));
                    return Poll::Ready(Ok(Looked::Done));
                }
                Poll::Pending => {
                    if self.poll_upload(cx)?.is_pending() {
                        break;
                    }
                }
            }
        }
        self.waits.begin(Wait::Look, LOOK_TIMEOUT);
        match self.poll_waits(false, cx) {
            Poll::Ready(error) if error.side == Side::Caller => Poll::Ready(Err(error)),
            Poll::Ready(_) => Poll::Ready(Ok(Looked::Done)),
            Poll::Pending => Poll::Pending,
        }
    }
}
