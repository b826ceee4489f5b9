//! `[limits.rate]`, and `rate` of a route.

use std::time::Duration;

use super::reader::{Field, Reader, section};
use super::units::show_duration;
use super::value::{Choice, Nested};
use crate::gateway::rate_limit::RateBy;

section! {
    /// How often one client may ask; more is refused with 429.
    pub(super) struct Rate {
        /// So many requests in each `per`; 1 to 1000000.
        requests: u64 = [required],
        /// 100ms to 1h.
        per: Duration = [default "'1s'"],
        /// So many at once after a pause; 1 to 1000000. As many as requests when left out.
        burst: u64 = [optional],
        /// "client": each verified identity for itself, and by certificate, else address, who has none.
        /// "address": each address for itself, before anything is verified; of IPv6 its /64.
        by: RateBy = [default "'client'"],
        /// Clients remembered, some 200 bytes each; the one unused for longest is forgotten first. 1 to
        /// 10000000.
        clients: u64 = [default "100000"],
    }
}

impl Choice for RateBy {
    const NAMES: &'static [&'static str] = &["client", "address"];

    fn named(name: &str) -> Option<Self> {
        match name {
            "client" => Some(Self::Client),
            "address" => Some(Self::Address),
            _ => None,
        }
    }
}

const MILLION: u64 = 1_000_000;

/// Judges the key `rate`: `Some(None)` when it is not there.
#[allow(clippy::option_option)]
pub(super) fn resolve(
    reader: &mut Reader<'_>,
    field: Field<Nested<Rate>>,
) -> Option<Option<crate::gateway::rate_limit::Rate>> {
    let Some(Nested(rate)) = field.optional()? else {
        return Some(None);
    };
    let show = |n: u64| n.to_string();
    reader.within(&rate.requests, 1, MILLION, show);
    reader.within(&rate.burst, 1, MILLION, show);
    reader.within(&rate.clients, 1, 10 * MILLION, show);
    let (least, most) = (Duration::from_millis(100), Duration::from_hours(1));
    reader.within(&rate.per, least, most, show_duration);
    let requests = rate.requests.value?;
    Some(Some(crate::gateway::rate_limit::Rate {
        requests,
        per: rate.per.value?,
        burst: rate.burst.optional()?.unwrap_or(requests),
        by: rate.by.value?,
        clients: rate.clients.value?,
    }))
}
