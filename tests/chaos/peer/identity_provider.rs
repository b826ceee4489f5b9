//! The identity provider: discovery, keys and client registration (RFC 7591).

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use serde_json::json;

use super::{Shared, json_response};

pub(super) fn answer<B>(request: &Request<B>, state: &Shared) -> Response<Full<Bytes>> {
    let own = request.headers()["host"].to_str().unwrap_or_default();
    let document = match request.uri().path() {
        "/jwks" => state.lock().unwrap().jwks.clone(),
        "/.well-known/openid-configuration" => json!({
            "issuer": format!("http://{own}"),
            "jwks_uri": format!("http://{own}/jwks"),
            "authorization_endpoint": format!("http://{own}/authorize"),
            "token_endpoint": format!("http://{own}/token"),
            "registration_endpoint": format!("http://{own}/register"),
        }),
        "/register" => {
            let mut state = state.lock().unwrap();
            state.registrations += 1;
            let client = json!({
                "client_id": format!("client-{}", state.registrations),
                "redirect_uris": ["http://127.0.0.1/callback"],
                "token_endpoint_auth_method": "none",
            });
            return json_response(StatusCode::CREATED, &client);
        }
        _ => return json_response(StatusCode::NOT_FOUND, &json!({})),
    };
    json_response(StatusCode::OK, &document)
}
