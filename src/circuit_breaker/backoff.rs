//! Exponential backoff with jitter.

use std::time::Duration;

/// The delay after the first failure in a row. It doubles with each further one.
const FIRST_DELAY: Duration = Duration::from_millis(500);
/// The longest delay when the peer sends no `Retry-After`.
const LONGEST_DELAY: Duration = Duration::from_secs(30);
/// The longest `Retry-After` that is honoured. A mistake in it must not take the service down.
pub const LONGEST_RETRY_AFTER: Duration = Duration::from_mins(5);
/// The delay before the first retry within a call. It doubles with each further one, up to 16
/// times.
const FIRST_RETRY_DELAY: Duration = Duration::from_millis(20);

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
    pub fn share(self) -> f64 {
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

/// The time for which a key backs off after so many `failures` in a row.
pub(super) fn after_failures(
    failures: u32,
    retry_after: Option<Duration>,
    jitter: Jitter,
) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let full = FIRST_DELAY
        .saturating_mul(1 << doublings)
        .min(LONGEST_DELAY);
    let asked = retry_after.unwrap_or_default().min(LONGEST_RETRY_AFTER);
    jittered(full, jitter).max(asked)
}

/// The delay before retry number `nth` (from 0) within a call.
pub(super) fn before_retry(nth: u32, jitter: Jitter) -> Duration {
    jittered(FIRST_RETRY_DELAY.saturating_mul(1 << nth.min(4)), jitter)
}

/// Half to all of `full`.
fn jittered(full: Duration, jitter: Jitter) -> Duration {
    full.saturating_sub((full / 2).mul_f64(jitter.share()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_a_limit() {
        let delay = |n| after_failures(n, None, Jitter::Fixed(0.0)).as_millis();
        let waits: Vec<_> = (1..=9).map(delay).collect();
        assert_eq!(
            waits,
            [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]
        );
        let least = after_failures(u32::MAX, None, Jitter::Fixed(1.0));
        assert_eq!(least, Duration::from_secs(15));
    }

    #[test]
    fn retry_after_is_honoured_up_to_a_limit() {
        let wait = |secs| after_failures(1, Some(Duration::from_secs(secs)), Jitter::Fixed(0.0));
        assert_eq!(wait(0), Duration::from_millis(500));
        assert_eq!(wait(7), Duration::from_secs(7));
        assert_eq!(wait(u64::MAX), LONGEST_RETRY_AFTER);
    }

    #[test]
    fn random_jitter_is_between_zero_and_one() {
        for _ in 0..1000 {
            let share = Jitter::Random.share();
            assert!((0.0..=1.0).contains(&share));
        }
        assert!((Jitter::Fixed(7.0).share() - 1.0).abs() < f64::EPSILON);
    }
}
