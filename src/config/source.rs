//! `[[source]]`

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use super::auth0_source::{Auth0Identity, Password};
use super::diagnostic::quoted;
use super::http_url::{require_https, require_origin_only};
use super::oauth_client::ClientKeys;
use super::oauth_source::{ClientCredentials, InjectKeys, TokenExchange, resolve_inject};
use super::reader::{Field, Key, Reader, Section, Table, section};
use super::references::Declaration;
use super::resolved::{self, SourceKind};
use super::static_source::StaticSecret;
use super::units::show_duration;
use super::value::{Choice, List, Nested};
use crate::credential::taskcluster_mint::{MintSettings, NameTemplate, TemplateError};
use crate::credential::taskcluster_static::StaticSettings;
use crate::hawk::certificate::{MAX_LIFETIME, is_client_id};
use crate::hawk::scope::is_valid as is_scope;
use crate::proxy::settings::Address;
use crate::secret::SecretRef;

section! {
    /// A source of upstream credentials.
    pub(super) struct Source {
        /// Unique among sources; a metric label.
        name: Arc<str> = [required],
        /// How upstream credentials are obtained.
        kind: Kind = [required],
        /// Time limit for one exchange, all attempts together; 100ms to 5m.
        timeout: Duration = [default "'10s'"],
        /// Limit of concurrent exchanges; 1 to 10000.
        concurrency: u64 = [default "32"],
        /// PEM file with the only CAs trusted for the exchange; the platform's when left out.
        ca: PathBuf = [optional],
        /// The header that carries bearer credentials upstream; `Authorization: Bearer {token}` when left
        /// out. Hawk always uses Authorization.
        inject: Nested<InjectKeys> = [optional],
    }
}

section! {
    /// Kind `taskcluster-login`: the credentials that an oidcCredentials endpoint returns for the caller's
    /// token.
    pub(super) struct Login {
        /// The endpoint itself: "https://login.example.com/v1/oidc-credentials/mozilla-auth0".
        url: Url = [required],
    }
}

section! {
    /// Kind `taskcluster-oauth`: the credentials that a deployment's `/login/oauth/credentials` returns for
    /// the caller's token. These tokens are opaque, so the route's issuer must be of kind `delegated`.
    pub(super) struct Oauth {
        /// The deployment's root URL, without a path.
        root_url: Url = [required],
    }
}

section! {
    /// Kind `taskcluster-mint`: named temporary credentials, created by hawkgate with an issuing client.
    pub(super) struct Mint {
        /// The issuing client; it must have `auth:create-client:<name>` and the scopes below.
        client_id: String = [required],
        /// Its access token.
        access_token: SecretRef = [required],
        /// The callers' client name upstream: a template over claims, such as "sso/{sub}".
        client_name: String = [required],
        /// The scopes to grant to each caller.
        scopes: List<String> = [required],
        /// How long the credentials are valid; 1m to 31d.
        lifetime: Duration = [default "'1h'"],
    }
}

section! {
    /// Kind `taskcluster-static`: one fixed client for all callers.
    pub(super) struct Static {
        /// The client.
        client_id: String = [required],
        /// Its access token.
        access_token: SecretRef = [required],
        /// Its certificate, if the credentials are temporary.
        certificate: SecretRef = [optional],
        /// Restricts every request to these scopes; `[]` means none; all scopes of the client when left
        /// out.
        authorized_scopes: List<String> = [optional],
        /// Lets `PUT /credentials` on the admin listener replace these credentials, until hawkgate
        /// restarts or reloads a file that changes this source. The admin listener must be loopback or a
        /// Unix socket.
        credentials_update: bool = [default "false"],
    }
}

const CLEARTEXT_TOKENS: &str = "callers' tokens would be sent in cleartext";

/// `source.kind`
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    Login,
    Oauth,
    Mint,
    Static,
    ClientCredentials,
    TokenExchange,
    Auth0Identity,
    Password,
    StaticSecret,
}

/// A kind's name, the kind, its documentation, and its keys in one or two lists.
type KindEntry = (&'static str, Kind, &'static str, &'static [&'static [Key]]);

/// Every kind with its keys.
pub(super) const KINDS: &[KindEntry] = &[
    (
        "taskcluster-login",
        Kind::Login,
        Login::ABOUT,
        &[Login::KEYS],
    ),
    (
        "taskcluster-oauth",
        Kind::Oauth,
        Oauth::ABOUT,
        &[Oauth::KEYS],
    ),
    ("taskcluster-mint", Kind::Mint, Mint::ABOUT, &[Mint::KEYS]),
    (
        "taskcluster-static",
        Kind::Static,
        Static::ABOUT,
        &[Static::KEYS],
    ),
    (
        "client-credentials",
        Kind::ClientCredentials,
        ClientCredentials::ABOUT,
        &[ClientCredentials::KEYS, ClientKeys::KEYS],
    ),
    (
        "token-exchange",
        Kind::TokenExchange,
        TokenExchange::ABOUT,
        &[TokenExchange::KEYS, ClientKeys::KEYS],
    ),
    (
        "auth0-identity",
        Kind::Auth0Identity,
        Auth0Identity::ABOUT,
        &[Auth0Identity::KEYS],
    ),
    (
        "password",
        Kind::Password,
        Password::ABOUT,
        &[Password::KEYS, ClientKeys::KEYS],
    ),
    (
        "static",
        Kind::StaticSecret,
        StaticSecret::ABOUT,
        &[StaticSecret::KEYS],
    ),
];

impl Choice for Kind {
    const NAMES: &'static [&'static str] = &{
        let mut names = [""; KINDS.len()];
        let mut index = 0;
        while index < names.len() {
            names[index] = KINDS[index].0;
            index += 1;
        }
        names
    };

    fn from_name(name: &str) -> Option<Self> {
        KINDS.iter().find(|kind| kind.0 == name).map(|kind| kind.1)
    }
}

/// Reads one `[[source]]`.
pub(super) fn read(reader: &mut Reader<'_>, table: &Table<'_>) -> Declaration<resolved::Source> {
    let source = Source::read(reader, table);
    let mut declaration = Declaration::new(&table.at, &source.name, None);
    declaration.value = source.resolve(reader, table);
    declaration
}

impl Source {
    fn resolve(self, reader: &mut Reader<'_>, table: &Table<'_>) -> Option<resolved::Source> {
        let (shortest, longest) = (Duration::from_millis(100), Duration::from_mins(5));
        reader.check_range(&self.timeout, shortest, longest, show_duration);
        reader.check_range(&self.concurrency, 1, 10_000, |n| n.to_string());
        if let Some(ca) = &self.ca.value {
            reader.check_cas(&self.ca.at, ca);
        }
        let kind = self.kind.value?;
        refuse_unknown(reader, table, kind);
        if self.ca.given && matches!(kind, Kind::Mint | Kind::Static | Kind::StaticSecret) {
            reader.warn(
                &self.ca.at,
                "has no effect: sources of this kind make no requests",
                "remove it",
            );
        }
        let bearer = matches!(
            kind,
            Kind::ClientCredentials
                | Kind::TokenExchange
                | Kind::Auth0Identity
                | Kind::Password
                | Kind::StaticSecret
        );
        if self.inject.given && !bearer {
            let problem = "has no effect: Hawk always uses the header Authorization";
            reader.error(&self.inject.at, problem, "remove it");
        }
        let kind_name = KINDS.iter().find(|k| k.1 == kind).map_or("", |k| k.0);
        let kind = match kind {
            Kind::Login => Login::read(reader, table).resolve(reader),
            Kind::Oauth => Oauth::read(reader, table).resolve(reader),
            Kind::Mint => Mint::read(reader, table).resolve(reader),
            Kind::Static => Static::read(reader, table).resolve(reader),
            Kind::ClientCredentials => {
                ClientCredentials::read(reader, table).resolve(reader, table)
            }
            Kind::TokenExchange => TokenExchange::read(reader, table).resolve(reader, table),
            Kind::Auth0Identity => Auth0Identity::read(reader, table).resolve(reader),
            Kind::Password => Password::read(reader, table).resolve(reader, table),
            Kind::StaticSecret => StaticSecret::read(reader, table).resolve(reader, &self.inject),
        };
        let inject = resolve_inject(reader, self.inject);
        Some(resolved::Source {
            name: self.name.value?,
            kind_name,
            kind: kind?,
            timeout: self.timeout.value?,
            concurrency: usize::try_from(self.concurrency.value?).ok()?,
            ca: self.ca.optional()?,
            inject: inject?.unwrap_or_default(),
        })
    }
}

fn refuse_unknown(reader: &mut Reader<'_>, table: &Table<'_>, kind: Kind) {
    let own = KINDS.iter().find(|k| k.1 == kind);
    let mut listings = vec![Source::KEYS];
    listings.extend(own.map_or(&[][..], |k| k.3));
    reader.refuse_unknown(table, &listings, |name| {
        let owners: Vec<_> = KINDS
            .iter()
            .filter(|k| {
                k.3.iter()
                    .any(|keys| keys.iter().any(|key| key.name == name))
            })
            .map(|k| k.0)
            .collect();
        let kind = own.map_or("", |k| k.0);
        (!owners.is_empty()).then(|| {
            let problem = format!("belongs to kind {}, not to {kind}", owners.join(" or "));
            (problem, "remove it, or change kind".into())
        })
    });
}

impl Login {
    fn resolve(self, reader: &mut Reader<'_>) -> Option<SourceKind> {
        let url = self.url.value?;
        require_https(reader, &self.url.at, &url, CLEARTEXT_TOKENS);
        Some(SourceKind::TaskclusterLogin { url })
    }
}

impl Oauth {
    fn resolve(self, reader: &mut Reader<'_>) -> Option<SourceKind> {
        let root_url = self.root_url.value?;
        require_https(reader, &self.root_url.at, &root_url, CLEARTEXT_TOKENS);
        require_origin_only(
            reader,
            &self.root_url.at,
            &root_url,
            "a root URL consists of scheme and host only",
        );
        Some(SourceKind::TaskclusterOauth { root_url })
    }
}

impl Mint {
    fn resolve(self, reader: &mut Reader<'_>) -> Option<SourceKind> {
        check_client_id(reader, &self.client_id);
        self.check_client_name(reader);
        check_scopes(reader, &self.scopes);
        if let Some(scopes) = &self.scopes.value
            && scopes.is_empty()
        {
            let problem = "is empty: the credentials would grant nothing";
            reader.error(
                &self.scopes.at,
                problem,
                "list the scopes to grant to callers",
            );
        }
        let shortest = Duration::from_mins(1);
        reader.check_range(&self.lifetime, shortest, MAX_LIFETIME, show_duration);
        self.check_minting(reader);
        Some(SourceKind::TaskclusterMint {
            client_id: self.client_id.value?,
            access_token: self.access_token.value?,
            client_name: self.client_name.value?,
            scopes: self.scopes.value?.into_values(),
            lifetime: self.lifetime.value?,
        })
    }

    /// Mints credentials once, if nothing that they need is known to be invalid.
    fn check_minting(&self, reader: &mut Reader<'_>) {
        let (Some(client_id), Some(access_token), Some(name), Some(scopes), Some(lifetime)) = (
            &self.client_id.value,
            &self.access_token.value,
            &self.client_name.value,
            &self.scopes.value,
            self.lifetime.value,
        ) else {
            return;
        };
        let Ok(client_name) = NameTemplate::parse(name) else {
            return;
        };
        let settings = MintSettings {
            client_id: client_id.clone(),
            access_token: access_token.clone(),
            client_name,
            scopes: scopes.values().cloned().collect(),
            lifetime,
        };
        let valid = is_client_id(client_id)
            && settings.scopes.iter().all(|scope| is_scope(scope))
            && lifetime <= MAX_LIFETIME
            && !lifetime.is_zero()
            && name != client_id;
        if !reader.reads_files() || !valid {
            return;
        }
        if let Err(unusable) = settings.check() {
            let at = match unusable.key {
                "access_token" => &self.access_token.at,
                "scopes" => &self.scopes.at,
                _ => &self.client_name.at,
            };
            reader.error(at, unusable.problem, remedy_for(unusable.key));
        }
    }

    fn check_client_name(&self, reader: &mut Reader<'_>) {
        let Some(template) = &self.client_name.value else {
            return;
        };
        let at = &self.client_name.at;
        let claims = match template_claims(template) {
            Ok(claims) => claims,
            Err(problem) => {
                reader.error(
                    at,
                    format!("{} is not a template: {problem}", quoted(template)),
                    "write it like \"sso/{sub}\"",
                );
                return;
            }
        };
        if self.client_id.value.as_ref() == Some(template) {
            let problem = "is the issuing client itself, which Taskcluster rejects";
            reader.error(at, problem, "use a claim in the name, as in \"sso/{sub}\"");
        } else if claims.is_empty() {
            let problem = "contains no claim: every caller would have the same name upstream";
            reader.warn(at, problem, "write it like \"sso/{sub}\"");
        }
    }
}

/// The claims that a client name's template uses, in order: `{sub}`, `{https://example.com/nick}`.
///
/// # Errors
/// If the template is invalid.
pub(super) fn template_claims(template: &str) -> Result<Vec<String>, TemplateError> {
    let template = NameTemplate::parse(template)?;
    Ok(template.claims().map(str::to_owned).collect())
}

impl Static {
    fn resolve(self, reader: &mut Reader<'_>) -> Option<SourceKind> {
        check_client_id(reader, &self.client_id);
        check_scopes(reader, &self.authorized_scopes);
        self.check_signing(reader);
        Some(SourceKind::TaskclusterStatic {
            client_id: self.client_id.value?,
            access_token: self.access_token.value?,
            certificate: self.certificate.optional()?,
            authorized_scopes: self.authorized_scopes.optional()?.map(List::into_values),
            credentials_update: self.credentials_update.value?,
        })
    }
}

impl Static {
    /// Signs once, if nothing that this needs is known to be invalid.
    fn check_signing(&self, reader: &mut Reader<'_>) {
        let (Some(client_id), Some(access_token)) =
            (&self.client_id.value, &self.access_token.value)
        else {
            return;
        };
        if !reader.reads_files()
            || !is_client_id(client_id)
            || (self.certificate.given && self.certificate.value.is_none())
        {
            return;
        }
        let scopes = self.authorized_scopes.value.as_ref();
        let settings = StaticSettings {
            client_id: client_id.clone(),
            access_token: access_token.clone(),
            certificate: self.certificate.value.clone(),
            authorized_scopes: scopes.map(|list| list.values().cloned().collect()),
        };
        if let Err(unusable) = settings.check() {
            let at = match unusable.key {
                "access_token" => &self.access_token.at,
                "certificate" => &self.certificate.at,
                _ => &self.authorized_scopes.at,
            };
            reader.error(at, unusable.problem, remedy_for(unusable.key));
        }
    }
}

/// What to do about credentials that cannot sign because of `key`.
fn remedy_for(key: &str) -> &'static str {
    match key {
        "access_token" => "use the client's access token, exactly as Taskcluster shows it",
        "certificate" => "use the whole certificate that came with the access token, as JSON",
        "scopes" | "authorized_scopes" => "grant fewer or shorter scopes",
        _ => "write it like \"sso/{sub}\"",
    }
}

/// Refuses `credentials_update` if other machines can reach the admin listener.
pub(super) fn refuse_remote_credential_updates(
    reader: &mut Reader<'_>,
    admin: Option<&Address>,
    sources: &[Declaration<resolved::Source>],
) {
    let Some(admin) = admin.filter(|admin| !admin.is_local()) else {
        return;
    };
    for declaration in sources {
        let updates = declaration.value.as_ref().is_some_and(|source| {
            matches!(
                source.kind,
                SourceKind::TaskclusterStatic {
                    credentials_update: true,
                    ..
                }
            )
        });
        if updates {
            let problem = format!(
                "credentials_update would let anyone who can reach server.admin ({admin}) replace its credentials"
            );
            let remedy =
                "make server.admin loopback or a Unix socket, or remove credentials_update";
            reader.error(&declaration.table, problem, remedy);
        }
    }
}

fn check_client_id(reader: &mut Reader<'_>, client_id: &Field<String>) {
    if let Some(id) = &client_id.value
        && !is_client_id(id)
    {
        let problem = "has characters that a Taskcluster client ID cannot contain";
        reader.error(
            &client_id.at,
            problem,
            "use letters, digits and ! @ / : . + | _ -",
        );
    }
}

fn check_scopes(reader: &mut Reader<'_>, scopes: &Field<List<String>>) {
    for scope in scopes.value.iter().flat_map(|list| &list.items) {
        if !is_scope(&scope.value) {
            let problem = format!("{} is not a Taskcluster scope", quoted(&scope.value));
            let remedy = "use printable ASCII, with no * except one at the end";
            reader.error(&scope.at, problem, remedy);
        }
    }
}
