//! The children of the families, resolved in advance for every configured name, so that recording a
//! request takes no lock and formats no label. Other names are counted under [`UNKNOWN`], which
//! bounds cardinality.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, OnceLock};

use prometheus::{Histogram, IntCounter};

use super::exemplar::Exemplars;
use super::families::Families;
use super::label_values::{LabelValues, UNKNOWN, children};
use super::metric_vec::CounterVec;
use crate::credential::Lookup;
use crate::gateway::outcome::{
    Ending, ForwardAuthRecord, ForwardAuthResult, SessionEvent, SessionRecord, SignInResult,
    UnauthorizedAction, UnauthorizedReason,
};
use crate::gateway::reason::Reason;
use crate::gateway::upstream_retry::{RetryCounts, RetryReason};
use crate::label::Label;

/// The children for one configuration.
pub(super) struct Series {
    routes: ByName<RouteSeries>,
    issuers: ByName<Verifications>,
    sources: ByName<Vec<IntCounter>>,
    sessions: ByName<SessionSeries>,
    forward_auth: ByName<Vec<IntCounter>>,
    rejections: Vec<IntCounter>,
}

/// The children with one value of the `session` label.
struct SessionSeries {
    sign_ins: Vec<IntCounter>,
}

impl SessionSeries {
    fn new(session: &str, families: &Families) -> Self {
        Self {
            sign_ins: children(SignInResult::ALL, |result| {
                families.sign_ins.child([session, result])
            }),
        }
    }
}

struct ByName<T> {
    known: HashMap<Arc<str>, T, BuildHasherDefault<NameHasher>>,
    unknown: T,
}

/// FNV-1a. The names come from the configuration, so no caller can choose colliding ones, and for such
/// short texts it costs a fifth of the standard library's hash.
struct NameHasher(u64);

impl Default for NameHasher {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for NameHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl<T> ByName<T> {
    fn new(names: &[Arc<str>], make: impl Fn(&str) -> T) -> Self {
        Self {
            known: names.iter().map(|n| (n.clone(), make(n))).collect(),
            unknown: make(UNKNOWN),
        }
    }

    fn get(&self, name: Option<&Arc<str>>) -> &T {
        name.and_then(|n| self.known.get(n))
            .unwrap_or(&self.unknown)
    }
}

impl Series {
    pub(super) fn new(names: &LabelValues, families: &Families) -> Self {
        Self {
            routes: ByName::new(&names.routes, |n| RouteSeries::new(n, families)),
            issuers: ByName::new(&names.issuers, |n| Verifications::new(n, families)),
            sources: ByName::new(&names.sources, |source| {
                children(Lookup::ALL, |label| families.lookups.child([source, label]))
            }),
            sessions: ByName::new(&names.sessions, |n| SessionSeries::new(n, families)),
            forward_auth: ByName::new(&names.forward_auth, |name| {
                children(ForwardAuthResult::ALL, |result| {
                    families.forward_auth.child([name, result])
                })
            }),
            rejections: children(Reason::ALL, |label| families.rejections.child([label])),
        }
    }

    pub(super) fn route(&self, name: Option<&Arc<str>>) -> &RouteSeries {
        self.routes.get(name)
    }

    /// The route whose `route` label has this value.
    pub(super) fn route_by_label(&self, name: &str) -> &RouteSeries {
        self.routes.known.get(name).unwrap_or(&self.routes.unknown)
    }

    pub(super) fn verification(&self, issuer: Option<&Arc<str>>, result: &str) -> &IntCounter {
        self.issuers.get(issuer).get(result)
    }

    pub(super) fn lookup(&self, source: Option<&Arc<str>>, result: Lookup) -> Option<&IntCounter> {
        self.sources.get(source).get(result as usize)
    }

    /// The counter of forward-auth requests with this result.
    pub(super) fn forward_auth(&self, record: &ForwardAuthRecord) -> Option<&IntCounter> {
        let counters = self.forward_auth.get(Some(&record.name));
        counters.get(record.result as usize)
    }

    /// The counter of what happened to a session, if it is counted.
    pub(super) fn session(&self, record: &SessionRecord) -> Option<&IntCounter> {
        let series = self.sessions.get(Some(&record.name));
        match record.event? {
            SessionEvent::SignIn(result) => series.sign_ins.get(result as usize),
            // Counted when it takes place: many requests may share one.
            SessionEvent::Refresh(_)
            | SessionEvent::SignOut
            | SessionEvent::BackChannelLogout { .. } => None,
        }
    }

    pub(super) fn rejection(&self, reason: Reason) -> Option<&IntCounter> {
        self.rejections.get(reason as usize)
    }
}

/// The children with one value of the `route` label.
pub(super) struct RouteSeries {
    requests: Requests,
    pub(super) duration: Histogram,
    pub(super) upstream: Histogram,
    /// Exemplars of `duration`.
    pub(super) exemplars: Exemplars,
    unauthorized: Vec<Vec<OnceLock<IntCounter>>>,
    /// One for each [`RetryReason`].
    retries: Vec<IntCounter>,
    name: String,
}

/// Status codes that upstreams send often.
const FORWARDED: &[u16] = &[
    200, 201, 204, 206, 302, 303, 304, 400, 401, 403, 404, 409, 429, 500, 502, 503, 504,
];

/// The codes with which requests usually end in this way. These series are exported at 0 from the
/// start: the first increment of a series that appears at 1 is invisible to `rate()` and `increase()`.
fn usual_codes(ending: Ending) -> BTreeSet<u16> {
    let upstream = [
        Reason::UpstreamUnreachable,
        Reason::UpstreamTimeout,
        Reason::UpstreamFailed,
    ];
    let status = |reason: &Reason| reason.status().as_u16();
    match ending {
        Ending::Forwarded => FORWARDED.iter().copied().collect(),
        Ending::Healed => [200, 201, 204, 303].into(),
        Ending::Served => [200].into(),
        Ending::Preflight => [204].into(),
        Ending::Rejected => {
            let refusals = Reason::ALL.iter().filter(|r| !upstream.contains(r));
            refusals.map(status).collect()
        }
        // The answer of an upstream that fails later has been sent.
        Ending::UpstreamFailed => upstream.iter().map(status).chain([200]).collect(),
        Ending::CallerGone => [0, 200].into(),
        Ending::UpgradeExpired => [101].into(),
    }
}

/// Whether hawkgate ever takes this action for this reason. Such series, too, are exported at 0 from
/// the start.
fn can_occur(action: UnauthorizedAction, reason: UnauthorizedReason) -> bool {
    use UnauthorizedReason::{ClockSkew, ExchangeFailed, FreshCredentials, StillUnauthorized};
    let replayed = matches!(reason, FreshCredentials | ClockSkew);
    match action {
        UnauthorizedAction::Replayed => replayed,
        UnauthorizedAction::PassedThrough => !replayed,
        UnauthorizedAction::Refused => matches!(reason, ExchangeFailed | StillUnauthorized),
    }
}

impl RouteSeries {
    fn new(name: &str, families: &Families) -> Self {
        let grid = |_: &UnauthorizedAction| {
            UnauthorizedReason::ALL
                .iter()
                .map(|_| OnceLock::new())
                .collect()
        };
        let series = Self {
            requests: Requests::new(),
            duration: families.request_duration.child([name]),
            upstream: families.upstream_duration.child([name]),
            exemplars: Exemplars::new(),
            unauthorized: UnauthorizedAction::ALL.iter().map(grid).collect(),
            retries: children(RetryReason::ALL, |reason| {
                families.upstream_retries.child([name, reason])
            }),
            name: name.to_owned(),
        };
        for action in UnauthorizedAction::ALL.iter().copied() {
            let all = UnauthorizedReason::ALL.iter().copied();
            for reason in all.filter(|reason| can_occur(action, *reason)) {
                series.unauthorized(&families.unauthorized, action, reason);
            }
        }
        for ending in Ending::ALL.iter().copied() {
            for code in usual_codes(ending) {
                // Not through `Self::requests`, which would keep a hundred cells for each class.
                let code = code.to_string();
                families.requests.child([name, &code, ending.label()]);
            }
        }
        series
    }

    pub(super) fn requests(
        &self,
        family: &CounterVec<3>,
        ending: Ending,
        code: u16,
    ) -> Option<&IntCounter> {
        self.requests.get(ending, code, |code| {
            family.child([&self.name, code, ending.label()])
        })
    }

    /// Counts the retries of a request.
    pub(super) fn count_retries(&self, counts: RetryCounts) {
        for ((_, count), counter) in counts.iter().zip(&self.retries) {
            counter.inc_by(u64::from(count));
        }
    }

    pub(super) fn unauthorized(
        &self,
        family: &CounterVec<3>,
        action: UnauthorizedAction,
        reason: UnauthorizedReason,
    ) -> Option<&IntCounter> {
        let cell = self.unauthorized.get(action as usize)?;
        let cell = cell.get(reason as usize)?;
        Some(cell.get_or_init(|| family.child([&self.name, action.label(), reason.label()])))
    }
}

/// Status classes 1xx to 5xx, and 0 for "no status".
const CLASSES: usize = 6;
/// The 100 codes of a class.
type CodeClass = Vec<OnceLock<IntCounter>>;

/// One counter per outcome and status code, created on first use, because a route sees only a few
/// of about 3,000 possible combinations. Reading takes no lock.
struct Requests {
    cells: Vec<OnceLock<CodeClass>>,
}

impl Requests {
    fn new() -> Self {
        let cells = (0..Ending::ALL.len() * CLASSES).map(|_| OnceLock::new());
        Self {
            cells: cells.collect(),
        }
    }

    /// Returns the counter, or creates it with `resolve`. A `code` outside 100–599 counts as 0, "no
    /// status".
    fn get(
        &self,
        ending: Ending,
        code: u16,
        resolve: impl Fn(&str) -> IntCounter,
    ) -> Option<&IntCounter> {
        let code = if (100..600).contains(&code) { code } else { 0 };
        let class = usize::from(code / 100);
        let codes = self
            .cells
            .get(ending as usize * CLASSES + class)?
            .get_or_init(|| (0..100).map(|_| OnceLock::new()).collect());
        let cell = codes.get(usize::from(code % 100))?;
        Some(cell.get_or_init(|| resolve(&code.to_string())))
    }
}

/// One counter per verification result: `ok`, `cached`, every reason that concerns tokens, and
/// `other`.
struct Verifications {
    results: Vec<(&'static str, IntCounter)>,
    other: IntCounter,
}

impl Verifications {
    fn new(issuer: &str, families: &Families) -> Self {
        let child = |result| families.verifications.child([issuer, result]);
        let reasons = Reason::ALL.iter().map(|r| r.label());
        let others = [
            Reason::KeysUnavailable,
            Reason::ClientRefused,
            Reason::ClockNotSet,
            Reason::Internal,
        ]
        .map(Label::label);
        let about_tokens = reasons.filter(|r| r.starts_with("token_") || others.contains(r));
        Self {
            // The most frequent first: the list is searched in order.
            results: ["cached", "ok"]
                .into_iter()
                .chain(about_tokens)
                .map(|result| (result, child(result)))
                .collect(),
            other: child("other"),
        }
    }

    fn get(&self, result: &str) -> &IntCounter {
        self.results
            .iter()
            .find(|(known, _)| *known == result)
            .map_or(&self.other, |(_, counter)| counter)
    }
}
