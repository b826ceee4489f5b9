//! The bearer token for requests for an issuer's keys (`keys_token`). The API server of Kubernetes, for
//! example, publishes its keys only to those who authenticate.

use http::HeaderValue;
use url::{Origin, Url};
use zeroize::Zeroizing;

use crate::network::is_loopback;
use crate::secret::SecretRef;
use crate::token::KeyFetchError;

/// A token, and the only origin that it is sent to: that of the configured URL. Whatever else the
/// issuer's metadata names is requested without it.
#[derive(Clone, Debug)]
pub(super) struct KeysToken {
    secret: SecretRef,
    origin: Origin,
}

impl KeysToken {
    /// The token in `secret`, for the origin of `url`.
    pub(super) fn new(secret: SecretRef, url: &Url) -> Self {
        Self {
            secret,
            origin: url.origin(),
        }
    }

    /// The value of `Authorization` for a request to `url`; `None` if the token may not be sent there. The
    /// token is read each time, because Kubernetes replaces those of service accounts.
    ///
    /// # Errors
    /// If the token cannot be read or is not valid in a header.
    pub(super) async fn authorization(
        &self,
        url: &Url,
    ) -> Result<Option<HeaderValue>, KeyFetchError> {
        if !self.is_for(url) {
            return Ok(None);
        }
        let secret = self.secret.clone();
        let token = tokio::task::spawn_blocking(move || secret.read())
            .await
            .map_err(|_| KeyFetchError("reading keys_token was interrupted".into()))?
            .map_err(|error| KeyFetchError(format!("keys_token: {error}")))?;
        header(token.expose()).map(Some)
    }

    /// Whether the token is sent to `url`.
    pub(super) fn is_for(&self, url: &Url) -> bool {
        let encrypted = url.scheme() == "https" || is_loopback(url);
        encrypted && url.origin() == self.origin
    }
}

fn header(token: &str) -> Result<HeaderValue, KeyFetchError> {
    let text = Zeroizing::new(format!("Bearer {token}"));
    let mut value = HeaderValue::from_str(&text).map_err(|_| {
        KeyFetchError("keys_token: it has characters that a bearer token cannot have".into())
    })?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn the_token_is_sent_to_its_own_origin_only() {
        let files = tempfile::tempdir().unwrap();
        let file = files.path().join("token");
        std::fs::write(&file, "hunter2\n").unwrap();
        let secret = SecretRef::File(file.clone());
        let token = KeysToken::new(secret, &url("https://k8s.example:6443/issuer"));
        for (target, sent) in [
            ("https://k8s.example:6443/openid/v1/jwks", true),
            ("https://K8S.example:6443/", true),
            ("https://k8s.example/openid/v1/jwks", false),
            ("https://other.example:6443/", false),
            ("https://sub.k8s.example:6443/", false),
            ("http://k8s.example:6443/", false),
        ] {
            let header = token.authorization(&url(target)).await.unwrap();
            assert_eq!(header.is_some(), sent, "{target}");
            assert!(header.is_none_or(|value| value == "Bearer hunter2" && value.is_sensitive()));
        }
        // Read each time.
        let target = url("https://k8s.example:6443/");
        std::fs::write(&file, "rotated").unwrap();
        let header = token.authorization(&target).await.unwrap().unwrap();
        assert_eq!(header, "Bearer rotated");
        std::fs::write(&file, "a\nhunter2").unwrap();
        let error = token.authorization(&target).await.unwrap_err().to_string();
        assert!(
            error.contains("characters") && !error.contains("hunter2"),
            "{error}"
        );
        std::fs::remove_file(&file).unwrap();
        assert!(token.authorization(&target).await.is_err());
        assert!(
            token
                .authorization(&url("https://b.example/"))
                .await
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn plain_http_is_for_loopback_only() {
        let token = |at| KeysToken::new(SecretRef::Env("X".into()), &url(at));
        assert!(!token("http://k8s.example/").is_for(&url("http://k8s.example/")));
        assert!(token("http://127.0.0.1:8001/").is_for(&url("http://127.0.0.1:8001/keys")));
    }
}
