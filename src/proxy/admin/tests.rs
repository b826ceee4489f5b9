use std::sync::Mutex;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::clock::{ManualClock, UnixMillis};
use crate::gateway::resource_isolation::IsolationPolicy;
use crate::proxy::server::{ServerHandle, Workers};

#[derive(Default)]
struct Pages {
    unready: Mutex<Option<String>>,
}

impl AdminPages for Pages {
    fn metrics(&self, _accept: &str) -> (String, String) {
        ("text/plain; version=0.0.4".into(), "a 1\n".into())
    }
    fn ready(&self) -> Result<(), String> {
        self.unready.lock().unwrap().clone().map_or(Ok(()), Err)
    }
    fn started(&self) -> Result<(), String> {
        Err("issuer a: no keys yet\nissuer b: no keys yet".into())
    }
    fn check_sender(&self, head: Head<'_>) -> Result<(), Rejection> {
        IsolationPolicy::default().check(head)
    }
    fn put_credentials(&self, source: Option<&str>, body: &[u8]) -> PutCredentials {
        match (source, body) {
            (Some("static"), b"good") => PutCredentials::Accepted,
            (Some("static"), _) => PutCredentials::Rejected("no good".into()),
            _ => PutCredentials::NoSource,
        }
    }
}

async fn start(pages: Arc<Pages>) -> (std::net::SocketAddr, ServerHandle) {
    let any = Address::Tcp(([127, 0, 0, 1], 0).into());
    let bound = bind(&any, &mut InheritedSockets::default()).await.unwrap();
    let Address::Tcp(address) = bound.addresses()[0] else {
        panic!("not TCP")
    };
    let clock = ManualClock::at(UnixMillis::from_secs(0));
    let app = Admin::new(pages, &any, clock.clone());
    let handle = bound.serve(app, clock, Arc::new(|_| {}), Workers::CurrentRuntime);
    (address, handle)
}

/// The responses to `requests`, which are pipelined; the last one closes the connection.
async fn get_all(address: std::net::SocketAddr, requests: &[&str]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let (last, rest) = requests.split_last().unwrap();
    let mut bytes = String::new();
    for line in rest {
        bytes.push_str(line);
        bytes.push_str(" HTTP/1.1\r\nHost: localhost\r\n\r\n");
    }
    bytes.push_str(last);
    bytes.push_str(" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn each_admin_page_responds() {
    let pages = Arc::new(Pages::default());
    let (address, _handle) = start(pages.clone()).await;
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
        let text = get_all(address, &[request]).await;
        assert!(
            text.starts_with(&format!("HTTP/1.1 {status} ")),
            "{request}: {text}"
        );
        assert!(text.ends_with(rest), "{request}: {text}");
    }
    *pages.unready.lock().unwrap() = Some("draining".into());
    let text = get_all(address, &["GET /readyz"]).await;
    assert!(text.starts_with("HTTP/1.1 503 ") && text.ends_with("\r\n\r\ndraining\n"));
    let metrics = get_all(address, &["GET /metrics"])
        .await
        .to_ascii_lowercase();
    assert!(metrics.contains("content-type: text/plain; version=0.0.4\r\n"));
}

#[tokio::test]
async fn admin_connections_are_kept_alive() {
    let (address, _handle) = start(Arc::default()).await;
    let text = get_all(address, &["GET /healthz", "HEAD /readyz", "GET /metrics"]).await;
    assert_eq!(text.matches("HTTP/1.1 200").count(), 3);
    assert!(text.ends_with("a 1\n"));
}

/// HAProxy's default health check.
#[tokio::test]
async fn probes_in_http10_need_no_host() {
    let (address, _handle) = start(Arc::default()).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(b"GET /readyz HTTP/1.0\r\n\r\n")
        .await
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
    let lower = text.to_ascii_lowercase();
    assert!(
        lower.contains("\r\nconnection: close\r\n") && lower.contains("\r\ndate: "),
        "{text}"
    );
}

/// Status and text of the response to a request with a body.
async fn put(address: std::net::SocketAddr, head: &str, body: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "{head}\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // The response may come before the whole body has been sent.
    let _ = stream.write_all(body).await;
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text).await;
    (text[9..12].parse().unwrap(), text)
}

#[tokio::test]
async fn credentials_can_be_put_if_a_source_accepts_them() {
    let (address, _handle) = start(Arc::default()).await;
    let large = vec![b'x'; super::put_credentials::MAX_BODY + 1];
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
        let (actual, text) = put(address, head, body).await;
        assert_eq!(actual, status, "{head}: {text}");
    }
    let (_, text) = put(address, "GET /credentials/static HTTP/1.1", b"").await;
    assert!(
        text.to_ascii_lowercase().contains("allow: put\r\n"),
        "{text}"
    );
    let (_, text) = put(address, "PUT /credentials/static HTTP/1.1", b"bad").await;
    assert!(text.ends_with("\r\n\r\nno good\n"), "{text}");
}
