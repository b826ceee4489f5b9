//! Request bodies kept so that a request can be sent again after a 401.
//!
//! pingora's own buffer ends at 64 KiB, and a retry forced past it truncates the upload.
//! So every request with a body is read through a [`ReplaySession`]: it keeps what it reads, up
//! to a cap per request and a budget for all of them, and on a replay plays that back
//! before it goes on reading from the caller. Past the cap or the budget nothing is kept
//! any more, the body streams on, and the request cannot be sent again.

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

/// What bounds one request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BodyLimits {
    /// Bytes that a caller may send; any number when `None`.
    pub(super) body: Option<u64>,
    /// Between two reads of a body, and for one write to a caller.
    pub(super) timeout: Duration,
    /// Bytes up to which a body can be sent again.
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

/// The hold that a request's context has on its kept body. Everything is released when
/// it and the session are dropped.
pub(super) struct Replay {
    shared: Arc<Shared>,
}

/// What session and context share.
struct Shared {
    buffer: Mutex<ReplayBuffer>,
    /// The caller's connection ends with this request.
    last: AtomicBool,
    /// Where a dropped session leaves the caller's session.
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
    /// From here on `session`'s body is kept as it is read. `announced` is its
    /// `Content-Length`, if it has one.
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

    /// The caller's connection takes no further request: its answer says so.
    pub(super) fn close_after(&self) {
        self.shared.last.store(true, Ordering::Relaxed);
    }

    /// Whether all that was read of the body could be sent once more.
    pub(super) fn replayable(&self) -> Replayable {
        self.shared.buffer().replayable()
    }

    /// The next attempt reads the body from its beginning.
    pub(super) fn rewind(&self) {
        self.shared.buffer().rewind();
    }

    /// There will be no further attempt: gives the memory back.
    pub(super) fn spend(&self) {
        self.shared.buffer().spend();
    }

    /// Whether the caller sends a body already, or was told to.
    pub(super) fn under_way(&self) -> bool {
        let buffer = self.shared.buffer();
        buffer.continued || buffer.begun()
    }

    /// Puts the caller's own session back, so that its connection can be kept alive. A
    /// second call changes nothing.
    pub(super) fn restore(&self, session: &mut Session) {
        self.shared.buffer().close();
        if !session.downstream_session.is_custom() {
            return;
        }
        // The session types of this trait cannot be taken apart again, so the replaying session hands
        // the real one over when it is dropped.
        drop(std::mem::replace(&mut session.downstream_session, absent()));
        if let Some(real) = self.shared.returned().take() {
            session.downstream_session = real;
        }
    }
}

/// Stands where a session was moved out; never asked anything.
fn absent() -> Box<ServerSession> {
    Box::new(ServerSession::Custom(Box::new(())))
}
