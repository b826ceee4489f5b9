//! Auth0's MFA API: which second factors an account has, and having one asked for
//! (`/mfa/authenticators`, `/mfa/challenge`; identity.md §F).

use http::header::{ACCEPT, AUTHORIZATION};
use http::{HeaderMap, HeaderValue};
use serde::Deserialize;
use serde_json::Value;
use url::Url;
use zeroize::Zeroizing;

use super::grant::{SignInError, problem};
use crate::clock::SharedClock;
use crate::config::{ClientProof, OauthClient};
use crate::credential::{FetchError, SignInProblem};
use crate::remote::http_client::{HttpClient, HttpResponse};
use crate::remote::oauth::{About, Denied, Endpoint, Failure};
use crate::remote::taskcluster_exchange::unreachable;
use crate::secret::SecretString;

/// The MFA API of one tenant.
#[derive(Debug)]
pub(super) struct MfaApi {
    authenticators: Url,
    challenges: Endpoint,
    client: HttpClient,
    clock: SharedClock,
}

/// What the user has to do.
pub(super) enum MfaStep {
    /// Send a code: of an app, or a recovery code.
    EnterCode,
    /// Confirm on another device, or repeat the code that it is sent.
    OutOfBand {
        oob_code: SecretString,
        /// Whether there is a code to repeat (`binding_method` is `prompt`).
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
    /// `base` ends in `/`.
    pub(super) fn new(
        base: &Url,
        own: &OauthClient,
        client: HttpClient,
        clock: SharedClock,
    ) -> Self {
        let below = |name: &str| {
            let mut url = base.clone();
            url.set_path(&format!("{}{name}", base.path()));
            url
        };
        // This API knows a client's secret in the body only.
        let proof = match &own.proof {
            ClientProof::SecretBasic(secret) => ClientProof::SecretPost(secret.clone()),
            other => other.clone(),
        };
        let own = OauthClient {
            id: own.id.clone(),
            proof,
        };
        Self {
            authenticators: below("authenticators"),
            challenges: Endpoint::new(below("challenge"), own, client.clone(), clock.clone()),
            client,
            clock,
        }
    }

    /// Looks what the account has: a code that the user can produce at any time is preferred
    /// to one that has to be sent.
    pub(super) async fn ask(&self, mfa_token: &SecretString) -> Result<MfaStep, SignInError> {
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
            .map_err(|_| bad("the mfa_token cannot stand in a header"))?;
        value.set_sensitive(true);
        let mut headers = HeaderMap::with_capacity(2);
        headers.insert(AUTHORIZATION, value);
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let answer = self.client.get(&self.authenticators, headers).await;
        let answer = answer.map_err(|e| SignInError::Other(unreachable(e)))?;
        let status = answer.status;
        if status.is_client_error() || status.is_server_error() {
            let denied = Denied::read(&answer, self.clock.now());
            return Err(refused(denied, "/mfa/authenticators"));
        }
        if status != http::StatusCode::OK {
            let text = format!("/mfa/authenticators: status {}", status.as_u16());
            return Err(bad(&text));
        }
        read(&answer, "/mfa/authenticators")
    }

    async fn challenge(&self, mfa_token: &SecretString, id: &str) -> Result<MfaStep, SignInError> {
        let parameters = [
            ("mfa_token", mfa_token.expose()),
            ("challenge_type", "oob"),
            ("authenticator_id", id),
        ];
        let answer = match self.challenges.post_json(&parameters).await {
            Ok(answer) => answer,
            Err(Failure::Denied(denied)) => return Err(refused(denied, "/mfa/challenge")),
            Err(other) => return Err(SignInError::Other(other.into_fetch_error(About::Ourselves))),
        };
        let challenge: ChallengeResponse = read(&answer, "/mfa/challenge")?;
        match (challenge.kind.as_str(), challenge.oob_code) {
            ("otp", _) => Ok(MfaStep::EnterCode),
            ("oob", Some(code)) if !code.is_empty() => Ok(MfaStep::OutOfBand {
                oob_code: SecretString::new(code),
                needs_binding_code: matches!(&challenge.binding_method, Some(Value::String(m)) if m == "prompt"),
            }),
            _ => Err(bad("/mfa/challenge: the answer is no challenge")),
        }
    }
}

fn read<T: serde::de::DeserializeOwned>(
    answer: &HttpResponse,
    place: &str,
) -> Result<T, SignInError> {
    if !answer.is_json() {
        return Err(bad(&format!("{place}: the answer is not JSON")));
    }
    // serde's own text would quote from the body.
    serde_json::from_slice(&answer.body).map_err(|_| {
        bad(&format!(
            "{place}: the answer does not have the right shape"
        ))
    })
}

fn refused(denied: Denied, place: &str) -> SignInError {
    let cause = format!("{place}: {}", denied.cause());
    if denied.is("unsupported_challenge_type") || denied.is("association_required") {
        return no_factor(&cause);
    }
    // The step before was a moment ago: an mfa_token that is refused now has expired.
    if denied.is("expired_token") || denied.is("invalid_grant") {
        return SignInError::Other(problem(SignInProblem::CodeRefused, cause, None));
    }
    SignInError::Other(Failure::Denied(denied).into_fetch_error(About::Ourselves))
}

fn no_factor(cause: &str) -> SignInError {
    let cause = cause.to_owned();
    SignInError::Other(problem(SignInProblem::NoFactor, cause, None))
}

fn bad(what: &str) -> SignInError {
    SignInError::Other(FetchError::BadAnswer(what.to_owned()))
}
