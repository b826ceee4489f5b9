//! When to poll the token endpoint in the device flow, and when to stop (RFC 8628 §3.5).

use std::time::Duration;

/// The interval if the issuer gives none (RFC 8628 §3.2).
const DEFAULT_INTERVAL: Duration = Duration::from_secs(5);
/// Bounds on the interval that the issuer asks for.
const MIN_INTERVAL: Duration = Duration::from_secs(1);
const MAX_INTERVAL: Duration = Duration::from_mins(1);
/// What `slow_down` adds to the interval, permanently.
const SLOW_DOWN: Duration = Duration::from_secs(5);
/// The longest device code lifetime that is honoured.
const MAX_LIFETIME: Duration = Duration::from_mins(30);

/// The polling schedule of one device authorization, in monotonic time.
#[derive(Clone, Copy, Debug)]
pub struct DevicePolling {
    interval: Duration,
    expires_at: Duration,
}

/// What to do after an error from the token endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextPoll {
    /// Poll again after this long.
    After(Duration),
    /// Stop: there will be no token.
    Stop(DeviceFlowError),
}

/// Why there will be no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceFlowError {
    /// The user or the issuer refused.
    #[error("the sign-in was refused, by you or by the issuer (access_denied)")]
    Denied,
    /// The codes expired.
    #[error("the code expired before it was used; start a new sign-in")]
    Expired,
}

impl DevicePolling {
    /// Starts at `now` with the issuer's `interval` and `expires_in`, both in seconds.
    pub fn new(interval: Option<u64>, expires_in: u64, now: Duration) -> Self {
        let interval = interval.map_or(DEFAULT_INTERVAL, Duration::from_secs);
        Self {
            interval: interval.clamp(MIN_INTERVAL, MAX_INTERVAL),
            expires_at: now.saturating_add(Duration::from_secs(expires_in).min(MAX_LIFETIME)),
        }
    }

    /// How long to wait before the first poll.
    pub fn first_delay(&self) -> Duration {
        self.interval
    }

    /// What to do after an error with this `code`, or without one if there was no response, in
    /// which case polling slows down. Returns `None` for any error that polling cannot resolve.
    pub fn after_error(&mut self, code: Option<&str>, now: Duration) -> Option<NextPoll> {
        match code {
            Some("authorization_pending") => {}
            Some("slow_down") => self.interval = self.interval.saturating_add(SLOW_DOWN),
            Some("access_denied") => return Some(NextPoll::Stop(DeviceFlowError::Denied)),
            Some("expired_token") => return Some(NextPoll::Stop(DeviceFlowError::Expired)),
            Some(_) => return None,
            None => self.interval = self.interval.saturating_mul(2).min(MAX_INTERVAL),
        }
        Some(if now.saturating_add(self.interval) >= self.expires_at {
            NextPoll::Stop(DeviceFlowError::Expired)
        } else {
            NextPoll::After(self.interval)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1000);

    fn after(seconds: u64) -> NextPoll {
        NextPoll::After(Duration::from_secs(seconds))
    }

    #[test]
    fn the_issuers_interval_is_honoured_within_bounds() {
        let mut polling = DevicePolling::new(Some(2), 600, NOW);
        assert_eq!(polling.first_delay(), Duration::from_secs(2));
        assert_eq!(
            polling.after_error(Some("authorization_pending"), NOW),
            Some(after(2))
        );
        assert_eq!(polling.after_error(Some("slow_down"), NOW), Some(after(7)));
        assert_eq!(
            polling.after_error(Some("authorization_pending"), NOW),
            Some(after(7))
        );
        assert_eq!(polling.after_error(None, NOW), Some(after(14)));
        assert_eq!(
            DevicePolling::new(None, 600, NOW).first_delay(),
            DEFAULT_INTERVAL
        );
        assert_eq!(
            DevicePolling::new(Some(0), 600, NOW).first_delay(),
            MIN_INTERVAL
        );
        assert_eq!(
            DevicePolling::new(Some(u64::MAX), u64::MAX, NOW).first_delay(),
            MAX_INTERVAL
        );
    }

    #[test]
    fn polling_stops_on_denial_and_expiry() {
        let mut polling = DevicePolling::new(Some(5), 60, NOW);
        let stop = |reason| Some(NextPoll::Stop(reason));
        assert_eq!(
            polling.after_error(Some("access_denied"), NOW),
            stop(DeviceFlowError::Denied)
        );
        assert_eq!(
            polling.after_error(Some("expired_token"), NOW),
            stop(DeviceFlowError::Expired)
        );
        assert_eq!(polling.after_error(Some("invalid_grant"), NOW), None);
        let late = NOW + Duration::from_secs(56);
        assert_eq!(
            polling.after_error(Some("authorization_pending"), late),
            stop(DeviceFlowError::Expired)
        );
    }
}
