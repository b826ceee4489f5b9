//! How often a password may be tried (identity.md §F): five failures a user and twenty an
//! address in a quarter of an hour, then growing delays. AttemptLimiter under way count as if
//! they had failed, so that trying many at once gains nothing.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::clock::SharedClock;

/// Failures of one user within [`WINDOW`] before delays begin.
pub(super) const USER_FAILURES: usize = 5;
/// The same for one address.
pub(super) const ADDRESS_FAILURES: usize = 20;
/// How long a failure counts towards the first delay.
const WINDOW: Duration = Duration::from_mins(15);
/// The first delay; each further failure doubles it.
const FIRST_DELAY: Duration = Duration::from_secs(30);
/// The longest delay.
const LONGEST_DELAY: Duration = Duration::from_mins(15);
/// So long after the last failure all is forgotten: no less, or waiting out a delay would
/// bring a fresh set of tries.
const RESET_AFTER: Duration = Duration::from_hours(1);
/// Users, and addresses, remembered at the same time.
const MAX_RECORDS: usize = 10_000;

/// A user as far as counting goes: a keyed hash of the name in lower case, so that no
/// spelling of it brings more tries.
pub(super) type UserKey = [u8; 32];

/// Where attempts come from. Every loopback address is the same machine: who may bind one
/// may bind them all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum PeerKey {
    /// A Unix socket.
    UnixSocket,
    /// This machine, over TCP.
    Loopback,
    /// Another address.
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

/// Counts attempts of one source. Bounded in memory.
#[derive(Debug)]
pub(super) struct AttemptLimiter {
    tables: Mutex<AttemptTables>,
    ended: Notify,
    clock: SharedClock,
}

#[derive(Debug)]
struct AttemptTables {
    users: AttemptTable<UserKey>,
    peers: AttemptTable<PeerKey>,
}

/// The records of one kind.
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
    /// Delays in a row.
    delays: u32,
    blocked_until: Duration,
    last_failure: Duration,
}

/// What may be done now.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    Allow,
    /// What is under way decides.
    Wait,
    Block(Duration),
}

impl Record {
    fn decide(&mut self, limit: usize, now: Duration) -> Decision {
        if self.blocked_until > now {
            return Decision::Block(self.blocked_until.saturating_sub(now));
        }
        self.prune(now);
        // After a delay it is one at a time.
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

    fn begin(&mut self, key: K, now: Duration) {
        if !self.records.contains_key(&key) && self.records.len() >= MAX_RECORDS {
            self.evict(now);
        }
        self.records.entry(key).or_default().in_flight += 1;
    }

    /// Forgets what is over, else whoever failed longest ago; those who are blocked last.
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

    fn end(&mut self, key: K, now: Duration, result: AttemptResult, reset_on_success: bool) {
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
            ended: Notify::new(),
            clock,
        }
    }

    /// Leave to try once. Waits while only attempts under way stand in the way; whoever
    /// calls bounds the time.
    ///
    /// # Errors
    /// With how long to wait after too many failures.
    pub(super) async fn begin(
        &self,
        user: UserKey,
        peer: PeerKey,
    ) -> Result<AttemptPermit<'_>, Duration> {
        loop {
            let mut ended = pin!(self.ended.notified());
            // From here on an end is noticed, even one between look and wait.
            ended.as_mut().enable();
            match self.try_begin(user, peer) {
                Decision::Allow => {
                    return Ok(AttemptPermit {
                        attempts: self,
                        user,
                        peer,
                        result: AttemptResult::Undecided,
                    });
                }
                Decision::Block(left) => return Err(left),
                Decision::Wait => ended.await,
            }
        }
    }

    fn try_begin(&self, user: UserKey, peer: PeerKey) -> Decision {
        let now = self.clock.monotonic();
        let mut tables = self.tables();
        let decisions = [
            tables.users.decide(user, now),
            tables.peers.decide(peer, now),
        ];
        let blocked = decisions.iter().filter_map(|decide| match decide {
            Decision::Block(left) => Some(*left),
            _ => None,
        });
        if let Some(left) = blocked.max() {
            return Decision::Block(left);
        }
        if decisions.contains(&Decision::Wait) {
            return Decision::Wait;
        }
        tables.users.begin(user, now);
        tables.peers.begin(peer, now);
        Decision::Allow
    }

    fn tables(&self) -> MutexGuard<'_, AttemptTables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One attempt under way. Dropped without a word it counts as nothing: the provider never
/// judged it.
#[derive(Debug)]
pub(super) struct AttemptPermit<'a> {
    attempts: &'a AttemptLimiter,
    user: UserKey,
    peer: PeerKey,
    result: AttemptResult,
}

impl AttemptPermit<'_> {
    /// The provider refused password or code.
    pub(super) fn failed(mut self) {
        self.result = AttemptResult::Failed;
    }

    /// The user is who he says: his failures are forgotten, the address's are not.
    pub(super) fn succeeded(mut self) {
        self.result = AttemptResult::Succeeded;
    }
}

impl Drop for AttemptPermit<'_> {
    fn drop(&mut self) {
        let now = self.attempts.clock.monotonic();
        let mut tables = self.attempts.tables();
        tables.users.end(self.user, now, self.result, true);
        tables.peers.end(self.peer, now, self.result, false);
        drop(tables);
        self.attempts.ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use crate::clock::{Clock as _, ManualClock, UnixMillis};

    const NEAR: PeerKey = PeerKey::Loopback;

    fn user(number: usize) -> UserKey {
        let mut user = [0; 32];
        user[..8].copy_from_slice(&number.to_le_bytes());
        user
    }

    fn stage() -> (Arc<AttemptLimiter>, Arc<ManualClock>) {
        let clock = ManualClock::at(UnixMillis::from_secs(1_700_000_000));
        (Arc::new(AttemptLimiter::new(clock.clone())), clock)
    }

    async fn fail(attempts: &AttemptLimiter, number: usize) -> Result<(), Duration> {
        attempts.begin(user(number), NEAR).await?.failed();
        Ok(())
    }

    #[tokio::test]
    async fn the_fifth_failure_of_a_user_begins_delays_that_double() {
        let (attempts, clock) = stage();
        for _ in 0..5 {
            fail(&attempts, 1).await.unwrap();
        }
        for delay in [30, 60, 120, 240, 480, 900, 900] {
            let delay = Duration::from_secs(delay);
            assert_eq!(fail(&attempts, 1).await, Err(delay));
            // Others are not concerned.
            assert!(attempts.begin(user(2), NEAR).await.is_ok());
            let moment = Duration::from_millis(1);
            clock.advance(delay.saturating_sub(moment));
            assert_eq!(fail(&attempts, 1).await, Err(moment));
            clock.advance(moment);
            fail(&attempts, 1).await.unwrap();
            // The address's own limit is not what this is about.
            attempts.tables().peers.records.clear();
        }
    }

    #[tokio::test]
    async fn failures_count_for_a_quarter_of_an_hour() {
        let (attempts, clock) = stage();
        for _ in 0..20 {
            fail(&attempts, 1).await.unwrap();
            clock.advance(WINDOW / 4);
        }
        assert!(fail(&attempts, 1).await.is_ok());
    }

    #[tokio::test]
    async fn waiting_out_a_delay_brings_one_try_and_an_hour_all() {
        let (attempts, clock) = stage();
        for _ in 0..5 {
            fail(&attempts, 1).await.unwrap();
        }
        clock.advance(Duration::from_mins(20));
        fail(&attempts, 1).await.unwrap();
        assert_eq!(fail(&attempts, 1).await, Err(Duration::from_mins(1)));
        clock.advance(RESET_AFTER);
        for _ in 0..5 {
            fail(&attempts, 1).await.unwrap();
        }
        assert_eq!(fail(&attempts, 1).await, Err(FIRST_DELAY));
    }

    #[tokio::test]
    async fn twenty_failures_from_an_address_block_every_user_there() {
        let (attempts, _) = stage();
        for number in 0..20 {
            fail(&attempts, number).await.unwrap();
        }
        assert_eq!(fail(&attempts, 77).await, Err(FIRST_DELAY));
        assert!(attempts.begin(user(77), PeerKey::UnixSocket).await.is_ok());
        for ip in ["127.0.0.1", "127.9.9.9", "::1"] {
            assert_eq!(PeerKey::from(Some(ip.parse().unwrap())), NEAR);
        }
    }

    #[tokio::test]
    async fn success_forgives_the_user_and_not_the_address() {
        let (attempts, _) = stage();
        for round in 0..5 {
            for _ in 0..4 {
                assert!(fail(&attempts, 1).await.is_ok(), "{round}");
            }
            match attempts.begin(user(1), NEAR).await {
                Ok(attempt) => attempt.succeeded(),
                Err(left) => {
                    assert_eq!((round, left), (4, FIRST_DELAY));
                    return;
                }
            }
        }
        panic!("the address was never blocked");
    }

    #[tokio::test]
    async fn what_nobody_judged_counts_as_nothing() {
        let (attempts, _) = stage();
        for _ in 0..100 {
            drop(attempts.begin(user(1), NEAR).await.unwrap());
        }
        assert!(attempts.tables().users.records.is_empty());
    }

    #[tokio::test]
    async fn trying_many_at_once_gains_nothing() {
        let (attempts, _) = stage();
        let mut in_flight = Vec::new();
        for _ in 0..5 {
            in_flight.push(attempts.begin(user(1), NEAR).await.unwrap());
        }
        let waiting = {
            let attempts = attempts.clone();
            tokio::spawn(async move { attempts.begin(user(1), NEAR).await.map(drop) })
        };
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        in_flight.into_iter().for_each(AttemptPermit::failed);
        assert_eq!(waiting.await.unwrap(), Err(FIRST_DELAY));
    }

    #[tokio::test]
    async fn whoever_waits_goes_on_when_an_attempt_under_way_succeeds() {
        let (attempts, _) = stage();
        let mut in_flight = Vec::new();
        for _ in 0..5 {
            in_flight.push(attempts.begin(user(1), NEAR).await.unwrap());
        }
        let waiting = {
            let attempts = attempts.clone();
            tokio::spawn(async move { attempts.begin(user(1), NEAR).await.map(drop) })
        };
        tokio::task::yield_now().await;
        in_flight.pop().unwrap().succeeded();
        assert_eq!(waiting.await.unwrap(), Ok(()));
    }

    #[tokio::test]
    async fn memory_is_bounded_and_the_blocked_are_not_the_first_to_be_forgotten() {
        let (attempts, clock) = stage();
        let mut tables = attempts.tables();
        for number in 0..MAX_RECORDS {
            let now = clock.monotonic();
            tables.users.begin(user(number), now);
            tables
                .users
                .end(user(number), now, AttemptResult::Failed, true);
            clock.advance(Duration::from_micros(1));
        }
        let now = clock.monotonic();
        for _ in 0..5 {
            tables.users.begin(user(MAX_RECORDS - 1), now);
            tables
                .users
                .end(user(MAX_RECORDS - 1), now, AttemptResult::Failed, true);
        }
        for number in 0..100 {
            tables.users.begin(user(MAX_RECORDS + number), now);
            assert_eq!(tables.users.records.len(), MAX_RECORDS);
        }
        let decide = tables.users.decide(user(MAX_RECORDS - 1), now);
        assert_eq!(decide, Decision::Block(FIRST_DELAY * 2));
    }
}
