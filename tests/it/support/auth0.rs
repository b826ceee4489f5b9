//! The Auth0 tenant of `tests/peers/auth0.js`.

use serde_json::{Value, json};

use super::gateway::TestGateway;
use super::peers::Peer;
use super::secrets::Secrets;

/// A running tenant.
pub(crate) struct Auth0(pub(crate) Peer);

impl Auth0 {
    pub(crate) async fn start() -> Self {
        Self(Peer::start("auth0", &json!({})).await)
    }

    /// Its `iss`: scheme, host and port.
    pub(crate) fn issuer(&self) -> &str {
        self.0.fact("issuer")
    }

    /// Id and secret of the client that authenticates with `basic` or `post`.
    pub(crate) fn client(&self, method: &str) -> (String, String) {
        let part = |part: &str| self.0.part(&format!("{method}Client"), part).to_owned();
        (part("id"), part("secret"))
    }

    pub(crate) async fn control(&self, command: &str, arguments: Value) -> Value {
        self.0.control(command, arguments).await
    }

    /// Sets the identities that the Management API returns for the user `id`.
    pub(crate) async fn identities(&self, id: &str, identities: Value) {
        let arguments = json!({ "id": id, "identities": identities });
        self.control("identities", arguments).await;
    }

    /// Responses so far, keyed by endpoint (or the last part of the grant type) and status, as in
    /// `"password-realm 403"`. A key without responses is `null`.
    pub(crate) async fn counts(&self) -> Value {
        self.control("counts", json!({})).await
    }

    /// Fails if a secret that the tenant issued or received is in `responses`, the log, the metrics or
    /// `Debug` output.
    pub(crate) async fn assert_nothing_leaked(&self, gateway: &TestGateway, responses: &[String]) {
        let secrets = Secrets::default();
        let all = self.control("secrets", json!({})).await;
        for (number, secret) in all["secrets"].as_array().unwrap().iter().enumerate() {
            secrets.add(&format!("secret {number}"), secret.as_str().unwrap());
        }
        assert!(!secrets.is_empty());
        for response in responses {
            secrets.assert_absent("a response", response);
        }
        secrets.assert_absent("the metrics", &gateway.metrics().await.0);
        secrets.assert_absent(
            "Debug",
            &format!("{:?} {:?}", gateway.running, gateway.running.gateway()),
        );
        secrets.assert_absent("the log", &gateway.log());
    }
}
