//! The loopback HTTP server that receives the redirect at the end of a browser sign-in (RFC 8252
//! §7.3, §8.3). It accepts only GET requests for the exact path with the exact `Host`, so that
//! no other site can reach it through DNS rebinding.

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use zeroize::Zeroizing;

use crate::signin::LoopbackRedirect;

/// The most connections served at a time.
const MAX_CONNECTIONS: usize = 16;
/// The largest request head, in bytes; authorization codes are short.
const MAX_HEAD: usize = 16 * 1024;
/// The timeout for receiving a request head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// The timeout for writing the last response during shutdown.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

/// A listening callback server.
#[derive(Debug)]
pub struct CallbackServer {
    redirect: LoopbackRedirect,
    incoming: mpsc::Receiver<CallbackRequest>,
    /// Dropped to stop accepting.
    shutdown: Option<oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<()>,
}

/// A request to the redirect URI, waiting for its response.
#[derive(Debug)]
pub struct CallbackRequest {
    query: Zeroizing<String>,
    page: oneshot::Sender<Page>,
}

/// The page shown in the browser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// The sign-in succeeded.
    Done,
    /// The sign-in failed.
    Failed,
    /// The request does not belong to this sign-in.
    Unexpected,
}

impl CallbackServer {
    /// Listens at the address of `redirect`, on a free port if it has none.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn bind(redirect: LoopbackRedirect) -> io::Result<Self> {
        let listener = TcpListener::bind(redirect.address()).await?;
        let redirect = redirect.with_port(listener.local_addr()?.port());
        let (send, incoming) = mpsc::channel(MAX_CONNECTIONS);
        let (shutdown, stopped) = oneshot::channel();
        let task = tokio::spawn(serve(listener, redirect.clone(), send, stopped));
        Ok(Self {
            redirect,
            incoming,
            shutdown: Some(shutdown),
            task,
        })
    }

    /// The redirect URI, including the port.
    pub fn redirect(&self) -> &LoopbackRedirect {
        &self.redirect
    }

    /// The next request; `None` when the server has stopped.
    pub async fn next(&mut self) -> Option<CallbackRequest> {
        self.incoming.recv().await
    }

    /// Stops accepting, and waits briefly for responses in progress.
    pub async fn shutdown(mut self) {
        drop(self.shutdown.take());
        // Bounded, because idle connections would delay it.
        let _ = tokio::time::timeout(SHUTDOWN_TIMEOUT, &mut self.task).await;
        self.task.abort();
    }
}

impl CallbackRequest {
    /// The query string.
    pub fn query(&self) -> &str {
        &self.query
    }

    /// Sends the response.
    pub fn respond(self, page: Page) {
        // The browser may have disconnected.
        let _ = self.page.send(page);
    }
}

async fn serve(
    listener: TcpListener,
    redirect: LoopbackRedirect,
    incoming: mpsc::Sender<CallbackRequest>,
    mut stopped: oneshot::Receiver<()>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            accepted = listener.accept() => {
                // Accept errors concern only that connection (accept(2)).
                if let Ok((stream, _)) = accepted {
                    while connections.try_join_next().is_some() {}
                    if connections.len() < MAX_CONNECTIONS {
                        connections.spawn(serve_connection(stream, redirect.clone(), incoming.clone()));
                    }
                }
            }
        }
    }
    drop((listener, incoming));
    while connections.join_next().await.is_some() {}
}

async fn serve_connection(
    stream: TcpStream,
    redirect: LoopbackRedirect,
    incoming: mpsc::Sender<CallbackRequest>,
) {
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let (redirect, incoming) = (redirect.clone(), incoming.clone());
        async move { Ok::<_, Infallible>(handle(&request, &redirect, &incoming).await) }
    });
    // A broken connection needs no handling.
    let _ = hyper::server::conn::http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(MAX_HEAD)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn handle(
    request: &hyper::Request<Incoming>,
    redirect: &LoopbackRedirect,
    incoming: &mpsc::Sender<CallbackRequest>,
) -> Response<Full<Bytes>> {
    if !has_host(request.headers(), &redirect.host_header()) {
        return refused(StatusCode::MISDIRECTED_REQUEST);
    }
    if request.uri().path() != redirect.path() || request.uri().authority().is_some() {
        return refused(StatusCode::NOT_FOUND);
    }
    if request.method() != Method::GET {
        let mut response = refused(StatusCode::METHOD_NOT_ALLOWED);
        let allow = HeaderValue::from_static("GET");
        response.headers_mut().insert(header::ALLOW, allow);
        return response;
    }
    let (page, response) = oneshot::channel();
    let query = request.uri().query().unwrap_or_default();
    let callback = CallbackRequest {
        query: Zeroizing::new(query.to_owned()),
        page,
    };
    if incoming.send(callback).await.is_err() {
        return result_page(Page::Unexpected);
    }
    result_page(response.await.unwrap_or(Page::Failed))
}

/// Whether there is exactly one `Host` header and it has this value.
fn has_host(headers: &HeaderMap, host: &str) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    let matches = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(host.as_bytes());
    hosts.next().is_some_and(matches) && hosts.next().is_none()
}

fn refused(status: StatusCode) -> Response<Full<Bytes>> {
    page(
        status,
        "Not found",
        "hawkgate expects sign-in responses at another address.",
    )
}

fn result_page(which: Page) -> Response<Full<Bytes>> {
    match which {
        Page::Done => page(
            StatusCode::OK,
            "You are signed in",
            "hawkgate has received your tokens. You can close this window and return to the terminal.",
        ),
        Page::Failed => page(
            StatusCode::BAD_REQUEST,
            "The sign-in did not work",
            "The terminal that you started it from shows the reason. You can close this window.",
        ),
        Page::Unexpected => page(
            StatusCode::BAD_REQUEST,
            "Unexpected response",
            "This page does not belong to a sign-in in progress here. If you did not just start one, \
             another site may have sent you. You can close this window.",
        ),
    }
}

/// A static page that loads nothing, is not cached, and cannot be framed.
fn page(status: StatusCode, title: &str, text: &str) -> Response<Full<Bytes>> {
    let html = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
         <meta name=\"color-scheme\" content=\"light dark\"><title>{title}</title>\
         <h1>{title}</h1><p>{text}</p></html>\n"
    );
    let mut response = Response::new(Full::from(html));
    *response.status_mut() = status;
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::CONNECTION, "close"),
    ];
    for (name, value) in headers {
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
    }
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn bind() -> CallbackServer {
        let redirect = LoopbackRedirect::parse("http://127.0.0.1/callback").unwrap();
        CallbackServer::bind(redirect).await.unwrap()
    }

    async fn send(redirect: &LoopbackRedirect, request: &str) -> String {
        let mut stream = TcpStream::connect(redirect.address()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        response
    }

    #[tokio::test]
    async fn the_query_is_passed_on_and_the_page_shows_the_outcome() {
        for (page, status) in [
            (Page::Done, "200 OK"),
            (Page::Failed, "400 Bad Request"),
            (Page::Unexpected, "400 Bad Request"),
        ] {
            let mut server = bind().await;
            let redirect = server.redirect().clone();
            let request = format!(
                "GET /callback?code=x&state=y HTTP/1.1\r\nHost: {}\r\n\r\n",
                redirect.host_header()
            );
            let browser = tokio::spawn(async move { send(&redirect, &request).await });
            let callback = server.next().await.unwrap();
            assert_eq!(callback.query(), "code=x&state=y");
            callback.respond(page);
            server.shutdown().await;
            let response = browser.await.unwrap();
            assert!(
                response.starts_with(&format!("HTTP/1.1 {status}")),
                "{response}"
            );
            let lower = response.to_lowercase();
            for header in [
                "cache-control: no-store",
                "content-security-policy: default-src 'none'",
                "referrer-policy: no-referrer",
                "x-content-type-options: nosniff",
                "x-frame-options: deny",
            ] {
                assert!(lower.contains(header), "{header}: {response}");
            }
        }
    }

    #[tokio::test]
    async fn requests_with_another_host_path_or_method_are_rejected() {
        let mut server = bind().await;
        let redirect = server.redirect().clone();
        let host = redirect.host_header();
        let port = redirect.address().port();
        for (request, status) in [
            (
                "GET /callback?code=x HTTP/1.1\r\nHost: evil.example\r\n\r\n".to_owned(),
                421,
            ),
            (
                format!("GET /callback?code=x HTTP/1.1\r\nHost: evil.example:{port}\r\n\r\n"),
                421,
            ),
            (
                format!("GET /callback?code=x HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n"),
                421,
            ),
            (
                "GET /callback?code=x HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".to_owned(),
                421,
            ),
            (
                format!("GET /callback?code=x HTTP/1.1\r\nHost: {host}\r\nHost: {host}\r\n\r\n"),
                421,
            ),
            ("GET /callback?code=x HTTP/1.0\r\n\r\n".to_owned(), 421),
            (
                format!("GET /callback/?code=x HTTP/1.1\r\nHost: {host}\r\n\r\n"),
                404,
            ),
            (
                format!("GET /favicon.ico HTTP/1.1\r\nHost: {host}\r\n\r\n"),
                404,
            ),
            (
                format!("GET http://{host}/callback?code=x HTTP/1.1\r\nHost: {host}\r\n\r\n"),
                404,
            ),
            (
                format!(
                    "POST /callback?code=x HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n"
                ),
                405,
            ),
            (
                format!("HEAD /callback?code=x HTTP/1.1\r\nHost: {host}\r\n\r\n"),
                405,
            ),
            (
                format!(
                    "GET /callback?{} HTTP/1.1\r\nHost: {host}\r\n\r\n",
                    "x".repeat(20_000)
                ),
                431,
            ),
            ("nonsense\r\n\r\n".to_owned(), 400),
        ] {
            let response = send(&redirect, &request).await;
            assert!(
                response.starts_with(&format!("HTTP/1.1 {status}"))
                    || response.starts_with(&format!("HTTP/1.0 {status}")),
                "{request}: {response}"
            );
        }
        assert!(server.incoming.try_recv().is_err(), "nothing was passed on");
    }

    #[tokio::test]
    async fn a_silent_connection_does_not_block_others() {
        let mut server = bind().await;
        let redirect = server.redirect().clone();
        let _silent = TcpStream::connect(redirect.address()).await.unwrap();
        let request = format!(
            "GET /callback?a HTTP/1.1\r\nHost: {}\r\n\r\n",
            redirect.host_header()
        );
        let browser = tokio::spawn(async move { send(&redirect, &request).await });
        server.next().await.unwrap().respond(Page::Done);
        assert!(browser.await.unwrap().contains("signed in"));
    }
}
