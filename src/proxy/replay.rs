//! Records request bodies, so that a request can be sent again after a 401.
//!
//! pingora's own retry buffer is limited to 64 KiB, and a retry forced beyond it truncates the
//! upload. Therefore every request body is read through a [`ReplaySession`]. It records what it
//! reads, up to a limit per request and a budget shared by all requests. A replay first plays
//! back the recording and then continues reading from the caller. Once the limit or the budget
//! is exceeded, the recording is discarded; the body is still streamed, but the request cannot
//! be replayed.

mod budget;
mod buffer;
mod hold;
mod session;
#[cfg(test)]
mod tests;

pub use budget::Budget;
pub(super) use budget::Reservation;
pub(super) use buffer::{Played, ReplayBuffer};

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use pingora::protocols::http::ServerSession;
use pingora::proxy::Session;
use tokio::time::{Instant, sleep};

use crate::gateway::Replayable;
use crate::proxy::in_flight::Address;
use crate::proxy::settings::{Limits, MinRate};
use hold::Hold;
use session::ReplaySession;

/// The limits on one request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BodyLimits {
    /// Maximum size of a body, in bytes; no limit if `None`.
    pub(super) body: Option<u64>,
    /// Timeout for each read of a body, and for each write to a caller.
    pub(super) timeout: Duration,
    /// Minimum rate of a body.
    pub(super) min_rate: MinRate,
    /// Maximum size of a body that can be replayed, in bytes.
    pub(super) replay: usize,
}

impl From<&Limits> for BodyLimits {
    fn from(limits: &Limits) -> Self {
        Self {
            body: limits.body,
            timeout: limits.body_timeout,
            min_rate: limits.min_body_rate,
            replay: limits.replay_body,
        }
    }
}

impl BodyLimits {
    /// The minimum rate of a body over HTTP/2 or HTTP/1. One HTTP/2 stream can hold up the others
    /// of its connection, whose callers then cannot send (RFC 9113 §5.2.1), so the rate matters
    /// only after the time that a body may stall anyway.
    pub(super) fn min_rate(&self, http2: bool) -> MinRate {
        let grace = self.min_rate.grace;
        MinRate {
            grace: if http2 {
                grace.max(self.timeout)
            } else {
                grace
            },
            ..self.min_rate
        }
    }
}

/// The request's handle to its recorded body. The recording is released when both the handle and
/// the session have been dropped.
pub(super) struct Replay {
    shared: Arc<Shared>,
}

/// The state shared by the session and the handle.
struct Shared {
    buffer: Mutex<ReplayBuffer>,
    hold: Mutex<Hold>,
    /// Whether the caller's connection closes after this request.
    last: AtomicBool,
    /// When the connection ends if it is upgraded.
    upgrade_end: OnceLock<Instant>,
    /// Whether it has ended then.
    upgrade_expired: AtomicBool,
    /// The slot in which a dropped replay session leaves the caller's session.
    returned: Mutex<Option<Box<ServerSession>>>,
}

impl Shared {
    fn buffer(&self) -> MutexGuard<'_, ReplayBuffer> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hold(&self) -> MutexGuard<'_, Hold> {
        self.hold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn returned(&self) -> MutexGuard<'_, Option<Box<ServerSession>>> {
        self.returned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Replay {
    /// Begins recording the body of `session`. `announced` is the value of `Content-Length`, if
    /// there is one; `address` is charged for the memory.
    pub(super) fn begin(
        session: &mut Session,
        limits: BodyLimits,
        budget: &Arc<Budget>,
        address: Option<&Arc<Address>>,
        announced: Option<u64>,
    ) -> Self {
        let reservation = Reservation::new(budget, address, limits.replay);
        let shared = Arc::new(Shared {
            buffer: Mutex::new(ReplayBuffer::new(reservation, limits.replay, announced)),
            hold: Mutex::default(),
            last: AtomicBool::new(false),
            upgrade_end: OnceLock::new(),
            upgrade_expired: AtomicBool::new(false),
            returned: Mutex::new(None),
        });
        let real = std::mem::replace(&mut session.downstream_session, absent());
        let replaying = ReplaySession::new(real, Arc::clone(&shared), limits);
        *session.downstream_session = ServerSession::Custom(Box::new(replaying));
        Self { shared }
    }

    /// Closes the caller's connection after this request, and announces this in the response.
    pub(super) fn close_after(&self) {
        self.shared.last.store(true, Ordering::Relaxed);
    }

    /// Closes the connection `life` from now, if it is upgraded. Must be called in a Tokio runtime.
    pub(super) fn end_upgrade_after(&self, life: Duration) {
        // The deadline of a timer that is never polled: the clock is not read directly.
        let _ = self.shared.upgrade_end.set(sleep(life).deadline());
    }

    /// Whether the upgraded connection was closed at the end of its life.
    pub(super) fn upgrade_expired(&self) -> bool {
        self.shared.upgrade_expired.load(Ordering::Relaxed)
    }

    /// Whether everything that has been read of the body can be sent again.
    pub(super) fn replayable(&self) -> Replayable {
        self.shared.buffer().replayable()
    }

    /// Rewinds the body, so that the next attempt reads it from the beginning. A response that is
    /// held back is discarded.
    pub(super) fn rewind(&self) {
        self.shared.buffer().rewind();
        *self.shared.hold() = Hold::default();
    }

    /// Holds the response back until [`Self::release`]. If its end, or `limit`, comes first, the
    /// attempt fails, and [`Self::is_abandoned`] is true.
    pub(super) fn hold(&self, limit: Duration) {
        self.shared.hold().begin(limit);
    }

    /// Lets the response through.
    pub(super) fn release(&self) {
        self.shared.hold().release();
    }

    /// Whether the attempt failed because the response was held back for too long.
    pub(super) fn is_abandoned(&self) -> bool {
        self.shared.hold().is_abandoned()
    }

    /// Ends recording and releases the memory, because there will be no further attempt.
    pub(super) fn finish_recording(&self) {
        self.shared.buffer().finish_recording();
    }

    /// Whether the caller has begun to send its body, or was sent a 100 Continue.
    pub(super) fn body_started(&self) -> bool {
        let buffer = self.shared.buffer();
        buffer.continued || buffer.has_started()
    }

    /// Restores the caller's own session, so that its connection can be kept alive. Further
    /// calls have no effect.
    pub(super) fn restore(&self, session: &mut Session) {
        self.shared.buffer().close();
        if !session.downstream_session.is_custom() {
            return;
        }
        // pingora's types do not let the inner session be moved out, so the replay session hands
        // it over when it is dropped.
        drop(std::mem::replace(&mut session.downstream_session, absent()));
        if let Some(real) = self.shared.returned().take() {
            session.downstream_session = real;
        }
    }
}

/// Returns a placeholder for a session that was moved out. It is never used.
fn absent() -> Box<ServerSession> {
    Box::new(ServerSession::Custom(Box::new(())))
}
