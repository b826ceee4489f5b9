//! Trailers in both directions, and `TE: trailers`.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::failures::raw_upstream;
use super::support::TestProxy;

/// What an upstream received: its head, its content, and its trailers.
type Received = (HeaderMap, Vec<u8>, Option<HeaderMap>);

/// Starts an HTTP/2 upstream that responds to each request with content and trailers.
async fn upstream() -> (std::net::SocketAddr, mpsc::UnboundedReceiver<Received>) {
    let (tx, received) = mpsc::unbounded_channel();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let tx = tx.clone();
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(tcp).await.unwrap();
                while let Some(Ok((request, respond))) = connection.accept().await {
                    tokio::spawn(respond_with_trailers(request, respond, tx.clone()));
                }
            });
        }
    });
    (address, received)
}

async fn respond_with_trailers(
    request: Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    tx: mpsc::UnboundedSender<Received>,
) {
    let (head, mut body) = request.into_parts();
    let mut content = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        content.extend_from_slice(&data);
        let _ = body.flow_control().release_capacity(data.len());
    }
    let trailers = body.trailers().await.unwrap();
    let credential = head.headers["authorization"].clone();
    tx.send((head.headers, content, trailers)).unwrap();
    let mut stream = respond.send_response(Response::new(()), false).unwrap();
    stream.send_data("answer".into(), false).unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    trailers.insert("x-hawkgate-error", HeaderValue::from_static("internal"));
    trailers.insert("x-echo", credential);
    trailers.insert("x_removed", HeaderValue::from_static("1"));
    trailers.insert("x-added", HeaderValue::from_static("1"));
    stream.send_trailers(trailers).unwrap();
}

fn request_trailers() -> HeaderMap {
    let mut trailers = HeaderMap::new();
    for name in [
        "x-checksum",
        "authorization",
        "x-forwarded-for",
        "x-hawkgate-subject",
        "x-otp",
        "connection",
        "content-length",
        "host",
    ] {
        trailers.insert(name, HeaderValue::from_static("1"));
    }
    // h2 refuses to send what RFC 9113 §8.2.2 forbids.
    trailers.remove("connection");
    trailers
}

async fn exchange(proxy: &TestProxy, with_body: bool) -> (Vec<u8>, Option<HeaderMap>) {
    let tcp = TcpStream::connect(proxy.h2c).await.unwrap();
    let (client, connection) = h2::client::handshake(tcp).await.unwrap();
    tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    let request = Request::post("http://any/api/x").header("te", "trailers");
    let request = request.body(()).unwrap();
    let (response, mut stream) = client.send_request(request, false).unwrap();
    if with_body {
        stream.send_data("question".into(), false).unwrap();
    }
    stream.send_trailers(request_trailers()).unwrap();
    let mut body = response.await.unwrap().into_body();
    let mut content = Vec::new();
    while let Some(data) = body.data().await {
        content.extend_from_slice(&data.unwrap());
    }
    (content, body.trailers().await.unwrap())
}

#[tokio::test]
async fn trailers_pass_in_both_directions_and_are_sanitized() {
    let (address, mut received) = upstream().await;
    let mut proxy = TestProxy::with(|o| {
        o.http2 = true;
        o.addresses = Some(vec![address]);
        o.response_headers.remove = vec![HeaderName::from_static("x-removed")];
        let added = HeaderName::from_static("x-added");
        o.response_headers.add = vec![(added, HeaderValue::from_static("2"))];
    })
    .await;
    for with_body in [true, false] {
        let (content, trailers) = exchange(&proxy, with_body).await;
        assert_eq!(content, b"answer");
        let trailers = trailers.expect("the response has trailers");
        assert_eq!(trailers["grpc-status"], "0");
        assert_eq!(trailers.len(), 1, "{trailers:?}");
        let (head, content, trailers) = received.recv().await.unwrap();
        assert_eq!(head["te"], "trailers");
        let sent: &[u8] = if with_body { b"question" } else { b"" };
        assert_eq!(content, sent);
        let trailers = trailers.expect("the request has trailers");
        assert_eq!(trailers["x-checksum"], "1");
        assert_eq!(trailers.len(), 1, "{trailers:?}");
        let outcome = proxy.outcome().await;
        assert_eq!((outcome.received, outcome.sent), (sent.len() as u64, 6));
    }
}

#[tokio::test]
async fn an_http1_upstream_receives_neither_te_nor_trailers() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let (tx, mut received) = mpsc::unbounded_channel();
    let address = raw_upstream(move |_, mut tcp| {
        let tx = tx.clone();
        async move {
            let mut all = Vec::new();
            while !all.ends_with(b"0\r\n\r\n") {
                assert!(tcp.read_buf(&mut all).await.unwrap() > 0);
            }
            tx.send(String::from_utf8(all).unwrap()).unwrap();
            let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nanswer\r\n0\r\nX-Sum: 1\r\n\r\n";
            tcp.write_all(answer).await.unwrap();
        }
    })
    .await;
    let proxy = TestProxy::with(|o| o.addresses = Some(vec![address])).await;
    let (content, trailers) = exchange(&proxy, true).await;
    assert_eq!((&content[..], trailers), (&b"answer"[..], None));
    let received = received.recv().await.unwrap().to_lowercase();
    assert!(!received.contains("\r\nte:"), "{received}");
    assert!(!received.contains("x-checksum"), "{received}");
}
