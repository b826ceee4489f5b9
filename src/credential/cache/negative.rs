//! Negative caching per identity.

use std::time::Duration;

use super::CacheLimits;
use crate::credential::FetchError;
use crate::credential::Lookup;

/// How long an unusable answer is cached. Short, because it may come from a deployment that is
/// still in progress.
const BAD_ANSWER_AGE: Duration = Duration::from_secs(5);

/// The source's last error for one identity, and how long it is cached.
#[derive(Clone, Debug)]
pub(super) struct NegativeEntry {
    pub(super) error: FetchError,
    /// Monotonic time.
    pub(super) until: Duration,
}

impl NegativeEntry {
    /// The entry for `error`, which occurred at `now` (monotonic time). `backoff` is what the
    /// circuit breaker imposes on the identity.
    pub(super) fn after(
        error: FetchError,
        now: Duration,
        limits: &CacheLimits,
        backoff: Duration,
    ) -> Self {
        let wait = match &error {
            FetchError::Refused(_) | FetchError::NotEntitled(_) | FetchError::TooLarge(_) => {
                limits.refusals
            }
            // The source counts attempts itself.
            FetchError::SignIn { .. } => Duration::ZERO,
            FetchError::BadAnswer(_)
            | FetchError::Misconfigured {
                retry_after: None, ..
            } => limits.refusals.min(BAD_ANSWER_AGE),
            FetchError::Unavailable { .. } | FetchError::Misconfigured { .. } => backoff,
        };
        Self {
            error,
            until: now.saturating_add(wait),
        }
    }

    /// The error that callers get while the entry is valid.
    pub(super) fn cached_error(&self, now: Duration) -> FetchError {
        match &self.error {
            FetchError::Misconfigured { cause, .. } => FetchError::Misconfigured {
                cause: cause.clone(),
                retry_after: Some(self.until.saturating_sub(now)),
            },
            FetchError::Unavailable { cause, .. } => FetchError::Unavailable {
                cause: format!("backing off after: {cause}"),
                retry_after: Some(self.until.saturating_sub(now)),
            },
            other => other.clone(),
        }
    }

    /// Whether the circuit breaker decides how long the entry is valid.
    pub(super) fn is_backoff(&self) -> bool {
        matches!(
            self.error,
            FetchError::Unavailable { .. }
                | FetchError::Misconfigured {
                    retry_after: Some(_),
                    ..
                }
        )
    }

    /// The memory that it takes, in bytes.
    pub(super) fn heap_size(&self) -> usize {
        size_of::<Self>() + self.error.heap_size()
    }

    /// How a look-up that ends with this entry is counted.
    pub(super) fn lookup(&self) -> Lookup {
        match self.error {
            FetchError::Refused(_)
            | FetchError::NotEntitled(_)
            | FetchError::SignIn { .. }
            | FetchError::TooLarge(_) => Lookup::Refused,
            FetchError::BadAnswer(_)
            | FetchError::Unavailable { .. }
            | FetchError::Misconfigured { .. } => Lookup::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn unavailable(retry_after: Option<u64>) -> FetchError {
        FetchError::Unavailable {
            cause: "down".into(),
            retry_after: retry_after.map(secs),
        }
    }

    fn limits() -> CacheLimits {
        CacheLimits {
            max_entries: 10,
            max_bytes: 1 << 20,
            max_age: secs(3600),
            refresh_ahead: secs(60),
            refusals: secs(20),
        }
    }

    #[test]
    fn each_kind_of_failure_has_its_own_ttl() {
        let after = |error| NegativeEntry::after(error, secs(100), &limits(), secs(3)).until;
        assert_eq!(after(FetchError::Refused(String::new())), secs(120));
        assert_eq!(after(FetchError::NotEntitled(String::new())), secs(120));
        assert_eq!(after(FetchError::TooLarge(String::new())), secs(120));
        assert_eq!(after(FetchError::BadAnswer(String::new())), secs(105));
        let sign_in = FetchError::SignIn {
            problem: crate::credential::SignInProblem::CodeRequired,
            cause: String::new(),
            retry_after: Some(secs(9)),
        };
        assert_eq!(after(sign_in), secs(100));
        assert_eq!(after(unavailable(None)), secs(103));
    }
}
