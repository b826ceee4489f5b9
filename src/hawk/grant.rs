//! The scopes stated in credentials. Scopes are not secret: Taskcluster quotes them in its
//! error messages.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::header::Signer;

/// The scopes stated in the `ext` of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Grant {
    /// What the certificate of temporary credentials grants; `None` for permanent ones.
    pub certificate: Option<CertificateGrant>,
    /// What every request is narrowed to, if anything.
    #[serde(rename = "authorizedScopes")]
    pub authorized_scopes: Option<Vec<String>>,
}

/// What a certificate grants.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct CertificateGrant {
    /// The scopes, with roles unexpanded.
    pub scopes: Vec<String>,
}

impl Grant {
    /// What a request may do: the authorized scopes, else the certificate's. `None` if
    /// neither is stated, and the client's own scopes decide.
    pub fn into_scopes(self) -> Option<Vec<String>> {
        self.authorized_scopes
            .or_else(|| Some(self.certificate?.scopes))
    }
}

impl Signer {
    /// The scopes stated in `ext`; nothing else from `ext` is revealed. A certificate of an
    /// unknown shape yields none.
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
    fn a_grant_reveals_scopes_and_nothing_else() {
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
