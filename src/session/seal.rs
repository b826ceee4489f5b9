//! Sealed cookie values: authenticated encryption with AES-256-GCM-SIV (RFC 8452), which stays safe
//! should a nonce repeat, so that replicas can share a key and draw nonces at random.
//!
//! A value is base64url of: version, key id, nonce, ciphertext, tag. The associated data is the purpose,
//! the session's name, its provider and its client. A cookie is therefore nothing but what it was sealed
//! as: an attempt is no session, and a session of one `[[session]]` or provider is none of another.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::{digest, rand};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use super::SessionError;
use super::settings::SessionSettings;
use crate::secret::{KEY_BYTES, SecretString, decode_key};

/// The version of the format, in each value's first byte.
const VERSION: u8 = 1;
/// The bytes that say which key sealed a value.
const KEY_ID_BYTES: usize = 4;
/// What comes before the ciphertext.
const HEADER_BYTES: usize = 1 + KEY_ID_BYTES + NONCE_LEN;
const TAG_BYTES: usize = 16;

/// What a value is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A user's session.
    Session,
    /// One sign-in, between the authorization request and the callback.
    Attempt,
    /// What finds and opens a session in the shared store.
    Ticket,
}

/// Seals the cookies of one `[[session]]`, and opens them.
pub(super) struct Sealer {
    /// Seals, and opens.
    current: Key,
    /// Only opens.
    previous: Option<Key>,
    /// The associated data of each purpose.
    session: Vec<u8>,
    attempt: Vec<u8>,
    ticket: Vec<u8>,
}

struct Key {
    id: [u8; KEY_ID_BYTES],
    key: RandomizedNonceKey,
}

impl Key {
    fn new(text: &SecretString) -> Result<Self, SessionError> {
        let bytes = decode_key(text).map_err(SessionError::Key)?;
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(b"hawkgate cookie key id");
        context.update(&bytes);
        let mut id = [0; KEY_ID_BYTES];
        for (byte, hashed) in id.iter_mut().zip(context.finish().as_ref()) {
            *byte = *hashed;
        }
        let key = RandomizedNonceKey::new(&AES_256_GCM_SIV, &bytes)
            .map_err(|_| SessionError::Key("is not accepted"))?;
        Ok(Self { id, key })
    }

    /// Opens `sealed`, the ciphertext and the tag, in place. Returns the length of the plaintext.
    fn open(&self, nonce: &[u8], aad: &[u8], sealed: &mut [u8]) -> Option<usize> {
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let plain = self.key.open_in_place(nonce, Aad::from(aad), sealed).ok()?;
        Some(plain.len())
    }
}

impl Sealer {
    /// Reads the keys of `settings`.
    pub(super) fn new(settings: &SessionSettings) -> Result<Self, SessionError> {
        let current = Key::new(&settings.cookie_key.read()?)?;
        let previous = match &settings.previous_cookie_key {
            Some(key) => Some(Key::new(&key.read()?)?),
            None => None,
        };
        Ok(Self {
            current,
            previous,
            session: associated_data(b"session", settings),
            attempt: associated_data(b"attempt", settings),
            ticket: associated_data(b"ticket", settings),
        })
    }

    /// A sealer with a random key, which opens no cookie of a browser.
    pub(super) fn with_random_key(settings: &SessionSettings) -> Result<Self, SessionError> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        rand::fill(&mut *bytes).map_err(|_| SessionError::Key("could not be generated"))?;
        Ok(Self {
            current: Key::new(&SecretString::new(URL_SAFE_NO_PAD.encode(*bytes)))?,
            previous: None,
            session: associated_data(b"session", settings),
            attempt: associated_data(b"attempt", settings),
            ticket: associated_data(b"ticket", settings),
        })
    }

    fn associated_data(&self, purpose: Purpose) -> &[u8] {
        match purpose {
            Purpose::Session => &self.session,
            Purpose::Attempt => &self.attempt,
            Purpose::Ticket => &self.ticket,
        }
    }

    /// Seals `plain`, which is wiped.
    pub(super) fn seal(
        &self,
        purpose: Purpose,
        plain: Zeroizing<Vec<u8>>,
    ) -> Result<String, aws_lc_rs::error::Unspecified> {
        let mut in_out = plain;
        in_out.reserve_exact(TAG_BYTES);
        let aad = Aad::from(self.associated_data(purpose));
        let nonce = self
            .current
            .key
            .seal_in_place_append_tag(aad, &mut *in_out)?;
        let mut value = Vec::with_capacity(HEADER_BYTES + in_out.len());
        value.push(VERSION);
        value.extend_from_slice(&self.current.id);
        value.extend_from_slice(nonce.as_ref());
        value.extend_from_slice(&in_out);
        Ok(URL_SAFE_NO_PAD.encode(value))
    }

    /// The plaintext of `value`; `None` if it was not sealed for `purpose` by one of the keys.
    pub(super) fn open(&self, purpose: Purpose, value: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let mut bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(value).ok()?);
        if bytes.len() < HEADER_BYTES + TAG_BYTES {
            return None;
        }
        let mut sealed = Zeroizing::new(bytes.split_off(HEADER_BYTES));
        let (version, rest) = bytes.split_first()?;
        let (id, nonce) = rest.split_at_checked(KEY_ID_BYTES)?;
        if *version != VERSION {
            return None;
        }
        let mut keys = std::iter::once(&self.current).chain(&self.previous);
        let key = keys.find(|key| key.id == id)?;
        let length = key.open(nonce, self.associated_data(purpose), &mut sealed)?;
        sealed.truncate(length);
        Some(sealed)
    }
}

/// The associated data: each part after its length, so that no two lists of parts are alike.
fn associated_data(purpose: &[u8], settings: &SessionSettings) -> Vec<u8> {
    let parts = [
        b"hawkgate cookie",
        purpose,
        settings.name.as_bytes(),
        settings.provider.as_bytes(),
        settings.client_id.as_bytes(),
    ];
    let mut data = vec![VERSION];
    for part in parts {
        data.extend_from_slice(&(part.len() as u64).to_be_bytes());
        data.extend_from_slice(part);
    }
    data
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(first: u8) -> Key {
        let bytes: Vec<u8> = (first..first + 32).collect();
        Key::new(&SecretString::new(URL_SAFE_NO_PAD.encode(bytes))).unwrap()
    }

    fn sealer(current: Key, previous: Option<Key>) -> Sealer {
        Sealer {
            current,
            previous,
            session: b"session".to_vec(),
            attempt: b"attempt".to_vec(),
            ticket: b"ticket".to_vec(),
        }
    }

    fn sealed(sealer: &Sealer, purpose: Purpose, text: &str) -> String {
        let plain = Zeroizing::new(text.as_bytes().to_vec());
        sealer.seal(purpose, plain).unwrap()
    }

    fn opened(sealer: &Sealer, purpose: Purpose, value: &str) -> Option<Vec<u8>> {
        sealer
            .open(purpose, value.as_bytes())
            .map(|plain| plain.to_vec())
    }

    #[test]
    fn a_value_opens_for_its_purpose_only() {
        let sealer = sealer(key(1), None);
        for text in ["", "x", &"long".repeat(500)] {
            let value = sealed(&sealer, Purpose::Session, text);
            let expected = Some(text.as_bytes().to_vec());
            assert_eq!(opened(&sealer, Purpose::Session, &value), expected);
            assert_eq!(opened(&sealer, Purpose::Attempt, &value), None);
            assert_eq!(opened(&sealer, Purpose::Ticket, &value), None);
            assert_ne!(
                sealed(&sealer, Purpose::Session, text),
                value,
                "a fresh nonce"
            );
        }
    }

    #[test]
    fn the_previous_key_opens_and_the_current_one_seals() {
        let (old, new) = (sealer(key(1), None), sealer(key(2), Some(key(1))));
        let value = sealed(&old, Purpose::Session, "x");
        assert!(opened(&new, Purpose::Session, &value).is_some());
        let value = sealed(&new, Purpose::Session, "x");
        assert!(opened(&old, Purpose::Session, &value).is_none());
        assert!(opened(&sealer(key(2), None), Purpose::Session, &value).is_some());
    }

    #[test]
    fn another_version_or_key_id_does_not_open() {
        let sealer = sealer(key(1), Some(key(2)));
        let bytes = URL_SAFE_NO_PAD
            .decode(sealed(&sealer, Purpose::Session, "x"))
            .unwrap();
        for index in 0..=KEY_ID_BYTES {
            let mut changed = bytes.clone();
            changed[index] ^= 1;
            let value = URL_SAFE_NO_PAD.encode(changed);
            assert_eq!(opened(&sealer, Purpose::Session, &value), None);
        }
    }
}
