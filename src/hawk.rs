//! Hawk as the Taskcluster auth service checks it: pure functions, no I/O, no clock of
//! its own. Rules: `reference/taskcluster.md` §3 and §4; the Hawk 1.0 specification.

pub mod bewit;
pub mod certificate;
mod grant;
mod header;
mod mac;
mod payload;
mod port;
pub mod scope;

pub use certificate::Certificate;
pub use grant::{CertificateGrant, Grant};
pub use header::{HawkError, MAX_AUTHORIZATION_CHARS, SignedRequest, Signer, nonce};
pub use payload::payload_hash;
pub use port::service_port;

use crate::secret::SecretString;

/// What a request is signed with: a Taskcluster client's, or temporary, credentials.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The client's name. Not a secret.
    pub client_id: String,
    /// The HMAC key.
    pub access_token: SecretString,
    /// Present on temporary credentials; goes into `ext` as an object.
    pub certificate: Option<Certificate>,
    /// Narrows the call. `Some([])` means no scopes at all, which differs from `None`.
    pub authorized_scopes: Option<Vec<String>>,
}
