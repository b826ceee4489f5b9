//! Limits failed sign-ins: five per user and twenty per address within 15 minutes, then growing
//! delays (`docs/design/tokens.md`, "Passwords and MFA"). Attempts in flight count as failures,
//! so that concurrent guessing gains nothing.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::clock::SharedClock;

/// Failures of one user within [`WINDOW`] before delays start.
pub(super) const USER_FAILURES: usize = 5;
/// Failures from one address within [`WINDOW`] before delays start.
pub(super) const ADDRESS_FAILURES: usize = 20;
/// How long a failure counts towards the first delay.
const WINDOW: Duration = Duration::from_mins(15);
/// The first delay; each further failure doubles it.
const FIRST_DELAY: Duration = Duration::from_secs(30);
/// The longest delay.
const LONGEST_DELAY: Duration = Duration::from_mins(15);
/// How long after the last failure a record is reset. Longer than [`LONGEST_DELAY`], because
/// otherwise waiting out a delay would restore the full number of attempts.
const RESET_AFTER: Duration = Duration::from_hours(1);
/// The most records per table.
const MAX_RECORDS: usize = 10_000;

/// A keyed hash of the lower-case username, so that changing its case gains no further attempts.
pub(super) type UserKey = [u8; 32];

/// The origin of an attempt. All loopback addresses count as one, because a local process can use
/// any of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum PeerKey {
    /// A Unix socket, which has no address.
    UnixSocket,
    /// This machine over TCP.
    Loopback,
    /// Another machine.
    Ip(IpAddr),
}

impl From<Option<IpAddr>> for PeerKey {
    fn from(peer: Option<IpAddr>) -> Self {
        match peer {
            None => Self::UnixSocket,
            Some(ip) if ip.is_loopback() => Self::Loopback,
            Some(ip) => Self::Ip(ip),
        }
    }
}

/// Counts the sign-in attempts of one source, in bounded memory.
#[derive(Debug)]
pub(super) struct AttemptLimiter {
    tables: Mutex<AttemptTables>,
    finished: Notify,
    clock: SharedClock,
}

#[derive(Debug)]
struct AttemptTables {
    users: AttemptTable<UserKey>,
    peers: AttemptTable<PeerKey>,
}

/// The records of all users, or of all origins.
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

/// Whether an attempt may start now.
#[derive(Debug, PartialEq, Eq)]
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
        self.in_flight == 0 && (quiet || (self.failures.is_empty() && self.delays == 0))
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
            users: AttemptTable::new(USER_FAILURES),
            peers: AttemptTable::new(ADDRESS_FAILURES),
        };
        Self {
            tables: Mutex::new(tables),
            finished: Notify::new(),
            clock,
        }
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
        loop {
            let mut finished = pin!(self.finished.notified());
            // Registered before the check, so that no notification is missed in between.
            finished.as_mut().enable();
            match self.try_acquire(user, peer) {
                Decision::Allow => {
                    return Ok(AttemptPermit {
                        limiter: self,
                        user,
                        peer,
                        result: AttemptResult::Undecided,
                    });
                }
                Decision::Block(remaining) => return Err(remaining),
                Decision::Wait => finished.await,
            }
        }
    }

    fn try_acquire(&self, user: UserKey, peer: PeerKey) -> Decision {
        let now = self.clock.monotonic();
        let mut tables = self.tables();
        let decisions = [
            tables.users.decide(user, now),
            tables.peers.decide(peer, now),
        ];
        let blocked = decisions.iter().filter_map(|decision| match decision {
            Decision::Block(remaining) => Some(*remaining),
            _ => None,
        });
        if let Some(remaining) = blocked.max() {
            return Decision::Block(remaining);
        }
        if decisions.contains(&Decision::Wait) {
            return Decision::Wait;
        }
        tables.users.start(user, now);
        tables.peers.start(peer, now);
        Decision::Allow
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
    user: UserKey,
    peer: PeerKey,
    result: AttemptResult,
}

impl AttemptPermit<'_> {
    /// The provider rejected the password or code.
    pub(super) fn failed(mut self) {
        self.result = AttemptResult::Failed;
    }

    /// The provider accepted the credentials. Resets the user's failures, but not the address's.
    pub(super) fn succeeded(mut self) {
        self.result = AttemptResult::Succeeded;
    }
}

impl Drop for AttemptPermit<'_> {
    fn drop(&mut self) {
        let now = self.limiter.clock.monotonic();
        let mut tables = self.limiter.tables();
        tables.users.finish(self.user, now, self.result, true);
        tables.peers.finish(self.peer, now, self.result, false);
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

    fn limiter() -> (Arc<AttemptLimiter>, Arc<ManualClock>) {
        let clock = ManualClock::at(UnixMillis::from_secs(1_700_000_000));
        (Arc::new(AttemptLimiter::new(clock.clone())), clock)
    }

    async fn fail(limiter: &AttemptLimiter, number: usize) -> Result<(), Duration> {
        limiter.acquire(user(number), LOOPBACK).await?.failed();
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
            // Keep the limit per address out of this test.
            limiter.tables().peers.records.clear();
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
    async fn twenty_failures_from_an_address_block_every_user_there() {
        let (limiter, _) = limiter();
        for number in 0..20 {
            fail(&limiter, number).await.unwrap();
        }
        assert_eq!(fail(&limiter, 77).await, Err(FIRST_DELAY));
        assert!(limiter.acquire(user(77), PeerKey::UnixSocket).await.is_ok());
        for ip in ["127.0.0.1", "127.9.9.9", "::1"] {
            assert_eq!(PeerKey::from(Some(ip.parse().unwrap())), LOOPBACK);
        }
    }

    #[tokio::test]
    async fn success_resets_the_user_but_not_the_address() {
        let (limiter, _) = limiter();
        for round in 0..5 {
            for _ in 0..4 {
                assert!(fail(&limiter, 1).await.is_ok(), "{round}");
            }
            match limiter.acquire(user(1), LOOPBACK).await {
                Ok(attempt) => attempt.succeeded(),
                Err(remaining) => {
                    assert_eq!((round, remaining), (4, FIRST_DELAY));
                    return;
                }
            }
        }
        panic!("the address was never blocked");
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
        in_flight.into_iter().for_each(AttemptPermit::failed);
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
        in_flight.pop().unwrap().succeeded();
        assert_eq!(waiting.await.unwrap(), Ok(()));
    }

    #[tokio::test]
    async fn the_table_is_bounded_and_blocked_records_are_evicted_last() {
        let (limiter, clock) = limiter();
        let mut tables = limiter.tables();
        for number in 0..MAX_RECORDS {
            let now = clock.monotonic();
            tables.users.start(user(number), now);
            tables
                .users
                .finish(user(number), now, AttemptResult::Failed, true);
            clock.advance(Duration::from_micros(1));
        }
        let now = clock.monotonic();
        for _ in 0..5 {
            tables.users.start(user(MAX_RECORDS - 1), now);
            tables
                .users
                .finish(user(MAX_RECORDS - 1), now, AttemptResult::Failed, true);
        }
        for number in 0..100 {
            tables.users.start(user(MAX_RECORDS + number), now);
            assert_eq!(tables.users.records.len(), MAX_RECORDS);
        }
        let decision = tables.users.decide(user(MAX_RECORDS - 1), now);
        assert_eq!(decision, Decision::Block(FIRST_DELAY * 2));
    }
}
