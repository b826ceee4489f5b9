//! Support for the integration tests: clients, fake upstreams, identity providers, Node peers and
//! gateways, all on free loopback ports.

// Some helpers are only used by their own tests.
#![allow(dead_code)]

pub(crate) mod auth0;
pub(crate) mod browser;
pub(crate) mod client;
pub(crate) mod gateway;
pub(crate) mod peers;
pub(crate) mod program;
pub(crate) mod redis;
pub(crate) mod secrets;
pub(crate) mod sessions;
pub(crate) mod standard;
pub(crate) mod tinyproxy;
pub(crate) mod tls;
pub(crate) mod tokens;
pub(crate) mod upstream;
pub(crate) mod wait;
pub(crate) mod wire;
