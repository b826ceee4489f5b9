//! Request bodies recorded so that a request can be sent again after a 401.
//!
//! pingora's own buffer ends at 64 KiB, and a retry forced past it truncates the upload. So
//! every request with a body is read through a [`ReplaySession`]. It records what it reads, up
//! to a limit per request and a budget for all of them, and plays it back on a replay before it
//! continues reading from the caller. Beyond the limit or the budget nothing is recorded any
//! more, the body streams on, and the request cannot be replayed.

mod budget;
mod buffer;
mod session;
#[cfg(test)]
mod tests;

pub use budget::Budget;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pingora::protocols::http::ServerSession;
use pingora::proxy::Session;

use crate::gateway::Replayable;
use crate::proxy::settings::Limits;
use buffer::ReplayBuffer;
use session::ReplaySession;

/// The limits for one request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BodyLimits {
    /// Most bytes that a caller may send; no limit if `None`.
    pub(super) body: Option<u64>,
    /// Between two reads of a body, and for one write to a caller.
    pub(super) timeout: Duration,
    /// Most bytes of a body that can be replayed.
    pub(super) replay: usize,
}

impl From<&Limits> for BodyLimits {
    fn from(limits: &Limits) -> Self {
        Self {
            body: limits.body,
            timeout: limits.body_timeout,
            replay: limits.replay_body,
        }
    }
}

/// The request's handle to its recorded body. Everything is released when it and the session
/// are dropped.
pub(super) struct Replay {
    shared: Arc<Shared>,
}

/// Shared by session and handle.
struct Shared {
    buffer: Mutex<ReplayBuffer>,
    /// The caller's connection closes after this request.
    last: AtomicBool,
    /// Where a dropped replay session leaves the caller's session.
    returned: Mutex<Option<Box<ServerSession>>>,
}

impl Shared {
    fn buffer(&self) -> MutexGuard<'_, ReplayBuffer> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn returned(&self) -> MutexGuard<'_, Option<Box<ServerSession>>> {
        self.returned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Replay {
    /// Records the body of `session` from here on. `announced` is its `Content-Length`, if it
    /// has one.
    pub(super) fn begin(
        session: &mut Session,
        limits: BodyLimits,
        budget: &Arc<Budget>,
        announced: Option<u64>,
    ) -> Self {
        let shared = Arc::new(Shared {
            buffer: Mutex::new(ReplayBuffer::new(budget, limits.replay, announced)),
            last: AtomicBool::new(false),
            returned: Mutex::new(None),
        });
        let real = std::mem::replace(&mut session.downstream_session, absent());
        let replaying = ReplaySession::new(real, Arc::clone(&shared), limits);
        *session.downstream_session = ServerSession::Custom(Box::new(replaying));
        Self { shared }
    }

    /// The caller's connection closes after this request, and its response says so.
    pub(super) fn close_after(&self) {
        self.shared.last.store(true, Ordering::Relaxed);
    }

    /// Whether everything read of the body can be sent again.
    pub(super) fn replayable(&self) -> Replayable {
        self.shared.buffer().replayable()
    }

    /// The next attempt reads the body from its beginning.
    pub(super) fn rewind(&self) {
        self.shared.buffer().rewind();
    }

    /// There will be no further attempt: releases the memory.
    pub(super) fn finish_recording(&self) {
        self.shared.buffer().finish_recording();
    }

    /// Whether the caller is sending its body already, or was told to.
    pub(super) fn body_started(&self) -> bool {
        let buffer = self.shared.buffer();
        buffer.continued || buffer.has_started()
    }

    /// Puts the caller's own session back, so that its connection can be kept alive. Calling it
    /// again has no effect.
    pub(super) fn restore(&self, session: &mut Session) {
        self.shared.buffer().close();
        if !session.downstream_session.is_custom() {
            return;
        }
        // pingora's session types cannot be taken apart, so the replay session hands the real
        // one over when it is dropped.
        drop(std::mem::replace(&mut session.downstream_session, absent()));
        if let Some(real) = self.shared.returned().take() {
            session.downstream_session = real;
        }
    }
}

/// A placeholder for a session that was moved out; never used.
fn absent() -> Box<ServerSession> {
    Box::new(ServerSession::Custom(Box::new(())))
}
