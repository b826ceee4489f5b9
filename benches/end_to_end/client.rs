//! Connections to a proxy: plain, over TLS, and HTTP/2.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Method, Request};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::http1::Field;

/// The window of a connection and its streams that never delays an answer.
const WINDOW: u32 = 1 << 24;

/// Opens a plain connection.
pub(crate) async fn plain(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).await.expect("a connection");
    stream.set_nodelay(true).expect("nodelay");
    stream
}

/// Opens a connection whose receive buffer is as small as the kernel allows.
pub(crate) async fn with_small_buffer(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(1).expect("a buffer size");
    socket.connect(address).await.expect("a connection")
}

/// Opens a connection over TLS.
pub(crate) async fn tls(address: SocketAddr, config: &Arc<ClientConfig>) -> TlsStream<TcpStream> {
    let name = ServerName::try_from("localhost").expect("a name");
    let connector = TlsConnector::from(Arc::clone(config));
    let connected = connector.connect(name, plain(address).await).await;
    connected.expect("a TLS handshake")
}

/// Opens an HTTP/2 connection over TLS. `stream_window` is the number of bytes that each stream
/// may receive before it is read.
pub(crate) async fn http2(
    address: SocketAddr,
    config: &Arc<ClientConfig>,
    stream_window: Option<u32>,
) -> SendRequest<Bytes> {
    let stream = tls(address, config).await;
    let protocol = stream.get_ref().1.alpn_protocol();
    assert_eq!(protocol, Some(&b"h2"[..]), "the proxy does not offer h2");
    let (sender, connection) = h2::client::Builder::new()
        .initial_window_size(stream_window.unwrap_or(WINDOW))
        .initial_connection_window_size(WINDOW)
        .handshake(stream)
        .await
        .expect("an HTTP/2 connection");
    // It ends with an error when the proxy is stopped.
    tokio::spawn(async { drop(connection.await) });
    sender
}

/// Returns a GET of `path` for HTTP/2.
pub(crate) fn http2_get(path: &str, credentials: Option<&Field>) -> Request<()> {
    let mut request = Request::builder()
        .method(Method::GET)
        .uri(format!("https://localhost{path}"))
        .header("user-agent", "bench")
        .header("accept", "*/*");
    if let Some((name, value)) = credentials {
        request = request.header(*name, value);
    }
    request.body(()).expect("a request")
}
