//! The admin listener: liveness, startup and readiness probes, metrics, and, if configured,
//! `PUT /credentials`.
//!
//! Its connections are subject to the same head validation and timeouts as others, but have a
//! separate connection limit, so that probes still succeed when callers have exhausted theirs.
//!
//! On a local listener, requests of web pages are refused. On others, scrapers and probes use
//! names and addresses that hawkgate does not know, and no page changes anything.

mod put_credentials;

use std::future::poll_fn;
use std::sync::Arc;
use std::task::ready;
use std::time::Duration;

use async_trait::async_trait;
use http::{Method, StatusCode, header};
use tokio::time::timeout;

use super::downstream::Downstream;
use super::error::RelayError;
use super::head::{BodySize, FieldList, RequestHead, ResponseHead};
use super::listener::{BindError, InheritedSockets};
use super::local_response;
use super::server::BoundServer;
use super::service::{ConnInfo, Request, Served, Service};
use crate::clock::SharedClock;
use crate::gateway::Head;
use crate::gateway::rejection::Rejection;
use crate::gateway::resource_isolation::Transport;
use crate::header_fields::{all, text};
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
    clock: SharedClock,
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
        forward_auth: None,
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
        // Not counted here.
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
    pub fn new(pages: Arc<P>, address: &Address, clock: SharedClock) -> Arc<Self> {
        let transport = match address {
            Address::Unix(_) => Transport::Unix,
            Address::Tcp(_) => Transport::Tcp,
        };
        let local = address.is_local().then_some(transport);
        Arc::new(Self {
            pages,
            local,
            clock,
        })
    }

    /// Refuses requests of web pages, on local listeners.
    fn check_sender(&self, head: &RequestHead) -> Result<(), Page> {
        let Some(transport) = self.local else {
            return Ok(());
        };
        let checked = self.pages.check_sender(Head {
            method: &head.method,
            host: head.host().unwrap_or_default(),
            target: path(head),
            headers: &head.fields,
            peer: None,
            transport,
            https: transport == Transport::Tls,
            certificate: None,
        });
        checked.map_err(|rejection| {
            let reason = rejection.reason;
            Page::plain(reason.status(), format!("{}\n", reason.message()))
        })
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

    /// Responds, and returns the status.
    async fn answer(
        &self,
        head: &RequestHead,
        downstream: &mut Downstream<'_>,
        conn: &ConnInfo,
    ) -> Result<StatusCode, RelayError> {
        let path = path(head);
        let page = match (
            self.check_sender(head),
            put_credentials::source_from_path(path),
        ) {
            (Err(refused), _) => refused,
            (Ok(()), Some(source)) => self.put(head, downstream, conn, source).await,
            (Ok(()), None) => {
                let accept = all(&head.fields, &header::ACCEPT).filter_map(text);
                let accept: Vec<_> = accept.collect();
                self.page(&head.method, path, &accept.join(","))
            }
        };
        let status = page.status;
        let close = conn.signal.is_draining() || !downstream.is_body_done();
        let with_body = head.method != Method::HEAD;
        downstream.queue_head(self.response_head(&page, with_body), close)?;
        let mut left = if with_body { page.text.as_bytes() } else { b"" };
        poll_fn(|cx| {
            while !left.is_empty() {
                let written = ready!(downstream.poll_write(cx, left, true))?;
                left = left.get(written..).unwrap_or_default();
            }
            downstream.poll_finish(cx, &mut None)
        })
        .await?;
        Ok(status)
    }

    fn response_head(&self, page: &Page, with_body: bool) -> ResponseHead {
        let length = page.text.len();
        let date = local_response::date(self.clock.now());
        let mut fields = FieldList::with_capacity(5, 256);
        let length_text = length.to_string();
        for (name, value) in [
            ("content-type", &*page.content_type),
            ("content-length", &length_text),
            ("cache-control", "no-store"),
            ("date", &date),
        ] {
            fields.push(name.as_bytes(), value.as_bytes());
        }
        if page.status == StatusCode::METHOD_NOT_ALLOWED {
            fields.push(b"allow", page.allow.as_bytes());
        }
        ResponseHead {
            status: page.status,
            reason: None,
            fields,
            body: if with_body {
                BodySize::Known(length as u64)
            } else {
                BodySize::Empty
            },
        }
    }
}

/// The path of a request, without its query.
fn path(head: &RequestHead) -> &str {
    head.target().split('?').next().unwrap_or_default()
}

#[async_trait]
impl<P: AdminPages> Service for Admin<P> {
    async fn serve(&self, request: Request<'_>) -> Served {
        let Request {
            head,
            mut downstream,
            conn,
            ..
        } = request;
        // The same for all requests, so that slow callers cannot keep probes out.
        let answer = self.answer(&head, &mut downstream, conn);
        let Ok(Ok(status)) = timeout(RESPONSE_TIMEOUT, answer).await else {
            downstream.abort();
            return Served::Aborted;
        };
        if status.is_success() {
            conn.state.request_admitted();
        }
        if downstream.is_body_done() {
            Served::KeepAlive
        } else {
            Served::Close
        }
    }
}

#[cfg(test)]
mod tests;
