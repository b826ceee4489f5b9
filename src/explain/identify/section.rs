//! An `[[issuer]]` section to start from, made from an unverified token. Its text is untrusted: values
//! are quoted for TOML, limited in length, and replaced where they would widen what is accepted.

use std::fmt::Write as _;

use serde_json::Value;
use url::Url;

use super::Decoded;
use super::kind::Kind;
use crate::config::{self, ParseOptions};
use crate::token::Provider;
use crate::token::settings::Algorithm;

/// The longest value that is copied from a token, in bytes.
const MAX_VALUE: usize = 512;

/// Where a pod has the token of its service account, and the cluster's CA.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

const SOME_URL: &str = "https://idp.example.com";
const SOME_AUDIENCE: &str = "https://api.example.com";

/// A line of the section.
struct Line {
    key: &'static str,
    /// TOML.
    value: String,
    comment: &'static str,
}

fn line(key: &'static str, value: String, comment: &'static str) -> Line {
    Line {
        key,
        value,
        comment,
    }
}

/// The section for tokens such as this one, or for the tokens that should be sent in its place. It
/// passes `hawkgate check` together with a route.
pub(super) fn for_token(token: &Decoded) -> Option<String> {
    let url = token.claim("iss").and_then(|iss| copied(iss, ""));
    let attempts = [
        (url, keys(token)),
        // Without discovery `iss` is only compared, and need not be a URL.
        (
            url,
            vec![line(
                "jwks_url",
                quoted("https://idp.example.com/jwks.json"),
                "where its keys are",
            )],
        ),
        (None, Vec::new()),
    ];
    attempts
        .into_iter()
        .map(|(url, keys)| text(&lines(token, url, keys)))
        .find(|section| is_valid(section))
}

/// The section for opaque tokens that the issuer introspects.
pub(super) fn for_introspection(iss: Option<&Value>) -> Option<String> {
    let (url, comment) = match iss.and_then(|iss| copied(iss, "")) {
        Some(iss) => (iss, ""),
        None => (SOME_URL, "your provider's issuer"),
    };
    let section = text(&[
        line("name", quoted("idp"), ""),
        line(
            "kind",
            quoted("introspection"),
            "hawkgate asks the issuer about each token (RFC 7662)",
        ),
        line("url", quoted(url), comment),
        line(
            "introspection_url",
            quoted("https://idp.example.com/introspect"),
            "the introspection_endpoint of its metadata",
        ),
        line(
            "client_id",
            quoted("hawkgate"),
            "hawkgate's own client there",
        ),
        line("client_secret", "{ file = \"client-secret\" }".into(), ""),
        line(
            "audiences",
            list(SOME_AUDIENCE),
            "the aud that its answers have",
        ),
    ]);
    is_valid(&section).then_some(section)
}

/// The issuer's name in the section.
pub(super) fn name(token: &Decoded) -> &'static str {
    match token.provider {
        Some(Provider::Auth0) => "auth0",
        Some(Provider::Okta) => "okta",
        Some(Provider::Entra) => "entra",
        Some(Provider::AdFs) => "adfs",
        Some(Provider::Cognito) => "cognito",
        Some(Provider::Keycloak) => "keycloak",
        Some(Provider::Google) => "google",
        Some(Provider::GitHubActions) => "github",
        Some(Provider::GitLab) => "gitlab",
        Some(Provider::Kubernetes) => "cluster",
        Some(Provider::Dex) => "dex",
        Some(Provider::Zitadel) => "zitadel",
        Some(Provider::Authentik) => "authentik",
        Some(Provider::Rfc9068) | None => "idp",
    }
}

/// The profile that accepts the access tokens of this token's issuer.
pub(super) fn profile(token: &Decoded) -> &'static str {
    let is_rfc9068 = token.kind == Kind::AccessToken && typ(token) == "at+jwt";
    match token.provider.and_then(Provider::profile) {
        // These two accept both types.
        Some(profile @ ("okta" | "keycloak" | "workload")) => profile,
        _ if is_rfc9068 => "rfc9068",
        Some(profile) => profile,
        None if token.provider == Some(Provider::Authentik) || token.kind == Kind::Jwt => {
            "workload"
        }
        None => "rfc9068",
    }
}

/// `typ`, in lower case and without the prefix that RFC 7515 §4.1.9 makes optional.
fn typ(token: &Decoded) -> String {
    let typ = token.header_text("typ").to_ascii_lowercase();
    typ.strip_prefix("application/").unwrap_or(&typ).to_owned()
}

/// `token_types`, where the profile alone would not accept the token.
fn token_types(token: &Decoded) -> Option<Line> {
    let is_own = token.provider.is_none() && token.kind == Kind::AccessToken;
    let (value, comment) = match &*typ(token) {
        "jwt" => (
            "JWT",
            "without the type of RFC 9068; what looks like an ID token is refused",
        ),
        "" => ("", "no typ; what looks like an ID token is refused"),
        _ => return None,
    };
    (is_own && profile(token) == "rfc9068").then(|| line("token_types", list(value), comment))
}

fn lines(token: &Decoded, url: Option<&str>, keys: Vec<Line>) -> Vec<Line> {
    let comment = match url {
        Some(_) => "`iss`, byte by byte",
        None => "its exact `iss`",
    };
    let mut lines = vec![
        line("name", quoted(name(token)), ""),
        line("url", quoted(url.unwrap_or(SOME_URL)), comment),
    ];
    let algorithm = token.header_text("alg");
    let is_in = |list: &[Algorithm]| list.iter().any(|known| known.name() == algorithm);
    let is_symmetric = is_in(Algorithm::HMAC);
    if is_symmetric {
        let comment = "signed with a secret, which hawkgate must know";
        lines.insert(1, line("kind", quoted("shared-secret"), comment));
        lines.push(line("secret", "{ file = \"hmac-secret\" }".into(), ""));
    } else {
        lines.extend(keys);
    }
    let (audience, comment) = audience(token);
    lines.push(line("audiences", list(audience), comment));
    if is_symmetric || is_in(Algorithm::ALL) {
        lines.push(line("algorithms", list(algorithm), ""));
    }
    let profile = profile(token);
    let comment = match profile {
        "workload" if token.provider.is_none() => "any typ; only the subjects below",
        _ => "",
    };
    lines.push(line("profile", quoted(profile), comment));
    lines.extend(token_types(token));
    if profile == "workload" {
        let (subject, comment) = subject(token);
        lines.push(line("subjects", list(subject), comment));
    }
    lines
}

/// The location of the keys, where discovery does not find it.
fn keys(token: &Decoded) -> Vec<Line> {
    let iss = token.claim_text("iss");
    let at = |url: &str, comment| vec![line("jwks_url", quoted(url), comment)];
    match token.provider {
        Some(Provider::AdFs) if iss.starts_with("http:") => {
            let host = Url::parse(iss)
                .ok()
                .and_then(|url| Some(url.host_str()?.to_owned()));
            let Some(host) = host else { return Vec::new() };
            let comment = "`iss` is only a name at AD FS";
            at(&format!("https://{host}/adfs/discovery/keys"), comment)
        }
        Some(Provider::Google) if iss == "accounts.google.com" => at(
            "https://www.googleapis.com/oauth2/v3/certs",
            "`iss` is not a URL",
        ),
        Some(Provider::Google) if iss.ends_with("/iap") => at(
            "https://www.gstatic.com/iap/verify/public_key-jwk",
            "the keys of IAP",
        ),
        Some(Provider::Kubernetes)
            if !iss.contains("://") || iss.starts_with("https://kubernetes.default") =>
        {
            let mut lines = at(
                "https://kubernetes.default.svc/openid/v1/jwks",
                "the API server, as a pod reaches it",
            );
            let file = |name: &str| quoted(&format!("{SERVICE_ACCOUNT}/{name}"));
            lines.push(line("ca", file("ca.crt"), ""));
            let token = format!("{{ file = {} }}", file("token"));
            lines.push(line("keys_token", token, "of hawkgate's own pod"));
            lines
        }
        _ => Vec::new(),
    }
}

/// The audience to accept: the first of the token that is not that of something else.
fn audience(token: &Decoded) -> (&str, &'static str) {
    if token.provider == Some(Provider::Cognito) {
        let client = token.claim("client_id").or_else(|| token.claim("aud"));
        return match client.and_then(|client| copied(client, "*")) {
            Some(client) => (
                client,
                "the app client: Cognito's access tokens have no aud",
            ),
            None => ("example-app-client", "the id of your app client"),
        };
    }
    if !token.kind.is_for_apis() {
        return (SOME_AUDIENCE, "the identifier of your API");
    }
    let own = token
        .audiences()
        .into_iter()
        .filter_map(|audience| copied(audience, "*"))
        .find(|audience| !is_of_the_provider(token, audience));
    match own {
        Some(audience) => (audience, ""),
        None => (
            SOME_AUDIENCE,
            "the identifier of your API, which this token does not name",
        ),
    }
}

/// Whether `audience` is the identity provider itself or another API of its own.
pub(super) fn is_of_the_provider(token: &Decoded, audience: &str) -> bool {
    let iss = token.claim_text("iss").trim_end_matches('/');
    let provider = token.provider;
    match provider {
        Some(Provider::Keycloak) => audience == "account" || audience.ends_with("-realm"),
        Some(Provider::Auth0) => audience.ends_with("/userinfo") || audience.ends_with("/api/v2/"),
        Some(Provider::Okta | Provider::GitLab) => audience.trim_end_matches('/') == iss,
        Some(Provider::Entra) => {
            GRAPH.contains(&audience.trim_end_matches('/'))
                || audience.starts_with("https://management.azure.com")
        }
        Some(Provider::Kubernetes) => {
            audience.trim_end_matches('/') == iss
                || audience.starts_with("https://kubernetes.default")
        }
        // The default audience of a job's token.
        Some(Provider::GitHubActions) => audience.starts_with("https://github.com/"),
        _ => false,
    }
}

/// The names of Microsoft Graph as an audience, for which no other API can verify tokens.
pub(super) const GRAPH: [&str; 2] = [
    "00000003-0000-0000-c000-000000000000",
    "https://graph.microsoft.com",
];

fn subject(token: &Decoded) -> (&str, &'static str) {
    let own = token.claim("sub").and_then(|sub| copied(sub, "*"));
    match own.filter(|_| token.kind.is_for_apis()) {
        Some(subject) => (subject, "`*` matches any text"),
        None => (
            match token.provider {
                Some(Provider::GitHubActions) => "repo:org/app:ref:refs/heads/main",
                Some(Provider::GitLab) => "project_path:group/project:ref_type:branch:ref:main",
                Some(Provider::Kubernetes) => "system:serviceaccount:namespace:account",
                Some(Provider::Google) => "112233445566778899001",
                _ => "the-subject",
            },
            "the subjects of your programs",
        ),
    }
}

/// A string of the token that can be copied: not empty, of limited length, of characters that print, and
/// without any of `excluded`.
fn copied<'v>(value: &'v Value, excluded: &str) -> Option<&'v str> {
    let text = value.as_str()?;
    let fits = (1..=MAX_VALUE).contains(&text.len());
    let is_plain = |c: char| prints(c) && !excluded.contains(c);
    (fits && text.chars().all(is_plain)).then_some(text)
}

/// Whether a character prints; control characters and marks that change the direction of text do not.
fn prints(c: char) -> bool {
    matches!(c, '"' | '\\' | '\'') || c.escape_debug().count() == 1
}

fn list(value: &str) -> String {
    format!("[{}]", quoted(value))
}

/// A TOML basic string on one line. Whatever does not print, such as control characters and marks that
/// change the direction of text, is escaped.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            _ if prints(c) => quoted.push(c),
            _ => {
                let _ = write!(quoted, "\\U{:08X}", u32::from(c));
            }
        }
    }
    quoted.push('"');
    quoted
}

/// The lines, with `=` and comments aligned.
fn text(lines: &[Line]) -> String {
    let width = |of: fn(&Line) -> usize| lines.iter().map(of).max().unwrap_or(0);
    let keys = width(|line| line.key.len());
    // Long values do not push the comments of the others away.
    let values = width(|line| {
        Some(line.value.chars().count())
            .filter(|n| *n <= 60)
            .unwrap_or(0)
    });
    let mut text = String::from("[[issuer]]\n");
    for Line {
        key,
        value,
        comment,
    } in lines
    {
        let _ = if comment.is_empty() {
            writeln!(text, "{key:keys$} = {value}")
        } else {
            writeln!(text, "{key:keys$} = {value:values$}  # {comment}")
        };
    }
    text
}

/// Whether the section is valid together with a route.
fn is_valid(section: &str) -> bool {
    let name = [
        "[[route]]",
        "name = \"r\"",
        "upstream = \"https://api.example.com\"",
    ]
    .join("\n");
    let issuer = section
        .lines()
        .find_map(|line| line.strip_prefix("name")?.split('"').nth(1));
    let route = format!(
        "{section}\n{name}\nissuers = [{}]\n",
        quoted(issuer.unwrap_or_default())
    );
    let options = ParseOptions {
        read_secrets: false,
        environment: false,
        base_dir: "/".into(),
    };
    config::parse(&route, "section", &options).is_ok()
}
