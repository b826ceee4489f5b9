//! What the schema demands beyond the shape of each value, as far as JSON Schema can say it: ranges of
//! numbers, patterns of strings, lists that must not be empty, keys that need or exclude each other. The
//! rules themselves are in the readers of the tables. A test validates every file that they refuse with
//! the schema, and lists those that it accepts (`tests/it/schema/accepted.txt`).

use serde_json::{Map, Value, json};

/// A pattern for `127.0.0.1:8080`, `[::1]:8080` and `unix:/path`: after something that must not follow, and
/// with a further alternative.
macro_rules! address {
    ($not:literal, $also:literal) => {
        concat!(
            "^",
            $not,
            "(",
            $also,
            r"unix:[^\u0000]{1,107}|[0-9]{1,3}(\.[0-9]{1,3}){3}:[0-9]{1,5}|\[[0-9A-Fa-f:.]+\]:[0-9]{1,5})$"
        )
    };
}

/// An address.
const ADDRESS: &str = address!("", "");
/// An address, or none at all.
const ADDRESS_OR_NONE: &str = address!("", "none|");
/// An address other than every interface.
const SINGLE_ADDRESS: &str = address!(r"(?!0\.0\.0\.0:|\[::\]:)", "");
/// A host as `Host` has it: lower case, without a port; or an address.
const HOST: &str = r"^([a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*|[0-9a-f]*:[0-9a-f:.]*:[0-9a-f:.]*)$";
/// A host, or every name below a domain.
const HOSTS: &str =
    r"^((\*\.)?[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*|[0-9a-f]*:[0-9a-f:.]*:[0-9a-f:.]*)$";
/// A path prefix that can be read in one way only.
const PATH: &str = r"^/(?!.*//)(?!.*\.(/|$))(?!.*[?#%*;+\\])[!-~]*$";
/// Such a prefix, but not the root.
const SEGMENTS: &str = r"^/(?=.)(?!.*//)(?!.*\.(/|$))(?!.*[?#%*;+\\])[!-~]*$";
/// The name of a header that every recipient reads in the same way.
const PLAIN_FIELD_NAME: &str = "^[0-9A-Za-z-]+$";
/// Permissions of a Unix socket: the owner may read and write.
const MODE: &str = "^0*[67][0-7]{2}$";
/// Scheme, host and port.
const ORIGIN: &str = r"^[Hh][Tt][Tt][Pp][Ss]?://(\[[0-9A-Fa-f:.]+\]|[^@\s\\#/?:\[\]]+)(:0*([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?/?$";
/// https, or http to this machine.
const SECURE: &str = r"^([Hh][Tt][Tt][Pp][Ss]://|[Hh][Tt][Tt][Pp]://(([^/?:]+\.)?localhost|127\.[0-9.]+|\[::1\])([:/?]|$))";
/// http to another machine.
const CLEARTEXT: &str =
    r"^[Hh][Tt][Tt][Pp]://(?!(([^/?:]+\.)?localhost|127\.[0-9.]+|\[::1\])([:/?]|$))";
/// An origin in the form that browsers send, https or of this machine.
const SITE: &str = r"^(https://(?!.*:443$)[a-z0-9._:\[\]-]+|http://(?!.*:80$)(([a-z0-9_-]+\.)*localhost|127\.[0-9.]+|\[::1\])(:[0-9]+)?)$";
/// Such an origin with wildcards, or any.
const PAGES: &str = r"^(\*|https?://(\*\.)?[a-z0-9._\[\]:-]+(:\*)?)$";
/// The path of a session's endpoints.
const PREFIX: &str = r#"^/(?!.*//)(?!.*\.(/|$))(?!.*[?#%*;+\\"<>])[!-~]+/$"#;
/// A template over claims, with a `/` between two of them.
const CLIENT_NAME: &str = r"^(?!.*\}[^/]*\{)([A-Za-z0-9@/:.+|_-]|\{[^{}\s]+\})+$";
/// A level, and levels of single targets; the audit log has a key of its own.
const LEVELS: &str = r"^ *((?!audit=)[A-Za-z0-9_:-]+=)?(off|error|warn|info|debug|trace) *(, *((?!audit=)[A-Za-z0-9_:-]+=)?(off|error|warn|info|debug|trace) *)*$";
/// The name of a header field (RFC 9110 §5.1).
const FIELD_NAME: &str = r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$";
/// Text with the token in it once.
const FORMAT: &str = r"^(?! )(?!.* $)[ -z|~]*\{token\}[ -z|~]*$";
/// A scope-token (RFC 6749 §3.3).
const SCOPE_TOKEN: &str = r"^[!#-\[\]-~]+$";
/// A network in CIDR notation, but not all addresses.
const NETWORK: &str = r"^[0-9A-Fa-f.:]+/([1-9]|[1-9][0-9]|1[0-2][0-9])$";
/// A network that containers of one machine can have.
const LOCAL_NETWORK: &str =
    r"^([0-9.]+/([89]|[1-3][0-9])|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*/(3[2-9]|[4-9][0-9]|1[0-2][0-9]))$";
/// The URL of a store, without user info.
const STORE: &str = r"^([Rr][Ee][Dd][Ii][Ss]|[Vv][Aa][Ll][Kk][Ee][Yy])[Ss]?(-[Ss][Ee][Nn][Tt][Ii][Nn][Ee][Ll]|-[Cc][Ll][Uu][Ss][Tt][Ee][Rr])?://[^@#/?,:][^@#]*$";
/// Something without a wildcard.
const LITERAL: &str = r"^[^*]*\S[^*]*$";

/// A keyword of JSON Schema with the value that it has at `path`: `table.key`, with `[]` for the elements
/// of an array and `.` before the keys of an inner table.
fn keywords(path: &str) -> Vec<(&'static str, Value)> {
    let pattern = |text: &str| vec![("pattern", json!(text))];
    let range = |min: u64, max: u64| vec![("minimum", json!(min)), ("maximum", json!(max))];
    let not_empty = || vec![("minItems", json!(1))];
    let field_names = || vec![("propertyNames", json!({ "pattern": PLAIN_FIELD_NAME }))];
    if path == "forward_auth.listen[]" {
        return pattern(SINGLE_ADDRESS);
    }
    // Both tables have the same listeners.
    let listener = path.strip_prefix("forward_auth.listen");
    let listener = listener.map(|rest| format!("server.listen{rest}"));
    match listener.as_deref().unwrap_or(path) {
        "server.listen[]" | "server.listen[].address" => pattern(ADDRESS),
        "server.admin" => pattern(ADDRESS_OR_NONE),
        "server.listen[].mode" => pattern(MODE),
        "server.listen[].allowed_networks[]" | "server.listen[].trusted_proxies[]" => {
            pattern(NETWORK)
        }
        "server.listen[].local_networks[]" => pattern(LOCAL_NETWORK),
        "server.listen"
        | "server.listen[].allowed_networks"
        | "server.listen[].allowed_users"
        | "server.listen[].local_networks"
        | "server.listen[].trusted_proxies"
        | "issuer.audiences"
        | "issuer.algorithms"
        | "issuer.clients"
        | "issuer.subjects"
        | "route.methods"
        | "route.cors.allowed_origins"
        | "rule.routes"
        | "forward_auth.routes"
        | "login.issuers" => not_empty(),
        "server.threads" => range(0, 1024),
        "server.local_hosts[]" => pattern(HOST),
        "route.host" => [pattern(HOSTS), not_empty()].concat(),
        "route.host[]" => pattern(HOSTS),
        "route.path" | "route.passes_401[]" => pattern(PATH),
        "route.strip_prefix" | "route.add_prefix" => pattern(SEGMENTS),
        "route.request_headers.set"
        | "route.request_headers.add"
        | "route.response_headers.set"
        | "route.response_headers.add" => field_names(),
        "route.request_headers.remove[]" | "route.response_headers.remove[]" => {
            pattern(PLAIN_FIELD_NAME)
        }
        // 429, and those of failing servers.
        "route.retry.statuses[]" => range(429, 599),
        "route.upstream" | "source.root_url" | "source.tenant" | "session.root_url" => {
            pattern(ORIGIN)
        }
        "route.signed_port" => range(1, 65_535),
        "route.require_scopes[]" | "login.require_scopes[]" => pattern(r"^\S+$"),
        "issuer.audiences[]" => pattern(LITERAL),
        // CEL, which may have several lines.
        "rule.when" | "rule.headers" => pattern(r"\S"),
        "session.prefix" => pattern(PREFIX),
        "session.origin" => pattern(SITE),
        "route.cors.allowed_origins[]" | "login.allowed_origins[]" => pattern(PAGES),
        "source.client_name" => pattern(CLIENT_NAME),
        "source.inject.header" => pattern(FIELD_NAME),
        "source.inject.format" => pattern(FORMAT),
        "log.level" => pattern(LEVELS),
        "shared.url" => pattern(STORE),
        "issuer.subjects[]" => pattern(r"[^*\s]"),
        "source.concurrency" => range(1, 10_000),
        "limits.connections_per_address" | "limits.requests_in_flight_per_address" => {
            range(0, 1_000_000)
        }
        "limits.connections"
        | "limits.requests_in_flight"
        | "limits.rate.requests"
        | "limits.rate.burst"
        | "route.rate.requests"
        | "route.rate.burst" => range(1, 1_000_000),
        "cache.max_entries" | "limits.rate.clients" | "route.rate.clients" => range(1, 10_000_000),
        _ => Vec::new(),
    }
}

/// Adds what is demanded of the value at `path` to its schema.
pub(super) fn refine(path: &str, schema: &mut Value) {
    let Some(schema) = schema.as_object_mut() else {
        return;
    };
    for (keyword, value) in keywords(path) {
        let concerns = match keyword {
            "pattern" => "string",
            "minItems" => "array",
            "propertyNames" => "object",
            _ => "integer",
        };
        if schema.get("type") == Some(&json!(concerns)) {
            schema.insert(keyword.into(), value);
        }
    }
}

/// A file without any of these tables would serve nothing.
pub(super) fn served() -> Value {
    let tables = ["route", "login"];
    tables
        .map(|table| json!({ "required": [table] }))
        .to_vec()
        .into()
}

/// The relations between the keys of a table, each a schema: `definition` is the name of the table and,
/// after a hyphen, its kind.
pub(super) fn relations(definition: &str) -> Vec<Value> {
    match definition {
        "route" => route(),
        "server.listen[]" => listener(),
        "forward_auth.listen[]" => {
            let mut all = listener();
            all.push(restricted());
            all
        }
        "route.cors" => cors(),
        "issuer-oidc" => oidc_issuer(),
        "issuer-introspection" => {
            let mut all = client(true);
            all.push(secure("introspection_url"));
            all
        }
        "source-client-credentials" | "source-token-exchange" => {
            let mut all = client(true);
            all.push(secure("token_url"));
            all.push(elements("scopes", SCOPE_TOKEN));
            all
        }
        "source-password" => {
            let mut all = client(true);
            all.extend([secure("token_url"), secure("mfa_url"), some("scopes")]);
            all.push(elements("scopes", SCOPE_TOKEN));
            all
        }
        "session-oidc" => {
            let mut all = client(false);
            all.push(elements("scopes", SCOPE_TOKEN));
            all
        }
        "source-auth0-identity" => vec![
            secure("tenant"),
            secure("custom_domain"),
            // `identities` is the default.
            json!({
                "if": given("via", &json!({ "const": "vault" })),
                "then": without("provider"),
                "else": { "required": ["provider"] },
            }),
        ],
        "source-taskcluster-login" => vec![secure("url"), without("inject")],
        "source-taskcluster-oauth" => vec![secure("root_url"), without("inject")],
        "source-taskcluster-mint" => vec![without("inject"), some("scopes")],
        "source-taskcluster-static" => vec![without("inject")],
        "source-static" => static_secret(),
        "session-taskcluster" => vec![secure("root_url"), some("scopes")],
        "shared" => vec![json!({ "dependentRequired": { "username": ["password"] } })],
        "rule" => vec![json!({
            "if": given("effect", &json!({ "const": "deny" })),
            "then": { "not": { "anyOf": [{ "required": ["scopes"] }, { "required": ["headers"] }] } },
        })],
        _ => Vec::new(),
    }
}

fn route() -> Vec<Value> {
    let access = || json!([{ "required": ["source"] }, { "required": ["session"] }]);
    let listed = json!({ "minItems": 1 });
    let anonymous = given("anonymous", &json!({ "const": true }));
    vec![
        // Otherwise it would neither verify tokens nor add credentials.
        json!({ "anyOf": [
            given("issuers", &listed), { "required": ["source"] }, { "required": ["session"] }, anonymous,
        ] }),
        json!({
            "if": anonymous,
            "then": {
                "properties": {
                    "issuers": { "maxItems": 0 },
                    "require_scopes": { "maxItems": 0 },
                    "workload_token": false,
                },
            },
        }),
        json!({
            "if": { "anyOf": [{ "required": ["strip_prefix"] }, { "required": ["add_prefix"] }] },
            "then": { "properties": { "shortcut": { "const": false }, "bewit": { "const": false } } },
        }),
        json!({ "if": given("passes_401", &listed), "then": { "anyOf": access() } }),
        json!({
            "if": given("bewit", &json!({ "const": true })),
            "then": { "anyOf": access() },
        }),
        json!({
            "if": given("upstream", &json!({ "pattern": "^[Hh][Tt][Tt][Pp]:" })),
            "then": without("ca"),
        }),
        json!({
            "if": given("upstream", &json!({ "pattern": CLEARTEXT })),
            "then": given("allow_plaintext", &json!({ "const": true })),
        }),
    ]
}

fn cors() -> Vec<Value> {
    let any = json!({ "contains": { "const": "*" } });
    let not_any = json!({ "not": any });
    vec![
        json!({
            "if": given("allow_credentials", &json!({ "const": true })),
            "then": { "properties": {
                "allowed_origins": not_any, "allowed_headers": not_any, "exposed_headers": not_any,
            } },
        }),
        json!({
            "if": given("allowed_origins", &any),
            "then": { "properties": { "allowed_origins": { "maxItems": 1 } } },
        }),
    ]
}

fn listener() -> Vec<Value> {
    let unix = given("address", &json!({ "pattern": "^unix:" }));
    vec![
        json!({
            "if": unix,
            "then": { "properties": {
                "tls": false, "allowed_networks": false, "local_networks": false, "trusted_proxies": false,
                "proxy_protocol": { "const": false },
            } },
            "else": without("mode"),
        }),
        json!({
            "if": { "required": ["local_networks"] },
            "then": { "properties": { "allowed_networks": false, "trusted_proxies": false } },
        }),
        json!({
            "if": given("h2c", &json!({ "const": true })),
            "then": without("tls"),
        }),
        json!({
            "if": given("proxy_protocol", &json!({ "const": true })),
            "then": { "required": ["trusted_proxies"], "properties": { "allowed_users": false } },
        }),
    ]
}

/// Only known proxies can connect to a listener on every interface.
fn restricted() -> Value {
    json!({
        "if": given("address", &json!({ "pattern": r"^(0\.0\.0\.0|\[::\]):" })),
        "then": { "anyOf": [
            { "required": ["allowed_networks"] },
            given("tls", &json!({ "required": ["client_ca"] })),
        ] },
    })
}

/// A token is sent as `inject` says; a username and password are Basic credentials.
fn static_secret() -> Vec<Value> {
    let sent_as = |what: &str| given("secret_as", &json!({ "const": what }));
    vec![
        json!({
            "if": { "required": ["username"] },
            "then": { "properties": {
                "username": { "pattern": "^[^:]*$" },
                "secret_as": { "const": "password" },
                "inject": false,
            } },
        }),
        json!({ "if": sent_as("password"), "then": { "required": ["username"] } }),
        json!({ "if": sent_as("username"), "then": without("inject") }),
    ]
}

fn oidc_issuer() -> Vec<Value> {
    vec![
        json!({ "not": { "required": ["jwks_url", "jwks_file"] } }),
        json!({
            "if": given("profile", &json!({ "const": "workload" })),
            "then": { "required": ["subjects"] },
        }),
        secure("jwks_url"),
        // Its keys are discovered there.
        json!({
            "if": { "not": { "anyOf": [{ "required": ["jwks_url"] }, { "required": ["jwks_file"] }] } },
            "then": secure("url"),
        }),
    ]
}

/// How a client authenticates. It must, unless it is public.
fn client(must_authenticate: bool) -> Vec<Value> {
    let mut all = vec![
        json!({ "not": { "required": ["client_secret", "private_key"] } }),
        json!({
            "if": given("auth_method", &json!({ "enum": ["client_secret_basic", "client_secret_post"] })),
            "then": { "required": ["client_secret"] },
        }),
        json!({
            "if": given("auth_method", &json!({ "const": "private_key_jwt" })),
            "then": { "required": ["private_key"] },
        }),
        json!({
            "dependentRequired": {
                "key_id": ["private_key"],
                "assertion_audience": ["private_key"],
                "assertion_algorithm": ["private_key"],
            },
        }),
    ];
    if must_authenticate {
        all.push(json!({ "anyOf": [{ "required": ["client_secret"] }, { "required": ["private_key"] }] }));
    }
    all
}

/// The table has this key, with a value that matches `schema`.
fn given(key: &str, schema: &Value) -> Value {
    json!({ "required": [key], "properties": { key: schema } })
}

/// The table does not have this key.
fn without(key: &str) -> Value {
    json!({ "properties": { key: false } })
}

/// The URL at this key, if there is one, is https or leads to this machine.
fn secure(key: &str) -> Value {
    json!({ "properties": { key: { "pattern": SECURE } } })
}

/// The list at this key, if there is one, is not empty.
fn some(key: &str) -> Value {
    json!({ "properties": { key: { "minItems": 1 } } })
}

fn elements(key: &str, pattern: &str) -> Value {
    json!({ "properties": { key: { "items": { "pattern": pattern } } } })
}

/// Adds the relations of `definition` to the schema of the table.
pub(super) fn relate(definition: &str, table: &mut Map<String, Value>) {
    let relations = relations(definition);
    if !relations.is_empty() {
        table.insert("allOf".into(), relations.into());
    }
}
