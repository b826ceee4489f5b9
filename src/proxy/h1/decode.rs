//! Decodes HTTP/1 message bodies (RFC 9112 §6, §7). Finds the end of a body while it is arriving,
//! so that no byte after it is mistaken for a part of it.

use bytes::{Buf, BytesMut};

use crate::proxy::validate::{Framing, hex, is_token};

/// Maximum length of a chunk extension, in bytes. Extensions are ignored; RFC 9112 §7.1.1
/// recommends a limit.
const MAX_EXTENSION: usize = 256;
/// Maximum length of the trailer section, in bytes. Trailers are dropped.
const MAX_TRAILERS: usize = 8 * 1024;
/// Maximum number of hexadecimal digits in a chunk size.
const MAX_SIZE_DIGITS: usize = 15;

/// The error for a malformed chunked body. Nothing after it can be trusted.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed chunked body")]
pub(super) struct MalformedChunk;

/// What remains to be received of a message body.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BodyDecoder {
    /// This number of bytes.
    Length(u64),
    /// Chunks, up to the last one and its trailers.
    Chunked(ChunkedState),
    /// All bytes until the connection closes: the body is delimited by that, or the connection
    /// has been upgraded.
    UntilClose,
}

/// The position in a chunked body (RFC 9112 §7.1).
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ChunkedState {
    Size { value: u64, digits: usize },
    Extension { value: u64, length: usize },
    SizeLf { value: u64 },
    Data { remaining: u64 },
    DataCr,
    DataLf,
    Trailer { line: TrailerLine, total: usize },
    TrailerLf { line: TrailerLine, total: usize },
    End,
}

/// The position in a line of the trailer section (RFC 9112 §7.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TrailerLine {
    Start,
    Name,
    Value,
}

const SIZE: ChunkedState = ChunkedState::Size {
    value: 0,
    digits: 0,
};

impl From<Framing> for BodyDecoder {
    fn from(framing: Framing) -> Self {
        match framing {
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(SIZE),
            Framing::Tunnel => Self::UntilClose,
        }
    }
}

impl BodyDecoder {
    /// Whether the whole body has arrived.
    pub(super) fn is_done(&self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunked(ChunkedState::End))
    }

    /// Consumes those leading bytes of `bytes` that belong to the body and returns how many
    /// they are.
    pub(super) fn decode(&mut self, bytes: &[u8]) -> Result<usize, MalformedChunk> {
        match self {
            Self::Length(remaining) => {
                let consumed = at_most(*remaining, bytes.len());
                *remaining -= consumed as u64;
                Ok(consumed)
            }
            Self::UntilClose => Ok(bytes.len()),
            Self::Chunked(chunk) => chunk.decode(bytes),
        }
    }
}

impl BodyDecoder {
    /// Decodes all bytes of `received`, which begins where the last call ended. Returns the length
    /// of the content that `received` begins with afterwards. Only bytes after the end of the body
    /// follow the content.
    ///
    /// # Errors
    /// If a chunk is malformed.
    pub(super) fn decode_content(
        &mut self,
        received: &mut BytesMut,
    ) -> Result<usize, MalformedChunk> {
        match self {
            Self::Chunked(chunk) => chunk.decode_in_place(received),
            Self::Length(_) | Self::UntilClose => self.decode(received),
        }
    }

    /// The number of bytes of content to come, if it is known.
    pub(super) fn left(&self) -> Option<u64> {
        match self {
            Self::Length(left) => Some(*left),
            Self::Chunked(ChunkedState::End) => Some(0),
            Self::Chunked(_) | Self::UntilClose => None,
        }
    }
}

fn at_most(remaining: u64, length: usize) -> usize {
    usize::try_from(remaining).map_or(length, |remaining| remaining.min(length))
}

impl ChunkedState {
    /// Returns the state before the first byte of a chunked body.
    pub(super) const fn start() -> Self {
        SIZE
    }

    /// Consumes those leading bytes of `bytes` that belong to the body and returns how many they
    /// are.
    fn decode(&mut self, bytes: &[u8]) -> Result<usize, MalformedChunk> {
        let mut consumed = 0;
        while let Some(rest) = bytes.get(consumed..).filter(|rest| !rest.is_empty()) {
            match self {
                Self::End => break,
                Self::Data { remaining } => {
                    let here = at_most(*remaining, rest.len());
                    *remaining -= here as u64;
                    consumed += here;
                    if *remaining == 0 {
                        *self = Self::DataCr;
                    }
                }
                _ => {
                    *self = self.step(rest.first().copied().unwrap_or_default())?;
                    consumed += 1;
                }
            }
        }
        Ok(consumed)
    }

    /// Like [`BodyDecoder::decode_content`]. The content of one large chunk is not moved.
    fn decode_in_place(&mut self, received: &mut BytesMut) -> Result<usize, MalformedChunk> {
        let (mut consumed, mut content) = (0, 0);
        while let Some(byte) = received.get(consumed).copied() {
            match self {
                Self::End => break,
                Self::Data { remaining } => {
                    if content == 0 {
                        received.advance(consumed);
                        consumed = 0;
                    }
                    let here = at_most(*remaining, received.len() - consumed);
                    if content < consumed {
                        received.copy_within(consumed..consumed + here, content);
                    }
                    *remaining -= here as u64;
                    consumed += here;
                    content += here;
                    if *remaining == 0 {
                        *self = Self::DataCr;
                    }
                }
                _ => {
                    *self = self.step(byte)?;
                    consumed += 1;
                }
            }
        }
        if content == 0 {
            received.advance(consumed);
        } else if content < consumed {
            let rest = received.len() - consumed;
            received.copy_within(consumed.., content);
            received.truncate(content + rest);
        }
        Ok(content)
    }

    /// Returns the state after one byte that is not chunk data.
    fn step(&self, byte: u8) -> Result<Self, MalformedChunk> {
        match *self {
            Self::Size { value, digits } => step_size(value, digits, byte),
            Self::Extension { value, length } => step_extension(value, length, byte),
            Self::SizeLf { value: 0 } => expect_byte(byte, b'\n', trailer_line(0)),
            Self::SizeLf { value } => expect_byte(byte, b'\n', Self::Data { remaining: value }),
            Self::DataCr => expect_byte(byte, b'\r', Self::DataLf),
            Self::DataLf => expect_byte(byte, b'\n', SIZE),
            Self::Trailer { line, total } => step_trailer(line, total, byte),
            Self::TrailerLf {
                line: TrailerLine::Start,
                ..
            } => expect_byte(byte, b'\n', Self::End),
            Self::TrailerLf { total, .. } => expect_byte(byte, b'\n', trailer_line(total)),
            Self::Data { .. } | Self::End => Err(MalformedChunk),
        }
    }
}

fn expect_byte(byte: u8, expected: u8, next: ChunkedState) -> Result<ChunkedState, MalformedChunk> {
    if byte == expected {
        Ok(next)
    } else {
        Err(MalformedChunk)
    }
}

fn step_size(value: u64, digits: usize, byte: u8) -> Result<ChunkedState, MalformedChunk> {
    match byte {
        b'\r' if digits > 0 => Ok(ChunkedState::SizeLf { value }),
        b';' if digits > 0 => Ok(ChunkedState::Extension { value, length: 0 }),
        _ => {
            let digit = hex(byte).ok_or(MalformedChunk)?;
            if digits == MAX_SIZE_DIGITS {
                return Err(MalformedChunk);
            }
            Ok(ChunkedState::Size {
                value: value * 16 + u64::from(digit),
                digits: digits + 1,
            })
        }
    }
}

fn step_extension(value: u64, length: usize, byte: u8) -> Result<ChunkedState, MalformedChunk> {
    match byte {
        b'\r' => Ok(ChunkedState::SizeLf { value }),
        _ if is_text(byte) && length < MAX_EXTENSION => Ok(ChunkedState::Extension {
            value,
            length: length + 1,
        }),
        _ => Err(MalformedChunk),
    }
}

/// The beginning of a trailer line, after `total` bytes of them.
const fn trailer_line(total: usize) -> ChunkedState {
    ChunkedState::Trailer {
        line: TrailerLine::Start,
        total,
    }
}

fn step_trailer(line: TrailerLine, total: usize, byte: u8) -> Result<ChunkedState, MalformedChunk> {
    let line = match (line, byte) {
        (TrailerLine::Start | TrailerLine::Value, b'\r') => {
            let total = total + 2;
            return Ok(ChunkedState::TrailerLf { line, total });
        }
        (TrailerLine::Name, b':') => TrailerLine::Value,
        (TrailerLine::Start | TrailerLine::Name, _) if is_token(byte) => TrailerLine::Name,
        (TrailerLine::Value, _) if is_text(byte) => TrailerLine::Value,
        _ => return Err(MalformedChunk),
    };
    if total >= MAX_TRAILERS {
        return Err(MalformedChunk);
    }
    Ok(ChunkedState::Trailer {
        line,
        total: total + 1,
    })
}

/// Whether a byte is a tab or not a control character.
const fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes a chunked body both at once and byte by byte, asserting equal results. Returns
    /// its length in bytes and whether it is complete.
    fn chunked(bytes: &[u8]) -> Result<(usize, bool), MalformedChunk> {
        let mut whole = BodyDecoder::from(Framing::Chunked);
        let at_once = whole
            .decode(bytes)
            .map(|consumed| (consumed, whole.is_done()));
        let mut body = BodyDecoder::from(Framing::Chunked);
        let mut consumed = 0;
        for byte in bytes {
            match body.decode(std::slice::from_ref(byte)) {
                Ok(n) => consumed += n,
                Err(e) => {
                    assert_eq!(at_once, Err(MalformedChunk));
                    return Err(e);
                }
            }
        }
        assert_eq!(at_once, Ok((consumed, body.is_done())));
        at_once
    }

    #[test]
    fn a_chunked_body_ends_at_its_last_chunk() {
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
    fn rejects_malformed_chunks() {
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
            // Lines that are not fields: a request that is smuggled, a name without a colon or
            // with a space, no name, and a folded line.
            "0\r\nGET / HTTP/1.1\r\n\r\n",
            "0\r\nA\r\n\r\n",
            "0\r\nA : b\r\n\r\n",
            "0\r\n: b\r\n\r\n",
            "0\r\nA: b\r\n c\r\n\r\n",
            "1;\n\r\n",
            "ffffffffffffffff\r\n",
            &long_extension,
            &long_trailers,
        ] {
            assert_eq!(chunked(bytes.as_bytes()), Err(MalformedChunk), "{bytes:?}");
        }
    }

    #[test]
    fn a_body_with_content_length_ends_after_that_length() {
        let mut body = BodyDecoder::from(Framing::Length(3));
        assert_eq!(body.decode(b"abcd"), Ok(3));
        assert!(body.is_done());
        assert_eq!(body.decode(b"d"), Ok(0));
        assert!(!BodyDecoder::from(Framing::Tunnel).is_done());
    }

    #[test]
    fn chunks_that_arrive_together_become_one_piece() {
        let wire = b"3;a=b\r\nabc\r\n2\r\nde\r\n8\r\nfghijklm\r\n0\r\nT: v\r\n\r\nNEXT";
        let body = wire.len() - 4;
        for first in 0..=wire.len() {
            for second in first..=wire.len() {
                let mut decoder = BodyDecoder::from(Framing::Chunked);
                let (mut received, mut content) = (BytesMut::new(), Vec::new());
                for part in [&wire[..first], &wire[first..second], &wire[second..]] {
                    received.extend_from_slice(part);
                    let length = decoder.decode_content(&mut received).unwrap();
                    content.extend_from_slice(&received.split_to(length));
                    assert!(received.is_empty() || decoder.is_done());
                }
                assert_eq!(content, b"abcdefghijklm", "split at {first} and {second}");
                assert_eq!(&received[..], &wire[body..]);
                assert!(decoder.is_done());
            }
        }
    }
}
