//! `[limits.rate]`, and `rate` of a route.

use std::time::Duration;

use super::reader::{Field, Reader, section};
use super::units::show_duration;
use super::value::{Choice, Nested};
use crate::gateway::rate_limit::RateBy;

section! {
    /// A rate limit for each client; requests that exceed it are answered with 429.
    pub(super) struct Rate {
        /// Number of requests in each `per`; 1 to 1000000.
        requests: u64 = [required],
        /// The period that `requests` refers to; 100ms to 1h.
        per: Duration = [default "'1s'"],
        /// Number of requests allowed at once after a pause; 1 to 1000000. Equal to requests when left out.
        burst: u64 = [optional],
        /// "client": by verified identity, or else by client certificate, or else by address. "address": by
        /// address, before anything is verified. IPv6 addresses are grouped by /64.
        by: RateBy = [default "'client'"],
        /// Clients tracked, at about 200 bytes each; the least recently used is evicted first. 1 to
        /// 10000000.
        clients: u64 = [default "100000"],
    }
}

impl Choice for RateBy {
    const NAMES: &'static [&'static str] = &["client", "address"];

    fn from_name(name: &str) -> Option<Self> {
        match name {
            "client" => Some(Self::Client),
            "address" => Some(Self::Address),
            _ => None,
        }
    }
}

const MILLION: u64 = 1_000_000;

/// Resolves the key `rate`. Returns `Some(None)` if it is absent.
#[allow(clippy::option_option)]
pub(super) fn resolve(
    reader: &mut Reader<'_>,
    field: Field<Nested<Rate>>,
) -> Option<Option<crate::gateway::rate_limit::Rate>> {
    let Some(Nested(rate)) = field.optional()? else {
        return Some(None);
    };
    let show = |n: u64| n.to_string();
    reader.check_range(&rate.requests, 1, MILLION, show);
    reader.check_range(&rate.burst, 1, MILLION, show);
    reader.check_range(&rate.clients, 1, 10 * MILLION, show);
    let (least, most) = (Duration::from_millis(100), Duration::from_hours(1));
    reader.check_range(&rate.per, least, most, show_duration);
    let requests = rate.requests.value?;
    Some(Some(crate::gateway::rate_limit::Rate {
        requests,
        per: rate.per.value?,
        burst: rate.burst.optional()?.unwrap_or(requests),
        by: rate.by.value?,
        clients: rate.clients.value?,
    }))
}
