//! Notices that replicas with one store have different keys, which otherwise only shows in that they share
//! nothing. Each replica leaves the id of its key in the store, in one entry that all of them know.

use std::time::Duration;

use crate::shared_store::{Fleet, FleetKeyError, GenerationId, KeyHasher, StoreError, StoreKey};

/// The entry. Others have names that cannot be chosen.
const ENTRY: StoreKey = StoreKey(*b"the id of the fleet's key, clear");

/// How long an id is there. A key that has not been used for so long is of no interest.
const TTL: Duration = Duration::from_hours(24);

/// How long to wait for a store that is down.
const RETRY: Duration = Duration::from_secs(30);

/// An id: public, and derived from the key, which it says nothing about.
type KeyId = [u8; 8];

/// Warns if the replica that came before has a key that this one cannot read, and leaves the id of this
/// one's key for the next. Waits for a store that is down.
pub(super) async fn compare(fleet: &Fleet) {
    let differs = loop {
        match differs(fleet).await {
            Ok(differs) => break differs,
            Err(Unknown::Key(_)) => return,
            Err(Unknown::Store(_)) => tokio::time::sleep(RETRY).await,
        }
    };
    if differs {
        tracing::warn!(
            "another replica with this shared store has another key ([shared] key), so that the two share nothing; \
             give all replicas of a fleet the same key. Two fleets can share a store, and can ignore this"
        );
    }
}

#[derive(Debug, thiserror::Error)]
enum Unknown {
    #[error(transparent)]
    Key(#[from] FleetKeyError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

async fn differs(fleet: &Fleet) -> Result<bool, Unknown> {
    let namespace = fleet.keys.namespace(&[b"key id"])?;
    let own = id(namespace.hasher());
    let previous = namespace.previous_hasher().map(id);
    let found = fleet.store.read(ENTRY).await?;
    let found: Option<KeyId> = found.and_then(|value| value.sealed.try_into().ok());
    let generation = GenerationId::random()?;
    let value = own.to_vec();
    fleet.store.write(ENTRY, generation, value, TTL).await?;
    Ok(found.is_some_and(|found| found != own && Some(found) != previous))
}

fn id(hasher: KeyHasher) -> KeyId {
    let StoreKey(key) = hasher.finish();
    let mut id = KeyId::default();
    for (to, from) in id.iter_mut().zip(key) {
        *to = from;
    }
    id
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;
    use crate::clock::{ManualClock, UnixMillis};
    use crate::secret::SecretString;
    use crate::shared_store::{FleetKeys, InMemoryStore, SharedStore};

    fn text(first: u8) -> SecretString {
        let bytes: Vec<u8> = (first..first + 32).collect();
        SecretString::new(STANDARD.encode(bytes))
    }

    #[tokio::test]
    async fn replicas_with_other_keys_are_noticed_but_not_those_that_rotate() {
        let clock = ManualClock::at(UnixMillis::from_secs(0));
        let store: Arc<dyn SharedStore> = Arc::new(InMemoryStore::new(clock));
        let fleet = |current, previous: Option<u8>| Fleet {
            store: Arc::clone(&store),
            keys: Arc::new(FleetKeys::new(&text(current), previous.map(text).as_ref()).unwrap()),
        };
        for (current, previous, expected) in [
            (1, None, false),
            (1, None, false),
            // A rotation: accepted, used, and the only one.
            (1, Some(2), false),
            (2, Some(1), false),
            (1, Some(2), false),
            (2, Some(1), false),
            (2, None, false),
            (3, None, true),
            (3, None, false),
            (2, None, true),
        ] {
            let differs = differs(&fleet(current, previous)).await.unwrap();
            assert_eq!(differs, expected, "{current} {previous:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn keys_are_compared_once_a_store_that_is_down_is_up() {
        let clock = ManualClock::at(UnixMillis::from_secs(0));
        let store = Arc::new(InMemoryStore::new(clock));
        let keys = Arc::new(FleetKeys::new(&text(1), None).unwrap());
        let fleet = Fleet {
            store: Arc::clone(&store) as _,
            keys,
        };
        store.fail(Some(StoreError::Down));
        let compared = compare(&fleet);
        tokio::pin!(compared);
        let within = Duration::from_mins(10);
        assert!(tokio::time::timeout(within, &mut compared).await.is_err());
        store.fail(None);
        compared.await;
        assert_eq!(store.values(), 1);
    }
}
