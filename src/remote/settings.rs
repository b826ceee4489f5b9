//! Settings of hawkgate's own OAuth 2.0 clients and of the sources that use them.

use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use crate::secret::SecretRef;
use crate::token::settings::Algorithm;

/// One of hawkgate's own OAuth 2.0 clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OauthClient {
    /// `client_id`. Not a secret.
    pub id: String,
    /// How it authenticates.
    pub proof: ClientProof,
}

/// How a client authenticates (`token_endpoint_auth_method`, RFC 7591 §2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientProof {
    /// `client_secret_basic`: in an Authorization header (RFC 6749 §2.3.1).
    SecretBasic(SecretRef),
    /// `client_secret_post`: in the form-encoded body (RFC 6749 §2.3.1).
    SecretPost(SecretRef),
    /// `private_key_jwt` (RFC 7523 §2.2, OpenID Connect Core §9).
    PrivateKeyJwt(AssertionKey),
    /// `none`: a public client sends only its `client_id`.
    Public,
}

/// The key and audience of `private_key_jwt` assertions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssertionKey {
    /// The private key, in PEM form.
    pub key: SecretRef,
    /// The `kid` in the assertion's header.
    pub key_id: Option<String>,
    /// The algorithm; derived from the key if `None`.
    pub algorithm: Option<Algorithm>,
    /// The `aud` of the assertion: the authorization server's issuer, or else the endpoint's URL.
    pub audience: String,
}

/// Source `auth0-identity`: the user's access token from an upstream identity provider.
#[derive(Clone, Debug, PartialEq)]
pub struct Auth0Identity {
    /// The tenant's URL: scheme and host, without a path.
    pub tenant: Url,
    /// hawkgate's client at the tenant.
    pub client: OauthClient,
    /// The connection whose identity is used.
    pub connection: String,
    /// Where the user's token comes from.
    pub via: Via,
    /// The tenant's custom domain, if its tokens have that as their issuer instead of `tenant`.
    pub custom_domain: Option<Url>,
}

/// Where the user's token comes from (`via`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Via {
    /// From `identities[]` of the Management API.
    Identities {
        /// The provider whose identity is used.
        provider: String,
    },
    /// From Token Vault, by exchanging the caller's token.
    Vault,
}

/// Source `password`: a token obtained with the caller's username and password.
#[derive(Clone, Debug, PartialEq)]
pub struct PasswordGrant {
    /// The token endpoint.
    pub token_url: Url,
    /// hawkgate's client at the token endpoint; never a public client.
    pub client: OauthClient,
    /// The user directory that the password is looked up in; the tenant's default when `None`.
    pub realm: Option<String>,
    /// The API that the token is for.
    pub audience: Option<String>,
    /// The scopes requested. Never empty, because Auth0 would then grant every scope.
    pub scopes: Vec<String>,
    /// The base URL of the MFA API; ends in `/`.
    pub mfa_url: Url,
    /// Whether the caller's address is forwarded to the provider.
    pub forward_client_ip: bool,
}

/// The provider of a `[[session]]` of kind `oidc`.
#[derive(Clone, Debug, PartialEq)]
pub struct OidcProviderSettings {
    /// The issuer identifier, exactly as the provider's metadata has it.
    pub issuer: String,
    /// hawkgate's client at the provider. The `audience` of a `private_key_jwt` client is the
    /// issuer identifier.
    pub client: OauthClient,
    /// The APIs that tokens are for, sent as `resource` (RFC 8707).
    pub resources: Vec<String>,
    /// PEM file with the only CAs trusted for the provider; the system's when `None`.
    pub ca: Option<PathBuf>,
    /// The limit for one request to the provider.
    pub timeout: Duration,
}

/// The provider of a `[[session]]` of kind `taskcluster`: the deployment's web-server.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskclusterProviderSettings {
    /// The deployment's root URL; path, query and fragment are ignored.
    pub root_url: Url,
    /// The OAuth2 client that is registered with the deployment. Not a secret.
    pub client_id: String,
    /// PEM file with the only CAs trusted for the deployment; the system's when `None`.
    pub ca: Option<PathBuf>,
    /// The limit for one request to the deployment.
    pub timeout: Duration,
}

/// The introspection endpoint of an `introspection` issuer.
#[derive(Clone, Debug, PartialEq)]
pub struct IntrospectionEndpoint {
    /// The endpoint's URL.
    pub url: Url,
    /// hawkgate's client at the endpoint.
    pub client: OauthClient,
    /// PEM file with the only CAs trusted for the endpoint; the system's when `None`.
    pub ca: Option<PathBuf>,
}
