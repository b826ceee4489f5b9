//! The children of the families, resolved ahead for every configured name, so that
//! recording a request takes no lock and builds no label. A name that is not configured
//! has no children of its own: it counts under [`UNKNOWN`], which bounds cardinality.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use prometheus::{Histogram, IntCounter};

use super::exemplar::Exemplars;
use super::families::Families;
use super::family::Counters;
use crate::credential::Lookup;
use crate::gateway::outcome::{Ending, UnauthorizedAction, UnauthorizedReason as Why};
use crate::gateway::reason::Reason;
use crate::label::Label;

/// Label value for what has no configured name: a request that matched no route, a token
/// of no known issuer.
pub(super) const UNKNOWN: &str = "-";

/// Names from the configuration: the only ones that become labels.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// `[[route]]`
    pub routes: Vec<Arc<str>>,
    /// `[[issuer]]`
    pub issuers: Vec<Arc<str>>,
    /// `[[source]]`
    pub sources: Vec<Arc<str>>,
}

/// Everything resolved for one configuration.
pub(super) struct Series {
    routes: ByName<RouteSeries>,
    issuers: ByName<Verifications>,
    sources: ByName<Vec<IntCounter>>,
    rejections: Vec<IntCounter>,
}

struct ByName<T> {
    known: HashMap<Arc<str>, T>,
    unknown: T,
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
    pub(super) fn new(names: &Names, families: &Families) -> Self {
        Self {
            routes: ByName::new(&names.routes, |n| RouteSeries::new(n, families)),
            issuers: ByName::new(&names.issuers, |n| Verifications::new(n, families)),
            sources: ByName::new(&names.sources, |source| {
                children(Lookup::ALL, |label| families.lookups.child([source, label]))
            }),
            rejections: children(Reason::ALL, |label| families.rejections.child([label])),
        }
    }

    pub(super) fn route(&self, name: Option<&Arc<str>>) -> &RouteSeries {
        self.routes.get(name)
    }

    /// By the value of its label.
    pub(super) fn named_route(&self, name: &str) -> &RouteSeries {
        self.routes.known.get(name).unwrap_or(&self.routes.unknown)
    }

    pub(super) fn verification(&self, issuer: Option<&Arc<str>>, result: &str) -> &IntCounter {
        self.issuers.get(issuer).get(result)
    }

    pub(super) fn lookup(&self, source: Option<&Arc<str>>, result: Lookup) -> Option<&IntCounter> {
        self.sources.get(source).get(result as usize)
    }

    pub(super) fn rejection(&self, reason: Reason) -> Option<&IntCounter> {
        self.rejections.get(reason as usize)
    }
}

/// One child per member of a closed set, in the set's order.
pub(super) fn children<L: Label, T>(all: &[L], child: impl Fn(&'static str) -> T) -> Vec<T> {
    all.iter().map(|member| child(member.label())).collect()
}

/// What is counted per route.
pub(super) struct RouteSeries {
    requests: Requests,
    pub(super) duration: Histogram,
    pub(super) upstream: Histogram,
    /// Of `duration`.
    pub(super) exemplars: Exemplars,
    unauthorized: Vec<Vec<OnceLock<IntCounter>>>,
    name: String,
}

/// What can happen to a 401, exported at 0 from the start.
const USUAL: &[(UnauthorizedAction, Why)] = &[
    (UnauthorizedAction::Replayed, Why::FreshCredentials),
    (UnauthorizedAction::Replayed, Why::ClockSkew),
    (UnauthorizedAction::PassedThrough, Why::StillUnauthorized),
    (UnauthorizedAction::PassedThrough, Why::BodyTooLarge),
    (UnauthorizedAction::PassedThrough, Why::ReplayMemory),
    (UnauthorizedAction::PassedThrough, Why::ExchangeFailed),
    (UnauthorizedAction::PassedThrough, Why::NotSigned),
    (UnauthorizedAction::PassedThrough, Why::NotReplayable),
];

impl RouteSeries {
    fn new(name: &str, families: &Families) -> Self {
        let grid = |_: &UnauthorizedAction| Why::ALL.iter().map(|_| OnceLock::new()).collect();
        let series = Self {
            requests: Requests::new(),
            duration: families.request_duration.child([name]),
            upstream: families.upstream_duration.child([name]),
            exemplars: Exemplars::new(),
            unauthorized: UnauthorizedAction::ALL.iter().map(grid).collect(),
            name: name.to_owned(),
        };
        for (action, reason) in USUAL {
            series.unauthorized(&families.unauthorized, *action, *reason);
        }
        for (ending, code) in [(Ending::Forwarded, 200), (Ending::Healed, 200)] {
            series.requests(&families.requests, ending, code);
        }
        series
    }

    pub(super) fn requests(
        &self,
        family: &Counters<3>,
        ending: Ending,
        code: u16,
    ) -> Option<&IntCounter> {
        self.requests.get(ending, code, |code| {
            family.child([&self.name, code, ending.label()])
        })
    }

    pub(super) fn unauthorized(
        &self,
        family: &Counters<3>,
        action: UnauthorizedAction,
        reason: Why,
    ) -> Option<&IntCounter> {
        let cell = self.unauthorized.get(action as usize)?;
        let cell = cell.get(reason as usize)?;
        Some(cell.get_or_init(|| family.child([&self.name, action.label(), reason.label()])))
    }
}

const CLASSES: usize = 6;
type Century = Vec<OnceLock<IntCounter>>;

/// A counter for each ending and status, resolved when first met: there are 2,505 of
/// them, of which a route sees a few. Read without a lock.
struct Requests {
    cells: Vec<OnceLock<Century>>,
}

impl Requests {
    fn new() -> Self {
        let cells = (0..Ending::ALL.len() * CLASSES).map(|_| OnceLock::new());
        Self {
            cells: cells.collect(),
        }
    }

    /// `code` outside 100–599 counts as 0: no status was sent.
    fn get(
        &self,
        ending: Ending,
        code: u16,
        resolve: impl Fn(&str) -> IntCounter,
    ) -> Option<&IntCounter> {
        let code = if (100..600).contains(&code) { code } else { 0 };
        let class = usize::from(code / 100);
        let century = self
            .cells
            .get(ending as usize * CLASSES + class)?
            .get_or_init(|| (0..100).map(|_| OnceLock::new()).collect());
        let cell = century.get(usize::from(code % 100))?;
        Some(cell.get_or_init(|| resolve(&code.to_string())))
    }
}

/// Results of verification: `ok`, `cached`, and every reason that a token can give.
struct Verifications {
    results: Vec<(&'static str, IntCounter)>,
    other: IntCounter,
}

impl Verifications {
    fn new(issuer: &str, families: &Families) -> Self {
        let child = |result| families.verifications.child([issuer, result]);
        let reasons = Reason::ALL.iter().map(|r| r.label());
        let others = [Reason::KeysUnavailable, Reason::Internal].map(Label::label);
        let about_tokens = reasons.filter(|r| r.starts_with("token_") || others.contains(r));
        Self {
            // The frequent ones first: the list is searched in order.
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
