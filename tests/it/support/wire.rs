//! An HTTP/1.1 parser shared by the test client and the fake upstream. Deliberately naive and
//! strict: a message that it cannot parse should fail the test.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadHalf, WriteHalf};

/// Maximum size of a head.
const MAX_HEAD: usize = 256 * 1024;

/// A TCP, TLS or Unix connection.
pub(crate) trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// Any such connection.
pub(crate) type Stream = Box<dyn Io>;
pub(crate) type Reading = ReadHalf<Stream>;
pub(crate) type Writing = WriteHalf<Stream>;

/// Header fields in order, with names as sent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fields(pub(crate) Vec<(String, String)>);

impl Fields {
    /// The first value of `name`, case-insensitively.
    pub(crate) fn first(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// Every value of `name`, case-insensitively.
    pub(crate) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0
            .iter()
            .filter(move |(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.as_str())
    }
}

/// A start line with its fields.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    /// The first line, without the line ending.
    pub(crate) start: String,
    pub(crate) fields: Fields,
    /// The exact bytes, including the empty line.
    pub(crate) raw: Bytes,
}

/// How a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Length(u64),
    Chunked,
    UntilClose,
}

impl Framing {
    /// From the header fields; `otherwise` if there is neither framing header.
    pub(crate) fn of(fields: &Fields, otherwise: Self) -> io::Result<Self> {
        let length = fields.first("content-length");
        match (fields.first("transfer-encoding"), length) {
            (Some(coding), None) if coding.eq_ignore_ascii_case("chunked") => Ok(Self::Chunked),
            (None, Some(length)) => length
                .parse()
                .map(Self::Length)
                .map_err(|_| invalid("content-length")),
            (None, None) => Ok(otherwise),
            _ => Err(invalid("ambiguous framing")),
        }
    }
}

pub(crate) fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// Reads heads and bodies from one direction of a connection.
pub(crate) struct Reader<R> {
    inner: R,
    buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self {
            inner,
            buffer: BytesMut::new(),
        }
    }

    async fn fill(&mut self) -> io::Result<usize> {
        self.buffer.reserve(16 * 1024);
        self.inner.read_buf(&mut self.buffer).await
    }

    /// The next head; `None` when the connection ended before its first byte.
    pub(crate) async fn head(&mut self) -> io::Result<Option<Head>> {
        let end = loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                break at + 4;
            }
            if self.buffer.len() > MAX_HEAD {
                return Err(invalid("head too large"));
            }
            if self.fill().await? == 0 {
                if self.buffer.is_empty() {
                    return Ok(None);
                }
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        };
        let raw = self.buffer.split_to(end).freeze();
        let text = std::str::from_utf8(&raw).map_err(|_| invalid("head is not UTF-8"))?;
        let mut lines = text.trim_end_matches("\r\n").split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        let fields = lines.map(field).collect::<io::Result<_>>()?;
        Ok(Some(Head {
            start,
            fields: Fields(fields),
            raw,
        }))
    }

    async fn line(&mut self) -> io::Result<String> {
        let end = loop {
            if let Some(at) = find(&self.buffer, b"\r\n") {
                break at;
            }
            if self.fill().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        };
        let line = self.buffer.split_to(end + 2);
        String::from_utf8(line[..end].to_vec()).map_err(|_| invalid("line is not UTF-8"))
    }

    /// Up to `limit` bytes, at least one; `None` at the end of the connection.
    async fn some(&mut self, limit: u64) -> io::Result<Option<Bytes>> {
        if self.buffer.is_empty() && self.fill().await? == 0 {
            return Ok(None);
        }
        let take = usize::try_from(limit).map_or(self.buffer.len(), |l| l.min(self.buffer.len()));
        Ok(Some(self.buffer.split_to(take).freeze()))
    }

    /// Everything until the connection ends, ignoring framing.
    pub(crate) async fn rest(&mut self) -> io::Result<Bytes> {
        while self.fill().await? > 0 {}
        Ok(self.buffer.split().freeze())
    }

    /// Raw bytes as they arrive; `None` at the end.
    pub(crate) async fn raw(&mut self) -> io::Result<Option<Bytes>> {
        self.some(u64::MAX).await
    }
}

fn field(line: &str) -> io::Result<(String, String)> {
    let (name, value) = line
        .split_once(':')
        .ok_or_else(|| invalid("field without colon"))?;
    Ok((name.to_owned(), value.trim().to_owned()))
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|w| w == needle)
}

/// A body being read.
pub(crate) struct BodyReader {
    framing: Framing,
    /// Of the whole body, or of the current chunk.
    remaining: u64,
    done: bool,
    pub(crate) trailers: Fields,
}

impl BodyReader {
    pub(crate) fn new(framing: Framing) -> Self {
        let remaining = match framing {
            Framing::Length(length) => length,
            Framing::Chunked | Framing::UntilClose => 0,
        };
        Self {
            framing,
            remaining,
            done: framing == Framing::Length(0),
            trailers: Fields::default(),
        }
    }

    /// The next piece; `None` when the body is complete. A truncated body is an error.
    pub(crate) async fn next<R>(&mut self, from: &mut Reader<R>) -> io::Result<Option<Bytes>>
    where
        R: AsyncRead + Unpin,
    {
        if self.done {
            return Ok(None);
        }
        if self.framing == Framing::UntilClose {
            let piece = from.some(u64::MAX).await?;
            self.done = piece.is_none();
            return Ok(piece);
        }
        if self.framing == Framing::Chunked && self.remaining == 0 && !self.chunk(from).await? {
            return Ok(None);
        }
        let piece = from.some(self.remaining).await?;
        let piece = piece.ok_or(io::ErrorKind::UnexpectedEof)?;
        self.remaining -= piece.len() as u64;
        if self.remaining == 0 {
            match self.framing {
                Framing::Chunked if !from.line().await?.is_empty() => {
                    return Err(invalid("chunk longer than its size"));
                }
                Framing::Chunked => {}
                Framing::Length(_) | Framing::UntilClose => self.done = true,
            }
        }
        Ok(Some(piece))
    }

    /// Starts the next chunk; false after the last one, when the trailers have been read.
    async fn chunk<R: AsyncRead + Unpin>(&mut self, from: &mut Reader<R>) -> io::Result<bool> {
        let line = from.line().await?;
        let size = line.split(';').next().unwrap_or_default().trim();
        self.remaining = u64::from_str_radix(size, 16).map_err(|_| invalid("chunk size"))?;
        if self.remaining > 0 {
            return Ok(true);
        }
        loop {
            let line = from.line().await?;
            if line.is_empty() {
                self.done = true;
                return Ok(false);
            }
            self.trailers.0.push(field(&line)?);
        }
    }
}

/// `data` as one chunk.
pub(crate) fn chunk(data: &[u8]) -> Vec<u8> {
    let mut framed = format!("{:x}\r\n", data.len()).into_bytes();
    framed.extend_from_slice(data);
    framed.extend_from_slice(b"\r\n");
    framed
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn body(framing: Framing, bytes: &'static [u8]) -> io::Result<(Vec<u8>, Bytes)> {
        let mut reader = Reader::new(bytes);
        let mut body = BodyReader::new(framing);
        let mut whole = Vec::new();
        while let Some(piece) = body.next(&mut reader).await? {
            whole.extend_from_slice(&piece);
        }
        Ok((whole, reader.rest().await?))
    }

    #[tokio::test]
    async fn every_framing_is_read_to_its_exact_end() {
        let (whole, rest) = body(Framing::Length(3), b"abcNEXT").await.unwrap();
        assert_eq!((&whole[..], &rest[..]), (&b"abc"[..], &b"NEXT"[..]));
        let (whole, rest) = body(
            Framing::Chunked,
            b"2;x=1\r\nab\r\n1\r\nc\r\n0\r\nT: v\r\n\r\nNEXT",
        )
        .await
        .unwrap();
        assert_eq!((&whole[..], &rest[..]), (&b"abc"[..], &b"NEXT"[..]));
        let (whole, _) = body(Framing::UntilClose, b"abc").await.unwrap();
        assert_eq!(whole, b"abc");
    }

    #[tokio::test]
    async fn a_truncated_body_is_an_error() {
        assert!(body(Framing::Length(4), b"abc").await.is_err());
        assert!(body(Framing::Chunked, b"3\r\nabc\r\n").await.is_err());
        assert!(
            body(Framing::Chunked, b"2\r\nabc\r\n0\r\n\r\n")
                .await
                .is_err()
        );
    }

    #[test]
    fn ambiguous_framing_is_an_error() {
        let both = Fields(vec![
            ("Content-Length".into(), "1".into()),
            ("Transfer-Encoding".into(), "chunked".into()),
        ]);
        assert!(Framing::of(&both, Framing::UntilClose).is_err());
    }
}
