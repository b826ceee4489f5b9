//! Auth0's MFA API: which second factors an account has, and having one asked for
//! (`/mfa/authenticators`, `/mfa/challenge`; identity.md §F).

use http::header::{ACCEPT, AUTHORIZATION};
use http::{HeaderMap, HeaderValue};
use serde::Deserialize;
use serde_json::Value;
use url::Url;
use zeroize::Zeroizing;

use super::sign_in::{Refusal, problem};
use crate::clock::SharedClock;
use crate::credential::{FetchError, SignInProblem};
use crate::remote::client::{Answer, Client};
use crate::remote::oauth::{About, Denied, Endpoint, Failure};
use crate::remote::settings::{ClientProof, OauthClient};
use crate::remote::taskcluster::unreachable;
use crate::secret::SecretString;

/// The MFA API of one tenant.
#[derive(Debug)]
pub(super) struct Mfa {
    authenticators: Url,
    challenges: Endpoint,
    client: Client,
    clock: SharedClock,
}

/// What the user has to do.
pub(super) enum Asked {
    /// Send a code: of an app, or a recovery code.
    Code,
    /// Confirm on another device, or repeat the code that it is sent.
    OutOfBand {
        oob_code: SecretString,
        /// Whether there is a code to repeat (`binding_method` is `prompt`).
        prompts: bool,
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
struct Challenge {
    #[serde(rename = "challenge_type")]
    kind: String,
    oob_code: Option<String>,
    binding_method: Option<Value>,
}

impl Mfa {
    /// `base` ends in `/`.
    pub(super) fn new(base: &Url, own: &OauthClient, client: Client, clock: SharedClock) -> Self {
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
    pub(super) async fn ask(&self, mfa_token: &SecretString) -> Result<Asked, Refusal> {
        let all = self.authenticators(mfa_token).await?;
        let first = |kind: &str| all.iter().find(|a| a.active && a.kind == kind);
        if first("otp").is_some() {
            return Ok(Asked::Code);
        }
        if let Some(device) = first("oob") {
            return self.challenge(mfa_token, &device.id).await;
        }
        if first("recovery-code").is_some() {
            return Ok(Asked::Code);
        }
        Err(no_factor("the account has no active second factor"))
    }

    async fn authenticators(
        &self,
        mfa_token: &SecretString,
    ) -> Result<Vec<Authenticator>, Refusal> {
        let text = Zeroizing::new(format!("Bearer {}", mfa_token.expose()));
        let mut value = HeaderValue::from_str(&text)
            .map_err(|_| bad("the mfa_token cannot stand in a header"))?;
        value.set_sensitive(true);
        let mut headers = HeaderMap::with_capacity(2);
        headers.insert(AUTHORIZATION, value);
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let answer = self.client.get(&self.authenticators, headers).await;
        let answer = answer.map_err(|e| Refusal::Other(unreachable(e)))?;
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

    async fn challenge(&self, mfa_token: &SecretString, id: &str) -> Result<Asked, Refusal> {
        let parameters = [
            ("mfa_token", mfa_token.expose()),
            ("challenge_type", "oob"),
            ("authenticator_id", id),
        ];
        let answer = match self.challenges.post_json(&parameters).await {
            Ok(answer) => answer,
            Err(Failure::Denied(denied)) => return Err(refused(denied, "/mfa/challenge")),
            Err(other) => return Err(Refusal::Other(other.into_fetch_error(About::Ourselves))),
        };
        let challenge: Challenge = read(&answer, "/mfa/challenge")?;
        match (challenge.kind.as_str(), challenge.oob_code) {
            ("otp", _) => Ok(Asked::Code),
            ("oob", Some(code)) if !code.is_empty() => Ok(Asked::OutOfBand {
                oob_code: SecretString::new(code),
                prompts: matches!(&challenge.binding_method, Some(Value::String(m)) if m == "prompt"),
            }),
            _ => Err(bad("/mfa/challenge: the answer is no challenge")),
        }
    }
}

fn read<T: serde::de::DeserializeOwned>(answer: &Answer, place: &str) -> Result<T, Refusal> {
    if !answer.says_json() {
        return Err(bad(&format!("{place}: the answer is not JSON")));
    }
    // serde's own text would quote from the body.
    serde_json::from_slice(&answer.body).map_err(|_| {
        bad(&format!(
            "{place}: the answer does not have the right shape"
        ))
    })
}

fn refused(denied: Denied, place: &str) -> Refusal {
    let cause = format!("{place}: {}", denied.cause());
    if denied.is("unsupported_challenge_type") || denied.is("association_required") {
        return no_factor(&cause);
    }
    // The step before was a moment ago: an mfa_token that is refused now has expired.
    if denied.is("expired_token") || denied.is("invalid_grant") {
        return Refusal::Other(problem(SignInProblem::CodeRefused, cause, None));
    }
    Refusal::Other(Failure::Denied(denied).into_fetch_error(About::Ourselves))
}

fn no_factor(cause: &str) -> Refusal {
    let cause = cause.to_owned();
    Refusal::Other(problem(SignInProblem::NoFactor, cause, None))
}

fn bad(what: &str) -> Refusal {
    Refusal::Other(FetchError::BadAnswer(what.to_owned()))
}
