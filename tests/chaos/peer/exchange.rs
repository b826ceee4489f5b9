//! The exchange: a permanent Taskcluster client for each subject, as the login service's
//! `oidcCredentials` returns it (`docs/design/taskcluster.md`).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Shared, access_token, json_response, peer_time};
use crate::tokens::HOSTILE;

/// How long credentials are valid, in seconds. Short, so that scenarios see them renewed.
const LIFETIME: u64 = 20;

pub(super) fn answer<B>(request: &Request<B>, state: &Shared) -> Response<Full<Bytes>> {
    let mut state = state.lock().unwrap();
    let token = request.headers().get(header::AUTHORIZATION);
    let Some(subject) = token.and_then(|value| subject(value.to_str().ok()?)) else {
        let refusal = json!({ "code": "InputError", "message": "not a token" });
        return json_response(StatusCode::BAD_REQUEST, &refusal);
    };
    if subject.starts_with(HOSTILE) {
        state.hostile += 1;
    }
    let client_id = format!("chaos/{subject}/{}", state.epoch);
    let expires = peer_time(&state).as_secs() + LIFETIME;
    let expires = Timestamp::from_second(i64::try_from(expires).unwrap()).unwrap();
    let body = json!({
        "expires": expires.to_string(),
        "credentials": { "clientId": client_id, "accessToken": access_token(&client_id) },
    });
    json_response(StatusCode::OK, &body)
}

/// `sub`. The signature is hawkgate's business: this peer notices forged tokens by their subject.
fn subject(authorization: &str) -> Option<String> {
    let claims = authorization.strip_prefix("Bearer ")?.split('.').nth(1)?;
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
    Some(claims["sub"].as_str()?.to_owned())
}
