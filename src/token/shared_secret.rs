//! The secret of a `shared-secret` issuer, which signs with HMAC (RFC 7518 §3.2).
//!
//! Anyone who has the secret can create tokens, so it is kept separate from JWK Sets: an issuer has
//! one or the other, and public keys are never used with HMAC algorithms.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use jsonwebtoken::DecodingKey;
use zeroize::Zeroizing;

use super::TokenError;
use super::signature::Verifier;
use crate::clock::SharedClock;
use crate::secret::SecretRef;
use crate::token::settings::{Algorithm, SecretEncoding};

/// How often the secret is read again, so that rotation takes effect without a reload.
const INTERVAL: Duration = Duration::from_secs(10);

/// How often reading is retried while there is no usable secret.
const RETRY: Duration = Duration::from_secs(1);

/// Why a secret cannot be used. Messages do not quote its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SharedSecretError {
    /// The text is not valid in the configured encoding.
    #[error("is not base64")]
    Encoding,
    /// The secret is shorter than the hash, which RFC 7518 §3.2 forbids: a short secret can be
    /// guessed from a single token.
    #[error("is shorter than the {} bytes that {} needs", .0.hmac_bytes(), .0.name())]
    TooShort(Algorithm),
}

/// Decodes a secret and checks that it is long enough for each of `algorithms`.
///
/// # Errors
/// If the text is not valid in `encoding`, or the secret is too short.
pub fn decode_shared_secret(
    text: &str,
    encoding: SecretEncoding,
    algorithms: &[Algorithm],
) -> Result<Zeroizing<Vec<u8>>, SharedSecretError> {
    /// Accepts text with or without padding.
    const LENIENT: GeneralPurpose = GeneralPurpose::new(
        &STANDARD,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    let bytes = match encoding {
        SecretEncoding::Text => text.as_bytes().to_vec(),
        SecretEncoding::Base64 => {
            let text = Zeroizing::new(text.replace('-', "+").replace('_', "/"));
            LENIENT
                .decode(text.as_bytes())
                .map_err(|_| SharedSecretError::Encoding)?
        }
    };
    let bytes = Zeroizing::new(bytes);
    match algorithms.iter().find(|a| bytes.len() < a.hmac_bytes()) {
        Some(algorithm) => Err(SharedSecretError::TooShort(*algorithm)),
        None => Ok(bytes),
    }
}

/// The secret of one issuer, read again periodically in the background.
#[derive(Debug)]
pub(super) struct SharedSecret {
    issuer: Arc<str>,
    source: SecretRef,
    encoding: SecretEncoding,
    algorithms: Vec<Algorithm>,
    clock: SharedClock,
    current: ArcSwapOption<CurrentSecret>,
    /// Monotonic milliseconds.
    next_read: AtomicU64,
    /// The last problem, which is logged only once. Locked while the secret is read.
    last_problem: tokio::sync::Mutex<Option<String>>,
}

/// The current secret.
struct CurrentSecret {
    /// Incremented when the secret changes.
    epoch: u64,
    bytes: Zeroizing<Vec<u8>>,
    /// Contains its own copy of the bytes, which it wipes on drop.
    key: Arc<DecodingKey>,
}

impl std::fmt::Debug for CurrentSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CurrentSecret({}, [redacted])", self.epoch)
    }
}

impl SharedSecret {
    /// A secret that has not been read yet.
    pub(super) fn new(
        issuer: Arc<str>,
        source: SecretRef,
        encoding: SecretEncoding,
        algorithms: Vec<Algorithm>,
        clock: SharedClock,
    ) -> Self {
        Self {
            issuer,
            source,
            encoding,
            algorithms,
            clock,
            current: ArcSwapOption::empty(),
            next_read: AtomicU64::new(0),
            last_problem: tokio::sync::Mutex::default(),
        }
    }

    /// The epoch of the current secret, if there is one.
    pub(super) fn epoch(&self) -> Option<u64> {
        self.current.load().as_ref().map(|current| current.epoch)
    }

    /// Verifies a signature in constant time, and returns the epoch of the secret that did.
    pub(super) async fn verify(
        &self,
        algorithm: Algorithm,
        signing_input: &[u8],
        signature: &str,
    ) -> Result<u64, TokenError> {
        if self.current.load().is_none() {
            self.refresh_if_due().await;
        }
        let current = self.current.load();
        let current = current
            .as_ref()
            .ok_or(TokenError::KeysUnavailable { retry_after: RETRY })?;
        if !self.algorithms.contains(&algorithm) {
            return Err(TokenError::UnacceptableAlgorithm);
        }
        let verifier = Verifier::new(algorithm, Arc::clone(&current.key));
        if !verifier.verify(signing_input, signature) {
            return Err(TokenError::BadSignature);
        }
        Ok(current.epoch)
    }

    /// Reads the secret if due. If that fails, the last one stays current, because some tools do
    /// not replace files atomically.
    pub(super) async fn refresh_if_due(&self) {
        // Concurrent callers wait for the read in progress.
        let mut last_problem = self.last_problem.lock().await;
        let now = millis(self.clock.monotonic());
        if now < self.next_read.load(Ordering::Acquire) {
            return;
        }
        let source = self.source.clone();
        let read = tokio::task::spawn_blocking(move || source.read()).await;
        let problem = match read {
            Ok(Ok(secret)) => self.install(secret.expose()).err().map(|e| e.to_string()),
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("the read was interrupted".to_owned()),
        };
        let wait = if problem.is_none() { INTERVAL } else { RETRY };
        self.next_read
            .store(now.saturating_add(millis(wait)), Ordering::Release);
        if let Some(problem) = problem.as_ref().filter(|_| *last_problem != problem) {
            tracing::warn!(issuer = &*self.issuer, %problem, "the shared secret cannot be used");
        }
        *last_problem = problem;
    }

    /// The time until the next read.
    pub(super) fn next_refresh_in(&self) -> Duration {
        let next = Duration::from_millis(self.next_read.load(Ordering::Acquire));
        next.saturating_sub(self.clock.monotonic())
    }

    fn install(&self, text: &str) -> Result<(), SharedSecretError> {
        let bytes = decode_shared_secret(text, self.encoding, &self.algorithms)?;
        let before = self.current.load();
        if before
            .as_ref()
            .is_some_and(|current| current.bytes == bytes)
        {
            return Ok(());
        }
        let secret = CurrentSecret {
            epoch: before.as_ref().map_or(0, |current| current.epoch + 1),
            key: Arc::new(DecodingKey::from_secret(&bytes)),
            bytes,
        };
        self.current.store(Some(Arc::new(secret)));
        tracing::info!(issuer = &*self.issuer, "a new shared secret is in use");
        Ok(())
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
