//! The only module that uses pingora: it accepts connections, asks [`crate::gateway`] whether to
//! admit each request, forwards it upstream and returns the response.
//!
//! A request passes through these modules: [`listener`] (sockets, TLS) → [`server`]
//! (connections, limits, shutdown) → [`validate`] (request heads) → `h1` or `h2` (the protocol of
//! the caller) → `relay` (with `headers` and `replay`) → `h1` or `h2` (the protocol of the
//! upstream). [`admin`] serves probes and metrics.

// pingora's errors are boxed.
#![allow(clippy::unnecessary_box_returns)]

pub mod admin;
mod audit;
mod body_rate;
mod client;
mod connection_limit;
mod context;
mod deadline;
mod downstream;
mod drain;
mod error;
#[cfg(fuzzing)]
pub mod fuzzing;
mod h1;
mod h2;
mod head;
mod headers;
mod in_flight;
pub mod listener;
mod local_response;
mod outgoing_proxy;
mod peer;
mod pool_sweep;
pub mod preview;
mod record;
mod relay;
mod replay;
pub mod server;
mod service;
pub mod settings;
mod spans;
#[cfg(test)]
mod test_support;
mod transport;
mod upstream;
pub mod users;
pub mod validate;

pub use connection_limit::{ConnectionCounts, LimitAction, LimitLabel};
pub use in_flight::InFlight;
pub use peer::{PlatformCaError, check_platform_cas};
pub use record::Recorder;
pub use relay::Relay;
pub use replay::Budget;
