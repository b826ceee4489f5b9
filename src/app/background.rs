//! Background tasks: resolving names, keeping keys fresh, passing on the events of the shared store, and
//! re-reading workload tokens.

use std::any::Any;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::task::{AbortHandle, JoinHandle};

use super::components::Components;
use crate::clock::SharedClock;
use crate::gateway::route::Upstream;
use crate::remote::dns::{self, Resolver};
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

/// What background tasks use.
#[derive(Clone, Debug)]
pub(super) struct Resolution {
    pub(super) resolver: Arc<dyn Resolver>,
    pub(super) clock: SharedClock,
}

/// Prepares what takes little time: files, and a connection to the shared store.
pub(super) async fn prepare(components: &Components) {
    if let Some(shared) = components.new_shared() {
        shared.warm_up().await;
    }
    for token in &components.workload_tokens {
        read(token, &mut None).await;
    }
}

/// Like [`prepare`], and also waits up to `timeout` for the names and keys of new components, which
/// serve no requests yet.
pub(super) async fn prepare_within(
    components: &Components,
    resolution: &Resolution,
    timeout: Duration,
) {
    prepare(components).await;
    let resolvable = components
        .new_upstreams()
        .filter(|upstream| upstream.addresses.are_resolvable());
    let names = join_all(resolvable.map(|upstream| async {
        let found = resolution.look_up(upstream).await;
        // The background task of the upstream retries, and logs the error.
        if let Ok(addresses) = found {
            let now = resolution.clock.monotonic();
            upstream.addresses.record(Some(addresses), now);
        }
    }));
    let keys = join_all(components.new_issuers().map(|issuer| issuer.warm_up()));
    let _ = tokio::time::timeout(timeout, futures::future::join(names, keys)).await;
}

impl Resolution {
    async fn look_up(&self, upstream: &Upstream) -> io::Result<Vec<SocketAddr>> {
        let (host, port) = upstream.next_hop();
        dns::resolve(&*self.resolver, host, port).await
    }

    async fn keep_resolved(self, upstream: Arc<Upstream>) {
        let look_up = || self.look_up(&upstream);
        upstream
            .addresses
            .keep_resolved(upstream.next_hop().0, &self.clock, look_up)
            .await;
    }
}

impl Background {
    /// Keeps the running tasks of `components`, starts those that are missing, and ends all others.
    pub(super) fn update(&mut self, components: &Components, resolution: &Resolution) {
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
            if upstream.addresses.are_resolvable() {
                keep_or_start(upstream.clone(), &|| {
                    tokio::spawn(resolution.clone().keep_resolved(upstream.clone()))
                });
            }
        }
        for token in &components.workload_tokens {
            keep_or_start(token.clone(), &|| tokio::spawn(reread(token.clone())));
        }
        if let Some(shared) = components.shared() {
            keep_or_start(shared.clone(), &|| tokio::spawn(shared.clone().run()));
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
        let resolution = Resolution {
            resolver: Arc::new(dns::SystemResolver),
            clock: crate::clock::SystemClock::shared(),
        };
        let mut background = Background::default();
        background.update(&components(&[&one, &two]), &resolution);
        let ids = |background: &Background| -> Vec<_> {
            background.0.iter().map(|task| task.running.id()).collect()
        };
        let before = ids(&background);
        background.update(&components(&[&two, &three]), &resolution);
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
