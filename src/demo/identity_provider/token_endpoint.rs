//! The token endpoint (RFC 6749 §4.1.3 and §6), the revocation endpoint (RFC 7009), and the end of
//! a session (OpenID Connect RP-Initiated Logout 1.0).

use http::{Method, StatusCode};
use serde_json::json;
use url::Url;

use super::grants::Issue;
use super::pages;
use super::parameters::Parameters;
use super::tokens::LIFETIME;
use super::{Client, Service};
use crate::demo::DemoError;
use crate::demo::server::{self, Request, Response};

pub(super) const TOKEN: &str = "/token";
pub(super) const REVOKE: &str = "/revoke";
pub(super) const END_SESSION: &str = "/end-session";

/// Answers a token request. The client is public: its proof is the PKCE verifier, or a refresh token
/// that is valid once.
pub(super) fn token(service: &Service, request: &Request) -> Response {
    let (form, client) = match authenticated(service, request) {
        Ok(authenticated) => authenticated,
        Err(refusal) => return *refusal,
    };
    match issue(service, &form, client) {
        Ok(Ok(issue)) => tokens(service, &issue),
        Ok(Err(error)) => Ok(refuse(error)),
        Err(error) => Err(error),
    }
    .unwrap_or_else(|_| {
        let error = json!({ "error": "server_error" });
        server::json(StatusCode::INTERNAL_SERVER_ERROR, &error)
    })
}

/// Returns what a grant is good for, or an error code of RFC 6749 §5.2.
fn issue(
    service: &Service,
    form: &Parameters,
    client: &Client,
) -> Result<Result<Issue, &'static str>, DemoError> {
    let get = |name| form.get(name);
    let found = match get("grant_type") {
        "authorization_code" => {
            let (code, verifier) = (get("code"), get("code_verifier"));
            let grants = &service.grants;
            grants.redeem(code, client.id, get("redirect_uri"), verifier)?
        }
        "refresh_token" => service.grants.refresh(get("refresh_token"), client.id)?,
        "" => return Ok(Err("invalid_request")),
        _ => return Ok(Err("unsupported_grant_type")),
    };
    Ok(found.ok_or("invalid_grant"))
}

fn tokens(service: &Service, issue: &Issue) -> Result<Response, DemoError> {
    let grant = &issue.grant;
    let access_token = service.tokens.access_token(grant)?;
    let nonce = issue.nonce.as_deref();
    let mut body = json!({
        "token_type": "Bearer", "expires_in": LIFETIME.as_secs(), "scope": grant.scopes.join(" "),
        "id_token": service.tokens.id_token(grant, &access_token, nonce)?,
        "access_token": access_token,
    });
    if let Some(refresh_token) = &issue.refresh_token {
        body["refresh_token"] = refresh_token.as_str().into();
    }
    Ok(server::json(StatusCode::OK, &body))
}

/// Revokes a refresh token. Access tokens stay valid until they expire (RFC 7009 §2.1 permits that
/// for tokens that are verified without asking the provider). An unknown token is no error (§2.2).
pub(super) fn revoke(service: &Service, request: &Request) -> Response {
    match authenticated(service, request) {
        Ok((form, _)) => {
            service.grants.revoke(form.get("token"));
            server::json(StatusCode::OK, &json!({}))
        }
        Err(refusal) => *refusal,
    }
}

fn authenticated<'a>(
    service: &'a Service,
    request: &Request,
) -> Result<(Parameters, &'a Client), Box<Response>> {
    if request.method != Method::POST {
        return Err(server::method_not_allowed("POST").into());
    }
    let form = Parameters::of_form(request).map_err(|_| refuse("invalid_request"))?;
    let client = service.client(form.get("client_id"));
    let client = client.ok_or_else(|| refuse("invalid_client"))?;
    Ok((form, client))
}

/// Returns an error of RFC 6749 §5.2. A public client has not tried to authenticate, so
/// `invalid_client` is a 400 as well.
fn refuse(error: &'static str) -> Response {
    server::json(StatusCode::BAD_REQUEST, &json!({ "error": error }))
}

/// Ends the session that the ID token names, and returns to the client. The browser holds nothing
/// of this provider's, so that without an ID token nothing remains to be ended.
pub(super) fn end_session(service: &Service, request: &Request) -> Response {
    let parameters = match request.method {
        Method::POST => Parameters::of_form(request),
        _ => Parameters::of_query(request),
    };
    let parameters = match parameters {
        Ok(parameters) => parameters,
        Err(malformed) => return pages::error(StatusCode::BAD_REQUEST, malformed.0),
    };
    let Some(client) = service.any_client() else {
        return pages::error(StatusCode::BAD_REQUEST, "the client is unknown");
    };
    if !matches!(parameters.get("client_id"), "" | super::CLIENT_ID) {
        return pages::error(StatusCode::BAD_REQUEST, "the client is unknown");
    }
    let hint = parameters.get("id_token_hint");
    if !hint.is_empty() {
        let Some(sid) = service.tokens.session_of_id_token(hint, client.id) else {
            return pages::error(StatusCode::BAD_REQUEST, "the ID token is not valid");
        };
        service.grants.end_session(&sid);
    }
    let target = parameters.get("post_logout_redirect_uri");
    if target.is_empty() {
        return pages::signed_out();
    }
    if !client
        .post_logout_redirect_uris
        .iter()
        .any(|uri| uri == target)
    {
        let text = "the address to return to is not one of those registered for the client";
        return pages::error(StatusCode::BAD_REQUEST, text);
    }
    let Ok(mut location) = Url::parse(target) else {
        return pages::error(
            StatusCode::BAD_REQUEST,
            "the address to return to is no URL",
        );
    };
    let state = parameters.get("state");
    if !state.is_empty() {
        location.query_pairs_mut().append_pair("state", state);
    }
    server::see_other(&location)
}
