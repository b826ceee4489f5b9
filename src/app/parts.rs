//! The parts of a configuration that have a life of their own: keys, caches, addresses. A
//! reload keeps those that would come out the same.

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use super::StartError;
use super::local::Updatable;
use crate::clock::SharedClock;
use crate::config;
use crate::credential::{CacheLimits, Source};
use crate::gateway::rate_limit::Rate;
use crate::gateway::rate_limit::RateLimiter;
use crate::gateway::route::Upstream;
use crate::reload::Stamps;
use crate::token::{Issuer, WorkloadToken};

/// All that an issuer is made of, besides files: the rest is how many tokens it remembers.
pub(super) type IssuerBasis = (config::Issuer, u64);
/// All that a source is made of, besides files.
pub(super) type SourceBasis = (config::Source, CacheLimits);

/// All that a rate limit is made of: whose, and how much.
pub(super) type RateBasis = (Option<Arc<str>>, Rate);

/// A part, with all that it was made of.
pub(super) struct Part<B, T> {
    basis: B,
    files: Stamps,
    made: Arc<T>,
    /// Made for this configuration, and not kept from the one before.
    new: bool,
}

/// Every part of one configuration.
#[derive(Default)]
pub(super) struct Parts {
    pub(super) issuers: Vec<Part<IssuerBasis, Issuer>>,
    pub(super) sources: Vec<Part<SourceBasis, Source>>,
    /// Those of kind `taskcluster-static` whose credentials may be replaced, by name.
    pub(super) updatable: Vec<Updatable>,
    pub(super) upstreams: Vec<Part<config::Upstream, Upstream>>,
    pub(super) workload_tokens: Vec<Arc<WorkloadToken>>,
    /// By the route's name; the one of all routes together has none.
    pub(super) rates: Vec<Part<RateBasis, RateLimiter>>,
}

/// The part of `previous` that was made of the same, else a new one.
pub(super) fn keep_or_make<B: PartialEq, T>(
    previous: &[Part<B, T>],
    basis: B,
    files: Stamps,
    make: impl FnOnce() -> Result<T, StartError>,
) -> Result<Part<B, T>, StartError> {
    let kept = previous
        .iter()
        .find(|part| part.basis == basis && part.files == files)
        .map(|part| Arc::clone(&part.made));
    Ok(Part {
        new: kept.is_none(),
        made: match kept {
            Some(kept) => kept,
            None => Arc::new(make()?),
        },
        basis,
        files,
    })
}

/// The one of `own` or `previous` that reads the same file as `token`, else that.
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

impl Parts {
    pub(super) fn issuers(&self) -> impl Iterator<Item = &Arc<Issuer>> {
        self.issuers.iter().map(|part| &part.made)
    }

    pub(super) fn sources(&self) -> impl Iterator<Item = &Arc<Source>> {
        self.sources.iter().map(|part| &part.made)
    }

    pub(super) fn upstreams(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.upstreams.iter().map(|part| &part.made)
    }

    pub(super) fn new_issuers(&self) -> impl Iterator<Item = &Arc<Issuer>> {
        let new = self.issuers.iter().filter(|part| part.new);
        new.map(|part| &part.made)
    }

    pub(super) fn new_upstreams(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        let new = self.upstreams.iter().filter(|part| part.new);
        new.map(|part| &part.made)
    }

    /// What was made for this configuration, for the log.
    pub(super) fn made(&self) -> Vec<String> {
        let issuers = self.new_issuers().map(|i| format!("issuer {}", i.name()));
        let sources = self.sources.iter().filter(|part| part.new);
        let sources = sources.map(|part| format!("source {}", part.made.name()));
        let upstreams = self.new_upstreams().map(|u| {
            let authority = u.authority.to_str().unwrap_or_default();
            format!("upstream {authority}")
        });
        issuers.chain(sources).chain(upstreams).collect()
    }

    /// The upstream that is `written`, which several routes may share.
    pub(super) fn upstream(
        &mut self,
        written: &config::Upstream,
        stamps: &Stamps,
        previous: &Self,
        make: impl FnOnce(&config::Upstream) -> Result<Upstream, StartError>,
    ) -> Result<Arc<Upstream>, StartError> {
        if let Some(part) = self.upstreams.iter().find(|part| part.basis == *written) {
            return Ok(Arc::clone(&part.made));
        }
        let files = stamps.only(written.ca.as_deref().into_iter().map(Path::new));
        let part = keep_or_make(&previous.upstreams, written.clone(), files, || {
            make(written)
        })?;
        let upstream = Arc::clone(&part.made);
        self.upstreams.push(part);
        Ok(upstream)
    }

    /// The limit of `route`, or of all together. A kept one goes on with its buckets: who has
    /// used up what it may does not get it anew by a reload.
    pub(super) fn rate(
        &mut self,
        route: Option<&Arc<str>>,
        rate: Rate,
        previous: &Self,
        clock: &SharedClock,
    ) -> Result<Arc<RateLimiter>, StartError> {
        let basis = (route.cloned(), rate);
        let part = keep_or_make(&previous.rates, basis, Stamps::default(), || {
            Ok(RateLimiter::new(&rate, clock.clone()))
        })?;
        let limit = Arc::clone(&part.made);
        self.rates.push(part);
        Ok(limit)
    }

    /// Sources that were kept go on with the credentials that were put.
    pub(super) fn keep_updated(&mut self, previous: &Self) {
        for (name, fixed) in &mut self.updatable {
            let kept = self.sources.iter().any(|p| !p.new && p.made.name() == name);
            let before = previous.updatable.iter().find(|(other, _)| other == name);
            if let Some((_, before)) = before.filter(|_| kept) {
                *fixed = Arc::clone(before);
            }
        }
    }
}
