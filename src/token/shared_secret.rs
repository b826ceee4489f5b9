//! The secret that an issuer of kind `shared-secret` signs with (HMAC, RFC 7518 §3.2).
//!
//! Whoever holds it can make any token, so it never meets a JWK Set: an issuer has one or the
//! other, and an HMAC algorithm is never looked for among public keys.

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

/// How often the secret is read again, so that a rotated one takes effect by itself.
const INTERVAL: Duration = Duration::from_secs(10);

/// Between two attempts while there is none.
const RETRY: Duration = Duration::from_secs(1);

/// Why a secret cannot be used. Says nothing of its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SharedSecretError {
    /// Not what its encoding says.
    #[error("is not base64")]
    Encoding,
    /// Shorter than the hash: RFC 7518 §3.2 forbids it, because it could be guessed from a
    /// single token.
    #[error("is shorter than the {} bytes that {} needs", .0.hmac_bytes(), .0.name())]
    TooShort(Algorithm),
}

/// The bytes of a secret that is written as `encoding` says, if they are enough for each of
/// `algorithms`.
///
/// # Errors
/// When they are not.
pub fn decode_shared_secret(
    text: &str,
    encoding: SecretEncoding,
    algorithms: &[Algorithm],
) -> Result<Zeroizing<Vec<u8>>, SharedSecretError> {
    /// Either alphabet, padded or not.
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

/// The secret of one issuer, kept fresh in the background.
#[derive(Debug)]
pub(super) struct SharedSecret {
    issuer: Arc<str>,
    place: SecretRef,
    encoding: SecretEncoding,
    algorithms: Vec<Algorithm>,
    clock: SharedClock,
    held: ArcSwapOption<Held>,
    /// Monotonic milliseconds.
    next_read: AtomicU64,
    /// Held while it is read; what was wrong the last time, which is logged once.
    reading: tokio::sync::Mutex<Option<String>>,
}

/// The secret in force.
struct Held {
    /// Grows when the secret changes.
    epoch: u64,
    bytes: Zeroizing<Vec<u8>>,
    /// Its own copy of the bytes; wiped when it is dropped.
    key: Arc<DecodingKey>,
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Held({}, [redacted])", self.epoch)
    }
}

impl SharedSecret {
    /// Nothing is read yet.
    pub(super) fn new(
        issuer: Arc<str>,
        place: SecretRef,
        encoding: SecretEncoding,
        algorithms: Vec<Algorithm>,
        clock: SharedClock,
    ) -> Self {
        Self {
            issuer,
            place,
            encoding,
            algorithms,
            clock,
            held: ArcSwapOption::empty(),
            next_read: AtomicU64::new(0),
            reading: tokio::sync::Mutex::default(),
        }
    }

    /// The epoch in force, if there is a secret.
    pub(super) fn epoch(&self) -> Option<u64> {
        self.held.load().as_ref().map(|held| held.epoch)
    }

    /// Checks a signature in constant time; gives the epoch of the secret that proved it.
    pub(super) async fn verify(
        &self,
        algorithm: Algorithm,
        signing_input: &[u8],
        signature: &str,
    ) -> Result<u64, TokenError> {
        if self.held.load().is_none() {
            self.refresh_if_due().await;
        }
        let held = self.held.load();
        let held = held
            .as_ref()
            .ok_or(TokenError::KeysUnavailable { retry_after: RETRY })?;
        if !self.algorithms.contains(&algorithm) {
            return Err(TokenError::UnacceptableAlgorithm);
        }
        let verifier = Verifier::new(algorithm, Arc::clone(&held.key));
        if !verifier.verify(signing_input, signature) {
            return Err(TokenError::BadSignature);
        }
        Ok(held.epoch)
    }

    /// Reads the secret if it is time to. While it cannot be read, what was read last stays:
    /// writers replace files in more than one way.
    pub(super) async fn refresh_if_due(&self) {
        // Who comes while it is read waits for that.
        let mut said = self.reading.lock().await;
        let now = millis(self.clock.monotonic());
        if now < self.next_read.load(Ordering::Acquire) {
            return;
        }
        let place = self.place.clone();
        let read = tokio::task::spawn_blocking(move || place.read()).await;
        let problem = match read {
            Ok(Ok(secret)) => self.install(secret.expose()).err().map(|e| e.to_string()),
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("reading it was cut short".to_owned()),
        };
        let wait = if problem.is_none() { INTERVAL } else { RETRY };
        self.next_read
            .store(now.saturating_add(millis(wait)), Ordering::Release);
        if let Some(problem) = problem.as_ref().filter(|_| *said != problem) {
            tracing::warn!(issuer = &*self.issuer, %problem, "the shared secret cannot be used");
        }
        *said = problem;
    }

    /// How long until the next reading.
    pub(super) fn next_attempt_in(&self) -> Duration {
        let next = Duration::from_millis(self.next_read.load(Ordering::Acquire));
        next.saturating_sub(self.clock.monotonic())
    }

    fn install(&self, text: &str) -> Result<(), SharedSecretError> {
        let bytes = decode_shared_secret(text, self.encoding, &self.algorithms)?;
        let before = self.held.load();
        if before.as_ref().is_some_and(|held| held.bytes == bytes) {
            return Ok(());
        }
        let held = Held {
            epoch: before.as_ref().map_or(0, |held| held.epoch + 1),
            key: Arc::new(DecodingKey::from_secret(&bytes)),
            bytes,
        };
        self.held.store(Some(Arc::new(held)));
        tracing::info!(issuer = &*self.issuer, "the shared secret was read");
        Ok(())
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
