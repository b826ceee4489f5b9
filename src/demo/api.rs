//! A small Taskcluster-style API: the login service's exchange, a few endpoints behind
//! Hawk, and a memory of what arrived.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use http::{Method, StatusCode, header};
use serde_json::{Value, json};
use url::Url;

use super::identity::Verifier;
use super::server::{self, Reply, Request, Server};
use super::{DemoError, hawk};
use crate::clock::{SharedClock, UnixMillis};

/// The oidcCredentials endpoint (taskcluster.md §1).
pub(super) const EXCHANGE: &str = "/api/login/v1/oidc-credentials/demo";
/// Withdraws every credential given out so far; for whoever tries the demo by hand.
pub(super) const REVOKE: &str = "/demo/revoke";
/// Requests remembered; later ones are not.
const MAX_SEEN: usize = 1000;
const QUARTER_HOUR: i64 = 15 * 60 * 1000;

/// One request to an endpoint behind Hawk, as it arrived.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) what: String,
    /// The scheme of its Authorization, never the rest.
    pub(super) scheme: String,
    /// Whether any header held a bearer token.
    pub(super) bearer: bool,
    /// Who signed it, or why it was refused.
    pub(super) client: Result<String, String>,
    pub(super) sha256: String,
}

/// The API, running.
pub(super) struct Api {
    pub(super) url: Url,
    desk: Arc<Desk>,
    _server: Server,
}

struct Desk {
    verifier: Arc<Verifier>,
    clock: SharedClock,
    state: Mutex<State>,
}

struct State {
    issuer_key: String,
    exchanges: usize,
    seen: Vec<Seen>,
}

impl Api {
    pub(super) async fn start(
        clock: SharedClock,
        verifier: Arc<Verifier>,
    ) -> Result<Self, DemoError> {
        let desk = Arc::new(Desk {
            verifier,
            clock,
            state: Mutex::new(State {
                issuer_key: random()?,
                exchanges: 0,
                seen: Vec::new(),
            }),
        });
        let behind = desk.clone();
        let server = server::serve(|_| move |request: &Request| behind.answer(request)).await?;
        Ok(Self {
            url: server.url.clone(),
            desk,
            _server: server,
        })
    }

    /// Withdraws all credentials given out: their issuer's key is replaced.
    pub(super) fn revoke(&self) -> Result<(), DemoError> {
        self.desk.revoke()
    }

    /// Exchanges that ended well.
    pub(super) fn exchanges(&self) -> usize {
        self.desk.state().exchanges
    }

    /// Takes what arrived since the last time.
    pub(super) fn take_seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.desk.state().seen)
    }
}

/// 22 characters, as a Taskcluster slugid.
fn random() -> Result<String, DemoError> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| DemoError::Start("no randomness".into()))?;
    Ok(BASE64URL.encode(bytes))
}

/// The SHA-256 of a body, in hexadecimal.
pub(super) fn sha256(body: &[u8]) -> String {
    let bytes = digest(&SHA256, body);
    let hex: Vec<String> = bytes.as_ref().iter().map(|b| format!("{b:02x}")).collect();
    hex.concat()
}

impl Desk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, request: &Request) -> Reply {
        match (&request.method, request.path()) {
            (&Method::GET, EXCHANGE) => self.exchange(request),
            (&Method::POST, REVOKE) => match self.revoke() {
                Ok(()) => server::json(StatusCode::OK, &json!({ "revoked": true })),
                Err(_) => self.error(request, StatusCode::INTERNAL_SERVER_ERROR, "no randomness"),
            },
            _ => self.behind_hawk(request),
        }
    }

    fn revoke(&self) -> Result<(), DemoError> {
        self.state().issuer_key = random()?;
        Ok(())
    }

    /// A verified bearer token for credentials of a quarter of an hour.
    fn exchange(&self, request: &Request) -> Reply {
        let token = request.header("authorization").strip_prefix("Bearer ");
        let Some((subject, token_expiry)) = token.and_then(|t| self.verifier.check(t)) else {
            let text = "Could not generate credentials for this access token";
            return self.error(request, StatusCode::BAD_REQUEST, text);
        };
        let (Ok(first), Ok(second)) = (random(), random()) else {
            return self.error(request, StatusCode::INTERNAL_SERVER_ERROR, "no randomness");
        };
        let now = self.clock.now().0;
        let expiry = (now + QUARTER_HOUR).min(token_expiry);
        let (client, seed) = (format!("demo/{subject}"), first + &second);
        let mut state = self.state();
        state.exchanges += 1;
        let credentials = hawk::issue(
            &state.issuer_key,
            &client,
            &seed,
            now - QUARTER_HOUR,
            expiry,
        );
        let body = json!({
            "expires": UnixMillis(expiry - 30_000).to_rfc3339(), "credentials": credentials,
        });
        server::json(StatusCode::OK, &body)
    }

    fn behind_hawk(&self, request: &Request) -> Reply {
        let mut state = self.state();
        let client = hawk::verify(request, &state.issuer_key, self.clock.now().0);
        if state.seen.len() < MAX_SEEN {
            state.seen.push(seen(request, &client));
        }
        drop(state);
        let client = match client {
            Ok(client) => client,
            Err(text) => {
                let mut reply = self.error(request, StatusCode::UNAUTHORIZED, &text);
                let hawk = header::HeaderValue::from_static("hawk");
                reply.headers_mut().insert(header::WWW_AUTHENTICATE, hawk);
                return reply;
            }
        };
        match (&request.method, request.path()) {
            (&Method::GET, "/api/auth/v1/scopes/current") => {
                let scopes = json!({ "scopes": [format!("assume:login-identity:{client}")] });
                server::json(StatusCode::OK, &scopes)
            }
            (&Method::POST, "/api/hooks/v1/hooks/demo/greet/trigger") => {
                let got = json!({ "clientId": client, "sha256": sha256(&request.body) });
                server::json(StatusCode::OK, &got)
            }
            _ => server::json(StatusCode::NOT_FOUND, &json!({ "error": "Not found" })),
        }
    }

    /// Taskcluster's shape of an error, without the payload that the real one echoes.
    fn error(&self, request: &Request, status: StatusCode, message: &str) -> Reply {
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

fn seen(request: &Request, client: &Result<String, String>) -> Seen {
    let scheme = request.header("authorization").split(' ').next();
    let mut values = request.headers.values().filter_map(|v| v.to_str().ok());
    Seen {
        what: format!("{} {}", request.method, request.target),
        scheme: scheme.unwrap_or_default().to_owned(),
        bearer: values.any(|v| v.to_lowercase().contains("bearer ") || v.contains("eyJhbGci")),
        client: client.clone(),
        sha256: sha256(&request.body),
    }
}

#[cfg(test)]
mod tests;
