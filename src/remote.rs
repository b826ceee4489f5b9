//! HTTP clients for every remote party, and the two small loopback servers of the commands. The
//! only module that knows reqwest; [`http_client`] sets the limits that all clients share.
//!
//! - Issuer keys and metadata: [`key_fetcher`], `keys_token`, [`jwks`], [`discovery`],
//!   [`well_known`], [`provider_metadata`], [`introspection`]
//! - Credential sources: [`taskcluster_login`], [`taskcluster_oauth`], [`client_credentials`],
//!   [`token_exchange`], [`auth0_identity`], [`password`]; the OAuth ones are built on [`oauth`]
//! - Providers of sessions: [`oidc_provider`], [`taskcluster_provider`]
//! - Commands: [`registration`], [`auth0_tenant`], [`signin`], [`callback_server`],
//!   [`token_socket`], [`taskcluster_queue`]
//! - The proxy itself: [`dns`], [`otlp`], [`shared_store`]

pub mod auth0_identity;
pub mod auth0_tenant;
pub mod callback_server;
pub mod client_credentials;
mod credential_source;
pub mod discovery;
pub mod dns;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod http_client;
mod identity_provider;
pub mod introspection;
pub mod jwks;
pub mod key_fetcher;
mod keys_token;
pub mod oauth;
pub mod oidc_provider;
pub mod otlp;
pub mod password;
pub mod provider_metadata;
pub mod registration;
mod retry;
pub mod settings;
pub mod shared_store;
pub mod signin;
pub mod taskcluster_exchange;
pub mod taskcluster_login;
pub mod taskcluster_oauth;
pub mod taskcluster_provider;
pub mod taskcluster_queue;
#[cfg(test)]
pub(crate) mod testing;
pub mod token_exchange;
pub mod token_socket;
pub mod well_known;
