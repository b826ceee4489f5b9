//! The admin listener: liveness, startup and readiness probes, metrics, and, if configured,
//! `PUT /credentials`.
//!
//! Its connections are subject to the same head validation and timeouts as others, but have a
//! separate connection limit, so that probes still succeed when callers have exhausted theirs.
//!
//! On a local listener, requests of web pages are refused. On others, scrapers and probes use
//! names and addresses that hawkgate does not know, and no page changes anything.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, StatusCode};
use pingora::apps::{HttpPersistentSettings, HttpServerApp, ReusedHttpStream};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::ServerSession;
use pingora::server::ShutdownWatch;
use tokio::time::timeout;

use super::client::ConnMetadata;
use super::connection_limit::ConnState;
use super::listener::{BindError, InheritedSockets};
use super::server::BoundServer;
use crate::gateway::Head;
use crate::gateway::rejection::Rejection;
use crate::gateway::resource_isolation::Transport;
use crate::proxy::settings::{Address, Limits, Listener, ListenerAccess, MinRate};

/// Maximum number of open connections.
const CONNECTIONS: usize = 128;
/// Maximum number of open connections from one address.
const CONNECTIONS_PER_ADDRESS: usize = 16;
/// Maximum size of a request head, in bytes.
const HEADER_BYTES: usize = 8 * 1024;
/// Maximum length of a request target, in bytes.
const URL_BYTES: usize = 2 * 1024;
/// Timeout for reading a whole head, and for a write that makes no progress.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum time for a response, with reading the request's body.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
/// Idle timeout. Probes arrive every few seconds, scrapes about once a minute.
const KEEPALIVE: Duration = Duration::from_secs(75);

/// The content of the admin pages. It is generated for each request, so the methods must return
/// quickly.
pub trait AdminPages: Send + Sync + 'static {
    /// Returns the content type and text of `/metrics`, in the format that the `Accept` header
    /// requests.
    fn metrics(&self, accept: &str) -> (String, String);
    /// Returns `Ok` if traffic should be sent to this instance, and otherwise the reasons why
    /// not, one per line. They contain no secrets.
    fn ready(&self) -> Result<(), String>;
    /// Returns `Ok` if startup is complete, and otherwise what is missing, one item per line.
    /// The text contains no secrets.
    fn started(&self) -> Result<(), String>;
    /// Returns `Ok` if a request to a local listener does not come from a web page.
    fn check_sender(&self, head: Head<'_>) -> Result<(), Rejection>;
    /// Sets new credentials for the source named `source`, or, without a name, for the only
    /// source that accepts any. By default no source does.
    fn put_credentials(&self, _source: Option<&str>, _body: &[u8]) -> PutCredentials {
        PutCredentials::NoSource
    }
}

/// The result of setting credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PutCredentials {
    /// The new credentials are in use.
    Accepted,
    /// The credentials are invalid. The text says why, without quoting them.
    Rejected(String),
    /// No source of this name accepts credentials, or no name was given and several sources
    /// accept them.
    NoSource,
}

/// The application that serves the admin listener.
pub struct Admin<P> {
    pages: Arc<P>,
    /// How requests arrive if the listener is local.
    local: Option<Transport>,
}

/// Binds the admin listener; serve it with [`Admin`].
///
/// # Errors
/// Returns an error if it cannot be bound.
pub async fn bind(
    address: &Address,
    inherited: &mut InheritedSockets,
) -> Result<BoundServer, BindError> {
    let listener = Listener {
        address: address.clone(),
        mode: 0o600,
        tls: None,
        h2c: false,
        access: ListenerAccess::default(),
    };
    let limits = Limits {
        header_bytes: HEADER_BYTES,
        url_bytes: URL_BYTES,
        header_timeout: TIMEOUT,
        body_timeout: TIMEOUT,
        min_body_rate: MinRate {
            bytes_per_second: 0,
            grace: Limits::BODY_RATE_GRACE,
        },
        keepalive_timeout: KEEPALIVE,
        unadmitted_keepalive: Limits::UNADMITTED_KEEPALIVE,
        linger: Limits::LINGER,
        connections: CONNECTIONS,
        // Not counted here: the application of this listener has no hooks.
        requests_in_flight: CONNECTIONS,
        requests_in_flight_per_address: CONNECTIONS,
        connections_per_address: Some(CONNECTIONS_PER_ADDRESS),
        body: Some(0),
        replay_body: 0,
        replay_memory: 0,
    };
    BoundServer::bind_with_inherited(&[listener], &limits, inherited).await
}

struct Page {
    status: StatusCode,
    content_type: String,
    text: String,
    /// The `Allow` field of a 405 response.
    allow: &'static str,
}

impl Page {
    fn plain(status: StatusCode, text: impl Into<String>) -> Self {
        Self {
            status,
            content_type: "text/plain; charset=utf-8".to_owned(),
            text: text.into(),
            allow: "GET, HEAD",
        }
    }

    fn of(state: Result<(), String>) -> Self {
        match state {
            Ok(()) => Self::plain(StatusCode::OK, "ok\n"),
            Err(reasons) => Self::plain(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("{}\n", reasons.trim_end()),
            ),
        }
    }
}

impl<P: AdminPages> Admin<P> {
    /// Serves `pages` on the listener at `address`.
    pub fn new(pages: Arc<P>, address: &Address) -> Arc<Self> {
        let transport = match address {
            Address::Unix(_) => Transport::Unix,
            Address::Tcp(_) => Transport::Tcp,
        };
        let local = address.is_local().then_some(transport);
        Arc::new(Self { pages, local })
    }

    fn page(&self, method: &Method, path: &str, accept: &str) -> Page {
        let known = matches!(path, "/metrics" | "/healthz" | "/startupz" | "/readyz");
        if known && *method != Method::GET && *method != Method::HEAD {
            return Page::plain(StatusCode::METHOD_NOT_ALLOWED, "GET and HEAD only\n");
        }
        match path {
            "/metrics" => {
                let (content_type, text) = self.pages.metrics(accept);
                Page {
                    status: StatusCode::OK,
                    content_type,
                    text,
                    allow: "GET, HEAD",
                }
            }
            "/healthz" => Page::of(Ok(())),
            "/startupz" => Page::of(self.pages.started()),
            "/readyz" => Page::of(self.pages.ready()),
            _ => Page::plain(StatusCode::NOT_FOUND, "not found\n"),
        }
    }
}

#[async_trait]
impl<P: AdminPages> super::service::Service for Admin<P> {
    async fn serve(&self, _: super::service::Request<'_>) -> super::service::Served {
        todo!()
    }
}
