//! Hawk as the Taskcluster auth service verifies it: pure functions without I/O or a clock.
//! The rules are those of the Hawk 1.0 specification and `docs/design/taskcluster.md`, "Hawk
//! as Taskcluster checks it".

pub mod bewit;
pub mod certificate;
mod encoding;
mod error;
mod grant;
mod header;
mod mac;
mod payload;
mod port;
pub mod scope;

pub use certificate::Certificate;
pub use error::{HawkError, MAX_AUTHORIZATION_CHARS};
pub use grant::{CertificateGrant, Grant};
pub use header::{SignedRequest, Signer, mac_in, nonce};
pub use payload::payload_hash;
pub use port::service_port;

use crate::secret::SecretString;

/// Taskcluster credentials, permanent or temporary.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The clientId. Not a secret.
    pub client_id: String,
    /// The HMAC key.
    pub access_token: SecretString,
    /// Present for temporary credentials; sent in `ext` as a JSON object.
    pub certificate: Option<Certificate>,
    /// The scopes that the request is narrowed to. `Some([])` means none at all; `None`
    /// means no narrowing.
    pub authorized_scopes: Option<Vec<String>>,
}
