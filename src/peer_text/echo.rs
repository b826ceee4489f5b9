//! Detects a secret that was sent to a peer in what the peer answers.
//!
//! A secret of at least 16 bytes counts as found if a piece of 32 bytes from it appears, as it is or
//! percent-encoded, escaped as in JSON, in base64 or base64url, in hex, in another case, or in up to
//! two of these on top of each other. A shorter one, such as `dev`, is a part of many words, so it
//! counts as found only as a whole word (see [`word`]), as it is or percent-encoded or escaped as in
//! JSON. Answers that contain none of it cost a search for
//! each field value that is long enough, and no allocation unless a value has an escape or a run of
//! characters that could be such an encoding.

use std::ops::Range;

use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::engine::{DecodePaddingMode, Engine};
use memchr::memmem;

/// The length of the piece that is searched for. A piece of that length is found even if the echo is
/// cut off, and no other text contains it by chance.
const PIECE: usize = 32;
/// How many bytes at the end of a secret are not part of its piece, if it is long enough. The end of
/// a token is its signature, so the piece should be near it.
const MARGIN: usize = 8;
/// The shortest secret that is searched for in any place and in every encoding. Shorter ones would be
/// found everywhere.
const SHORTEST_PIECE: usize = 16;
/// The most encodings on top of each other that are undone.
const MAX_NESTING: usize = 2;

/// Accepts base64 that is cut off at either end.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Whether `text` contains one of `secrets`.
pub fn is_echoed<'s, I: Iterator<Item = &'s [u8]>>(text: &[u8], secrets: impl Fn() -> I) -> bool {
    let mut shortest = usize::MAX;
    for secret in secrets().filter(|secret| !secret.is_empty()) {
        if secret.len() >= SHORTEST_PIECE {
            shortest = shortest.min(piece(secret).len());
        } else if contains_word(text, secret, MAX_NESTING) {
            return true;
        }
    }
    if text.len() < shortest {
        return false;
    }
    let long = || secrets().filter(|secret| secret.len() >= SHORTEST_PIECE);
    let pieces = || long().map(piece);
    if pieces().any(|piece| memmem::find(text, piece).is_some()) {
        return true;
    }
    let contains = |decoded: &[u8]| pieces().any(|piece| find_similar(decoded, piece));
    may_be_encoded(text, shortest) && found(text, shortest, MAX_NESTING, &contains)
}

/// Returns the length of the shortest text that can contain one of `secrets` in any form.
pub fn shortest_echo<'s>(secrets: impl Iterator<Item = &'s [u8]>) -> usize {
    let length = |secret: &[u8]| match secret.len() {
        SHORTEST_PIECE.. => piece(secret).len(),
        length => length,
    };
    let lengths = secrets.filter(|secret| !secret.is_empty()).map(length);
    lengths.min().unwrap_or(usize::MAX)
}

/// Whether `text` contains `word` as a whole word, or does so once its escapes are undone.
fn contains_word(text: &[u8], word: &[u8], nesting: usize) -> bool {
    let again = |decoded: &[u8]| contains_word(decoded, word, nesting - 1);
    let found_at = |(start, window): (usize, &[u8])| {
        window == word && is_whole_word(text, start..start + word.len())
    };
    text.windows(word.len()).enumerate().any(found_at)
        || (nesting > 0
            && has_escapes(text)
            && (again(&percent_decoded(text)) || again(&unescaped(text))))
}

/// Whether what is at `range` in `text` is not a part of a longer word. Words consist of letters,
/// digits, bytes that are not ASCII, and between two of these also `-`, `.`, `_` and `~` (with them the
/// unreserved characters of RFC 3986 §2.3): `dev` is a word in `Bearer dev`, `?t=dev&u` and `/dev/`, but
/// not in `developer`, `dev.example.com` or `x-dev`.
fn is_whole_word(text: &[u8], range: Range<usize>) -> bool {
    let before = text.get(..range.start).unwrap_or_default();
    let after = text.get(range.end..).unwrap_or_default();
    let word = text.get(range).unwrap_or_default();
    let continues = |byte: Option<&u8>| byte.is_some_and(|b| is_letter(*b) || joins(*b));
    let begins_earlier = match before {
        // A control character, as JSON escapes it.
        [.., b'\\', b'b' | b'f' | b'n' | b'r' | b't'] => false,
        [.., byte] if is_letter(*byte) => true,
        [.., letter, byte] => is_letter(*letter) && joins(*byte),
        _ => false,
    };
    let ends_later = match after {
        [byte, ..] if is_letter(*byte) => true,
        [byte, letter, ..] => joins(*byte) && is_letter(*letter),
        _ => false,
    };
    !(begins_earlier && continues(word.first()) || ends_later && continues(word.last()))
}

fn is_letter(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || !byte.is_ascii()
}

fn joins(byte: u8) -> bool {
    matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Whether `text`, a name that will be logged, contains `token`. A token that is too short to be a
/// secret counts as not contained: it could be a part of any name.
pub fn names_token(text: &str, token: &str) -> bool {
    token.len() >= SHORTEST_PIECE
        && is_echoed(text.as_bytes(), || std::iter::once(token.as_bytes()))
}

/// The piece of `secret` that is searched for.
fn piece(secret: &[u8]) -> &[u8] {
    let end = secret.len().saturating_sub(MARGIN).max(PIECE);
    let end = end.min(secret.len());
    secret.get(end.saturating_sub(PIECE)..end).unwrap_or(secret)
}

/// Whether decoding may lead anywhere, which it does not for most values.
fn may_be_encoded(text: &[u8], shortest: usize) -> bool {
    // The characters of a token (RFC 6750 §2.1).
    let of_token = |b: u8| is_base64(b) || matches!(b, b'=' | b'.' | b'~');
    has_escapes(text) || runs(text, of_token).any(|run| run.len() >= shortest)
}

fn has_escapes(text: &[u8]) -> bool {
    memchr::memchr2(b'%', b'\\', text).is_some()
}

/// Whether `contains` is true of `text`, or of what any part of it decodes to. `shortest` is the
/// length from which on `contains` can be true.
fn found(text: &[u8], shortest: usize, nesting: usize, contains: &dyn Fn(&[u8]) -> bool) -> bool {
    if text.len() < shortest {
        return false;
    }
    if contains(text) {
        return true;
    }
    if nesting == 0 {
        return false;
    }
    let again = |decoded: Vec<u8>| found(&decoded, shortest, nesting - 1, contains);
    if has_escapes(text) && (again(percent_decoded(text)) || again(unescaped(text))) {
        return true;
    }
    let from = |run: &[u8], skip: usize| run.get(skip..).unwrap_or_default().to_vec();
    // What surrounds an echo may belong to the same run, so every alignment is tried.
    let mut base64 = runs(text, is_base64).filter(|run| run.len() / 4 * 3 + 2 >= shortest);
    let mut hex = runs(text, |b| b.is_ascii_hexdigit()).filter(|run| run.len() / 2 >= shortest);
    base64.any(|run| (0..4).any(|skip| again(base64_decoded(from(run, skip)))))
        || hex.any(|run| (0..2).any(|skip| again(hex_decoded(&from(run, skip)))))
}

/// The longest parts of `text` that consist of bytes for which `of` is true.
fn runs(text: &[u8], of: impl Fn(u8) -> bool) -> impl Iterator<Item = &[u8]> {
    text.split(move |byte| !of(*byte))
        .filter(|run| !run.is_empty())
}

fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_')
}

/// Whether `text` contains `piece`, regardless of case and of the alphabet of base64.
fn find_similar(text: &[u8], piece: &[u8]) -> bool {
    let similar = |(a, b): (&u8, &u8)| folded(*a) == folded(*b);
    text.windows(piece.len())
        .any(|window| window.iter().zip(piece).all(similar))
}

fn folded(byte: u8) -> u8 {
    match byte {
        b'-' => b'+',
        b'_' => b'/',
        other => other.to_ascii_lowercase(),
    }
}

fn percent_decoded(text: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match (byte, after) {
            (b'%', [high, low, after @ ..]) => match (hex_digit(*high), hex_digit(*low)) {
                (Some(high), Some(low)) => {
                    decoded.push(high << 4 | low);
                    rest = after;
                }
                _ => decoded.push(b'%'),
            },
            _ => decoded.push(*byte),
        }
    }
    decoded
}

/// `text` without backslashes, and with `\u0000` to `\u007f` replaced by their characters. No secret
/// contains a backslash or a control character.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match (byte, after) {
            (
                b'\\',
                [b'u' | b'U', b'0', b'0', high, low, after @ ..]
                | [b'x' | b'X', high, low, after @ ..],
            ) => {
                if let (Some(high), Some(low)) = (hex_digit(*high), hex_digit(*low)) {
                    decoded.push(high << 4 | low);
                    rest = after;
                }
            }
            (b'\\', _) => {}
            _ => decoded.push(*byte),
        }
    }
    decoded
}

/// `run` decoded from base64 or base64url; a single character at the end is left out.
fn base64_decoded(mut run: Vec<u8>) -> Vec<u8> {
    for byte in &mut run {
        match byte {
            b'-' => *byte = b'+',
            b'_' => *byte = b'/',
            _ => {}
        }
    }
    if run.len() % 4 == 1 {
        run.pop();
    }
    BASE64.decode(run).unwrap_or_default()
}

fn hex_decoded(run: &[u8]) -> Vec<u8> {
    let digits = run.iter().copied().filter_map(hex_digit);
    let digits: Vec<u8> = digits.collect();
    let (pairs, _) = digits.as_chunks::<2>();
    pairs.iter().map(|[high, low]| high << 4 | low).collect()
}

fn hex_digit(byte: u8) -> Option<u8> {
    let digit = char::from(byte).to_digit(16)?;
    u8::try_from(digit).ok()
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

    use super::*;

    const TOKEN: &str =
        "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJtZSJ9.Qm9iJ3Mgc2lnbmF0dXJlIGlzIG5vdA-yZWFsIGF0_GFsbA";
    const MAC: &str = "6R4rV5iE+NPoym+WwjeHzjAGXUtLNIxmo1vpMofpLAE=";

    fn echoes(secret: &str, text: &str) -> bool {
        is_echoed(text.as_bytes(), || std::iter::once(secret.as_bytes()))
    }

    /// Each byte in hex after `prefix`.
    fn each(secret: &str, prefix: &str) -> String {
        let bytes: Vec<_> = secret.bytes().map(|b| format!("{prefix}{b:02x}")).collect();
        bytes.concat()
    }

    fn forms(secret: &str) -> Vec<String> {
        let hex = each(secret, "");
        let all = each(secret, "%");
        let unicode = each(secret, "\\u00");
        let some = secret
            .replace('+', "%2B")
            .replace('/', "%2f")
            .replace('=', "%3D");
        vec![
            secret.to_owned(),
            format!("https://x.example/?a={secret}&b"),
            secret[..secret.len() - 3].to_owned(),
            secret[2..].to_owned(),
            secret.to_ascii_lowercase(),
            secret.replace('/', "\\/"),
            secret.replace('+', "-").replace('/', "_"),
            some.replace('%', "%25"),
            some,
            hex.to_uppercase(),
            format!("{{\"echo\":\"{unicode}\"}}"),
            STANDARD.encode(secret),
            STANDARD.encode(format!("user:Bearer {secret}!")),
            URL_SAFE_NO_PAD.encode(format!("ab{secret}")),
            URL_SAFE_NO_PAD.encode(STANDARD.encode(format!("a{secret}"))),
            format!("abc{}", STANDARD.encode(secret)),
            all,
            hex,
        ]
    }

    #[test]
    fn a_secret_is_found_in_every_form() {
        for secret in [TOKEN, MAC, "0123456789abcdef-ghijkl", "T0k3n+/5pecial==x"] {
            for form in forms(secret) {
                // What is cut off counts only if it is not short to begin with.
                let cut = form.len() < secret.len() && secret.len() < PIECE + MARGIN;
                assert!(cut || echoes(secret, &form), "{form}");
            }
        }
    }

    #[test]
    fn other_text_is_not_taken_for_a_secret() {
        let (other, _) = TOKEN.rsplit_once('.').unwrap();
        for text in [
            "",
            "text/html; charset=utf-8",
            other,
            &STANDARD.encode(other),
            "default-src 'self'; script-src https://cdn.example.com/a/b/c/d/e/f/g/h/i 'unsafe-inline'",
            "max-age=63072000; includeSubDomains; preload %20 \\\" \\",
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "%",
            "%2",
            "%zz",
            "\\",
            "\\u00",
            "\\x4",
        ] {
            assert!(!echoes(TOKEN, text), "{text}");
        }
        assert!(!echoes("", TOKEN));
    }

    #[test]
    fn a_short_secret_is_found_as_a_whole_word_only() {
        for text in [
            "dev",
            "Bearer dev",
            "Bearer+dev",
            "token is dev.",
            "token: \"dev\"",
            "t=dev; Path=/",
            "https://x.example/?t=dev&u=1",
            "https://x.example/dev/x",
            "https://x.example/?t=a%20dev%20b",
            "%64%65v",
            "%2564ev",
            r#"{"echo":"\u0064ev"}"#,
            r#"{\"echo\":\"dev\"}"#,
            r"Bearer\ndev\n",
            "%22dev%22",
            "-dev-",
            "developer dev",
        ] {
            assert!(echoes("dev", text), "{text}");
        }
        for text in [
            "application/x-developer",
            "x-dev",
            "dev-1",
            "a_dev",
            "dev.example.com",
            "~dev~1",
            "DEV",
            "Dev/1.0",
            "de v",
            "dev\u{e9}",
            "ndev",
            "ZGV2",
            "646576",
            "de",
            "%64eveloper",
            "%",
        ] {
            assert!(!echoes("dev", text), "{text}");
        }
    }

    #[test]
    fn a_short_secret_may_begin_and_end_with_any_character() {
        for (secret, text, found) in [
            ("a=a", "xa=a=a", true),
            ("=a=", "x=a=x", true),
            ("dTpw", "Basic dTpw", true),
            ("dTo=", "dTo=x", true),
            ("a-", "a-b", false),
            ("a-", "a-/b", true),
            ("1", "max-age=1", true),
            ("1", "max-age=10", false),
            ("0123456789abcde", "x0123456789abcde", false),
            ("0123456789abcdef", "x0123456789abcdef", true),
        ] {
            assert_eq!(echoes(secret, text), found, "{secret} in {text}");
        }
    }

    #[test]
    fn no_text_shorter_than_the_shortest_echo_contains_a_secret() {
        for secret in [TOKEN, MAC, "0123456789abcdef", "T0k3n+/5pecial==x"] {
            let shortest = shortest_echo(std::iter::once(secret.as_bytes()));
            assert!(shortest <= secret.len());
            for form in forms(secret) {
                let found = |length| form.get(..length).is_some_and(|text| echoes(secret, text));
                assert!(!(0..shortest).any(found), "{form}");
            }
        }
        let secrets = || [TOKEN, "dev", ""].into_iter().map(str::as_bytes);
        assert_eq!(shortest_echo(secrets()), 3);
        assert_eq!(shortest_echo(std::iter::empty()), usize::MAX);
    }

    #[test]
    fn each_of_several_secrets_is_found() {
        let secrets = || [TOKEN, "dev", ""].into_iter().map(str::as_bytes);
        assert!(is_echoed(b"t=dev", secrets) && is_echoed(TOKEN.as_bytes(), secrets));
        assert!(!is_echoed(b"developer", secrets) && !is_echoed(b"", secrets));
    }
}
