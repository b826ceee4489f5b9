//! Network clients: the only place that knows the HTTP client. One file per party spoken
//! to; [`client`] sets the limits that all of them share.

pub mod auth0_identity;
pub mod auth0_tenant;
pub mod callback_server;
pub mod client_credentials;
pub mod discovery;
pub mod dns;
pub mod http_client;
pub mod introspection;
pub mod jwks;
pub mod oauth;
pub mod otlp;
pub mod password;
pub mod provider_metadata;
pub mod registration;
mod retry;
pub mod signin;
pub mod taskcluster_exchange;
pub mod taskcluster_login;
pub mod taskcluster_oauth;
pub mod taskcluster_queue;
#[cfg(test)]
pub(crate) mod testing;
pub mod token_exchange;
pub mod token_socket;
