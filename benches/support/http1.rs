//! An HTTP/1.1 client with one request in flight, which checks every answer.

use std::fmt::Write as _;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const BLOCK: usize = 64 * 1024;
static BODY: [u8; BLOCK] = [b'x'; BLOCK];

/// A header field: its name, in lower case, and its value.
pub(crate) type Field = (&'static str, String);

/// A request, and the length of the answer that must come.
#[derive(Clone)]
pub(crate) struct Request {
    /// The head, and the body unless it is longer than a block.
    bytes: Vec<u8>,
    /// The number of bytes that follow in blocks.
    rest: usize,
    /// The length of the answer's body.
    answer: usize,
}

impl Request {
    /// A request with `body` bytes of body whose answer must have `answer` bytes.
    pub(crate) fn new(
        method: &str,
        path: &str,
        credentials: Option<&Field>,
        body: usize,
        answer: usize,
    ) -> Self {
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\nAccept: */*\r\n"
        );
        if let Some((name, value)) = credentials {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        if body > 0 {
            let _ = write!(
                head,
                "Content-Type: application/json\r\nContent-Length: {body}\r\n"
            );
        }
        let mut bytes = format!("{head}\r\n").into_bytes();
        let rest = if body > BLOCK { body } else { 0 };
        bytes.resize(bytes.len() + body - rest, b'x');
        Self {
            bytes,
            rest,
            answer,
        }
    }
}

/// A keep-alive connection.
pub(crate) struct Connection<S> {
    stream: S,
    buffer: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// A connection on `stream`.
    pub(crate) fn new(stream: S) -> Self {
        Self {
            stream,
            buffer: vec![0; BLOCK + 4096],
        }
    }

    /// Sends `request` and receives its answer. Panics unless the answer is 200 and complete,
    /// because figures of failing requests would be meaningless.
    pub(crate) async fn exchange(&mut self, request: &Request) {
        self.send(request).await;
        let mut filled = 0;
        let head_end = loop {
            filled += self.receive(filled).await;
            if let Some(at) = memchr::memmem::find(&self.buffer[..filled], b"\r\n\r\n") {
                break at + 4;
            }
        };
        let head = std::str::from_utf8(&self.buffer[..head_end]).expect("an ASCII head");
        assert!(head.starts_with("HTTP/1.1 200"), "not 200: {head}");
        assert_eq!(content_length(head), Some(request.answer), "{head}");
        let mut body = filled - head_end;
        while body < request.answer {
            body += self.receive(0).await;
        }
        assert_eq!(body, request.answer, "bytes follow the answer");
    }

    /// Sends `request` without waiting for the answer.
    pub(crate) async fn send(&mut self, request: &Request) {
        let sending = "sending a request";
        self.stream.write_all(&request.bytes).await.expect(sending);
        let mut rest = request.rest;
        while rest > 0 {
            let piece = rest.min(BLOCK);
            self.stream.write_all(&BODY[..piece]).await.expect(sending);
            rest -= piece;
        }
        self.stream.flush().await.expect(sending);
    }

    async fn receive(&mut self, filled: usize) -> usize {
        let read = self.stream.read(&mut self.buffer[filled..]).await;
        let read = read.expect("receiving an answer");
        assert!(
            read > 0,
            "the proxy closed the connection: {}",
            String::from_utf8_lossy(&self.buffer[..filled])
        );
        read
    }
}

fn content_length(head: &str) -> Option<usize> {
    head.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse().ok())
}
