//! The stateful components of a configuration: issuers with their keys, sources with their caches,
//! upstreams with their addresses. A reload keeps those whose settings are unchanged.

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;

use super::StartError;
use super::local_sources::Updatable;
use super::shared_store::{Recipients, Shared, UsedStore};
use crate::bounded_cache::CacheBounds;
use crate::clock::SharedClock;
use crate::config;
use crate::credential::{CacheLimits, CachedSource};
use crate::gateway::rate_limit::Rate;
use crate::gateway::rate_limit::RateLimiter;
use crate::gateway::route::Upstream;
use crate::gateway::session::Session;
use crate::network::{Network, OutgoingProxy};
use crate::reload::Fingerprints;
use crate::session::Sessions;
use crate::token::{Issuer, WorkloadToken};

/// Everything that the shared store is built from, except files: also the additional CAs.
pub(super) type SharedBasis = (config::Shared, Option<PathBuf>);
/// Everything that an issuer is built from, except files; the number is the size of its cache.
pub(super) type IssuerBasis = (config::Issuer, CacheBounds, Network);
/// Everything that a source is built from, except files.
pub(super) type SourceBasis = (config::Source, CacheLimits, Network, UsedStore);

/// Everything that an upstream is built from, except files: also the proxy through which it is reached,
/// and the additional CAs.
pub(super) type UpstreamBasis = (config::Upstream, Option<OutgoingProxy>, Option<PathBuf>);

/// Everything that a session is built from, except files: also its issuer, which verifies its tokens.
pub(super) type SessionBasis = (
    config::Session,
    Option<config::Issuer>,
    CacheBounds,
    Network,
    UsedStore,
);

/// Everything that a rate limit is built from: its route, if any, and the rate.
pub(super) type RateBasis = (Option<Arc<str>>, Rate, UsedStore);

/// A component, together with everything that it was built from.
pub(super) struct Component<B, T> {
    basis: B,
    files: Fingerprints,
    value: Arc<T>,
    /// Whether it was built for this configuration rather than kept from the previous one.
    new: bool,
}

impl<B, T> Component<B, T> {
    pub(super) fn value(&self) -> &Arc<T> {
        &self.value
    }
}

/// Every component of one configuration.
#[derive(Default)]
pub(super) struct Components {
    /// The store that is shared with other replicas, if there is one.
    pub(super) shared: Option<Component<SharedBasis, Shared>>,
    pub(super) issuers: Vec<Component<IssuerBasis, Issuer>>,
    pub(super) sources: Vec<Component<SourceBasis, CachedSource>>,
    /// The sources whose credentials may be replaced at run time.
    pub(super) updatable: Vec<Updatable>,
    pub(super) upstreams: Vec<Component<UpstreamBasis, Upstream>>,
    pub(super) workload_tokens: Vec<Arc<WorkloadToken>>,
    pub(super) sessions: Vec<Component<SessionBasis, Sessions>>,
    /// The limit on sign-ins of one address, if there are sessions.
    pub(super) sign_ins: Option<Component<UsedStore, RateLimiter>>,
    /// By route name; the limit that all routes share has no name.
    pub(super) rates: Vec<Component<RateBasis, RateLimiter>>,
}

/// Reuses the component of `previous` with the same basis and files, or builds a new one.
pub(super) fn reuse_or_build<B: PartialEq, T>(
    previous: &[Component<B, T>],
    basis: B,
    files: Fingerprints,
    build: impl FnOnce() -> Result<T, StartError>,
) -> Result<Component<B, T>, StartError> {
    let kept = previous
        .iter()
        .find(|component| component.basis == basis && component.files == files)
        .map(|component| Arc::clone(&component.value));
    Ok(Component {
        new: kept.is_none(),
        value: match kept {
            Some(kept) => kept,
            None => Arc::new(build()?),
        },
        basis,
        files,
    })
}

/// The limiter, counting together with those of the other replicas if there is a store.
fn shared_limiter(
    limiter: RateLimiter,
    store: &UsedStore,
    name: &str,
) -> Result<RateLimiter, StartError> {
    match store.fleet() {
        Some(fleet) => limiter
            .sharing(fleet, name)
            .map_err(|e| StartError::unusable("rate limit", name, &e)),
        None => Ok(limiter),
    }
}

/// The token in `own` or `previous` that reads the same file as `token`, else `token` itself.
pub(super) fn share(
    own: &mut Vec<Arc<WorkloadToken>>,
    previous: &[Arc<WorkloadToken>],
    token: Arc<WorkloadToken>,
) -> Arc<WorkloadToken> {
    let same = |other: &&Arc<WorkloadToken>| other.file() == token.file();
    if let Some(own) = own.iter().find(same) {
        return Arc::clone(own);
    }
    let shared = previous.iter().find(same).cloned().unwrap_or(token);
    own.push(Arc::clone(&shared));
    shared
}

impl Components {
    pub(super) fn issuers(&self) -> impl Iterator<Item = &Arc<Issuer>> {
        self.issuers.iter().map(|component| &component.value)
    }

    pub(super) fn sources(&self) -> impl Iterator<Item = &Arc<CachedSource>> {
        self.sources.iter().map(|component| &component.value)
    }

    pub(super) fn upstreams(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.upstreams.iter().map(|component| &component.value)
    }

    fn sessions(&self) -> impl Iterator<Item = &Arc<Sessions>> {
        self.sessions.iter().map(|component| &component.value)
    }

    /// The shared store.
    pub(super) fn shared(&self) -> Option<&Arc<Shared>> {
        self.shared.as_ref().map(|component| &component.value)
    }

    /// The shared store, if it was built for this configuration.
    pub(super) fn new_shared(&self) -> Option<&Arc<Shared>> {
        let new = self.shared.as_ref().filter(|component| component.new);
        new.map(|component| &component.value)
    }

    /// Passes the events of the shared store on to these components from now on.
    pub(super) fn pass_on_events(&self) {
        if let Some(shared) = self.shared() {
            shared.pass_on_to(Recipients {
                sources: self.sources().cloned().collect(),
                sessions: self.sessions().cloned().collect(),
            });
        }
    }

    /// The shared store, for those that use it.
    pub(super) fn used_store(&self) -> UsedStore {
        UsedStore(self.shared().cloned())
    }

    /// The session called `name`.
    pub(super) fn session(&self, name: &str) -> Option<&Sessions> {
        let mut all = self.sessions.iter().map(|component| &*component.value);
        all.find(|sessions| *sessions.name == *name)
    }

    pub(super) fn new_issuers(&self) -> impl Iterator<Item = &Arc<Issuer>> {
        let new = self.issuers.iter().filter(|component| component.new);
        new.map(|component| &component.value)
    }

    pub(super) fn new_upstreams(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        let new = self.upstreams.iter().filter(|component| component.new);
        new.map(|component| &component.value)
    }

    /// The components built for this configuration, for the log.
    pub(super) fn built(&self) -> Vec<String> {
        let issuers = self.new_issuers().map(|i| format!("issuer {}", i.name()));
        let sources = self.sources.iter().filter(|component| component.new);
        let sources = sources.map(|component| format!("source {}", component.value.name()));
        let upstreams = self.new_upstreams().map(|u| {
            let authority = u.authority.to_str().unwrap_or_default();
            format!("upstream {authority}")
        });
        let sessions = self.sessions.iter().filter(|component| component.new);
        let sessions = sessions.map(|component| format!("session {}", component.value.name));
        let shared = self.new_shared().map(|_| "the shared store".to_owned());
        let shared = shared.into_iter();
        shared
            .chain(issuers)
            .chain(sources)
            .chain(sessions)
            .chain(upstreams)
            .collect()
    }

    /// The upstream for `settings`. Routes with the same upstream share it.
    pub(super) fn upstream(
        &mut self,
        basis: UpstreamBasis,
        files: Fingerprints,
        previous: &Self,
        build: impl FnOnce(&UpstreamBasis) -> Result<Upstream, StartError>,
    ) -> Result<Arc<Upstream>, StartError> {
        if let Some(component) = self
            .upstreams
            .iter()
            .find(|component| component.basis == basis)
        {
            return Ok(Arc::clone(&component.value));
        }
        let settings = basis.clone();
        let component = reuse_or_build(&previous.upstreams, basis, files, || build(&settings))?;
        let upstream = Arc::clone(&component.value);
        self.upstreams.push(component);
        Ok(upstream)
    }

    /// The rate limit of `route`, or of all routes together. A limit that is kept
    /// retains its buckets, so that a reload does not refill an allowance that is used up.
    pub(super) fn rate(
        &mut self,
        route: Option<&Arc<str>>,
        rate: Rate,
        previous: &Self,
        clock: &SharedClock,
    ) -> Result<Arc<RateLimiter>, StartError> {
        let store = self.used_store();
        let basis = (route.cloned(), rate, store.clone());
        let component = reuse_or_build(&previous.rates, basis, Fingerprints::default(), || {
            let name = route.map_or("limits.rate".to_owned(), |route| format!("route {route}"));
            let limiter = RateLimiter::new(&rate, clock.clone());
            shared_limiter(limiter, &store, &name)
        })?;
        let limit = Arc::clone(&component.value);
        self.rates.push(component);
        Ok(limit)
    }

    /// The limit on sign-ins of all sessions, which is kept like [`Self::rate`].
    pub(super) fn sign_in_limit(
        &mut self,
        previous: &Self,
        clock: &SharedClock,
    ) -> Result<Arc<RateLimiter>, StartError> {
        let store = self.used_store();
        let kept = previous.sign_ins.as_slice();
        let component = reuse_or_build(kept, store.clone(), Fingerprints::default(), || {
            shared_limiter(Session::sign_in_limit(clock.clone()), &store, "sign-ins")
        })?;
        Ok(Arc::clone(&self.sign_ins.insert(component).value))
    }

    /// Carries over credentials that were replaced at run time, for the sources that were kept.
    pub(super) fn carry_over_updates(&mut self, previous: &Self) {
        for (name, updatable) in &mut self.updatable {
            let kept = self
                .sources
                .iter()
                .any(|p| !p.new && p.value.name() == name);
            let before = previous.updatable.iter().find(|(other, _)| other == name);
            if let Some((_, before)) = before.filter(|_| kept) {
                *updatable = Arc::clone(before);
            }
        }
    }
}
