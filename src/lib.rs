//! hawkgate is a reverse proxy that verifies a caller's OIDC bearer token and swaps it for the
//! upstream API's own credentials: Hawk signatures for Taskcluster, a bearer token or a header
//! for any other API.
//!
//! # One request, top-down
//!
//! 1. [`proxy`] accepts the connection and validates the request head. It is the only module that
//!    knows pingora.
//! 2. [`gateway`] finds the route and decides. It has the bearer token verified by [`token`],
//!    applies the route's rules, and gets a lease from the cache in [`credential`], which calls a
//!    credential source in [`remote`] on a miss.
//! 3. [`proxy`] chooses an upstream address, strips and sets headers, signs with [`hawk`] where
//!    the credential is Taskcluster's, and forwards the request.
//! 4. If the upstream answers 401, [`gateway`] decides whether fresh credentials may help, and
//!    [`proxy`] replays the buffered request.
//! 5. One [`gateway::outcome::Outcome`] is recorded in [`metrics`], the access [`log`] and, if
//!    configured, a [`trace`] span.
//!
//! # Around it
//!
//! - [`config`] reads the configuration file, [`app`] builds and runs everything from it, and
//!   [`reload`] replaces it at run time.
//! - [`explain`] and [`demo`] are the commands that show how hawkgate decides.
//! - [`session`] keeps users signed in who use a browser.
//! - [`shared_store`] is what the replicas of a fleet have in common.
//! - [`registration`] and [`signin`] register an OAuth client and sign a user in from the
//!   terminal; [`private_file`] stores what they must keep.
//! - [`clock`], [`secret`], [`singleflight`] and the other small modules are leaves that any
//!   module may use.

#[cfg(not(fuzzing))]
pub mod app;
pub mod bounded_cache;
pub mod bounded_file;
pub mod circuit_breaker;
pub mod clock;
pub mod codec;
pub mod config;
pub mod credential;
#[cfg(not(fuzzing))]
pub mod demo;
#[cfg(not(fuzzing))]
pub mod explain;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod gateway;
pub mod hawk;
pub mod header_fields;
pub mod html;
pub mod label;
pub mod log;
#[cfg(not(fuzzing))]
pub mod metrics;
pub mod network;
pub mod peer_text;
pub mod pem;
pub mod private_file;
pub mod proxy;
pub mod registration;
#[cfg(not(fuzzing))]
pub mod reload;
pub mod remote;
pub mod secret;
pub mod serde_url;
pub mod session;
pub mod shared_store;
pub mod signin;
pub mod singleflight;
pub mod suggest;
pub(crate) mod sync;
pub mod token;
pub mod trace;

/// This build's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The revision that this build was made from: `HAWKGATE_REVISION` at build time.
pub const REVISION: &str = match option_env!("HAWKGATE_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};
