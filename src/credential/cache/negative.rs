//! Negative caching per identity, and backoff per source.

use std::time::Duration;

use super::CacheLimits;
use crate::credential::FetchError;
use crate::credential::Lookup;
use crate::credential::identity::Identity;

/// The delay after the first failure in a row. It doubles with each further one.
const FIRST_DELAY: Duration = Duration::from_millis(500);
/// The longest delay when the source sends no `Retry-After`.
const LONGEST_DELAY: Duration = Duration::from_secs(30);
/// The longest `Retry-After` that is honoured. A mistake in it must not take the service down.
pub(super) const LONGEST_RETRY_AFTER: Duration = Duration::from_mins(5);
/// How long an unusable answer is cached. Short, because it may come from a deployment that is
/// still in progress.
const BAD_ANSWER_AGE: Duration = Duration::from_secs(5);

/// The source of jitter for delays and renewals.
#[derive(Clone, Copy, Debug, Default)]
pub enum Jitter {
    /// Random.
    #[default]
    Random,
    /// A constant from 0 to 1, for tests.
    Fixed(f64),
}

impl Jitter {
    /// A number from 0 to 1.
    pub(crate) fn share(self) -> f64 {
        match self {
            Self::Fixed(share) => share.clamp(0.0, 1.0),
            Self::Random => {
                let mut bytes = [0x80, 0];
                // On failure this stays one half, which is good enough: no secret depends on it.
                let _ = aws_lc_rs::rand::fill(&mut bytes);
                f64::from(u16::from_be_bytes(bytes)) / f64::from(u16::MAX)
            }
        }
    }
}

/// The source's last error for one identity, and how long it is cached.
#[derive(Clone, Debug)]
pub(super) struct NegativeEntry {
    pub(super) error: FetchError,
    /// Monotonic time.
    pub(super) until: Duration,
    /// The number of consecutive failures.
    failures: u32,
}

impl NegativeEntry {
    /// The entry for `error`, which occurred at `now` (monotonic time) following `before`.
    pub(super) fn after(
        error: FetchError,
        before: Option<&Self>,
        now: Duration,
        limits: &CacheLimits,
        jitter: f64,
    ) -> Self {
        let failures = match &error {
            FetchError::Unavailable { .. } => before.map_or(0, |b| b.failures).saturating_add(1),
            _ => 0,
        };
        let wait = match &error {
            FetchError::Refused(_) | FetchError::NotEntitled(_) | FetchError::TooLarge(_) => {
                limits.refusals
            }
            // The source counts attempts itself.
            FetchError::SignIn { .. } => Duration::ZERO,
            FetchError::BadAnswer(_) => limits.refusals.min(BAD_ANSWER_AGE),
            FetchError::Unavailable { retry_after, .. } => {
                delay(failures, jitter).max(capped(*retry_after))
            }
        };
        Self {
            error,
            until: now.saturating_add(wait),
            failures,
        }
    }

    /// The error that callers get while the entry is valid.
    pub(super) fn cached_error(&self, now: Duration) -> FetchError {
        match &self.error {
            FetchError::Unavailable { cause, .. } => FetchError::Unavailable {
                cause: format!("backing off after: {cause}"),
                retry_after: Some(self.until.saturating_sub(now)),
            },
            other => other.clone(),
        }
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
            FetchError::BadAnswer(_) | FetchError::Unavailable { .. } => Lookup::Failed,
        }
    }
}

/// Backoff for a whole source. It starts when the source asks for it (`Retry-After`) or fails
/// for two different identities in a row. A failure for one identity alone must not shut out
/// the others: `/login/oauth/credentials`, for instance, answers 500 for a disabled client.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    /// Monotonic time.
    until: Duration,
    failures: u32,
    last: Option<Identity>,
}

impl Backoff {
    /// The time left before the source may be contacted again; `None` if it may be already.
    pub(super) fn remaining(&self, now: Duration) -> Option<Duration> {
        self.until.checked_sub(now).filter(|left| !left.is_zero())
    }

    /// Records that the source responded, whatever the response was.
    pub(super) fn responded(&mut self) {
        *self = Self::default();
    }

    /// Records that the source was unavailable for `identity`.
    pub(super) fn unavailable(
        &mut self,
        identity: Identity,
        retry_after: Option<Duration>,
        now: Duration,
        jitter: f64,
    ) {
        let others_fail_too = self.last.replace(identity).is_some_and(|l| l != identity);
        // Exchanges that ran concurrently fail together; that counts as one failure.
        if others_fail_too && self.remaining(now).is_none() {
            self.failures = self.failures.saturating_add(1);
            self.until = now.saturating_add(delay(self.failures, jitter));
        }
        self.until = self.until.max(now.saturating_add(capped(retry_after)));
    }
}

fn capped(retry_after: Option<Duration>) -> Duration {
    retry_after.unwrap_or_default().min(LONGEST_RETRY_AFTER)
}

/// Half to all of the exponential delay, depending on `jitter`.
fn delay(failures: u32, jitter: f64) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let full = FIRST_DELAY
        .saturating_mul(1 << doublings)
        .min(LONGEST_DELAY);
    full.saturating_sub((full / 2).mul_f64(jitter))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Identity = [1; 32];
    const B: Identity = [2; 32];

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
    fn delays_double_up_to_a_limit() {
        let waits: Vec<_> = (1..=9).map(|n| delay(n, 0.0).as_millis()).collect();
        assert_eq!(
            waits,
            [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]
        );
        assert_eq!(delay(u32::MAX, 1.0), secs(15));
    }

    #[test]
    fn random_jitter_is_between_zero_and_one() {
        for _ in 0..1000 {
            let share = Jitter::Random.share();
            assert!((0.0..=1.0).contains(&share));
        }
        assert!((Jitter::Fixed(7.0).share() - 1.0).abs() < f64::EPSILON);
    }

    #[test]
    fn each_kind_of_failure_has_its_own_ttl() {
        let after = |error| NegativeEntry::after(error, None, secs(100), &limits(), 0.0).until;
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
        assert_eq!(after(unavailable(None)), Duration::from_millis(100_500));
        assert_eq!(after(unavailable(Some(7))), secs(107));
        assert_eq!(after(unavailable(Some(u64::MAX))), secs(400));
    }

    #[test]
    fn consecutive_failures_lengthen_an_identitys_backoff() {
        let mut entry = None;
        let mut waits = Vec::new();
        for _ in 0..3 {
            let next =
                NegativeEntry::after(unavailable(None), entry.as_ref(), secs(0), &limits(), 0.0);
            waits.push(next.until.as_millis());
            entry = Some(next);
        }
        assert_eq!(waits, [500, 1000, 2000]);
    }

    #[test]
    fn one_identity_alone_never_starts_the_sources_backoff() {
        let mut backoff = Backoff::default();
        for n in 0..50 {
            backoff.unavailable(A, None, secs(n), 0.0);
            assert_eq!(backoff.remaining(secs(n)), None);
        }
    }

    #[test]
    fn two_identities_failing_in_a_row_start_the_backoff_and_a_response_ends_it() {
        let mut backoff = Backoff::default();
        backoff.unavailable(A, None, secs(1), 0.0);
        backoff.unavailable(B, None, secs(1), 0.0);
        assert_eq!(backoff.remaining(secs(1)), Some(Duration::from_millis(500)));
        // Simultaneous failures count once.
        backoff.unavailable(A, None, secs(1), 0.0);
        assert_eq!(backoff.remaining(secs(1)), Some(Duration::from_millis(500)));
        // The next one after the wait counts.
        backoff.unavailable(B, None, secs(2), 0.0);
        assert_eq!(backoff.remaining(secs(2)), Some(secs(1)));
        backoff.responded();
        assert_eq!(backoff.remaining(secs(2)), None);
        backoff.unavailable(A, None, secs(2), 0.0);
        assert_eq!(backoff.remaining(secs(2)), None);
    }

    #[test]
    fn retry_after_applies_at_once_up_to_a_limit() {
        let mut backoff = Backoff::default();
        backoff.unavailable(A, Some(secs(9)), secs(1), 0.0);
        assert_eq!(backoff.remaining(secs(1)), Some(secs(9)));
        assert_eq!(backoff.remaining(secs(10)), None);
        backoff.unavailable(A, Some(Duration::MAX), secs(10), 0.0);
        assert_eq!(backoff.remaining(secs(10)), Some(LONGEST_RETRY_AFTER));
    }
}
