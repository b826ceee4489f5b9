//! Test clients: HTTP/1 written by hand, for full control of framing and `Expect`, and HTTP/2.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;

const PIECE: usize = 16 * 1024;

#[derive(Clone, Debug, Default)]
pub(super) struct TestRequest {
    pub(super) method: &'static str,
    pub(super) target: &'static str,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Option<Bytes>,
    pub(super) chunked: bool,
    pub(super) expect: bool,
}

impl TestRequest {
    pub(super) fn get(target: &'static str) -> Self {
        Self {
            method: "GET",
            target,
            ..Self::default()
        }
    }

    pub(super) fn post(body: Bytes) -> Self {
        Self {
            method: "POST",
            target: "/api/x",
            body: Some(body),
            ..Self::default()
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct TestResponse {
    pub(super) status: u16,
    pub(super) headers: http::HeaderMap,
    pub(super) body: String,
    /// The number of 100 Continue responses before it.
    pub(super) continues: usize,
}

type Body = StreamBody<
    futures::stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, std::convert::Infallible>>>,
>;

pub(super) enum TestClient {
    H1(BufReader<OwnedReadHalf>, OwnedWriteHalf),
    H2(SendRequest<Body>),
}

impl TestClient {
    pub(super) async fn connect(address: SocketAddr, http2: bool) -> Self {
        let tcp = TcpStream::connect(address).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        if !http2 {
            let (read, write) = tcp.into_split();
            return Self::H1(BufReader::new(read), write);
        }
        let io = TokioIo::new(tcp);
        let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
            .await
            .unwrap();
        tokio::spawn(connection);
        Self::H2(sender)
    }

    pub(super) async fn send(&mut self, send: &TestRequest) -> TestResponse {
        match self {
            Self::H1(read, write) => {
                let (go, go_rx) = watch::channel(!send.expect);
                let (response, ()) =
                    tokio::join!(receive(read, send.method, go), transmit(write, send, go_rx));
                response
            }
            Self::H2(sender) => send_h2(sender, send).await,
        }
    }
}

fn head(send: &TestRequest) -> String {
    let mut lines = vec![
        format!("{} {} HTTP/1.1", send.method, send.target),
        "Host: any".to_owned(),
    ];
    for (name, value) in &send.headers {
        lines.push(format!("{name}: {value}"));
    }
    if let Some(body) = &send.body {
        lines.push(format!("x-length: {}", body.len()));
        if send.chunked {
            lines.push("Transfer-Encoding: chunked".to_owned());
        } else {
            lines.push(format!("Content-Length: {}", body.len()));
        }
    }
    if send.expect {
        lines.push("Expect: 100-continue".to_owned());
    }
    lines.join("\r\n") + "\r\n\r\n"
}

async fn transmit(write: &mut OwnedWriteHalf, send: &TestRequest, mut go: watch::Receiver<bool>) {
    write.write_all(head(send).as_bytes()).await.unwrap();
    let Some(body) = &send.body else { return };
    // Dropped without a value: the final response has arrived, and the body is not needed.
    if go.wait_for(|go| *go).await.is_err() {
        return;
    }
    for piece in body.chunks(PIECE) {
        let written = if send.chunked {
            let framed = [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat();
            write.write_all(&framed).await
        } else {
            write.write_all(piece).await
        };
        // The server may have closed after its response.
        if written.is_err() {
            return;
        }
    }
    if send.chunked {
        let _ = write.write_all(b"0\r\n\r\n").await;
    }
}

pub(super) async fn receive(
    read: &mut BufReader<OwnedReadHalf>,
    method: &str,
    go: watch::Sender<bool>,
) -> TestResponse {
    let mut continues = 0;
    loop {
        let (status, headers) = read_head(read).await;
        if status == 100 {
            continues += 1;
            let _ = go.send(true);
            continue;
        }
        let bodiless = method == "HEAD" || matches!(status, 101 | 204 | 304);
        let body = if bodiless {
            String::new()
        } else {
            read_body(read, &headers).await
        };
        return TestResponse {
            status,
            headers,
            body,
            continues,
        };
    }
}

async fn line(read: &mut BufReader<OwnedReadHalf>) -> String {
    let mut line = String::new();
    read.read_line(&mut line).await.unwrap();
    assert!(line.ends_with("\r\n"), "connection ended in {line:?}");
    line.trim_end().to_owned()
}

async fn read_head(read: &mut BufReader<OwnedReadHalf>) -> (u16, http::HeaderMap) {
    let status = line(read).await.split(' ').nth(1).unwrap().parse().unwrap();
    let mut headers = http::HeaderMap::new();
    loop {
        let line = line(read).await;
        let Some((name, value)) = line.split_once(": ") else {
            return (status, headers);
        };
        let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
        headers.append(name, value.parse().unwrap());
    }
}

async fn read_body(read: &mut BufReader<OwnedReadHalf>, headers: &http::HeaderMap) -> String {
    let mut body = Vec::new();
    if let Some(length) = headers.get("content-length") {
        body.resize(length.to_str().unwrap().parse().unwrap(), 0);
        read.read_exact(&mut body).await.unwrap();
    } else if headers.contains_key("transfer-encoding") {
        loop {
            let size = usize::from_str_radix(&line(read).await, 16).unwrap();
            let start = body.len();
            body.resize(start + size, 0);
            read.read_exact(&mut body[start..]).await.unwrap();
            line(read).await;
            if size == 0 {
                break;
            }
        }
    }
    String::from_utf8(body).unwrap()
}

async fn send_h2(sender: &mut SendRequest<Body>, send: &TestRequest) -> TestResponse {
    let mut request = hyper::Request::builder()
        .method(send.method)
        .uri(format!("http://any{}", send.target));
    for (name, value) in &send.headers {
        request = request.header(*name, value);
    }
    let mut frames = Vec::new();
    if let Some(body) = &send.body {
        request = request.header("x-length", body.len());
        if !send.chunked {
            request = request.header("content-length", body.len());
        }
        if send.expect {
            request = request.header("expect", "100-continue");
        }
        let mut rest = body.clone();
        while !rest.is_empty() {
            frames.push(Ok(Frame::data(rest.split_to(PIECE.min(rest.len())))));
        }
    }
    let body = StreamBody::new(futures::stream::iter(frames));
    sender.ready().await.unwrap();
    let response = sender
        .send_request(request.body(body).unwrap())
        .await
        .unwrap();
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    TestResponse {
        status: head.status.as_u16(),
        headers: head.headers,
        body: String::from_utf8(body.to_vec()).unwrap(),
        continues: 0,
    }
}
