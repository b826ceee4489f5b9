//! pingora lives here and nowhere else: sessions come in, [`crate::gateway`] decides,
//! requests go out and answers come back.
//!
//! From outside in: [`listener`] (sockets, TLS) → [`server`] (connections, limits, the end)
//! → [`guard`] (the raw head) → `fast_path` (a plain exchange) or [`hooks`] (everything else:
//! one request's way through pingora, `replay`) → `headers`. [`admin`] shows operators
//! what is going on.

// pingora passes its errors boxed.
#![allow(clippy::unnecessary_box_returns)]

pub mod admin;
mod answer;
mod audit;
mod client;
pub mod connection;
mod context;
mod deadline;
mod failure;
mod fast_path;
mod headers;
pub mod hooks;
pub mod listener;
mod peer;
pub mod preview;
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
pub use replay::Budget;

/// Most pools of upstream connections, each with its own copy of the platform's CAs (some
/// 5 ms to load and 0.3 MiB).
const MAX_POOLS: usize = 8;

/// The applications that [`server::Bound::serve`] takes, for so many pinned `workers`: each
/// worker has upstream connections of its own, so that no answer has to wake another thread,
/// up to a limit past which workers share them.
pub fn applications(hooks: &Hooks, limits: &Limits, workers: usize) -> Vec<Arc<HttpProxy<Hooks>>> {
    let pools = workers.clamp(1, MAX_POOLS);
    let threads = workers.div_ceil(pools);
    (0..pools)
        .map(|_| server::http_proxy(hooks.clone(), limits, hooks::server_conf(threads)))
        .collect()
}
