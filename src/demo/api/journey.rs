//! The endpoints that the application's page calls. They answer with what the API knows of the
//! call: which attempts arrived, and which token the credentials were issued for.

use http::header;
use serde_json::{Value, json};

use super::{ReceivedRequest, State};
use crate::clock::UnixMillis;
use crate::demo::hawk;
use crate::demo::identity_provider::AccessToken;
use crate::demo::server::Request;

/// The path of the endpoint that describes the call to it.
pub(super) const CALL: &str = "/api/demo/v1/call";
/// The path of the endpoint that withdraws every credential issued so far.
pub(super) const WITHDRAW: &str = "/api/demo/v1/withdraw";

/// A successful exchange of a token for credentials.
pub(super) struct Exchange {
    /// Counts exchanges, from 1.
    number: usize,
    /// The seed of the credentials' certificate.
    seed: String,
    issued_at: UnixMillis,
    expires_at: UnixMillis,
    token: AccessToken,
    /// How many calls of [`CALL`] were signed with the credentials.
    calls: u64,
}

impl Exchange {
    pub(super) fn new(
        number: usize,
        seed: &str,
        issued_at: UnixMillis,
        expires_at: UnixMillis,
        token: AccessToken,
    ) -> Self {
        Self {
            number,
            seed: seed.to_owned(),
            issued_at,
            expires_at,
            token,
            calls: 0,
        }
    }
}

/// Returns what the API knows of this call of [`CALL`], which `client` signed.
pub(super) fn facts(state: &mut State, request: &Request, client: &str) -> Value {
    let id = request.header("x-request-id");
    let attempts: Vec<Value> = state
        .received
        .iter()
        .filter(|attempt| attempt.id == id && !id.is_empty())
        .map(|attempt| describe(attempt, state))
        .collect();
    let seed = hawk::seed(request);
    let exchange = state
        .exchanged
        .iter_mut()
        .rev()
        .find(|exchange| Some(&exchange.seed) == seed.as_ref());
    let (credentials, token) = exchange.map_or((Value::Null, Value::Null), |exchange| {
        exchange.calls += 1;
        (credentials(exchange), token(&exchange.token))
    });
    json!({
        "clientId": client,
        "scopes": hawk::scopes(client),
        "request": {
            "id": id,
            "method": request.method.as_str(),
            "target": request.target,
            "authorization": hawk::shown_authorization(request),
            "cookie": request.headers.contains_key(header::COOKIE),
            "headers": header_names(request),
        },
        "attempts": attempts,
        "credentials": credentials,
        "token": token,
    })
}

fn describe(attempt: &ReceivedRequest, state: &State) -> Value {
    let seed = attempt.seed.as_ref();
    let exchange = state.exchanged.iter().find(|e| Some(&e.seed) == seed);
    json!({
        "at": attempt.at.to_rfc3339(),
        "status": if attempt.client.is_ok() { 200 } else { 401 },
        "message": attempt.client.as_ref().err(),
        "credentials": exchange.map(|exchange| exchange.number),
        "bearer": attempt.bearer,
    })
}

fn credentials(exchange: &Exchange) -> Value {
    json!({
        "number": exchange.number,
        "issued": exchange.issued_at.to_rfc3339(),
        "expires": exchange.expires_at.to_rfc3339(),
        "calls": exchange.calls,
    })
}

/// Returns the claims that say whose token it is, and what for.
fn token(token: &AccessToken) -> Value {
    let claims = &token.claims;
    json!({
        "iss": claims["iss"], "sub": claims["sub"], "aud": claims["aud"],
        "client_id": claims["client_id"], "scope": claims["scope"],
        "expires": UnixMillis(token.expiry).to_rfc3339(),
    })
}

fn header_names(request: &Request) -> Vec<&str> {
    let mut names: Vec<&str> = request
        .headers
        .keys()
        .map(header::HeaderName::as_str)
        .collect();
    names.sort_unstable();
    names
}
