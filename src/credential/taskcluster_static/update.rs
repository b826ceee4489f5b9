//! Replacement credentials in the format of taskcluster-proxy's `PUT /credentials`
//! (`docs/design/taskcluster.md`, "taskcluster-proxy").

use serde::Deserialize;
use serde::de::IgnoredAny;
use zeroize::Zeroizing;

use super::local;
use crate::credential::FetchError;
use crate::hawk::certificate::{CertificateError, is_client_id};
use crate::hawk::{Certificate, Credentials};
use crate::secret::SecretString;

/// The largest accepted body, in bytes. The longest certificate fits even with every character
/// escaped.
pub const MAX_UPDATE_BYTES: usize = 64 * 1024;

/// Why replacement credentials are rejected. No message quotes any part of them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpdateError {
    /// Not the expected JSON.
    #[error(
        "the body must be a JSON object with the strings clientId, accessToken and, for temporary credentials, certificate"
    )]
    Json,
    /// Larger than [`MAX_UPDATE_BYTES`].
    #[error("the body is larger than {MAX_UPDATE_BYTES} bytes")]
    TooLarge,
    /// Scopes that the credentials are to be narrowed to, which would be ignored.
    #[error("authorizedScopes cannot be set here: write authorized_scopes in the configuration")]
    AuthorizedScopes,
    /// Taskcluster would not accept this clientId.
    #[error("clientId is not valid: use only letters, digits and !@/:.+|_-")]
    ClientId,
    /// The accessToken is empty.
    #[error("accessToken is empty")]
    NoKey,
    /// The certificate is unusable.
    #[error("certificate: {0}")]
    Certificate(#[from] CertificateError),
    /// No `Authorization` header can be built from them.
    #[error("{0}")]
    Unusable(String),
}

/// What workers send is the `credentials` of a claim, to which the queue may add members.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct UpdateRequest {
    client_id: String,
    access_token: Secret,
    /// Empty, null or absent for permanent credentials.
    certificate: Option<Secret>,
    /// Null or absent.
    authorized_scopes: Option<IgnoredAny>,
}

/// A string that is zeroized on drop.
#[derive(Deserialize)]
#[serde(from = "String")]
struct Secret(Zeroizing<String>);

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

/// Parses the body of an update.
pub(in crate::credential) fn parse(body: &[u8]) -> Result<Credentials, UpdateError> {
    if body.len() > MAX_UPDATE_BYTES {
        return Err(UpdateError::TooLarge);
    }
    // serde_json's own message may quote the body.
    let request: UpdateRequest = serde_json::from_slice(body).map_err(|_| UpdateError::Json)?;
    if request.authorized_scopes.is_some() {
        return Err(UpdateError::AuthorizedScopes);
    }
    if !is_client_id(&request.client_id) {
        return Err(UpdateError::ClientId);
    }
    if request.access_token.0.is_empty() {
        return Err(UpdateError::NoKey);
    }
    let certificate = request.certificate.filter(|text| !text.0.is_empty());
    Ok(Credentials {
        client_id: request.client_id,
        access_token: SecretString::from(request.access_token.0.as_str()),
        certificate: certificate
            .map(|text| Certificate::parse(&text.0))
            .transpose()?,
        authorized_scopes: None,
    })
}

/// Checks that a request can be signed with `credentials`, narrowed to `scopes`.
pub(in crate::credential) fn check(
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
