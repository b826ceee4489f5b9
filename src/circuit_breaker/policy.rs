//! The decisions, as a function of calls and time: no locks, no waiting.

use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use super::aging_map::AgingMap;
use super::backoff::{self, Jitter};
use super::capacity::Share;
use super::probe::{ProbeEnd, Probes};
use super::retry_budget::RetryBudget;
use super::window::{self, Votes, Window};
use super::{Attempt, Origin, Outcome, Rejected};

/// How long a key or origin counts as accepted, at least.
const ACCEPTED_SPAN: Duration = Duration::from_mins(30);
/// How long the failures of a key are remembered, at least.
const FAILURES_SPAN: Duration = backoff::LONGEST_RETRY_AFTER;
/// The most origins that are remembered as accepted, in each half of the map.
const ORIGINS: usize = 4096;
/// How long an origin that failed leaves the probes of an open circuit to others, at least.
const SETBACK_SPAN: Duration = Duration::from_secs(15);
/// Retries within one call, if every attempt fails. With these, a peer that fails 30 % of calls at
/// random serves all but 0.3⁷ = 0.02 % of callers.
const RETRIES: u32 = 6;

/// How many known keys must fail in a row for that to be an outage of the peer.
const OUTAGE_KEYS: usize = 3;

/// Who votes on the state of the circuit. A key that was accepted before speaks for itself.
/// Any other one only speaks for its origin, however many keys that makes up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Voter<K> {
    Key(K),
    Origin(Origin),
}

#[derive(Clone, Copy, Debug)]
struct KeyFailures {
    /// In a row.
    count: u32,
    /// When the first one of these was, in monotonic time like all times here.
    first: Duration,
    /// When the last one was.
    last: Duration,
    backoff_until: Duration,
    /// Whether the peer asked for the backoff, with `Retry-After`.
    requested: bool,
}

/// A time in which calls failed because the peer was down.
#[derive(Clone, Copy, Debug)]
struct Outage {
    from: Duration,
    to: Duration,
}

/// The failures since the last response of keys that were accepted before.
#[derive(Debug)]
struct FailureStreak<K> {
    since: Duration,
    /// Distinct, and at most [`OUTAGE_KEYS`].
    keys: Vec<K>,
}

/// An open circuit. It has two schedules of probes, so that callers who have never been accepted
/// cannot use up those of the ones who have.
#[derive(Debug)]
struct OpenCircuit {
    since: Duration,
    known: Probes,
    unknown: Probes,
}

/// A call that probes an open circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Probe {
    /// The circuit that was open then, by the time at which it opened.
    opened: Duration,
    known: bool,
}

/// What a call may do.
#[derive(Debug)]
pub(super) enum Admission {
    /// Go ahead; if the circuit is open, as its probe.
    Proceed(Option<Probe>),
    /// Ask again when the probe in progress has ended.
    Wait(ProbeEnd),
    Reject(Rejected),
}

/// See [`super::CircuitBreaker`].
#[derive(Debug)]
pub(super) struct Policy<K> {
    /// "source" or "issuer", and its name in the configuration, for the log.
    kind: &'static str,
    name: Arc<str>,
    jitter: Jitter,
    failures: AgingMap<K, KeyFailures>,
    accepted_keys: AgingMap<K, ()>,
    accepted_origins: AgingMap<Origin, ()>,
    /// Origins for which a key failed that was never accepted.
    failed_origins: AgingMap<Origin, ()>,
    window: Window<Voter<K>>,
    open: Option<OpenCircuit>,
    /// The last time that the circuit was open, and shortly before.
    last_outage: Option<Outage>,
    /// The last time that several known keys failed and nobody got a response. It is too short to
    /// open the circuit.
    last_interruption: Option<Outage>,
    streak: Option<FailureStreak<K>>,
    retries: RetryBudget,
}

impl<K: Clone + Hash + Eq> Policy<K> {
    pub(super) fn new(kind: &'static str, name: Arc<str>, keys: usize, jitter: Jitter) -> Self {
        Self {
            kind,
            name,
            jitter,
            failures: AgingMap::new(FAILURES_SPAN, keys),
            accepted_keys: AgingMap::new(ACCEPTED_SPAN, keys),
            accepted_origins: AgingMap::new(ACCEPTED_SPAN, ORIGINS),
            failed_origins: AgingMap::new(SETBACK_SPAN, ORIGINS),
            window: Window::new(),
            open: None,
            last_outage: None,
            last_interruption: None,
            streak: None,
            retries: RetryBudget::new(),
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// The time for which `key` still backs off.
    pub(super) fn backoff_left(&self, key: &K, now: Duration) -> Option<Duration> {
        let failures = self.failures.get(key)?;
        if !failures.requested && self.failed_in_outage(key, failures) {
            return None;
        }
        let left = failures.backoff_until.checked_sub(now);
        left.filter(|left| !left.is_zero())
    }

    /// Whether `key` failed because the peer was down. Then it need not wait once others are served
    /// again. An interruption is no excuse for keys that were never accepted: there may be any
    /// number of them, and they may fail for reasons of their own. Nor is it one for a key that
    /// failed before: a few that always fail look like an interruption whenever responses are
    /// rare, and would never back off.
    fn failed_in_outage(&self, key: &K, failures: &KeyFailures) -> bool {
        let covers = |outage: Outage, at: Duration| (outage.from..=outage.to).contains(&at);
        let interrupted = |outage| covers(outage, failures.first) && covers(outage, failures.last);
        self.last_outage
            .is_some_and(|outage| covers(outage, failures.last))
            || (self.last_interruption.is_some_and(interrupted) && self.accepted_keys.contains(key))
    }

    /// How much of the capacity the attempt may use.
    pub(super) fn share(&self, attempt: &Attempt<K>) -> Share {
        if self.accepted_keys.contains(&attempt.key) {
            Share::All
        } else if self.accepted_origins.contains(&attempt.origin) {
            Share::KnownOrigin
        } else {
            Share::UnknownOrigin
        }
    }

    /// Fails if [`Self::admit`] would reject the attempt, without starting a probe.
    pub(super) fn check(&mut self, attempt: &Attempt<K>, now: Duration) -> Result<(), Rejected> {
        match self.decide(attempt, now) {
            Admission::Reject(rejected) => Err(rejected),
            Admission::Proceed(_) | Admission::Wait(_) => Ok(()),
        }
    }

    /// Decides about an attempt that is ready to be made.
    pub(super) fn admit(&mut self, attempt: &Attempt<K>, now: Duration) -> Admission {
        let admission = self.decide(attempt, now);
        if let (Admission::Proceed(Some(probe)), Some(open)) = (&admission, &mut self.open) {
            open.probes(probe.known).start();
        }
        admission
    }

    fn decide(&mut self, attempt: &Attempt<K>, now: Duration) -> Admission {
        self.age(now);
        if let Some(left) = self.backoff_left(&attempt.key, now) {
            return Admission::Reject(Rejected::Backoff { left });
        }
        let Some(opened) = self.open.as_ref().map(|open| open.since) else {
            return Admission::Proceed(None);
        };
        let known = self.accepted_keys.contains(&attempt.key);
        let clean = if known {
            !self.failed_before_outage(&attempt.key, opened)
        } else {
            !self.has_setback(attempt)
        };
        let Some(open) = &mut self.open else {
            return Admission::Proceed(None);
        };
        let elsewhere = open.probes(!known).running();
        let probes = open.probes(known);
        if probes.is_due(now, clean) {
            return Admission::Proceed(Some(Probe { opened, known }));
        }
        match probes.running().or(elsewhere) {
            Some(end) if clean => Admission::Wait(end),
            _ => Admission::Reject(Rejected::Open {
                left: probes.time_left(now),
            }),
        }
    }

    /// Whether `key` has failed since long before the circuit was `opened`, so that nothing can be
    /// learnt from its probes. In an outage, all known keys fail, which is no reason to doubt them.
    fn failed_before_outage(&self, key: &K, opened: Duration) -> bool {
        let from = opened.saturating_sub(window::SPAN);
        self.failures.get(key).is_some_and(|f| f.first < from)
    }

    /// Whether this key, or another one of the same origin, failed recently.
    fn has_setback(&self, attempt: &Attempt<K>) -> bool {
        self.failures.contains(&attempt.key) || self.failed_origins.contains(&attempt.origin)
    }

    /// Records the outcome of an attempt that was admitted.
    pub(super) fn record(
        &mut self,
        attempt: &Attempt<K>,
        outcome: Outcome,
        probe: Option<Probe>,
        now: Duration,
    ) {
        self.age(now);
        let voter = if self.accepted_keys.contains(&attempt.key) {
            Voter::Key(attempt.key.clone())
        } else {
            Voter::Origin(attempt.origin)
        };
        if outcome == Outcome::Accepted {
            self.accepted_keys.insert(attempt.key.clone(), (), now);
            self.accepted_origins.insert(attempt.origin, (), now);
        }
        match outcome {
            Outcome::Accepted | Outcome::Responded => {
                self.failures.remove(&attempt.key);
                self.failed_origins.remove(&attempt.origin);
                self.retries.deposit();
                self.end_streak(now);
                self.close(now);
                self.window.record(voter, true, now);
            }
            Outcome::Failed { retry_after } => {
                self.record_failure(attempt, retry_after, now);
                if let Voter::Key(key) = &voter {
                    self.continue_streak(key, now);
                }
                self.window.record(voter, false, now);
                self.end_probe(probe, retry_after, now);
                self.open_if_broken(now);
            }
        }
    }

    fn record_failure(
        &mut self,
        attempt: &Attempt<K>,
        retry_after: Option<Duration>,
        now: Duration,
    ) {
        let before = self.failures.get(&attempt.key);
        let count = before.map_or(0, |f| f.count).saturating_add(1);
        let first = before.map_or(now, |f| f.first);
        let wait = backoff::after_failures(count, retry_after, self.jitter);
        let failures = KeyFailures {
            count,
            first,
            last: now,
            backoff_until: now.saturating_add(wait),
            requested: retry_after.is_some(),
        };
        self.failures.insert(attempt.key.clone(), failures, now);
        if !self.accepted_keys.contains(&attempt.key) {
            self.failed_origins.insert(attempt.origin, (), now);
        }
    }

    fn continue_streak(&mut self, key: &K, now: Duration) {
        let streak = self.streak.get_or_insert_with(|| FailureStreak {
            since: now,
            keys: Vec::new(),
        });
        if streak.keys.len() < OUTAGE_KEYS && !streak.keys.contains(key) {
            streak.keys.push(key.clone());
        }
    }

    fn end_streak(&mut self, now: Duration) {
        if let Some(streak) = self.streak.take()
            && streak.keys.len() == OUTAGE_KEYS
        {
            self.last_interruption = Some(Outage {
                from: streak.since,
                to: now,
            });
        }
    }

    /// Ends a probe without a response.
    pub(super) fn end_probe(
        &mut self,
        probe: Option<Probe>,
        retry_after: Option<Duration>,
        now: Duration,
    ) {
        if let (Some(probe), Some(open)) = (probe, &mut self.open)
            && open.since == probe.opened
        {
            open.probes(probe.known).fail(retry_after, now);
        }
    }

    /// The delay before an attempt is repeated, after `failed` attempts of the same call;
    /// `None` if it is not to be repeated. A caller with a setback on record gets no retries, so
    /// that it cannot spend those of others.
    pub(super) fn retry_delay(&mut self, attempt: &Attempt<K>, failed: u32) -> Option<Duration> {
        let allowed = failed <= RETRIES
            && self.open.is_none()
            && !self.failures.contains(&attempt.key)
            && (self.accepted_keys.contains(&attempt.key)
                || !self.failed_origins.contains(&attempt.origin))
            && self.retries.withdraw();
        allowed.then(|| backoff::before_retry(failed.saturating_sub(1), self.jitter))
    }

    fn open_if_broken(&mut self, now: Duration) {
        if self.open.is_some() || !self.window.is_broken(now) {
            return;
        }
        self.open = Some(OpenCircuit {
            since: now,
            known: Probes::starting(now),
            unknown: Probes::starting(now),
        });
        let Votes { failed, responded } = self.window.votes();
        tracing::warn!(
            kind = self.kind,
            name = &*self.name,
            failed,
            responded,
            "circuit open: calls fail for nearly all callers; only probes are sent"
        );
    }

    /// Any response shows that the peer is there.
    fn close(&mut self, now: Duration) {
        let Some(open) = self.open.take() else { return };
        self.last_outage = Some(Outage {
            from: open.since.saturating_sub(window::SPAN),
            to: now,
        });
        self.window.clear();
        tracing::info!(
            kind = self.kind,
            name = &*self.name,
            seconds = now.saturating_sub(open.since).as_secs(),
            "circuit closed: the peer responds again"
        );
    }

    fn age(&mut self, now: Duration) {
        self.failures.age(now);
        self.accepted_keys.age(now);
        self.accepted_origins.age(now);
        self.failed_origins.age(now);
    }
}

impl OpenCircuit {
    fn probes(&mut self, known: bool) -> &mut Probes {
        if known {
            &mut self.known
        } else {
            &mut self.unknown
        }
    }
}
