//! Where the body of an HTTP/1 message ends, byte by byte as it arrives, so that nothing
//! behind it is ever taken for a part of it.

use crate::proxy::validate::{Framing, hex};

/// Longest chunk extension, bytes. None is understood; RFC 9112 §7.1.1 wants a limit.
const MAX_EXTENSION: usize = 256;
/// Longest trailer section, bytes. Trailers are dropped.
const MAX_TRAILERS: usize = 8 * 1024;
/// Most hexadecimal digits of a chunk size.
const MAX_SIZE_DIGITS: usize = 15;

/// The body's framing is broken: nothing after it can be trusted.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed chunked body")]
pub(in crate::proxy) struct Malformed;

/// What is still to come of the current request's body.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked(Chunk),
    /// Everything.
    Tunnel,
}

/// Where in a chunked body (RFC 9112 §7.1) the next byte stands.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Chunk {
    Size { value: u64, digits: usize },
    Extension { value: u64, length: usize },
    SizeEnd { value: u64 },
    Data { left: u64 },
    DataCr,
    DataLf,
    Trailer { line: usize, total: usize },
    TrailerLf { line: usize, total: usize },
    Done,
}

const SIZE: Chunk = Chunk::Size {
    value: 0,
    digits: 0,
};

impl From<Framing> for Body {
    fn from(framing: Framing) -> Self {
        match framing {
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(SIZE),
            Framing::Tunnel => Self::Tunnel,
        }
    }
}

impl Body {
    /// Whether all of it has come.
    pub(super) fn is_done(&self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunked(Chunk::Done))
    }

    /// How many bytes can be taken whatever they are; 0 when they must be looked at.
    pub(super) fn opaque(&self) -> u64 {
        match self {
            Self::Length(left) => *left,
            Self::Tunnel => u64::MAX,
            Self::Chunked(_) => 0,
        }
    }

    /// Takes those of the first bytes of `bytes` that belong to the body; says how many.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        match self {
            Self::Length(left) => {
                let taken = at_most(*left, bytes.len());
                *left -= taken as u64;
                Ok(taken)
            }
            Self::Tunnel => Ok(bytes.len()),
            Self::Chunked(chunk) => chunk.take(bytes),
        }
    }
}

fn at_most(left: u64, length: usize) -> usize {
    usize::try_from(left).map_or(length, |left| left.min(length))
}

impl Chunk {
    /// Before the first byte of a chunked body.
    pub(in crate::proxy) const fn begin() -> Self {
        SIZE
    }

    fn take(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        self.take_data(bytes, |_| {})
    }

    /// Takes those of the first bytes of `bytes` that belong to the body and says how many;
    /// `data` is given what the chunks hold.
    pub(in crate::proxy) fn take_data(
        &mut self,
        bytes: &[u8],
        mut data: impl FnMut(&[u8]),
    ) -> Result<usize, Malformed> {
        let mut taken = 0;
        while let Some(rest) = bytes.get(taken..).filter(|rest| !rest.is_empty()) {
            match self {
                Self::Done => break,
                Self::Data { left } => {
                    let here = at_most(*left, rest.len());
                    data(rest.get(..here).unwrap_or_default());
                    *left -= here as u64;
                    taken += here;
                    if *left == 0 {
                        *self = Self::DataCr;
                    }
                }
                _ => {
                    *self = self.after(rest.first().copied().unwrap_or_default())?;
                    taken += 1;
                }
            }
        }
        Ok(taken)
    }

    /// The state after one byte outside of data.
    fn after(&self, byte: u8) -> Result<Self, Malformed> {
        match *self {
            Self::Size { value, digits } => after_size(value, digits, byte),
            Self::Extension { value, length } => after_extension(value, length, byte),
            Self::SizeEnd { value: 0 } => only(byte, b'\n', Self::Trailer { line: 0, total: 0 }),
            Self::SizeEnd { value } => only(byte, b'\n', Self::Data { left: value }),
            Self::DataCr => only(byte, b'\r', Self::DataLf),
            Self::DataLf => only(byte, b'\n', SIZE),
            Self::Trailer { line, total } => after_trailer(line, total, byte),
            Self::TrailerLf { line: 0, .. } => only(byte, b'\n', Self::Done),
            Self::TrailerLf { total, .. } => only(byte, b'\n', Self::Trailer { line: 0, total }),
            Self::Data { .. } | Self::Done => Err(Malformed),
        }
    }
}

fn only(byte: u8, expected: u8, next: Chunk) -> Result<Chunk, Malformed> {
    if byte == expected {
        Ok(next)
    } else {
        Err(Malformed)
    }
}

fn after_size(value: u64, digits: usize, byte: u8) -> Result<Chunk, Malformed> {
    match byte {
        b'\r' if digits > 0 => Ok(Chunk::SizeEnd { value }),
        b';' if digits > 0 => Ok(Chunk::Extension { value, length: 0 }),
        _ => {
            let digit = hex(byte).ok_or(Malformed)?;
            if digits == MAX_SIZE_DIGITS {
                return Err(Malformed);
            }
            Ok(Chunk::Size {
                value: value * 16 + u64::from(digit),
                digits: digits + 1,
            })
        }
    }
}

fn after_extension(value: u64, length: usize, byte: u8) -> Result<Chunk, Malformed> {
    match byte {
        b'\r' => Ok(Chunk::SizeEnd { value }),
        _ if is_text(byte) && length < MAX_EXTENSION => Ok(Chunk::Extension {
            value,
            length: length + 1,
        }),
        _ => Err(Malformed),
    }
}

fn after_trailer(line: usize, total: usize, byte: u8) -> Result<Chunk, Malformed> {
    match byte {
        b'\r' => Ok(Chunk::TrailerLf {
            line,
            total: total + 2,
        }),
        _ if is_text(byte) && total < MAX_TRAILERS => Ok(Chunk::Trailer {
            line: line + 1,
            total: total + 1,
        }),
        _ => Err(Malformed),
    }
}

/// No control character but the tab.
const fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of the bytes belong to the chunked body and whether it ended; fed at once
    /// and byte by byte, which must agree.
    fn chunked(bytes: &[u8]) -> Result<(usize, bool), Malformed> {
        let mut whole = Body::from(Framing::Chunked);
        let at_once = whole.take(bytes).map(|taken| (taken, whole.is_done()));
        let mut body = Body::from(Framing::Chunked);
        let mut taken = 0;
        for byte in bytes {
            match body.take(std::slice::from_ref(byte)) {
                Ok(n) => taken += n,
                Err(e) => {
                    assert_eq!(at_once, Err(Malformed));
                    return Err(e);
                }
            }
        }
        assert_eq!(at_once, Ok((taken, body.is_done())));
        at_once
    }

    #[test]
    fn ends_where_the_body_ends() {
        for (body, rest) in [
            ("0\r\n\r\n", ""),
            ("5\r\nhello\r\n0\r\n\r\n", "GET / HTTP/1.1\r\n"),
            (
                "A;x=y\r\n0123456789\r\n000\r\nT: v\r\nU: w\r\n\r\n",
                "5\r\n",
            ),
        ] {
            assert_eq!(
                chunked(format!("{body}{rest}").as_bytes()),
                Ok((body.len(), true))
            );
        }
        assert_eq!(chunked(b"5\r\nhel"), Ok((6, false)));
    }

    #[test]
    fn refuses_loose_chunks() {
        let long_extension = format!("1;{}\r\n", "x".repeat(MAX_EXTENSION + 1));
        let long_trailers = format!("0\r\n{}", "a: b\r\n".repeat(MAX_TRAILERS / 6 + 1));
        for bytes in [
            "\r\n",
            ";\r\n",
            "5\nhello",
            "5\rhello",
            "x\r\n",
            " 5\r\n",
            "5 \r\n",
            "+5\r\n",
            "0x5\r\n",
            "-1\r\n",
            "5\r\nhelloX",
            "5\r\nhello\n",
            "5\r\nhello\rX",
            "0\r\nA: b\n",
            "0\r\n\n",
            "0\r\nA: \0\r\n",
            "1;\n\r\n",
            "ffffffffffffffff\r\n",
            &long_extension,
            &long_trailers,
        ] {
            assert_eq!(chunked(bytes.as_bytes()), Err(Malformed), "{bytes:?}");
        }
    }

    #[test]
    fn counts_lengths() {
        let mut body = Body::from(Framing::Length(3));
        assert_eq!(body.take(b"abcd"), Ok(3));
        assert!(body.is_done());
        assert_eq!(body.take(b"d"), Ok(0));
        assert!(!Body::from(Framing::Tunnel).is_done());
    }
}
