//! Bewits: signatures in the query that make a URL usable on its own (Hawk 1.0, "Single URI
//! Authorization").

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

use super::error::HawkError;
pub use super::error::MAX_TARGET_CHARS;
use super::header::Signer;
use super::mac::{MacInput, check_request};
use crate::clock::UnixMillis;

/// What a bewit grants access to: GET and HEAD of one target. HEAD is signed as GET.
#[derive(Clone, Copy, Debug)]
pub struct BewitRequest<'a> {
    /// Raw path and query, without a bewit.
    pub target: &'a str,
    /// Host name without port.
    pub host: &'a str,
    /// The port that the service puts into the MAC.
    pub port: u16,
    /// When the bewit expires, by the service's clock, in whole seconds. There is no upper
    /// limit.
    pub expires: UnixMillis,
}

impl Signer {
    /// The target of `request` with a bewit appended. Anyone who sees the result can use it,
    /// so it is a secret until it expires.
    ///
    /// # Errors
    /// If the target already has a bewit, a part cannot be represented, or the result exceeds
    /// [`MAX_TARGET_CHARS`].
    pub fn with_bewit(&self, request: &BewitRequest<'_>) -> Result<String, HawkError> {
        check_request("GET", request.target, request.host)?;
        if has_bewit(request.target) {
            return Err(HawkError::SecondScheme);
        }
        let bewit = self.bewit(request);
        let separator = if request.target.contains('?') {
            "&bewit="
        } else {
            "?bewit="
        };
        let length = request.target.len() + separator.len() + bewit.len();
        if length > MAX_TARGET_CHARS {
            return Err(HawkError::TargetTooLong { length });
        }
        let mut target = String::with_capacity(length);
        target.push_str(request.target);
        target.push_str(separator);
        target.push_str(&bewit);
        Ok(target)
    }

    /// Base64url of `id\expiry\mac\ext`.
    fn bewit(&self, request: &BewitRequest<'_>) -> Zeroizing<String> {
        let seconds = request.expires.as_secs();
        let ext = self.ext.expose();
        let mac = MacInput {
            kind: "hawk.1.bewit",
            seconds,
            nonce: "",
            method: "GET",
            target: request.target,
            host: request.host,
            port: request.port,
            hash: "",
            ext,
        }
        .mac(&self.key);
        let mut plain = Zeroizing::new(String::with_capacity(self.id.len() + ext.len() + 80));
        plain.push_str(&self.id);
        plain.push('\\');
        plain.push_str(itoa::Buffer::new().format(seconds));
        plain.push('\\');
        STANDARD.encode_string(mac, &mut plain);
        plain.push('\\');
        plain.push_str(ext);
        Zeroizing::new(URL_SAFE_NO_PAD.encode(plain.as_bytes()))
    }
}

/// Whether the service would find a bewit in `target`. Such a request must not be signed as
/// well: the service answers 401 to two authentication schemes.
///
/// The service looks for a bewit in two ways, and so does this function. Without an
/// `Authorization` header it searches the raw target for `?bewit=` or `&bewit=`, with or
/// without a value; even `&bewit=` in the path counts. With an `Authorization` header it looks
/// for a non-empty query parameter whose *decoded* name is `bewit`, such as `?%62ewit=x`.
pub fn has_bewit(target: &str) -> bool {
    let bytes = target.as_bytes();
    let is_plain = |at: usize| {
        bytes
            .get(at + 1..)
            .is_some_and(|b| b.starts_with(b"bewit="))
    };
    target.starts_with('/')
        && (memchr::memchr2_iter(b'?', b'&', bytes).any(is_plain) || has_decoded_bewit(bytes))
}

/// Whether there is a non-empty parameter whose decoded name is `bewit`. Two of them form a
/// list, which is never empty.
fn has_decoded_bewit(target: &[u8]) -> bool {
    let query = memchr::memchr(b'?', target).and_then(|at| target.get(at + 1..));
    let mut seen = false;
    for pair in query.unwrap_or_default().split(|byte| *byte == b'&') {
        // Nearly all names end here.
        if !matches!(pair, [b'b' | b'%', ..]) {
            continue;
        }
        let end = pair.iter().position(|byte| *byte == b'=');
        let (name, value) = pair.split_at(end.unwrap_or(pair.len()));
        if is_bewit(name) {
            if seen || value.len() > 1 {
                return true;
            }
            seen = true;
        }
    }
    false
}

/// Whether `name` percent-decodes to `bewit`.
fn is_bewit(name: &[u8]) -> bool {
    let mut rest = name;
    for &expected in b"bewit" {
        let (byte, tail) = match rest {
            [b'%', high, low, tail @ ..] => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => (high * 16 + low, tail),
                _ => return false,
            },
            [byte, tail @ ..] => (*byte, tail),
            [] => return false,
        };
        if byte != expected {
            return false;
        }
        rest = tail;
    }
    rest.is_empty()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::SecretString;

    fn signer(ext: &str) -> Signer {
        let key = SecretString::from("2983d45yun89q");
        Signer::with_ext("123456", &key, SecretString::from(ext)).unwrap()
    }

    fn published(port: u16) -> BewitRequest<'static> {
        BewitRequest {
            target: "/somewhere/over/the/rainbow",
            host: "example.com",
            port,
            expires: UnixMillis::from_secs(1_356_420_707),
        }
    }

    #[test]
    fn bewits_match_the_published_vectors() {
        let table = [
            (
                "xandyandz",
                443,
                "MTIzNDU2XDEzNTY0MjA3MDdca3NjeHdOUjJ0SnBQMVQxekRMTlBiQjVVaUtJVTl0T1NKWFRVZEc3WDloOD1ceGFuZHlhbmR6",
            ),
            (
                "xandyandz",
                8080,
                "MTIzNDU2XDEzNTY0MjA3MDdcaFpiSjNQMmNLRW80a3kwQzhqa1pBa1J5Q1p1ZWc0V1NOYnhWN3ZxM3hIVT1ceGFuZHlhbmR6",
            ),
            (
                "",
                443,
                "MTIzNDU2XDEzNTY0MjA3MDdcSUdZbUxnSXFMckNlOEN4dktQczRKbFdJQStValdKSm91d2dBUmlWaENBZz1c",
            ),
        ];
        for (ext, port, bewit) in table {
            assert_eq!(
                signer(ext).with_bewit(&published(port)).unwrap(),
                format!("/somewhere/over/the/rainbow?bewit={bewit}")
            );
        }
    }

    #[test]
    fn a_bewit_is_appended_to_any_query() {
        for (target, start) in [
            ("/a", "/a?bewit="),
            ("/a?", "/a?&bewit="),
            ("/a?b=c", "/a?b=c&bewit="),
        ] {
            let request = BewitRequest {
                target,
                ..published(443)
            };
            let made = signer("").with_bewit(&request).unwrap();
            assert!(made.starts_with(start), "{made}");
            assert!(has_bewit(&made));
            let again = BewitRequest {
                target: &made,
                ..request
            };
            assert_eq!(signer("").with_bewit(&again), Err(HawkError::SecondScheme));
        }
    }

    #[test]
    fn targets_up_to_exactly_the_length_limit_are_accepted() {
        let plain = signer("").with_bewit(&published(443)).unwrap().len();
        let fill = MAX_TARGET_CHARS - plain;
        for (extra, fits) in [(fill, true), (fill + 1, false)] {
            let target = format!("/somewhere/over/the/rainbow{}", "x".repeat(extra));
            let request = BewitRequest {
                target: &target,
                ..published(443)
            };
            let made = signer("").with_bewit(&request);
            assert_eq!(made.is_ok(), fits, "{made:?}");
        }
    }

    #[test]
    fn bewits_are_detected_exactly_as_by_the_service() {
        let yes = [
            "/a?bewit=x",
            "/a?bewit=",
            "/a?b=c&bewit=x",
            "/a?b=c&bewit=x&d=e",
            "/a&bewit=x",
            "/a?%62ewit=x",
            "/a?b%65%77%69%74=x",
            "/a?x=1&%62%65wi%74=x#",
            "/a?bewit&bewit",
            "/a?x=?bewit=y",
            "//a?bewit=x",
        ];
        let no = [
            "/a",
            "/a?",
            "/a?bewit",
            "/a?%62ewit=",
            "/a?BEWIT=x",
            "/a?xbewit=1",
            "/a?bewit%3Dx",
            "/a?bewit2=x",
            "/bewit=x",
            "/a/bewit=x",
            "/a%3Fbewit=x",
            "/a?b=%26bewit=x",
            "/a?%2562ewit=x",
            "/a?%6=x",
            "/a?%zzewit=x",
            "/a?b=bewit",
            "",
        ];
        for target in yes {
            assert!(has_bewit(target), "{target}");
        }
        for target in no {
            assert!(!has_bewit(target), "{target}");
        }
    }
}
