//! Auth0's MFA API: lists an account's second factors and challenges the user for one
//! (`/mfa/authenticators`, `/mfa/challenge`; `docs/design/tokens.md`, "Passwords and MFA").

use http::header::{ACCEPT, AUTHORIZATION};
use http::{HeaderMap, HeaderValue};
use serde::Deserialize;
use serde_json::Value;
use url::Url;
use zeroize::Zeroizing;

use super::error::{SignInError, problem};
use crate::clock::SharedClock;
use crate::credential::{FetchError, SignInProblem};
use crate::remote::credential_source::unreachable;
use crate::remote::http_client::{HttpClient, HttpResponse};
use crate::remote::oauth::{Endpoint, ErrorResponse, Failure, OnBehalfOf, not_json};
use crate::remote::settings::{ClientProof, OauthClient};
use crate::secret::SecretString;

/// The MFA API of one tenant.
#[derive(Debug)]
pub(super) struct MfaApi {
    authenticators: Url,
    challenges: Endpoint,
    client: HttpClient,
    clock: SharedClock,
}

/// What the user has to do next.
pub(super) enum MfaStep {
    /// Enter a code from an authenticator app, or a recovery code.
    EnterCode,
    /// Confirm on another device, or enter the code that was sent to it.
    OutOfBand {
        oob_code: SecretString,
        /// Whether a code was sent (`binding_method` is `prompt`).
        needs_binding_code: bool,
    },
}

#[derive(Deserialize)]
struct Authenticator {
    #[serde(default)]
    id: String,
    #[serde(rename = "authenticator_type")]
    kind: String,
    #[serde(default)]
    active: bool,
}

#[derive(Deserialize)]
struct ChallengeResponse {
    #[serde(rename = "challenge_type")]
    kind: String,
    oob_code: Option<String>,
    binding_method: Option<Value>,
}

impl MfaApi {
    /// `base` must end in `/`.
    pub(super) fn new(
        base: &Url,
        oauth_client: &OauthClient,
        client: HttpClient,
        clock: SharedClock,
    ) -> Self {
        let url = |name: &str| {
            let mut url = base.clone();
            url.set_path(&format!("{}{name}", base.path()));
            url
        };
        // This API accepts a client secret only in the body.
        let proof = match &oauth_client.proof {
            ClientProof::SecretBasic(secret) => ClientProof::SecretPost(secret.clone()),
            other => other.clone(),
        };
        let oauth_client = OauthClient {
            id: oauth_client.id.clone(),
            proof,
        };
        Self {
            authenticators: url("authenticators"),
            challenges: Endpoint::new(
                url("challenge"),
                oauth_client,
                client.clone(),
                clock.clone(),
            ),
            client,
            clock,
        }
    }

    /// Starts MFA with the account's best factor: an authenticator app, which needs no challenge,
    /// else an out-of-band device, else a recovery code.
    pub(super) async fn start(&self, mfa_token: &SecretString) -> Result<MfaStep, SignInError> {
        let all = self.authenticators(mfa_token).await?;
        let first = |kind: &str| all.iter().find(|a| a.active && a.kind == kind);
        if first("otp").is_some() {
            return Ok(MfaStep::EnterCode);
        }
        if let Some(device) = first("oob") {
            return self.challenge(mfa_token, &device.id).await;
        }
        if first("recovery-code").is_some() {
            return Ok(MfaStep::EnterCode);
        }
        Err(no_factor("the account has no active second factor"))
    }

    async fn authenticators(
        &self,
        mfa_token: &SecretString,
    ) -> Result<Vec<Authenticator>, SignInError> {
        let text = Zeroizing::new(format!("Bearer {}", mfa_token.expose()));
        let mut value = HeaderValue::from_str(&text)
            .map_err(|_| bad("the mfa_token is not allowed in a header"))?;
        value.set_sensitive(true);
        let mut headers = HeaderMap::with_capacity(2);
        headers.insert(AUTHORIZATION, value);
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let response = self.client.get(&self.authenticators, headers).await;
        let response = response.map_err(|e| SignInError::Other(unreachable(e)))?;
        let status = response.status;
        if status.is_client_error() || status.is_server_error() {
            let error = ErrorResponse::read(&response, self.clock.now());
            return Err(refused(error, "/mfa/authenticators"));
        }
        if status != http::StatusCode::OK {
            let text = format!("/mfa/authenticators: status {}", status.as_u16());
            return Err(bad(&text));
        }
        read(&response, "/mfa/authenticators")
    }

    async fn challenge(&self, mfa_token: &SecretString, id: &str) -> Result<MfaStep, SignInError> {
        let parameters = [
            ("mfa_token", mfa_token.expose()),
            ("challenge_type", "oob"),
            ("authenticator_id", id),
        ];
        let response = match self.challenges.post_json(&parameters).await {
            Ok(response) => response,
            Err(Failure::ErrorResponse(error)) => return Err(refused(error, "/mfa/challenge")),
            Err(other) => {
                return Err(SignInError::Other(
                    other.into_fetch_error(OnBehalfOf::Client),
                ));
            }
        };
        let challenge: ChallengeResponse = read(&response, "/mfa/challenge")?;
        match (challenge.kind.as_str(), challenge.oob_code) {
            ("otp", _) => Ok(MfaStep::EnterCode),
            ("oob", Some(code)) if !code.is_empty() => Ok(MfaStep::OutOfBand {
                oob_code: SecretString::new(code),
                needs_binding_code: matches!(&challenge.binding_method, Some(Value::String(m)) if m == "prompt"),
            }),
            _ => Err(bad("/mfa/challenge: the response is not a challenge")),
        }
    }
}

fn read<T: serde::de::DeserializeOwned>(
    response: &HttpResponse,
    path: &str,
) -> Result<T, SignInError> {
    if !response.is_json() {
        return Err(bad(&format!("{path}: {}", not_json(response))));
    }
    // serde's own message may quote the body.
    serde_json::from_slice(&response.body).map_err(|_| {
        bad(&format!(
            "{path}: the response does not have the documented shape"
        ))
    })
}

fn refused(error: ErrorResponse, path: &str) -> SignInError {
    let cause = format!("{path}: {}", error.cause());
    if error.is("unsupported_challenge_type") || error.is("association_required") {
        return no_factor(&cause);
    }
    // The mfa_token was issued moments ago, so if it is rejected now it has expired.
    if error.is("expired_token") || error.is("invalid_grant") {
        return SignInError::Other(problem(SignInProblem::CodeRefused, cause, None));
    }
    SignInError::Other(Failure::ErrorResponse(error).into_fetch_error(OnBehalfOf::Client))
}

fn no_factor(cause: &str) -> SignInError {
    let cause = cause.to_owned();
    SignInError::Other(problem(SignInProblem::NoFactor, cause, None))
}

fn bad(what: &str) -> SignInError {
    SignInError::Other(FetchError::BadAnswer(what.to_owned()))
}
