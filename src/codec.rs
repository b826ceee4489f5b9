//! A compact binary encoding for what is sealed: variable-length integers, byte strings after their length, and tokens.
//!
//! A JWT is packed: its segments, decoded from base64url. Sealing encodes them again, so that a token
//! takes as many bytes in the cookie as it has, instead of a third more.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use crate::secret::SecretString;

/// A token of the form `segment.segment.segment`, whose segments are canonical base64url.
const PACKED: u8 = 1;
/// Any other token.
const RAW: u8 = 0;
/// The most segments: five, in an encrypted JWT (RFC 7516 §3.1).
const MAX_SEGMENTS: usize = 5;

/// Writes values one after the other.
#[derive(Default)]
pub struct Writer(Zeroizing<Vec<u8>>);

impl Writer {
    /// A writer with room for `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> Self {
        Self(Zeroizing::new(Vec::with_capacity(capacity)))
    }

    /// What was written.
    pub fn finish(self) -> Zeroizing<Vec<u8>> {
        self.0
    }

    /// One byte.
    pub fn byte(&mut self, byte: u8) {
        self.reserve(1);
        self.0.push(byte);
    }

    /// Bytes without their length.
    pub fn fixed(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    /// LEB128: seven bits in each byte, least significant first.
    pub fn number(&mut self, mut number: u64) {
        loop {
            // The mask leaves seven bits.
            let low = (number & 0x7f) as u8;
            number >>= 7;
            if number == 0 {
                self.byte(low);
                return;
            }
            self.byte(low | 0x80);
        }
    }

    /// Bytes after their length.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.fixed(bytes);
    }

    /// Text after its length in bytes.
    pub fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// A value that may be absent.
    pub fn optional<T: ?Sized>(&mut self, value: Option<&T>, write: impl Fn(&mut Self, &T)) {
        self.byte(u8::from(value.is_some()));
        if let Some(value) = value {
            write(self, value);
        }
    }

    /// A token, packed if it is a JWT.
    pub fn token(&mut self, token: &str) {
        let Some(segments) = unpack(token) else {
            self.byte(RAW);
            self.text(token);
            return;
        };
        self.byte(PACKED);
        self.number(segments.len() as u64);
        for segment in segments {
            self.bytes(&segment);
        }
    }

    /// Makes room for `more` bytes, and wipes what it moves: a reallocation would leave a copy.
    fn reserve(&mut self, more: usize) {
        let needed = self.0.len().saturating_add(more);
        if needed > self.0.capacity() {
            let mut larger = Zeroizing::new(Vec::with_capacity(needed.saturating_mul(2).max(256)));
            larger.extend_from_slice(&self.0);
            self.0 = larger;
        }
    }
}

/// The decoded segments, if encoding them again gives `token` byte for byte.
fn unpack(token: &str) -> Option<Vec<Zeroizing<Vec<u8>>>> {
    // The decoder refuses padding and non-zero bits after the end, so a segment has one spelling.
    let decode = |segment| URL_SAFE_NO_PAD.decode(segment).ok().map(Zeroizing::new);
    let segments: Vec<_> = token
        .split('.')
        .take(MAX_SEGMENTS + 1)
        .map(decode)
        .collect::<Option<_>>()?;
    (segments.len() <= MAX_SEGMENTS).then_some(segments)
}

/// Reads what [`Writer`] wrote. Every method returns `None` at the first byte that it cannot have
/// written.
#[derive(Clone, Copy)]
pub struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    /// Reads `bytes` from the beginning.
    pub fn new(bytes: &'b [u8]) -> Self {
        Self(bytes)
    }

    /// Whether everything has been read.
    pub fn is_at_end(&self) -> bool {
        self.0.is_empty()
    }

    /// See [`Writer::byte`].
    pub fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    /// See [`Writer::fixed`].
    pub fn fixed<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*bytes)
    }

    /// See [`Writer::number`].
    pub fn number(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return None;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    /// See [`Writer::bytes`].
    pub fn bytes(&mut self) -> Option<&'b [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    /// See [`Writer::text`].
    pub fn text(&mut self) -> Option<&'b str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    /// `Some(None)` for an absent value.
    #[allow(clippy::option_option)]
    pub fn optional<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        match self.byte()? {
            0 => Some(None),
            1 => read(self).map(Some),
            _ => None,
        }
    }

    /// See [`Writer::token`].
    pub fn token(&mut self) -> Option<SecretString> {
        match self.byte()? {
            RAW => self.text().map(SecretString::from),
            PACKED => self.packed(),
            _ => None,
        }
    }

    fn packed(&mut self) -> Option<SecretString> {
        let count = usize::try_from(self.number()?).ok()?;
        if count > MAX_SEGMENTS {
            return None;
        }
        // Known in advance, so that the text is never moved.
        let mut ahead = *self;
        let mut length = count.saturating_sub(1);
        for _ in 0..count {
            length += (ahead.bytes()?.len() * 4).div_ceil(3);
        }
        let mut text = String::with_capacity(length);
        for index in 0..count {
            if index > 0 {
                text.push('.');
            }
            URL_SAFE_NO_PAD.encode_string(self.bytes()?, &mut text);
        }
        Some(SecretString::new(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(token: &str) -> Zeroizing<Vec<u8>> {
        let mut writer = Writer::default();
        writer.token(token);
        writer.finish()
    }

    fn read_back(token: &str) -> (usize, String) {
        let bytes = written(token);
        let mut reader = Reader::new(&bytes);
        let read = reader.token().unwrap();
        assert!(reader.is_at_end());
        (bytes.len(), read.expose().to_owned())
    }

    #[test]
    fn tokens_are_read_byte_for_byte() {
        let jwt = format!(
            "{}.{}.{}",
            URL_SAFE_NO_PAD.encode("{\"alg\":\"RS256\"}"),
            URL_SAFE_NO_PAD.encode("{\"sub\":\"ä\"}".repeat(30)),
            URL_SAFE_NO_PAD.encode([0xff; 256])
        );
        let odd = [
            "",
            ".",
            "..",
            "a",
            "ab",
            "ab.",
            "AB.CD",
            "v1.MRrt_x-opaque~token/+==",
            "eyJ.eyJ.x",
            "a.b.c.d.e.f",
            "a.b.c.d.e.f.g",
            "ü.ü",
            "YQ==.YQ==",
            "YR.YQ",
            "AAAA.BBBB.CCCC.DDDD.EEEE",
            "AAAA.BBBB.CCCC.DDDD.EEEE.FFFF",
        ];
        for token in odd.into_iter().chain([jwt.as_str()]) {
            assert_eq!(read_back(token).1, token);
        }
        let (length, _) = read_back(&jwt);
        assert!(length * 4 < jwt.len() * 3 + 40, "{length} of {}", jwt.len());
    }

    #[test]
    fn numbers_have_one_to_ten_bytes() {
        for number in [0, 1, 127, 128, 300, u64::from(u32::MAX), 1 << 63, u64::MAX] {
            let mut writer = Writer::default();
            writer.number(number);
            let bytes = writer.finish();
            let mut reader = Reader::new(&bytes);
            assert_eq!((reader.number(), reader.is_at_end()), (Some(number), true));
            let cut = bytes.len() - 1;
            assert_eq!(Reader::new(&bytes[..cut]).number(), None);
        }
        assert_eq!(Reader::new(&[0xff; 11]).number(), None);
        let too_large = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02];
        assert_eq!(Reader::new(&too_large).number(), None);
    }

    #[test]
    fn a_length_beyond_the_end_is_refused() {
        for bytes in [
            &[5, b'a'][..],
            &[
                0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, b'a',
            ],
            &[],
        ] {
            assert_eq!(Reader::new(bytes).bytes(), None);
        }
        assert!(Reader::new(&[PACKED, 6]).token().is_none());
        assert!(Reader::new(&[7]).token().is_none());
        assert!(Reader::new(&[RAW, 1, 0xff]).token().is_none());
        assert_eq!(Reader::new(&[2]).optional(Reader::byte), None);
    }
}
