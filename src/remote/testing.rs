//! A loopback HTTP server for unit tests that replies with exact bytes, valid or not.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use url::Url;

/// What the server does with each request.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// Writes these bytes and closes.
    Bytes(Vec<u8>),
    /// Writes these bytes, then nothing more, and keeps the connection open.
    Stall(Vec<u8>),
}

impl Reply {
    /// A response with Content-Length.
    pub(crate) fn new(status: u16, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Self {
        let body = body.as_ref();
        let mut bytes = format!(
            "HTTP/1.1 {status} Text\r\nContent-Length: {}\r\n",
            body.len()
        );
        for (name, value) in headers {
            bytes.extend([*name, ": ", *value, "\r\n"]);
        }
        bytes.push_str("Connection: close\r\n\r\n");
        let mut bytes = bytes.into_bytes();
        bytes.extend_from_slice(body);
        Self::Bytes(bytes)
    }

    /// A JSON response.
    pub(crate) fn json(status: u16, body: &str) -> Self {
        Self::new(status, &[("Content-Type", "application/json")], body)
    }
}

/// A running server; it stops with the test's runtime.
pub(crate) struct Peer {
    /// The server's URL, with path `/`.
    pub(crate) url: Url,
    /// Every request received, head and body.
    pub(crate) requests: mpsc::UnboundedReceiver<String>,
}

/// Starts a server with a fixed reply.
pub(crate) async fn peer(reply: Reply) -> Peer {
    peer_with(move |_| reply.clone()).await
}

/// Starts a server whose reply depends on the request (head and body).
pub(crate) async fn peer_with(reply: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Peer {
    let reply = Arc::new(reply);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let (sender, requests) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve_connection(stream, Arc::clone(&reply), sender.clone()));
        }
    });
    Peer {
        url: url.parse().unwrap(),
        requests,
    }
}

async fn serve_connection(
    mut stream: TcpStream,
    reply: Arc<impl Fn(&str) -> Reply>,
    requests: mpsc::UnboundedSender<String>,
) {
    let mut request = Vec::new();
    while !is_complete(&request) {
        if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    let reply = reply(&request);
    let _ = requests.send(request);
    match reply {
        // Writing fails if the client has disconnected, for example over a size limit.
        Reply::Bytes(bytes) => drop(stream.write_all(&bytes).await),
        Reply::Stall(bytes) => {
            drop(stream.write_all(&bytes).await);
            std::future::pending::<()>().await;
        }
    }
    drop(stream.shutdown().await);
}

fn is_complete(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .map_or(0, |(_, length)| length.trim().parse().unwrap());
    body.len() >= length
}

/// A URL with a port that nothing listens on.
pub(crate) async fn closed_port() -> Url {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    url.parse().unwrap()
}
