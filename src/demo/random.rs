//! Random identifiers and secrets.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;

use super::DemoError;

/// Returns `N` random bytes.
pub(super) fn random_bytes<const N: usize>() -> Result<[u8; N], DemoError> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| DemoError::Start("no random bytes available".into()))?;
    Ok(bytes)
}

/// Returns 128 random bits as 22 characters, like a Taskcluster slugid.
pub(super) fn random() -> Result<String, DemoError> {
    Ok(BASE64URL.encode(random_bytes::<16>()?))
}
