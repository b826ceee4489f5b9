//! The operators' listener: is it alive, started, ready; its metrics; and, where the
//! configuration opens it, `PUT /credentials`.
//!
//! Served like callers' connections, head checks and deadlines included, but with a limit
//! of its own, so that probes get through when callers have taken every connection.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, StatusCode};
use pingora::apps::{HttpPersistentSettings, HttpServerApp, ReusedHttpStream};
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;
use pingora::server::ShutdownWatch;
use zeroize::Zeroizing;

use super::listener::BindError;
use super::server::Bound;
use crate::config::{Address, Limits, Listener, ListenerAccess};

/// Open connections.
const CONNECTIONS: usize = 64;
/// Request head, bytes.
const HEADER_BYTES: usize = 8 * 1024;
/// Request target, bytes.
const URL_BYTES: usize = 2 * 1024;
/// For the whole head, and for a write without progress.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Probes come every few seconds, scrapes every minute.
const KEEPALIVE: Duration = Duration::from_secs(75);

/// The largest body read, in bytes.
const MAX_BODY: usize = 64 * 1024;
/// For all of it.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Where credentials are put; below it, those of one source.
const CREDENTIALS: &str = "/credentials";

/// What the pages say. Answers are made anew for each request and must be quick.
pub trait AdminPages: Send + Sync + 'static {
    /// Content type and text of `/metrics`.
    fn metrics(&self) -> (String, String);
    /// Whether traffic should come, or the reasons why not, one per line. No secrets.
    fn ready(&self) -> Result<(), String>;
    /// Whether starting is over, or what is missing, one per line. No secrets.
    fn started(&self) -> Result<(), String>;
    /// New credentials for the source called `source`, or for the only one that takes any.
    /// None does, unless this says otherwise.
    fn put_credentials(&self, _source: Option<&str>, _body: &[u8]) -> CredentialsPut {
        CredentialsPut::NoSource
    }
}

/// What became of new credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialsPut {
    /// They are in use.
    Taken,
    /// They are no good; the text says why, without anything of them.
    Refused(String),
    /// No source of this name takes any, or none is named and it is not clear which is
    /// meant.
    NoSource,
}

/// The application behind the admin listener.
pub struct Admin<P> {
    pages: Arc<P>,
}

/// Binds the admin listener; serve it with [`Admin`].
///
/// # Errors
/// When it cannot be bound.
pub async fn bind(address: &Address) -> Result<Bound, BindError> {
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
        keepalive_timeout: KEEPALIVE,
        connections: CONNECTIONS,
        body: Some(0),
        replay_body: 0,
        replay_memory: 0,
    };
    Bound::bind(&[listener], &limits).await
}

struct Page {
    status: StatusCode,
    content_type: String,
    text: String,
    /// For 405.
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
    /// Shows `pages`.
    pub fn new(pages: Arc<P>) -> Arc<Self> {
        Arc::new(Self { pages })
    }

    fn page(&self, method: &Method, path: &str) -> Page {
        let known = matches!(path, "/metrics" | "/healthz" | "/startupz" | "/readyz");
        if known && *method != Method::GET && *method != Method::HEAD {
            return Page::plain(StatusCode::METHOD_NOT_ALLOWED, "GET and HEAD only\n");
        }
        match path {
            "/metrics" => {
                let (content_type, text) = self.pages.metrics();
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

    async fn put(
        &self,
        session: &mut ServerSession,
        method: &Method,
        source: Option<&str>,
    ) -> Page {
        // Asked with nothing, to hide the page where no source takes any.
        let unknown = || self.pages.put_credentials(source, b"") == CredentialsPut::NoSource;
        if unknown() {
            return Page::plain(StatusCode::NOT_FOUND, "not found\n");
        }
        if *method != Method::PUT {
            let allow = "PUT";
            return Page {
                allow,
                ..Page::plain(StatusCode::METHOD_NOT_ALLOWED, "PUT only\n")
            };
        }
        // Browsers send it with every PUT, programs never: no web page shall get here, not
        // even one whose host name leads to this machine.
        if session.req_header().headers.contains_key("origin") {
            return Page::plain(StatusCode::FORBIDDEN, "not for browsers\n");
        }
        let body = match tokio::time::timeout(BODY_TIMEOUT, read_body(session)).await {
            Ok(Ok(body)) => body,
            Ok(Err(page)) => return page,
            Err(_) => return Page::plain(StatusCode::REQUEST_TIMEOUT, "the body took too long\n"),
        };
        match self.pages.put_credentials(source, &body) {
            CredentialsPut::Taken => Page::plain(StatusCode::OK, ""),
            CredentialsPut::Refused(why) => {
                Page::plain(StatusCode::BAD_REQUEST, format!("{why}\n"))
            }
            CredentialsPut::NoSource => Page::plain(StatusCode::NOT_FOUND, "not found\n"),
        }
    }

    async fn answer(&self, session: &mut ServerSession) -> pingora::Result<()> {
        let head = session.req_header();
        let (method, path) = (head.method.clone(), head.uri.path().to_owned());
        let page = match source_in(&path) {
            Some(source) => self.put(session, &method, source).await,
            None => self.page(&method, &path),
        };
        let with_body = method != Method::HEAD;
        let mut header = ResponseHeader::build(page.status, Some(5))?;
        header.insert_header("content-type", page.content_type)?;
        header.insert_header("content-length", page.text.len())?;
        header.insert_header("cache-control", "no-store")?;
        if page.status == StatusCode::METHOD_NOT_ALLOWED {
            header.insert_header("allow", page.allow)?;
        }
        session.write_response_header(Box::new(header)).await?;
        if with_body {
            session
                .write_response_body(Bytes::from(page.text), true)
                .await?;
        }
        Ok(())
    }
}

/// The source that a path below `/credentials` names; `None` for other paths.
#[allow(clippy::option_option)]
fn source_in(path: &str) -> Option<Option<&str>> {
    match path.strip_prefix(CREDENTIALS)? {
        "" => Some(None),
        rest => Some(Some(rest.strip_prefix('/')?)),
    }
}

/// The whole body, wiped when dropped.
async fn read_body(session: &mut ServerSession) -> Result<Zeroizing<Vec<u8>>, Page> {
    let broken = |_| Page::plain(StatusCode::BAD_REQUEST, "the body broke off\n");
    if session.req_header().headers.contains_key("expect") {
        session.write_continue_response().await.map_err(broken)?;
    }
    // All the room at once: growing would leave copies behind.
    let mut body = Zeroizing::new(Vec::with_capacity(MAX_BODY));
    while let Some(piece) = session.read_request_body().await.map_err(broken)? {
        if body.len() + piece.len() > MAX_BODY {
            session.set_keepalive(None);
            return Err(Page::plain(
                StatusCode::PAYLOAD_TOO_LARGE,
                "the body is larger than 64 KiB\n",
            ));
        }
        body.extend_from_slice(&piece);
    }
    Ok(body)
}

#[async_trait]
impl<P: AdminPages> HttpServerApp for Admin<P> {
    async fn process_new_http(
        self: &Arc<Self>,
        mut session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        if !session.read_request().await.ok()? {
            return None;
        }
        if *shutdown.borrow() {
            session.set_keepalive(None);
        }
        self.answer(&mut session).await.ok()?;
        let settings = HttpPersistentSettings::for_session(&session);
        let reusable = session.finish().await.ok()??;
        Some(ReusedHttpStream::from_reusable_stream(reusable, settings))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;
    use crate::clock::{ManualClock, UnixMillis};
    use crate::proxy::server::{Serving, Workers};

    #[derive(Default)]
    struct Pages {
        unready: Mutex<Option<String>>,
    }

    impl AdminPages for Pages {
        fn metrics(&self) -> (String, String) {
            ("text/plain; version=0.0.4".into(), "a 1\n".into())
        }
        fn ready(&self) -> Result<(), String> {
            self.unready.lock().unwrap().clone().map_or(Ok(()), Err)
        }
        fn started(&self) -> Result<(), String> {
            Err("issuer a: no keys yet\nissuer b: no keys yet".into())
        }
        fn put_credentials(&self, source: Option<&str>, body: &[u8]) -> CredentialsPut {
            match (source, body) {
                (Some("static"), b"good") => CredentialsPut::Taken,
                (Some("static"), _) => CredentialsPut::Refused("no good".into()),
                _ => CredentialsPut::NoSource,
            }
        }
    }

    async fn start(pages: Arc<Pages>) -> (std::net::SocketAddr, Serving) {
        let any = Address::Tcp(([127, 0, 0, 1], 0).into());
        let bound = bind(&any).await.unwrap();
        let Address::Tcp(address) = bound.addresses()[0] else {
            panic!("not TCP")
        };
        let clock = ManualClock::at(UnixMillis::from_secs(0));
        let app = Admin::new(pages);
        let serving = bound.serve(app, clock, Arc::new(|_| {}), Workers::Ambient);
        (address, serving)
    }

    /// The answers to `requests`, pipelined, the last of which closes.
    async fn ask(address: std::net::SocketAddr, requests: &[&str]) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let (last, kept) = requests.split_last().unwrap();
        let mut bytes = String::new();
        for line in kept {
            bytes.push_str(line);
            bytes.push_str(" HTTP/1.1\r\nHost: a\r\n\r\n");
        }
        bytes.push_str(last);
        bytes.push_str(" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        stream.write_all(bytes.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn each_page_says_what_it_is_for() {
        let pages = Arc::new(Pages::default());
        let (address, _serving) = start(pages.clone()).await;
        for (request, status, rest) in [
            ("GET /healthz", 200, "\r\n\r\nok\n"),
            ("GET /readyz", 200, "\r\n\r\nok\n"),
            (
                "GET /startupz",
                503,
                "\r\n\r\nissuer a: no keys yet\nissuer b: no keys yet\n",
            ),
            ("GET /metrics", 200, "\r\n\r\na 1\n"),
            ("GET /metrics?x=y", 200, "\r\n\r\na 1\n"),
            ("HEAD /healthz", 200, "\r\n\r\n"),
            ("POST /healthz", 405, "\r\n\r\nGET and HEAD only\n"),
            ("GET /", 404, "\r\n\r\nnot found\n"),
            ("GET /metrics/", 404, "\r\n\r\nnot found\n"),
            ("POST /x", 404, "\r\n\r\nnot found\n"),
            ("GET /../metrics", 400, "}"),
            ("TRACE /metrics", 405, "}"),
        ] {
            let text = ask(address, &[request]).await;
            assert!(
                text.starts_with(&format!("HTTP/1.1 {status} ")),
                "{request}: {text}"
            );
            assert!(text.ends_with(rest), "{request}: {text}");
        }
        *pages.unready.lock().unwrap() = Some("draining".into());
        let text = ask(address, &["GET /readyz"]).await;
        assert!(text.starts_with("HTTP/1.1 503 ") && text.ends_with("\r\n\r\ndraining\n"));
        let metrics = ask(address, &["GET /metrics"]).await.to_ascii_lowercase();
        assert!(metrics.contains("content-type: text/plain; version=0.0.4\r\n"));
    }

    #[tokio::test]
    async fn connections_are_kept() {
        let (address, _serving) = start(Arc::default()).await;
        let text = ask(address, &["GET /healthz", "HEAD /readyz", "GET /metrics"]).await;
        assert_eq!(text.matches("HTTP/1.1 200").count(), 3);
        assert!(text.ends_with("a 1\n"));
    }

    /// The status and text of the answer to a PUT, or another method, with a body.
    async fn put(address: std::net::SocketAddr, head: &str, body: &[u8]) -> (u16, String) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!(
            "{head}\r\nHost: a\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        // A refusal may come before the whole body went out.
        let _ = stream.write_all(body).await;
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text).await;
        (text[9..12].parse().unwrap(), text)
    }

    #[tokio::test]
    async fn credentials_are_put_where_a_source_takes_them() {
        let (address, _serving) = start(Arc::default()).await;
        let large = vec![b'x'; MAX_BODY + 1];
        for (head, body, status) in [
            ("PUT /credentials/static HTTP/1.1", &b"good"[..], 200),
            ("PUT /credentials/static HTTP/1.1", b"bad", 400),
            ("PUT /credentials/static HTTP/1.1", b"", 400),
            ("PUT /credentials/static HTTP/1.1", &large, 413),
            ("POST /credentials/static HTTP/1.1", b"good", 405),
            ("GET /credentials/static HTTP/1.1", b"", 405),
            ("PUT /credentials HTTP/1.1", b"good", 404),
            ("PUT /credentials/ HTTP/1.1", b"good", 404),
            ("PUT /credentials/other HTTP/1.1", b"good", 404),
            ("PUT /credentials/static/ HTTP/1.1", b"good", 404),
            ("PUT /credentialsstatic HTTP/1.1", b"good", 404),
            (
                "PUT /credentials/static HTTP/1.1\r\nOrigin: http://evil.example",
                b"good",
                403,
            ),
            (
                "PUT /credentials/static HTTP/1.1\r\nExpect: 100-continue",
                b"bad",
                100,
            ),
        ] {
            let (said, text) = put(address, head, body).await;
            assert_eq!(said, status, "{head}: {text}");
        }
        let (_, text) = put(address, "GET /credentials/static HTTP/1.1", b"").await;
        assert!(
            text.to_ascii_lowercase().contains("allow: put\r\n"),
            "{text}"
        );
        let (_, text) = put(address, "PUT /credentials/static HTTP/1.1", b"bad").await;
        assert!(text.ends_with("\r\n\r\nno good\n"), "{text}");
    }
}
