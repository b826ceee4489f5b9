//! The authorization endpoint and the sign-in form (RFC 6749 §4.1, OpenID Connect Core §3.1.2).

use http::{Method, StatusCode};
use url::Url;

use super::Service;
use super::grants::{AuthorizationRequest, SCOPES};
use super::pages;
use super::parameters::Parameters;
use super::users;
use crate::demo::AUDIENCE;
use crate::demo::server::{self, Request, Response};

/// Where browsers are sent.
pub(super) const AUTHORIZE: &str = "/authorize";
/// An error that the client is told by a redirect (RFC 6749 §4.1.2.1).
type Refusal = &'static str;

/// Answers an authorization request: with the sign-in form, or with an error. The client and its
/// redirect URI are checked first, because nothing may be sent to another address.
pub(super) fn authorize(service: &Service, request: &Request) -> Response {
    // OpenID Connect Core §3.1.2.1 requires both methods.
    let parameters = match request.method {
        Method::POST => Parameters::of_form(request),
        _ => Parameters::of_query(request),
    };
    let parameters = match parameters {
        Ok(parameters) => parameters,
        Err(malformed) => return pages::error(StatusCode::BAD_REQUEST, malformed.0),
    };
    let Some(client) = service.client(parameters.get("client_id")) else {
        return pages::error(StatusCode::BAD_REQUEST, "the client is unknown");
    };
    let redirect_uri = parameters.get("redirect_uri");
    if !client.redirect_uris.iter().any(|uri| uri == redirect_uri) {
        let text = "the redirect URI is not one of those registered for the client";
        return pages::error(StatusCode::BAD_REQUEST, text);
    }
    match validate(&parameters, client.id) {
        Ok(valid) => match service.grants.begin(valid.clone()) {
            Ok(id) => pages::sign_in(&valid, &id, parameters.get("login_hint"), None),
            Err(_) => redirect(service, redirect_uri, &parameters, "server_error"),
        },
        Err(refusal) => redirect(service, redirect_uri, &parameters, refusal),
    }
}

fn validate(
    parameters: &Parameters,
    client_id: &'static str,
) -> Result<AuthorizationRequest, Refusal> {
    let has = |name| !parameters.get(name).is_empty();
    if has("request") {
        return Err("request_not_supported");
    }
    if has("request_uri") {
        return Err("request_uri_not_supported");
    }
    if parameters.get("response_type") != "code" {
        return Err("unsupported_response_type");
    }
    if !matches!(parameters.get("response_mode"), "" | "query") {
        return Err("invalid_request");
    }
    let challenge = parameters.get("code_challenge");
    let is_base64url = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    let is_s256 = challenge.len() == 43 && challenge.bytes().all(is_base64url);
    if !is_s256 || parameters.get("code_challenge_method") != "S256" {
        return Err("invalid_request");
    }
    let requested: Vec<&str> = parameters.get("scope").split(' ').collect();
    if !requested.contains(&"openid") {
        return Err("invalid_scope");
    }
    if !matches!(parameters.get("audience"), "" | AUDIENCE) {
        return Err("invalid_target");
    }
    // Each request asks for a password anew, so there is nobody to act for without one.
    if parameters.get("prompt").split(' ').any(|p| p == "none") {
        return Err("login_required");
    }
    let known = SCOPES.iter().map(|(scope, _)| *scope);
    Ok(AuthorizationRequest {
        client_id,
        redirect_uri: parameters.get("redirect_uri").to_owned(),
        state: parameters.get("state").to_owned(),
        nonce: parameters.get("nonce").to_owned(),
        code_challenge: challenge.to_owned(),
        scopes: known.filter(|scope| requested.contains(scope)).collect(),
    })
}

fn redirect(
    service: &Service,
    redirect_uri: &str,
    parameters: &Parameters,
    refusal: Refusal,
) -> Response {
    let state = parameters.get("state");
    answer(service, redirect_uri, state, ("error", refusal))
}

/// Returns the answer to an authorization request, with `state` and `iss` (RFC 9207).
fn answer(
    service: &Service,
    redirect_uri: &str,
    state: &str,
    (name, value): (&str, &str),
) -> Response {
    let Ok(mut location) = Url::parse(redirect_uri) else {
        return pages::error(StatusCode::BAD_REQUEST, "the redirect URI is no URL");
    };
    {
        let mut query = location.query_pairs_mut();
        query.append_pair(name, value);
        if !state.is_empty() {
            query.append_pair("state", state);
        }
        query.append_pair("iss", service.tokens.issuer());
    }
    server::see_other(&location)
}

/// Answers the sign-in form. It contains the secret of its sign-in, so another site cannot send it
/// for a sign-in that it does not know; and what it could send, its own user's password, ends at a
/// client that has not asked for that sign-in.
pub(super) fn sign_in(service: &Service, request: &Request) -> Response {
    if !matches!(request.header("sec-fetch-site"), "" | "same-origin") {
        let text = "the form was not sent by this site";
        return pages::error(StatusCode::FORBIDDEN, text);
    }
    let form = match Parameters::of_form(request) {
        Ok(form) => form,
        Err(malformed) => return pages::error(StatusCode::BAD_REQUEST, malformed.0),
    };
    let id = form.get("attempt");
    let Some(pending) = service.grants.pending(id) else {
        return ended();
    };
    let to_client = |result| answer(service, &pending.redirect_uri, &pending.state, result);
    if form.get("action") == "cancel" {
        service.grants.cancel(id);
        return to_client(("error", "access_denied"));
    }
    let username = form.get("username");
    let Some(user) = users::authenticate(username, form.get("password")) else {
        return if service.grants.fail(id) {
            let problem = "The username or the password is wrong.";
            pages::sign_in(&pending, id, username, Some(problem))
        } else {
            ended()
        };
    };
    match service.grants.grant_code(id, user) {
        Ok(Some(code)) => to_client(("code", &code)),
        Ok(None) => ended(),
        Err(_) => to_client(("error", "server_error")),
    }
}

fn ended() -> Response {
    let text = "this sign-in has ended: it was completed, took longer than 10 minutes, or had too \
                many wrong passwords";
    pages::error(StatusCode::BAD_REQUEST, text)
}
