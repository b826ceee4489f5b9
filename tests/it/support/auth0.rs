//! The tenant of `tests/peers/auth0.js`.

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

    /// Scheme, host and port.
    pub(crate) fn issuer(&self) -> &str {
        self.0.fact("issuer")
    }

    /// Id and secret of the client that authenticates by `basic` or `post`.
    pub(crate) fn client(&self, method: &str) -> (String, String) {
        let part = |part: &str| self.0.part(&format!("{method}Client"), part).to_owned();
        (part("id"), part("secret"))
    }

    pub(crate) async fn control(&self, command: &str, arguments: Value) -> Value {
        self.0.control(command, arguments).await
    }

    /// What the Management API has of the user called `id`.
    pub(crate) async fn identities(&self, id: &str, identities: Value) {
        let arguments = json!({ "id": id, "identities": identities });
        self.control("identities", arguments).await;
    }

    /// How often what was answered: by endpoint, or the last word of a grant's name, and
    /// status. What never happened is `null`.
    pub(crate) async fn counts(&self) -> Value {
        self.control("counts", json!({})).await
    }

    /// Fails when anything secret that the tenant gave out or was told is in `said`, the
    /// log, the metrics or `Debug`.
    pub(crate) async fn assert_nothing_leaked(&self, gateway: &TestGateway, said: &[String]) {
        let secrets = Secrets::default();
        let all = self.control("secrets", json!({})).await;
        for (number, secret) in all["secrets"].as_array().unwrap().iter().enumerate() {
            secrets.add(&format!("secret {number}"), secret.as_str().unwrap());
        }
        assert!(!secrets.is_empty());
        for answer in said {
            secrets.assert_absent("an answer", answer);
        }
        secrets.assert_absent("the metrics", &gateway.metrics().await.0);
        secrets.assert_absent(
            "Debug",
            &format!("{:?} {:?}", gateway.running, gateway.running.gateway()),
        );
        secrets.assert_absent("the log", &gateway.log());
    }
}
