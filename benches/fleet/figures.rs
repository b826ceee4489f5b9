//! What is measured.

mod caches;
mod faults;
mod hit;
mod rate;
mod simulated;

use crate::lab::Lab;
use crate::options::Options;
use crate::report::Report;

/// A measurement.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Figure {
    /// Exchanges if everybody sends requests to every process.
    Exchanges,
    /// The same in a simulation of many replicas, and one.
    Simulated,
    /// All processes are restarted in turn, under load.
    Restart,
    /// Everything is revoked at once, under load.
    Revoked,
    /// The time from a 401 at one process until another has dropped the credentials.
    Invalidation,
    /// The CPU time of a hit with and without the store.
    Hit,
    /// One client's limit over all processes.
    Rate,
    /// The store is killed, under load.
    Killed,
    /// The store is stopped (SIGSTOP), under load.
    Paused,
    /// The store takes no writes, because it is full, under load.
    Filled,
    /// The store fails over to its replica, under load.
    Failover,
}

impl Figure {
    pub(crate) const ALL: [Self; 11] = [
        Self::Exchanges,
        Self::Simulated,
        Self::Restart,
        Self::Revoked,
        Self::Invalidation,
        Self::Hit,
        Self::Rate,
        Self::Killed,
        Self::Paused,
        Self::Filled,
        Self::Failover,
    ];

    /// The name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Exchanges => "exchanges",
            Self::Simulated => "simulated",
            Self::Restart => "restart",
            Self::Revoked => "revoked",
            Self::Invalidation => "invalidation",
            Self::Hit => "hit",
            Self::Rate => "rate",
            Self::Killed => "killed",
            Self::Paused => "paused",
            Self::Filled => "filled",
            Self::Failover => "failover",
        }
    }

    pub(crate) async fn measure(self, lab: &Lab, options: &Options, report: &mut Report) {
        match self {
            Self::Exchanges => caches::exchanges(lab, options, report).await,
            Self::Simulated => simulated::simulated(options, report).await,
            Self::Restart => caches::restart(lab, options, report).await,
            Self::Revoked => caches::revoked(lab, options, report).await,
            Self::Invalidation => caches::invalidation(lab, options, report).await,
            Self::Hit => hit::hit(lab, options, report).await,
            Self::Rate => rate::rate(lab, options, report).await,
            Self::Killed => faults::killed(lab, options, report).await,
            Self::Paused => faults::paused(lab, options, report).await,
            Self::Filled => faults::filled(lab, options, report).await,
            Self::Failover => faults::failover(lab, options, report).await,
        }
    }
}
