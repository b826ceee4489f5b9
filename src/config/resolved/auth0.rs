//! Sources that speak Auth0's own protocols (seeds 001 and 003).

use url::Url;

use super::OauthClient;

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
