//! All of an issuer's metadata that a client of it needs (OpenID Connect Discovery §3,
//! RFC 8414 §2); for its keys alone there is [`super::discovery`].

use serde::Deserialize;
use url::Url;

use super::discovery::{oauth_location, oidc_location};
use super::http_client::{HttpClient, is_loopback};
use super::jwks::get_json;
use crate::serde_url;

/// An issuer's metadata. Every URL in it is one to go to.
#[derive(Clone, Debug, Deserialize)]
pub struct ProviderMetadata {
    /// Equal to the identifier asked for, byte by byte.
    pub issuer: String,
    /// Where users sign in.
    #[serde(default, deserialize_with = "serde_url::option::deserialize")]
    pub authorization_endpoint: Option<Url>,
    /// Where codes become tokens.
    #[serde(default, deserialize_with = "serde_url::option::deserialize")]
    pub token_endpoint: Option<Url>,
    /// Its keys.
    #[serde(default, deserialize_with = "serde_url::option::deserialize")]
    pub jwks_uri: Option<Url>,
    /// RFC 7591.
    #[serde(default, deserialize_with = "serde_url::option::deserialize")]
    pub registration_endpoint: Option<Url>,
    /// RFC 8628.
    #[serde(default, deserialize_with = "serde_url::option::deserialize")]
    pub device_authorization_endpoint: Option<Url>,
    /// RFC 7009.
    #[serde(default, deserialize_with = "serde_url::option::deserialize")]
    pub revocation_endpoint: Option<Url>,
    /// RFC 7636; `None`: it does not say.
    pub code_challenge_methods_supported: Option<Vec<String>>,
    /// `None`: it does not say.
    pub scopes_supported: Option<Vec<String>>,
    /// RFC 9207: every answer says whose it is.
    #[serde(default)]
    pub authorization_response_iss_parameter_supported: bool,
}

/// Why there is no metadata. Texts hold nothing of the answers.
#[derive(Clone, Debug, thiserror::Error)]
pub enum MetadataDiscoveryError {
    /// The identifier is no usable URL.
    #[error("--issuer {0}: {1}")]
    Issuer(String, &'static str),
    /// Neither place has it.
    #[error("the issuer's metadata cannot be had: {0}; {1}")]
    Unavailable(String, String),
    /// It is there and cannot be believed.
    #[error("the issuer's metadata {0}")]
    Wrong(String),
}

/// Checks an issuer's identifier: an absolute https URL without query or fragment (http
/// on loopback only).
///
/// # Errors
/// With what to write instead.
pub fn issuer_url(issuer: &str) -> Result<Url, MetadataDiscoveryError> {
    let wrong = |why| MetadataDiscoveryError::Issuer(issuer.to_owned(), why);
    let url = Url::parse(issuer)
        .map_err(|_| wrong("is no URL; write it as the issuer does, https://…"))?;
    if url.scheme() != "https" && !(url.scheme() == "http" && is_loopback(&url)) {
        return Err(wrong("must be https (http is for loopback only)"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("must have neither query nor fragment"));
    }
    Ok(url)
}

/// Whether a URL that `issuer` named is one to go to: https, and never from elsewhere to
/// this machine.
pub fn is_acceptable_url(url: &Url, issuer: &Url) -> bool {
    let (local, at_home) = (is_loopback(url), is_loopback(issuer));
    match url.scheme() {
        "https" => !local || at_home,
        "http" => local && at_home,
        _ => false,
    }
}

impl ProviderMetadata {
    /// Fetches the metadata of exactly this `issuer`.
    ///
    /// # Errors
    /// When it cannot be had, is another issuer's, or names URLs that are not to be used.
    pub async fn discover(
        client: &HttpClient,
        issuer: &str,
    ) -> Result<Self, MetadataDiscoveryError> {
        let url = issuer_url(issuer)?;
        let first = match get_json(client, &oidc_location(&url)).await {
            Ok(answer) => return Self::read(&answer.body, issuer, &url),
            Err(error) => error.to_string(),
        };
        match get_json(client, &oauth_location(&url)).await {
            Ok(answer) => Self::read(&answer.body, issuer, &url),
            Err(second) => Err(MetadataDiscoveryError::Unavailable(
                first,
                second.to_string(),
            )),
        }
    }

    fn read(document: &[u8], issuer: &str, url: &Url) -> Result<Self, MetadataDiscoveryError> {
        let wrong = |what: &str| MetadataDiscoveryError::Wrong(what.to_owned());
        let provider: Self = serde_json::from_slice(document)
            .map_err(|_| wrong("is no JSON object with an issuer and URLs of endpoints"))?;
        if provider.issuer != issuer {
            return Err(wrong(
                "is that of another issuer: check --issuer, to the slash",
            ));
        }
        for (name, endpoint) in provider.endpoints() {
            if endpoint
                .as_ref()
                .is_some_and(|e| !is_acceptable_url(e, url))
            {
                return Err(MetadataDiscoveryError::Wrong(format!(
                    "names a {name} that is not https, or is on loopback"
                )));
            }
        }
        Ok(provider)
    }

    fn endpoints(&self) -> [(&'static str, &Option<Url>); 6] {
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
        ]
    }

    /// An endpoint, or the error that it is not offered.
    ///
    /// # Errors
    /// When the metadata names none.
    pub fn need<'a>(
        &self,
        endpoint: &'a Option<Url>,
        name: &str,
        remedy: &str,
    ) -> Result<&'a Url, MetadataDiscoveryError> {
        endpoint
            .as_ref()
            .ok_or_else(|| MetadataDiscoveryError::Wrong(format!("names no {name}: {remedy}")))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::testing::{Reply, closed_port, peer};
    use super::*;
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
    fn only_the_issuers_own_metadata_with_usable_urls() {
        let provider = read(&json!({"registration_endpoint": "https://b.example/r"})).unwrap();
        assert!(!provider.authorization_response_iss_parameter_supported);
        let missing = provider
            .need(&provider.jwks_uri, "jwks_uri", "x")
            .unwrap_err();
        assert!(missing.to_string().contains("names no jwks_uri"));
        for (changes, said) in [
            (json!({"issuer": "https://a.example"}), "to the slash"),
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
            (json!({"jwks_uri": 5}), "no JSON object"),
        ] {
            let error = read(&changes).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn an_issuer_is_an_https_url() {
        for (issuer, said) in [
            ("a.example", "no URL"),
            ("http://a.example/", "must be https"),
            ("ftp://a.example/", "must be https"),
            ("https://a.example/?x", "query"),
        ] {
            assert!(issuer_url(issuer).unwrap_err().to_string().contains(said));
        }
        assert!(issuer_url("http://127.0.0.1:1/").is_ok());
    }

    #[tokio::test]
    async fn odd_answers_and_none_are_told_apart() {
        let client = key_client(None).unwrap();
        for (reply, said) in [
            (Reply::json(200, "[]"), "no JSON object"),
            (Reply::json(500, "{}"), "500"),
            (Reply::new(302, &[("Location", "/x")], ""), "302"),
            (Reply::json(200, &"x".repeat(300_000)), "larger than"),
        ] {
            let peer = peer(reply).await;
            let error = ProviderMetadata::discover(&client, peer.url.as_str()).await;
            let error = error.unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        let nobody = closed_port().await;
        let error = ProviderMetadata::discover(&client, nobody.as_str())
            .await
            .unwrap_err();
        assert!(error.to_string().contains("cannot be had"), "{error}");
    }
}
