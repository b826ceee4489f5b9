//! With a real upstream behind: that pingora and our connections get on.

use tokio::net::TcpListener;

use super::*;

/// Sends everything to one address.
struct Forward {
    upstream: SocketAddr,
    ended: mpsc::UnboundedSender<bool>,
}

#[async_trait]
impl ProxyHttp for Forward {
    type CTX = ();

    fn new_ctx(&self) -> Self::CTX {}

    async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> pingora::Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.upstream, false, String::new())))
    }

    async fn logging(&self, _: &mut Session, error: Option<&pingora::Error>, (): &mut ()) {
        let _ = self.ended.send(error.is_some());
    }
}

struct Pair {
    upstream: TcpListener,
    address: SocketAddr,
    ended: mpsc::UnboundedReceiver<bool>,
    _serving: Serving,
}

impl Pair {
    async fn start() -> Self {
        let upstream = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let (ended, endings) = mpsc::unbounded_channel();
        let forward = Forward {
            upstream: upstream.local_addr().unwrap(),
            ended,
        };
        let bound = Bound::bind(&[tcp()], &limits()).await.unwrap();
        let Address::Tcp(address) = bound.addresses()[0] else {
            panic!("no TCP listener")
        };
        let serving = bound.serve(
            vec![http_proxy(
                forward,
                &limits(),
                Arc::new(ServerConf::default()),
            )],
            ManualClock::at(UnixMillis::from_secs(0)),
            Arc::new(|_| {}),
            Workers::Ambient,
        );
        Self {
            upstream,
            address,
            ended: endings,
            _serving: serving,
        }
    }

    async fn caller(&self, bytes: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream
    }

    async fn accept(&self) -> TcpStream {
        in_time(self.upstream.accept()).await.unwrap().0
    }
}

/// Reads up to and with `end`.
async fn until(stream: &mut TcpStream, end: &[u8]) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(end) {
        bytes.push(in_time(stream.read_u8()).await.unwrap());
    }
    String::from_utf8(bytes).unwrap()
}

const GET: &[u8] = b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n";

#[tokio::test]
async fn a_head_comes_before_its_body_and_each_part_at_once() {
    let pair = Pair::start().await;
    for framing in ["Content-Length: 6", "Transfer-Encoding: chunked"] {
        let mut caller = pair.caller(GET).await;
        let mut upstream = pair.accept().await;
        until(&mut upstream, b"\r\n\r\n").await;
        let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\n{framing}\r\n\r\n");
        upstream.write_all(head.as_bytes()).await.unwrap();
        until(&mut caller, b"\r\n\r\n").await;
        let chunked = framing.contains("chunked");
        for (plain, chunk) in [("abc", "3\r\nabc\r\n"), ("def", "3\r\ndef\r\n0\r\n\r\n")] {
            let part = if chunked { chunk } else { plain };
            upstream.write_all(part.as_bytes()).await.unwrap();
            until(&mut caller, plain.as_bytes()).await;
        }
    }
}

#[tokio::test]
async fn what_comes_during_a_request_waits_for_its_turn() {
    let pair = Pair::start().await;
    let mut caller = pair.caller(GET).await;
    let mut upstream = pair.accept().await;
    until(&mut upstream, b"\r\n\r\n").await;
    caller
        .write_all(b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    for n in [1, 2] {
        if n == 2 {
            let head = until(&mut upstream, b"\r\n\r\n").await;
            assert!(head.starts_with("GET /2 "), "{head}");
        }
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{n}");
        upstream.write_all(answer.as_bytes()).await.unwrap();
        assert_eq!(reply(&mut caller).await.body, n.to_string());
    }
}

#[tokio::test]
async fn a_caller_who_leaves_leaves_nothing_behind() {
    let mut pair = Pair::start().await;
    let caller = pair.caller(GET).await;
    let mut upstream = pair.accept().await;
    until(&mut upstream, b"\r\n\r\n").await;
    drop(caller);
    assert_eq!(in_time(pair.ended.recv()).await, Some(true));
    assert!(in_time(upstream.read_u8()).await.is_err());
}

#[tokio::test]
async fn a_websocket_is_a_tunnel() {
    let pair = Pair::start().await;
    let mut caller = pair
        .caller(b"GET /w HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        .await;
    let mut upstream = pair.accept().await;
    until(&mut upstream, b"\r\n\r\n").await;
    upstream
        .write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nserver first")
        .await
        .unwrap();
    until(&mut caller, b"server first").await;
    caller.write_all(b"GET / not HTTP").await.unwrap();
    until(&mut upstream, b"GET / not HTTP").await;
    upstream.write_all(b"more").await.unwrap();
    until(&mut caller, b"more").await;
    drop(upstream);
    assert!(in_time(caller.read_u8()).await.is_err());
}

#[tokio::test]
async fn large_bodies_pass_both_ways_and_the_connection_stays() {
    const LENGTH: usize = 3_000_000;
    let pair = Pair::start().await;
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
    let mut caller = TcpStream::connect(pair.address).await.unwrap();
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
            tokio::join!(write, reply(&mut reading)).1
        };
        let answering = async {
            let mut upstream = pair.accept().await;
            until(&mut upstream, b"\r\n\r\n").await;
            let end: &[u8] = if sent.len() == LENGTH {
                &body[LENGTH - 9..]
            } else {
                b"0\r\n\r\n"
            };
            let mut got = Vec::new();
            while got.len() < LENGTH || !got.ends_with(end) {
                assert!(in_time(upstream.read_buf(&mut got)).await.unwrap() > 0);
            }
            let head = format!("HTTP/1.1 200 OK\r\n{length}\r\nConnection: close\r\n\r\n");
            upstream.write_all(head.as_bytes()).await.unwrap();
            upstream.write_all(&body).await.unwrap();
        };
        let (reply, ()) = tokio::join!(calling, answering);
        assert_eq!(reply.status, 200);
        assert!(reply.body.as_bytes() == body, "changed on the way");
    }
}
