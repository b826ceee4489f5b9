//! Receipts for credentials that left hawkgate in a forward-auth answer (`docs/forward-auth.md`). A
//! proxy that reports a 401 sends the receipt back, which tells which generation was rejected. It
//! cannot be made up, is of no use with another token, and is not a secret: it only ever causes what
//! [`CachedSource::invalidate`] does, within the same limits.

use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::{CachedSource, Lease};
use crate::clock::UnixMillis;
use crate::credential::SwapRequest;
use crate::credential::identity::Identity;
use crate::token::TokenDigest;

/// How long a receipt is valid: longer than upstreams take to answer.
const LIFETIME: Duration = Duration::from_mins(5);

/// Expiry, generation, identity, caller.
const BODY: usize = 8 + 8 + 32 + 32;
const TAG: usize = 32;

/// A valid receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    identity: Identity,
    caller: Identity,
    generation: u64,
}

/// What became of a reported 401.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reported {
    /// The generation is replaced by the next request, or has been replaced already.
    Replaced,
    /// It stays in use: this caller's 401s have caused an exchange in the last 30 seconds, or 401s
    /// have caused too many for this identity.
    Limited,
}

impl Receipt {
    /// Whether it is for `lease`.
    pub fn is_for(&self, lease: &Lease) -> bool {
        self.generation == lease.generation()
    }
}

impl CachedSource {
    /// The receipt for `lease`, which the caller who presented the token `holder` gets for `request` at
    /// `now`. `None` if the request has no identity.
    pub fn receipt(
        &self,
        request: &SwapRequest,
        lease: &Lease,
        holder: TokenDigest,
        now: UnixMillis,
    ) -> Option<String> {
        let identity = self.identify(request).ok()?;
        let receipt = Receipt {
            identity,
            caller: self.caller_key(identity, request),
            generation: lease.generation(),
        };
        let body = receipt.encode(now.plus(LIFETIME));
        let tag = self.tag(&body, holder);
        Some(URL_SAFE_NO_PAD.encode([&body[..], &tag[..]].concat()))
    }

    /// Checks a receipt that arrives with the token `holder` at `now`. `None` if it has expired, or is
    /// not from this source for this token.
    pub fn check_receipt(
        &self,
        receipt: &[u8],
        holder: TokenDigest,
        now: UnixMillis,
    ) -> Option<Receipt> {
        // Before it is decoded, because anybody may send anything.
        if receipt.len() != ((BODY + TAG) * 4).div_ceil(3) {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(receipt).ok()?;
        let (body, tag) = bytes.split_first_chunk::<BODY>()?;
        verify_slices_are_equal(&self.tag(body, holder), tag).ok()?;
        let (expiry, receipt) = Receipt::decode(body)?;
        (now < expiry).then_some(receipt)
    }

    /// Notes that the upstream answered 401 to the credential of `receipt`; like
    /// [`CachedSource::invalidate`].
    pub fn report(&self, receipt: &Receipt) -> Reported {
        let Receipt {
            identity,
            caller,
            generation,
        } = *receipt;
        self.coordinator
            .invalidate_number(identity, caller, generation)
    }

    fn tag(&self, body: &[u8; BODY], holder: TokenDigest) -> [u8; TAG] {
        let mut hasher = self.key.hasher();
        hasher.part(b"receipt");
        hasher.part(body);
        hasher.part(&holder.0);
        hasher.finish()
    }
}

impl Receipt {
    fn encode(&self, expiry: UnixMillis) -> [u8; BODY] {
        let mut body = [0; BODY];
        let parts: [&[u8]; 4] = [
            &expiry.0.to_be_bytes(),
            &self.generation.to_be_bytes(),
            &self.identity,
            &self.caller,
        ];
        for (to, from) in body.iter_mut().zip(parts.into_iter().flatten()) {
            *to = *from;
        }
        body
    }

    fn decode(body: &[u8; BODY]) -> Option<(UnixMillis, Self)> {
        let (expiry, rest) = body.split_first_chunk::<8>()?;
        let (generation, rest) = rest.split_first_chunk::<8>()?;
        let (identity, rest) = rest.split_first_chunk::<32>()?;
        let (caller, _) = rest.split_first_chunk::<32>()?;
        let receipt = Self {
            identity: *identity,
            caller: *caller,
            generation: u64::from_be_bytes(*generation),
        };
        Some((UnixMillis(i64::from_be_bytes(*expiry)), receipt))
    }
}
