//! What a signed-in person's client asks of an issuer: tokens for a code (RFC 6749 §4.1.3),
//! for a device code (RFC 8628), for a refresh token (RFC 6749 §6), and their end
//! (RFC 7009). On top of `super::oauth`, which every other client of an issuer uses too.

use http::StatusCode;
use serde::Deserialize;
use url::Url;

use super::http_client::HttpClient;
use super::oauth::{Endpoint, Failure, Granted};
use super::provider_metadata::is_acceptable_url;
use crate::clock::SharedClock;
use crate::config::OauthClient;
use crate::secret::SecretString;
use crate::serde_url;
use crate::signin::{AuthorizationCode, AuthorizationRequest, Tokens};

/// The grant of RFC 8628 §3.4.
const DEVICE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// The longest user code that is shown.
const MAX_USER_CODE: usize = 64;

/// One client at its issuer's endpoints.
#[derive(Clone, Debug)]
pub struct SignInClient {
    client: HttpClient,
    clock: SharedClock,
    own: OauthClient,
}

/// What a token endpoint gave; nothing of the ID token has been verified yet.
#[derive(Debug)]
pub struct TokenResponse {
    /// The tokens.
    pub tokens: Tokens,
    /// The ID token, if one came.
    pub id_token: Option<SecretString>,
}

/// What the person is shown, and what is polled with (RFC 8628 §3.2).
#[derive(Debug)]
pub struct DeviceAuthorization {
    /// For us.
    pub device_code: SecretString,
    /// For the person: printable ASCII.
    pub user_code: String,
    /// Where the person types it.
    pub verification_uri: Url,
    /// The same with the code filled in.
    pub verification_uri_complete: Option<Url>,
    /// For how many seconds it is good.
    pub expires_in: u64,
    /// Seconds between questions, if the issuer says.
    pub interval: Option<u64>,
}

/// Why there is no token. Texts hold nothing of the answer but a plain error code.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{text}")]
pub struct SignInError {
    text: String,
    /// The issuer's error code, if it gave one.
    pub code: Option<String>,
    /// There was no answer, or the issuer failed: asking again may help.
    pub transient: bool,
}

#[derive(Deserialize)]
struct DeviceAuthorizationResponse {
    device_code: String,
    user_code: String,
    // `verification_url` is what Google sends.
    #[serde(
        alias = "verification_url",
        deserialize_with = "serde_url::deserialize"
    )]
    verification_uri: Url,
    #[serde(default, deserialize_with = "serde_url::option::deserialize")]
    verification_uri_complete: Option<Url>,
    expires_in: u64,
    interval: Option<u64>,
}

impl SignInClient {
    /// `own` is who we are.
    pub fn new(client: HttpClient, clock: SharedClock, own: OauthClient) -> Self {
        Self { client, clock, own }
    }

    /// Tokens for the code of a callback.
    ///
    /// # Errors
    /// When the issuer cannot be reached or refuses.
    pub async fn redeem(
        &self,
        endpoint: &Url,
        code: &AuthorizationCode,
        request: &AuthorizationRequest,
    ) -> Result<TokenResponse, SignInError> {
        let mut parameters = vec![
            ("grant_type", "authorization_code"),
            ("code", code.code.expose()),
            ("redirect_uri", code.redirect_uri.as_str()),
            ("code_verifier", code.verifier.expose()),
        ];
        parameters.extend(resources(&request.resources));
        self.grant(endpoint, &parameters).await
    }

    /// Fresh tokens for a refresh token, which is used up where the issuer rotates.
    ///
    /// # Errors
    /// When the issuer cannot be reached or refuses.
    pub async fn refresh(
        &self,
        endpoint: &Url,
        refresh_token: &SecretString,
        wanted: &[String],
    ) -> Result<TokenResponse, SignInError> {
        let mut parameters = vec![
            ("grant_type", "refresh_token"),
            ("refresh_token", refresh_token.expose()),
        ];
        parameters.extend(resources(wanted));
        self.grant(endpoint, &parameters).await
    }

    /// Codes for signing in on another device; `issuer` says which URLs the person may be
    /// sent to.
    ///
    /// # Errors
    /// When the issuer cannot be reached, refuses, or answers something unusable.
    pub async fn authorize_device(
        &self,
        endpoint: &Url,
        issuer: &Url,
        request: &AuthorizationRequest,
    ) -> Result<DeviceAuthorization, SignInError> {
        let post = self.endpoint(endpoint);
        let answer = post.post(&request.parameters()).await.map_err(failed)?;
        let written: DeviceAuthorizationResponse = serde_json::from_slice(&answer.body).map_err(|_| {
            unusable(
                "is no JSON object with a device_code, user_code, verification_uri and expires_in",
            )
        })?;
        let shown = |b: u8| b.is_ascii_graphic() || b == b' ';
        let code = &written.user_code;
        if !(1..=MAX_USER_CODE).contains(&code.len()) || !code.bytes().all(shown) {
            return Err(unusable("has a user_code that no terminal should show"));
        }
        let complete = written.verification_uri_complete.as_ref();
        let fine = |place: &Url| is_acceptable_url(place, issuer);
        if !fine(&written.verification_uri) || !complete.is_none_or(fine) {
            return Err(unusable(
                "sends people to a URL that is not https, or is on loopback",
            ));
        }
        Ok(DeviceAuthorization {
            device_code: SecretString::new(written.device_code),
            user_code: written.user_code,
            verification_uri: written.verification_uri,
            verification_uri_complete: written.verification_uri_complete,
            expires_in: written.expires_in,
            interval: written.interval,
        })
    }

    /// Whether the person is done: tokens, or an error whose code says how to go on.
    ///
    /// # Errors
    /// Until the person is done; see [`crate::signin::DevicePolling`].
    pub async fn poll(
        &self,
        endpoint: &Url,
        codes: &DeviceAuthorization,
        request: &AuthorizationRequest,
    ) -> Result<TokenResponse, SignInError> {
        let mut parameters = vec![
            ("grant_type", DEVICE_GRANT),
            ("device_code", codes.device_code.expose()),
        ];
        parameters.extend(resources(&request.resources));
        self.grant(endpoint, &parameters).await
    }

    /// A token of the client's own for `audience` (RFC 6749 §4.4).
    ///
    /// # Errors
    /// When the issuer cannot be reached or refuses.
    pub async fn client_credentials(
        &self,
        endpoint: &Url,
        audience: &str,
    ) -> Result<SecretString, SignInError> {
        let parameters = [("grant_type", "client_credentials"), ("audience", audience)];
        let received = self.grant(endpoint, &parameters).await?;
        Ok(received.tokens.access_token)
    }

    /// Ends a token (RFC 7009 §2); `hint` is `refresh_token` or `access_token`.
    ///
    /// # Errors
    /// When the issuer cannot be reached or refuses: the token may live on.
    pub async fn revoke(
        &self,
        endpoint: &Url,
        token: &SecretString,
        hint: &str,
    ) -> Result<(), SignInError> {
        let parameters = [("token", token.expose()), ("token_type_hint", hint)];
        self.endpoint(endpoint)
            .send(&parameters)
            .await
            .map_err(failed)
            .and_then(|answer| {
                if answer.status == StatusCode::OK || answer.status == StatusCode::NO_CONTENT {
                    Ok(())
                } else {
                    Err(unusable("is neither a confirmation nor an error"))
                }
            })
    }

    async fn grant(
        &self,
        endpoint: &Url,
        parameters: &[(&str, &str)],
    ) -> Result<TokenResponse, SignInError> {
        let granted = self.endpoint(endpoint).grant(parameters).await;
        granted.map(received).map_err(failed)
    }

    fn endpoint(&self, url: &Url) -> Endpoint {
        let (own, client) = (self.own.clone(), self.client.clone());
        Endpoint::new(url.clone(), own, client, self.clock.clone())
    }
}

fn resources(resources: &[String]) -> impl Iterator<Item = (&str, &str)> {
    resources.iter().map(|r| ("resource", r.as_str()))
}

fn received(granted: Granted) -> TokenResponse {
    TokenResponse {
        tokens: Tokens {
            access_token: granted.access_token,
            expires_at: granted.expires_at.map(|at| at.0),
            refresh_token: granted.refresh_token,
            scope: granted.scope.map(|scopes| scopes.join(" ")),
        },
        id_token: granted.id_token,
    }
}

fn unusable(what: &str) -> SignInError {
    SignInError {
        text: format!("the issuer's answer {what}"),
        code: None,
        transient: false,
    }
}

fn failed(failure: Failure) -> SignInError {
    match failure {
        Failure::Transport(error) => SignInError {
            text: error.to_string(),
            code: None,
            transient: true,
        },
        Failure::Unauthenticated(text) => SignInError {
            text,
            code: None,
            transient: false,
        },
        Failure::Denied(denied) => SignInError {
            text: format!(
                "the issuer refused: {}{}",
                denied.cause(),
                remedy(&denied.code)
            ),
            transient: denied.status.is_server_error()
                || denied.status == StatusCode::TOO_MANY_REQUESTS,
            code: denied.code,
        },
        Failure::Unusable(error) => SignInError {
            text: error.to_string(),
            code: None,
            transient: false,
        },
    }
}

/// What to look at (RFC 6749 §5.2).
#[allow(clippy::ref_option)]
fn remedy(code: &Option<String>) -> &'static str {
    match code.as_deref() {
        Some("invalid_client") => ": look at the client's identifier, its secret and --auth-method",
        Some("unauthorized_client") => ": the client may not use this grant",
        Some("invalid_grant") => ": what was sent is used up, expired or revoked",
        Some("invalid_scope") => ": look at --scope",
        Some("invalid_target") => ": look at --resource and --audience",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::http_client::HttpClientOptions;
    use super::super::testing::{Reply, closed_port, peer};
    use super::*;
    use crate::clock::SystemClock;
    use crate::config::ClientProof;

    fn sign_in() -> SignInClient {
        let options = HttpClientOptions {
            timeout: std::time::Duration::from_millis(300),
            max_bytes: 16 * 1024,
            ca: None,
        };
        let own = OauthClient {
            id: "c".into(),
            proof: ClientProof::Public,
        };
        SignInClient::new(
            HttpClient::new(&options).unwrap(),
            SystemClock::shared(),
            own,
        )
    }

    async fn codes(answer: Value) -> Result<DeviceAuthorization, SignInError> {
        let peer = peer(Reply::json(200, &answer.to_string())).await;
        let issuer: Url = "https://issuer.example/".parse().unwrap();
        sign_in()
            .authorize_device(&peer.url, &issuer, &AuthorizationRequest::default())
            .await
    }

    #[tokio::test]
    async fn device_codes_are_shown_only_if_they_can_be() {
        let good = json!({"device_code": "d3vice-code", "user_code": "ABCD-EFGH", "expires_in": 600,
            "verification_uri": "https://issuer.example/device"});
        let read = codes(good.clone()).await.unwrap();
        assert_eq!(
            (read.user_code.as_str(), read.interval),
            ("ABCD-EFGH", None)
        );
        assert!(!format!("{read:?}").contains("d3vice-code"));
        for (name, value) in [
            ("user_code", json!("A\u{1b}[2J")),
            ("user_code", json!("")),
            ("user_code", json!("A".repeat(65))),
            ("verification_uri", json!("http://issuer.example/")),
            ("verification_uri", json!("javascript:alert(1)")),
            ("verification_uri_complete", json!("https://127.0.0.1/")),
            ("expires_in", json!("soon")),
            ("device_code", Value::Null),
        ] {
            let mut bad = good.clone();
            bad[name] = value;
            let error = codes(bad).await.unwrap_err();
            assert!(!error.to_string().contains("d3vice-code"), "{error}");
        }
    }

    #[tokio::test]
    async fn odd_answers_of_the_token_endpoint_are_told_apart_and_hold_nothing() {
        let refresh = "r3fresh-token".into();
        for (reply, transient, said) in [
            (
                Reply::json(
                    400,
                    r#"{"error":"invalid_grant","error_description":"r3fresh-token"}"#,
                ),
                false,
                "used up",
            ),
            (
                Reply::json(401, r#"{"error":"invalid_client"}"#),
                false,
                "--auth-method",
            ),
            (Reply::json(500, "r3fresh-token"), true, "500"),
            (Reply::json(429, "{}"), true, "429"),
            (Reply::json(200, "[\"r3fresh-token\"]"), false, "shape"),
            (Reply::json(200, &"x".repeat(20_000)), true, "larger"),
            (
                Reply::new(302, &[("Location", "https://x/?r3fresh-token")], ""),
                false,
                "redirect",
            ),
            (Reply::Stall(Vec::new()), true, "within"),
            (Reply::Bytes(Vec::new()), true, "127.0.0.1"),
        ] {
            let peer = peer(reply).await;
            let error = sign_in()
                .refresh(&peer.url, &refresh, &[])
                .await
                .unwrap_err();
            let text = format!("{error} {error:?}");
            assert!(
                text.contains(said) && !text.contains("r3fresh-token"),
                "{said}: {text}"
            );
            assert_eq!(error.transient, transient, "{text}");
        }
        let nobody = closed_port().await;
        let error = sign_in().refresh(&nobody, &refresh, &[]).await.unwrap_err();
        assert!(error.transient);
    }

    #[tokio::test]
    async fn revoking_takes_an_empty_answer() {
        let mut done = peer(Reply::new(200, &[("Content-Type", "text/plain")], "")).await;
        let token = SecretString::from("t0ken");
        sign_in()
            .revoke(&done.url, &token, "refresh_token")
            .await
            .unwrap();
        let request = done.requests.recv().await.unwrap();
        assert!(
            request.ends_with("token=t0ken&token_type_hint=refresh_token&client_id=c"),
            "{request}"
        );
        let refused = peer(Reply::json(503, "{}")).await;
        let error = sign_in()
            .revoke(&refused.url, &token, "refresh_token")
            .await;
        assert!(error.unwrap_err().transient);
    }
}
