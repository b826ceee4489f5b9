//! The issuer metadata that sessions and the commands `register` and `login` need: endpoints and
//! supported features (OpenID Connect Discovery §3, RFC 8414 §2). [`super::discovery`] reads only
//! the `jwks_uri`, for the proxy.

mod cache;

pub use cache::{MetadataCache, MetadataUnavailable};

use serde::Deserialize;
use url::Url;

use super::http_client::{HttpClient, is_loopback};
use super::well_known::{
    get_json, is_acceptable_url, oauth_authorization_server, openid_configuration,
};
use crate::serde_url;

/// An issuer's metadata. Every URL in it has been checked with
/// `well_known::is_acceptable_url`.
#[derive(Clone, Debug, Deserialize)]
pub struct ProviderMetadata {
    /// The issuer identifier, byte for byte the one requested.
    pub issuer: String,
    /// Where users sign in.
    #[serde(default, deserialize_with = "serde_url::option::deserialize")]
    pub authorization_endpoint: Option<Url>,
    /// Where grants are exchanged for tokens.
    #[serde(default, deserialize_with = "serde_url::option::deserialize")]
    pub token_endpoint: Option<Url>,
    /// The issuer's JWK Set.
    #[serde(default, deserialize_with = "serde_url::option::deserialize")]
    pub jwks_uri: Option<Url>,
    /// Dynamic client registration (RFC 7591).
    #[serde(default, deserialize_with = "serde_url::option::deserialize")]
    pub registration_endpoint: Option<Url>,
    /// The device flow (RFC 8628).
    #[serde(default, deserialize_with = "serde_url::option::deserialize")]
    pub device_authorization_endpoint: Option<Url>,
    /// Token revocation (RFC 7009).
    #[serde(default, deserialize_with = "serde_url::option::deserialize")]
    pub revocation_endpoint: Option<Url>,
    /// RP-initiated logout (OpenID Connect RP-Initiated Logout 1.0 §2.1).
    #[serde(default, deserialize_with = "serde_url::option::deserialize")]
    pub end_session_endpoint: Option<Url>,
    /// PKCE methods (RFC 7636); `None` if the issuer does not say.
    pub code_challenge_methods_supported: Option<Vec<String>>,
    /// Supported scopes; `None` if the issuer does not say.
    pub scopes_supported: Option<Vec<String>>,
    /// Whether every authorization response has an `iss` parameter (RFC 9207).
    #[serde(default)]
    pub authorization_response_iss_parameter_supported: bool,
}

/// Why the metadata cannot be used. The messages quote nothing from the responses.
#[derive(Clone, Debug, thiserror::Error)]
pub enum MetadataDiscoveryError {
    /// The identifier is not a usable URL.
    #[error("--issuer {0}: {1}")]
    Issuer(String, &'static str),
    /// It is at neither well-known location.
    #[error("cannot fetch the issuer's metadata: {0}")]
    Unavailable(String),
    /// The document is invalid or lacks a required endpoint.
    #[error("the issuer's metadata {0}")]
    Invalid(String),
}

/// Checks an issuer identifier: an absolute https URL without query or fragment (http on
/// loopback only).
///
/// # Errors
/// When it is not; the message says what to write instead.
pub fn issuer_url(issuer: &str) -> Result<Url, MetadataDiscoveryError> {
    let wrong = |why| MetadataDiscoveryError::Issuer(issuer.to_owned(), why);
    let url = Url::parse(issuer)
        .map_err(|_| wrong("is not a URL; write it as the issuer does, https://…"))?;
    if url.scheme() != "https" && !(url.scheme() == "http" && is_loopback(&url)) {
        return Err(wrong("must be https (http is for loopback only)"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("must have neither query nor fragment"));
    }
    Ok(url)
}

impl ProviderMetadata {
    /// Fetches the metadata of exactly this `issuer`.
    ///
    /// # Errors
    /// When it cannot be fetched, names another issuer, or has URLs that may not be used.
    pub async fn discover(
        client: &HttpClient,
        issuer: &str,
    ) -> Result<Self, MetadataDiscoveryError> {
        let url = issuer_url(issuer)?;
        let first = match get_json(client, &openid_configuration(&url), None, None).await {
            Ok(response) => return Self::read(&response.body, issuer, &url),
            Err(error) if error.no_response => {
                return Err(MetadataDiscoveryError::Unavailable(error.to_string()));
            }
            Err(error) => error.to_string(),
        };
        match get_json(client, &oauth_authorization_server(&url), None, None).await {
            Ok(response) => Self::read(&response.body, issuer, &url),
            Err(second) => {
                let both = format!("{first}; {second}");
                Err(MetadataDiscoveryError::Unavailable(both))
            }
        }
    }

    pub(super) fn read(
        document: &[u8],
        issuer: &str,
        url: &Url,
    ) -> Result<Self, MetadataDiscoveryError> {
        let invalid = |what: &str| MetadataDiscoveryError::Invalid(what.to_owned());
        let provider: Self = serde_json::from_slice(document)
            .map_err(|_| invalid("is not a JSON object with an issuer and endpoint URLs"))?;
        if provider.issuer != issuer {
            return Err(invalid(
                "names another issuer: check the issuer's URL, including any trailing slash",
            ));
        }
        for (name, endpoint) in provider.endpoints() {
            if endpoint
                .as_ref()
                .is_some_and(|e| !is_acceptable_url(e, url))
            {
                return Err(MetadataDiscoveryError::Invalid(format!(
                    "has a {name} that is not https, or is on loopback"
                )));
            }
        }
        Ok(provider)
    }

    fn endpoints(&self) -> [(&'static str, &Option<Url>); 7] {
        [
            ("authorization_endpoint", &self.authorization_endpoint),
            ("token_endpoint", &self.token_endpoint),
            ("jwks_uri", &self.jwks_uri),
            ("registration_endpoint", &self.registration_endpoint),
            (
                "device_authorization_endpoint",
                &self.device_authorization_endpoint,
            ),
            ("revocation_endpoint", &self.revocation_endpoint),
            ("end_session_endpoint", &self.end_session_endpoint),
        ]
    }

    /// Unwraps an optional endpoint called `name`.
    ///
    /// # Errors
    /// When the metadata does not have it; the message ends with `remedy`.
    pub fn require<'a>(
        &self,
        endpoint: &'a Option<Url>,
        name: &str,
        remedy: &str,
    ) -> Result<&'a Url, MetadataDiscoveryError> {
        endpoint
            .as_ref()
            .ok_or_else(|| MetadataDiscoveryError::Invalid(format!("has no {name}: {remedy}")))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::testing::{Reply, closed_port, peer};
    use super::*;
    use crate::network::Network;
    use crate::remote::jwks::key_client;

    fn read(changes: &Value) -> Result<ProviderMetadata, String> {
        let mut document =
            json!({"issuer": "https://a.example/", "token_endpoint": "https://a.example/t"});
        for (name, value) in changes.as_object().unwrap() {
            document[name] = value.clone();
        }
        let url = issuer_url("https://a.example/").unwrap();
        ProviderMetadata::read(document.to_string().as_bytes(), "https://a.example/", &url)
            .map_err(|e| e.to_string())
    }

    #[test]
    fn metadata_of_another_issuer_or_with_unusable_urls_is_rejected() {
        let provider = read(&json!({"registration_endpoint": "https://b.example/r"})).unwrap();
        assert!(!provider.authorization_response_iss_parameter_supported);
        let missing = provider
            .require(&provider.jwks_uri, "jwks_uri", "x")
            .unwrap_err();
        assert!(missing.to_string().contains("has no jwks_uri"));
        for (changes, expected) in [
            (json!({"issuer": "https://a.example"}), "trailing slash"),
            (
                json!({"token_endpoint": "http://a.example/t"}),
                "token_endpoint",
            ),
            (
                json!({"registration_endpoint": "https://127.0.0.1/r"}),
                "loopback",
            ),
            (
                json!({"revocation_endpoint": "file:///etc/passwd"}),
                "revocation_endpoint",
            ),
            (json!({"jwks_uri": 5}), "not a JSON object"),
        ] {
            let error = read(&changes).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn an_issuer_identifier_must_be_an_https_url() {
        for (issuer, expected) in [
            ("a.example", "not a URL"),
            ("http://a.example/", "must be https"),
            ("ftp://a.example/", "must be https"),
            ("https://a.example/?x", "query"),
        ] {
            assert!(
                issuer_url(issuer)
                    .unwrap_err()
                    .to_string()
                    .contains(expected)
            );
        }
        assert!(issuer_url("http://127.0.0.1:1/").is_ok());
    }

    #[tokio::test]
    async fn invalid_and_unavailable_metadata_are_distinguished() {
        let client = key_client(None, &Network::default()).unwrap();
        for (reply, expected) in [
            (Reply::json(200, "[]"), "not a JSON object"),
            (Reply::json(500, "{}"), "500"),
            (Reply::new(302, &[("Location", "/x")], ""), "302"),
            (Reply::json(200, &"x".repeat(300_000)), "larger than"),
        ] {
            let peer = peer(reply).await;
            let error = ProviderMetadata::discover(&client, peer.url.as_str()).await;
            let error = error.unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let closed = closed_port().await;
        let error = ProviderMetadata::discover(&client, closed.as_str())
            .await
            .unwrap_err();
        let error = error.to_string();
        assert!(error.contains("cannot fetch"), "{error}");
        assert_eq!(error.matches("refused").count(), 1, "{error}");
    }
}
