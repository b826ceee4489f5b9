//! `[[session]]`

mod site;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use super::diagnostic::quoted;
use super::http_url::{require_https, require_origin_only};
use super::oauth_client::ClientKeys;
use super::oauth_source::{check_scopes, check_uri};
use super::reader::{Field, Key, Reader, Section, Table, section};
use super::references::{self, Declaration};
use super::resolved::{self, IssuerKind, SessionProvider};
use super::units::show_duration;
use super::value::{Choice, Item, List};
use crate::remote::settings::{OidcProviderSettings, TaskclusterProviderSettings};
use crate::secret::SecretRef;
use crate::secret::{is_same_key, key_problem};
use crate::session::settings::{SessionKind, SessionSettings, SessionStore, Unauthenticated};

pub(super) use site::{Origin, refuse_collisions};

section! {
    /// Signs users in with a browser and keeps them signed in with a cookie. A route names it:
    /// `session = "web"`.
    pub(super) struct Session {
        /// Unique among sessions; a metric label, and part of the cookie's name.
        name: Arc<str> = [required],
        /// `oidc`: users sign in at an OpenID provider, whose access token then is the caller's bearer token.
        /// `taskcluster`: at a Taskcluster deployment's own OAuth2 server, whose credentials sign the requests.
        kind: SessionKind = [default "'oidc'"],
        /// The key that encrypts cookies: 32 bytes in base64, as from `openssl rand -base64 32`. The same on
        /// every replica.
        cookie_key: SecretRef = [required],
        /// The previous key, while keys are rotated: cookies encrypted with it are still accepted.
        previous_cookie_key: SecretRef = [optional],
        /// How long a session lasts without being used; 1m to 90d, and at most `lifetime`, which it is when
        /// left out and `lifetime` is shorter.
        idle: Duration = [default "'8h'"],
        /// How long a session lasts at most, from the sign-in; 1m to 365d.
        lifetime: Duration = [default "'7d'"],
        /// Where sessions are stored: `cookie`, encrypted in the browser's cookie; `shared`, encrypted in the
        /// shared store, which needs `[shared]`. The cookie then has only what finds and opens them.
        store: SessionStore = [default "'cookie'"],
        /// The path of the endpoints `login`, `callback`, `session`, `logout` and `backchannel-logout`. They
        /// take precedence over routes.
        prefix: String = [default "'/oauth2/'"],
        /// What a browser's navigation without a session gets: `login`, a redirect to sign in; `refuse`, 401.
        unauthenticated: Unauthenticated = [default "'login'"],
        /// The origin at which browsers reach hawkgate: "https://app.example.com". When left out, each request
        /// says it: https on TLS listeners and with a trusted proxy's `X-Forwarded-Proto: https`, and `Host`.
        origin: Origin = [optional],
        /// PEM file with the only CAs trusted for the provider; the platform's when left out.
        ca: PathBuf = [optional],
        /// Time limit for each request to the provider; 100ms to 1m.
        timeout: Duration = [default "'5s'"],
    }
}

section! {
    /// Kind `oidc`: sign-in at an OpenID provider. A client without `client_secret` and `private_key` is a
    /// public one.
    pub(super) struct OidcSession {
        /// Name of the issuer, of kind `oidc` or `introspection`: its provider signs users in, and it verifies
        /// the access token for each request.
        issuer: String = [required],
        /// The scopes to request; `openid` is one of them. `offline_access` asks for a refresh token, without
        /// which the session ends with its first access token.
        scopes: List<String> = [default "['openid']"],
        /// The `audience` parameter: the API that the access token is for (Auth0).
        audience: String = [optional],
        /// The `resource` parameter of RFC 8707: the same, as an absolute URI.
        resource: String = [optional],
    }
}

section! {
    /// Kind `taskcluster`: sign-in at a Taskcluster deployment. Routes with such a session have no source.
    pub(super) struct TaskclusterSession {
        /// The deployment's root URL, without a path.
        root_url: Url = [required],
        /// The client's name in the deployment's list of third-party clients.
        client_id: String = [required],
        /// The scopes registered for the client, exactly: the deployment refuses any other set.
        scopes: List<String> = [required],
    }
}

impl Choice for SessionStore {
    const NAMES: &'static [&'static str] = &["cookie", "shared"];

    fn from_name(name: &str) -> Option<Self> {
        match name {
            "cookie" => Some(Self::Cookie),
            "shared" => Some(Self::Shared),
            _ => None,
        }
    }
}

impl Choice for SessionKind {
    const NAMES: &'static [&'static str] = &["oidc", "taskcluster"];

    fn from_name(name: &str) -> Option<Self> {
        match name {
            "oidc" => Some(Self::Oidc),
            "taskcluster" => Some(Self::Taskcluster),
            _ => None,
        }
    }
}

impl Choice for Unauthenticated {
    const NAMES: &'static [&'static str] = &["login", "refuse"];

    fn from_name(name: &str) -> Option<Self> {
        match name {
            "login" => Some(Self::Login),
            "refuse" => Some(Self::Refuse),
            _ => None,
        }
    }
}

/// The keys of a kind, in one or two lists.
const fn keys_of(kind: SessionKind) -> &'static [&'static [Key]] {
    match kind {
        SessionKind::Oidc => &[OidcSession::KEYS, ClientKeys::KEYS],
        SessionKind::Taskcluster => &[TaskclusterSession::KEYS],
    }
}

const CLEARTEXT_CODES: &str = "authorization codes and tokens would be sent in cleartext";

/// The longest `idle`.
const LONGEST_IDLE: Duration = Duration::from_hours(90 * 24);
/// The longest `lifetime`.
const LONGEST_LIFETIME: Duration = Duration::from_hours(365 * 24);

/// Reads one `[[session]]`.
pub(super) fn read(
    reader: &mut Reader<'_>,
    table: &Table<'_>,
    issuers: &[Declaration<IssuerKind>],
    has_shared_store: bool,
) -> Declaration<resolved::Session> {
    let session = Session::read(reader, table);
    if session.store.value == Some(SessionStore::Shared) && !has_shared_store {
        let problem = "is \"shared\", but there is no [shared]";
        let remedy = "add [shared] with url and key, or write store = \"cookie\"";
        reader.error(&session.store.at, problem, remedy);
    }
    let mut declaration = Declaration::new(&table.at, &session.name, None);
    declaration.value = session.resolve(reader, table, issuers);
    declaration
}

/// How the provider is reached.
struct Network {
    ca: Option<PathBuf>,
    timeout: Duration,
}

/// What the kinds resolve to.
struct Resolved {
    provider: SessionProvider,
    /// The issuer's identifier, or the root URL.
    identifier: String,
    client_id: String,
    scopes: Vec<String>,
    audience: Option<String>,
    resource: Option<String>,
}

impl Session {
    fn resolve(
        self,
        reader: &mut Reader<'_>,
        table: &Table<'_>,
        issuers: &[Declaration<IssuerKind>],
    ) -> Option<resolved::Session> {
        self.check_name(reader);
        self.check_keys(reader);
        self.check_times(reader);
        let prefix = site::resolve_prefix(reader, self.prefix);
        if let Some(ca) = &self.ca.value {
            reader.check_cas(&self.ca.at, ca);
        }
        let kind = self.kind.value?;
        refuse_unknown(reader, table, kind);
        let (timeout, lifetime) = (self.timeout.value, self.lifetime.value);
        let ca = self.ca.optional();
        let network = ca.zip(timeout).map(|(ca, timeout)| Network { ca, timeout });
        let resolved = match kind {
            SessionKind::Oidc => {
                OidcSession::read(reader, table).resolve(reader, table, issuers, network)
            }
            SessionKind::Taskcluster => {
                TaskclusterSession::read(reader, table).resolve(reader, network)
            }
        }?;
        Some(resolved::Session {
            settings: SessionSettings {
                name: self.name.value?,
                kind,
                provider: resolved.identifier,
                client_id: resolved.client_id,
                scopes: resolved.scopes,
                audience: resolved.audience,
                resource: resolved.resource,
                store: self.store.value?,
                cookie_key: self.cookie_key.value?,
                previous_cookie_key: self.previous_cookie_key.optional()?,
                idle: self.idle.value?.min(lifetime?),
                lifetime: lifetime?,
                prefix: prefix?,
                unauthenticated: self.unauthenticated.value?,
                origin: self.origin.optional()?.map(|origin| origin.0),
                timeout: timeout?,
            },
            provider: resolved.provider,
        })
    }

    /// Refuses names with which the cookies of two sessions could have the same name.
    fn check_name(&self, reader: &mut Reader<'_>) {
        if self
            .name
            .value
            .as_deref()
            .is_some_and(|n| n.contains("-signin-"))
        {
            let problem = "contains \"-signin-\", as the names of sign-in cookies do";
            reader.error(&self.name.at, problem, "choose another name");
        }
    }

    fn check_keys(&self, reader: &mut Reader<'_>) {
        const REMEDY: &str = "generate one with `openssl rand -base64 32`";
        let mut texts = Vec::new();
        for field in [&self.cookie_key, &self.previous_cookie_key] {
            let Some(secret) = field.value.as_ref().filter(|_| reader.reads_files()) else {
                continue;
            };
            // An unreadable secret has already been reported.
            let Ok(text) = secret.read() else { continue };
            match key_problem(&text) {
                Some(problem) => reader.error(&field.at, problem, REMEDY),
                None => texts.push(text),
            }
        }
        let same_place = self.cookie_key.value.is_some()
            && self.cookie_key.value == self.previous_cookie_key.value;
        if same_place || matches!(&texts[..], [new, old] if is_same_key(new, old)) {
            let problem = "is the same key as cookie_key";
            let remedy = "remove it, or write the key that was used before";
            reader.error(&self.previous_cookie_key.at, problem, remedy);
        }
    }

    fn check_times(&self, reader: &mut Reader<'_>) {
        let minute = Duration::from_mins(1);
        reader.check_range(&self.idle, minute, LONGEST_IDLE, show_duration);
        reader.check_range(&self.lifetime, minute, LONGEST_LIFETIME, show_duration);
        reader.check_range(
            &self.timeout,
            Duration::from_millis(100),
            minute,
            show_duration,
        );
        if let (true, Some(idle), Some(lifetime)) =
            (self.idle.given, self.idle.value, self.lifetime.value)
            && idle > lifetime
        {
            let (idle, lifetime) = (show_duration(idle), show_duration(lifetime));
            let problem = format!("{idle} is longer than lifetime, {lifetime}");
            let remedy = format!("write at most {lifetime}, or increase lifetime");
            reader.error(&self.idle.at, problem, remedy);
        }
    }
}

fn refuse_unknown(reader: &mut Reader<'_>, table: &Table<'_>, kind: SessionKind) {
    let mut listings = vec![Session::KEYS];
    listings.extend(keys_of(kind));
    let (own, other, other_kind) = match kind {
        SessionKind::Oidc => ("oidc", "taskcluster", SessionKind::Taskcluster),
        SessionKind::Taskcluster => ("taskcluster", "oidc", SessionKind::Oidc),
    };
    reader.refuse_unknown(table, &listings, |name| {
        let mut keys = keys_of(other_kind).iter().flat_map(|keys| keys.iter());
        keys.any(|key| key.name == name).then(|| {
            let problem = format!("belongs to kind {other}, not to {own}");
            (problem, "remove it, or change kind".into())
        })
    });
}

impl OidcSession {
    fn resolve(
        self,
        reader: &mut Reader<'_>,
        table: &Table<'_>,
        issuers: &[Declaration<IssuerKind>],
        network: Option<Network>,
    ) -> Option<Resolved> {
        let issuer = find_issuer(reader, &self.issuer, issuers);
        let identifier = issuer.as_ref().map(|(_, url)| url.clone());
        let client = ClientKeys::read(reader, table).resolve_any(reader, identifier);
        check_uri(reader, &self.resource);
        check_scopes(reader, &self.scopes);
        let scopes = self.scopes.value.as_ref();
        if scopes.is_some_and(|list| !list.values().any(|scope| scope == "openid")) {
            let problem = "lacks openid: the provider would not say who signed in";
            reader.error(&self.scopes.at, problem, "add \"openid\"");
        }
        let (issuer, identifier) = issuer?;
        let (client, network) = (client?, network?);
        let resource = self.resource.optional()?;
        Some(Resolved {
            client_id: client.id.clone(),
            scopes: self.scopes.value?.into_values(),
            audience: self.audience.optional()?,
            provider: SessionProvider::Oidc {
                issuer,
                settings: OidcProviderSettings {
                    issuer: identifier.clone(),
                    client,
                    resources: resource.iter().cloned().collect(),
                    ca: network.ca,
                    timeout: network.timeout,
                },
            },
            identifier,
            resource,
        })
    }
}

impl TaskclusterSession {
    fn resolve(self, reader: &mut Reader<'_>, network: Option<Network>) -> Option<Resolved> {
        if let Some(scopes) = &self.scopes.value {
            if scopes.is_empty() {
                let problem = "is empty: the credentials would grant nothing";
                reader.error(
                    &self.scopes.at,
                    problem,
                    "list the scopes registered for the client",
                );
            }
            for scope in &scopes.items {
                if !crate::hawk::scope::is_valid(&scope.value) || scope.value.contains(' ') {
                    let problem = format!("{} is not a Taskcluster scope", quoted(&scope.value));
                    let remedy = "write each scope as a separate string of printable ASCII";
                    reader.error(&scope.at, problem, remedy);
                }
            }
        }
        let root_url = self.root_url.value?;
        require_https(reader, &self.root_url.at, &root_url, CLEARTEXT_CODES);
        let reason = "a root URL consists of scheme and host only";
        require_origin_only(reader, &self.root_url.at, &root_url, reason);
        let (client_id, network) = (self.client_id.value?, network?);
        Some(Resolved {
            identifier: root_url.origin().ascii_serialization(),
            client_id: client_id.clone(),
            scopes: self.scopes.value?.into_values(),
            audience: None,
            resource: None,
            provider: SessionProvider::Taskcluster(TaskclusterProviderSettings {
                root_url,
                client_id,
                ca: network.ca,
                timeout: network.timeout,
            }),
        })
    }
}

/// The index of the issuer, and its identifier.
fn find_issuer(
    reader: &mut Reader<'_>,
    name: &Field<String>,
    issuers: &[Declaration<IssuerKind>],
) -> Option<(usize, String)> {
    let reference = Item {
        at: name.at.clone(),
        value: name.value.clone()?,
    };
    let index = references::find(reader, "issuer", issuers, &reference)?;
    let url = match issuers.get(index)?.value.as_ref()? {
        IssuerKind::Oidc(oidc) => oidc.url.clone(),
        IssuerKind::Introspection(introspection) => introspection.issuer.url.clone(),
        IssuerKind::SharedSecret(_) | IssuerKind::Delegated => {
            let problem = format!(
                "issuer {} is not an OpenID provider whose tokens hawkgate verifies",
                quoted(&reference.value)
            );
            let remedy = "use an issuer of kind oidc or introspection";
            reader.error(&name.at, problem, remedy);
            return None;
        }
    };
    let parsed = Url::parse(&url).ok();
    if let Some(parsed) = &parsed {
        require_https(reader, &name.at, parsed, CLEARTEXT_CODES);
    }
    if parsed.is_none_or(|url| !["http", "https"].contains(&url.scheme())) {
        let problem = format!(
            "issuer {} has no http or https url, so its provider cannot be found",
            quoted(&reference.value)
        );
        reader.error(&name.at, problem, "use an issuer with discovery");
        return None;
    }
    Some((index, url))
}
