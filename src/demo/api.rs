//! A small Taskcluster-style API: the login service's token exchange, endpoints that require Hawk,
//! and a record of the requests received.

mod journey;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};
use http::{Method, StatusCode, header};
use serde_json::{Value, json};
use url::Url;

use self::journey::Exchange;
use super::identity_provider::TokenVerifier;
use super::random::random;
use super::server::{self, Request, Response, Server};
use super::{DemoError, hawk};
use crate::clock::{SharedClock, UnixMillis};

/// The path of the token exchange (`docs/design/taskcluster.md`, "Login endpoint:
/// oidcCredentials").
pub(super) const EXCHANGE: &str = "/api/login/v1/oidc-credentials/demo";
/// The path of an endpoint that revokes every credential issued so far, for trying the demo by
/// hand.
pub(super) const REVOKE: &str = "/demo/revoke";
/// Maximum number of requests recorded between two calls of [`Api::take_requests`], and of
/// exchanges. The oldest is forgotten.
const MAX_RECORDED: usize = 1000;
/// Lifetime of credentials, in milliseconds.
const LIFETIME: i64 = 15 * 60 * 1000;

/// A request received by an endpoint that requires Hawk.
#[derive(Clone, Debug)]
pub(super) struct ReceivedRequest {
    /// Method and target.
    pub(super) line: String,
    /// `X-Request-Id`: hawkgate sends the same one with each attempt.
    pub(super) id: String,
    /// When it arrived.
    pub(super) at: UnixMillis,
    /// The seed of the certificate that came with it.
    pub(super) seed: Option<String>,
    /// The scheme of the `Authorization` header, without the credentials.
    pub(super) scheme: String,
    /// Whether any header contained a bearer token.
    pub(super) bearer: bool,
    /// The clientId that signed the request, or the reason why it was refused.
    pub(super) client: Result<String, String>,
    /// SHA-256 of the body, in hexadecimal.
    pub(super) sha256: String,
}

/// A running API.
pub(super) struct Api {
    pub(super) url: Url,
    service: Arc<Service>,
    _server: Server,
}

struct Service {
    verifier: Arc<TokenVerifier>,
    clock: SharedClock,
    state: Mutex<State>,
}

struct State {
    issuer_key: String,
    /// The number of successful exchanges.
    exchanges: usize,
    /// The latest exchanges.
    exchanged: VecDeque<Exchange>,
    received: VecDeque<ReceivedRequest>,
}

impl Api {
    pub(super) async fn start(
        clock: SharedClock,
        verifier: Arc<TokenVerifier>,
    ) -> Result<Self, DemoError> {
        let service = Arc::new(Service {
            verifier,
            clock,
            state: Mutex::new(State {
                issuer_key: random()?,
                exchanges: 0,
                exchanged: VecDeque::new(),
                received: VecDeque::new(),
            }),
        });
        let handler = service.clone();
        let server = server::listen().await?;
        let server = server.serve(move |request| handler.handle(request));
        Ok(Self {
            url: server.url.clone(),
            service,
            _server: server,
        })
    }

    /// Revokes all credentials issued so far by replacing the key from which they are derived.
    pub(super) fn revoke(&self) -> Result<(), DemoError> {
        self.service.revoke()
    }

    /// Returns the number of successful exchanges.
    pub(super) fn exchanges(&self) -> usize {
        self.service.state().exchanges
    }

    /// Takes the requests received since the last call.
    pub(super) fn take_requests(&self) -> Vec<ReceivedRequest> {
        std::mem::take(&mut self.service.state().received).into()
    }
}

/// Returns the SHA-256 of a body, in hexadecimal.
pub(super) fn sha256(body: &[u8]) -> String {
    let bytes = digest(&SHA256, body);
    let hex: Vec<String> = bytes.as_ref().iter().map(|b| format!("{b:02x}")).collect();
    hex.concat()
}

impl Service {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handle(&self, request: &Request) -> Response {
        match (&request.method, request.path()) {
            (&Method::GET, EXCHANGE) => self.exchange(request),
            (&Method::POST, REVOKE) => self.withdraw(request),
            _ => self.require_hawk(request),
        }
    }

    fn withdraw(&self, request: &Request) -> Response {
        match self.revoke() {
            Ok(()) => server::json(StatusCode::OK, &json!({ "revoked": true })),
            Err(_) => self.error(
                request,
                StatusCode::INTERNAL_SERVER_ERROR,
                "no random bytes available",
            ),
        }
    }

    fn revoke(&self) -> Result<(), DemoError> {
        self.state().issuer_key = random()?;
        Ok(())
    }

    /// Exchanges a valid bearer token for credentials that are valid for 15 minutes, but no
    /// longer than the token.
    fn exchange(&self, request: &Request) -> Response {
        let token = request.header("authorization").strip_prefix("Bearer ");
        let Some(token) = token.and_then(|t| self.verifier.verify(t)) else {
            let text = "Could not generate credentials for this access token";
            return self.error(request, StatusCode::BAD_REQUEST, text);
        };
        let (Ok(first), Ok(second)) = (random(), random()) else {
            return self.error(
                request,
                StatusCode::INTERNAL_SERVER_ERROR,
                "no random bytes available",
            );
        };
        let now = self.clock.now().0;
        let expiry = (now + LIFETIME).min(token.expiry);
        let (client, seed) = (format!("demo/{}", token.subject), first + &second);
        let mut state = self.state();
        state.exchanges += 1;
        let number = state.exchanges;
        let exchange = Exchange::new(number, &seed, UnixMillis(now), UnixMillis(expiry), token);
        push(&mut state.exchanged, exchange);
        let credentials = hawk::issue(&state.issuer_key, &client, &seed, now - LIFETIME, expiry);
        let body = json!({
            "expires": UnixMillis(expiry - 30_000).to_rfc3339(), "credentials": credentials,
        });
        server::json(StatusCode::OK, &body)
    }

    fn require_hawk(&self, request: &Request) -> Response {
        let mut state = self.state();
        let client = hawk::verify(request, &state.issuer_key, self.clock.now().0);
        let received = record(request, &client, self.clock.now());
        push(&mut state.received, received);
        drop(state);
        let client = match client {
            Ok(client) => client,
            Err(text) => {
                let mut response = self.error(request, StatusCode::UNAUTHORIZED, &text);
                let hawk = header::HeaderValue::from_static("hawk");
                response
                    .headers_mut()
                    .insert(header::WWW_AUTHENTICATE, hawk);
                return response;
            }
        };
        match (&request.method, request.path()) {
            (&Method::GET, "/api/auth/v1/scopes/current") => {
                let scopes = json!({ "scopes": hawk::scopes(&client) });
                server::json(StatusCode::OK, &scopes)
            }
            (&Method::GET, journey::CALL) => {
                let facts = journey::facts(&mut self.state(), request, &client);
                server::json(StatusCode::OK, &facts)
            }
            (&Method::POST, journey::WITHDRAW) => self.withdraw(request),
            (&Method::POST, "/api/hooks/v1/hooks/demo/greet/trigger") => {
                let got = json!({ "clientId": client, "sha256": sha256(&request.body) });
                server::json(StatusCode::OK, &got)
            }
            _ => server::json(StatusCode::NOT_FOUND, &json!({ "error": "Not found" })),
        }
    }

    /// Returns an error in Taskcluster's format, but without echoing the payload.
    fn error(&self, request: &Request, status: StatusCode, message: &str) -> Response {
        let code = match status {
            StatusCode::UNAUTHORIZED => "AuthenticationFailed",
            StatusCode::BAD_REQUEST => "InputError",
            _ => "InternalServerError",
        };
        let info: Value = json!({
            "method": request.method.as_str(), "params": {}, "payload": null,
            "time": self.clock.now().to_rfc3339(),
        });
        let body = json!({ "code": code, "message": message, "requestInfo": info });
        server::json(status, &body)
    }
}

/// Appends `entry`; the oldest gives way.
fn push<T>(entries: &mut VecDeque<T>, entry: T) {
    if entries.len() >= MAX_RECORDED {
        entries.pop_front();
    }
    entries.push_back(entry);
}

fn record(request: &Request, client: &Result<String, String>, at: UnixMillis) -> ReceivedRequest {
    let scheme = request.header("authorization").split(' ').next();
    let mut values = request.headers.values().filter_map(|v| v.to_str().ok());
    ReceivedRequest {
        line: format!("{} {}", request.method, request.target),
        id: request.header("x-request-id").to_owned(),
        at,
        seed: hawk::seed(request),
        scheme: scheme.unwrap_or_default().to_owned(),
        bearer: values.any(|v| v.to_lowercase().contains("bearer ") || v.contains("eyJhbGci")),
        client: client.clone(),
        sha256: sha256(&request.body),
    }
}

#[cfg(test)]
mod tests;
