//! The only module that uses pingora: it accepts connections, has [`crate::gateway`] decide
//! about each request, forwards it and returns the response.
//!
//! From the outside in: [`listener`] (sockets, TLS) → [`server`] (connections, limits,
//! shutdown) → [`validate`] (raw request heads) → `fast_path` (HTTP/1 requests without a body)
//! or [`hooks`] (everything else, through pingora, with `replay`) → `headers`. [`admin`] serves
//! probes and metrics.

// pingora passes its errors boxed.
#![allow(clippy::unnecessary_box_returns)]

pub mod admin;
mod audit;
mod client;
pub mod connection;
mod context;
mod deadline;
mod drain;
mod failure;
mod fast_path;
mod headers;
pub mod hooks;
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
pub use fast_path::FastPath;
pub use hooks::Hooks;
pub use peer::{CaError, PlatformCaError, check_platform_cas, read_ca};
pub use record::Recorder;
pub use replay::Budget;

/// Most pools of upstream connections. Each holds its own copy of the platform's CA
/// certificates (about 5 ms to load, 0.3 MiB).
const MAX_POOLS: usize = 8;

/// The applications for [`server::BoundServer::serve`] and a number of pinned `workers`. Each
/// worker has its own pool of upstream connections, so that no response has to wake another
/// thread; beyond [`MAX_POOLS`], workers share pools.
pub fn applications(hooks: &Hooks, limits: &Limits, workers: usize) -> Vec<Arc<HttpProxy<Hooks>>> {
    let pools = workers.clamp(1, MAX_POOLS);
    let threads = workers.div_ceil(pools);
    (0..pools)
        .map(|_| server::http_proxy(hooks.clone(), limits, hooks::server_conf(threads)))
        .collect()
}
