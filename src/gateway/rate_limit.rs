//! Rate limits per client, by verified identity or by address.
//!
//! Each client has a token bucket, implemented by the generic cell rate algorithm: its state is
//! one number, the time at which it will be full. The number of buckets is bounded; the least
//! recently used is evicted first.
//!
//! The replicas of a fleet count together (`docs/design/fleet/limits.md`).

mod fleet;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv6Addr};
use std::pin::Pin;
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
use crate::shared_store::{Fleet, FleetKeyError};
use crate::token::Caller;
use fleet::{Allowance, FleetLimit, Pending, Take, Verdict};

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
    buckets: Cache<Key, Arc<Bucket>>,
    clock: SharedClock,
    fleet: Option<Arc<FleetLimit>>,
}

/// What is known about one client.
#[derive(Debug, Default)]
struct Bucket {
    /// When it will be full, in nanoseconds of the monotonic clock.
    full_at: AtomicU64,
    /// The tokens that this replica has of the fleet's bucket, if there is one.
    allowance: Option<Box<Allowance>>,
}

/// A check that the shared store has to decide. It takes no longer than two operations may, for each limit.
pub type Wait<'a> = Pin<Box<dyn Future<Output = Result<(), Rejection>> + Send + 'a>>;

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
        let interval = (nanoseconds(rate.per) / rate.requests.max(1)).max(1);
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
            fleet: None,
        }
    }

    /// Counts together with the limiters of `name` of the other replicas, if they have the same rate.
    /// Clients that only this machine can tell apart are counted here alone.
    ///
    /// # Errors
    /// If the keys of the fleet cannot be used.
    pub fn sharing(self, fleet: &Fleet, name: &str) -> Result<Self, FleetKeyError> {
        let fleet = FleetLimit::new(&self, fleet, name)?;
        Ok(Self {
            fleet: Some(Arc::new(fleet)),
            ..self
        })
    }

    /// Takes one token from the bucket of `key`, or says how to learn whether there is one.
    fn take(&self, key: Key) -> Result<Option<(Arc<Bucket>, Pending)>, Rejection> {
        let now = self.now();
        let fleet = self.fleet.as_ref().filter(|_| !key.is_of_this_machine());
        let bucket = self
            .buckets
            .get_with(key, || Arc::new(Bucket::new(fleet.is_some())));
        let (Some(fleet), Some(allowance)) = (fleet, &bucket.allowance) else {
            return self.take_here(&bucket, now).map(|()| None);
        };
        match fleet.take(&bucket, allowance, key, now) {
            Take::Decided(verdict) => self.apply(verdict, &bucket, now).map(|()| None),
            Take::Pending(pending) => Ok(Some((bucket, pending))),
        }
    }

    fn apply(&self, verdict: Verdict, bucket: &Bucket, now: u64) -> Result<(), Rejection> {
        match verdict {
            Verdict::Granted => {
                self.charge(bucket, now);
                Ok(())
            }
            Verdict::Refused { until } => Err(self.refusal(until.saturating_sub(now))),
            Verdict::Undecided => self.take_here(bucket, now),
        }
    }

    /// Takes one token from this replica's own bucket.
    fn take_here(&self, bucket: &Bucket, now: u64) -> Result<(), Rejection> {
        let update = |full_at: u64| {
            let from = full_at.max(now);
            (from - now <= self.tolerance).then(|| from.saturating_add(self.interval))
        };
        let taken = bucket
            .full_at
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, update);
        taken.map(|_| ()).map_err(|full_at| {
            let wait = full_at.saturating_sub(now).saturating_sub(self.tolerance);
            self.refusal(wait)
        })
    }

    /// Counts a request that the fleet's bucket admitted, for the time when the store is down.
    fn charge(&self, bucket: &Bucket, now: u64) {
        let empty = now
            .saturating_add(self.tolerance)
            .saturating_add(self.interval);
        let update = |full_at: u64| Some(full_at.max(now).saturating_add(self.interval).min(empty));
        // Never fails: the closure always returns a value.
        let _ = bucket
            .full_at
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, update);
    }

    fn refusal(&self, wait: u64) -> Rejection {
        Rejection {
            retry_after: Some(whole_seconds(wait)),
            ..Reason::RateLimited.into()
        }
        .with_cause(match self.by {
            RateBy::Address => "too many requests from this address",
            RateBy::Client => "too many requests from this client",
        })
    }

    fn now(&self) -> u64 {
        nanoseconds(self.clock.monotonic())
    }
}

impl Bucket {
    fn new(shared: bool) -> Self {
        Self {
            full_at: AtomicU64::default(),
            allowance: shared.then(Box::default),
        }
    }
}

impl Key {
    /// Whether clients of other replicas that have this key are different clients: those on Unix sockets,
    /// loopback and link-local addresses.
    fn is_of_this_machine(&self) -> bool {
        match self {
            Self::NoAddress => true,
            Self::Address(IpAddr::V4(address)) => address.is_loopback() || address.is_link_local(),
            Self::Address(IpAddr::V6(network)) => {
                // Its last 64 bits are zero: ::1 is in ::/64.
                network.is_unspecified() || network.is_unicast_link_local()
            }
            Self::Identity(_) => false,
        }
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
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

    /// Counts a request by address, before anything is verified. `Some` if the shared store has to be
    /// asked: then the request is admitted if the future says so.
    ///
    /// # Errors
    /// [`Reason::RateLimited`] with the time to wait.
    pub fn check_address(&self, client: Client<'_>) -> Result<Option<Wait<'_>>, Rejection> {
        self.take(RateBy::Address, || address_key(client.address))
    }

    /// Counts a request by identity, once the caller is known. Callers that are not verified here
    /// (on an anonymous route, or with a token or password that only the exchange can verify)
    /// are counted by certificate, otherwise by address, because anyone can make up a name.
    ///
    /// # Errors
    /// As [`RateLimiters::check_address`].
    pub fn check_identity(
        &self,
        caller: &Caller,
        client: Client<'_>,
    ) -> Result<Option<Wait<'_>>, Rejection> {
        self.take(RateBy::Client, || {
            identity_key(caller).unwrap_or_else(|| unverified_key(client))
        })
    }

    /// Counts a request whose verification failed as [`RateLimiters::check_identity`] counts one
    /// from an anonymous caller, so that guessing tokens is limited too.
    ///
    /// # Errors
    /// As [`RateLimiters::check_address`].
    pub fn check_unverified(&self, client: Client<'_>) -> Result<Option<Wait<'_>>, Rejection> {
        self.check_identity(&Caller::Anonymous, client)
    }

    fn take(&self, by: RateBy, key: impl FnOnce() -> Key) -> Result<Option<Wait<'_>>, Rejection> {
        if self.0.is_empty() {
            return Ok(None);
        }
        take_all(&self.0, by, key())
    }
}

/// Takes one token from each of `limits` that distinguishes clients as `by` says, in order.
fn take_all(
    limits: &[Arc<RateLimiter>],
    by: RateBy,
    key: Key,
) -> Result<Option<Wait<'_>>, Rejection> {
    let mut rest = limits;
    while let Some((limit, after)) = rest.split_first() {
        rest = after;
        if limit.by != by {
            continue;
        }
        if let Some((bucket, pending)) = limit.take(key)? {
            return Ok(Some(Box::pin(async move {
                let verdict = pending.verdict().await;
                limit.apply(verdict, &bucket, limit.now())?;
                match take_all(after, by, key)? {
                    Some(wait) => wait.await,
                    None => Ok(()),
                }
            })));
        }
    }
    Ok(None)
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
