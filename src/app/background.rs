//! Background tasks: resolving names, keeping keys fresh, and re-reading workload tokens.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::task::{AbortHandle, JoinHandle};

use super::components::Components;
use crate::gateway::route::Upstream;
use crate::remote::dns::{self, SystemResolver};
use crate::token::{Issuer, WorkloadToken};

/// How often a workload token's file is read. The kubelet replaces a token once 80 % of its
/// lifetime has passed, which is at least 8 minutes.
const WORKLOAD_TOKEN_INTERVAL: Duration = Duration::from_secs(2);

/// The background tasks of the current configuration.
#[derive(Debug, Default)]
pub(super) struct Background(Vec<Task>);

/// The task that keeps one component up to date. Aborted on drop.
#[derive(Debug)]
struct Task {
    component: Arc<dyn Any + Send + Sync>,
    running: AbortHandle,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.running.abort();
    }
}

/// Prepares what needs no network: literal addresses and files.
pub(super) async fn prepare(components: &Components) {
    for upstream in components.new_upstreams() {
        if let Some(address) = dns::ip_literal(&upstream.host, upstream.port) {
            upstream.addresses.store(Arc::new(vec![address]));
        }
    }
    for token in &components.workload_tokens {
        read(token, &mut None).await;
    }
}

/// Like [`prepare`], and also waits up to `timeout` for the names and keys of new components, which
/// serve no requests yet.
pub(super) async fn prepare_within(components: &Components, timeout: Duration) {
    prepare(components).await;
    let names = join_all(components.new_upstreams().map(|upstream| async {
        let found = dns::resolve(&SystemResolver, &upstream.host, upstream.port).await;
        // The background task of the upstream retries, and logs the error.
        if let Ok(addresses) = found {
            upstream.addresses.store(Arc::new(addresses));
        }
    }));
    let keys = join_all(components.new_issuers().map(|issuer| issuer.warm_up()));
    let _ = tokio::time::timeout(timeout, futures::future::join(names, keys)).await;
}

impl Background {
    /// Keeps the running tasks of `components`, starts those that are missing, and ends all others.
    pub(super) fn update(&mut self, components: &Components) {
        let before = std::mem::take(&mut self.0);
        let mut before: Vec<_> = before.into_iter().map(Some).collect();
        let mut keep_or_start =
            |component: Arc<dyn Any + Send + Sync>, start: &dyn Fn() -> JoinHandle<()>| {
                let running = before
                    .iter_mut()
                    .find(|task| {
                        task.as_ref()
                            .is_some_and(|t| is_same(&t.component, &component))
                    })
                    .and_then(Option::take);
                self.0.push(running.unwrap_or_else(|| Task {
                    running: start().abort_handle(),
                    component,
                }));
            };
        for upstream in components.upstreams() {
            if dns::ip_literal(&upstream.host, upstream.port).is_none() {
                keep_or_start(upstream.clone(), &|| {
                    tokio::spawn(resolve(upstream.clone()))
                });
            }
        }
        for token in &components.workload_tokens {
            keep_or_start(token.clone(), &|| tokio::spawn(reread(token.clone())));
        }
        for issuer in components.issuers() {
            keep_or_start(issuer.clone(), &|| {
                tokio::spawn(refresh_keys(issuer.clone()))
            });
        }
    }
}

/// Whether both are the same allocation, not merely equal.
fn is_same(one: &Arc<dyn Any + Send + Sync>, other: &Arc<dyn Any + Send + Sync>) -> bool {
    std::ptr::addr_eq(Arc::as_ptr(one), Arc::as_ptr(other))
}

async fn resolve(upstream: Arc<Upstream>) {
    let publish = |addresses| upstream.addresses.store(Arc::new(addresses));
    dns::resolve_periodically(&SystemResolver, &upstream.host, upstream.port, publish).await;
}

async fn refresh_keys(issuer: Arc<Issuer>) {
    while let Some(wait) = issuer.warm_up().await.again_in {
        tokio::time::sleep(wait).await;
    }
}

async fn reread(token: Arc<WorkloadToken>) {
    let mut logged = None;
    loop {
        tokio::time::sleep(WORKLOAD_TOKEN_INTERVAL).await;
        read(&token, &mut logged).await;
    }
}

/// Reads the token once. Logs a problem only when it changes.
async fn read(token: &Arc<WorkloadToken>, logged: &mut Option<String>) {
    let reader = Arc::clone(token);
    let outcome = tokio::task::spawn_blocking(move || reader.refresh()).await;
    let problem = match outcome {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(error) => Some(error.to_string()),
    };
    if problem != *logged {
        if let Some(problem) = &problem {
            tracing::warn!(%problem, "cannot read the workload token; keeping the previous one");
        } else {
            tracing::info!(file = %token.file().display(), "the workload token is readable again");
        }
        *logged = problem;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn components(tokens: &[&Arc<WorkloadToken>]) -> Components {
        Components {
            workload_tokens: tokens.iter().map(|&token| Arc::clone(token)).collect(),
            ..Components::default()
        }
    }

    fn token(file: &str) -> Arc<WorkloadToken> {
        Arc::new(WorkloadToken::new(file.into()))
    }

    #[tokio::test]
    async fn background_tasks_continue_and_end_with_their_part() {
        let (one, two, three) = (token("/one"), token("/two"), token("/three"));
        let mut background = Background::default();
        background.update(&components(&[&one, &two]));
        let ids = |background: &Background| -> Vec<_> {
            background.0.iter().map(|task| task.running.id()).collect()
        };
        let before = ids(&background);
        background.update(&components(&[&two, &three]));
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
