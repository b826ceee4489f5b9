//! The PROXY protocol header, versions 1 and 2
//! (<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>). Nothing beyond the header is
//! read from the socket.
//!
//! Existing crates (`proxy-header`, `ppp`) accept lines longer than the specification allows,
//! signed port numbers and datagram families, any of which could make two proxies disagree about
//! the client.

#[cfg(test)]
mod tests;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::TcpStream;

/// The signature at the beginning of a version 2 header.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Maximum length of a version 1 line in bytes, including CRLF.
const MAX_V1_LINE: usize = 107;

/// Maximum length of the variable part of a version 2 header (addresses and TLVs), in bytes. The
/// specification allows 64 KiB; load balancers send a few hundred bytes.
const MAX_V2_LENGTH: usize = 4096;

/// Why a header is rejected. The header is not quoted.
#[derive(Debug, thiserror::Error)]
pub(in crate::proxy) enum ProxyHeaderError {
    #[error("the connection does not begin with one")]
    Missing,
    #[error("the line is longer than {MAX_V1_LINE} bytes or does not end in CRLF")]
    Line,
    #[error("the line is not a valid version 1 header")]
    Malformed,
    #[error("version {0} is unknown")]
    Version(u8),
    #[error("command {0} is unknown")]
    Command(u8),
    #[error("address family and protocol {0:#04x} do not denote a stream")]
    Family(u8),
    #[error("its length of {length} bytes is {problem}")]
    Length {
        length: usize,
        problem: &'static str,
    },
    #[error("it is incomplete: {0}")]
    Io(#[from] io::Error),
}

/// A stream whose next bytes can be examined without being consumed.
pub(in crate::proxy) trait Peek: AsyncRead + Unpin {
    /// Waits for bytes and copies them to `buffer`. Returns how many, 0 at the end of the stream.
    async fn peek(&self, buffer: &mut [u8]) -> io::Result<usize>;
}

impl Peek for TcpStream {
    async fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        TcpStream::peek(self, buffer).await
    }
}

#[cfg(fuzzing)]
impl Peek for &[u8] {
    async fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.len().min(buffer.len());
        buffer[..length].copy_from_slice(&self[..length]);
        Ok(length)
    }
}

/// Reads exactly one header and returns the client's address, or `None` if the header contains
/// no address (`UNKNOWN`, `LOCAL`, or the client of a Unix socket), in which case the proxy
/// itself counts as the client.
///
/// # Errors
/// Returns an error if the connection does not begin with one well-formed header. The caller has
/// to enforce a deadline.
pub(in crate::proxy) async fn read(
    stream: &mut impl Peek,
) -> Result<Option<SocketAddr>, ProxyHeaderError> {
    // No header is shorter than this.
    let mut start = [0; SIGNATURE.len()];
    stream.read_exact(&mut start).await?;
    if start == SIGNATURE {
        read_v2(stream).await
    } else if start.starts_with(b"PROXY ") {
        parse_v1(&read_v1_line(stream, &start).await?)
    } else {
        Err(ProxyHeaderError::Missing)
    }
}

/// Reads the rest of the line. Peeks first, so that nothing after the line is consumed.
async fn read_v1_line(stream: &mut impl Peek, start: &[u8]) -> Result<Vec<u8>, ProxyHeaderError> {
    let mut line = start.to_vec();
    let mut ahead = [0; MAX_V1_LINE];
    while !line.ends_with(b"\n") {
        let room = MAX_V1_LINE.saturating_sub(line.len());
        if room == 0 {
            return Err(ProxyHeaderError::Line);
        }
        let there = stream
            .peek(ahead.get_mut(..room).unwrap_or_default())
            .await?;
        if there == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let peeked = ahead.get(..there).unwrap_or_default();
        let end = memchr::memchr(b'\n', peeked).map_or(there, |at| at + 1);
        let before = line.len();
        line.resize(before + end, 0);
        stream
            .read_exact(line.get_mut(before..).unwrap_or_default())
            .await?;
    }
    Ok(line)
}

/// Parses the client's address in a version 1 line, which is
/// `PROXY TCP4 <source> <destination> <port> <port>` with single spaces, or begins with
/// `PROXY UNKNOWN`.
fn parse_v1(line: &[u8]) -> Result<Option<SocketAddr>, ProxyHeaderError> {
    let text = line.strip_suffix(b"\r\n").ok_or(ProxyHeaderError::Line)?;
    let text = std::str::from_utf8(text).map_err(|_| ProxyHeaderError::Malformed)?;
    if text.contains(['\r', '\n']) {
        return Err(ProxyHeaderError::Line);
    }
    let mut words = text.split(' ').skip(1);
    let source = match words.next() {
        Some("TCP4") => address::<Ipv4Addr>(&mut words)?,
        Some("TCP6") => address::<Ipv6Addr>(&mut words)?,
        // The rest of the line has to be ignored.
        Some("UNKNOWN") => return Ok(None),
        _ => return Err(ProxyHeaderError::Malformed),
    };
    match words.next() {
        None => Ok(Some(source)),
        Some(_) => Err(ProxyHeaderError::Malformed),
    }
}

fn address<'l, A: FromStr + Into<IpAddr>>(
    words: &mut impl Iterator<Item = &'l str>,
) -> Result<SocketAddr, ProxyHeaderError> {
    let mut ip = || words.next()?.parse::<A>().ok();
    let (source, _destination) = ip().zip(ip()).ok_or(ProxyHeaderError::Malformed)?;
    let mut port = || port(words.next()?);
    let (port, _destination) = port().zip(port()).ok_or(ProxyHeaderError::Malformed)?;
    Ok(SocketAddr::new(source.into(), port))
}

/// Parses a port. Accepts only digits, without a sign or leading zeros.
fn port(word: &str) -> Option<u16> {
    let plain = word.bytes().all(|b| b.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
    plain.then(|| word.parse().ok()).flatten()
}

/// Reads a version 2 header after its signature.
async fn read_v2(stream: &mut impl Peek) -> Result<Option<SocketAddr>, ProxyHeaderError> {
    let version_and_command = stream.read_u8().await?;
    let family = stream.read_u8().await?;
    let length = usize::from(stream.read_u16().await?);
    if version_and_command >> 4 != 2 {
        return Err(ProxyHeaderError::Version(version_and_command >> 4));
    }
    if length > MAX_V2_LENGTH {
        let problem = "too large";
        return Err(ProxyHeaderError::Length { length, problem });
    }
    let block = match version_and_command & 0x0f {
        // LOCAL: a connection by the proxy itself, such as a health check. The family is
        // ignored.
        0 => AddressBlock::None,
        1 => AddressBlock::from_family(family)?,
        command => return Err(ProxyHeaderError::Command(command)),
    };
    if length < block.len() {
        let problem = "too small for the addresses";
        return Err(ProxyHeaderError::Length { length, problem });
    }
    let source = block.read(stream).await?;
    discard(stream, length - block.len()).await?;
    Ok(source)
}

/// The addresses that a version 2 header must contain.
#[derive(Clone, Copy)]
enum AddressBlock {
    None,
    V4,
    V6,
}

impl AddressBlock {
    fn from_family(family: u8) -> Result<Self, ProxyHeaderError> {
        match family {
            // Unspecified, and Unix stream sockets, whose clients have no address.
            0x00 | 0x31 => Ok(Self::None),
            0x11 => Ok(Self::V4),
            0x21 => Ok(Self::V6),
            other => Err(ProxyHeaderError::Family(other)),
        }
    }

    /// Returns its length in bytes: two addresses and two ports.
    fn len(self) -> usize {
        match self {
            Self::None => 0,
            Self::V4 => 2 * (4 + 2),
            Self::V6 => 2 * (16 + 2),
        }
    }

    async fn read(self, stream: &mut impl Peek) -> io::Result<Option<SocketAddr>> {
        let source: IpAddr = match self {
            Self::None => return Ok(None),
            Self::V4 => {
                let source = stream.read_u32().await?;
                stream.read_u32().await?;
                Ipv4Addr::from_bits(source).into()
            }
            Self::V6 => {
                let source = stream.read_u128().await?;
                stream.read_u128().await?;
                Ipv6Addr::from_bits(source).into()
            }
        };
        let port = stream.read_u16().await?;
        stream.read_u16().await?;
        Ok(Some(SocketAddr::new(source, port)))
    }
}

/// Skips the TLVs, which are not used.
async fn discard(stream: &mut impl Peek, mut left: usize) -> io::Result<()> {
    let mut scratch = [0; 256];
    while left > 0 {
        let part = left.min(scratch.len());
        stream
            .read_exact(scratch.get_mut(..part).unwrap_or_default())
            .await?;
        left -= part;
    }
    Ok(())
}
