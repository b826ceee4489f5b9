//! The keys of a fleet: everything in the store is named by an HMAC and sealed with AES-256-GCM-SIV
//! (RFC 8452), which stays safe should a nonce repeat, under keys that are derived from `[shared] key`
//! (HKDF, RFC 5869).
//!
//! A sealed value is: version, key id, nonce, ciphertext, tag. The associated data is the entry's key and
//! the generation, so that a value can neither be moved to another entry, nor passed off as another
//! generation of its own.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::{hkdf, hmac};
use zeroize::Zeroizing;

use super::{EventKey, GenerationId, StoreKey};
use crate::secret::{KEY_BYTES, SecretString, decode_key};

const VERSION: u8 = 1;
const KEY_ID_BYTES: usize = 4;
/// What comes before the ciphertext.
const HEADER_BYTES: usize = 1 + KEY_ID_BYTES + NONCE_LEN;
const TAG_BYTES: usize = 16;

/// A fleet key is not one. The message completes a sentence that begins with the key's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FleetKeyError(pub &'static str);

/// The keys of a fleet. Two fleets with different keys can use one store without seeing anything of each
/// other.
pub struct FleetKeys {
    current: hkdf::Prk,
    previous: Option<hkdf::Prk>,
}

/// The keys for one purpose. Keys and values of one namespace mean nothing in another.
pub struct Namespace {
    current: Keys,
    previous: Option<Keys>,
}

struct Keys {
    name: hmac::Key,
    id: [u8; KEY_ID_BYTES],
    seal: RandomizedNonceKey,
    /// Combines with the half of a key that the fleet does not have.
    halves: hkdf::Salt,
}

impl FleetKeys {
    /// The keys of the text of `[shared] key` and `previous_key`.
    ///
    /// # Errors
    /// If one is not 32 bytes in base64.
    pub fn new(
        current: &SecretString,
        previous: Option<&SecretString>,
    ) -> Result<Self, FleetKeyError> {
        Ok(Self {
            current: extract(current)?,
            previous: previous.map(extract).transpose()?,
        })
    }

    /// Authenticates events, which are sent with the first key and read with both.
    ///
    /// # Errors
    /// If the cryptographic library fails.
    pub fn events(&self) -> Result<(EventKey, Option<EventKey>), FleetKeyError> {
        let key = |prk| {
            let bytes = expand(prk, &[b"events"])?;
            Ok(EventKey(hmac::Key::new(hmac::HMAC_SHA256, &*bytes)))
        };
        let previous = self.previous.as_ref().map(key).transpose()?;
        Ok((key(&self.current)?, previous))
    }

    /// The keys for the purpose that `parts` describe.
    ///
    /// # Errors
    /// If the cryptographic library fails.
    pub fn namespace(&self, parts: &[&[u8]]) -> Result<Namespace, FleetKeyError> {
        let previous = self.previous.as_ref().map(|prk| Keys::new(prk, parts));
        Ok(Namespace {
            current: Keys::new(&self.current, parts)?,
            previous: previous.transpose()?,
        })
    }
}

fn extract(text: &SecretString) -> Result<hkdf::Prk, FleetKeyError> {
    let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"hawkgate fleet");
    Ok(salt.extract(&decode_key(text).map_err(FleetKeyError)?))
}

/// 32 bytes for `parts`, each of which follows its length, so that no two lists of parts are alike.
fn expand(prk: &hkdf::Prk, parts: &[&[u8]]) -> Result<Zeroizing<[u8; KEY_BYTES]>, FleetKeyError> {
    let mut info = Vec::new();
    for part in parts {
        info.extend_from_slice(&(part.len() as u64).to_be_bytes());
        info.extend_from_slice(part);
    }
    let failed = |_| FleetKeyError("could not be used: the cryptographic library failed");
    let mut bytes = Zeroizing::new([0; KEY_BYTES]);
    prk.expand(&[&info], hkdf::HKDF_SHA256)
        .and_then(|okm| okm.fill(&mut *bytes))
        .map_err(failed)?;
    Ok(bytes)
}

impl Keys {
    fn new(prk: &hkdf::Prk, parts: &[&[u8]]) -> Result<Self, FleetKeyError> {
        let derive = |purpose: &[u8]| {
            let mut all = vec![purpose];
            all.extend_from_slice(parts);
            expand(prk, &all)
        };
        let mut id = [0; KEY_ID_BYTES];
        for (to, from) in id.iter_mut().zip(derive(b"key id")?.iter()) {
            *to = *from;
        }
        let seal = RandomizedNonceKey::new(&AES_256_GCM_SIV, &*derive(b"seal")?)
            .map_err(|_| FleetKeyError("is not accepted"))?;
        Ok(Self {
            name: hmac::Key::new(hmac::HMAC_SHA256, &*derive(b"name")?),
            id,
            seal,
            halves: hkdf::Salt::new(hkdf::HKDF_SHA256, &*derive(b"halves")?),
        })
    }

    /// The key that takes both this fleet's half and `half`: HKDF (RFC 5869) with the fleet's as the salt.
    fn with_half(&self, half: &[u8; KEY_BYTES]) -> Option<RandomizedNonceKey> {
        let bytes = expand(&self.halves.extract(half), &[b"seal"]).ok()?;
        RandomizedNonceKey::new(&AES_256_GCM_SIV, &*bytes).ok()
    }
}

impl Namespace {
    /// A hasher for the key of one entry.
    pub fn hasher(&self) -> KeyHasher {
        KeyHasher(hmac::Context::with_key(&self.current.name))
    }

    /// The same under the previous fleet key, if there is one.
    pub fn previous_hasher(&self) -> Option<KeyHasher> {
        let previous = self.previous.as_ref()?;
        Some(KeyHasher(hmac::Context::with_key(&previous.name)))
    }

    /// The key under which entries are named.
    pub(crate) fn name_key(&self) -> &hmac::Key {
        &self.current.name
    }

    /// The same under the previous fleet key, if there is one.
    pub(crate) fn previous_name_key(&self) -> Option<&hmac::Key> {
        self.previous.as_ref().map(|keys| &keys.name)
    }

    /// Seals `plain`, which is wiped, as `generation` of the entry `key`. `None` if the cryptographic
    /// library fails.
    pub fn seal(
        &self,
        key: StoreKey,
        generation: GenerationId,
        plain: Zeroizing<Vec<u8>>,
    ) -> Option<Vec<u8>> {
        seal(&self.current, &self.current.seal, (key, generation), plain)
    }

    /// Like [`Self::seal`], under a key of which `half`, random bytes that the fleet does not keep, is a
    /// part: neither the fleet's key nor `half` opens the value without the other.
    pub fn seal_with(
        &self,
        half: &[u8; KEY_BYTES],
        key: StoreKey,
        generation: GenerationId,
        plain: Zeroizing<Vec<u8>>,
    ) -> Option<Vec<u8>> {
        let combined = self.current.with_half(half)?;
        seal(&self.current, &combined, (key, generation), plain)
    }

    /// What was sealed; `None` if it was not sealed as this generation of this entry by one of the keys.
    pub fn open(
        &self,
        key: StoreKey,
        generation: GenerationId,
        sealed: Vec<u8>,
    ) -> Option<Zeroizing<Vec<u8>>> {
        let (keys, nonce, text) = self.parse(sealed)?;
        open(&keys.seal, nonce, (key, generation), text)
    }

    /// What [`Self::seal_with`] sealed, if `half` is the same.
    pub fn open_with(
        &self,
        half: &[u8; KEY_BYTES],
        key: StoreKey,
        generation: GenerationId,
        sealed: Vec<u8>,
    ) -> Option<Zeroizing<Vec<u8>>> {
        let (keys, nonce, text) = self.parse(sealed)?;
        open(&keys.with_half(half)?, nonce, (key, generation), text)
    }

    /// The keys that a value names, its nonce, and the ciphertext with its tag.
    fn parse(&self, mut sealed: Vec<u8>) -> Option<(&Keys, Nonce, Zeroizing<Vec<u8>>)> {
        if sealed.len() < HEADER_BYTES + TAG_BYTES {
            return None;
        }
        let text = Zeroizing::new(sealed.split_off(HEADER_BYTES));
        let (version, rest) = sealed.split_first()?;
        let (id, nonce) = rest.split_at_checked(KEY_ID_BYTES)?;
        if *version != VERSION {
            return None;
        }
        let mut all = std::iter::once(&self.current).chain(&self.previous);
        let keys = all.find(|keys| keys.id == id)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        Some((keys, nonce, text))
    }
}

fn seal(
    keys: &Keys,
    sealing: &RandomizedNonceKey,
    (key, generation): (StoreKey, GenerationId),
    plain: Zeroizing<Vec<u8>>,
) -> Option<Vec<u8>> {
    let mut in_out = plain;
    if in_out.capacity() - in_out.len() < TAG_BYTES {
        // A reallocation would leave a copy that is not wiped.
        let mut larger = Zeroizing::new(Vec::with_capacity(in_out.len() + TAG_BYTES));
        larger.extend_from_slice(&in_out);
        in_out = larger;
    }
    let aad = Aad::from(associated_data(key, generation));
    let nonce = sealing.seal_in_place_append_tag(aad, &mut *in_out).ok()?;
    let mut value = Vec::with_capacity(HEADER_BYTES + in_out.len());
    value.push(VERSION);
    value.extend_from_slice(&keys.id);
    value.extend_from_slice(nonce.as_ref());
    value.extend_from_slice(&in_out);
    Some(value)
}

fn open(
    opening: &RandomizedNonceKey,
    nonce: Nonce,
    (key, generation): (StoreKey, GenerationId),
    mut text: Zeroizing<Vec<u8>>,
) -> Option<Zeroizing<Vec<u8>>> {
    let aad = Aad::from(associated_data(key, generation));
    let length = opening.open_in_place(nonce, aad, &mut text).ok()?.len();
    text.truncate(length);
    Some(text)
}

fn associated_data(key: StoreKey, generation: GenerationId) -> [u8; 1 + 32 + 16] {
    let mut data = [VERSION; 1 + 32 + 16];
    let parts = key.0.iter().chain(&generation.0);
    for (to, from) in data.iter_mut().skip(1).zip(parts) {
        *to = *from;
    }
    data
}

/// Hashes the parts of an entry's key. Each part follows its length.
pub struct KeyHasher(hmac::Context);

impl KeyHasher {
    /// Adds one part.
    #[must_use]
    pub fn part(mut self, bytes: &[u8]) -> Self {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    /// The key.
    pub fn finish(self) -> StoreKey {
        let mut key = [0; 32];
        for (to, from) in key.iter_mut().zip(self.0.sign().as_ref()) {
            *to = *from;
        }
        StoreKey(key)
    }
}

impl fmt::Debug for FleetKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FleetKeys([redacted])")
    }
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Namespace([redacted])")
    }
}

impl fmt::Debug for KeyHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHasher(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    fn text(first: u8) -> SecretString {
        let bytes: Vec<u8> = (first..first + 32).collect();
        SecretString::new(STANDARD.encode(bytes))
    }

    fn fleet(current: u8, previous: Option<u8>) -> FleetKeys {
        FleetKeys::new(&text(current), previous.map(text).as_ref()).unwrap()
    }

    fn namespace(current: u8, previous: Option<u8>) -> Namespace {
        fleet(current, previous).namespace(&[b"test"]).unwrap()
    }

    fn plain() -> Zeroizing<Vec<u8>> {
        Zeroizing::new(b"a secret".to_vec())
    }

    const KEY: StoreKey = StoreKey([1; 32]);
    const GENERATION: GenerationId = GenerationId([2; 16]);

    #[test]
    fn a_value_opens_only_where_and_as_what_it_was_sealed() {
        let namespace = namespace(1, None);
        let sealed = namespace.seal(KEY, GENERATION, plain()).unwrap();
        assert!(!sealed.windows(8).any(|window| window == b"a secret"));
        let opened = namespace.open(KEY, GENERATION, sealed.clone());
        assert_eq!(opened, Some(plain()));
        let elsewhere = StoreKey([3; 32]);
        assert_eq!(namespace.open(elsewhere, GENERATION, sealed.clone()), None);
        let later = GenerationId([3; 16]);
        assert_eq!(namespace.open(KEY, later, sealed.clone()), None);
        let other = fleet(1, None).namespace(&[b"other"]).unwrap();
        assert_eq!(other.open(KEY, GENERATION, sealed.clone()), None);
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(namespace.open(KEY, GENERATION, changed), None, "{at}");
            let shorter = sealed[..at].to_vec();
            assert_eq!(namespace.open(KEY, GENERATION, shorter), None, "{at}");
        }
    }

    #[test]
    fn a_value_with_two_halves_opens_with_both_only() {
        let (half, other_half) = ([7; KEY_BYTES], [8; KEY_BYTES]);
        let (one, two) = (namespace(1, None), namespace(2, Some(1)));
        let sealed = one.seal_with(&half, KEY, GENERATION, plain()).unwrap();
        let open = |by: &Namespace, half: &[u8; KEY_BYTES], key, generation| {
            by.open_with(half, key, generation, sealed.clone())
        };
        assert_eq!(open(&one, &half, KEY, GENERATION), Some(plain()));
        assert_eq!(open(&two, &half, KEY, GENERATION), Some(plain()), "rotated");
        assert_eq!(open(&one, &other_half, KEY, GENERATION), None);
        assert_eq!(open(&one, &half, StoreKey([3; 32]), GENERATION), None);
        assert_eq!(open(&one, &half, KEY, GenerationId([3; 16])), None);
        assert_eq!(open(&namespace(3, None), &half, KEY, GENERATION), None);
        let other = fleet(1, None).namespace(&[b"other"]).unwrap();
        assert_eq!(open(&other, &half, KEY, GENERATION), None);
        assert_eq!(one.open(KEY, GENERATION, sealed.clone()), None, "one half");
        let whole = one.seal(KEY, GENERATION, plain()).unwrap();
        assert_eq!(one.open_with(&half, KEY, GENERATION, whole), None);
    }

    #[test]
    fn both_keys_open_and_the_first_seals() {
        let (old, new) = (namespace(1, None), namespace(2, Some(1)));
        let by_old = old.seal(KEY, GENERATION, plain()).unwrap();
        assert_eq!(new.open(KEY, GENERATION, by_old), Some(plain()));
        let by_new = new.seal(KEY, GENERATION, plain()).unwrap();
        assert_eq!(old.open(KEY, GENERATION, by_new), None);
        let name = |hasher: KeyHasher| hasher.part(b"x").finish();
        assert_eq!(name(new.previous_hasher().unwrap()), name(old.hasher()));
        assert_ne!(name(new.hasher()), name(old.hasher()));
    }

    #[test]
    fn parts_are_not_confused() {
        let namespace = namespace(1, None);
        let one = namespace.hasher().part(b"ab").part(b"c").finish();
        let other = namespace.hasher().part(b"a").part(b"bc").finish();
        assert_ne!(one, other);
    }
}
