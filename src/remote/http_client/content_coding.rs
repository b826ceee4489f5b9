//! What a response's body is once its content coding and a byte order mark are removed. Some servers
//! compress whatever the request accepts, and some begin JSON with a byte order mark, which a parser
//! may ignore (RFC 8259 §8.1).

use std::io::Read;

use bytes::Bytes;
use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use http::HeaderMap;
use http::header::CONTENT_ENCODING;

/// Why a body cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DecodeError {
    /// A coding other than gzip and deflate, or more than one.
    Unsupported,
    /// It is not what `Content-Encoding` says.
    Malformed,
    /// It is larger than the limit.
    TooLarge,
}

/// Decodes `body`, and removes a byte order mark. `max_bytes` limits the result, too.
pub(super) fn decode(
    headers: &HeaderMap,
    body: Bytes,
    max_bytes: usize,
) -> Result<Bytes, DecodeError> {
    let decoded = match coding(headers)? {
        _ if body.is_empty() => body,
        Coding::Identity => body,
        Coding::Gzip => read(MultiGzDecoder::new(&body[..]), max_bytes)?,
        // The name stands for the zlib format (RFC 9110 §8.4.1.2), but some servers leave it out.
        Coding::Deflate => match read(ZlibDecoder::new(&body[..]), max_bytes) {
            Err(DecodeError::Malformed) => read(DeflateDecoder::new(&body[..]), max_bytes)?,
            other => other?,
        },
    };
    Ok(match decoded.strip_prefix(b"\xef\xbb\xbf") {
        Some(rest) => decoded.slice_ref(rest),
        None => decoded,
    })
}

enum Coding {
    Identity,
    Gzip,
    Deflate,
}

fn coding(headers: &HeaderMap) -> Result<Coding, DecodeError> {
    let mut found = Coding::Identity;
    for line in headers.get_all(CONTENT_ENCODING) {
        for name in line.to_str().unwrap_or("?").split(',') {
            let coding = match name.trim().to_ascii_lowercase().as_str() {
                "" | "identity" => continue,
                "gzip" | "x-gzip" => Coding::Gzip,
                "deflate" => Coding::Deflate,
                _ => return Err(DecodeError::Unsupported),
            };
            if !matches!(found, Coding::Identity) {
                return Err(DecodeError::Unsupported);
            }
            found = coding;
        }
    }
    Ok(found)
}

fn read(encoded: impl Read, max_bytes: usize) -> Result<Bytes, DecodeError> {
    let mut body = Vec::new();
    let limit = (max_bytes as u64).saturating_add(1);
    encoded
        .take(limit)
        .read_to_end(&mut body)
        .map_err(|_| DecodeError::Malformed)?;
    if body.len() > max_bytes {
        return Err(DecodeError::TooLarge);
    }
    Ok(body.into())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

    use super::*;

    const TEXT: &[u8] = b"{\"keys\":[]}";

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(text: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn deflate(text: &[u8]) -> Vec<u8> {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn decoded(codings: &[&'static str], body: &[u8]) -> Result<Vec<u8>, DecodeError> {
        let mut headers = HeaderMap::new();
        for coding in codings {
            headers.append(CONTENT_ENCODING, coding.parse().unwrap());
        }
        decode(&headers, Bytes::copy_from_slice(body), 64).map(|body| body.to_vec())
    }

    #[test]
    fn gzip_and_deflate_are_decoded() {
        for (codings, body) in [
            (&[][..], TEXT.to_vec()),
            (&["identity"], TEXT.to_vec()),
            (&[""], TEXT.to_vec()),
            (&["gzip"], gzip(TEXT)),
            (&["GZIP"], gzip(TEXT)),
            (&["x-gzip"], gzip(TEXT)),
            (&["identity, gzip"], gzip(TEXT)),
            (&["deflate"], zlib(TEXT)),
            (&["deflate"], deflate(TEXT)),
            (&["gzip"], [gzip(&TEXT[..4]), gzip(&TEXT[4..])].concat()),
        ] {
            assert_eq!(decoded(codings, &body).unwrap(), TEXT, "{codings:?}");
        }
        assert_eq!(decoded(&["gzip"], b"").unwrap(), b"");
    }

    #[test]
    fn a_byte_order_mark_is_removed_once() {
        let marked = [b"\xef\xbb\xbf", TEXT].concat();
        assert_eq!(decoded(&[], &marked).unwrap(), TEXT);
        assert_eq!(decoded(&["gzip"], &gzip(&marked)).unwrap(), TEXT);
        let twice = [b"\xef\xbb\xbf", &marked[..]].concat();
        assert_eq!(decoded(&[], &twice).unwrap(), marked);
    }

    #[test]
    fn other_codings_and_malformed_bodies_are_refused() {
        use DecodeError::{Malformed, Unsupported};
        let cut = &gzip(TEXT)[..12];
        for (codings, body, expected) in [
            (&["br"][..], TEXT, Unsupported),
            (&["gzip, gzip"], TEXT, Unsupported),
            (&["gzip", "deflate"], TEXT, Unsupported),
            (&["gzip"], TEXT, Malformed),
            (&["gzip"], cut, Malformed),
            (&["deflate"], b"\xff\xff\xff", Malformed),
        ] {
            assert_eq!(decoded(codings, body), Err(expected), "{codings:?}");
        }
    }

    #[test]
    fn the_limit_applies_to_the_decoded_body() {
        let bomb = vec![b' '; 1024 * 1024];
        for (coding, body) in [
            ("gzip", gzip(&bomb)),
            ("deflate", zlib(&bomb)),
            ("deflate", deflate(&bomb)),
        ] {
            assert_eq!(decoded(&[coding], &body), Err(DecodeError::TooLarge));
        }
        assert_eq!(decoded(&["gzip"], &gzip(&[b' '; 64])).unwrap().len(), 64);
    }
}
