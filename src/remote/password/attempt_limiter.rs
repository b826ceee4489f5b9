//! Limits failed sign-ins, so that nobody can guess passwords and nobody can lock others out
//! (`docs/design/tokens.md`, "Passwords and MFA"). Strictly by user and origin together; loosely by
//! user and by address, both with an exemption for users who have signed in from that origin before
//! (compare the device cookies of OWASP's "Slow Down Online Guessing Attacks"). After the limit,
//! delays grow. Attempts in flight count as failures, so that concurrent guessing gains nothing.
//!
//! The replicas of a fleet also count together ([`fleet`]).

mod fleet;

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::clock::SharedClock;
use crate::shared_store::{Fleet, FleetKeyError};
use fleet::{FleetAttempts, FleetDecision, Waits};

/// Failures of one user from one origin within [`WINDOW`] before delays start.
pub(super) const PAIR_FAILURES: usize = 5;
/// Failures of one user from all origins within [`WINDOW`] before delays start.
const USER_FAILURES: usize = 50;
/// Failures of all users from one address within [`WINDOW`] before delays start.
const ADDRESS_FAILURES: usize = 20;
/// How long a failure counts towards the first delay.
const WINDOW: Duration = Duration::from_mins(15);
/// The first delay; each further failure doubles it.
const FIRST_DELAY: Duration = Duration::from_secs(30);
/// The longest delay.
const LONGEST_DELAY: Duration = Duration::from_mins(15);
/// How long after the last failure a record is reset. Longer than [`LONGEST_DELAY`], because
/// otherwise waiting out a delay would restore the full number of attempts.
const RESET_AFTER: Duration = Duration::from_hours(1);
/// How long a successful sign-in exempts its user and origin from the loose limits.
const KNOWN_FOR: Duration = Duration::from_hours(24 * 7);
/// How long after it was told of a sign-in the fleet is told of another: often enough that it forgets no
/// origin that is in use.
const TOLD_FOR: Duration = Duration::from_hours(24);
/// The least time between two questions to the fleet whether it knows a user at an address that is blocked
/// here. So refused attempts cost the store at most ten operations a second for each address.
const LOOK_UP_PAUSE: Duration = Duration::from_millis(100);
/// The most records per table.
const MAX_RECORDS: usize = 10_000;

/// A keyed hash of the lower-case username, so that changing its case gains no further attempts.
pub(super) type UserKey = [u8; 32];

/// The origin of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum PeerKey {
    /// A Unix socket, which has no address.
    UnixSocket,
    /// This machine over TCP. All loopback addresses count as one, because a local process can use
    /// any of them.
    Loopback,
    /// Another machine: its IPv4 address, or the /64 prefix of its IPv6 address, since a single
    /// client usually has a whole /64.
    Ip(IpAddr),
}

impl PeerKey {
    /// Whether the origin is this machine, which all of its users share. A limit for it would let
    /// one process lock out everybody.
    fn is_shared(self) -> bool {
        matches!(self, Self::UnixSocket | Self::Loopback)
    }
}

impl From<Option<IpAddr>> for PeerKey {
    fn from(peer: Option<IpAddr>) -> Self {
        match peer.map(|ip| ip.to_canonical()) {
            None => Self::UnixSocket,
            Some(ip) if ip.is_loopback() => Self::Loopback,
            Some(IpAddr::V6(ip)) => {
                let prefix = ip.to_bits() & !u128::from(u64::MAX);
                Self::Ip(Ipv6Addr::from_bits(prefix).into())
            }
            Some(ip) => Self::Ip(ip),
        }
    }
}

/// A user at an origin.
type Pair = (UserKey, PeerKey);

/// Counts the sign-in attempts of one source, in bounded memory.
#[derive(Debug)]
pub(super) struct AttemptLimiter {
    tables: Mutex<AttemptTables>,
    finished: Notify,
    clock: SharedClock,
    fleet: Option<FleetAttempts>,
}

#[derive(Debug)]
struct AttemptTables {
    pairs: AttemptTable<Pair>,
    users: AttemptTable<UserKey>,
    peers: AttemptTable<PeerKey>,
    /// The monotonic times of the last successful sign-ins.
    known: HashMap<Pair, Duration>,
    /// Those when the fleet was last told of one; only for pairs in `known`.
    told: HashMap<Pair, Duration>,
    /// Those when the fleet was last asked about a user at this origin.
    looked_up: HashMap<PeerKey, Duration>,
}

impl AttemptTables {
    fn is_known(&self, pair: Pair, now: Duration) -> bool {
        let last = self.known.get(&pair);
        last.is_some_and(|last| last.saturating_add(KNOWN_FOR) > now)
    }

    fn remember(&mut self, pair: Pair, now: Duration) {
        if !self.known.contains_key(&pair) && self.known.len() >= MAX_RECORDS {
            self.known
                .retain(|_, last| last.saturating_add(KNOWN_FOR) > now);
            let oldest = self.known.iter().min_by_key(|(_, last)| **last);
            if self.known.len() >= MAX_RECORDS
                && let Some(oldest) = oldest.map(|(pair, _)| *pair)
            {
                self.known.remove(&oldest);
            }
            self.told.retain(|pair, _| self.known.contains_key(pair));
        }
        self.known.insert(pair, now);
    }

    /// Whether the fleet should be told of a sign-in now. Assumes that it will be.
    fn tell(&mut self, pair: Pair, now: Duration) -> bool {
        let last = self.told.get(&pair);
        let due = last.is_none_or(|last| last.saturating_add(TOLD_FOR) <= now);
        if due {
            self.told.insert(pair, now);
        }
        due
    }

    /// Whether the fleet may be asked about a blocked user: unless the user is known here or blocked for
    /// failures from this very origin. Assumes that it will be.
    fn look_up(&mut self, pair: Pair, now: Duration) -> bool {
        let (_, peer) = pair;
        if self.is_known(pair, now) || matches!(self.pairs.decide(pair, now), Decision::Block(_)) {
            return false;
        }
        let recent = |last: &Duration| last.saturating_add(LOOK_UP_PAUSE) > now;
        if self.looked_up.len() >= MAX_RECORDS {
            self.looked_up.retain(|_, last| recent(last));
        }
        let full = self.looked_up.len() >= MAX_RECORDS;
        if full || self.looked_up.get(&peer).is_some_and(recent) {
            return false;
        }
        self.looked_up.insert(peer, now);
        true
    }

    /// Blocks an attempt in flight as the fleet does, so that the next ones do not ask it.
    fn block(&mut self, attempt: AttemptKeys, waits: Waits, now: Duration) {
        let AttemptKeys { pair, user, peer } = attempt;
        self.pairs.block(pair, now.saturating_add(waits.pair));
        if let Some(user) = user {
            self.users.block(user, now.saturating_add(waits.user));
        }
        if let Some(peer) = peer {
            self.peers.block(peer, now.saturating_add(waits.peer));
        }
    }

    /// The decisions of the limits that apply to `attempt`.
    fn decide(&mut self, attempt: AttemptKeys, now: Duration) -> Decision {
        let AttemptKeys { pair, user, peer } = attempt;
        let decisions = [
            self.pairs.decide(pair, now),
            user.map_or(Decision::Allow, |user| self.users.decide(user, now)),
            peer.map_or(Decision::Allow, |peer| self.peers.decide(peer, now)),
        ];
        decisions.into_iter().max().unwrap_or(Decision::Allow)
    }

    /// The records that an attempt is counted in. One from a known origin counts there only:
    /// neither its user elsewhere nor other users at its address pay for it.
    fn keys(&self, pair: Pair, now: Duration) -> AttemptKeys {
        let (user, peer) = pair;
        let known = self.is_known(pair, now);
        AttemptKeys {
            pair,
            user: (!known).then_some(user),
            peer: (!known && !peer.is_shared()).then_some(peer),
        }
    }
}

/// The records that an attempt is counted in.
#[derive(Clone, Copy, Debug)]
struct AttemptKeys {
    pair: Pair,
    user: Option<UserKey>,
    peer: Option<PeerKey>,
}

/// The records of one kind of key.
#[derive(Debug)]
struct AttemptTable<K> {
    limit: usize,
    records: HashMap<K, Record>,
}

#[derive(Debug, Default)]
struct Record {
    /// Monotonic times of the failures within [`WINDOW`], at most as many as the limit.
    failures: VecDeque<Duration>,
    in_flight: usize,
    /// Delays since the last reset.
    delays: u32,
    blocked_until: Duration,
    last_failure: Duration,
}

/// Whether an attempt may start now. Ordered: of several limits, the greatest decision applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Decision {
    Allow,
    /// Wait for the attempts in flight to finish.
    Wait,
    /// Refuse for this long.
    Block(Duration),
}

impl Record {
    fn decide(&mut self, limit: usize, now: Duration) -> Decision {
        if self.blocked_until > now {
            return Decision::Block(self.blocked_until.saturating_sub(now));
        }
        self.prune(now);
        // After a delay, only one attempt at a time.
        let free = if self.delays > 0 {
            1
        } else {
            limit.saturating_sub(self.failures.len())
        };
        if self.in_flight < free {
            Decision::Allow
        } else {
            Decision::Wait
        }
    }

    fn prune(&mut self, now: Duration) {
        let counts = |at: &Duration| at.saturating_add(WINDOW) > now;
        while self.failures.front().is_some_and(|at| !counts(at)) {
            self.failures.pop_front();
        }
        if self.last_failure.saturating_add(RESET_AFTER) <= now {
            self.delays = 0;
        }
    }

    fn failed(&mut self, limit: usize, now: Duration) {
        self.prune(now);
        if self.failures.len() >= limit {
            self.failures.pop_front();
        }
        self.failures.push_back(now);
        self.last_failure = now;
        if self.failures.len() >= limit || self.delays > 0 {
            let doublings = self.delays.min(16);
            let delay = FIRST_DELAY
                .saturating_mul(1 << doublings)
                .min(LONGEST_DELAY);
            self.delays = self.delays.saturating_add(1);
            self.blocked_until = now.saturating_add(delay);
        }
    }

    fn is_expired(&self, now: Duration) -> bool {
        let quiet = self.last_failure.saturating_add(RESET_AFTER) <= now;
        let free = self.in_flight == 0 && self.blocked_until <= now;
        free && (quiet || (self.failures.is_empty() && self.delays == 0))
    }
}

impl<K: Copy + Eq + Hash> AttemptTable<K> {
    fn new(limit: usize) -> Self {
        Self {
            limit,
            records: HashMap::new(),
        }
    }

    fn decide(&mut self, key: K, now: Duration) -> Decision {
        let limit = self.limit;
        self.records
            .get_mut(&key)
            .map_or(Decision::Allow, |r| r.decide(limit, now))
    }

    /// Blocks `key`, for which an attempt is in flight.
    fn block(&mut self, key: K, until: Duration) {
        if let Some(record) = self.records.get_mut(&key) {
            record.blocked_until = record.blocked_until.max(until);
        }
    }

    fn start(&mut self, key: K, now: Duration) {
        if !self.records.contains_key(&key) && self.records.len() >= MAX_RECORDS {
            self.evict(now);
        }
        self.records.entry(key).or_default().in_flight += 1;
    }

    /// Removes expired records, or else the one with the oldest failure, blocked ones last.
    fn evict(&mut self, now: Duration) {
        self.records.retain(|_, record| !record.is_expired(now));
        if self.records.len() < MAX_RECORDS {
            return;
        }
        let idle = self.records.iter().filter(|(_, r)| r.in_flight == 0);
        let rank = |record: &Record| (record.blocked_until > now, record.last_failure);
        let least = idle.min_by_key(|(_, record)| rank(record));
        if let Some(key) = least.map(|(key, _)| *key) {
            self.records.remove(&key);
        }
    }

    fn finish(&mut self, key: K, now: Duration, result: AttemptResult, reset_on_success: bool) {
        let limit = self.limit;
        let Some(record) = self.records.get_mut(&key) else {
            return;
        };
        record.in_flight = record.in_flight.saturating_sub(1);
        match result {
            AttemptResult::Failed => record.failed(limit, now),
            AttemptResult::Succeeded if reset_on_success => {
                *record = Record {
                    in_flight: record.in_flight,
                    ..Record::default()
                };
            }
            AttemptResult::Succeeded | AttemptResult::Undecided => {}
        }
        if record.is_expired(now) {
            self.records.remove(&key);
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AttemptResult {
    Failed,
    Succeeded,
    Undecided,
}

impl AttemptLimiter {
    pub(super) fn new(clock: SharedClock) -> Self {
        let tables = AttemptTables {
            pairs: AttemptTable::new(PAIR_FAILURES),
            users: AttemptTable::new(USER_FAILURES),
            peers: AttemptTable::new(ADDRESS_FAILURES),
            known: HashMap::new(),
            told: HashMap::new(),
            looked_up: HashMap::new(),
        };
        Self {
            tables: Mutex::new(tables),
            finished: Notify::new(),
            clock,
            fleet: None,
        }
    }

    /// Counts together with the other replicas' limiters of the same `source`, of which the parts say
    /// whose accounts they are.
    ///
    /// # Errors
    /// If the keys of the fleet cannot be used.
    pub(super) fn sharing(self, fleet: &Fleet, source: &[&[u8]]) -> Result<Self, FleetKeyError> {
        Ok(Self {
            fleet: Some(FleetAttempts::new(fleet, source)?),
            ..self
        })
    }

    /// The key of the user `name`, if it is the same at all replicas.
    pub(super) fn fleet_user_key(&self, name: &str) -> Option<UserKey> {
        Some(self.fleet.as_ref()?.user_key(name))
    }

    /// Starts an attempt. Waits while only attempts in flight prevent it; the caller must bound
    /// the time.
    ///
    /// # Errors
    /// After too many failures: how long to wait.
    pub(super) async fn acquire(
        &self,
        user: UserKey,
        peer: PeerKey,
    ) -> Result<AttemptPermit<'_>, Duration> {
        let permit = match self.acquire_here(user, peer).await {
            Ok(permit) => permit,
            Err(remaining) => return self.acquire_if_known((user, peer), remaining).await,
        };
        let Some(fleet) = &self.fleet else {
            return Ok(permit);
        };
        match fleet.decide(permit.keys).await {
            FleetDecision::Allow => Ok(permit),
            FleetDecision::Block(waits) => {
                let now = self.clock.monotonic();
                self.tables().block(permit.keys, waits, now);
                Err(waits.longest())
            }
            FleetDecision::Known => {
                drop(permit);
                self.acquire_known((user, peer)).await
            }
        }
    }

    /// Starts an attempt that this replica would refuse for `remaining`, if the user has signed in from there
    /// through another.
    async fn acquire_if_known(
        &self,
        pair: Pair,
        remaining: Duration,
    ) -> Result<AttemptPermit<'_>, Duration> {
        let Some(fleet) = &self.fleet else {
            return Err(remaining);
        };
        let now = self.clock.monotonic();
        let may_look_up = self.tables().look_up(pair, now);
        if may_look_up && fleet.is_known(pair).await {
            self.acquire_known(pair).await
        } else {
            Err(remaining)
        }
    }

    async fn acquire_known(&self, (user, peer): Pair) -> Result<AttemptPermit<'_>, Duration> {
        let now = self.clock.monotonic();
        self.tables().remember((user, peer), now);
        self.acquire_here(user, peer).await
    }

    async fn acquire_here(
        &self,
        user: UserKey,
        peer: PeerKey,
    ) -> Result<AttemptPermit<'_>, Duration> {
        loop {
            let mut finished = pin!(self.finished.notified());
            // Registered before the check, so that no notification is missed in between.
            finished.as_mut().enable();
            match self.try_acquire((user, peer)) {
                Ok(keys) => {
                    return Ok(AttemptPermit {
                        limiter: self,
                        keys,
                        result: AttemptResult::Undecided,
                    });
                }
                Err(Decision::Block(remaining)) => return Err(remaining),
                Err(_) => finished.await,
            }
        }
    }

    fn try_acquire(&self, pair: Pair) -> Result<AttemptKeys, Decision> {
        let now = self.clock.monotonic();
        let mut tables = self.tables();
        let keys = tables.keys(pair, now);
        match tables.decide(keys, now) {
            Decision::Allow => {}
            other => return Err(other),
        }
        tables.pairs.start(pair, now);
        if let Some(user) = keys.user {
            tables.users.start(user, now);
        }
        if let Some(peer) = keys.peer {
            tables.peers.start(peer, now);
        }
        Ok(keys)
    }

    fn tables(&self) -> MutexGuard<'_, AttemptTables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An attempt in flight. Dropped without a result, it does not count, because the provider has
/// neither accepted nor rejected it.
#[derive(Debug)]
pub(super) struct AttemptPermit<'a> {
    limiter: &'a AttemptLimiter,
    keys: AttemptKeys,
    result: AttemptResult,
}

impl AttemptPermit<'_> {
    /// The provider rejected the password or code.
    pub(super) async fn failed(mut self) {
        self.result = AttemptResult::Failed;
        if let Some(fleet) = &self.limiter.fleet {
            fleet.failed(self.keys).await;
        }
    }

    /// The provider accepted the credentials. Resets the user's failures from this origin only, and
    /// only at this replica.
    pub(super) async fn succeeded(mut self) {
        self.result = AttemptResult::Succeeded;
        let (limiter, pair) = (self.limiter, self.keys.pair);
        drop(self);
        let Some(fleet) = &limiter.fleet else { return };
        let now = limiter.clock.monotonic();
        let due = limiter.tables().tell(pair, now);
        if due {
            fleet.remember(pair).await;
        }
    }
}

impl Drop for AttemptPermit<'_> {
    fn drop(&mut self) {
        let now = self.limiter.clock.monotonic();
        let mut tables = self.limiter.tables();
        let AttemptKeys { pair, user, peer } = self.keys;
        tables.pairs.finish(pair, now, self.result, true);
        if let Some(user) = user {
            tables.users.finish(user, now, self.result, false);
        }
        if let Some(peer) = peer {
            tables.peers.finish(peer, now, self.result, false);
        }
        if self.result == AttemptResult::Succeeded {
            tables.remember(pair, now);
        }
        drop(tables);
        self.limiter.finished.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use crate::clock::{Clock as _, ManualClock, UnixMillis};

    const LOOPBACK: PeerKey = PeerKey::Loopback;

    fn user(number: usize) -> UserKey {
        let mut user = [0; 32];
        user[..8].copy_from_slice(&number.to_le_bytes());
        user
    }

    /// An address of another machine.
    fn address(number: u32) -> PeerKey {
        PeerKey::from(Some(IpAddr::from((0x0a00_0000 + number).to_be_bytes())))
    }

    fn limiter() -> (Arc<AttemptLimiter>, Arc<ManualClock>) {
        let clock = ManualClock::at(UnixMillis::from_secs(1_700_000_000));
        (Arc::new(AttemptLimiter::new(clock.clone())), clock)
    }

    async fn fail(limiter: &AttemptLimiter, number: usize) -> Result<(), Duration> {
        fail_from(limiter, number, LOOPBACK).await
    }

    async fn fail_from(
        limiter: &AttemptLimiter,
        number: usize,
        peer: PeerKey,
    ) -> Result<(), Duration> {
        limiter.acquire(user(number), peer).await?.failed().await;
        Ok(())
    }

    async fn succeed_from(
        limiter: &AttemptLimiter,
        number: usize,
        peer: PeerKey,
    ) -> Result<(), Duration> {
        limiter.acquire(user(number), peer).await?.succeeded().await;
        Ok(())
    }

    #[tokio::test]
    async fn delays_start_after_the_fifth_failure_of_a_user_and_double() {
        let (limiter, clock) = limiter();
        for _ in 0..5 {
            fail(&limiter, 1).await.unwrap();
        }
        for delay in [30, 60, 120, 240, 480, 900, 900] {
            let delay = Duration::from_secs(delay);
            assert_eq!(fail(&limiter, 1).await, Err(delay));
            // Other users are not affected.
            assert!(limiter.acquire(user(2), LOOPBACK).await.is_ok());
            let instant = Duration::from_millis(1);
            clock.advance(delay.saturating_sub(instant));
            assert_eq!(fail(&limiter, 1).await, Err(instant));
            clock.advance(instant);
            fail(&limiter, 1).await.unwrap();
        }
    }

    #[tokio::test]
    async fn failures_outside_the_window_do_not_count() {
        let (limiter, clock) = limiter();
        for _ in 0..20 {
            fail(&limiter, 1).await.unwrap();
            clock.advance(WINDOW / 4);
        }
        assert!(fail(&limiter, 1).await.is_ok());
    }

    #[tokio::test]
    async fn waiting_out_a_delay_allows_one_attempt_and_an_hour_resets_the_record() {
        let (limiter, clock) = limiter();
        for _ in 0..5 {
            fail(&limiter, 1).await.unwrap();
        }
        clock.advance(Duration::from_mins(20));
        fail(&limiter, 1).await.unwrap();
        assert_eq!(fail(&limiter, 1).await, Err(Duration::from_mins(1)));
        clock.advance(RESET_AFTER);
        for _ in 0..5 {
            fail(&limiter, 1).await.unwrap();
        }
        assert_eq!(fail(&limiter, 1).await, Err(FIRST_DELAY));
    }

    #[tokio::test]
    async fn twenty_failures_from_an_address_delay_new_users_there() {
        let (limiter, _) = limiter();
        let (office, elsewhere) = (address(1), address(2));
        succeed_from(&limiter, 1, office).await.unwrap();
        for number in 10..30 {
            fail_from(&limiter, number, office).await.unwrap();
        }
        assert_eq!(fail_from(&limiter, 77, office).await, Err(FIRST_DELAY));
        assert!(fail_from(&limiter, 77, elsewhere).await.is_ok());
        // Who has signed in there before is not locked out by others.
        succeed_from(&limiter, 1, office).await.unwrap();
        let from = |text: &str| PeerKey::from(Some(text.parse().unwrap()));
        for ip in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(from(ip), LOOPBACK);
        }
        assert_eq!(from("2001:db8::1"), from("2001:db8::ffff:0:1:2"));
        assert_ne!(from("2001:db8::1"), from("2001:db8:0:1::1"));
    }

    #[tokio::test]
    async fn failures_on_this_machine_lock_out_nobody_else_there() {
        let (limiter, _) = limiter();
        for peer in [LOOPBACK, PeerKey::UnixSocket] {
            for number in 0..1_000 {
                fail_from(&limiter, number, peer).await.unwrap();
            }
            succeed_from(&limiter, 5_000, peer).await.unwrap();
            // A user's own failures count as before.
            for _ in 0..4 {
                fail_from(&limiter, 0, peer).await.unwrap();
            }
            assert_eq!(fail_from(&limiter, 0, peer).await, Err(FIRST_DELAY));
        }
    }

    #[tokio::test]
    async fn guessing_from_elsewhere_does_not_lock_a_user_out_and_stays_bounded() {
        let (limiter, clock) = limiter();
        let home = address(1);
        succeed_from(&limiter, 1, home).await.unwrap();
        let mut guesses = 0;
        for number in 0..2_000 {
            let hostile = address(100 + number % 500);
            guesses += usize::from(fail_from(&limiter, 1, hostile).await.is_ok());
            if number % 100 == 0 {
                succeed_from(&limiter, 1, home).await.unwrap();
            }
            clock.advance(Duration::from_secs(2));
        }
        // In more than an hour: the first 50, then one after each growing delay.
        assert!(
            (USER_FAILURES..USER_FAILURES + 15).contains(&guesses),
            "{guesses}"
        );
        // A typo at home does not count elsewhere, and is forgiven.
        fail_from(&limiter, 1, home).await.unwrap();
        succeed_from(&limiter, 1, home).await.unwrap();
        // The exemption ends.
        clock.advance(KNOWN_FOR);
        for number in 0..50 {
            fail_from(&limiter, 1, address(1_000 + number))
                .await
                .unwrap();
        }
        assert_eq!(fail_from(&limiter, 1, home).await, Err(FIRST_DELAY));
    }

    #[tokio::test]
    async fn an_exempt_user_cannot_guess_either() {
        let (limiter, _) = limiter();
        let home = address(1);
        succeed_from(&limiter, 1, home).await.unwrap();
        for _ in 0..PAIR_FAILURES {
            fail_from(&limiter, 1, home).await.unwrap();
        }
        assert_eq!(fail_from(&limiter, 1, home).await, Err(FIRST_DELAY));
        // Nor other users' passwords from there.
        for number in 100..120 {
            fail_from(&limiter, number, home).await.unwrap();
        }
        assert_eq!(fail_from(&limiter, 200, home).await, Err(FIRST_DELAY));
    }

    #[tokio::test]
    async fn the_known_origins_are_bounded() {
        let (limiter, clock) = limiter();
        for number in 0..MAX_RECORDS + 10 {
            succeed_from(&limiter, number, LOOPBACK).await.unwrap();
            clock.advance(Duration::from_millis(1));
        }
        let tables = limiter.tables();
        assert_eq!(tables.known.len(), MAX_RECORDS);
        assert!(!tables.is_known((user(0), LOOPBACK), clock.monotonic()));
        assert!(tables.is_known((user(MAX_RECORDS), LOOPBACK), clock.monotonic()));
        assert!(tables.pairs.records.is_empty() && tables.users.records.is_empty());
    }

    #[tokio::test]
    async fn an_attempt_without_a_result_does_not_count() {
        let (limiter, _) = limiter();
        for _ in 0..100 {
            drop(limiter.acquire(user(1), LOOPBACK).await.unwrap());
        }
        assert!(limiter.tables().users.records.is_empty());
    }

    #[tokio::test]
    async fn concurrent_attempts_count_against_the_limit() {
        let (limiter, _) = limiter();
        let mut in_flight = Vec::new();
        for _ in 0..5 {
            in_flight.push(limiter.acquire(user(1), LOOPBACK).await.unwrap());
        }
        let waiting = {
            let limiter = limiter.clone();
            tokio::spawn(async move { limiter.acquire(user(1), LOOPBACK).await.map(drop) })
        };
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        for attempt in in_flight {
            attempt.failed().await;
        }
        assert_eq!(waiting.await.unwrap(), Err(FIRST_DELAY));
    }

    #[tokio::test]
    async fn a_waiting_attempt_starts_when_one_in_flight_succeeds() {
        let (limiter, _) = limiter();
        let mut in_flight = Vec::new();
        for _ in 0..5 {
            in_flight.push(limiter.acquire(user(1), LOOPBACK).await.unwrap());
        }
        let waiting = {
            let limiter = limiter.clone();
            tokio::spawn(async move { limiter.acquire(user(1), LOOPBACK).await.map(drop) })
        };
        tokio::task::yield_now().await;
        in_flight.pop().unwrap().succeeded().await;
        assert_eq!(waiting.await.unwrap(), Ok(()));
    }

    #[tokio::test]
    async fn the_table_is_bounded_and_blocked_records_are_evicted_last() {
        let (limiter, clock) = limiter();
        let pair = |number| (user(number), LOOPBACK);
        let mut tables = limiter.tables();
        for number in 0..MAX_RECORDS {
            let now = clock.monotonic();
            tables.pairs.start(pair(number), now);
            tables
                .pairs
                .finish(pair(number), now, AttemptResult::Failed, true);
            clock.advance(Duration::from_micros(1));
        }
        let now = clock.monotonic();
        for _ in 0..5 {
            tables.pairs.start(pair(MAX_RECORDS - 1), now);
            tables
                .pairs
                .finish(pair(MAX_RECORDS - 1), now, AttemptResult::Failed, true);
        }
        for number in 0..100 {
            tables.pairs.start(pair(MAX_RECORDS + number), now);
            assert_eq!(tables.pairs.records.len(), MAX_RECORDS);
        }
        let decision = tables.pairs.decide(pair(MAX_RECORDS - 1), now);
        assert_eq!(decision, Decision::Block(FIRST_DELAY * 2));
    }
}
