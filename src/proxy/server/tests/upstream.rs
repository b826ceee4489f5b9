//! Tests of our connections with pingora and an upstream.

use tokio::net::TcpListener;

use super::*;

/// Forwards every request to one address.
struct ForwardAll {
    upstream: SocketAddr,
    ended: mpsc::UnboundedSender<bool>,
}

#[async_trait]
impl ProxyHttp for ForwardAll {
    type CTX = ();

    fn new_ctx(&self) -> Self::CTX {}

    async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> pingora::Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.upstream, false, String::new())))
    }

    async fn logging(&self, _: &mut Session, error: Option<&pingora::Error>, (): &mut ()) {
        let _ = self.ended.send(error.is_some());
    }
}

struct ForwardingServer {
    upstream: TcpListener,
    address: SocketAddr,
    ended: mpsc::UnboundedReceiver<bool>,
    _handle: ServerHandle,
}

impl ForwardingServer {
    async fn start() -> Self {
        let upstream = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let (ended, ended_rx) = mpsc::unbounded_channel();
        let forward_all = ForwardAll {
            upstream: upstream.local_addr().unwrap(),
            ended,
        };
        let listeners = BoundServer::bind(&[tcp()], &limits()).await.unwrap();
        let Address::Tcp(address) = listeners.addresses()[0] else {
            panic!("no TCP listener")
        };
        let handle = listeners.serve(
            vec![http_proxy(
                forward_all,
                &limits(),
                Arc::new(ServerConf::default()),
            )],
            ManualClock::at(UnixMillis::from_secs(0)),
            Arc::new(|_| {}),
            Workers::CurrentRuntime,
        );
        Self {
            upstream,
            address,
            ended: ended_rx,
            _handle: handle,
        }
    }

    async fn caller(&self, bytes: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream
    }

    async fn accept(&self) -> TcpStream {
        within_timeout(self.upstream.accept()).await.unwrap().0
    }
}

/// Reads up to and including `end`.
async fn read_until(stream: &mut TcpStream, end: &[u8]) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(end) {
        bytes.push(within_timeout(stream.read_u8()).await.unwrap());
    }
    String::from_utf8(bytes).unwrap()
}

const GET: &[u8] = b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n";

#[tokio::test]
async fn response_heads_and_body_parts_are_forwarded_at_once() {
    let proxy = ForwardingServer::start().await;
    for framing in ["Content-Length: 6", "Transfer-Encoding: chunked"] {
        let mut caller = proxy.caller(GET).await;
        let mut upstream = proxy.accept().await;
        read_until(&mut upstream, b"\r\n\r\n").await;
        let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\n{framing}\r\n\r\n");
        upstream.write_all(head.as_bytes()).await.unwrap();
        read_until(&mut caller, b"\r\n\r\n").await;
        let chunked = framing.contains("chunked");
        for (plain, chunk) in [("abc", "3\r\nabc\r\n"), ("def", "3\r\ndef\r\n0\r\n\r\n")] {
            let part = if chunked { chunk } else { plain };
            upstream.write_all(part.as_bytes()).await.unwrap();
            read_until(&mut caller, plain.as_bytes()).await;
        }
    }
}

#[tokio::test]
async fn a_pipelined_request_waits_for_the_previous_response() {
    let proxy = ForwardingServer::start().await;
    let mut caller = proxy.caller(GET).await;
    let mut upstream = proxy.accept().await;
    read_until(&mut upstream, b"\r\n\r\n").await;
    caller
        .write_all(b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    for n in [1, 2] {
        if n == 2 {
            let head = read_until(&mut upstream, b"\r\n\r\n").await;
            assert!(head.starts_with("GET /2 "), "{head}");
        }
        let response = format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{n}");
        upstream.write_all(response.as_bytes()).await.unwrap();
        assert_eq!(read_response(&mut caller).await.body, n.to_string());
    }
}

#[tokio::test]
async fn a_disconnecting_caller_ends_the_upstream_request() {
    let mut proxy = ForwardingServer::start().await;
    let caller = proxy.caller(GET).await;
    let mut upstream = proxy.accept().await;
    read_until(&mut upstream, b"\r\n\r\n").await;
    drop(caller);
    assert_eq!(within_timeout(proxy.ended.recv()).await, Some(true));
    assert!(within_timeout(upstream.read_u8()).await.is_err());
}

#[tokio::test]
async fn websocket_bytes_are_tunnelled() {
    let proxy = ForwardingServer::start().await;
    let mut caller = proxy
        .caller(b"GET /w HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        .await;
    let mut upstream = proxy.accept().await;
    read_until(&mut upstream, b"\r\n\r\n").await;
    upstream
        .write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nserver first")
        .await
        .unwrap();
    read_until(&mut caller, b"server first").await;
    caller.write_all(b"GET / not HTTP").await.unwrap();
    read_until(&mut upstream, b"GET / not HTTP").await;
    upstream.write_all(b"more").await.unwrap();
    read_until(&mut caller, b"more").await;
    drop(upstream);
    assert!(within_timeout(caller.read_u8()).await.is_err());
}

#[tokio::test]
async fn large_bodies_pass_both_ways_on_one_connection() {
    const LENGTH: usize = 3_000_000;
    let proxy = ForwardingServer::start().await;
    let body: Vec<u8> = (0..LENGTH)
        .map(|n| b'a' + u8::try_from(n % 23).unwrap())
        .collect();
    let mut chunks = Vec::new();
    for chunk in body.chunks(70_001) {
        chunks.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        chunks.extend_from_slice(chunk);
        chunks.extend_from_slice(b"\r\n");
    }
    chunks.extend_from_slice(b"0\r\n\r\n");
    let length = format!("Content-Length: {LENGTH}");
    let mut caller = TcpStream::connect(proxy.address).await.unwrap();
    for (framing, sent) in [
        (length.as_str(), &body),
        ("Transfer-Encoding: chunked", &chunks),
    ] {
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n");
        let calling = async {
            let (mut reading, mut writing) = caller.split();
            let write = async {
                writing.write_all(head.as_bytes()).await.unwrap();
                writing.write_all(sent).await.unwrap();
            };
            tokio::join!(write, read_response(&mut reading)).1
        };
        let answering = async {
            let mut upstream = proxy.accept().await;
            read_until(&mut upstream, b"\r\n\r\n").await;
            let end: &[u8] = if sent.len() == LENGTH {
                &body[LENGTH - 9..]
            } else {
                b"0\r\n\r\n"
            };
            let mut got = Vec::new();
            while got.len() < LENGTH || !got.ends_with(end) {
                assert!(within_timeout(upstream.read_buf(&mut got)).await.unwrap() > 0);
            }
            let head = format!("HTTP/1.1 200 OK\r\n{length}\r\nConnection: close\r\n\r\n");
            upstream.write_all(head.as_bytes()).await.unwrap();
            upstream.write_all(&body).await.unwrap();
        };
        let (response, ()) = tokio::join!(calling, answering);
        assert_eq!(response.status, 200);
        assert!(response.body.as_bytes() == body, "changed on the way");
    }
}
