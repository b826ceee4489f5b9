//! hawkgate's own client at somebody else's OAuth2 endpoints.

use super::Algorithm;
use crate::secret::SecretRef;

/// An OAuth2 client of hawkgate's own, and how it proves that it is the one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OauthClient {
    /// `client_id`. Not a secret.
    pub id: String,
    /// How it authenticates.
    pub proof: ClientProof,
}

/// Client authentication by the names of RFC 7591 §2 (`token_endpoint_auth_method`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientProof {
    /// `client_secret_basic`: in an Authorization header (RFC 6749 §2.3.1).
    SecretBasic(SecretRef),
    /// `client_secret_post`: in the form.
    SecretPost(SecretRef),
    /// `private_key_jwt` (RFC 7523 §2.2, OpenID Connect Core §9).
    PrivateKeyJwt(AssertionKey),
    /// `none`: a public client says who it is and proves nothing.
    Public,
}

/// What `private_key_jwt` signs with and for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssertionKey {
    /// A private key in PEM.
    pub key: SecretRef,
    /// `kid` of the assertion's header.
    pub key_id: Option<String>,
    /// By the key's kind when `None`.
    pub algorithm: Option<Algorithm>,
    /// `aud` of the assertion: the authorization server's issuer, else its token endpoint.
    pub audience: String,
}
