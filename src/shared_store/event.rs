//! What replicas tell each other through the store. Each message is authenticated, so that write access to
//! the store is not enough to make replicas drop what they have. A repeated message is harmless: a
//! generation that was rejected stays rejected, and any other message only makes a replica read the store.

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;

use super::{GenerationId, StoreKey};

/// Something that happened in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreEvent {
    /// The upstream rejected a generation.
    Rejected {
        /// The entry of which it is, or was.
        key: StoreKey,
        /// The generation.
        generation: GenerationId,
    },
    /// An entry was written or removed, or its lease was released.
    Changed {
        /// The entry.
        key: StoreKey,
        /// What was written.
        generation: Option<GenerationId>,
    },
    /// Events may have been missed.
    Interrupted,
}

/// Authenticates events.
#[derive(Clone)]
pub struct EventKey(pub(super) hmac::Key);

const REJECTED: u8 = 1;
const WRITTEN: u8 = 2;
const CHANGED: u8 = 3;
/// The bytes of a tag: a truncated HMAC-SHA256.
const TAG: usize = 16;

impl EventKey {
    /// The message that announces `event`; `None` for [`StoreEvent::Interrupted`], which is none.
    pub fn encode(&self, event: StoreEvent) -> Option<Vec<u8>> {
        let (kind, key, generation) = match event {
            StoreEvent::Rejected { key, generation } => (REJECTED, key, Some(generation)),
            StoreEvent::Changed {
                key,
                generation: Some(generation),
            } => (WRITTEN, key, Some(generation)),
            StoreEvent::Changed {
                key,
                generation: None,
            } => (CHANGED, key, None),
            StoreEvent::Interrupted => return None,
        };
        let mut message = Vec::with_capacity(1 + 32 + 16 + TAG);
        message.push(kind);
        message.extend_from_slice(&key.0);
        if let Some(GenerationId(id)) = generation {
            message.extend_from_slice(&id);
        }
        let tag = self.tag(&message);
        message.extend_from_slice(&tag);
        Some(message)
    }

    /// The event that `message` announces; `None` if no replica of this fleet sent it.
    pub fn decode(&self, message: &[u8]) -> Option<StoreEvent> {
        let (body, tag) = message.split_last_chunk::<TAG>()?;
        verify_slices_are_equal(&self.tag(body), tag).ok()?;
        let (kind, rest) = body.split_first()?;
        let (key, rest) = rest.split_first_chunk()?;
        let key = StoreKey(*key);
        let generation = || rest.try_into().ok().map(GenerationId);
        match *kind {
            REJECTED => Some(StoreEvent::Rejected {
                key,
                generation: generation()?,
            }),
            WRITTEN => Some(StoreEvent::Changed {
                key,
                generation: Some(generation()?),
            }),
            CHANGED if rest.is_empty() => Some(StoreEvent::Changed {
                key,
                generation: None,
            }),
            _ => None,
        }
    }

    fn tag(&self, body: &[u8]) -> [u8; TAG] {
        let mac = hmac::sign(&self.0, body);
        let mut tag = [0; TAG];
        for (to, from) in tag.iter_mut().zip(mac.as_ref()) {
            *to = *from;
        }
        tag
    }
}

impl fmt::Debug for EventKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EventKey([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> EventKey {
        EventKey(hmac::Key::new(hmac::HMAC_SHA256, &[byte; 32]))
    }

    #[test]
    fn a_message_of_this_fleet_is_read_as_it_was_sent() {
        let (store_key, generation) = (StoreKey([9; 32]), GenerationId([7; 16]));
        for event in [
            StoreEvent::Rejected {
                key: store_key,
                generation,
            },
            StoreEvent::Changed {
                key: store_key,
                generation: Some(generation),
            },
            StoreEvent::Changed {
                key: store_key,
                generation: None,
            },
        ] {
            let message = key(1).encode(event).unwrap();
            assert_eq!(key(1).decode(&message), Some(event));
            assert_eq!(key(2).decode(&message), None, "another fleet");
            for at in 0..message.len() {
                let mut changed = message.clone();
                changed[at] ^= 1;
                assert_eq!(key(1).decode(&changed), None, "{at}");
                assert_eq!(key(1).decode(&message[..at]), None, "{at}");
            }
        }
        assert_eq!(key(1).encode(StoreEvent::Interrupted), None);
    }
}
