//! Records request bodies, so that a request can be sent again after a 401.
//!
//! Every piece of a body is recorded before it is sent, up to a limit per request and a budget
//! shared by all requests. A replay first plays back the recording and then continues reading from
//! the caller. Once the limit or the budget is exceeded, the recording is discarded; the body is
//! still streamed, but the request cannot be replayed.

mod budget;
mod buffer;
#[cfg(test)]
mod tests;

pub use budget::Budget;
pub(super) use budget::Reservation;
pub(super) use buffer::{Played, ReplayBuffer};

use std::time::Duration;

use crate::proxy::settings::{Limits, MinRate};

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
