//! What credentials grant, as far as they say so themselves. Scopes are no secret: the
//! upstream repeats them in its own errors.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::Signer;

/// The scopes that credentials carry with them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Grant {
    /// Of temporary credentials: what the certificate grants. `None` for permanent ones.
    pub certificate: Option<CertificateGrant>,
    /// What every call is narrowed to, if it is.
    #[serde(rename = "authorizedScopes")]
    pub authorized_scopes: Option<Vec<String>>,
}

/// What a certificate grants.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct CertificateGrant {
    /// Its scopes.
    pub scopes: Vec<String>,
}

impl Signer {
    /// What these credentials grant by their own word; nothing else of `ext` gets out. A
    /// certificate of an unknown shape says nothing.
    pub fn grant(&self) -> Grant {
        let json = STANDARD.decode(self.ext.expose()).map(Zeroizing::new);
        json.ok()
            .and_then(|json| serde_json::from_slice(&json).ok())
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hawk::{Certificate, Credentials};
    use crate::secret::SecretString;

    fn grant(certificate: Option<&str>, scopes: Option<&[&str]>) -> Grant {
        let credentials = Credentials {
            client_id: "c".into(),
            access_token: SecretString::from("key"),
            certificate: certificate.map(|text| Certificate::parse(text).unwrap()),
            authorized_scopes: scopes.map(|s| s.iter().map(ToString::to_string).collect()),
        };
        Signer::new(&credentials).unwrap().grant()
    }

    #[test]
    fn tells_scopes_and_nothing_else() {
        assert_eq!(grant(None, None), Grant::default());
        let certificate =
            r#"{"version":1,"scopes":["a","b:*"],"seed":"hidden","signature":"hidden"}"#;
        let both = grant(Some(certificate), Some(&[]));
        assert_eq!(both.certificate.as_ref().unwrap().scopes, ["a", "b:*"]);
        assert_eq!(both.authorized_scopes.as_deref(), Some(&[][..]));
        assert!(!format!("{both:?}").contains("hidden"));
        let odd = grant(Some(r#"{"scopes":"all"}"#), None);
        assert_eq!(odd, Grant::default());
    }
}
