//! The exchange and the upstream, in this process, on a thread of their own. The exchange gives each caller
//! a new token at each request, and counts; the upstream checks tokens.

use std::collections::HashSet;
use std::convert::Infallible;
use std::net::TcpListener;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::json;

/// How long an exchange takes, in milliseconds, unless a measurement says otherwise.
const EXCHANGE: u64 = 20;

/// The path of requests whose token the upstream checks.
pub(crate) const CHECKED: &str = "/api/checked";
/// The path of requests that are answered whatever token they have: with that token.
pub(crate) const ECHO: &str = "/api/echo";

/// The state of both servers.
pub(crate) struct Provider {
    /// The port of the exchange.
    pub(crate) exchange: u16,
    /// The port of the upstream.
    pub(crate) upstream: u16,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    exchanges: AtomicU64,
    /// How long an exchange takes, in milliseconds.
    delay: AtomicU64,
    /// Tokens with a lower number are rejected.
    valid_from: AtomicU64,
    revoked: Mutex<HashSet<String>>,
    rejected_at: Mutex<Option<Instant>>,
}

impl Provider {
    pub(crate) fn start() -> Self {
        let state = Arc::new(State::default());
        let listen = || TcpListener::bind("127.0.0.1:0").expect("a listener");
        let (exchange, upstream) = (listen(), listen());
        let port = |listener: &TcpListener| listener.local_addr().expect("an address").port();
        let provider = Self {
            exchange: port(&exchange),
            upstream: port(&upstream),
            state: Arc::clone(&state),
        };
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                let exchange = serve(exchange, Arc::clone(&state), State::exchange);
                let upstream = serve(upstream, state, State::answer);
                tokio::join!(exchange, upstream);
            });
        });
        provider
    }

    /// Forgets what was counted. What was handed out stays as it is.
    pub(crate) fn reset(&self) {
        self.state.exchanges.store(0, Ordering::SeqCst);
        self.state.delay.store(EXCHANGE, Ordering::SeqCst);
    }

    /// Makes exchanges take no time until the next [`Self::reset`].
    pub(crate) fn exchange_at_once(&self) {
        self.state.delay.store(0, Ordering::SeqCst);
    }

    pub(crate) fn exchanges(&self) -> u64 {
        self.state.exchanges.load(Ordering::SeqCst)
    }

    /// Rejects everything that was handed out so far.
    pub(crate) fn revoke_all(&self) {
        let next = SERIAL.load(Ordering::SeqCst);
        self.state.valid_from.store(next, Ordering::SeqCst);
    }

    /// Rejects `token` on checked paths.
    pub(crate) fn revoke(&self, token: &str) {
        *self.state.rejected_at() = None;
        self.state.revoked().insert(token.to_owned());
    }

    /// When a revoked token was last rejected.
    pub(crate) fn rejected_at(&self) -> Option<Instant> {
        *self.state.rejected_at()
    }
}

/// The number of the next token.
static SERIAL: AtomicU64 = AtomicU64::new(1);

impl State {
    fn revoked(&self) -> MutexGuard<'_, HashSet<String>> {
        self.revoked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rejected_at(&self) -> MutexGuard<'_, Option<Instant>> {
        let rejected_at = self.rejected_at.lock();
        rejected_at.unwrap_or_else(PoisonError::into_inner)
    }

    /// RFC 8693 §2.2.1.
    async fn exchange(self: Arc<Self>, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let _ = request.into_body().collect().await;
        // Issued at once, so that what is revoked meanwhile includes it.
        let token = format!("token-{}", SERIAL.fetch_add(1, Ordering::SeqCst));
        self.exchanges.fetch_add(1, Ordering::SeqCst);
        let delay = self.delay.load(Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(delay)).await;
        let body = json!({
            "access_token": token,
            "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "token_type": "Bearer",
            "expires_in": 3600,
        });
        respond(StatusCode::OK, "application/json", body.to_string())
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let authorization = request.headers().get("authorization");
        let token = authorization
            .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "))
            .unwrap_or_default()
            .to_owned();
        if request.uri().path() == CHECKED && !self.accepts(&token) {
            return respond(StatusCode::UNAUTHORIZED, "text/plain", String::new());
        }
        respond(StatusCode::OK, "text/plain", token)
    }

    fn accepts(&self, token: &str) -> bool {
        let serial = token.strip_prefix("token-");
        let serial: u64 = serial.and_then(|n| n.parse().ok()).unwrap_or(0);
        if serial < self.valid_from.load(Ordering::SeqCst) {
            return false;
        }
        let revoked = self.revoked().contains(token);
        if revoked {
            *self.rejected_at() = Some(Instant::now());
        }
        !revoked
    }
}

fn respond(status: StatusCode, kind: &str, body: String) -> Response<Full<Bytes>> {
    Response::builder()
        .status(status)
        .header("content-type", kind)
        .body(Full::new(body.into()))
        .expect("a response")
}

async fn serve<F>(
    listener: TcpListener,
    state: Arc<State>,
    answer: impl Fn(Arc<State>, Request<Incoming>) -> F + Copy + Send + 'static,
) where
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    listener.set_nonblocking(true).expect("nonblocking");
    let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let answer = answer(Arc::clone(&state), request);
                async move { Ok::<_, Infallible>(answer.await) }
            });
            // It ends with an error when the process that connected is killed.
            let http = hyper::server::conn::http1::Builder::new();
            let _ = http.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
