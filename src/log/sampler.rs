//! Deterministic sampling: takes an evenly spaced fraction of a stream.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// The counter's range: fractions are resolved to 2⁻³².
const WHOLE: f64 = 4_294_967_296.0;

/// Takes an evenly spaced fraction of the items. Clones share one counter.
#[derive(Clone, Debug)]
pub(super) struct Sampler {
    fraction: f64,
    /// The increment per item and the running sum; `None` takes everything.
    counter: Option<(u32, Arc<AtomicU32>)>,
}

impl Sampler {
    /// A sampler that takes `fraction`, from 0 to 1, of the items.
    pub(super) fn new(fraction: f64) -> Self {
        // In range, as `fraction` is less than 1 here. NaN takes nothing.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let step = (fraction < 1.0).then_some((fraction * WHOLE).round() as u32);
        let step = if fraction.is_nan() { Some(0) } else { step };
        Self {
            fraction,
            counter: step.map(|step| (step, Arc::default())),
        }
    }

    /// The fraction; `None` if everything is taken.
    pub(super) fn fraction(&self) -> Option<f64> {
        self.counter.as_ref().map(|_| self.fraction)
    }

    /// Whether to take this item, which is the case if the running sum overflows.
    pub(super) fn take(&self) -> bool {
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
    fn fractions_are_sampled_evenly() {
        for (fraction, of, taken) in [
            (0.0, 1000, 0),
            (1.0, 1000, 1000),
            (0.5, 1000, 500),
            (0.25, 1000, 250),
            (0.001, 10_000, 10),
            (0.999, 1000, 999),
        ] {
            let sampler = Sampler::new(fraction);
            let count: i32 = (0..of)
                .filter(|_| sampler.take())
                .count()
                .try_into()
                .unwrap();
            assert!((count - taken).abs() <= 1, "{fraction}: {count}");
        }
        assert!(!Sampler::new(f64::NAN).take());
    }

    #[test]
    fn clones_share_one_counter() {
        let sampler = Sampler::new(0.5);
        let other = sampler.clone();
        let taken = [sampler.take(), other.take(), sampler.take(), other.take()];
        assert_eq!(taken, [false, true, false, true]);
    }
}
