//! What goes on beside requests: names resolved, keys kept fresh, workload tokens re-read.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::build::Built;
use crate::gateway::route::Upstream;
use crate::remote::dns::{self, SystemLookup};
use crate::token::{Issuer, WorkloadToken};

/// How often a workload token's file is looked at. A kubelet replaces a token when 80 % of
/// its life, at least 8 minutes, are over.
const WORKLOAD_TOKEN_INTERVAL: Duration = Duration::from_secs(2);

/// The tasks of one configuration; they end with it.
#[derive(Debug)]
pub(super) struct Background {
    _tasks: JoinSet<()>,
}

impl Background {
    /// Starts everything that `built` needs. What can be had without waiting for others
    /// (addresses written as such, files) is there when this returns.
    pub(super) async fn start(built: &Built) -> Self {
        let mut tasks = JoinSet::new();
        for upstream in &built.upstreams {
            if let Some(address) = dns::literal(&upstream.host, upstream.port) {
                upstream.addresses.store(Arc::new(vec![address]));
            } else {
                tasks.spawn(resolve(Arc::clone(upstream)));
            }
        }
        for token in &built.workload_tokens {
            read(token, &mut None).await;
            tasks.spawn(reread(Arc::clone(token)));
        }
        for issuer in &built.issuers {
            tasks.spawn(keep_keys(Arc::clone(issuer)));
        }
        Self { _tasks: tasks }
    }
}

async fn resolve(upstream: Arc<Upstream>) {
    let publish = |addresses| upstream.addresses.store(Arc::new(addresses));
    dns::keep_fresh(&SystemLookup, &upstream.host, upstream.port, publish).await;
}

async fn keep_keys(issuer: Arc<Issuer>) {
    while let Some(wait) = issuer.warm_up().await.again_in {
        tokio::time::sleep(wait).await;
    }
}

async fn reread(token: Arc<WorkloadToken>) {
    let mut said = None;
    loop {
        tokio::time::sleep(WORKLOAD_TOKEN_INTERVAL).await;
        read(&token, &mut said).await;
    }
}

/// Reads once; the same problem is logged once.
async fn read(token: &Arc<WorkloadToken>, said: &mut Option<String>) {
    let reader = Arc::clone(token);
    let outcome = tokio::task::spawn_blocking(move || reader.refresh()).await;
    let problem = match outcome {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(error) => Some(error.to_string()),
    };
    if problem != *said {
        if let Some(problem) = &problem {
            tracing::warn!(%problem, "no workload token; the one read before stays");
        } else {
            tracing::info!(file = %token.file().display(), "the workload token is there");
        }
        *said = problem;
    }
}
