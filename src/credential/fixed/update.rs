//! New credentials as taskcluster-proxy takes them (taskcluster.md §7).

use serde::Deserialize;
use zeroize::Zeroizing;

use super::local;
use crate::credential::FetchError;
use crate::hawk::certificate::{CertificateError, is_client_id};
use crate::hawk::{Certificate, Credentials};
use crate::secret::SecretString;

/// The largest body of new credentials, in bytes: the longest certificate, written with
/// every character escaped, fits.
pub const MAX_UPDATE_BYTES: usize = 64 * 1024;

/// Why new credentials are not taken. None of the texts repeats anything of them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpdateError {
    /// Not the JSON that it must be.
    #[error(
        "write a JSON object of clientId, accessToken and, for temporary credentials, certificate, each a string"
    )]
    Json,
    /// Larger than [`MAX_UPDATE_BYTES`].
    #[error("the body is larger than {MAX_UPDATE_BYTES} bytes")]
    TooLarge,
    /// The name is not what Taskcluster takes as a clientId.
    #[error("clientId is not a valid clientId: letters, digits and !@/:.+|_- only")]
    ClientId,
    /// There is no key.
    #[error("accessToken is empty")]
    NoKey,
    /// The certificate is unusable.
    #[error("certificate: {0}")]
    Certificate(#[from] CertificateError),
    /// No header could be made with them.
    #[error("{0}")]
    Unusable(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    client_id: String,
    access_token: Secret,
    /// Empty, null or left out for permanent credentials.
    certificate: Option<Secret>,
}

/// A string that is wiped.
#[derive(Deserialize)]
#[serde(from = "String")]
struct Secret(Zeroizing<String>);

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

/// Reads the body of an update.
pub(super) fn parse(body: &[u8]) -> Result<Credentials, UpdateError> {
    if body.len() > MAX_UPDATE_BYTES {
        return Err(UpdateError::TooLarge);
    }
    // serde_json's own message may quote the body.
    let written: Written = serde_json::from_slice(body).map_err(|_| UpdateError::Json)?;
    if !is_client_id(&written.client_id) {
        return Err(UpdateError::ClientId);
    }
    if written.access_token.0.is_empty() {
        return Err(UpdateError::NoKey);
    }
    let certificate = written.certificate.filter(|text| !text.0.is_empty());
    Ok(Credentials {
        client_id: written.client_id,
        access_token: SecretString::from(written.access_token.0.as_str()),
        certificate: certificate
            .map(|text| Certificate::parse(&text.0))
            .transpose()?,
        authorized_scopes: None,
    })
}

/// Whether a request can be signed with them and the scopes that the settings narrow to.
pub(super) fn check(
    credentials: &Credentials,
    scopes: Option<&[String]>,
) -> Result<(), UpdateError> {
    let narrowed = Credentials {
        authorized_scopes: scopes.map(<[String]>::to_vec),
        ..credentials.clone()
    };
    match local::credential(&narrowed) {
        Ok(_) => Ok(()),
        Err(FetchError::TooLarge(cause) | FetchError::BadAnswer(cause)) => {
            Err(UpdateError::Unusable(cause))
        }
        Err(other) => Err(UpdateError::Unusable(other.to_string())),
    }
}
