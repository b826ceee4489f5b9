//! The only module that uses pingora: it accepts connections, asks [`crate::gateway`] whether to
//! admit each request, forwards it upstream and returns the response.
//!
//! A request passes through these modules: [`listener`] (sockets, TLS) → [`server`]
//! (connections, limits, shutdown) → [`validate`] (raw request heads) → `fast_path` (HTTP/1
//! requests without a body) or [`hooks`] (everything else, through pingora, with `replay`) →
//! `headers`. [`admin`] serves probes and metrics.

// pingora's errors are boxed.
#![allow(clippy::unnecessary_box_returns)]

pub mod admin;
mod audit;
mod body_rate;
mod client;
pub mod connection;
mod connection_limit;
mod context;
mod deadline;
mod drain;
mod failure;
mod fast_path;
#[cfg(fuzzing)]
pub mod fuzzing;
mod headers;
pub mod hooks;
mod in_flight;
pub mod listener;
mod local_response;
mod peer;
pub mod preview;
mod record;
mod replay;
pub mod server;
pub mod settings;
mod spans;
mod transport;
pub mod users;
pub mod validate;

use std::sync::Arc;

use pingora::proxy::HttpProxy;

use crate::proxy::settings::Limits;
pub use connection_limit::{ConnectionCounts, LimitAction, LimitLabel};
pub use fast_path::FastPath;
pub use hooks::Hooks;
pub use in_flight::InFlight;
pub use peer::{PlatformCaError, check_platform_cas};
pub use record::Recorder;
pub use replay::Budget;

/// Maximum number of upstream connection pools. Each pool holds its own copy of the platform's
/// CA certificates (about 5 ms to load, 0.3 MiB).
const MAX_POOLS: usize = 8;

/// Creates the applications that [`server::BoundServer::serve`] distributes over `workers`
/// pinned workers. Each worker has its own pool of upstream connections, so that no response has
/// to wake another thread; with more than `MAX_POOLS` workers, pools are shared.
pub fn applications(hooks: &Hooks, limits: &Limits, workers: usize) -> Vec<Arc<HttpProxy<Hooks>>> {
    let pools = workers.clamp(1, MAX_POOLS);
    let threads = workers.div_ceil(pools);
    (0..pools)
        .map(|_| server::http_proxy(hooks.clone(), limits, hooks::server_conf(threads)))
        .collect()
}
