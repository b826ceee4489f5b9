//! The operators' listener: is it alive, started, ready; and its metrics.
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

use super::listener::BindError;
use super::server::Bound;
use crate::config::{Address, Limits, Listener};

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

/// What the pages say. Answers are made anew for each request and must be quick.
pub trait AdminPages: Send + Sync + 'static {
    /// Content type and text of `/metrics`.
    fn metrics(&self) -> (String, String);
    /// Whether traffic should come, or the reasons why not, one per line. No secrets.
    fn ready(&self) -> Result<(), String>;
    /// Whether starting is over, or what is missing, one per line. No secrets.
    fn started(&self) -> Result<(), String>;
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
}

impl Page {
    fn plain(status: StatusCode, text: impl Into<String>) -> Self {
        Self {
            status,
            content_type: "text/plain; charset=utf-8".to_owned(),
            text: text.into(),
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
                }
            }
            "/healthz" => Page::of(Ok(())),
            "/startupz" => Page::of(self.pages.started()),
            "/readyz" => Page::of(self.pages.ready()),
            _ => Page::plain(StatusCode::NOT_FOUND, "not found\n"),
        }
    }

    async fn answer(&self, session: &mut ServerSession) -> pingora::Result<()> {
        let head = session.req_header();
        let page = self.page(&head.method, head.uri.path());
        let with_body = head.method != Method::HEAD;
        let mut header = ResponseHeader::build(page.status, Some(5))?;
        header.insert_header("content-type", page.content_type)?;
        header.insert_header("content-length", page.text.len())?;
        header.insert_header("cache-control", "no-store")?;
        if page.status == StatusCode::METHOD_NOT_ALLOWED {
            header.insert_header("allow", "GET, HEAD")?;
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
    }

    async fn start(pages: Arc<Pages>) -> (std::net::SocketAddr, Serving) {
        let any = Address::Tcp(([127, 0, 0, 1], 0).into());
        let bound = bind(&any).await.unwrap();
        let Address::Tcp(address) = bound.addresses()[0] else {
            panic!("not TCP")
        };
        let clock = ManualClock::at(UnixMillis::from_secs(0));
        let app = Admin::new(pages);
        let serving = bound.serve(vec![app], clock, Arc::new(|_| {}), Workers::Ambient);
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
}
