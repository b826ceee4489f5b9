//! What goes on beside requests: names resolved, keys kept fresh, workload tokens re-read.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::task::{AbortHandle, JoinHandle};

use super::parts::Parts;
use crate::gateway::route::Upstream;
use crate::remote::dns::{self, SystemResolver};
use crate::token::{Issuer, WorkloadToken};

/// How often a workload token's file is looked at. A kubelet replaces a token when 80 % of
/// its life, at least 8 minutes, are over.
const WORKLOAD_TOKEN_INTERVAL: Duration = Duration::from_secs(2);

/// The tasks of the configuration in use; they end with it.
#[derive(Debug, Default)]
pub(super) struct Background(Vec<Task>);

/// One part's task; ends when this is dropped.
#[derive(Debug)]
struct Task {
    part: Arc<dyn Any + Send + Sync>,
    running: AbortHandle,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.running.abort();
    }
}

/// Gets what can be had without waiting for others (addresses written as such, files).
pub(super) async fn prepare(parts: &Parts) {
    for upstream in parts.new_upstreams() {
        if let Some(address) = dns::ip_literal(&upstream.host, upstream.port) {
            upstream.addresses.store(Arc::new(vec![address]));
        }
    }
    for token in &parts.workload_tokens {
        read(token, &mut None).await;
    }
}

/// Also waits for what others have to say about new parts, names and keys, for as long as
/// `patience` goes: nobody is served by them yet.
pub(super) async fn prepare_patiently(parts: &Parts, patience: Duration) {
    prepare(parts).await;
    let names = join_all(parts.new_upstreams().map(|upstream| async {
        let found = dns::resolve(&SystemResolver, &upstream.host, upstream.port).await;
        // Its own task goes on trying, and says what is wrong.
        if let Ok(addresses) = found {
            upstream.addresses.store(Arc::new(addresses));
        }
    }));
    let keys = join_all(parts.new_issuers().map(|issuer| issuer.warm_up()));
    let _ = tokio::time::timeout(patience, futures::future::join(names, keys)).await;
}

impl Background {
    /// Goes on with the tasks of `parts` that run already, starts the others, ends those of
    /// other parts.
    pub(super) fn follow(&mut self, parts: &Parts) {
        let before = std::mem::take(&mut self.0);
        let mut before: Vec<_> = before.into_iter().map(Some).collect();
        let mut go_on = |part: Arc<dyn Any + Send + Sync>, start: &dyn Fn() -> JoinHandle<()>| {
            let running = before
                .iter_mut()
                .find(|task| task.as_ref().is_some_and(|t| is_same(&t.part, &part)))
                .and_then(Option::take);
            self.0.push(running.unwrap_or_else(|| Task {
                running: start().abort_handle(),
                part,
            }));
        };
        for upstream in parts.upstreams() {
            if dns::ip_literal(&upstream.host, upstream.port).is_none() {
                go_on(upstream.clone(), &|| {
                    tokio::spawn(resolve(upstream.clone()))
                });
            }
        }
        for token in &parts.workload_tokens {
            go_on(token.clone(), &|| tokio::spawn(reread(token.clone())));
        }
        for issuer in parts.issuers() {
            go_on(issuer.clone(), &|| tokio::spawn(keep_keys(issuer.clone())));
        }
    }
}

/// Whether both are the same part, not just equal ones.
fn is_same(one: &Arc<dyn Any + Send + Sync>, other: &Arc<dyn Any + Send + Sync>) -> bool {
    std::ptr::addr_eq(Arc::as_ptr(one), Arc::as_ptr(other))
}

async fn resolve(upstream: Arc<Upstream>) {
    let publish = |addresses| upstream.addresses.store(Arc::new(addresses));
    dns::resolve_periodically(&SystemResolver, &upstream.host, upstream.port, publish).await;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(tokens: &[&Arc<WorkloadToken>]) -> Parts {
        Parts {
            workload_tokens: tokens.iter().map(|&token| Arc::clone(token)).collect(),
            ..Parts::default()
        }
    }

    fn token(file: &str) -> Arc<WorkloadToken> {
        Arc::new(WorkloadToken::new(file.into()))
    }

    #[tokio::test]
    async fn tasks_end_with_their_part_and_go_on_with_it() {
        let (one, two, three) = (token("/one"), token("/two"), token("/three"));
        let mut background = Background::default();
        background.follow(&parts(&[&one, &two]));
        let ids = |background: &Background| -> Vec<_> {
            background.0.iter().map(|task| task.running.id()).collect()
        };
        let before = ids(&background);
        background.follow(&parts(&[&two, &three]));
        let after = ids(&background);
        assert_eq!(before[1], after[0]);
        assert!(!before.contains(&after[1]));
        while Arc::strong_count(&one) > 1 {
            tokio::task::yield_now().await;
        }
        assert!(Arc::strong_count(&two) > 1);
        drop(background);
        while Arc::strong_count(&two) + Arc::strong_count(&three) > 2 {
            tokio::task::yield_now().await;
        }
    }
}
