//! How often a device asks whether the person is done (RFC 8628 §3.5).

use std::time::Duration;

/// Where the issuer does not say (RFC 8628 §3.2).
const DEFAULT_INTERVAL: Duration = Duration::from_secs(5);
/// Bounds of what it may say.
const BOUNDS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));
/// What `slow_down` adds, this time and from now on.
const SLOWER: Duration = Duration::from_secs(5);
/// The longest that a code is waited for.
const LONGEST: Duration = Duration::from_mins(30);

/// The rhythm of asking. Times are of the monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct DevicePolling {
    interval: Duration,
    ends_at: Duration,
}

/// What to do after an error of the token endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextPoll {
    /// Ask again after this long.
    After(Duration),
    /// There will be no token.
    Stop(DeviceFlowError),
}

/// Why there will be no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceFlowError {
    /// The person said no.
    #[error("the sign-in was refused, by you or by the issuer (access_denied)")]
    Denied,
    /// The codes ran out.
    #[error("nobody signed in with the code in time; begin a new sign-in")]
    Expired,
}

impl DevicePolling {
    /// Begins at `now` with what the issuer said: seconds to wait in between, if it did, and
    /// for how many seconds its codes are good.
    pub fn new(interval: Option<u64>, expires_in: u64, now: Duration) -> Self {
        let said = interval.map_or(DEFAULT_INTERVAL, Duration::from_secs);
        Self {
            interval: said.clamp(BOUNDS.0, BOUNDS.1),
            ends_at: now.saturating_add(Duration::from_secs(expires_in).min(LONGEST)),
        }
    }

    /// Before the first question.
    pub fn first(&self) -> Duration {
        self.interval
    }

    /// After an error code of the token endpoint; `None` for no answer at all, after which
    /// it is asked more slowly. Any other code is no matter of waiting: `None` comes back.
    pub fn next(&mut self, code: Option<&str>, now: Duration) -> Option<NextPoll> {
        match code {
            Some("authorization_pending") => {}
            Some("slow_down") => self.interval = self.interval.saturating_add(SLOWER),
            Some("access_denied") => return Some(NextPoll::Stop(DeviceFlowError::Denied)),
            Some("expired_token") => return Some(NextPoll::Stop(DeviceFlowError::Expired)),
            Some(_) => return None,
            None => self.interval = self.interval.saturating_mul(2).min(BOUNDS.1),
        }
        Some(if now.saturating_add(self.interval) >= self.ends_at {
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
    fn the_rhythm_is_the_issuers() {
        let mut polling = DevicePolling::new(Some(2), 600, NOW);
        assert_eq!(polling.first(), Duration::from_secs(2));
        assert_eq!(
            polling.next(Some("authorization_pending"), NOW),
            Some(after(2))
        );
        assert_eq!(polling.next(Some("slow_down"), NOW), Some(after(7)));
        assert_eq!(
            polling.next(Some("authorization_pending"), NOW),
            Some(after(7))
        );
        assert_eq!(polling.next(None, NOW), Some(after(14)));
        assert_eq!(DevicePolling::new(None, 600, NOW).first(), DEFAULT_INTERVAL);
        assert_eq!(DevicePolling::new(Some(0), 600, NOW).first(), BOUNDS.0);
        assert_eq!(
            DevicePolling::new(Some(u64::MAX), u64::MAX, NOW).first(),
            BOUNDS.1
        );
    }

    #[test]
    fn it_ends() {
        let mut polling = DevicePolling::new(Some(5), 60, NOW);
        let end = |end| Some(NextPoll::Stop(end));
        assert_eq!(
            polling.next(Some("access_denied"), NOW),
            end(DeviceFlowError::Denied)
        );
        assert_eq!(
            polling.next(Some("expired_token"), NOW),
            end(DeviceFlowError::Expired)
        );
        assert_eq!(polling.next(Some("invalid_grant"), NOW), None);
        let late = NOW + Duration::from_secs(56);
        assert_eq!(
            polling.next(Some("authorization_pending"), late),
            end(DeviceFlowError::Expired)
        );
    }
}
