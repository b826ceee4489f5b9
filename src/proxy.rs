//! pingora lives here and nowhere else: sessions come in, [`crate::gateway`] decides,
//! requests go out and answers come back.
//!
//! From outside in: [`listener`] (sockets, TLS) → [`server`] (connections, limits, the end)
//! → [`guard`] (the raw head) → [`hooks`] (one request's way through pingora) → `replay`
//! and `translate`. [`admin`] shows operators what is going on.

// pingora passes its errors boxed.
#![allow(clippy::unnecessary_box_returns)]

pub mod admin;
mod answer;
pub mod connection;
mod context;
mod failure;
pub mod guard;
pub mod hooks;
pub mod listener;
mod peer;
pub mod preview;
mod replay;
pub mod server;
mod translate;

use std::sync::Arc;

use pingora::proxy::HttpProxy;

use crate::config::Limits;
pub use hooks::Hooks;
pub use peer::{CaError, check_ca};
pub use replay::Budget;

/// The application that [`server::Bound::serve`] takes. `threads` sizes pools.
pub fn application(hooks: Hooks, limits: &Limits, threads: usize) -> Arc<HttpProxy<Hooks>> {
    server::http_proxy(hooks, limits, hooks::server_conf(threads))
}
