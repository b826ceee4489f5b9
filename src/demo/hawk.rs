//! The API's side of Hawk: temporary credentials and request signatures, verified as by
//! Taskcluster's auth service (`docs/design/taskcluster.md`, "Temporary credentials" and "Hawk
//! as Taskcluster checks it"). It shares no code with hawkgate's signer.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD as BASE64, URL_SAFE_NO_PAD as BASE64URL};
use serde_json::{Value, json};

use super::server::Request;

/// The clientId that issues certificates.
pub(super) const ISSUER: &str = "demo/login-service";
/// Clock skew tolerated in a certificate's start and expiry, in milliseconds.
const CERTIFICATE_SKEW: i64 = 5 * 60 * 1000;
/// Clock skew tolerated in a request's timestamp, in milliseconds.
const REQUEST_SKEW: i64 = 15 * 60 * 1000;

/// Issues temporary credentials, as the login service does. Times are in milliseconds since
/// the Unix epoch.
pub(super) fn issue(issuer_key: &str, client_id: &str, seed: &str, from: i64, to: i64) -> Value {
    let scopes = scopes(client_id);
    let signature = certificate_text(client_id, seed, from, to, &scopes);
    let certificate = json!({
        "version": 1, "scopes": scopes, "start": from, "expiry": to, "seed": seed,
        "signature": BASE64.encode(sign(issuer_key, &signature)), "issuer": ISSUER,
    });
    json!({
        "clientId": client_id,
        "accessToken": BASE64URL.encode(sign(issuer_key, seed)),
        "certificate": certificate.to_string(),
    })
}

/// Returns the clientId that signed `request`, or the auth service's error message.
pub(super) fn verify(request: &Request, issuer_key: &str, now: i64) -> Result<String, String> {
    let refused = |text: &str| Err(format!("Unauthorized: {text}"));
    let Some(fields) = request.header("authorization").strip_prefix("Hawk ") else {
        return refused("Unauthorized");
    };
    let field = |name: &str| attribute(fields, name);
    let (id, mac, ext) = (field("id"), field("mac"), field("ext"));
    if ext.is_empty() {
        return refused(&format!("Client with clientId '{id}' not found"));
    }
    let key = match certified_key(id, ext, issuer_key, now) {
        Ok(key) => key,
        Err(text) => return refused(text),
    };
    let text = request_text(request, field("ts"), field("nonce"), field("hash"), ext);
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
    let mac = BASE64.decode(mac).unwrap_or_default();
    if hmac::verify(&key, text.as_bytes(), &mac).is_err() {
        return refused("Bad mac");
    }
    let at: i64 = field("ts").parse().unwrap_or(0);
    if (at.saturating_mul(1000)).abs_diff(now) > REQUEST_SKEW.unsigned_abs() {
        return refused("Stale timestamp");
    }
    Ok(id.to_owned())
}

/// Returns the access token for the certificate in `ext`, if the certificate was signed by the
/// issuer and is valid at `now`.
fn certified_key(id: &str, ext: &str, issuer_key: &str, now: i64) -> Result<String, &'static str> {
    let malformed = "ext is malformed";
    let ext = BASE64.decode(ext).map_err(|_| malformed)?;
    let ext: Value = serde_json::from_slice(&ext).map_err(|_| malformed)?;
    let certificate = &ext["certificate"];
    let number = |name: &str| certificate[name].as_i64().ok_or(malformed);
    let text = |name: &str| certificate[name].as_str().ok_or(malformed);
    let scopes = certificate["scopes"].as_array().ok_or(malformed)?;
    let scopes: Vec<String> = scopes
        .iter()
        .filter_map(|s| s.as_str().map(str::to_owned))
        .collect();
    let (start, expiry, seed) = (number("start")?, number("expiry")?, text("seed")?);
    if number("version")? != 1 || text("issuer")? != ISSUER || seed.len() != 44 {
        return Err(malformed);
    }
    if start > now + CERTIFICATE_SKEW {
        return Err("ext.certificate.start > now");
    }
    if expiry < now - CERTIFICATE_SKEW {
        return Err("ext.certificate.expiry < now");
    }
    let signed = certificate_text(id, seed, start, expiry, &scopes);
    let signature = BASE64.decode(text("signature")?).unwrap_or_default();
    let key = hmac::Key::new(hmac::HMAC_SHA256, issuer_key.as_bytes());
    hmac::verify(&key, signed.as_bytes(), &signature)
        .map_err(|_| "ext.certificate.signature is not valid, or wrong clientId provided")?;
    Ok(BASE64URL.encode(sign(issuer_key, seed)))
}

fn certificate_text(id: &str, seed: &str, start: i64, expiry: i64, scopes: &[String]) -> String {
    let scopes = scopes.join("\n");
    format!(
        "version:1\nclientId:{id}\nissuer:{ISSUER}\nseed:{seed}\nstart:{start}\nexpiry:{expiry}\nscopes:\n{scopes}"
    )
}

fn request_text(request: &Request, ts: &str, nonce: &str, hash: &str, ext: &str) -> String {
    let host = request.header("host").to_lowercase();
    let (name, port) = host.rsplit_once(':').unwrap_or((&host, "80"));
    let forwarded = request.header("x-forwarded-port").split(',').next();
    let port = match forwarded.map(str::trim).filter(|p| !p.is_empty()) {
        Some(port) => port,
        None if request.header("x-forwarded-proto") == "https" => "443",
        None => port,
    };
    let (method, target) = (request.method.as_str(), &request.target);
    format!("hawk.1.header\n{ts}\n{nonce}\n{method}\n{target}\n{name}\n{port}\n{hash}\n{ext}\n")
}

/// Returns a part of the `Authorization: Hawk` header that may be shown: not `mac` and `ext`, which
/// contain the signature and the certificate.
pub(super) fn shown_authorization(request: &Request) -> String {
    let fields = request.header("authorization").strip_prefix("Hawk ");
    let fields = fields.unwrap_or_default();
    let shown =
        ["id", "ts", "nonce"].map(|name| format!(r#"{name}="{}""#, attribute(fields, name)));
    format!("Hawk {}, …", shown.join(", "))
}

/// Returns the seed of the certificate that came with a request, valid or not: it tells which
/// credentials signed it.
pub(super) fn seed(request: &Request) -> Option<String> {
    let fields = request.header("authorization").strip_prefix("Hawk ")?;
    let ext = BASE64.decode(attribute(fields, "ext")).ok()?;
    let ext: Value = serde_json::from_slice(&ext).ok()?;
    Some(ext["certificate"]["seed"].as_str()?.to_owned())
}

/// Returns the scopes of a client's credentials.
pub(super) fn scopes(client_id: &str) -> [String; 1] {
    [format!("assume:login-identity:{client_id}")]
}

/// Returns the value of `name="…"` in a Hawk header; empty if it is missing.
fn attribute<'a>(fields: &'a str, name: &str) -> &'a str {
    let mut parts = fields.split('"');
    while let (Some(key), Some(value)) = (parts.next(), parts.next()) {
        if key.trim_matches([',', ' ', '=']) == name {
            return value;
        }
    }
    ""
}

fn sign(key: &str, text: &str) -> hmac::Tag {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
    hmac::sign(&key, text.as_bytes())
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, Method};

    use super::*;

    const NOW: i64 = 1_795_201_809_000;
    const KEY: &str = "issuer-key";
    const SEED: &str = "AAAAAAAAAAAAAAAAAAAAAABBBBBBBBBBBBBBBBBBBBBB";

    /// A request signed with issued credentials, as hawkgate sends it.
    fn signed(target: &str) -> Request {
        let credentials = issue(KEY, "demo/alice", SEED, NOW - 1000, NOW + 900_000);
        let certificate: Value =
            serde_json::from_str(credentials["certificate"].as_str().unwrap()).unwrap();
        let ext = BASE64.encode(json!({ "certificate": certificate }).to_string());
        let mut request = Request {
            method: Method::GET,
            target: target.into(),
            headers: HeaderMap::new(),
            body: bytes::Bytes::new(),
        };
        let host = HeaderValue::from_static("127.0.0.1:8080");
        request.headers.insert("host", host);
        let ts = (NOW / 1000).to_string();
        let text = request_text(&request, &ts, "n", "", &ext);
        let mac = BASE64.encode(sign(credentials["accessToken"].as_str().unwrap(), &text));
        let value =
            format!(r#"Hawk id="demo/alice", ts="{ts}", nonce="n", ext="{ext}", mac="{mac}""#);
        request
            .headers
            .insert("authorization", value.parse().unwrap());
        request
    }

    #[test]
    fn a_request_signed_with_issued_credentials_is_accepted() {
        assert_eq!(verify(&signed("/a?b"), KEY, NOW).unwrap(), "demo/alice");
    }

    #[test]
    fn a_changed_request_or_certificate_is_refused() {
        let refused =
            |request: &Request, key: &str, now: i64| verify(request, key, now).unwrap_err();
        let mut other_target = signed("/a");
        other_target.target = "/b".into();
        assert!(refused(&other_target, KEY, NOW).ends_with("Bad mac"));
        let mut other_method = signed("/a");
        other_method.method = Method::POST;
        assert!(refused(&other_method, KEY, NOW).ends_with("Bad mac"));
        let mut other_port = signed("/a");
        other_port.headers.insert("x-forwarded-port", 443.into());
        assert!(refused(&other_port, KEY, NOW).ends_with("Bad mac"));
        assert!(refused(&signed("/a"), "rotated", NOW).contains("signature is not valid"));
        assert!(refused(&signed("/a"), KEY, NOW + 3_600_000).contains("expiry < now"));
        assert!(refused(&signed("/a"), KEY, NOW - 3_600_000).contains("start > now"));
        let mut bearer = signed("/a");
        let token = HeaderValue::from_static("Bearer x");
        bearer.headers.insert("authorization", token);
        assert_eq!(refused(&bearer, KEY, NOW), "Unauthorized: Unauthorized");
        let mut other_id = signed("/a");
        let value = other_id.header("authorization").replace("alice", "mallory");
        other_id
            .headers
            .insert("authorization", value.parse().unwrap());
        assert!(refused(&other_id, KEY, NOW).contains("signature is not valid"));
    }
}
