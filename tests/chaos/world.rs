//! hawkgate with its peers and its callers, for one scenario.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use crate::arguments::Role;
use crate::callers::{Callers, Target, all_served};
use crate::hawkgate::{Hawkgate, PeerAddresses, Setup, pause};
use crate::peer::Peer;
use crate::tally::Tally;
use crate::tokens::Issuer;

/// How long after the end of a disturbance newcomers may still be refused. A circuit breaker stays
/// open for 30 seconds at most.
const RECOVERY: Duration = Duration::from_secs(45);

/// How long memory may take to shrink, and requests in progress to end.
const SETTLING: Duration = Duration::from_mins(1);

/// Memory afterwards, as a percentage of the memory before.
const MEMORY_LIMIT: u64 = 110;

/// Everything that takes part in one scenario.
pub(crate) struct World {
    pub(crate) identity_provider: Peer,
    pub(crate) exchange: Peer,
    pub(crate) upstream: Peer,
    pub(crate) hawkgate: Hawkgate,
    pub(crate) issuer: Issuer,
    pub(crate) tally: Tally,
    target: Target,
    seed: u64,
}

impl World {
    /// Starts all processes.
    pub(crate) async fn start(setup: Setup, seed: u64) -> Self {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut identity_provider = Peer::start(Role::IdentityProvider, loopback).await;
        let exchange = Peer::start(Role::Exchange, loopback).await;
        let upstream = Peer::start(Role::Upstream, loopback).await;
        let issuer = Issuer::new(&format!("http://{}", identity_provider.address()));
        publish_keys(&issuer, &mut identity_provider).await;
        let peers = PeerAddresses {
            identity_provider: identity_provider.address(),
            exchange: exchange.address(),
            upstream_port: upstream.address().port(),
        };
        let hawkgate = Hawkgate::start(setup, peers).await;
        let tally = Tally::default();
        let target = Target {
            gateway: hawkgate.listener,
            issuer: issuer.clone(),
            tally: tally.clone(),
            newcomers: Arc::new(AtomicU64::new(0)),
        };
        Self {
            identity_provider,
            exchange,
            upstream,
            hawkgate,
            issuer,
            tally,
            target,
            seed,
        }
    }

    /// Starts the callers.
    pub(crate) fn callers(&self) -> Callers {
        Callers::start(&self.target, self.seed)
    }

    /// Lets time pass while the callers send requests.
    pub(crate) async fn pass(&self, seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }

    /// Waits until newcomers are served again; how long that took.
    pub(crate) async fn recover(&self) -> Result<Duration, String> {
        let started = Instant::now();
        while !all_served(&self.target, self.seed).await {
            if started.elapsed() > RECOVERY {
                return Err(format!("not recovered after {RECOVERY:?}"));
            }
            pause().await;
        }
        Ok(started.elapsed())
    }

    /// Waits until no request is in progress and memory is back at `before`; the memory then.
    pub(crate) async fn settle(&self, before: u64) -> Result<u64, String> {
        let started = Instant::now();
        loop {
            let in_flight = self.hawkgate.metric("hawkgate_requests_in_flight").await;
            let memory = self.hawkgate.memory();
            if in_flight == Some(0.0) && memory * 100 <= before * MEMORY_LIMIT {
                return Ok(memory);
            }
            if started.elapsed() > SETTLING {
                return Err(format!(
                    "{SETTLING:?} later {in_flight:?} requests are in flight and memory went from \
                     {before} to {memory} bytes"
                ));
            }
            // The allocator returns memory only while its thread is at work.
            all_served(&self.target, self.seed).await;
            pause().await;
        }
    }

    /// Makes the issuer sign with a new key, which its key set contains.
    pub(crate) async fn rotate_keys(&mut self) {
        self.issuer.rotate();
        publish_keys(&self.issuer, &mut self.identity_provider).await;
    }

    /// Starts the identity provider again after it was killed.
    pub(crate) async fn revive_identity_provider(&mut self) {
        let address = self.identity_provider.address();
        self.identity_provider.restart_at(address).await;
        publish_keys(&self.issuer, &mut self.identity_provider).await;
    }

    /// Requests on behalf of forged tokens that any peer has seen.
    pub(crate) async fn hostile_requests(&mut self) -> u64 {
        self.exchange.count().await.0 + self.upstream.count().await.0
    }
}

async fn publish_keys(issuer: &Issuer, identity_provider: &mut Peer) {
    identity_provider
        .command(&format!("jwks {}", issuer.jwks()))
        .await;
}
