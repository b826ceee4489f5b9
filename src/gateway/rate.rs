//! How often one client may ask: token buckets, by whom the issuers vouch for or by address.
//!
//! A bucket is one number, the time at which it would be full again (the generic cell rate
//! algorithm, a token bucket without a timer). How many are remembered is bounded; the one
//! unused for longest is forgotten first, and an unused one is full again anyway.

#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use super::client::ClientCertificate;
use super::rejection::Rejection;
use crate::clock::SharedClock;
use crate::gateway::reason::Reason;
use crate::token::Caller;

/// `limits.rate` and `route.rate`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// At the steady rate, so many in each `per`; at least 1.
    pub requests: u64,
    /// From 100 ms to 1 h.
    pub per: Duration,
    /// So many at once; at least 1.
    pub burst: u64,
    /// Whose requests count together.
    pub by: RateBy,
    /// Most clients remembered.
    pub clients: u64,
}

/// `rate.by`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateBy {
    /// The verified identity.
    Client,
    /// The address, before anything is verified.
    Address,
}

/// What is known of a request's client without its token.
#[derive(Clone, Copy, Debug, Default)]
pub struct Client<'a> {
    /// Its address; none on Unix sockets.
    pub address: Option<IpAddr>,
    /// Its certificate, where the listener asked for one.
    pub certificate: Option<&'a ClientCertificate>,
}

/// One limit with its buckets.
#[derive(Debug)]
pub struct RateLimit {
    by: RateBy,
    /// Nanoseconds between two requests at the steady rate.
    interval: u64,
    /// How far, in nanoseconds, a bucket's time may be ahead: `burst - 1` intervals.
    tolerance: u64,
    buckets: Cache<Key, Arc<AtomicU64>>,
    clock: SharedClock,
}

/// Whose bucket it is. Of fixed size, so that long names fill no memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    /// Unix sockets: all their callers together.
    NoAddress,
    /// An IPv4 address, or the /64 of an IPv6 one, which is what one client has.
    Address(IpAddr),
    /// A hash of who it is.
    Identity([u8; 32]),
}

impl RateLimit {
    /// As configured, every bucket full.
    pub fn new(rate: &Rate, clock: SharedClock) -> Self {
        let per = u64::try_from(rate.per.as_nanos()).unwrap_or(u64::MAX);
        let interval = (per / rate.requests.max(1)).max(1);
        let tolerance = interval.saturating_mul(rate.burst.max(1) - 1);
        // A bucket unused for so long is full: to forget it changes nothing.
        let refilled = Duration::from_nanos(tolerance.saturating_add(interval));
        Self {
            by: rate.by,
            interval,
            tolerance,
            buckets: Cache::builder()
                .max_capacity(rate.clients)
                .time_to_idle(refilled.max(Duration::from_secs(1)))
                // Newcomers must get in, or whoever comes once the memory is full would
                // find a full bucket each time.
                .eviction_policy(EvictionPolicy::lru())
                .build(),
            clock,
        }
    }

    /// Takes one request out of the bucket of `key`.
    fn take(&self, key: Key) -> Result<(), Rejection> {
        let now = u64::try_from(self.clock.monotonic().as_nanos()).unwrap_or(u64::MAX);
        let bucket = self.buckets.get_with(key, Arc::default);
        let taken = bucket.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| {
            let from = full_at.max(now);
            (from - now <= self.tolerance).then(|| from.saturating_add(self.interval))
        });
        taken.map(|_| ()).map_err(|full_at| {
            let wait = full_at.saturating_sub(now).saturating_sub(self.tolerance);
            Rejection {
                retry_after: Some(whole_seconds(wait)),
                ..Reason::RateLimited.into()
            }
            .because(match self.by {
                RateBy::Address => "too many requests from this address",
                RateBy::Client => "too many requests of this client",
            })
        })
    }
}

/// Rounded up: who comes back then is let in.
fn whole_seconds(nanos: u64) -> Duration {
    Duration::from_secs(nanos.div_ceil(1_000_000_000).max(1))
}

/// The limits that a request has to pass, all of them; none by default.
#[derive(Clone, Debug, Default)]
pub struct Rates(Vec<Arc<RateLimit>>);

impl Rates {
    /// These; each may be shared with other routes.
    pub fn new(limits: Vec<Arc<RateLimit>>) -> Self {
        Self(limits)
    }

    /// Before anything is verified: counts by address where that is configured.
    ///
    /// # Errors
    /// [`Reason::RateLimited`] with the time to wait.
    pub fn arrived(&self, client: Client<'_>) -> Result<(), Rejection> {
        self.of(RateBy::Address)
            .try_for_each(|limit| limit.take(address_key(client.address)))
    }

    /// Once it is known who calls: counts by identity where that is configured. Who is not
    /// verified here (an anonymous route, a token or password that only the exchange can
    /// check) counts by certificate, else by address: a limit by what anybody can make up
    /// would be none.
    ///
    /// # Errors
    /// As [`Rates::arrived`].
    pub fn identified(&self, caller: &Caller, client: Client<'_>) -> Result<(), Rejection> {
        if self.0.is_empty() {
            return Ok(());
        }
        let key = identity_key(caller).unwrap_or_else(|| unverified_key(client));
        self.of(RateBy::Client)
            .try_for_each(|limit| limit.take(key))
    }

    /// When verification has failed: as [`Rates::identified`] for somebody unknown, so that
    /// trying tokens is limited too.
    ///
    /// # Errors
    /// As [`Rates::arrived`].
    pub fn unidentified(&self, client: Client<'_>) -> Result<(), Rejection> {
        self.identified(&Caller::Anonymous, client)
    }

    fn of(&self, by: RateBy) -> impl Iterator<Item = &Arc<RateLimit>> {
        self.0.iter().filter(move |limit| limit.by == by)
    }
}

fn identity_key(caller: &Caller) -> Option<Key> {
    let Caller::Verified(token) = caller else {
        return None;
    };
    let (kind, name) = match (token.subject(), token.client()) {
        ("", Some(client)) => ("client", client),
        ("", None) => return None,
        (subject, _) => ("subject", subject),
    };
    Some(hashed([kind, token.issuer(), name]))
}

fn unverified_key(client: Client<'_>) -> Key {
    match client.certificate {
        Some(certificate) => hashed(["certificate", "", &certificate.fingerprint]),
        None => address_key(client.address),
    }
}

fn address_key(address: Option<IpAddr>) -> Key {
    match address.map(|address| address.to_canonical()) {
        None => Key::NoAddress,
        Some(IpAddr::V6(address)) => {
            let network = address.to_bits() & !u128::from(u64::MAX);
            Key::Address(Ipv6Addr::from_bits(network).into())
        }
        Some(address) => Key::Address(address),
    }
}

/// Each part with its length in front, so that no two lists are one.
fn hashed(parts: [&str; 3]) -> Key {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_le_bytes());
        context.update(part.as_bytes());
    }
    let mut hash = [0; 32];
    for (to, from) in hash.iter_mut().zip(context.finish().as_ref()) {
        *to = *from;
    }
    Key::Identity(hash)
}
