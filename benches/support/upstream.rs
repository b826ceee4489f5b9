//! The server behind every proxy. It reads each request to its end before it answers, so an
//! upload is measured whole, and checks Hawk signatures on request.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::identity::{HAWK_ID, HAWK_KEY};

/// Returns the path of an answer of `bytes` bytes.
pub(crate) fn path(bytes: usize) -> String {
    format!("/api/queue/v1/task/{bytes}?x=1")
}

/// The path of an empty answer, which is 401 without a valid Hawk signature.
pub(crate) const CHECKED: &str = "/api/checked/0?x=1";

const BLOCK: usize = 64 * 1024;
static BODY: [u8; BLOCK] = [b'x'; BLOCK];

/// Serves the connections of `listener` until its runtime ends.
pub(crate) async fn serve(listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        tokio::spawn(connection(stream));
    }
}

/// Serves one connection until it ends, or until a request that cannot be read.
async fn connection(mut stream: TcpStream) -> Option<()> {
    let mut buffer = vec![0; BLOCK];
    let mut filled = 0;
    let mut answer = Answer::new(0);
    loop {
        let head_end = loop {
            if let Some(at) = memchr::memmem::find(&buffer[..filled], b"\r\n\r\n") {
                break at + 4;
            }
            filled += received(stream.read(&mut buffer[filled..]).await)?;
        };
        let head = std::str::from_utf8(&buffer[..head_end]).ok()?;
        let (checked, length) = asked_for(head)?;
        let refused = checked && !is_signed(head);
        let mut rest = content_length(head)?;
        let buffered = (filled - head_end).min(rest);
        buffer.copy_within(head_end + buffered..filled, 0);
        filled -= head_end + buffered;
        rest -= buffered;
        while rest > 0 {
            // Callers do not pipeline, so nothing follows the body.
            rest -= received(stream.read(&mut buffer[..rest.min(BLOCK)]).await)?;
        }
        if refused {
            let refusal = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n";
            stream.write_all(refusal).await.ok()?;
            continue;
        }
        if answer.length != length {
            answer = Answer::new(length);
        }
        answer.write(&mut stream).await.ok()?;
    }
}

/// Returns the number of bytes of a read, and nothing at the end of the connection.
fn received(read: std::io::Result<usize>) -> Option<usize> {
    read.ok().filter(|bytes| *bytes > 0)
}

/// An answer: the head with the first block of the body, and the number of blocks that follow.
struct Answer {
    length: usize,
    first: Vec<u8>,
}

impl Answer {
    fn new(length: usize) -> Self {
        let mut first = format!(
            "HTTP/1.1 200 OK\r\nServer: bench\r\nDate: Sun, 29 Nov 2026 12:00:00 GMT\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        )
        .into_bytes();
        first.resize(first.len() + length.min(BLOCK), b'x');
        Self { length, first }
    }

    async fn write(&self, stream: &mut TcpStream) -> std::io::Result<()> {
        stream.write_all(&self.first).await?;
        let mut rest = self.length.saturating_sub(BLOCK);
        while rest > 0 {
            let piece = rest.min(BLOCK);
            stream.write_all(&BODY[..piece]).await?;
            rest -= piece;
        }
        Ok(())
    }
}

/// Returns whether the signature is to be checked, and the length of the answer.
fn asked_for(head: &str) -> Option<(bool, usize)> {
    let target = target(head)?;
    let length = target.split('?').next()?.rsplit('/').next()?;
    Some((target == CHECKED, length.parse().ok()?))
}

fn target(head: &str) -> Option<&str> {
    head.split(' ').nth(1)
}

fn content_length(head: &str) -> Option<usize> {
    assert!(
        field(head, "transfer-encoding").is_none(),
        "a chunked request: {head}"
    );
    field(head, "content-length").map_or(Some(0), |value| value.parse().ok())
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines()
        .skip(1)
        .filter_map(|line| line.split_once(':'))
        .find(|(found, _)| found.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
}

/// Verifies the MAC of a Hawk header as Taskcluster does, except for its age.
fn is_signed(head: &str) -> bool {
    let Some(hawk) = field(head, "authorization").and_then(|value| value.strip_prefix("Hawk "))
    else {
        return false;
    };
    let attribute = |name: &str| {
        hawk.split(',')
            .filter_map(|pair| pair.trim().split_once('='))
            .find(|(found, _)| *found == name)
            .map_or("", |(_, value)| value.trim_matches('"'))
    };
    let host = field(head, "host").unwrap_or_default();
    let (host, port) = host.rsplit_once(':').unwrap_or((host, "80"));
    let text = format!(
        "hawk.1.header\n{}\n{}\n{}\n{}\n{host}\n{port}\n{}\n{}\n",
        attribute("ts"),
        attribute("nonce"),
        head.split(' ').next().unwrap_or_default(),
        target(head).unwrap_or_default(),
        attribute("hash"),
        attribute("ext"),
    );
    let key = hmac::Key::new(hmac::HMAC_SHA256, HAWK_KEY.as_bytes());
    let mac = STANDARD.decode(attribute("mac")).unwrap_or_default();
    attribute("id") == HAWK_ID && hmac::verify(&key, text.as_bytes(), &mac).is_ok()
}
