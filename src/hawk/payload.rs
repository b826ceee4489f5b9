//! The payload hash. hawkgate sends none, because Taskcluster does not check it; the function
//! serves tools and the published test vectors.

use aws_lc_rs::digest::{Context, SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The base64 SHA-256 hash of `payload`. The parameters and the case of `content_type` are
/// ignored (Hawk 1.0, "Payload Validation").
pub fn payload_hash(content_type: &str, payload: &[u8]) -> String {
    let media_type = content_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    let mut context = Context::new(&SHA256);
    for part in [
        b"hawk.1.payload\n",
        media_type.as_bytes(),
        b"\n",
        payload,
        b"\n",
    ] {
        context.update(part);
    }
    STANDARD.encode(context.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_the_published_example() {
        let expected = "Yi9LfIIFRtBEPt74PVmbTF/xVAwPn7ub15ePICfgnuY=";
        for content_type in ["text/plain", "Text/Plain ; charset=utf-8"] {
            assert_eq!(
                payload_hash(content_type, b"Thank you for flying Hawk"),
                expected
            );
        }
        assert_ne!(payload_hash("", b"Thank you for flying Hawk"), expected);
    }
}
