//! Clients made (RFC 7591) and managed (RFC 7592) at an issuer's registration endpoint.

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;
use zeroize::Zeroizing;

use super::http_client::{HttpClient, HttpResponse, RequestError};
use super::provider_metadata::is_acceptable_url;
use super::retry::{wait, with_retry_after};
use crate::clock::SharedClock;
use crate::registration::{AuthMethod, ClientMetadata, Registration};
use crate::secret::SecretString;
use crate::serde_url;

/// Members of the metadata that an error text may speak of; nothing else of one is repeated.
const REPORTABLE_MEMBERS: [&str; 11] = [
    "redirect_uris",
    "grant_types",
    "response_types",
    "token_endpoint_auth_method",
    "application_type",
    "jwks_uri",
    "jwks",
    "scope",
    "client_uri",
    "contacts",
    "client_name",
];

/// A registration endpoint.
#[derive(Clone, Debug)]
pub struct RegistrationEndpoint {
    client: HttpClient,
    clock: SharedClock,
    /// Nothing that it names is gone to unless this issuer may name it.
    issuer: Url,
}

/// Why a registration was not made, changed or deleted. Texts hold nothing of the answer
/// but names of metadata.
#[derive(Debug, thiserror::Error)]
pub enum RegistrationError {
    /// Definitely nothing was done.
    #[error("{0}")]
    Refused(String),
    /// Our token does not open the way (any more), or there is no such client.
    #[error("{0}")]
    Unauthorized(String),
    /// It may have been done.
    #[error("{0}: the issuer may have done it all the same")]
    OutcomeUnknown(String),
}

/// An answer of the endpoint (RFC 7591 §3.2.1).
#[derive(Deserialize)]
struct ClientInformation {
    client_id: String,
    client_secret: Option<String>,
    #[serde(default)]
    client_secret_expires_at: u64,
    registration_access_token: Option<String>,
    #[serde(default, deserialize_with = "serde_url::option::deserialize")]
    registration_client_uri: Option<Url>,
    token_endpoint_auth_method: Option<String>,
}

impl RegistrationEndpoint {
    /// Of `issuer`, by `client`.
    pub fn new(client: HttpClient, clock: SharedClock, issuer: Url) -> Self {
        Self {
            client,
            clock,
            issuer,
        }
    }

    /// Makes a client (RFC 7591 §3.1). Sent once; only a 429 is tried again.
    ///
    /// # Errors
    /// Saying whether a client may have been made.
    pub async fn create(
        &self,
        endpoint: &Url,
        metadata: &ClientMetadata,
        initial_access_token: Option<&SecretString>,
    ) -> Result<Registration, RegistrationError> {
        let body = json!(metadata.members());
        let answer = self
            .send(Method::POST, endpoint, initial_access_token, Some(&body))
            .await?;
        match answer.status {
            StatusCode::CREATED | StatusCode::OK => self.registration(&answer, metadata, None),
            StatusCode::UNAUTHORIZED if initial_access_token.is_none() => {
                Err(RegistrationError::Unauthorized(
                    "the issuer registers only those who have an initial access token (status 401): \
                     get one from its operator and give --initial-access-token-file"
                        .into(),
                ))
            }
            _ => Err(self.refusal(&answer)),
        }
    }

    /// Makes the client what `metadata` says (RFC 7592 §2.2).
    ///
    /// # Errors
    /// Saying whether it may have been changed.
    pub async fn update(
        &self,
        registration: &Registration,
        metadata: &ClientMetadata,
    ) -> Result<Registration, RegistrationError> {
        let (uri, token) = management(registration)?;
        let mut body = json!(metadata.members());
        body["client_id"] = json!(registration.client_id);
        if let Some(secret) = &registration.client_secret {
            body["client_secret"] = json!(secret.expose());
        }
        let answer = self
            .send(Method::PUT, uri, Some(token), Some(&body))
            .await?;
        match answer.status {
            StatusCode::OK => self.registration(&answer, metadata, Some(registration)),
            _ => Err(self.refusal(&answer)),
        }
    }

    /// Deletes the client (RFC 7592 §2.3).
    ///
    /// # Errors
    /// Saying whether it may have been deleted.
    pub async fn delete(&self, registration: &Registration) -> Result<(), RegistrationError> {
        let (uri, token) = management(registration)?;
        let answer = self.send(Method::DELETE, uri, Some(token), None).await?;
        match answer.status {
            StatusCode::NO_CONTENT | StatusCode::OK => Ok(()),
            _ => Err(self.refusal(&answer)),
        }
    }

    async fn send(
        &self,
        method: Method,
        url: &Url,
        token: Option<&SecretString>,
        body: Option<&Value>,
    ) -> Result<HttpResponse, RegistrationError> {
        let headers = headers(token)?;
        let body = body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
        let send = || {
            self.client
                .request(method.clone(), url, headers.clone(), body.clone())
        };
        with_retry_after(&self.clock, send)
            .await
            .map_err(|e| request_error(&e))
    }

    /// What the issuer made of it. An answer that cannot be read leaves it unclear: a
    /// client is there, and its secret is lost.
    fn registration(
        &self,
        answer: &HttpResponse,
        metadata: &ClientMetadata,
        old: Option<&Registration>,
    ) -> Result<Registration, RegistrationError> {
        let unclear =
            |what: &str| RegistrationError::OutcomeUnknown(format!("the issuer's answer {what}"));
        let written: ClientInformation = serde_json::from_slice(&answer.body)
            .map_err(|_| unclear("is no JSON object with a client_id and URLs"))?;
        let kept = old.map(|old| old.client_id.as_str());
        // RFC 6749 appendix A.1; it is shown on terminals.
        let shown = |id: &str| !id.is_empty() && id.bytes().all(|b| (b' '..=b'~').contains(&b));
        if !shown(&written.client_id) || kept.is_some_and(|kept| kept != written.client_id) {
            return Err(unclear(
                "has no usable client_id, or that of another client",
            ));
        }
        let uri = written.registration_client_uri;
        if uri
            .as_ref()
            .is_some_and(|uri| !is_acceptable_url(uri, &self.issuer))
        {
            return Err(unclear(
                "names a registration_client_uri that is not https, or is on loopback",
            ));
        }
        let said = written.token_endpoint_auth_method.as_deref();
        let method = said
            .and_then(AuthMethod::from_name)
            .or_else(|| metadata.auth_method());
        let secret = written.client_secret.map(SecretString::new);
        // RFC 7591 §2: the default is client_secret_basic.
        let default = secret
            .as_ref()
            .map_or(AuthMethod::None, |_| AuthMethod::ClientSecretBasic);
        Ok(Registration {
            client_id: written.client_id,
            client_secret: secret.or_else(|| old?.client_secret.clone()),
            client_secret_expires_at: written.client_secret_expires_at,
            registration_access_token: written
                .registration_access_token
                .map(SecretString::new)
                .or_else(|| old?.registration_access_token.clone()),
            registration_client_uri: uri.or_else(|| old?.registration_client_uri.clone()),
            auth_method: method.unwrap_or(default),
            metadata: metadata.clone(),
            changed_at: self.clock.now().to_rfc3339(),
            token_endpoint: old.and_then(|old| old.token_endpoint.clone()),
            secret_file: old.and_then(|old| old.secret_file.clone()),
        })
    }

    /// RFC 7591 §3.2.2, RFC 6750 §3.1, and what else there is.
    fn refusal(&self, answer: &HttpResponse) -> RegistrationError {
        let status = answer.status;
        let code = code(answer);
        let told = match code.as_deref() {
            Some("invalid_redirect_uri") => "it accepts no such redirect URI",
            Some("invalid_client_metadata") => "it accepts no such metadata",
            Some("invalid_software_statement") => "the software statement is not valid",
            Some("unapproved_software_statement") => {
                "it does not approve of the software statement"
            }
            Some("invalid_token") => "it does not know the token that was sent, or not any more",
            Some("access_denied" | "insufficient_scope") => {
                "the token that was sent does not allow it"
            }
            _ => match status {
                StatusCode::UNAUTHORIZED => {
                    "it does not know the token that was sent, or there is no such client"
                }
                StatusCode::FORBIDDEN => "it does not allow it; registration may be switched off",
                StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {
                    "registration is not offered there, or is switched off"
                }
                StatusCode::TOO_MANY_REQUESTS => "too many requests",
                _ if status.is_redirection() => "it sends elsewhere, which is not followed",
                _ if status.is_server_error() => "it failed",
                _ => "it refuses",
            },
        };
        let text = format!(
            "the issuer said: {told} (status {}{}){}",
            status.as_u16(),
            code.map(|code| format!(", {code}")).unwrap_or_default(),
            reported_members(answer),
        );
        match status {
            StatusCode::TOO_MANY_REQUESTS => {
                let wait = wait(answer, self.clock.now()).unwrap_or_default();
                RegistrationError::Refused(format!("{text}; try again in {} s", wait.as_secs()))
            }
            StatusCode::UNAUTHORIZED => RegistrationError::Unauthorized(text),
            status if status.is_server_error() || status.is_success() => {
                RegistrationError::OutcomeUnknown(text)
            }
            _ => RegistrationError::Refused(text),
        }
    }
}

fn management(registration: &Registration) -> Result<(&Url, &SecretString), RegistrationError> {
    registration.management().ok_or_else(|| {
        RegistrationError::Refused("the issuer gave no registration token to manage it with".into())
    })
}

fn headers(token: Option<&SecretString>) -> Result<HeaderMap, RegistrationError> {
    let json = HeaderValue::from_static("application/json");
    let mut headers = HeaderMap::from_iter([(ACCEPT, json.clone()), (CONTENT_TYPE, json)]);
    if let Some(token) = token {
        let text = Zeroizing::new(format!("Bearer {}", token.expose()));
        let mut value = HeaderValue::from_str(&text).map_err(|_| {
            RegistrationError::Refused(
                "the access token has characters that no header takes".into(),
            )
        })?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    Ok(headers)
}

fn request_error(request_error: &RequestError) -> RegistrationError {
    let text = request_error.to_string();
    if request_error.maybe_processed {
        RegistrationError::OutcomeUnknown(text)
    } else {
        RegistrationError::Refused(text)
    }
}

/// `error`, if it is a plain word.
fn code(answer: &HttpResponse) -> Option<String> {
    let body: Value = serde_json::from_slice(&answer.body).ok()?;
    let code = body.get("error")?.as_str()?;
    let plain = |b: u8| b.is_ascii_lowercase() || b == b'_';
    ((1..=48).contains(&code.len()) && code.bytes().all(plain)).then(|| code.to_owned())
}

/// The members of the metadata that the answer's description names. The description itself
/// may quote whatever was sent, a token included.
fn reported_members(answer: &HttpResponse) -> String {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let description = body.get("error_description").and_then(Value::as_str);
    let description = description.unwrap_or_default();
    let named: Vec<_> = REPORTABLE_MEMBERS
        .into_iter()
        .filter(|name| description.contains(name))
        .collect();
    if named.is_empty() {
        String::new()
    } else {
        format!("; it speaks of {}", named.join(", "))
    }
}

#[cfg(test)]
mod tests;
