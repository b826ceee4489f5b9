//! Requests to an issuer's registration endpoint: register (RFC 7591), update and delete (RFC
//! 7592) a client.

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;
use zeroize::Zeroizing;

use super::http_client::{HttpClient, HttpResponse, RequestError};
use super::retry::{retry_delay, with_retry_after};
use super::well_known::is_acceptable_url;
use crate::clock::SharedClock;
use crate::peer_text;
use crate::registration::{AuthMethod, ClientMetadata, Registration};
use crate::secret::SecretString;
use crate::serde_url;

/// Metadata members that hawkgate's error message names if the issuer's error description mentions
/// them. Nothing else of the description is quoted.
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

/// The registration and client configuration endpoints of an issuer.
#[derive(Clone, Debug)]
pub struct RegistrationEndpoint {
    client: HttpClient,
    clock: SharedClock,
    /// Decides which URLs in responses are acceptable.
    issuer: Url,
}

/// Why a client was not registered, updated or deleted. The messages quote nothing from the
/// response except error codes and names of metadata members.
#[derive(Debug, thiserror::Error)]
pub enum RegistrationError {
    /// The request was rejected; nothing has changed.
    #[error("{0}")]
    Refused(String),
    /// The access token was rejected, or the client does not exist; nothing has changed.
    #[error("{0}")]
    Unauthorized(String),
    /// The request may have been processed.
    #[error("{0}: the issuer may have processed it anyway")]
    OutcomeUnknown(String),
}

/// A client information response (RFC 7591 §3.2.1).
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
    /// Creates a client of the registration endpoint of `issuer`.
    pub fn new(client: HttpClient, clock: SharedClock, issuer: Url) -> Self {
        Self {
            client,
            clock,
            issuer,
        }
    }

    /// Registers a client (RFC 7591 §3.1). Retries only after a 429.
    ///
    /// # Errors
    /// Each variant says whether a client may have been created.
    pub async fn register(
        &self,
        endpoint: &Url,
        metadata: &ClientMetadata,
        initial_access_token: Option<&SecretString>,
    ) -> Result<Registration, RegistrationError> {
        let body = json!(metadata.members());
        let response = self
            .send(Method::POST, endpoint, initial_access_token, Some(&body))
            .await?;
        match response.status {
            StatusCode::CREATED | StatusCode::OK => self.registration(&response, metadata, None),
            StatusCode::UNAUTHORIZED if initial_access_token.is_none() => {
                Err(RegistrationError::Unauthorized(
                    "the issuer requires an initial access token (status 401): get one from its \
                     operator and give --initial-access-token-file"
                        .into(),
                ))
            }
            _ => Err(self.rejection(&response)),
        }
    }

    /// Replaces the client's metadata (RFC 7592 §2.2).
    ///
    /// # Errors
    /// Each variant says whether the client may have been changed.
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
        let response = self
            .send(Method::PUT, uri, Some(token), Some(&body))
            .await?;
        match response.status {
            StatusCode::OK => self.registration(&response, metadata, Some(registration)),
            _ => Err(self.rejection(&response)),
        }
    }

    /// Deletes the client (RFC 7592 §2.3).
    ///
    /// # Errors
    /// Each variant says whether the client may have been deleted.
    pub async fn delete(&self, registration: &Registration) -> Result<(), RegistrationError> {
        let (uri, token) = management(registration)?;
        let response = self.send(Method::DELETE, uri, Some(token), None).await?;
        match response.status {
            StatusCode::NO_CONTENT | StatusCode::OK => Ok(()),
            _ => Err(self.rejection(&response)),
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
            .map_err(|e| transport_error(&e))
    }

    /// Reads a successful response. If it is unusable, the outcome counts as unknown: the client
    /// exists, but its secret is lost.
    fn registration(
        &self,
        response: &HttpResponse,
        metadata: &ClientMetadata,
        old: Option<&Registration>,
    ) -> Result<Registration, RegistrationError> {
        let unusable =
            |what: &str| RegistrationError::OutcomeUnknown(format!("the issuer's response {what}"));
        let information: ClientInformation = serde_json::from_slice(&response.body)
            .map_err(|_| unusable("is not a JSON object with a client_id and URLs"))?;
        let old_id = old.map(|old| old.client_id.as_str());
        // RFC 6749 appendix A.1. The client_id is printed to terminals.
        let printable = |id: &str| !id.is_empty() && id.bytes().all(|b| (b' '..=b'~').contains(&b));
        if !printable(&information.client_id)
            || old_id.is_some_and(|id| id != information.client_id)
        {
            return Err(unusable("has an unusable client_id, or another client's"));
        }
        let uri = information.registration_client_uri;
        if uri
            .as_ref()
            .is_some_and(|uri| !is_acceptable_url(uri, &self.issuer))
        {
            return Err(unusable(
                "has a registration_client_uri that is not https, or is on loopback",
            ));
        }
        let method = information.token_endpoint_auth_method.as_deref();
        let method = method
            .and_then(AuthMethod::from_name)
            .or_else(|| metadata.auth_method());
        let secret = information.client_secret.map(SecretString::new);
        // The default is client_secret_basic (RFC 7591 §2).
        let default = secret
            .as_ref()
            .map_or(AuthMethod::None, |_| AuthMethod::ClientSecretBasic);
        Ok(Registration {
            client_id: information.client_id,
            client_secret: secret.or_else(|| old?.client_secret.clone()),
            client_secret_expires_at: information.client_secret_expires_at,
            registration_access_token: information
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

    /// Explains an error response by its code (RFC 7591 §3.2.2, RFC 6750 §3.1), else its status.
    fn rejection(&self, response: &HttpResponse) -> RegistrationError {
        let status = response.status;
        let code = code(response);
        let explanation = match code {
            Some("invalid_redirect_uri") => "it does not accept the redirect URI",
            Some("invalid_client_metadata") => "it does not accept the client metadata",
            Some("invalid_software_statement") => "the software statement is invalid",
            Some("unapproved_software_statement") => "the software statement is not approved",
            Some("invalid_token") => "it does not accept the access token, or no longer does",
            Some("access_denied" | "insufficient_scope") => "the access token does not allow this",
            _ => match status {
                StatusCode::UNAUTHORIZED => {
                    "it does not accept the access token, or the client does not exist"
                }
                StatusCode::FORBIDDEN => "it does not allow this; registration may be disabled",
                StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {
                    "there is no registration endpoint at this URL, or it is disabled"
                }
                StatusCode::TOO_MANY_REQUESTS => "too many requests",
                _ if status.is_redirection() => "it sent a redirect, which is not followed",
                _ if status.is_server_error() => "it had an internal error",
                _ => "it rejected the request",
            },
        };
        let text = format!(
            "the issuer rejected the request: {explanation} (status {}{}){}",
            status.as_u16(),
            code.map(|code| format!(", {code}")).unwrap_or_default(),
            reported_members(response),
        );
        match status {
            StatusCode::TOO_MANY_REQUESTS => {
                let delay = retry_delay(response, self.clock.now()).unwrap_or_default();
                RegistrationError::Refused(format!("{text}; try again in {} s", delay.as_secs()))
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
        RegistrationError::Refused(
            "the issuer gave no registration access token to manage the client with".into(),
        )
    })
}

fn headers(token: Option<&SecretString>) -> Result<HeaderMap, RegistrationError> {
    let json = HeaderValue::from_static("application/json");
    let mut headers = HeaderMap::from_iter([(ACCEPT, json.clone()), (CONTENT_TYPE, json)]);
    if let Some(token) = token {
        let text = Zeroizing::new(format!("Bearer {}", token.expose()));
        let mut value = HeaderValue::from_str(&text).map_err(|_| {
            RegistrationError::Refused(
                "the access token contains characters that are not allowed in a header".into(),
            )
        })?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    Ok(headers)
}

fn transport_error(error: &RequestError) -> RegistrationError {
    let text = error.to_string();
    if error.maybe_processed {
        RegistrationError::OutcomeUnknown(text)
    } else {
        RegistrationError::Refused(text)
    }
}

/// The `error` code, if it has the shape of one.
fn code(response: &HttpResponse) -> Option<&'static str> {
    let body: Value = serde_json::from_slice(&response.body).ok()?;
    peer_text::error_code(body.get("error")?.as_str()?)
}

/// The metadata members that the error description mentions. The description itself is never
/// quoted, because it may quote what was sent, including a token.
fn reported_members(response: &HttpResponse) -> String {
    let body: Value = serde_json::from_slice(&response.body).unwrap_or_default();
    let description = body.get("error_description").and_then(Value::as_str);
    let description = description.unwrap_or_default();
    let named: Vec<_> = REPORTABLE_MEMBERS
        .into_iter()
        .filter(|name| description.contains(name))
        .collect();
    if named.is_empty() {
        String::new()
    } else {
        format!("; it mentions {}", named.join(", "))
    }
}

#[cfg(test)]
mod tests;
