//! `[[issuer]]`

mod introspection;
mod shared_secret;

pub(super) use introspection::IntrospectionKeys;
pub(super) use shared_secret::SharedSecret;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use super::diagnostic::quoted;
use super::http_url::{self, require_private};
use super::oauth_client::ClientKeys;
use super::reader::{Field, Key, Reader, Section, Table, section};
use super::references::Declared;
use super::resolved::IssuerKind;
use super::units::show_duration;
use super::value::{Choice, List};
use crate::token::settings::{Algorithm, KeyLocation, OidcIssuer, Profile};

section! {
    /// Whose bearer tokens are accepted; a route names those that it trusts.
    pub(super) struct Issuer {
        /// Unique among issuers; a metric label.
        name: Arc<str> = [required],
        /// `oidc`: signed JWTs, verified here. `shared-secret`: JWTs signed with a secret that hawkgate
        /// shares. `introspection`: opaque tokens that are introspected at the issuer. `delegated`: opaque
        /// tokens that only the route's source checks, at the exchange; takes no other keys.
        kind: Kind = [default "'oidc'"],
    }
}

section! {
    /// Kind `oidc`.
    pub(super) struct Oidc {
        /// The exact `iss` of its tokens, byte by byte (Auth0's ends with `/`), and the base of discovery.
        url: String = [required],
        /// The URL of its JWK Set, instead of discovery.
        jwks_url: Url = [optional],
        /// A file with its JWK Set, instead of discovery; read again when it changes.
        jwks_file: PathBuf = [optional],
        /// PEM file with the only CAs trusted for fetching keys; the platform's when left out.
        ca: PathBuf = [optional],
        /// Accepted `aud`; a token must have one of them.
        audiences: List<String> = [required],
        /// Accepted signature algorithms; asymmetric ones only.
        algorithms: List<Algorithm> = [default
            "['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'EdDSA', 'Ed25519']"],
        /// `rfc9068`: access tokens with `typ` `at+jwt`. `auth0`: `typ` `JWT`, ID tokens refused.
        /// `workload`: workload identities with any `typ`; `subjects` is required.
        profile: Profile = [default "'rfc9068'"],
        /// Tolerated difference between its clock and ours; at most 5m.
        leeway: Duration = [default "'30s'"],
        /// Accepted `client_id` or `azp`; any when left out.
        clients: List<String> = [optional],
        /// Accepted `sub`, with `*` for any text at any place; any when left out, which the profile
        /// `workload` does not allow.
        subjects: List<String> = [optional],
        /// Longest time that a verified token is cached; at most 24h.
        verified_max_age: Duration = [default "'5m'"],
    }
}

const FORGERY: &str = "an attacker on the network could replace the issuer's keys";

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

    fn named(name: &str) -> Option<Self> {
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
    /// The keys that this kind adds, in one or two lists.
    const fn keys(self) -> &'static [&'static [Key]] {
        match self {
            Self::Oidc => &[Oidc::KEYS],
            Self::SharedSecret => &[SharedSecret::KEYS],
            Self::Introspection => &[IntrospectionKeys::KEYS, ClientKeys::KEYS],
            Self::Delegated => &[],
        }
    }

    /// The kinds that have a key called `name`, as written.
    fn with_key(name: &str) -> Vec<&'static str> {
        let has = |kind: &Self| {
            kind.keys()
                .iter()
                .any(|keys| keys.iter().any(|k| k.name == name))
        };
        let names = Self::NAMES.iter().copied();
        names
            .filter(|n| Self::named(n).as_ref().is_some_and(has))
            .collect()
    }
}

impl Choice for Profile {
    const NAMES: &'static [&'static str] = &["rfc9068", "auth0", "workload"];

    fn named(name: &str) -> Option<Self> {
        match name {
            "rfc9068" => Some(Self::Rfc9068),
            "auth0" => Some(Self::Auth0),
            "workload" => Some(Self::Workload),
            _ => None,
        }
    }
}

impl Choice for Algorithm {
    const NAMES: &'static [&'static str] = &{
        let mut names = [""; Self::ALL.len()];
        let mut index = 0;
        while index < names.len() {
            names[index] = Self::ALL[index].name();
            index += 1;
        }
        names
    };

    fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|a| a.name() == name)
    }

    fn refusal(name: &str) -> Option<(String, String)> {
        let upper = name.to_ascii_uppercase();
        let remedy = "write asymmetric ones, such as \"RS256\" or \"ES256\"".to_owned();
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
        // Real ones, for which the nearest name would be another key type.
        ["ES512", "ES256K", "Ed448"]
            .contains(&name)
            .then(|| (format!("{name} is not supported"), remedy))
    }
}

/// Reads one `[[issuer]]`.
pub(super) fn read(reader: &mut Reader<'_>, table: &Table<'_>) -> Declared<IssuerKind> {
    let issuer = Issuer::read(reader, table);
    let kind = issuer.kind.value.and_then(|kind| {
        refuse_unknown(reader, table, kind);
        match kind {
            Kind::Oidc => {
                let oidc = Oidc::read(reader, table).resolve(reader)?;
                Some(IssuerKind::Oidc(Box::new(oidc)))
            }
            Kind::SharedSecret => {
                let secret = SharedSecret::read(reader, table).resolve(reader)?;
                Some(IssuerKind::SharedSecret(Box::new(secret)))
            }
            Kind::Introspection => {
                let asked = IntrospectionKeys::read(reader, table).resolve(reader, table)?;
                Some(IssuerKind::Introspection(Box::new(asked)))
            }
            Kind::Delegated => Some(IssuerKind::Delegated),
        }
    });
    Declared::new(&table.at, &issuer.name, kind)
}

fn refuse_unknown(reader: &mut Reader<'_>, table: &Table<'_>, kind: Kind) {
    let mut listings = vec![Issuer::KEYS];
    listings.extend(kind.keys());
    reader.refuse_unknown(table, &listings, |name| {
        let owners = Kind::with_key(name);
        if owners.is_empty() {
            return None;
        }
        let meant = owners.join(" or ");
        let key_of_oidc = Oidc::KEYS.iter().any(|key| key.name == name);
        Some(match kind {
            Kind::Delegated if key_of_oidc => {
                let problem = "a delegated issuer's tokens are opaque and not checked here";
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
                format!("belongs to kind {meant}"),
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
    fn resolve(self, reader: &mut Reader<'_>) -> Option<OidcIssuer> {
        self.check_url(reader);
        check_audiences(reader, &self.audiences);
        check_subjects(reader, &self.url, self.profile.value, &self.subjects);
        refuse_empty(
            reader,
            &self.clients,
            "name clients, or leave the key out to accept any",
        );
        refuse_empty(
            reader,
            &self.algorithms,
            "leave the key out for every asymmetric algorithm",
        );
        let (zero, day) = (Duration::ZERO, Duration::from_hours(24));
        reader.within(&self.leeway, zero, Duration::from_mins(5), show_duration);
        reader.within(&self.verified_max_age, zero, day, show_duration);
        if let Some(ca) = &self.ca.value {
            reader.check_file(&self.ca.at, ca, "PEM certificate", "BEGIN CERTIFICATE");
            if self.jwks_file.given {
                let problem = "has no effect: the keys come from a file";
                reader.warn(&self.ca.at, problem, "remove it");
            }
        }
        let keys = resolve_keys(reader, self.jwks_url, self.jwks_file)?;
        Some(OidcIssuer {
            url: self.url.value?,
            keys,
            ca: self.ca.optional()?,
            audiences: self.audiences.value?.into_values(),
            algorithms: self.algorithms.value?.into_values(),
            profile: self.profile.value?,
            leeway: self.leeway.value?,
            clients: self.clients.optional()?.map(List::into_values),
            subjects: self.subjects.optional()?.map(List::into_values),
            verified_max_age: self.verified_max_age.value?,
        })
    }

    /// With keys given explicitly, `iss` is only a name, and for some issuers it is not a URL.
    fn check_url(&self, reader: &mut Reader<'_>) {
        let Some(text) = &self.url.value else { return };
        let only_a_name = self.jwks_url.given || self.jwks_file.given;
        let at = &self.url.at;
        match http_url::parse(text) {
            Ok(url) => {
                require_private(reader, at, &url, FORGERY);
                if url.query().is_some() {
                    reader.error(
                        at,
                        "has a query",
                        "write it exactly as in `iss`: an issuer has no query",
                    );
                }
                if self.profile.value == Some(Profile::Auth0) && !text.ends_with('/') {
                    let problem = "Auth0's `iss` ends with a slash, and is compared byte by byte";
                    reader.warn(
                        at,
                        problem,
                        format!("write {}", quoted(&format!("{text}/"))),
                    );
                }
            }
            Err(_) if only_a_name && !text.contains("://") => {}
            Err((problem, remedy)) => reader.error(at, problem, remedy),
        }
    }
}

fn check_audiences(reader: &mut Reader<'_>, field: &Field<List<String>>) {
    let Some(audiences) = &field.value else {
        return;
    };
    if audiences.is_empty() {
        let problem = "is empty: tokens for any service would have to be accepted";
        reader.error(&field.at, problem, "name the audience of callers' tokens");
    }
    for audience in &audiences.items {
        if audience.value.contains('*') {
            reader.error(
                &audience.at,
                "audiences have no wildcards",
                "write the audience in full",
            );
        }
    }
}

/// `profile` is `None` for an issuer whose answers have none.
fn check_subjects(
    reader: &mut Reader<'_>,
    url: &Field<String>,
    profile: Option<Profile>,
    field: &Field<List<String>>,
) {
    let Some(subjects) = &field.value else {
        if field.is_absent() && profile == Some(Profile::Workload) {
            let problem = "missing: every workload of this issuer would be accepted";
            reader.error(
                &field.at,
                problem,
                "name them: subjects = [\"repo:org/app:*\"]",
            );
        }
        return;
    };
    if subjects.is_empty() {
        let problem = "is empty: no token would be accepted";
        reader.error(&field.at, problem, "name subjects, with * for any text");
    }
    for subject in &subjects.items {
        let pattern = subject.value.as_str();
        if pattern.bytes().all(|b| b == b'*') {
            let problem = format!("{} accepts every subject", quoted(pattern));
            reader.error(
                &subject.at,
                problem,
                "name subjects, with * for the part that may differ",
            );
        } else if let Some(owner) = url
            .value
            .as_deref()
            .and_then(|url| open_owner(url, pattern))
        {
            let problem = format!(
                "{} accepts tokens of other owners at this public issuer",
                quoted(pattern)
            );
            reader.error(
                &subject.at,
                problem,
                format!("write the owner up to its slash: \"{owner}\""),
            );
        }
    }
}

/// Issuers where anyone can get a subject, and how a subject names its owner.
const PUBLIC_ISSUERS: [(&str, &str); 2] = [
    ("https://token.actions.githubusercontent.com", "repo:"),
    ("https://gitlab.com", "project_path:"),
];

/// For a pattern at a public issuer that leaves the owner open: an example that does not.
fn open_owner(issuer: &str, pattern: &str) -> Option<String> {
    let (_, prefix) = PUBLIC_ISSUERS
        .iter()
        .find(|(url, _)| issuer.trim_end_matches('/') == *url)?;
    let (fixed, _) = pattern.split_once('*')?;
    let open = match fixed.strip_prefix(prefix) {
        Some(owner) => !owner.contains('/'),
        // Shorter than the prefix, so that the * covers it; other shapes are custom subjects.
        None => prefix.starts_with(fixed),
    };
    open.then(|| format!("{prefix}org/app:*"))
}

fn resolve_keys(
    reader: &mut Reader<'_>,
    url: Field<Url>,
    file: Field<PathBuf>,
) -> Option<KeyLocation> {
    if url.given && file.given {
        let problem = "both jwks_url and jwks_file are given";
        reader.error(&file.at, problem, "remove one of the two");
    }
    if let Some(location) = &url.value {
        require_private(reader, &url.at, location, FORGERY);
    }
    if let Some(path) = &file.value {
        reader.check_file(&file.at, path, "JWKS", "\"keys\"");
    }
    Some(match (url.optional()?, file.optional()?) {
        (Some(url), _) => KeyLocation::Url(url),
        (None, Some(file)) => KeyLocation::File(file),
        (None, None) => KeyLocation::Discovery,
    })
}
