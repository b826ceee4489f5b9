//! hawkgate: a caller's bearer token in, the upstream's own credentials out, 401s healed.
//!
//! One request's way through the house:
//! [`proxy`] accepts and checks the head → [`gateway`] finds the route, has the
//! [`token`] verified and a [`credential`] leased → [`proxy`] chooses an address, strips,
//! signs with [`hawk`] and forwards → on a 401 [`gateway`] recovers and [`proxy`] replays
//! → one [`gateway::outcome::Outcome`] goes to [`metrics`] and the access log.

pub mod app;
pub mod clock;
pub mod config;
pub mod credential;
pub mod demo;
pub mod explain;
pub mod gateway;
pub mod hawk;
pub mod header_fields;
pub mod label;
pub mod log;
pub mod metrics;
pub mod private_file;
pub mod proxy;
pub mod registration;
pub mod reload;
pub mod remote;
pub mod secret;
pub mod serde_url;
pub mod signin;
pub mod singleflight;
pub mod suggest;
pub mod token;
pub mod trace;

/// This build's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The revision that this build was made from: `HAWKGATE_REVISION` at build time.
pub const REVISION: &str = match option_env!("HAWKGATE_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};
