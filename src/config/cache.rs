//! `[cache]`

use std::time::Duration;

use super::reader::{Reader, section};
use super::units::{show_duration, show_size};
use super::value::Size;
use crate::credential::CacheLimits;

section! {
    /// How long each source's upstream credentials are cached.
    pub(super) struct Cache {
        /// Callers cached per source; 1 to 10000000.
        max_entries: u64 = [default "10000"],
        /// The memory that each issuer's verified tokens may take, and each source's credentials; beyond it,
        /// entries are evicted as beyond max_entries. Bounds what callers with large tokens can make hawkgate
        /// hold. 64KiB to 64GiB.
        max_bytes: Size = [default "'64MiB'"],
        /// How long a credential is used when the caller's token does not limit its lifetime: one obtained
        /// for a `delegated` token, or one without an expiry. A delegated token that is revoked or expires
        /// keeps working for at most this long; a shorter time means more exchanges. 1s to 31d.
        max_age: Duration = [default "'15m'"],
        /// How long before its expiry a credential in use is refreshed in the background; less than
        /// max_age.
        refresh_ahead: Duration = [default "'60s'"],
        /// How long the exchange's refusal of a token is cached; at most 5m, "0s" for not at all.
        refusals: Duration = [default "'10s'"],
    }
}

impl Cache {
    pub(super) fn resolve(self, reader: &mut Reader<'_>) -> Option<CacheLimits> {
        const SECOND: Duration = Duration::from_secs(1);
        let month = Duration::from_hours(31 * 24);
        reader.check_range(&self.max_entries, 1, 10_000_000, |n| n.to_string());
        let show = |size: Size| show_size(size.0);
        reader.check_range(&self.max_bytes, Size(64 << 10), Size(64 << 30), show);
        reader.check_range(&self.max_age, SECOND, month, show_duration);
        reader.check_range(
            &self.refusals,
            Duration::ZERO,
            Duration::from_mins(5),
            show_duration,
        );
        if let (Some(ahead), Some(age)) = (self.refresh_ahead.value, self.max_age.value)
            && ahead >= age
        {
            let field = if self.refresh_ahead.given {
                &self.refresh_ahead
            } else {
                &self.max_age
            };
            let problem = format!(
                "refresh_ahead ({}) must be less than max_age ({}), or credentials would be refreshed constantly",
                show_duration(ahead),
                show_duration(age)
            );
            reader.error(&field.at, problem, "lower refresh_ahead or raise max_age");
        }
        Some(CacheLimits {
            max_entries: self.max_entries.value?,
            max_bytes: self.max_bytes.value?.0,
            max_age: self.max_age.value?,
            refresh_ahead: self.refresh_ahead.value?,
            refusals: self.refusals.value?,
        })
    }
}
