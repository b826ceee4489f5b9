//! Decoding as servers do it: percent-escapes, including IIS's `%uXXXX`, and the bytes behind them,
//! which are not always valid UTF-8.

use icu_normalizer::DecomposingNormalizerBorrowed;

/// Appends `path` with its escapes decoded once, as each kind of server does it; nothing if there
/// is no valid escape.
pub(super) fn percent_decode(path: &str, into: &mut Vec<String>) {
    if !path.contains('%') {
        return;
    }
    for unicode_escapes in [false, true] {
        let Some(decoded) = decode_escapes(path.as_bytes(), unicode_escapes) else {
            continue;
        };
        match String::from_utf8(decoded) {
            Ok(text) => into.push(text),
            Err(error) => interpret(error.as_bytes(), into),
        }
    }
}

/// Decodes `%XX`, and either nothing else or IIS's `%uXXXX`; `None` if there was none of the
/// latter, respectively of the former.
fn decode_escapes(path: &[u8], unicode_escapes: bool) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut changed = false;
    let mut rest = path;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte != b'%' {
            decoded.push(*byte);
        } else if let Some((value, after)) = hex_digits(rest, 2) {
            decoded.extend(u8::try_from(value));
            changed |= !unicode_escapes;
            rest = after;
        } else if unicode_escapes
            && let Some(digits) = rest.strip_prefix(b"u").or_else(|| rest.strip_prefix(b"U"))
            && let Some((value, after)) = hex_digits(digits, 4)
        {
            let unpaired = char::REPLACEMENT_CHARACTER;
            let c = char::from_u32(value).unwrap_or(unpaired);
            decoded.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            changed = true;
            rest = after;
        } else {
            decoded.push(b'%');
        }
    }
    changed.then_some(decoded)
}

/// The value of exactly `count` hexadecimal digits, and what follows them.
fn hex_digits(bytes: &[u8], count: usize) -> Option<(u32, &[u8])> {
    let (digits, rest) = bytes.split_at_checked(count)?;
    let value = digits.iter().try_fold(0_u32, |value, digit| {
        Some(value * 16 + char::from(*digit).to_digit(16)?)
    })?;
    Some((value, rest))
}

/// Appends what servers make of bytes that are not UTF-8.
fn interpret(bytes: &[u8], into: &mut Vec<String>) {
    into.push(String::from_utf8_lossy(bytes).into_owned());
    // WSGI (PEP 3333) and older servers take each byte for a character of ISO 8859-1.
    into.push(bytes.iter().copied().map(char::from).collect());
    into.push(bytes.utf8_chunks().map(|chunk| chunk.valid()).collect());
    into.push(lenient_utf8(bytes));
}

/// Decodes UTF-8 without checking it, so that `C0 AF`, `E0 80 AF` and even `C0 2F` are slashes.
fn lenient_utf8(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((lead, after)) = rest.split_first() {
        let (following, bits) = match lead {
            0x00..=0x7f => (0, u32::from(*lead)),
            // A continuation byte by itself is skipped.
            0x80..=0xbf => {
                rest = after;
                continue;
            }
            0xc0..=0xdf => (1, u32::from(lead & 0x1f)),
            0xe0..=0xef => (2, u32::from(lead & 0x0f)),
            0xf0..=0xf7 => (3, u32::from(lead & 0x07)),
            0xf8..=0xfb => (4, u32::from(lead & 0x03)),
            0xfc.. => (5, u32::from(lead & 0x01)),
        };
        let (sequence, after) = after.split_at(following.min(after.len()));
        let value = sequence
            .iter()
            .fold(bits, |value, byte| (value << 6) | u32::from(byte & 0x3f));
        text.push(char::from_u32(value).unwrap_or(char::REPLACEMENT_CHARACTER));
        rest = after;
    }
    text
}

/// Folds characters to the ASCII ones that they are taken for: compatibility forms such as
/// full-width letters (NFKD), accented letters and dashes (Windows' best-fit mapping to a code
/// page), and characters that file systems ignore (HFS+).
pub(super) fn fold(path: &str) -> Option<String> {
    if path.is_ascii() {
        return None;
    }
    let decomposed = DecomposingNormalizerBorrowed::new_nfkd().normalize(path);
    let folded: String = decomposed.chars().filter_map(fold_char).collect();
    (folded != path).then_some(folded)
}

fn fold_char(c: char) -> Option<char> {
    match c {
        // Combining marks, zero-width characters and direction marks.
        '\u{300}'..='\u{36f}'
        | '\u{200b}'..='\u{200f}'
        | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{feff}' => None,
        '\u{ad}' | '\u{2010}'..='\u{2015}' | '\u{2212}' => Some('-'),
        '\u{2044}' | '\u{2215}' | '\u{29f8}' => Some('/'),
        '\u{2216}' | '\u{29f5}' | '\u{29f9}' => Some('\\'),
        '\u{131}' => Some('i'),
        _ => Some(c),
    }
}
