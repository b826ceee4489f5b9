//! Hooks between real connections on loopback: a caller, the proxy, an upstream that
//! really checks its Hawk header.

mod caller;
mod failures;
mod matrix;
mod plain;
mod requests;
mod stage;
mod tls;
mod upstream;
