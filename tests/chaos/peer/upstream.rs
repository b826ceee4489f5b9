//! The upstream: verifies Hawk as Taskcluster does and answers with what it received.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use serde_json::json;

use super::{Shared, access_token, json_response, peer_time};
use crate::tokens::HOSTILE;

/// The client of hawkgate's static source, which no revocation affects.
pub(crate) const STATIC_CLIENT: &str = "local";

/// The path whose answers are [`LARGE`] bytes longer.
pub(crate) const LARGE_PATH: &str = "/large";
const LARGE: usize = 64 * 1024;

/// Clock skew that Taskcluster tolerates, in seconds.
const SKEW: u64 = 15 * 60;

pub(super) async fn answer(request: Request<Incoming>, state: &Shared) -> Response<Full<Bytes>> {
    let (parts, body) = request.into_parts();
    let Ok(body) = body.collect().await else {
        return json_response(StatusCode::BAD_REQUEST, &json!({ "code": "InputError" }));
    };
    let client_id = match verify(&parts, state) {
        Ok(client_id) => client_id,
        Err(message) => {
            let refusal = json!({ "code": "AuthenticationFailed", "message": message });
            let mut response = json_response(StatusCode::UNAUTHORIZED, &refusal);
            let hawk = HeaderValue::from_static("hawk");
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, hawk);
            return response;
        }
    };
    let length = if parts.uri.path().ends_with(LARGE_PATH) {
        LARGE
    } else {
        0
    };
    let answer = json!({
        "clientId": client_id,
        "method": parts.method.as_str(),
        "sha256": sha256(&body.to_bytes()),
        "padding": "x".repeat(length),
    });
    json_response(StatusCode::OK, &answer)
}

/// SHA-256 in base64.
pub(crate) fn sha256(body: &[u8]) -> String {
    STANDARD.encode(digest(&SHA256, body))
}

/// The client that signed the request, or why it is refused.
fn verify(request: &http::request::Parts, state: &Shared) -> Result<String, String> {
    let mut state = state.lock().unwrap();
    let text = |name| {
        let value = request.headers.get(name);
        value
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    };
    let fields = text(header::AUTHORIZATION).strip_prefix("Hawk ");
    let fields = fields.ok_or("Unauthorized: Unauthorized")?;
    let [id, ts, nonce, mac, ext] =
        ["id", "ts", "nonce", "mac", "ext"].map(|name| field(fields, name));
    if id.contains(HOSTILE) {
        state.hostile += 1;
    }
    let epoch = id
        .rsplit('/')
        .next()
        .and_then(|epoch| epoch.parse::<u64>().ok());
    if id != STATIC_CLIENT && epoch.is_none_or(|epoch| epoch < state.epoch) {
        return Err(format!(
            "Unauthorized: Client with clientId '{id}' not found"
        ));
    }
    let (name, port) = text(header::HOST)
        .rsplit_once(':')
        .unwrap_or((text(header::HOST), "80"));
    let (method, target) = (&request.method, request.uri.path_and_query());
    let target = target.map_or("/", |target| target.as_str());
    let signed =
        format!("hawk.1.header\n{ts}\n{nonce}\n{method}\n{target}\n{name}\n{port}\n\n{ext}\n");
    let key = hmac::Key::new(hmac::HMAC_SHA256, access_token(id).as_bytes());
    let mac = STANDARD.decode(mac).unwrap_or_default();
    if hmac::verify(&key, signed.as_bytes(), &mac).is_err() {
        return Err("Unauthorized: Bad mac".to_owned());
    }
    let signed_at: u64 = ts.parse().unwrap_or(0);
    if peer_time(&state).as_secs().abs_diff(signed_at) > SKEW {
        return Err("Unauthorized: Stale timestamp".to_owned());
    }
    Ok(id.to_owned())
}

/// The value of `name="…"` in a Hawk header; empty if it is missing.
fn field<'a>(fields: &'a str, name: &str) -> &'a str {
    let mut parts = fields.split('"');
    while let (Some(key), Some(value)) = (parts.next(), parts.next()) {
        if key.trim_matches([',', ' ', '=']) == name {
            return value;
        }
    }
    ""
}
