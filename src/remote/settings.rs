//! Settings of hawkgate's own OAuth2 clients, and of the sources that use them.

use std::path::PathBuf;

use url::Url;

use crate::secret::SecretRef;
use crate::token::settings::Algorithm;

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

/// Source `auth0-identity`: the identity provider's own access token of the user.
#[derive(Clone, Debug, PartialEq)]
pub struct Auth0Identity {
    /// The tenant: scheme and host, no path.
    pub tenant: Url,
    /// hawkgate's client there.
    pub client: OauthClient,
    /// Which connection's identity.
    pub connection: String,
    /// How the token is had.
    pub via: Via,
    /// What issuers of this tenant's tokens are called, where it is not `tenant`.
    pub custom_domain: Option<Url>,
}

/// `via`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Via {
    /// Out of `identities[]` of the Management API.
    Identities {
        /// Which provider's identity.
        provider: String,
    },
    /// By an exchange of the caller's token with Token Vault.
    Vault,
}

/// Source `password`: a token had with the caller's username and password.
#[derive(Clone, Debug, PartialEq)]
pub struct PasswordGrant {
    /// The token endpoint.
    pub token_url: Url,
    /// hawkgate's client there; never a public one.
    pub client: OauthClient,
    /// The directory that the password is looked up in; the tenant's default when `None`.
    pub realm: Option<String>,
    /// Which API the token is for.
    pub audience: Option<String>,
    /// What is asked for; never empty, because then everything would be granted.
    pub scopes: Vec<String>,
    /// What the second factor's endpoints begin with; ends in `/`.
    pub mfa_url: Url,
    /// Whether the provider is told the caller's address.
    pub forward_client_ip: bool,
}

/// Where tokens of an `introspection` issuer are looked up.
#[derive(Clone, Debug, PartialEq)]
pub struct IntrospectionEndpoint {
    /// The introspection endpoint.
    pub url: Url,
    /// hawkgate's client there.
    pub client: OauthClient,
    /// PEM file with the only CAs trusted for the endpoint; the platform's when `None`.
    pub ca: Option<PathBuf>,
}
