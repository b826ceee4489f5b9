//! Network clients: the only place that knows the HTTP client. One file per party spoken
//! to; [`client`] sets the limits that all of them share.

pub mod auth0_identity;
pub mod auth0_tenant;
pub mod callback;
pub mod client;
pub mod client_credentials;
pub mod discovery;
pub mod dns;
pub mod introspection;
pub mod jwks;
pub mod oauth;
pub mod otlp;
pub mod password;
pub mod provider;
pub mod registration;
mod retry;
pub mod settings;
pub mod signin;
pub mod taskcluster;
pub mod taskcluster_login;
pub mod taskcluster_oauth;
pub mod taskcluster_queue;
#[cfg(test)]
pub(crate) mod testing;
pub mod token_exchange;
pub mod token_socket;
