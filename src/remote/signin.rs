//! The requests of the `login`, `token` and `logout` commands to an issuer, built on
//! [`super::oauth`]: exchanging an authorization code (RFC 6749 §4.1.3), the device flow (RFC
//! 8628), refreshing (RFC 6749 §6) and revoking tokens (RFC 7009).

use http::StatusCode;
use serde::Deserialize;
use url::Url;

use super::http_client::HttpClient;
use super::oauth::{Endpoint, Failure, TokenResponse};
use super::well_known::is_acceptable_url;
use crate::clock::SharedClock;
use crate::remote::settings::OauthClient;
use crate::secret::SecretString;
use crate::serde_url;
use crate::signin::{AuthorizationCode, AuthorizationRequest, Tokens};

/// The grant type of RFC 8628 §3.4.
const DEVICE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// The longest user code that is shown, in bytes.
const MAX_USER_CODE: usize = 64;

/// An OAuth client that signs users in at its issuer's endpoints.
#[derive(Clone, Debug)]
pub struct SignInClient {
    client: HttpClient,
    clock: SharedClock,
    oauth_client: OauthClient,
}

/// The tokens of a successful response. The ID token has not been verified yet.
#[derive(Debug)]
pub struct IssuedTokens {
    /// The tokens.
    pub tokens: Tokens,
    /// The ID token, if the response has one.
    pub id_token: Option<SecretString>,
}

/// A device authorization response (RFC 8628 §3.2).
#[derive(Debug)]
pub struct DeviceAuthorization {
    /// The code that the token endpoint is polled with.
    pub device_code: SecretString,
    /// The code that the user enters: printable ASCII.
    pub user_code: String,
    /// Where the user enters the code.
    pub verification_uri: Url,
    /// The same, with the code filled in.
    pub verification_uri_complete: Option<Url>,
    /// The lifetime of the codes, in seconds.
    pub expires_in: u64,
    /// The polling interval in seconds, if the issuer gives one.
    pub interval: Option<u64>,
}

/// Why a request failed. The messages quote nothing from the response except a plain error
/// code.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{text}")]
pub struct SignInError {
    text: String,
    /// The issuer's error code, if it gave one.
    pub code: Option<&'static str>,
    /// Whether retrying may help: there was no response, or the issuer failed.
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
    /// Creates a client that authenticates as `oauth_client`.
    pub fn new(client: HttpClient, clock: SharedClock, oauth_client: OauthClient) -> Self {
        Self {
            client,
            clock,
            oauth_client,
        }
    }

    /// Exchanges an authorization code for tokens.
    ///
    /// # Errors
    /// When the issuer cannot be reached or refuses.
    pub async fn exchange_code(
        &self,
        endpoint: &Url,
        code: &AuthorizationCode,
        request: &AuthorizationRequest,
    ) -> Result<IssuedTokens, SignInError> {
        let mut parameters = vec![
            ("grant_type", "authorization_code"),
            ("code", code.code.expose()),
            ("redirect_uri", code.redirect_uri.as_str()),
            ("code_verifier", code.code_verifier.expose()),
        ];
        parameters.extend(resources(&request.resources));
        self.grant(endpoint, &parameters).await
    }

    /// Exchanges a refresh token for new tokens. If the issuer rotates refresh tokens, the old
    /// one is invalid afterwards. `resource_indicators` are sent as `resource` (RFC 8707).
    ///
    /// # Errors
    /// When the issuer cannot be reached or refuses.
    pub async fn refresh(
        &self,
        endpoint: &Url,
        refresh_token: &SecretString,
        resource_indicators: &[String],
    ) -> Result<IssuedTokens, SignInError> {
        let mut parameters = vec![
            ("grant_type", "refresh_token"),
            ("refresh_token", refresh_token.expose()),
        ];
        parameters.extend(resources(resource_indicators));
        self.grant(endpoint, &parameters).await
    }

    /// Starts the device flow. The user is only sent to URLs that are acceptable for `issuer`.
    ///
    /// # Errors
    /// When the issuer cannot be reached, refuses, or sends an unusable response.
    pub async fn authorize_device(
        &self,
        endpoint: &Url,
        issuer: &Url,
        request: &AuthorizationRequest,
    ) -> Result<DeviceAuthorization, SignInError> {
        let post = self.endpoint(endpoint);
        let response = post.post(&request.parameters()).await.map_err(failed)?;
        let body: DeviceAuthorizationResponse = serde_json::from_slice(&response.body).map_err(|_| {
            unusable(
                "is not a JSON object with a device_code, user_code, verification_uri and expires_in",
            )
        })?;
        let printable = |b: u8| b.is_ascii_graphic() || b == b' ';
        let code = &body.user_code;
        if !(1..=MAX_USER_CODE).contains(&code.len()) || !code.bytes().all(printable) {
            return Err(unusable(
                "has a user_code that is too long or not printable ASCII",
            ));
        }
        let complete = body.verification_uri_complete.as_ref();
        let acceptable = |uri: &Url| is_acceptable_url(uri, issuer);
        if !acceptable(&body.verification_uri) || !complete.is_none_or(acceptable) {
            return Err(unusable(
                "has a verification URI that is not https, or is on loopback",
            ));
        }
        Ok(DeviceAuthorization {
            device_code: SecretString::new(body.device_code),
            user_code: body.user_code,
            verification_uri: body.verification_uri,
            verification_uri_complete: body.verification_uri_complete,
            expires_in: body.expires_in,
            interval: body.interval,
        })
    }

    /// Polls the token endpoint once in the device flow.
    ///
    /// # Errors
    /// Until the user has signed in; [`DevicePolling`](crate::signin::DevicePolling) decides
    /// whether to continue.
    pub async fn poll(
        &self,
        endpoint: &Url,
        authorization: &DeviceAuthorization,
        request: &AuthorizationRequest,
    ) -> Result<IssuedTokens, SignInError> {
        let mut parameters = vec![
            ("grant_type", DEVICE_GRANT),
            ("device_code", authorization.device_code.expose()),
        ];
        parameters.extend(resources(&request.resources));
        self.grant(endpoint, &parameters).await
    }

    /// An access token of the client itself for `audience` (client credentials grant, RFC 6749
    /// §4.4).
    ///
    /// # Errors
    /// When the issuer cannot be reached or refuses.
    pub async fn client_credentials(
        &self,
        endpoint: &Url,
        audience: &str,
    ) -> Result<SecretString, SignInError> {
        let parameters = [("grant_type", "client_credentials"), ("audience", audience)];
        let response = self.grant(endpoint, &parameters).await?;
        Ok(response.tokens.access_token)
    }

    /// Revokes a token (RFC 7009 §2); `hint` is `refresh_token` or `access_token`.
    ///
    /// # Errors
    /// When the issuer cannot be reached or refuses; the token may then still be valid.
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
            .and_then(|response| {
                if response.status == StatusCode::OK || response.status == StatusCode::NO_CONTENT {
                    Ok(())
                } else {
                    Err(unusable("neither confirms the revocation nor is an error"))
                }
            })
    }

    async fn grant(
        &self,
        endpoint: &Url,
        parameters: &[(&str, &str)],
    ) -> Result<IssuedTokens, SignInError> {
        let response = self.endpoint(endpoint).grant(parameters).await;
        response.map(issued_tokens).map_err(failed)
    }

    fn endpoint(&self, url: &Url) -> Endpoint {
        let (oauth_client, client) = (self.oauth_client.clone(), self.client.clone());
        Endpoint::new(url.clone(), oauth_client, client, self.clock.clone())
    }
}

fn resources(resources: &[String]) -> impl Iterator<Item = (&str, &str)> {
    resources.iter().map(|r| ("resource", r.as_str()))
}

fn issued_tokens(response: TokenResponse) -> IssuedTokens {
    IssuedTokens {
        tokens: Tokens {
            access_token: response.access_token,
            expires_at: response.expires_at.map(|at| at.0),
            refresh_token: response.refresh_token,
            scope: response.scope.map(|scopes| scopes.join(" ")),
        },
        id_token: response.id_token,
    }
}

fn unusable(what: &str) -> SignInError {
    SignInError {
        text: format!("the issuer's response {what}"),
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
        Failure::ErrorResponse(error) => SignInError {
            text: format!(
                "the issuer refused: {}{}",
                error.cause(),
                remedy(error.code)
            ),
            transient: error.status.is_server_error()
                || error.status == StatusCode::TOO_MANY_REQUESTS,
            code: error.code,
        },
        Failure::Unusable(error) => SignInError {
            text: error.to_string(),
            code: None,
            transient: false,
        },
    }
}

/// What the user can do about an error code (RFC 6749 §5.2).
fn remedy(code: Option<&str>) -> &'static str {
    match code {
        Some("invalid_client") => ": check the client identifier, its secret and --auth-method",
        Some("unauthorized_client") => ": the client may not use this grant type",
        Some("invalid_grant") => ": the code or token is used up, expired or revoked",
        Some("invalid_scope") => ": check --scope",
        Some("invalid_target") => ": check --resource and --audience",
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
    use crate::remote::settings::ClientProof;

    fn sign_in() -> SignInClient {
        let options = HttpClientOptions {
            timeout: std::time::Duration::from_millis(300),
            max_bytes: 16 * 1024,
            ca: None,
            network: crate::network::Network::default(),
        };
        let oauth_client = OauthClient {
            id: "c".into(),
            proof: ClientProof::Public,
        };
        SignInClient::new(
            HttpClient::new(&options).unwrap(),
            SystemClock::shared(),
            oauth_client,
        )
    }

    async fn authorize(response: Value) -> Result<DeviceAuthorization, SignInError> {
        let peer = peer(Reply::json(200, &response.to_string())).await;
        let issuer: Url = "https://issuer.example/".parse().unwrap();
        sign_in()
            .authorize_device(&peer.url, &issuer, &AuthorizationRequest::default())
            .await
    }

    #[tokio::test]
    async fn a_device_authorization_with_unsafe_codes_or_uris_is_rejected() {
        let good = json!({"device_code": "d3vice-code", "user_code": "ABCD-EFGH", "expires_in": 600,
            "verification_uri": "https://issuer.example/device"});
        let read = authorize(good.clone()).await.unwrap();
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
            let error = authorize(bad).await.unwrap_err();
            assert!(!error.to_string().contains("d3vice-code"), "{error}");
        }
    }

    #[tokio::test]
    async fn token_endpoint_errors_are_classified_without_quoting_the_response() {
        let refresh = "r3fresh-token".into();
        for (reply, transient, expected) in [
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
                text.contains(expected) && !text.contains("r3fresh-token"),
                "{expected}: {text}"
            );
            assert_eq!(error.transient, transient, "{text}");
        }
        let closed = closed_port().await;
        let error = sign_in().refresh(&closed, &refresh, &[]).await.unwrap_err();
        assert!(error.transient);
    }

    #[tokio::test]
    async fn revocation_accepts_an_empty_response() {
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
