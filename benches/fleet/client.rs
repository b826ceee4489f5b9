//! A client of one replica, for whom a failure is a result.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The longest that an answer may take.
const LIMIT: Duration = Duration::from_secs(10);

/// A keep-alive connection, opened when it is needed.
pub(crate) struct Client {
    address: SocketAddr,
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
}

/// A response: its status and its body.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            stream: None,
            buffer: vec![0; 64 * 1024],
        }
    }

    /// Requests `path` with `token`.
    pub(crate) async fn get(&mut self, path: &str, token: &str) -> io::Result<Answer> {
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\nAuthorization: Bearer {token}\r\n\r\n"
        );
        let exchange = tokio::time::timeout(LIMIT, self.exchange(head.as_bytes()));
        let answer = exchange
            .await
            .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer")));
        if answer.is_err() {
            self.stream = None;
        }
        answer
    }

    async fn exchange(&mut self, head: &[u8]) -> io::Result<Answer> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => TcpStream::connect(self.address).await?,
        };
        stream.set_nodelay(true)?;
        stream.write_all(head).await?;
        let mut filled = 0;
        loop {
            let room = self.buffer.get_mut(filled..).unwrap_or_default();
            let read = stream.read(room).await?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            filled += read;
            let received = self.buffer.get(..filled).unwrap_or_default();
            if let Some((answer, closes)) = parse(received) {
                self.stream = (!closes).then_some(stream);
                return Ok(answer);
            }
        }
    }
}

/// The answer, if it is complete, and whether the connection ends with it.
fn parse(received: &[u8]) -> Option<(Answer, bool)> {
    let end = memchr::memmem::find(received, b"\r\n\r\n")?;
    let (head, body) = received.split_at(end + 4);
    let head = std::str::from_utf8(head).ok()?.to_ascii_lowercase();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let field = |name: &str| {
        let mut lines = head.lines().filter_map(|line| line.split_once(':'));
        lines
            .find(|(found, _)| *found == name)
            .map(|(_, value)| value.trim())
    };
    let length: usize = field("content-length").map_or(Some(0), |n| n.parse().ok())?;
    let closes = field("connection") == Some("close");
    let body = body.get(..length)?;
    let body = String::from_utf8_lossy(body).into_owned();
    Some((Answer { status, body }, closes))
}
