//! What the behaviour tests stand on: callers, upstreams, identity providers, peers, and a
//! hawkgate of their own, all on loopback and free ports.

// Not every behaviour uses every tool, and the tools are tested by themselves.
#![allow(dead_code)]

pub(crate) mod auth0;
pub(crate) mod client;
pub(crate) mod gateway;
pub(crate) mod peers;
pub(crate) mod program;
pub(crate) mod secrets;
pub(crate) mod standard;
pub(crate) mod tls;
pub(crate) mod tokens;
pub(crate) mod upstream;
pub(crate) mod wait;
pub(crate) mod wire;
