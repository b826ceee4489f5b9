//! `[[issuer]]`

mod format;
mod introspection;
mod shared_secret;

pub(super) use format::ClaimNames;
pub(super) use introspection::IntrospectionKeys;
pub(super) use shared_secret::SharedSecret;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use super::diagnostic::quoted;
use super::http_url::{self, require_https};
use super::oauth_client::ClientKeys;
use super::reader::{Field, Key, Reader, Section, Table, section};
use super::references::Declaration;
use super::resolved::IssuerKind;
use super::units::show_duration;
use super::value::{Choice, List};
use crate::remote::jwks::read_key_file;
use crate::secret::SecretRef;
use crate::token::settings::{Algorithm, KeyLocation, OidcIssuer, Profile};
use crate::token::{BearerToken, check_key_set};
use format::TokenType;

section! {
    /// An issuer of bearer tokens. Each route lists the issuers that it trusts.
    pub(super) struct Issuer {
        /// Unique among issuers; a metric label.
        name: Arc<str> = [required],
        /// `oidc`: JWTs that hawkgate verifies with the issuer's public keys. `shared-secret`: JWTs signed
        /// with a secret that hawkgate knows. `introspection`: opaque tokens that hawkgate introspects at
        /// the issuer. `delegated`: opaque tokens that only the route's source checks, when it exchanges
        /// them; has no other keys.
        kind: Kind = [default "'oidc'"],
    }
}

section! {
    /// Kind `oidc`: JWTs verified with the issuer's public keys.
    pub(super) struct Oidc {
        /// The exact `iss` of its tokens, byte by byte (Auth0's ends with `/`), and the base of discovery.
        /// With `jwks_url` or `jwks_file` it is only a name, which may begin with http:// or be no URL.
        url: String = [required],
        /// The URL of its JWK Set, instead of using discovery.
        jwks_url: Url = [optional],
        /// A file with its JWK Set, instead of using discovery; reread when it changes.
        jwks_file: PathBuf = [optional],
        /// PEM file with the only CAs trusted for fetching keys; the platform's when left out.
        ca: PathBuf = [optional],
        /// The bearer token for requests for keys and discovery, which is sent to the origin of `jwks_url` or
        /// `url` only; read again for each request. The API server of Kubernetes needs one.
        keys_token: SecretRef = [optional],
        /// Accepted values of `aud`, or of `audience_claims`; a token must have at least one of them.
        audiences: List<String> = [required],
        /// Accepted signature algorithms; asymmetric ones only.
        algorithms: List<Algorithm> = [default
            "['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'EdDSA', 'Ed25519']"],
        /// What its access tokens look like. `rfc9068`: `typ` is `at+jwt`. `auth0`, `okta` (and Zitadel),
        /// `entra` (and AD FS), `cognito`, `keycloak`: as that provider issues them, ID tokens refused.
        /// `workload`: workload identities with any `typ`; `subjects` is required.
        profile: Profile = [default "'rfc9068'"],
        /// Accepted values of the header's `typ`, in any case; `""` accepts tokens without one. The profile's
        /// when left out.
        token_types: List<TokenType> = [optional],
        /// Tolerated clock skew; at most 5m.
        leeway: Duration = [default "'30s'"],
        /// Accepted clients, by `client_claims`; any when left out.
        clients: List<String> = [optional],
        /// Accepted values of `sub`, in which each `*` matches any text; any when left out, which profile
        /// `workload` does not allow.
        subjects: List<String> = [optional],
        /// Maximum time for which a verified token is cached; at most 24h.
        verified_max_age: Duration = [default "'5m'"],
    }
}

const KEY_SUBSTITUTION: &str = "an attacker on the network could replace the issuer's keys";

/// `issuer.kind`
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    Oidc,
    SharedSecret,
    Introspection,
    Delegated,
}

impl Choice for Kind {
    const NAMES: &'static [&'static str] = &["oidc", "shared-secret", "introspection", "delegated"];

    fn from_name(name: &str) -> Option<Self> {
        match name {
            "oidc" => Some(Self::Oidc),
            "shared-secret" => Some(Self::SharedSecret),
            "introspection" => Some(Self::Introspection),
            "delegated" => Some(Self::Delegated),
            _ => None,
        }
    }
}

impl Kind {
    /// The keys specific to this kind, in one or two lists.
    const fn keys(self) -> &'static [&'static [Key]] {
        match self {
            Self::Oidc => &[Oidc::KEYS, ClaimNames::KEYS],
            Self::SharedSecret => &[SharedSecret::KEYS, ClaimNames::KEYS],
            Self::Introspection => &[IntrospectionKeys::KEYS, ClaimNames::KEYS, ClientKeys::KEYS],
            Self::Delegated => &[],
        }
    }

    /// The names of the kinds that have a key called `name`.
    fn names_with_key(name: &str) -> Vec<&'static str> {
        let has = |kind: &Self| {
            kind.keys()
                .iter()
                .any(|keys| keys.iter().any(|k| k.name == name))
        };
        let names = Self::NAMES.iter().copied();
        names
            .filter(|n| Self::from_name(n).as_ref().is_some_and(has))
            .collect()
    }
}

/// The names of `Self::ALL`.
macro_rules! all_names {
    () => {
        &{
            let mut names = [""; Self::ALL.len()];
            let mut index = 0;
            while index < names.len() {
                names[index] = Self::ALL[index].name();
                index += 1;
            }
            names
        }
    };
}

impl Choice for Profile {
    const NAMES: &'static [&'static str] = all_names!();

    fn from_name(name: &str) -> Option<Self> {
        Self::from_name(name)
    }

    fn explain_refusal(name: &str) -> Option<(String, String)> {
        let lower = name.to_ascii_lowercase();
        let known = match lower.as_str() {
            "azure" | "azuread" | "azure-ad" | "entra-id" | "entraid" | "microsoft" | "adfs"
            | "ad-fs" => "entra",
            "zitadel" => "okta",
            "aws" | "aws-cognito" | "amazon" => "cognito",
            "rhsso" | "red-hat-sso" => "keycloak",
            "github" | "github-actions" | "gitlab" | "kubernetes" | "k8s" | "google" | "gcp"
            | "dex" => "workload",
            _ => return None,
        };
        let problem = format!("{} is not a valid value", quoted(name));
        Some((
            problem,
            format!("write \"{known}\", which is for its tokens"),
        ))
    }
}

impl Choice for Algorithm {
    const NAMES: &'static [&'static str] = all_names!();

    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|a| a.name() == name)
    }

    fn explain_refusal(name: &str) -> Option<(String, String)> {
        let upper = name.to_ascii_uppercase();
        let remedy = "use an asymmetric algorithm, such as \"RS256\" or \"ES256\"".to_owned();
        if upper == "NONE" {
            return Some((
                format!("{} would accept unsigned tokens", quoted(name)),
                remedy,
            ));
        }
        if upper.starts_with("HS") {
            let problem = format!(
                "{} is symmetric: anyone who can verify tokens could forge them",
                quoted(name)
            );
            return Some((problem, remedy));
        }
        // Existing algorithms for which the nearest supported name would need another type of key.
        ["ES512", "ES256K", "Ed448"]
            .contains(&name)
            .then(|| (format!("{name} is not supported"), remedy))
    }
}

/// Reads one `[[issuer]]`.
pub(super) fn read(reader: &mut Reader<'_>, table: &Table<'_>) -> Declaration<IssuerKind> {
    let issuer = Issuer::read(reader, table);
    let kind = issuer.kind.value.and_then(|kind| {
        refuse_unknown(reader, table, kind);
        match kind {
            Kind::Oidc => {
                let names = ClaimNames::read(reader, table);
                let oidc = Oidc::read(reader, table).resolve(reader, names)?;
                Some(IssuerKind::Oidc(Box::new(oidc)))
            }
            Kind::SharedSecret => {
                let names = ClaimNames::read(reader, table);
                let secret = SharedSecret::read(reader, table).resolve(reader, names)?;
                Some(IssuerKind::SharedSecret(Box::new(secret)))
            }
            Kind::Introspection => {
                let introspection =
                    IntrospectionKeys::read(reader, table).resolve(reader, table)?;
                Some(IssuerKind::Introspection(Box::new(introspection)))
            }
            Kind::Delegated => Some(IssuerKind::Delegated),
        }
    });
    Declaration::new(&table.at, &issuer.name, kind)
}

fn refuse_unknown(reader: &mut Reader<'_>, table: &Table<'_>, kind: Kind) {
    let mut listings = vec![Issuer::KEYS];
    listings.extend(kind.keys());
    reader.refuse_unknown(table, &listings, |name| {
        let owners = Kind::names_with_key(name);
        if owners.is_empty() {
            return None;
        }
        let kinds = owners.join(" or ");
        let mut verifying = Kind::Oidc.keys().iter().flat_map(|keys| keys.iter());
        let key_of_oidc = verifying.any(|key| key.name == name);
        Some(match kind {
            Kind::Delegated if key_of_oidc => {
                let problem =
                    "does not apply to a delegated issuer, whose tokens hawkgate does not verify";
                (problem.into(), "remove it, or write kind = \"oidc\"".into())
            }
            Kind::SharedSecret if name.starts_with("jwks_") => {
                let problem = "a shared secret and public keys cannot be combined";
                (
                    problem.into(),
                    "remove it, or use an issuer of kind oidc".into(),
                )
            }
            Kind::Oidc if name == "secret" => {
                let problem = "public keys and a shared secret cannot be combined";
                let remedy = "remove it, or use an issuer of kind shared-secret";
                (problem.into(), remedy.into())
            }
            _ => (
                format!("belongs to kind {kinds}"),
                "remove it, or change kind".into(),
            ),
        })
    });
}

fn refuse_empty<T>(reader: &mut Reader<'_>, field: &Field<List<T>>, remedy: &str) {
    if field.value.as_ref().is_some_and(List::is_empty) {
        reader.error(&field.at, "is empty: no token would be accepted", remedy);
    }
}

impl Oidc {
    fn resolve(self, reader: &mut Reader<'_>, names: ClaimNames) -> Option<OidcIssuer> {
        self.check_url(reader);
        check_audiences(reader, &self.audiences);
        check_subjects(reader, &self.url, self.profile.value, &self.subjects);
        refuse_empty(
            reader,
            &self.clients,
            "list clients, or leave the key out to accept any",
        );
        refuse_empty(
            reader,
            &self.algorithms,
            "list algorithms, or leave the key out for every asymmetric algorithm",
        );
        let (zero, day) = (Duration::ZERO, Duration::from_hours(24));
        reader.check_range(&self.leeway, zero, Duration::from_mins(5), show_duration);
        reader.check_range(&self.verified_max_age, zero, day, show_duration);
        if let Some(ca) = &self.ca.value {
            reader.check_cas(&self.ca.at, ca);
            if self.jwks_file.given {
                let problem = "has no effect: the keys come from a file";
                reader.warn(&self.ca.at, problem, "remove it");
            }
        }
        self.check_keys_token(reader);
        // Even if the profile is invalid, so that all errors are reported.
        let profile = self.profile.value.unwrap_or(Profile::Rfc9068);
        let format = names.resolve(reader, profile, Some(self.token_types));
        let algorithms = self.algorithms.value.map(List::into_values);
        let keys = resolve_keys(reader, self.jwks_url, self.jwks_file, algorithms.as_deref())?;
        Some(OidcIssuer {
            url: self.url.value?,
            keys,
            ca: self.ca.optional()?,
            keys_token: self.keys_token.optional()?,
            audiences: self.audiences.value?.into_values(),
            algorithms: algorithms?,
            profile: self.profile.value?,
            format: format?,
            leeway: self.leeway.value?,
            clients: self.clients.optional()?.map(List::into_values),
            subjects: self.subjects.optional()?.map(List::into_values),
            verified_max_age: self.verified_max_age.value?,
        })
    }

    fn check_keys_token(&self, reader: &mut Reader<'_>) {
        let Some(token) = &self.keys_token.value else {
            return;
        };
        let at = &self.keys_token.at;
        if self.jwks_file.given {
            let problem = "has no effect: the keys come from a file";
            reader.error(at, problem, "remove it");
        }
        if reader.reads_files()
            && let Ok(token) = token.read()
            && BearerToken::new(token.expose()).is_err()
        {
            let problem = "holds characters that a bearer token cannot have";
            reader.error(at, problem, "put the token alone there, in one line");
        }
        // Rotated tokens must not rebuild the issuer, which reads them again anyway.
        reader.exclude_from_watching(&at.key("file", at.span()));
    }

    /// Without discovery, `iss` is only compared, and need not be a URL.
    fn check_url(&self, reader: &mut Reader<'_>) {
        let Some(text) = &self.url.value else { return };
        let without_discovery = self.jwks_url.given || self.jwks_file.given;
        let at = &self.url.at;
        match http_url::parse(text) {
            Ok(url) => {
                if !without_discovery {
                    require_https(reader, at, &url, KEY_SUBSTITUTION);
                }
                if url.query().is_some() {
                    reader.error(
                        at,
                        "has a query, which an issuer's URL cannot have",
                        "write it exactly as in the tokens' `iss`",
                    );
                }
                // Other providers, and custom domains, may have the profile too.
                let is_auth0 = url
                    .host_str()
                    .is_some_and(|host| host.ends_with(".auth0.com"));
                if is_auth0 && !text.ends_with('/') {
                    let problem = "Auth0's `iss` ends with a slash, and is compared byte by byte";
                    reader.warn(
                        at,
                        problem,
                        format!("write {}", quoted(&format!("{text}/"))),
                    );
                }
            }
            Err(_) if without_discovery && !text.contains("://") => {}
            Err((problem, remedy)) => reader.error(at, problem, remedy),
        }
    }
}

fn check_audiences(reader: &mut Reader<'_>, field: &Field<List<String>>) {
    let Some(audiences) = &field.value else {
        return;
    };
    if audiences.is_empty() {
        let problem = "is empty: hawkgate could not tell which tokens are meant for it";
        reader.error(&field.at, problem, "list the audiences of callers' tokens");
    }
    for audience in &audiences.items {
        if audience.value.contains('*') {
            reader.error(
                &audience.at,
                "contains a wildcard, which audiences do not support",
                "write the audience in full",
            );
        }
    }
}

/// `profile` is `None` for an `introspection` issuer, which has none.
fn check_subjects(
    reader: &mut Reader<'_>,
    url: &Field<String>,
    profile: Option<Profile>,
    field: &Field<List<String>>,
) {
    let Some(subjects) = &field.value else {
        if field.is_absent() && profile == Some(Profile::Workload) {
            let problem = "missing: every workload of this issuer would be accepted";
            reader.error(&field.at, problem, "add subjects = [\"repo:org/app:*\"]");
        }
        return;
    };
    if subjects.is_empty() {
        let problem = "is empty: no token would be accepted";
        reader.error(
            &field.at,
            problem,
            "list subjects, in which * matches any text",
        );
    }
    for subject in &subjects.items {
        let pattern = subject.value.as_str();
        if pattern.bytes().all(|b| b == b'*') {
            let problem = format!("{} accepts every subject", quoted(pattern));
            reader.error(
                &subject.at,
                problem,
                "list subjects, with * only for the part that varies",
            );
        } else if let Some(owner) = url
            .value
            .as_deref()
            .and_then(|url| owner_pattern(url, pattern))
        {
            let problem = format!(
                "{} accepts tokens of other owners at this public issuer",
                quoted(pattern)
            );
            reader.error(
                &subject.at,
                problem,
                format!("include the owner and the slash after it, as in \"{owner}\""),
            );
        }
    }
}

/// Issuers at which anyone can obtain tokens, and the prefix that a subject's owner follows.
const PUBLIC_ISSUERS: [(&str, &str); 2] = [
    ("https://token.actions.githubusercontent.com", "repo:"),
    ("https://gitlab.com", "project_path:"),
];

/// If `pattern` matches subjects of any owner at a public issuer, returns an example of one that
/// does not.
fn owner_pattern(issuer: &str, pattern: &str) -> Option<String> {
    let (_, prefix) = PUBLIC_ISSUERS
        .iter()
        .find(|(url, _)| issuer.trim_end_matches('/') == *url)?;
    let (fixed, _) = pattern.split_once('*')?;
    let open = match fixed.strip_prefix(prefix) {
        Some(owner) => !owner.contains('/'),
        // The * begins inside the prefix. A subject without the prefix has a custom format.
        None => prefix.starts_with(fixed),
    };
    open.then(|| format!("{prefix}org/app:*"))
}

fn resolve_keys(
    reader: &mut Reader<'_>,
    url: Field<Url>,
    file: Field<PathBuf>,
    algorithms: Option<&[Algorithm]>,
) -> Option<KeyLocation> {
    if url.given && file.given {
        let problem = "both jwks_url and jwks_file are given";
        reader.error(&file.at, problem, "remove one of the two");
    }
    if let Some(location) = &url.value {
        require_https(reader, &url.at, location, KEY_SUBSTITUTION);
    }
    if let Some(path) = &file.value {
        let remedy = "use a JWK Set with the issuer's public keys";
        reader.check_file(&file.at, remedy, || {
            let document = read_key_file(path).map_err(|error| error.to_string())?;
            // Invalid algorithms have already been reported.
            let Some(algorithms) = algorithms else {
                return Ok(());
            };
            check_key_set(&document, algorithms)
                .map_err(|problem| format!("{}: {problem}", path.display()))
        });
    }
    Some(match (url.optional()?, file.optional()?) {
        (Some(url), _) => KeyLocation::Url(url),
        (None, Some(file)) => KeyLocation::File(file),
        (None, None) => KeyLocation::Discovery,
    })
}
