//! Connections to upstreams through an outgoing proxy (`network.proxy_upstreams`): a tunnel, for http and
//! https alike (CONNECT, RFC 9110 §9.3.6), so that the upstream gets the request as it was signed.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};

use async_trait::async_trait;
use pingora::connectors::l4::Connect;
use pingora::protocols::Stream;
use pingora::protocols::l4::socket::SocketAddr as AnyAddress;
use pingora::protocols::l4::stream::Stream as L4Stream;
use pingora::protocols::l4::virt::{VirtualSockOpt, VirtualSocket, VirtualSocketStream};
use pingora::{Error, ErrorType};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use zeroize::Zeroizing;

use super::error::{ErrorKind, RelayError, Side};
use crate::gateway::route::Upstream;
use crate::network::ProxyEndpoint;

/// The longest answer to CONNECT, in bytes.
const MAX_HEAD: usize = 8 * 1024;
/// The most fields in it.
const MAX_FIELDS: usize = 100;

/// Asks `proxy`, which `stream` leads to, for a tunnel to `upstream`.
///
/// # Errors
/// If the proxy does not open one. Nothing was sent to the upstream then.
pub(super) async fn open_tunnel(
    mut stream: Stream,
    proxy: &ProxyEndpoint,
    upstream: &Upstream,
) -> Result<Stream, RelayError> {
    let failed = |problem: &str| explained(proxy, ErrorKind::ConnectFailed, problem);
    let lost = |_: io::Error| failed("closed the connection instead of answering CONNECT");
    let request = request(proxy, upstream);
    stream.write_all(request.as_bytes()).await.map_err(lost)?;
    stream.flush().await.map_err(lost)?;
    // Byte by byte, because what follows the head belongs to the tunnel.
    let mut head = Vec::with_capacity(256);
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= MAX_HEAD {
            return Err(failed("answered CONNECT with too long a head"));
        }
        head.push(stream.read_u8().await.map_err(lost)?);
    }
    match status(&head) {
        Some(200..=299) => Ok(stream),
        Some(407) => Err(failed(
            "requires valid credentials (407): check its user name and password",
        )),
        Some(status) => {
            let problem = format!("answered CONNECT with status {status}");
            Err(failed(&problem))
        }
        None => Err(failed("did not answer CONNECT in HTTP")),
    }
}

/// The error of a connection to `proxy` itself that could not be established.
pub(super) fn unreachable(proxy: &ProxyEndpoint, error: &RelayError) -> RelayError {
    let problem = match error.detail() {
        Some(cause) => format!("cannot be reached: {cause}"),
        None => "cannot be reached".to_owned(),
    };
    explained(proxy, error.kind, &problem)
}

/// The error for a proxy that does not answer in time.
pub(super) fn timed_out(proxy: &ProxyEndpoint) -> RelayError {
    let problem = "did not open a tunnel within the upstream's connect_timeout";
    explained(proxy, ErrorKind::ConnectTimeout, problem)
}

fn explained(proxy: &ProxyEndpoint, kind: ErrorKind, problem: &str) -> RelayError {
    let text = format!("the outgoing proxy {} {problem}", proxy.name);
    RelayError::explained(Side::Upstream, kind, text)
}

fn request(proxy: &ProxyEndpoint, upstream: &Upstream) -> Zeroizing<String> {
    let (host, port) = (&upstream.host, upstream.port);
    let authority = if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    };
    let authorization = match &proxy.authorization {
        Some(value) => Zeroizing::new(format!("Proxy-Authorization: {}\r\n", value.expose())),
        None => Zeroizing::default(),
    };
    Zeroizing::new(format!(
        "CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{}\r\n",
        *authorization
    ))
}

fn status(head: &[u8]) -> Option<u16> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    match response.parse(head) {
        Ok(httparse::Status::Complete(_)) => response.code,
        _ => None,
    }
}

/// Gives pingora a connection that is already open, for it to speak TLS on.
pub(super) struct Established(Mutex<Option<Stream>>);

impl Established {
    pub(super) fn new(stream: Stream) -> Self {
        Self(Mutex::new(Some(stream)))
    }
}

impl fmt::Debug for Established {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Established")
    }
}

#[async_trait]
impl Connect for Established {
    async fn connect(&self, _: &AnyAddress) -> pingora::Result<L4Stream> {
        let mut stream = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let stream = stream
            .take()
            .ok_or_else(|| Error::explain(ErrorType::InternalError, "the tunnel is in use"))?;
        let socket = Box::new(Tunnel(stream));
        Ok(VirtualSocketStream::new(socket).into())
    }
}

/// A tunnel, whose socket options were set when it was opened.
#[derive(Debug)]
struct Tunnel(Stream);

impl VirtualSocket for Tunnel {
    fn set_socket_option(&self, _: VirtualSockOpt) -> io::Result<()> {
        Ok(())
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;
    use crate::gateway::route::tests::upstream;
    use crate::secret::SecretString;

    fn proxy(authorization: Option<&str>) -> ProxyEndpoint {
        ProxyEndpoint {
            tls: false,
            host: "proxy.test".into(),
            port: 3128,
            authorization: authorization.map(SecretString::from),
            name: "http://proxy.test:3128".into(),
        }
    }

    /// Opens a tunnel to a proxy that answers with `answer` and closes. Returns what it received, and
    /// the first bytes in the tunnel or the error.
    async fn opened(proxy: &ProxyEndpoint, answer: &str) -> (String, Result<String, String>) {
        let (local, mut peer) = duplex(64 * 1024);
        let answer = answer.to_owned();
        let serving = tokio::spawn(async move {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(peer.read_u8().await.unwrap());
            }
            peer.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8(request).unwrap()
        });
        let result = match open_tunnel(Box::new(local), proxy, &upstream()).await {
            Ok(mut stream) => {
                let mut text = String::new();
                stream.read_to_string(&mut text).await.unwrap();
                Ok(text)
            }
            Err(error) => Err(error.describe()),
        };
        (serving.await.unwrap(), result)
    }

    #[tokio::test]
    async fn what_follows_the_head_belongs_to_the_tunnel() {
        let upstream = upstream();
        let authority = format!("{}:{}", upstream.host, upstream.port);
        let answer = "HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\nfirst";
        let (request, result) = opened(&proxy(None), answer).await;
        let expected = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n");
        assert_eq!((request, result), (expected, Ok("first".into())));
    }

    #[tokio::test]
    async fn credentials_are_sent_and_never_shown() {
        let proxy = proxy(Some("Basic aHVudGVyMg=="));
        let (request, result) = opened(&proxy, "HTTP/1.1 407 No\r\n\r\n").await;
        assert!(request.contains("\r\nProxy-Authorization: Basic aHVudGVyMg==\r\n"));
        let error = result.unwrap_err();
        assert!(error.contains("http://proxy.test:3128 requires valid credentials (407)"));
        assert!(!format!("{error} {proxy:?}").contains("aHVu"));
    }

    #[tokio::test]
    async fn a_proxy_that_opens_no_tunnel_is_named() {
        let long = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(MAX_HEAD));
        for (answer, expected) in [
            ("HTTP/1.1 403 hunter2\r\n\r\n", "status 403"),
            ("HTTP/1.0 502 x\r\n\r\n", "status 502"),
            ("HTTP/1.1 100 Continue\r\n\r\n", "status 100"),
            ("", "closed the connection"),
            ("HTTP/1.1 200 OK\r\n", "closed the connection"),
            ("SSH-2.0-hunter2\r\n\r\n", "did not answer CONNECT in HTTP"),
            (&long, "too long a head"),
        ] {
            let (_, result) = opened(&proxy(None), answer).await;
            let error = result.unwrap_err();
            assert!(error.contains("the outgoing proxy http://proxy.test:3128"));
            assert!(error.contains(expected), "{answer:?}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
