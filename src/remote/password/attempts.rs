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
const FORGOTTEN: Duration = Duration::from_hours(1);
/// Users, and addresses, remembered at the same time.
const MAX_RECORDS: usize = 10_000;

/// A user as far as counting goes: a keyed hash of the name in lower case, so that no
/// spelling of it brings more tries.
pub(super) type User = [u8; 32];

/// Where attempts come from. Every loopback address is the same machine: who may bind one
/// may bind them all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Origin {
    /// A Unix socket.
    Socket,
    /// This machine, over TCP.
    Loopback,
    /// Another address.
    Address(IpAddr),
}

impl From<Option<IpAddr>> for Origin {
    fn from(peer: Option<IpAddr>) -> Self {
        match peer {
            None => Self::Socket,
            Some(ip) if ip.is_loopback() => Self::Loopback,
            Some(ip) => Self::Address(ip),
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
    users: AttemptTable<User>,
    origins: AttemptTable<Origin>,
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
    under_way: usize,
    /// Delays in a row.
    delays: u32,
    blocked_until: Duration,
    last_failure: Duration,
}

/// What may be done now.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Try,
    /// What is under way decides.
    Wait,
    Blocked(Duration),
}

impl Record {
    fn verdict(&mut self, limit: usize, now: Duration) -> Verdict {
        if self.blocked_until > now {
            return Verdict::Blocked(self.blocked_until.saturating_sub(now));
        }
        self.prune(now);
        // After a delay it is one at a time.
        let free = if self.delays > 0 {
            1
        } else {
            limit.saturating_sub(self.failures.len())
        };
        if self.under_way < free {
            Verdict::Try
        } else {
            Verdict::Wait
        }
    }

    fn prune(&mut self, now: Duration) {
        let counts = |at: &Duration| at.saturating_add(WINDOW) > now;
        while self.failures.front().is_some_and(|at| !counts(at)) {
            self.failures.pop_front();
        }
        if self.last_failure.saturating_add(FORGOTTEN) <= now {
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

    fn is_blank(&self, now: Duration) -> bool {
        let quiet = self.last_failure.saturating_add(FORGOTTEN) <= now;
        self.under_way == 0 && (quiet || (self.failures.is_empty() && self.delays == 0))
    }
}

impl<K: Copy + Eq + Hash> AttemptTable<K> {
    fn new(limit: usize) -> Self {
        Self {
            limit,
            records: HashMap::new(),
        }
    }

    fn verdict(&mut self, key: K, now: Duration) -> Verdict {
        let limit = self.limit;
        self.records
            .get_mut(&key)
            .map_or(Verdict::Try, |r| r.verdict(limit, now))
    }

    fn begin(&mut self, key: K, now: Duration) {
        if !self.records.contains_key(&key) && self.records.len() >= MAX_RECORDS {
            self.make_room(now);
        }
        self.records.entry(key).or_default().under_way += 1;
    }

    /// Forgets what is over, else whoever failed longest ago; those who are blocked last.
    fn make_room(&mut self, now: Duration) {
        self.records.retain(|_, record| !record.is_blank(now));
        if self.records.len() < MAX_RECORDS {
            return;
        }
        let idle = self.records.iter().filter(|(_, r)| r.under_way == 0);
        let rank = |record: &Record| (record.blocked_until > now, record.last_failure);
        let least = idle.min_by_key(|(_, record)| rank(record));
        if let Some(key) = least.map(|(key, _)| *key) {
            self.records.remove(&key);
        }
    }

    fn end(&mut self, key: K, now: Duration, end: End, forgive: bool) {
        let limit = self.limit;
        let Some(record) = self.records.get_mut(&key) else {
            return;
        };
        record.under_way = record.under_way.saturating_sub(1);
        match end {
            End::Failed => record.failed(limit, now),
            End::Succeeded if forgive => {
                *record = Record {
                    under_way: record.under_way,
                    ..Record::default()
                };
            }
            End::Succeeded | End::Undecided => {}
        }
        if record.is_blank(now) {
            self.records.remove(&key);
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Failed,
    Succeeded,
    Undecided,
}

impl AttemptLimiter {
    pub(super) fn new(clock: SharedClock) -> Self {
        let tables = AttemptTables {
            users: AttemptTable::new(USER_FAILURES),
            origins: AttemptTable::new(ADDRESS_FAILURES),
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
    pub(super) async fn begin(&self, user: User, origin: Origin) -> Result<Attempt<'_>, Duration> {
        loop {
            let mut ended = pin!(self.ended.notified());
            // From here on an end is noticed, even one between look and wait.
            ended.as_mut().enable();
            match self.try_begin(user, origin) {
                Verdict::Try => {
                    return Ok(Attempt {
                        attempts: self,
                        user,
                        origin,
                        end: End::Undecided,
                    });
                }
                Verdict::Blocked(left) => return Err(left),
                Verdict::Wait => ended.await,
            }
        }
    }

    fn try_begin(&self, user: User, origin: Origin) -> Verdict {
        let now = self.clock.monotonic();
        let mut tables = self.tables();
        let verdicts = [
            tables.users.verdict(user, now),
            tables.origins.verdict(origin, now),
        ];
        let blocked = verdicts.iter().filter_map(|verdict| match verdict {
            Verdict::Blocked(left) => Some(*left),
            _ => None,
        });
        if let Some(left) = blocked.max() {
            return Verdict::Blocked(left);
        }
        if verdicts.contains(&Verdict::Wait) {
            return Verdict::Wait;
        }
        tables.users.begin(user, now);
        tables.origins.begin(origin, now);
        Verdict::Try
    }

    fn tables(&self) -> MutexGuard<'_, AttemptTables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One attempt under way. Dropped without a word it counts as nothing: the provider never
/// judged it.
#[derive(Debug)]
pub(super) struct Attempt<'a> {
    attempts: &'a AttemptLimiter,
    user: User,
    origin: Origin,
    end: End,
}

impl Attempt<'_> {
    /// The provider refused password or code.
    pub(super) fn failed(mut self) {
        self.end = End::Failed;
    }

    /// The user is who he says: his failures are forgotten, the address's are not.
    pub(super) fn succeeded(mut self) {
        self.end = End::Succeeded;
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let now = self.attempts.clock.monotonic();
        let mut tables = self.attempts.tables();
        tables.users.end(self.user, now, self.end, true);
        tables.origins.end(self.origin, now, self.end, false);
        drop(tables);
        self.attempts.ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use crate::clock::{Clock as _, ManualClock, UnixMillis};

    const NEAR: Origin = Origin::Loopback;

    fn user(number: usize) -> User {
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
            attempts.tables().origins.records.clear();
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
        clock.advance(FORGOTTEN);
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
        assert!(attempts.begin(user(77), Origin::Socket).await.is_ok());
        for ip in ["127.0.0.1", "127.9.9.9", "::1"] {
            assert_eq!(Origin::from(Some(ip.parse().unwrap())), NEAR);
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
        let mut under_way = Vec::new();
        for _ in 0..5 {
            under_way.push(attempts.begin(user(1), NEAR).await.unwrap());
        }
        let waiting = {
            let attempts = attempts.clone();
            tokio::spawn(async move { attempts.begin(user(1), NEAR).await.map(drop) })
        };
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        under_way.into_iter().for_each(Attempt::failed);
        assert_eq!(waiting.await.unwrap(), Err(FIRST_DELAY));
    }

    #[tokio::test]
    async fn whoever_waits_goes_on_when_an_attempt_under_way_succeeds() {
        let (attempts, _) = stage();
        let mut under_way = Vec::new();
        for _ in 0..5 {
            under_way.push(attempts.begin(user(1), NEAR).await.unwrap());
        }
        let waiting = {
            let attempts = attempts.clone();
            tokio::spawn(async move { attempts.begin(user(1), NEAR).await.map(drop) })
        };
        tokio::task::yield_now().await;
        under_way.pop().unwrap().succeeded();
        assert_eq!(waiting.await.unwrap(), Ok(()));
    }

    #[tokio::test]
    async fn memory_is_bounded_and_the_blocked_are_not_the_first_to_be_forgotten() {
        let (attempts, clock) = stage();
        let mut tables = attempts.tables();
        for number in 0..MAX_RECORDS {
            let now = clock.monotonic();
            tables.users.begin(user(number), now);
            tables.users.end(user(number), now, End::Failed, true);
            clock.advance(Duration::from_micros(1));
        }
        let now = clock.monotonic();
        for _ in 0..5 {
            tables.users.begin(user(MAX_RECORDS - 1), now);
            tables
                .users
                .end(user(MAX_RECORDS - 1), now, End::Failed, true);
        }
        for number in 0..100 {
            tables.users.begin(user(MAX_RECORDS + number), now);
            assert_eq!(tables.users.records.len(), MAX_RECORDS);
        }
        let verdict = tables.users.verdict(user(MAX_RECORDS - 1), now);
        assert_eq!(verdict, Verdict::Blocked(FIRST_DELAY * 2));
    }
}
