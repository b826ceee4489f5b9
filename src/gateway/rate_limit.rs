//! Rate limits per client, by verified identity or by address.
//!
//! Each client has a token bucket, implemented by the generic cell rate algorithm: its state is
//! one number, the time at which it will be full. The number of buckets is bounded; the least
//! recently used is evicted first.

#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use super::client_certificate::ClientCertificate;
use super::rejection::Rejection;
use crate::clock::SharedClock;
use crate::gateway::reason::Reason;
use crate::token::Caller;

/// A rate limit, as configured by `limits.rate` or a route's `rate`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Requests per `per` at the sustained rate; at least 1.
    pub requests: u64,
    /// The interval, from 100 ms to 1 h.
    pub per: Duration,
    /// Capacity of the bucket; at least 1.
    pub burst: u64,
    /// How clients are distinguished.
    pub by: RateBy,
    /// Maximum number of clients tracked at once.
    pub clients: u64,
}

/// How clients are distinguished: `rate.by`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateBy {
    /// The verified identity.
    Client,
    /// The address, before anything is verified.
    Address,
}

/// Properties of a client that are known before its token is verified.
#[derive(Clone, Copy, Debug, Default)]
pub struct Client<'a> {
    /// Its address; `None` on Unix sockets.
    pub address: Option<IpAddr>,
    /// Its verified certificate, if it presented one.
    pub certificate: Option<&'a ClientCertificate>,
}

/// A rate limit and its buckets.
#[derive(Debug)]
pub struct RateLimiter {
    by: RateBy,
    /// Nanoseconds between two requests at the sustained rate.
    interval: u64,
    /// How far a bucket's time may be ahead of the clock, in nanoseconds: `burst - 1` intervals.
    tolerance: u64,
    buckets: Cache<Key, Arc<AtomicU64>>,
    clock: SharedClock,
}

/// The key of a bucket. Its size is fixed, so that long names take no more memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    /// All callers on Unix sockets.
    NoAddress,
    /// An IPv4 address, or the /64 prefix of an IPv6 address, since a single client usually has a
    /// whole /64.
    Address(IpAddr),
    /// A hash of the identity.
    Identity([u8; 32]),
}

impl RateLimiter {
    /// A limiter with full buckets.
    pub fn new(rate: &Rate, clock: SharedClock) -> Self {
        let per = u64::try_from(rate.per.as_nanos()).unwrap_or(u64::MAX);
        let interval = (per / rate.requests.max(1)).max(1);
        let tolerance = interval.saturating_mul(rate.burst.max(1) - 1);
        // A bucket idle for this long is full, so evicting it changes nothing.
        let refilled = Duration::from_nanos(tolerance.saturating_add(interval));
        Self {
            by: rate.by,
            interval,
            tolerance,
            buckets: Cache::builder()
                .max_capacity(rate.clients)
                .time_to_idle(refilled.max(Duration::from_secs(1)))
                // Always admit new entries: with a frequency-based policy a new client would find
                // a fresh bucket on every request while the cache is full.
                .eviction_policy(EvictionPolicy::lru())
                .build(),
            clock,
        }
    }

    /// Takes one token from the bucket of `key`.
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
            .with_cause(match self.by {
                RateBy::Address => "too many requests from this address",
                RateBy::Client => "too many requests from this client",
            })
        })
    }
}

/// Rounds up, so that a client that waits this long is admitted.
fn whole_seconds(nanos: u64) -> Duration {
    Duration::from_secs(nanos.div_ceil(1_000_000_000).max(1))
}

/// The rate limits of a route, all of which apply; none by default.
#[derive(Clone, Debug, Default)]
pub struct RateLimiters(Vec<Arc<RateLimiter>>);

impl RateLimiters {
    /// Combines `limits`, each of which may be shared with other routes.
    pub fn new(limits: Vec<Arc<RateLimiter>>) -> Self {
        Self(limits)
    }

    /// Counts a request by address, before anything is verified.
    ///
    /// # Errors
    /// [`Reason::RateLimited`] with the time to wait.
    pub fn check_address(&self, client: Client<'_>) -> Result<(), Rejection> {
        self.limits_by(RateBy::Address)
            .try_for_each(|limit| limit.take(address_key(client.address)))
    }

    /// Counts a request by identity, once the caller is known. Callers that are not verified here
    /// (on an anonymous route, or with a token or password that only the exchange can verify)
    /// are counted by certificate, otherwise by address, because anyone can make up a name.
    ///
    /// # Errors
    /// As [`RateLimiters::check_address`].
    pub fn check_identity(&self, caller: &Caller, client: Client<'_>) -> Result<(), Rejection> {
        if self.0.is_empty() {
            return Ok(());
        }
        let key = identity_key(caller).unwrap_or_else(|| unverified_key(client));
        self.limits_by(RateBy::Client)
            .try_for_each(|limit| limit.take(key))
    }

    /// Counts a request whose verification failed as [`RateLimiters::check_identity`] counts one
    /// from an anonymous caller, so that guessing tokens is limited too.
    ///
    /// # Errors
    /// As [`RateLimiters::check_address`].
    pub fn check_unverified(&self, client: Client<'_>) -> Result<(), Rejection> {
        self.check_identity(&Caller::Anonymous, client)
    }

    fn limits_by(&self, by: RateBy) -> impl Iterator<Item = &Arc<RateLimiter>> {
        self.0.iter().filter(move |limit| limit.by == by)
    }
}

fn identity_key(caller: &Caller) -> Option<Key> {
    let token = match caller {
        Caller::Verified(token) => token,
        Caller::Client(client) => {
            return Some(hashed(["signed in", client.session(), client.client_id()]));
        }
        Caller::Delegated { .. } | Caller::Password { .. } | Caller::Anonymous => return None,
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
    address.map_or(Key::NoAddress, |address| {
        Key::Address(client_network(address))
    })
}

/// What limits count as one client: an IPv4 address, or the /64 network of an IPv6 address, since
/// a single client usually has a whole /64. IPv4-mapped addresses count as IPv4.
pub fn client_network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = address.to_bits() & !u128::from(u64::MAX);
            Ipv6Addr::from_bits(network).into()
        }
        address @ IpAddr::V4(_) => address,
    }
}

/// Hashes the parts, each prefixed with its length so that the encoding is unambiguous.
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
