//! The keys of sources that use Auth0's own protocols (`docs/design/tokens.md`).

use url::Url;

use super::http_url::{require_https, require_origin_only};
use super::oauth_client::ClientKeys;
use super::oauth_source::{check_endpoint, check_scopes};
use super::reader::{Field, Reader, Section, Table, section};
use super::resolved::SourceKind;
use super::value::{Choice, List};
use crate::remote::settings::{ClientProof, OauthClient, PasswordGrant};
use crate::secret::SecretRef;

section! {
    /// Kind `auth0-identity`: the access token that an identity provider behind Auth0 issued for this user.
    /// The route's issuers must be the tenant itself.
    pub(super) struct Auth0Identity {
        /// The tenant, such as "https://example.auth0.com", without a path.
        tenant: Url = [required],
        /// hawkgate's client at the tenant. With `via = "identities"` it needs the scopes read:users and
        /// read:user_idp_tokens of the Management API.
        client_id: String = [required],
        /// The client's secret, sent as `client_secret_post`.
        client_secret: SecretRef = [required],
        /// The `provider` of the user's identity; required with `via = "identities"`, unused otherwise.
        provider: String = [optional],
        /// The connection of the user's identity.
        connection: String = [required],
        /// How the token is obtained. `identities`: from the user's profile in the Management API. `vault`:
        /// by exchanging the caller's token at Token Vault.
        via: Via = [default "'identities'"],
        /// The tenant's custom domain, if the issuers' url uses it: "https://login.example.com".
        custom_domain: Url = [optional],
    }
}

section! {
    /// Kind `password`: a token obtained with the caller's own username and password (HTTP Basic).
    /// Discouraged by RFC 9700 §2.4. Every listener must be loopback or a Unix socket.
    pub(super) struct Password {
        /// The token endpoint.
        token_url: Url = [required],
        /// The user directory that the password is looked up in (Auth0's password-realm grant); the
        /// tenant's default directory when left out.
        realm: String = [optional],
        /// The API that the token is for.
        audience: String = [optional],
        /// The scopes to request. Must not be empty: the server would grant every scope. With
        /// offline_access, a refresh token replaces the password for up to an hour.
        scopes: List<String> = [default "['openid']"],
        /// The base URL of Auth0's MFA API; `/mfa/` on the token endpoint's host when left out.
        mfa_url: Url = [optional],
        /// Sends the client's address to the provider, as auth0-forwarded-for.
        forward_client_ip: bool = [default "false"],
    }
}

/// `via`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Via {
    Identities,
    Vault,
}

impl Choice for Via {
    const NAMES: &'static [&'static str] = &["identities", "vault"];

    fn from_name(name: &str) -> Option<Self> {
        match name {
            "identities" => Some(Self::Identities),
            "vault" => Some(Self::Vault),
            _ => None,
        }
    }
}

impl Auth0Identity {
    pub(super) fn resolve(self, reader: &mut Reader<'_>) -> Option<SourceKind> {
        for url in [&self.tenant, &self.custom_domain] {
            check_endpoint(reader, url);
            if let Some(location) = &url.value {
                require_origin_only(
                    reader,
                    &url.at,
                    location,
                    "a tenant URL consists of scheme and host only",
                );
            }
        }
        let via = self.via(reader);
        Some(SourceKind::Auth0Identity(Box::new(
            crate::remote::settings::Auth0Identity {
                tenant: self.tenant.value?,
                client: OauthClient {
                    id: self.client_id.value?,
                    proof: ClientProof::SecretPost(self.client_secret.value?),
                },
                connection: self.connection.value?,
                via: via?,
                custom_domain: self.custom_domain.optional()?,
            },
        )))
    }

    fn via(&self, reader: &mut Reader<'_>) -> Option<crate::remote::settings::Via> {
        match (self.via.value?, &self.provider.value) {
            (Via::Vault, None) => Some(crate::remote::settings::Via::Vault),
            (Via::Vault, Some(_)) => {
                let problem =
                    "has no effect: Token Vault identifies an identity by its connection alone";
                reader.warn(&self.provider.at, problem, "remove it");
                Some(crate::remote::settings::Via::Vault)
            }
            (Via::Identities, Some(provider)) => Some(crate::remote::settings::Via::Identities {
                provider: provider.clone(),
            }),
            (Via::Identities, None) => {
                if self.provider.is_absent() {
                    let problem = "missing: an identity is selected by its provider and connection";
                    let remedy = "add provider = \"…\", as given in the user's identities";
                    reader.error(&self.provider.at, problem, remedy);
                }
                None
            }
        }
    }
}

impl Password {
    pub(super) fn resolve(self, reader: &mut Reader<'_>, table: &Table<'_>) -> Option<SourceKind> {
        let client = ClientKeys::read(reader, table).resolve(reader, self.token_url.value.as_ref());
        check_endpoint(reader, &self.token_url);
        check_scopes(reader, &self.scopes);
        if self.scopes.value.as_ref().is_some_and(List::is_empty) {
            let problem = "is empty: without scopes, the server would grant every scope";
            reader.error(
                &self.scopes.at,
                problem,
                "list the scopes that the token needs, or leave the key out for [\"openid\"]",
            );
        }
        let mfa_url = check_mfa_url(reader, self.mfa_url, self.token_url.value.as_ref());
        Some(SourceKind::Password(Box::new(PasswordGrant {
            token_url: self.token_url.value?,
            client: client?,
            realm: self.realm.optional()?,
            audience: self.audience.optional()?,
            scopes: self.scopes.value?.into_values(),
            mfa_url: mfa_url?,
            forward_client_ip: self.forward_client_ip.value?,
        })))
    }
}

/// The MFA API's base URL, with a trailing slash; by default `/mfa/` on the token endpoint's host.
fn check_mfa_url(
    reader: &mut Reader<'_>,
    field: Field<Url>,
    token_url: Option<&Url>,
) -> Option<Url> {
    const CLEARTEXT_CODES: &str = "second-factor codes would be sent in cleartext";
    let at = field.at.clone();
    let Some(mut url) = field.optional()? else {
        let mut url = token_url?.clone();
        url.set_query(None);
        url.set_path("/mfa/");
        return Some(url);
    };
    require_https(reader, &at, &url, CLEARTEXT_CODES);
    if url.query().is_some() {
        reader.error(
            &at,
            "has a query",
            "write it like \"https://example.auth0.com/mfa/\"",
        );
        return None;
    }
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    Some(url)
}
