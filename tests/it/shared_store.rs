//! The shared store on a real Redis server: the operations of the port, the scripts, connections and their
//! faults.

mod conformance;
mod connections;
mod garbage;
mod security;
mod servers;

use std::sync::Arc;

use hawkgate::network::Network;
use hawkgate::remote::shared_store::RedisStore;
use hawkgate::remote::shared_store::settings::SharedStoreSettings;
use hawkgate::secret::SecretString;
use hawkgate::shared_store::{FleetKeys, GenerationId, StoreEvent, StoreKey};

const KEY: StoreKey = StoreKey([1; 32]);
const OTHER_KEY: StoreKey = StoreKey([2; 32]);

/// The store's name for [`KEY`].
const ENTRY: &str = "hawkgate:e:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE";
const BUCKET: &str = "hawkgate:b:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE";

fn id(byte: u8) -> GenerationId {
    GenerationId([byte; 16])
}

fn changed(key: StoreKey, generation: Option<u8>) -> StoreEvent {
    let generation = generation.map(id);
    StoreEvent::Changed { key, generation }
}

/// The rejection of a value of [`KEY`].
fn rejected(generation: u8) -> StoreEvent {
    StoreEvent::Rejected {
        key: KEY,
        generation: id(generation),
    }
}

fn fleet_keys(byte: u8) -> FleetKeys {
    use base64::Engine as _;
    let bytes: Vec<u8> = (byte..byte + 32).collect();
    let text = base64::engine::general_purpose::STANDARD.encode(bytes);
    FleetKeys::new(&SecretString::new(text), None).unwrap()
}

fn settings(url: &str) -> SharedStoreSettings {
    SharedStoreSettings {
        url: url.parse().unwrap(),
        username: None,
        password: None,
        ca: None,
    }
}

fn store(url: &str) -> Arc<RedisStore> {
    store_with(&settings(url))
}

fn store_with(settings: &SharedStoreSettings) -> Arc<RedisStore> {
    Arc::new(RedisStore::new(settings, &Network::default(), &fleet_keys(1)).unwrap())
}
