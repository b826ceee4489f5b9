//! What people bring from other programs: configurations in another format or with other programs'
//! keys, and variables that they expect to be expanded. Recognised, so that the error says what to do
//! instead of proposing the name that happens to be spelt most similarly.

use std::borrow::Cow;

use toml::de::{DeTable, DeValue};

use super::diagnostic::{Diagnostic, Lines};

/// How hawkgate's own configuration looks, for those who expected another one.
const START: &str = "hawkgate reads TOML with the tables [server], [[issuer]], [[source]] and [[route]]; \
    `hawkgate demo --print-config` prints one to start from";

/// A problem and its remedy.
pub(super) type Refusal = (String, Cow<'static, str>);

/// The error for a text that is not TOML but another known format; `None` if it may be meant as TOML.
pub(super) fn syntax(text: &str) -> Option<Diagnostic> {
    let is_significant = |line: &&str| !line.is_empty() && !line.starts_with(['#', ';']);
    let mut lines = text.lines().map(str::trim).filter(is_significant);
    let first = lines.next()?;
    let begins = |prefix: &str| text.lines().any(|line| line.starts_with(prefix));
    let format = if first == "{" || (first.starts_with("{\"") || first.starts_with("{ \"")) {
        "JSON"
    } else if first.starts_with('<') {
        "XML or HTML"
    } else if begins("static_resources:") || begins("dynamic_resources:") {
        "YAML, like Envoy's configuration"
    } else if begins("entryPoints:") || begins("providers:") || begins("http:") {
        "YAML, like Traefik's configuration"
    } else if first == "---" || is_yaml_key(first) {
        "YAML"
    } else if is_block(first) || lines.any(|line| line.ends_with(';') && !line.contains('=')) {
        "a configuration of blocks in braces, like those of nginx and Caddy"
    } else if first.starts_with("export ") || first.starts_with("OAUTH2_PROXY_") {
        "a list of environment variables"
    } else {
        return None;
    };
    let mut error = Diagnostic::of_file(format!("is not TOML but {format}"), START);
    // Where the text begins.
    let offset = text.find(first).unwrap_or_default();
    (error.line, error.column) = Lines::of(text).position(offset);
    Some(error)
}

/// `key:` or `key: value`, which TOML never has outside strings.
fn is_yaml_key(line: &str) -> bool {
    let Some((key, value)) = line.split_once(':') else {
        return false;
    };
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
    !key.is_empty() && key.bytes().all(plain) && (value.is_empty() || value.starts_with(' '))
}

/// `server {`, `events {`, `example.com {`
fn is_block(line: &str) -> bool {
    line.strip_suffix('{')
        .is_some_and(|head| !head.trim().is_empty() && !head.contains(['=', '"', '\'', '[']))
}

/// The remedy for a value that other programs would expand: `${VAR}`, `$VAR`, `%{…}`, `{{ … }}`,
/// `env:VAR`, and the problem. Values are quoted only if they cannot be a secret.
pub(super) fn placeholder(text: &str) -> Option<Refusal> {
    let syntax = placeholder_syntax(text)?;
    Some((
        format!("contains {syntax}, and hawkgate expands neither variables nor templates"),
        "write the value itself, or let what deploys the file fill it in (envsubst, Helm, …); only secrets are read \
         from the environment: { env = \"NAME\" }"
            .into(),
    ))
}

/// The remedy for a secret written as a variable. The variable's name is quoted only if it is in
/// `${}` and cannot be anything else.
pub(super) fn secret_placeholder(text: &str) -> Option<Refusal> {
    let syntax = placeholder_syntax(text)?;
    let braced = text
        .strip_prefix("${")
        .and_then(|rest| rest.strip_suffix('}'));
    let remedy = match braced.filter(|name| is_variable(name)) {
        Some(name) => format!("write {{ env = \"{name}\" }}").into(),
        None => "write { env = \"NAME\" } to read an environment variable, or { file = \"…\" } to read a file".into(),
    };
    let problem =
        format!("contains {syntax}, and hawkgate expands neither variables nor templates");
    Some((problem, remedy))
}

fn placeholder_syntax(text: &str) -> Option<&'static str> {
    let braced = |(at, _): (usize, &str)| {
        let name = &text[at + 2..];
        name.find([':', '-', '}'])
            .is_some_and(|end| is_name(&name[..end]) && name.contains('}'))
    };
    if text.match_indices("${").any(braced) {
        Some("a variable, ${…}")
    } else if text.strip_prefix('$').is_some_and(is_variable) {
        Some("a variable, $…")
    } else if text.strip_prefix("env:").is_some_and(is_variable) {
        Some("a variable, env:…")
    } else if text.contains("%{") && text.contains('}') {
        Some("a variable, %{…}")
    } else if is_template(text) {
        Some("a template, {{ … }}")
    } else if text.contains("<%") && text.contains("%>") {
        Some("a template, <% … %>")
    } else {
        None
    }
}

/// `{{ .Values.x }}`, `{{ name }}`, `{{- …`: Go and Jinja. `{{sub}}` may be a misspelt name template.
fn is_template(text: &str) -> bool {
    let after = text.split("{{").skip(1);
    text.contains("}}") && { after }.any(|rest| rest.starts_with([' ', '.', '-', '$']))
}

fn is_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_.".contains(&b);
    name.bytes().all(plain) && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
}

/// A name as environment variables have it: upper case.
fn is_variable(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
    name.len() > 1 && name.bytes().all(plain) && !name.starts_with(|c: char| c.is_ascii_digit())
}

/// What is said of a line that is not valid TOML because of a placeholder outside quotes, or because of
/// quotation marks that a word processor has put in.
pub(super) fn line_remedy(line: &str) -> Option<&'static str> {
    let value = line.split_once('=').map_or(line, |(_, value)| value).trim();
    if value.starts_with(['"', '\'']) {
        return None;
    }
    if value.contains(['\u{201c}', '\u{201d}', '\u{201e}', '\u{2018}', '\u{2019}']) {
        return Some("write straight quotation marks: \"…\"");
    }
    let found = ["{{", "${", "%{", "<%"].iter().any(|s| value.contains(s));
    let variable = value.strip_prefix('$').is_some_and(is_name);
    (found || variable).then_some(
        "hawkgate expands neither variables nor templates: let what deploys the file fill them in (envsubst, Helm, …)",
    )
}

/// A program whose configuration is TOML too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Program {
    Oauth2Proxy,
    Traefik,
}

impl Program {
    /// The program that `document` was probably written for.
    pub(super) fn of(document: &DeTable<'_>) -> Option<Self> {
        let is_scalar = |value: &DeValue<'_>| !matches!(value, DeValue::Table(_));
        let mut keys = document.iter().filter(|(_, v)| is_scalar(v.get_ref()));
        if keys.any(|(key, _)| TELLING.contains(&key.get_ref().as_ref())) {
            return Some(Self::Oauth2Proxy);
        }
        let traefik = ["entryPoints", "entrypoints", "certificatesResolvers"];
        traefik
            .iter()
            .any(|name| document.contains_key(*name))
            .then_some(Self::Traefik)
    }

    /// The error about the file as a whole.
    pub(super) fn refusal(self) -> Refusal {
        let (name, more) = match self {
            Self::Oauth2Proxy => (
                "oauth2-proxy",
                "; docs/comparison.md compares the two programs",
            ),
            Self::Traefik => ("Traefik", ""),
        };
        (
            format!("this looks like a configuration of {name}, whose keys hawkgate does not have"),
            format!("{START}{more}").into(),
        )
    }

    /// Where hawkgate has what the key `name` of this program means.
    pub(super) fn counterpart(self, name: &str) -> &'static str {
        let counterparts = match self {
            Self::Oauth2Proxy => OAUTH2_PROXY,
            Self::Traefik => TRAEFIK,
        };
        let found = counterparts
            .iter()
            .find(|(names, _)| names.split(' ').any(|n| n == name));
        found.map_or("hawkgate has no such setting: remove it", |(_, remedy)| {
            remedy
        })
    }
}

/// Options of oauth2-proxy that nothing in hawkgate resembles.
const TELLING: &[&str] = &[
    "alpha_config",
    "cookie_secret",
    "email_domains",
    "http_address",
    "https_address",
    "oidc_issuer_url",
    "pass_access_token",
    "pass_authorization_header",
    "provider",
    "redirect_url",
    "reverse_proxy",
    "set_authorization_header",
    "set_xauthrequest",
    "skip_auth_regex",
    "skip_auth_routes",
    "skip_jwt_bearer_tokens",
    "skip_provider_button",
    "upstreams",
];

/// Options of oauth2-proxy, and where hawkgate has what they mean.
const OAUTH2_PROXY: &[(&str, &str)] = &[
    (
        "http_address https_address",
        "write it as listen = [\"127.0.0.1:8080\"] in [server]",
    ),
    (
        "metrics_address ping_path ready_path",
        "metrics and health checks are at admin in [server]",
    ),
    (
        "tls_cert_file tls_key_file tls_cert tls_key",
        "write listen = [{ address = \"…\", tls = { cert = \"…\", key = \"…\" } }] in [server]",
    ),
    (
        "reverse_proxy trusted_ips real_client_ip_header trusted_proxy_ips",
        "write trusted_proxies in the listener's table in server.listen",
    ),
    (
        "provider provider_display_name",
        "write an [[issuer]] with url and audiences; profile says which provider it is",
    ),
    (
        "oidc_issuer_url login_url redeem_url",
        "write it as url in an [[issuer]]; the rest is discovered",
    ),
    ("oidc_jwks_url", "write it as jwks_url in an [[issuer]]"),
    (
        "oidc_extra_audiences oidc_audience_claims extra_jwt_issuers",
        "write audiences in an [[issuer]]",
    ),
    (
        "skip_jwt_bearer_tokens",
        "hawkgate accepts bearer tokens: list issuers in the [[route]]",
    ),
    (
        "upstreams",
        "write a [[route]] with path and upstream for each",
    ),
    (
        "client_id client_secret client_secret_file scope prompt code_challenge_method",
        "it belongs to the client that signs users in: write a [[session]] with issuer, client_id, client_secret = \
         { file = \"…\" } and scopes",
    ),
    (
        "cookie_secret cookie_secret_file",
        "write cookie_key = { file = \"…\" } in a [[session]]: 32 random bytes in base64",
    ),
    (
        "cookie_expire cookie_refresh",
        "write lifetime and idle in a [[session]]; tokens are refreshed when they are due",
    ),
    (
        "cookie_name cookie_domains cookie_domain cookie_path cookie_secure cookie_samesite cookie_httponly \
         session_store_type redis_connection_url whitelist_domains",
        "a [[session]] sets its cookies safely by itself: remove it",
    ),
    (
        "redirect_url proxy_prefix",
        "the redirect URI is the origin and prefix of a [[session]], with callback at its end",
    ),
    (
        "email_domains authenticated_emails_file allowed_groups allowed_group allowed_roles allowed_role",
        "write a [[rule]] whose when tests the claims, such as 'claims.email.endsWith(\"@example.com\")'",
    ),
    (
        "skip_auth_routes skip_auth_regex skip_auth_preflight api_routes",
        "write a [[route]] of its own with anonymous = true",
    ),
    (
        "pass_access_token pass_authorization_header pass_user_headers pass_basic_auth set_xauthrequest \
         set_authorization_header set_basic_auth basic_auth_password",
        "the caller's token never goes upstream: the route's source says what does, and headers of a [[rule]] say who \
         the user is",
    ),
    (
        "request_logging auth_logging standard_logging logging_filename",
        "write format and level in [log]; logs go to stderr",
    ),
];

const TRAEFIK: &[(&str, &str)] = &[
    (
        "entryPoints entrypoints",
        "write listen = [\"127.0.0.1:8080\"] in [server]",
    ),
    (
        "http tcp",
        "write a [[route]] with path and upstream for each router and its service",
    ),
    ("providers", "hawkgate's routes are in this file only"),
    ("accessLog accesslog", "write format and level in [log]"),
    (
        "metrics ping api",
        "metrics and health checks are at admin in [server]",
    ),
    ("tracing", "write [trace] with endpoint"),
];

// One row per name, so that it reads as a table.
/// Names that others use for what hawkgate calls differently: the table, `""` for the file itself;
/// the names; the remedy.
#[rustfmt::skip]
const SYNONYMS: &[(&str, &str, &str)] = &[
    ("", "oidc oauth oauth2 auth idp provider providers jwt identity_provider", "write an [[issuer]] with url and audiences"),
    ("", "upstream backend backends service services cluster clusters proxy proxies", "write it as upstream in a [[route]]"),
    ("", "listener listeners listen http https bind port address entrypoint", "write listen = [\"127.0.0.1:8080\"] in [server]"),
    ("", "tls ssl certificate", "write listen = [{ address = \"…\", tls = { cert = \"…\", key = \"…\" } }] in [server]"),
    ("", "admin metrics health status prometheus", "write admin = \"127.0.0.1:9090\" in [server]"),
    ("", "logging logger", "write [log]"),
    ("", "tracing otel opentelemetry otlp", "write [trace] with endpoint"),
    ("", "policy policies authorization acl access", "write a [[rule]]"),
    ("", "credential credentials secret secrets token client clients taskcluster", "write a [[source]]: it says where the upstream's credentials come from"),
    ("", "cookie cookies web login_page", "write a [[session]]"),
    ("", "auth_request forwardauth ext_authz", "write a [[forward_auth]]"),
    ("route", "backend target to proxy_pass service dest destination forward", "write it as upstream"),
    ("route", "url", "write path for the requests that it matches and upstream for where they go"),
    ("route", "prefix location match uri path_prefix", "write it as path"),
    ("route", "domain domains hosts server_name hostname", "write it as host: one name, or a list like [\"a.example.com\", \"*.example.com\"]"),
    ("route", "auth oidc token provider jwt", "write issuers = [\"…\"]: the names of [[issuer]] tables"),
    ("route", "credentials credential secret client_id client_secret", "write source = \"…\": the name of a [[source]]"),
    ("route", "scopes required_scopes scope", "write it as require_scopes"),
    ("route", "public allow_anonymous no_auth skip_auth", "write anonymous = true"),
    ("route", "headers set_headers add_headers proxy_set_header", "write request_headers = { set = { \"X-Name\" = \"value\" } }, or response_headers"),
    ("route", "rewrite strip trim_prefix prefix_rewrite strip_path", "write strip_prefix and add_prefix"),
    ("route", "timeout", "write connect_timeout, read_timeout or write_timeout"),
    ("route", "tls_skip_verify insecure insecure_skip_verify tls_verify verify", "certificates are always verified: write ca = \"ca.pem\" with the upstream's CA"),
    ("issuer", "issuer iss issuer_url discovery_url discovery domain well_known", "write it as url, exactly as in the tokens' `iss`"),
    ("issuer", "jwks jwks_uri jwk_set keys_url certs_url", "write it as jwks_url, or leave it out: it is discovered from url"),
    ("issuer", "alg algs signing_algorithms", "write it as algorithms = [\"RS256\"]"),
    ("issuer", "skew clock_skew", "write it as leeway = \"30s\""),
    ("issuer", "tls_skip_verify insecure insecure_skip_verify tls_verify verify", "certificates are always verified: write ca = \"ca.pem\" with the issuer's CA"),
    ("source", "issuer token_endpoint", "write it as token_url"),
    ("source", "secret password", "write it as client_secret = { file = \"…\" }, or as secret in a source of kind static"),
    ("source", "token api_key apikey", "write it as secret = { file = \"…\" } in a source of kind static"),
    ("server", "address bind host http_address addr", "write it as listen = [\"127.0.0.1:8080\"]"),
    ("server", "port", "write listen = [\"127.0.0.1:8080\"], or \"0.0.0.0:8080\" for every interface"),
    ("server", "tls cert key ssl certificate", "write listen = [{ address = \"…\", tls = { cert = \"…\", key = \"…\" } }]"),
    ("server", "metrics health admin_address metrics_address", "write it as admin = \"127.0.0.1:9090\""),
    ("server", "workers worker_threads", "write it as threads"),
    ("server", "shutdown_timeout grace_period graceful_shutdown_timeout", "write it as drain = \"30s\""),
    ("server", "log_level log_format", "write level and format in [log]"),
];

/// What to write instead of `name` in this table (`""` for the file itself, otherwise `route`, as in
/// [`SYNONYMS`]).
pub(super) fn synonym(table: &str, name: &str) -> Option<&'static str> {
    let matches = |(of, names, _): &&(&str, &str, &str)| {
        *of == table && names.split(' ').any(|n| n.eq_ignore_ascii_case(name))
    };
    SYNONYMS.iter().find(matches).map(|(.., remedy)| *remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_formats_are_recognised_and_toml_is_not() {
        for (text, format) in [
            ("{\n  \"server\": {}\n}", "JSON"),
            ("{\"a\": 1}", "JSON"),
            ("# x\nstatic_resources:\n  listeners: []", "Envoy"),
            ("http:\n  routers: {}", "Traefik"),
            ("---\nserver:\n  listen: 1", "YAML"),
            ("server:\n  listen: 1", "YAML"),
            ("events {\n}\nhttp {\n", "nginx"),
            ("user nginx;\nworker_processes auto;", "nginx"),
            ("example.com {\n  reverse_proxy :80\n}", "Caddy"),
            ("<html>", "HTML"),
            ("export A=b", "environment"),
        ] {
            let error = syntax(text).unwrap_or_else(|| panic!("{text}"));
            assert!(error.problem.contains(format), "{text}: {}", error.problem);
            assert!(error.line > 0);
        }
        for text in [
            "",
            "# only a comment",
            "[server\nlisten = []",
            "[server]\ndrain = 30s",
            "listen = {",
            "a = { b = \"c;\" }",
        ] {
            assert!(syntax(text).is_none(), "{text}");
        }
    }

    #[test]
    fn placeholders_are_recognised_and_ordinary_text_is_not() {
        for text in [
            "${HOST}",
            "https://${HOST}/x",
            "${HOST:-localhost}",
            "${var.issuer}",
            "$HOST",
            "env:HOST",
            "%{lookup}",
            "{{ .Values.url }}",
            "{{.Values.url}}",
            "{{- x }}",
            "<%= url %>",
        ] {
            assert!(placeholder(text).is_some(), "{text}");
        }
        for text in [
            "sso/{sub}",
            "sso/{{sub}}",
            "$",
            "$5",
            "a$B",
            "$host",
            "^x$",
            "${",
            "${}",
            "unix:/run/x",
            "env:host",
            "100%",
            "claims.x.matches(\"^a{2}$\")",
        ] {
            assert!(placeholder(text).is_none(), "{text}");
        }
    }

    #[test]
    fn of_a_secret_only_the_name_of_a_braced_variable_is_quoted() {
        let remedy = |text| secret_placeholder(text).unwrap().1;
        assert_eq!(
            remedy("${CLIENT_SECRET}"),
            "write { env = \"CLIENT_SECRET\" }"
        );
        for text in ["$HUNTER2", "env:HUNTER2", "${hunter2}", "x${HUNTER2}"] {
            let (problem, remedy) = secret_placeholder(text).unwrap();
            assert!(
                !format!("{problem} {remedy}")
                    .to_uppercase()
                    .contains("HUNTER")
            );
        }
        assert!(secret_placeholder("hunter2").is_none());
    }

    #[test]
    fn every_remedy_belongs_to_one_name_only() {
        for (table, names, _) in SYNONYMS {
            for name in names.split(' ') {
                let all = SYNONYMS
                    .iter()
                    .filter(|(of, names, _)| of == table && names.split(' ').any(|n| n == name));
                assert_eq!(all.count(), 1, "{table} {name}");
            }
        }
    }
}
