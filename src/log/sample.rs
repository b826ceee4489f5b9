//! Every so many: an even share of a stream, without randomness.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// One whole, in steps: a share is told to about a thousandth of a millionth.
const WHOLE: f64 = 4_294_967_296.0;

/// Takes a share of what comes, evenly. Clones count together.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    share: f64,
    /// `None` takes everything.
    counter: Option<(u32, Arc<AtomicU32>)>,
}

impl Sample {
    /// Takes `share`, from 0 to 1, of what comes.
    pub(super) fn new(share: f64) -> Self {
        // In range: `share` is less than 1 here. A share that is no number takes nothing.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let step = (share < 1.0).then_some((share * WHOLE).round() as u32);
        let step = if share.is_nan() { Some(0) } else { step };
        Self {
            share,
            counter: step.map(|step| (step, Arc::default())),
        }
    }

    /// The share, where it is not everything.
    pub(super) fn share(&self) -> Option<f64> {
        self.counter.as_ref().map(|_| self.share)
    }

    /// Whether this one is taken: when the sum of the steps passes a whole.
    pub(super) fn takes(&self) -> bool {
        let Some((step, counter)) = &self.counter else {
            return true;
        };
        let before = counter.fetch_add(*step, Ordering::Relaxed);
        before.checked_add(*step).is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_taken_evenly() {
        for (share, of, taken) in [
            (0.0, 1000, 0),
            (1.0, 1000, 1000),
            (0.5, 1000, 500),
            (0.25, 1000, 250),
            (0.001, 10_000, 10),
            (0.999, 1000, 999),
        ] {
            let sample = Sample::new(share);
            let count: i32 = (0..of)
                .filter(|_| sample.takes())
                .count()
                .try_into()
                .unwrap();
            assert!((count - taken).abs() <= 1, "{share}: {count}");
        }
        assert!(!Sample::new(f64::NAN).takes());
    }

    #[test]
    fn clones_count_together() {
        let sample = Sample::new(0.5);
        let other = sample.clone();
        let taken = [sample.takes(), other.takes(), sample.takes(), other.takes()];
        assert_eq!(taken, [false, true, false, true]);
    }
}
