//! Integration tests: one binary, one file per area of behaviour.

// This whole binary is a test; clippy sees only the functions marked `#[test]` as such.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
// Readable code matters more than allocations here.
#![allow(clippy::format_push_string, clippy::format_collect)]

mod absolute_form;
mod activation;
mod any_api;
mod attacks;
mod audit;
mod auth0;
mod bad_tokens;
mod browser;
mod cache_memory;
mod check_and_run;
mod command_line;
mod connections;
mod cors;
mod descriptors;
mod diagnostics;
mod differences;
mod docs;
mod explain;
mod fleet;
mod fleet_limits;
mod forward_auth;
mod grpc;
mod guides;
mod h2spec;
mod haproxy;
mod hawk;
mod http10;
mod http_rules;
mod hygiene;
mod identity;
mod identity_providers;
mod layers;
mod leaks;
mod listeners;
mod login;
mod networks;
mod oauth;
mod parity;
mod passwords;
mod protocol_pairs;
mod readiness;
mod readings;
mod register;
mod register_auth0;
mod reload;
mod rules;
mod schema;
mod sessions;
mod shared_store;
mod shutdown;
mod sign_in;
mod support;
mod swap;
mod taskcluster_proxy;
mod trace;
mod unauthorized;
mod upgrades;
mod web_pages;
