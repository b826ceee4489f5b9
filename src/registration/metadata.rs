//! Client metadata (RFC 7591 §2, OpenID Connect Dynamic Client Registration §2), validated
//! before it is sent so that mistakes are reported with a remedy.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use url::{Host, Url};

/// Members that only the issuer may set (RFC 7591 §3.2.1, RFC 7592 §2.2).
const SERVER_ASSIGNED: [&str; 6] = [
    "client_id",
    "client_secret",
    "client_id_issued_at",
    "client_secret_expires_at",
    "registration_access_token",
    "registration_client_uri",
];

/// Members that are arrays of strings.
const STRING_ARRAYS: [&str; 4] = ["redirect_uris", "grant_types", "response_types", "contacts"];

/// Members that only private and symmetric JWKs have (RFC 7518 §6).
const PRIVATE_JWK_MEMBERS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// Validated client metadata.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClientMetadata(Map<String, Value>);

/// The methods of client authentication at the token endpoint that hawkgate supports (RFC 7591 §2,
/// OpenID Connect Core §9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthMethod {
    /// A public client, which does not authenticate.
    None,
    /// `Authorization: Basic`.
    ClientSecretBasic,
    /// `client_secret` in the form.
    ClientSecretPost,
    /// A JWT signed with the client's own key (RFC 7523).
    PrivateKeyJwt,
}

impl AuthMethod {
    /// Every method.
    pub const ALL: [Self; 4] = [
        Self::None,
        Self::ClientSecretBasic,
        Self::ClientSecretPost,
        Self::PrivateKeyJwt,
    ];

    /// The name in the IANA registry.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::ClientSecretBasic => "client_secret_basic",
            Self::ClientSecretPost => "client_secret_post",
            Self::PrivateKeyJwt => "private_key_jwt",
        }
    }

    /// The method with this name in the IANA registry.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.name() == name)
    }
}

/// A mistake in the metadata.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{member}: {problem}")]
pub struct MetadataError {
    /// The member.
    pub member: String,
    /// What is wrong, and what to write instead.
    pub problem: String,
}

impl ClientMetadata {
    /// Validates `members` and fills in implied ones: `application_type` `native` if
    /// a redirect URI is on loopback or has a private-use scheme (OpenID Connect Dynamic Client
    /// Registration §2), and empty `redirect_uris` and `response_types` for a client without
    /// the authorization code grant.
    ///
    /// # Errors
    /// Every mistake found.
    pub fn new(mut members: Map<String, Value>) -> Result<Self, Vec<MetadataError>> {
        let mut errors = Vec::new();
        check_shapes(&members, &mut errors);
        if errors.is_empty() {
            complete(&mut members);
            check_redirects(&members, &mut errors);
            check_grants(&members, &mut errors);
            check_authentication(&members, &mut errors);
            check_keys(&members, &mut errors);
        }
        if errors.is_empty() {
            Ok(Self(members))
        } else {
            Err(errors)
        }
    }

    /// The members as JSON.
    pub fn members(&self) -> &Map<String, Value> {
        &self.0
    }

    /// `client_name`, if present.
    pub fn client_name(&self) -> Option<&str> {
        self.0.get("client_name").and_then(Value::as_str)
    }

    /// `scope`, if present.
    pub fn scope(&self) -> Option<&str> {
        self.0.get("scope").and_then(Value::as_str)
    }

    /// `redirect_uris`.
    pub fn redirect_uris(&self) -> Vec<&str> {
        strings(&self.0, "redirect_uris")
    }

    /// Whether `grant` is among the grant types. Without `grant_types` the only one is
    /// `authorization_code` (RFC 7591 §2).
    pub fn has_grant(&self, grant: &str) -> bool {
        has_grant(&self.0, grant)
    }

    /// `token_endpoint_auth_method`, if present.
    pub fn auth_method(&self) -> Option<AuthMethod> {
        AuthMethod::from_name(self.0.get("token_endpoint_auth_method")?.as_str()?)
    }
}

fn error(member: &str, problem: impl Into<String>) -> MetadataError {
    MetadataError {
        member: member.to_owned(),
        problem: problem.into(),
    }
}

fn strings<'a>(members: &'a Map<String, Value>, name: &str) -> Vec<&'a str> {
    let list = members.get(name).and_then(Value::as_array);
    list.into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

fn has_grant(members: &Map<String, Value>, grant: &str) -> bool {
    match members.get("grant_types") {
        None => grant == "authorization_code",
        Some(_) => strings(members, "grant_types").contains(&grant),
    }
}

fn check_shapes(members: &Map<String, Value>, errors: &mut Vec<MetadataError>) {
    for name in SERVER_ASSIGNED {
        if members.contains_key(name) {
            errors.push(error(name, "only the issuer sets this; leave it out"));
        }
    }
    for name in STRING_ARRAYS {
        let is_string_array =
            |v: &Value| v.as_array().is_some_and(|l| l.iter().all(Value::is_string));
        if members.get(name).is_some_and(|v| !is_string_array(v)) {
            errors.push(error(name, "must be an array of strings"));
        }
    }
    for name in [
        "client_name",
        "scope",
        "token_endpoint_auth_method",
        "jwks_uri",
    ] {
        if members.get(name).is_some_and(|v| !v.is_string()) {
            errors.push(error(name, "must be a string"));
        }
    }
    let scope = members.get("scope").and_then(Value::as_str);
    if scope.is_some_and(|s| {
        !s.chars().all(|c| c.is_ascii_graphic() || c == ' ') || s.contains(['"', '\\'])
    }) {
        errors.push(error(
            "scope",
            "must be printable ASCII scopes separated by spaces (RFC 6749 §3.3)",
        ));
    }
}

fn complete(members: &mut Map<String, Value>) {
    if !has_grant(members, "authorization_code") {
        members.entry("redirect_uris").or_insert(json!([]));
        members.entry("response_types").or_insert(json!([]));
    }
    let native = |uri: &&str| Url::parse(uri).is_ok_and(|uri| uri.scheme() != "https");
    if strings(members, "redirect_uris").iter().any(native) {
        members.entry("application_type").or_insert(json!("native"));
    }
}

fn check_redirects(members: &Map<String, Value>, errors: &mut Vec<MetadataError>) {
    const NAME: &str = "redirect_uris";
    let uris = strings(members, NAME);
    if uris.is_empty() && has_grant(members, "authorization_code") {
        errors.push(error(
            NAME,
            "signing in needs at least one: give --redirect-uri (http://127.0.0.1/callback for \
             `hawkgate login`), or --grant-type client_credentials for a client without users",
        ));
    }
    for text in uris {
        if let Some(problem) = redirect_problem(text) {
            errors.push(error(NAME, format!("{text:?} {problem}")));
        }
    }
}

/// RFC 6749 §3.1.2, RFC 8252 §7, RFC 9700 §4.1.3.
fn redirect_problem(text: &str) -> Option<&'static str> {
    let Ok(uri) = Url::parse(text) else {
        return Some("is not an absolute URL");
    };
    let loopback = match uri.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    };
    if uri.fragment().is_some() {
        Some("has a fragment, which a redirect URI must not have")
    } else if text.contains('*') {
        Some("has a wildcard; list each redirect URI exactly")
    } else if !uri.username().is_empty() || uri.password().is_some() {
        Some("contains a user name or password")
    } else if uri.scheme() == "http" && !loopback {
        Some("uses plain http to another machine; use https")
    } else if !matches!(uri.scheme(), "http" | "https") && !uri.scheme().contains('.') {
        Some(
            "has a scheme that any app could claim; use https, or your reversed domain name (com.example.app:/callback)",
        )
    } else {
        None
    }
}

fn check_grants(members: &Map<String, Value>, errors: &mut Vec<MetadataError>) {
    if has_grant(members, "implicit") {
        let problem = "implicit puts tokens into URLs (RFC 9700 §2.1.2); use authorization_code";
        errors.push(error("grant_types", problem));
    }
    let types = strings(members, "response_types");
    if types
        .iter()
        .any(|t| t.split(' ').any(|part| part == "token"))
    {
        let problem = "token puts access tokens into URLs (RFC 9700 §2.1.2); use code";
        errors.push(error("response_types", problem));
    }
    // RFC 7591 §2.1: the two lists must agree.
    let code = types.contains(&"code");
    if members.contains_key("response_types") && code != has_grant(members, "authorization_code") {
        let problem =
            "code and the grant type authorization_code go together: give both or neither";
        errors.push(error("response_types", problem));
    }
}

fn check_authentication(members: &Map<String, Value>, errors: &mut Vec<MetadataError>) {
    const NAME: &str = "token_endpoint_auth_method";
    let Some(name) = members.get(NAME).and_then(Value::as_str) else {
        return;
    };
    match AuthMethod::from_name(name) {
        None => {
            let names: Vec<_> = AuthMethod::ALL.iter().map(|m| m.name()).collect();
            let problem = format!("{name:?} is not supported; use {}", names.join(", "));
            errors.push(error(NAME, problem));
        }
        Some(AuthMethod::None) if has_grant(members, "client_credentials") => {
            let problem = "a public client cannot use the grant type client_credentials";
            errors.push(error(NAME, problem));
        }
        Some(AuthMethod::PrivateKeyJwt)
            if !members.contains_key("jwks") && !members.contains_key("jwks_uri") =>
        {
            let problem = "private_key_jwt needs the public keys: --jwks-file or --jwks-uri";
            errors.push(error(NAME, problem));
        }
        Some(_) => {}
    }
}

fn check_keys(members: &Map<String, Value>, errors: &mut Vec<MetadataError>) {
    if members.contains_key("jwks") && members.contains_key("jwks_uri") {
        errors.push(error(
            "jwks",
            "cannot be combined with jwks_uri; give only one of them",
        ));
    }
    let uri = members.get("jwks_uri").and_then(Value::as_str);
    if uri.is_some_and(|uri| !Url::parse(uri).is_ok_and(|uri| uri.scheme() == "https")) {
        errors.push(error("jwks_uri", "must be an https URL"));
    }
    let Some(jwks) = members.get("jwks") else {
        return;
    };
    let Some(keys) = jwks.get("keys").and_then(Value::as_array) else {
        errors.push(error("jwks", "must be a JWK Set: {\"keys\": [ … ]}"));
        return;
    };
    let private = |key: &Value| {
        PRIVATE_JWK_MEMBERS
            .iter()
            .any(|name| key.get(name).is_some())
    };
    if keys.iter().any(private) {
        let problem =
            "contains a private or symmetric key; give only public keys (without d, p, q, k)";
        errors.push(error("jwks", problem));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(members: Value) -> Result<ClientMetadata, Vec<String>> {
        let Value::Object(members) = members else {
            panic!("an object")
        };
        ClientMetadata::new(members)
            .map_err(|errors| errors.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn implied_members_are_filled_in() {
        let metadata = new(json!({"redirect_uris": ["http://127.0.0.1/callback"]})).unwrap();
        assert_eq!(metadata.members()["application_type"], "native");
        assert!(
            metadata.has_grant("authorization_code") && !metadata.has_grant("client_credentials")
        );
        let metadata = new(json!({"redirect_uris": ["https://a.example/cb"]})).unwrap();
        assert!(!metadata.members().contains_key("application_type"));
        let metadata = new(json!({"grant_types": ["client_credentials"]})).unwrap();
        assert_eq!(metadata.members()["redirect_uris"], json!([]));
        assert_eq!(metadata.members()["response_types"], json!([]));
    }

    #[test]
    fn mistakes_are_reported_with_a_remedy() {
        let ok = "https://a.example/cb";
        for (members, expected) in [
            (json!({}), "redirect_uris: signing in needs"),
            (json!({"redirect_uris": ["/cb"]}), "not an absolute URL"),
            (
                json!({"redirect_uris": ["https://a.example/#x"]}),
                "fragment",
            ),
            (json!({"redirect_uris": ["https://*.example/"]}), "wildcard"),
            (json!({"redirect_uris": ["http://a.example/"]}), "use https"),
            (
                json!({"redirect_uris": ["https://u:p@a.example/"]}),
                "password",
            ),
            (json!({"redirect_uris": ["myapp:/cb"]}), "reversed"),
            (
                json!({"redirect_uris": "https://a.example"}),
                "array of strings",
            ),
            (
                json!({"redirect_uris": [ok], "client_id": "x"}),
                "only the issuer",
            ),
            (
                json!({"redirect_uris": [ok], "grant_types": ["implicit"]}),
                "RFC 9700",
            ),
            (
                json!({"redirect_uris": [ok], "response_types": ["id_token token"]}),
                "use code",
            ),
            (
                json!({"redirect_uris": [ok], "response_types": ["id_token"]}),
                "go together",
            ),
            (json!({"redirect_uris": [ok], "scope": "a\nb"}), "printable"),
            (
                json!({"redirect_uris": [ok], "client_name": 1}),
                "must be a string",
            ),
            (
                json!({"redirect_uris": [ok], "token_endpoint_auth_method": "tls"}),
                "client_secret_basic",
            ),
            (
                json!({"redirect_uris": [ok], "token_endpoint_auth_method": "private_key_jwt"}),
                "--jwks-file",
            ),
            (
                json!({"grant_types": ["client_credentials"], "token_endpoint_auth_method": "none"}),
                "a public client",
            ),
            (
                json!({"redirect_uris": [ok], "jwks": {"keys": []}, "jwks_uri": ok}),
                "only one",
            ),
            (
                json!({"redirect_uris": [ok], "jwks_uri": "http://a.example"}),
                "https URL",
            ),
            (json!({"redirect_uris": [ok], "jwks": []}), "JWK Set"),
            (
                json!({"redirect_uris": [ok], "jwks": {"keys": [{"kty": "RSA", "d": "x"}]}}),
                "only public keys",
            ),
        ] {
            let errors = new(members.clone()).unwrap_err().join("\n");
            assert!(errors.contains(expected), "{members}: {errors}");
        }
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        let errors =
            new(json!({"redirect_uris": ["/a", "http://b.example/"], "grant_types": ["implicit"]}));
        assert_eq!(errors.unwrap_err().len(), 3);
    }
}
