//! Tests over real connections on loopback: a client, the proxy, and an upstream that verifies
//! its Hawk header.

mod client;
mod failures;
mod http2;
mod in_flight;
mod replay_matrix;
mod requests;
mod responses;
mod slow_bodies;
mod stalled_readers;
mod support;
mod tls;
mod trailers;
mod tunnel;
mod upstream;
mod upstream_retry;
