//! Keys of 32 bytes that operators make with `openssl rand -base64 32`.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::engine::{DecodePaddingMode, general_purpose};
use zeroize::Zeroizing;

use super::SecretString;

/// The bytes of a key.
pub const KEY_BYTES: usize = 32;

/// base64 with or without padding.
const LENIENT: GeneralPurposeConfig =
    general_purpose::NO_PAD.with_decode_padding_mode(DecodePaddingMode::Indifferent);

/// The key that `text` spells in base64, of either alphabet.
///
/// # Errors
/// If it is not one, or one that anybody can guess. The message completes a sentence that begins with the
/// key's place.
pub fn decode_key(text: &SecretString) -> Result<Zeroizing<Vec<u8>>, &'static str> {
    let standard = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
    let url_safe = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);
    let text = text.expose().trim();
    let decoded = standard.decode(text).or_else(|_| url_safe.decode(text));
    let key = Zeroizing::new(decoded.map_err(|_| "is not base64")?);
    if key.len() != KEY_BYTES {
        return Err("is not 32 bytes long");
    }
    let first = key.first();
    if key.iter().all(|byte| Some(byte) == first) {
        return Err("is the same byte 32 times, which anybody can guess");
    }
    Ok(key)
}

/// What is wrong with the text of a key; `None` if nothing.
pub fn key_problem(text: &SecretString) -> Option<&'static str> {
    decode_key(text).err()
}

/// Whether both texts are the same key, which they can be in different spellings.
pub fn is_same_key(one: &SecretString, other: &SecretString) -> bool {
    matches!((decode_key(one), decode_key(other)), (Ok(one), Ok(other)) if one == other)
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    #[test]
    fn a_key_is_32_bytes_in_either_alphabet() {
        let bytes: Vec<u8> = (0xe0..=0xff).collect();
        let key = SecretString::new(STANDARD.encode(bytes));
        let spelled = key.expose().replace('+', "-").replace('/', "_");
        let url_safe = SecretString::new(spelled.trim_end_matches('=').to_owned());
        assert!(is_same_key(&key, &url_safe));
        assert_eq!(key_problem(&url_safe), None);
        let same = SecretString::new(STANDARD.encode([7; 32]));
        for (bad, problem) in [
            (SecretString::from(""), "is not 32 bytes long"),
            ("c2hvcnQ".into(), "is not 32 bytes long"),
            ("not a key".into(), "is not base64"),
            (same, "is the same byte 32 times, which anybody can guess"),
        ] {
            assert_eq!(key_problem(&bad), Some(problem));
        }
    }
}
