//! The end of a sign-in: the browser brings the issuer's answer to a port on this machine
//! (RFC 8252 §7.3, §8.3). It is a door for one visitor: GET of the exact path with the
//! right Host, so that no other site can reach it by a name of its own (DNS rebinding).

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

/// Visitors at a time.
const MAX_CONNECTIONS: usize = 16;
/// The largest head, in bytes: codes are short.
const MAX_HEAD: usize = 16 * 1024;
/// For a visitor to say what it wants.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// For the last page to be written.
const LAST_PAGE: Duration = Duration::from_secs(1);

/// An open door.
#[derive(Debug)]
pub struct CallbackServer {
    at: LoopbackRedirect,
    incoming: mpsc::Receiver<CallbackRequest>,
    /// Dropped to shut the door.
    open: Option<oneshot::Sender<()>>,
    served: tokio::task::JoinHandle<()>,
}

/// A visitor who waits for a page.
#[derive(Debug)]
pub struct CallbackRequest {
    query: Zeroizing<String>,
    page: oneshot::Sender<Page>,
}

/// What the person is told in the browser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// Signed in.
    Done,
    /// It came to nothing.
    Failed,
    /// Not what is waited for here.
    Unexpected,
}

impl CallbackServer {
    /// Opens the door at `at`; where that names no port, at a free one.
    ///
    /// # Errors
    /// When the port is taken.
    pub async fn open(at: LoopbackRedirect) -> io::Result<Self> {
        let listener = TcpListener::bind(at.address()).await?;
        let at = at.with_port(listener.local_addr()?.port());
        let (send, incoming) = mpsc::channel(MAX_CONNECTIONS);
        let (open, shut) = oneshot::channel();
        let served = tokio::spawn(serve(listener, at.clone(), send, shut));
        Ok(Self {
            at,
            incoming,
            open: Some(open),
            served,
        })
    }

    /// Where it is, port included.
    pub fn at(&self) -> &LoopbackRedirect {
        &self.at
    }

    /// The next visitor; `None` when the listener is gone.
    pub async fn next(&mut self) -> Option<CallbackRequest> {
        self.incoming.recv().await
    }

    /// Shuts the door once the pages under way are written.
    pub async fn shut(mut self) {
        drop(self.open.take());
        // A connection without a request is not waited for any longer than that.
        let _ = tokio::time::timeout(LAST_PAGE, &mut self.served).await;
        self.served.abort();
    }
}

impl CallbackRequest {
    /// What came after `?`.
    pub fn query(&self) -> &str {
        &self.query
    }

    /// Ends the visit.
    pub fn answer(self, page: Page) {
        // The visitor may be gone.
        let _ = self.page.send(page);
    }
}

async fn serve(
    listener: TcpListener,
    at: LoopbackRedirect,
    incoming: mpsc::Sender<CallbackRequest>,
    mut shut: oneshot::Receiver<()>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut shut => break,
            accepted = listener.accept() => {
                // An error to accept is of that connection alone (accept(2)).
                if let Ok((stream, _)) = accepted {
                    while connections.try_join_next().is_some() {}
                    if connections.len() < MAX_CONNECTIONS {
                        connections.spawn(connection(stream, at.clone(), incoming.clone()));
                    }
                }
            }
        }
    }
    drop((listener, incoming));
    while connections.join_next().await.is_some() {}
}

async fn connection(
    stream: TcpStream,
    at: LoopbackRedirect,
    incoming: mpsc::Sender<CallbackRequest>,
) {
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let (at, incoming) = (at.clone(), incoming.clone());
        async move { Ok::<_, Infallible>(visit(&request, &at, &incoming).await) }
    });
    // Nobody here can do anything about a broken connection.
    let _ = hyper::server::conn::http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(MAX_HEAD)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn visit(
    request: &hyper::Request<Incoming>,
    at: &LoopbackRedirect,
    incoming: &mpsc::Sender<CallbackRequest>,
) -> Response<Full<Bytes>> {
    if !has_host(request.headers(), &at.host_header()) {
        return refused(StatusCode::MISDIRECTED_REQUEST);
    }
    if request.uri().path() != at.path() || request.uri().authority().is_some() {
        return refused(StatusCode::NOT_FOUND);
    }
    if request.method() != Method::GET {
        let mut response = refused(StatusCode::METHOD_NOT_ALLOWED);
        let allow = HeaderValue::from_static("GET");
        response.headers_mut().insert(header::ALLOW, allow);
        return response;
    }
    let (page, answered) = oneshot::channel();
    let query = request.uri().query().unwrap_or_default();
    let callback = CallbackRequest {
        query: Zeroizing::new(query.to_owned()),
        page,
    };
    if incoming.send(callback).await.is_err() {
        return shown(Page::Unexpected);
    }
    shown(answered.await.unwrap_or(Page::Failed))
}

/// Exactly one `Host`, and it is ours.
fn has_host(headers: &HeaderMap, host: &str) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    let ours = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(host.as_bytes());
    hosts.next().is_some_and(ours) && hosts.next().is_none()
}

fn refused(status: StatusCode) -> Response<Full<Bytes>> {
    page(
        status,
        "Nothing here",
        "hawkgate waits for another answer than this.",
    )
}

fn shown(which: Page) -> Response<Full<Bytes>> {
    match which {
        Page::Done => page(
            StatusCode::OK,
            "You are signed in",
            "hawkgate has its tokens. You can close this window and go back to the terminal.",
        ),
        Page::Failed => page(
            StatusCode::BAD_REQUEST,
            "The sign-in did not work",
            "The terminal in which it was begun says why. You can close this window.",
        ),
        Page::Unexpected => page(
            StatusCode::BAD_REQUEST,
            "Not the answer that is waited for",
            "This page belongs to no sign-in that is under way here; if you did not just begin one, \
             somebody else sent you. You can close this window.",
        ),
    }
}

/// A page of fixed texts that loads nothing, is kept nowhere and shown in no frame.
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

    async fn open() -> CallbackServer {
        let at = LoopbackRedirect::parse("http://127.0.0.1/callback").unwrap();
        CallbackServer::open(at).await.unwrap()
    }

    async fn say(at: &LoopbackRedirect, request: &str) -> String {
        let mut stream = TcpStream::connect(at.address()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn the_answer_is_handed_on_and_the_page_says_how_it_went() {
        for (page, said) in [
            (Page::Done, "200 OK"),
            (Page::Failed, "400 Bad Request"),
            (Page::Unexpected, "400 Bad Request"),
        ] {
            let mut callbacks = open().await;
            let at = callbacks.at().clone();
            let request = format!(
                "GET /callback?code=x&state=y HTTP/1.1\r\nHost: {}\r\n\r\n",
                at.host_header()
            );
            let browser = tokio::spawn(async move { say(&at, &request).await });
            let callback = callbacks.next().await.unwrap();
            assert_eq!(callback.query(), "code=x&state=y");
            callback.answer(page);
            callbacks.shut().await;
            let answer = browser.await.unwrap();
            assert!(answer.starts_with(&format!("HTTP/1.1 {said}")), "{answer}");
            let lower = answer.to_lowercase();
            for header in [
                "cache-control: no-store",
                "content-security-policy: default-src 'none'",
                "referrer-policy: no-referrer",
                "x-content-type-options: nosniff",
                "x-frame-options: deny",
            ] {
                assert!(lower.contains(header), "{header}: {answer}");
            }
        }
    }

    #[tokio::test]
    async fn other_visitors_are_turned_away() {
        let mut callbacks = open().await;
        let at = callbacks.at().clone();
        let host = at.host_header();
        let port = at.address().port();
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
            let answer = say(&at, &request).await;
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status}"))
                    || answer.starts_with(&format!("HTTP/1.0 {status}")),
                "{request}: {answer}"
            );
        }
        assert!(
            callbacks.incoming.try_recv().is_err(),
            "nothing was handed on"
        );
    }

    #[tokio::test]
    async fn a_silent_visitor_keeps_nobody_out() {
        let mut callbacks = open().await;
        let at = callbacks.at().clone();
        let _silent = TcpStream::connect(at.address()).await.unwrap();
        let request = format!(
            "GET /callback?a HTTP/1.1\r\nHost: {}\r\n\r\n",
            at.host_header()
        );
        let browser = tokio::spawn(async move { say(&at, &request).await });
        callbacks.next().await.unwrap().answer(Page::Done);
        assert!(browser.await.unwrap().contains("signed in"));
    }
}
