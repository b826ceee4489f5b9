//! What a file given as a token holds: a token, possibly together with what it was copied with
//! (scheme, quotes, a whole JSON response), or something that is no token at all.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

/// The most layers that are removed; a header in quotes in JSON has three.
const MAX_LAYERS: usize = 8;

/// What was found in a file.
pub(super) struct Pasted {
    pub(super) content: Content,
    /// What was removed to get at the token.
    pub(super) remarks: Vec<&'static str>,
}

/// A possible token, or something else.
pub(super) enum Content {
    /// One word; perhaps a token.
    Word(Zeroizing<String>),
    Other(NotToken),
}

/// Things that are pasted in place of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotToken {
    Empty,
    Binary,
    Text,
    PrivateKey,
    Pem,
    HawkHeader,
    BasicHeader,
    OtherScheme,
    TaskclusterCredentials,
    ServiceAccountKey,
    KeySet,
    Jwk,
    Metadata,
    OAuthError,
    Claims,
    JwsJson,
    Json,
    Html,
    Saml,
    Url,
    Yaml,
}

impl NotToken {
    /// What it is, with an article.
    pub(super) fn what(self) -> &'static str {
        match self {
            Self::Empty => "nothing: the file is empty",
            Self::Binary => "binary data, not a token",
            Self::Text => "text of several words, not a token",
            Self::PrivateKey => "a private key (PEM), not a token",
            Self::Pem => "a PEM file (a certificate or a public key), not a token",
            Self::HawkHeader => "a Hawk header, not a bearer token",
            Self::BasicHeader => "a Basic header, not a bearer token",
            Self::OtherScheme => "a header with another scheme than Bearer, not a bearer token",
            Self::TaskclusterCredentials => "Taskcluster credentials (JSON), not a bearer token",
            Self::ServiceAccountKey => "the key file of a Google service account, not a token",
            Self::KeySet => "a JWK Set (public keys), not a token",
            Self::Jwk => "a JWK (one key), not a token",
            Self::Metadata => "the metadata of an OpenID provider, not a token",
            Self::OAuthError => "an error from a token endpoint, not a token",
            Self::Claims => "the decoded claims of a JWT, not the token itself",
            Self::JwsJson => "a JWS in JSON serialization, which is no bearer token",
            Self::Json => "JSON without a token that is known by its name",
            Self::Html => "an HTML page, not a token",
            Self::Saml => "a SAML assertion or another XML document, not a bearer token",
            Self::Url => "a URL without an access_token, not a token",
            Self::Yaml => "YAML, such as a kubeconfig, not a token",
        }
    }

    /// What to do instead.
    pub(super) fn advice(self) -> &'static str {
        match self {
            Self::Empty => "check the command that wrote the file: it printed nothing, or failed",
            Self::Binary => "give the token as text: three segments of base64url, joined by dots",
            Self::Text => "give the token alone: one word, without spaces",
            Self::PrivateKey => {
                "keep it secret, and do not send it to anyone. A client signs with it to obtain a token; \
                 give that token"
            }
            Self::Pem => {
                "give the token that was signed with the key. hawkgate takes an issuer's public keys as a JWK \
                 Set (jwks_url or jwks_file)"
            }
            Self::HawkHeader => {
                "hawkgate takes bearer tokens and sends Hawk upstream by itself: its callers need no Taskcluster \
                 credentials. Send Authorization: Bearer with a token of your identity provider. A client that \
                 has Taskcluster credentials can call the deployment directly"
            }
            Self::BasicHeader => {
                "send a bearer token. Only a route whose source has kind = \"password\" takes usernames and \
                 passwords (--user-file)"
            }
            Self::OtherScheme => "send Authorization: Bearer and the token",
            Self::TaskclusterCredentials => {
                "give a token of your identity provider. hawkgate itself uses Taskcluster credentials, in a \
                 source of kind taskcluster-mint or taskcluster-static"
            }
            Self::ServiceAccountKey => {
                "keep it secret. It is for obtaining tokens: gcloud auth print-identity-token \
                 --audiences=https://hawkgate.example.com"
            }
            Self::KeySet => {
                "as jwks_file of an issuer it verifies tokens; give one of the tokens to explain it"
            }
            Self::Jwk => {
                "a JWK Set with public keys is the jwks_file of an issuer; a JWK with the member d is private \
                 and must be kept secret"
            }
            Self::Metadata => {
                "its member issuer is the url of an [[issuer]]; give one of the provider's tokens to explain it"
            }
            Self::OAuthError => {
                "the provider refused to issue a token; error and error_description in the file say why"
            }
            Self::Claims => "give the token itself: three segments of base64url, joined by dots",
            Self::JwsJson => "give the compact serialization (RFC 7515 §7.1)",
            Self::Json => "give the token alone, or a token response with access_token",
            Self::Html => {
                "an interactive sign-in page was saved in place of a token: call the provider's token endpoint, \
                 and make curl fail on errors (-f)"
            }
            Self::Saml => "ask the identity provider for an OAuth access token for your API",
            Self::Url => "follow the sign-in to its end, and give the access token alone",
            Self::Yaml => "give the token alone; of a kubeconfig that is users[].user.token",
        }
    }
}

impl Pasted {
    /// Looks through what a token is usually pasted with.
    pub(super) fn read(bytes: &[u8]) -> Self {
        let mut remarks = Vec::new();
        let Some(text) = decode(bytes, &mut remarks) else {
            return Self {
                content: Content::Other(NotToken::Binary),
                remarks,
            };
        };
        let mut text = Zeroizing::new(text.trim().to_owned());
        for _ in 0..MAX_LAYERS {
            match layer(&text) {
                Layer::Inner(inner, remark) => {
                    text = Zeroizing::new(inner.trim().to_owned());
                    if !remarks.contains(&remark) {
                        remarks.push(remark);
                    }
                }
                Layer::Other(what) => {
                    let content = Content::Other(what);
                    return Self { content, remarks };
                }
                Layer::Word => break,
            }
        }
        Self {
            content: Content::Word(text),
            remarks,
        }
    }
}

/// UTF-8, or UTF-16 with a byte order mark, as PowerShell writes it.
fn decode(bytes: &[u8], remarks: &mut Vec<&'static str>) -> Option<Zeroizing<String>> {
    let utf16 = |rest: &[u8], unit: fn([u8; 2]) -> u16| {
        let units = rest.chunks_exact(2).map(|pair| match pair {
            [a, b] => unit([*a, *b]),
            _ => 0,
        });
        char::decode_utf16(units)
            .collect::<Result<String, _>>()
            .map(Zeroizing::new)
            .ok()
    };
    if let Some(rest) = bytes.strip_prefix(b"\xff\xfe") {
        remarks.push("the file is in UTF-16, as older PowerShells write: write it in UTF-8");
        return utf16(rest, u16::from_le_bytes);
    }
    if let Some(rest) = bytes.strip_prefix(b"\xfe\xff") {
        remarks.push("the file is in UTF-16: write it in UTF-8");
        return utf16(rest, u16::from_be_bytes);
    }
    let rest = match bytes.strip_prefix(b"\xef\xbb\xbf") {
        Some(rest) => {
            remarks.push("the file begins with a byte order mark: write it without");
            rest
        }
        None => bytes,
    };
    let text = std::str::from_utf8(rest).ok()?;
    (!text.contains('\0')).then(|| Zeroizing::new(text.to_owned()))
}

/// What the outside of a text is.
enum Layer {
    /// Something around a text, with the remark about it.
    Inner(Zeroizing<String>, &'static str),
    Other(NotToken),
    /// Nothing: one word.
    Word,
}

const QUOTES: &str = "the token is in quotes: send it without them";
const HEADER: &str = "the name of the header is in front of the token: it was left out";
const SCHEME: &str = "the scheme (Bearer) is in front of the token: it was left out";
const LINES: &str = "the token is broken into lines or has spaces: they were removed, because a header field cannot \
     contain them";
const ASSIGNMENT: &str = "the token is in an assignment: only the value was taken";
const QUERY: &str = "access_token was taken out of a URL or a form";
const RESPONSE: &str =
    "access_token was taken out of a token response; the other tokens in it were ignored";
const ID_TOKEN_OF_RESPONSE: &str =
    "the response has no access_token; its id_token was taken instead";
const MEMBER: &str = "the token was taken out of JSON";
const BASE64: &str = "the token is base64-encoded, as the values of Kubernetes Secrets are: decode it (base64 -d) before you \
     send it";
const COMMAND: &str = "the token was taken out of a command";

fn layer(text: &str) -> Layer {
    let inner = |inner: &str, remark| Layer::Inner(Zeroizing::new(inner.to_owned()), remark);
    if text.is_empty() {
        return Layer::Other(NotToken::Empty);
    }
    if let Some(other) = document(text) {
        return other;
    }
    if let Some(quoted) = unquoted(text) {
        return inner(quoted, QUOTES);
    }
    if let Some((name, value)) = text.split_once(':')
        && let name = name.trim().trim_matches(['"', '\''])
        && ["authorization", "access_token", "id_token", "token"]
            .iter()
            .any(|known| known.eq_ignore_ascii_case(name))
    {
        return inner(value.trim().trim_end_matches([',', ';']), HEADER);
    }
    if let Some(found) = scheme(text) {
        return found;
    }
    if let Some(sent) = after(text, "authorization: bearer ") {
        let end = sent.find(['"', '\'', ' ', '\n']).unwrap_or(sent.len());
        return inner(sent.get(..end).unwrap_or_default(), COMMAND);
    }
    if let Some(value) = parameter(text, "access_token") {
        return inner(value, QUERY);
    }
    if text.contains("://") && !text.contains(char::is_whitespace) {
        return Layer::Other(NotToken::Url);
    }
    if let Some(value) = assigned(text) {
        return inner(value, ASSIGNMENT);
    }
    if text.contains(char::is_whitespace) {
        let joined: Zeroizing<String> = Zeroizing::new(text.split_whitespace().collect());
        return if joined.starts_with("eyJ") && joined.bytes().all(is_token_byte) {
            Layer::Inner(joined, LINES)
        } else {
            Layer::Other(NotToken::Text)
        };
    }
    // "eyJ" in base64: the beginning of a JWT that was encoded once more.
    if text.starts_with("ZXlK")
        && let Ok(decoded) = STANDARD.decode(text)
        && let Ok(decoded) = String::from_utf8(decoded)
    {
        return Layer::Inner(Zeroizing::new(decoded), BASE64);
    }
    Layer::Word
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte)
}

/// Documents that are recognised by how they begin.
fn document(text: &str) -> Option<Layer> {
    let starts = |prefix: &str| {
        text.get(..prefix.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    };
    if starts("-----BEGIN") {
        let private = text
            .lines()
            .next()
            .is_some_and(|line| line.contains("PRIVATE"));
        let what = if private {
            NotToken::PrivateKey
        } else {
            NotToken::Pem
        };
        return Some(Layer::Other(what));
    }
    if starts("<!doctype html") || starts("<html") {
        return Some(Layer::Other(NotToken::Html));
    }
    // "PHNhbW" is "<sam" in base64, and "PD94bW" is "<?xm".
    if starts("<") || text.starts_with("PHNhbW") || text.starts_with("PD94bW") {
        return Some(Layer::Other(NotToken::Saml));
    }
    if starts("apiVersion:") || starts("---\n") {
        return Some(Layer::Other(NotToken::Yaml));
    }
    match serde_json::from_str(text) {
        Ok(Value::Object(members)) => Some(json(&members)),
        Ok(Value::Array(_)) => Some(Layer::Other(NotToken::Json)),
        _ if text.starts_with('{') => Some(Layer::Other(NotToken::Json)),
        _ => None,
    }
}

/// A token inside a JSON object, or what the object is.
fn json(members: &Map<String, Value>) -> Layer {
    let text = |name: &str| members.get(name).and_then(Value::as_str);
    let has = |name: &str| members.contains_key(name);
    let inner = |value: &str, remark| Layer::Inner(Zeroizing::new(value.to_owned()), remark);
    if let Some(token) = text("access_token") {
        return inner(token, RESPONSE);
    }
    if let Some(token) = text("id_token") {
        return inner(token, ID_TOKEN_OF_RESPONSE);
    }
    // Azure CLI and Taskcluster credentials both have an accessToken.
    if has("clientId") && has("accessToken") {
        return Layer::Other(NotToken::TaskclusterCredentials);
    }
    if let Some(token) = ["accessToken", "token", "value", "idToken"]
        .iter()
        .find_map(|name| text(name))
    {
        return inner(token, MEMBER);
    }
    // A TokenRequest or an ExecCredential of Kubernetes.
    if let Some(token) = members.get("status").and_then(|status| status.get("token"))
        && let Some(token) = token.as_str()
    {
        return inner(token, MEMBER);
    }
    Layer::Other(match () {
        () if text("type") == Some("service_account") || has("private_key") => {
            NotToken::ServiceAccountKey
        }
        () if has("keys") => NotToken::KeySet,
        () if has("kty") => NotToken::Jwk,
        () if has("jwks_uri") => NotToken::Metadata,
        () if has("error") => NotToken::OAuthError,
        () if has("payload") && (has("signature") || has("signatures")) => NotToken::JwsJson,
        () if has("iss") || has("exp") => NotToken::Claims,
        () => NotToken::Json,
    })
}

fn unquoted(text: &str) -> Option<&str> {
    ['"', '\'', '`']
        .iter()
        .find_map(|quote| text.strip_prefix(*quote)?.strip_suffix(*quote))
}

/// A scheme of `Authorization` in front of something.
fn scheme(text: &str) -> Option<Layer> {
    let (scheme, rest) = text.split_once(char::is_whitespace)?;
    let rest = rest.trim();
    let is = |name: &str| scheme.eq_ignore_ascii_case(name);
    Some(if is("bearer") {
        Layer::Inner(Zeroizing::new(rest.to_owned()), SCHEME)
    } else if is("hawk") {
        Layer::Other(NotToken::HawkHeader)
    } else if is("basic") && !rest.contains(char::is_whitespace) {
        Layer::Other(NotToken::BasicHeader)
    } else if [
        "dpop",
        "negotiate",
        "ntlm",
        "digest",
        "mac",
        "ssws",
        "aws4-hmac-sha256",
        "apikey",
        "signature",
    ]
    .iter()
    .any(|name| is(name))
    {
        Layer::Other(NotToken::OtherScheme)
    } else {
        return None;
    })
}

/// What follows `pattern`, which is in lower case, in `text` in any case.
fn after<'t>(text: &'t str, pattern: &str) -> Option<&'t str> {
    let at = text.to_ascii_lowercase().find(pattern)?;
    text.get(at + pattern.len()..)
}

/// A parameter of a query, a fragment or a form.
fn parameter<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    if text.contains(char::is_whitespace) {
        return None;
    }
    text.split(['?', '#', '&'])
        .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

/// The value of `NAME=value` or `export NAME=value`.
fn assigned(text: &str) -> Option<&str> {
    let text = text.strip_prefix("export ").unwrap_or(text);
    let (name, value) = text.split_once('=')?;
    let is_name = !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
        && !name.starts_with(|c: char| c.is_ascii_digit());
    // The padding of base64 is no assignment.
    (is_name && !value.is_empty() && !value.starts_with('=')).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const JWT: &str = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJ4In0.c2ln";

    fn word(text: &[u8]) -> (Option<String>, Vec<&'static str>) {
        let pasted = Pasted::read(text);
        let word = match pasted.content {
            Content::Word(word) => Some(word.to_string()),
            Content::Other(_) => None,
        };
        (word, pasted.remarks)
    }

    #[test]
    fn what_a_token_is_pasted_with_is_removed_and_remarked_upon() {
        let utf16: Vec<u8> = [0xff, 0xfe]
            .into_iter()
            .chain(JWT.encode_utf16().flat_map(u16::to_le_bytes))
            .collect();
        let (start, end) = JWT.split_at(20);
        for (text, remark) in [
            (JWT.to_owned(), None),
            (format!("  {JWT}\r\n"), None),
            (format!("Bearer {JWT}"), Some(SCHEME)),
            (format!("bearer\t{JWT}"), Some(SCHEME)),
            (format!("\"{JWT}\"\n"), Some(QUOTES)),
            (format!("'{JWT}'"), Some(QUOTES)),
            (format!("Authorization: Bearer {JWT}"), Some(HEADER)),
            (format!("\"access_token\": \"{JWT}\","), Some(HEADER)),
            (format!("TOKEN={JWT}"), Some(ASSIGNMENT)),
            (format!("export HAWKGATE_TOKEN='{JWT}'"), Some(ASSIGNMENT)),
            (
                format!("{{\"access_token\":\"{JWT}\",\"id_token\":\"no\"}}"),
                Some(RESPONSE),
            ),
            (
                format!("{{\"id_token\":\"{JWT}\"}}"),
                Some(ID_TOKEN_OF_RESPONSE),
            ),
            (format!("{{\"count\":1,\"value\":\"{JWT}\"}}"), Some(MEMBER)),
            (
                format!("{{\"status\":{{\"token\":\"{JWT}\"}}}}"),
                Some(MEMBER),
            ),
            (
                format!("https://a.example/cb#access_token={JWT}&x=y"),
                Some(QUERY),
            ),
            (format!("{start}\n{end}"), Some(LINES)),
            (STANDARD.encode(JWT), Some(BASE64)),
            (
                format!("curl -H 'Authorization: Bearer {JWT}' https://a.example/"),
                Some(COMMAND),
            ),
        ] {
            let (found, remarks) = word(text.as_bytes());
            assert_eq!(found.as_deref(), Some(JWT), "{text}");
            assert_eq!(remarks.first().copied(), remark, "{text}");
        }
        assert_eq!(word(&utf16).0.as_deref(), Some(JWT));
        assert_eq!(
            word(format!("\u{feff}{JWT}").as_bytes()).0.as_deref(),
            Some(JWT)
        );
        for opaque in ["dGVzdA==", "abc=", "0.AAAA", "a~b+c/d"] {
            assert_eq!(word(opaque.as_bytes()), (Some(opaque.into()), Vec::new()));
        }
    }

    #[test]
    fn things_that_are_no_tokens_are_named() {
        use NotToken as N;
        for (text, expected) in [
            ("", N::Empty),
            (" \n\"\" ", N::Empty),
            ("Bearer ''", N::Empty),
            ("\u{0}\u{1}", N::Binary),
            ("two words", N::Text),
            ("-----BEGIN RSA PRIVATE KEY-----\nMII\n", N::PrivateKey),
            ("-----BEGIN CERTIFICATE-----\nMII\n", N::Pem),
            (
                "Hawk id=\"x\", ts=\"1\", nonce=\"n\", mac=\"m\"",
                N::HawkHeader,
            ),
            ("Authorization: Hawk id=\"x\"", N::HawkHeader),
            ("Basic dTpw", N::BasicHeader),
            ("DPoP abc", N::OtherScheme),
            (
                "{\"clientId\":\"a\",\"accessToken\":\"b\"}",
                N::TaskclusterCredentials,
            ),
            (
                "{\"type\":\"service_account\",\"private_key\":\"x\"}",
                N::ServiceAccountKey,
            ),
            ("{\"keys\":[]}", N::KeySet),
            ("{\"kty\":\"RSA\"}", N::Jwk),
            ("{\"issuer\":\"x\",\"jwks_uri\":\"y\"}", N::Metadata),
            ("{\"error\":\"invalid_client\"}", N::OAuthError),
            ("{\"iss\":\"x\"}", N::Claims),
            ("{\"payload\":\"x\",\"signature\":\"y\"}", N::JwsJson),
            ("{}", N::Json),
            ("[1]", N::Json),
            ("{\"a\":", N::Json),
            ("<!DOCTYPE html><html>", N::Html),
            ("<samlp:Response>", N::Saml),
            ("https://idp.example.com/authorize", N::Url),
            ("apiVersion: v1\nkind: Config", N::Yaml),
        ] {
            match Pasted::read(text.as_bytes()).content {
                Content::Other(what) => assert_eq!(what, expected, "{text}"),
                Content::Word(word) => panic!("{text}: {}", &*word),
            }
        }
        let binary = Pasted::read(b"\xff\x00\x80").content;
        assert!(matches!(binary, Content::Other(N::Binary)));
    }
}
