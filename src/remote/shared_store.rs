//! The store that a fleet shares, on Valkey or Redis (`docs/design/fleet.md`).
//!
//! Every operation is one script on one key, in one round trip on a connection that all share. The same
//! connection receives the events, as RESP3 pushes; with a Cluster, they have a connection of their own, to
//! any node.

mod connector;
mod error;
mod link;
mod reply;
mod script;
pub mod settings;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use redis::Value;
use tokio::sync::broadcast;

use self::connector::{CHANNEL, Connection, Connector};
use self::link::{Link, Session};
use self::script::Script;
use self::settings::SharedStoreSettings;
use crate::network::Network;
use crate::pem::PemError;
use crate::shared_store::{
    Acquired, EventKey, FleetKeyError, FleetKeys, GenerationId, LEASE, Quota, SharedStore,
    StoreError, StoreEvent, StoreKey, StoredValue, Taken, Unwanted,
};

/// The key that [`SharedStore::probe`] writes and removes.
const PROBE_KEY: &str = "hawkgate:probe";

/// The longest time that a script calculates with, 95 years: numbers are exact up to 2^53, and the time since
/// 1970 in microseconds takes up a fifth of that.
const LONGEST: Duration = Duration::from_hours(24 * 365 * 95);

/// A [`SharedStore`] on Valkey or Redis. It connects when it is first used, in the background, and again
/// whenever the connection is lost; operations fail at once while that fails.
pub struct RedisStore {
    link: Link,
    events: EventKey,
}

/// Why the settings of a store are unusable.
#[derive(Debug, thiserror::Error)]
pub enum RedisStoreError {
    /// A CA file is.
    #[error("CA file {0}")]
    Ca(#[from] PemError),
    /// The keys are.
    #[error("the key {0}")]
    Key(#[from] FleetKeyError),
}

impl RedisStore {
    /// A store that connects to what `settings` name. Events are authenticated with `keys`.
    ///
    /// # Errors
    /// If a CA file or the keys are unusable.
    pub fn new(
        settings: &SharedStoreSettings,
        network: &Network,
        keys: &FleetKeys,
    ) -> Result<Self, RedisStoreError> {
        let connector = Connector::new(settings, network)?;
        let (current, previous) = keys.events()?;
        Ok(Self {
            link: Link::new(connector, (current.clone(), previous)),
            events: current,
        })
    }

    /// Runs a script, whose answer `read` understands.
    async fn run<T>(
        &self,
        script: &Script,
        key: &str,
        arguments: &[&[u8]],
        read: impl FnOnce(Value) -> Option<T>,
    ) -> Result<T, StoreError> {
        let session = self.link.session().await?;
        run_in(&session, script, key, arguments, read).await
    }

    fn changed(&self, key: StoreKey, generation: Option<GenerationId>) -> Vec<u8> {
        self.message(StoreEvent::Changed { key, generation })
    }

    fn rejected(&self, key: StoreKey, generation: GenerationId) -> Vec<u8> {
        self.message(StoreEvent::Rejected { key, generation })
    }

    /// The message that announces `event`. One that is empty means nothing to its receivers.
    fn message(&self, event: StoreEvent) -> Vec<u8> {
        self.events.encode(event).unwrap_or_default()
    }
}

async fn run_in<T>(
    session: &Session,
    script: &Script,
    key: &str,
    arguments: &[&[u8]],
    read: impl FnOnce(Value) -> Option<T>,
) -> Result<T, StoreError> {
    let reply = match session.connected.scripts.clone() {
        Connection::Server(mut server) => script.run(&mut server, key, arguments).await,
        Connection::Cluster(mut cluster) => script.run(&mut cluster, key, arguments).await,
    };
    let reply = reply.map_err(|error| session.failed(&error))?;
    read(reply).ok_or_else(|| error::no_answer(&session.connected.name))
}

#[async_trait]
impl SharedStore for RedisStore {
    async fn acquire(
        &self,
        key: StoreKey,
        lease: GenerationId,
        unwanted: Option<Unwanted>,
    ) -> Result<Acquired, StoreError> {
        let generation = unwanted.as_ref().map(|unwanted| unwanted.generation.0);
        let rejected = unwanted.filter(|unwanted| unwanted.reject);
        let message = rejected.map(|unwanted| self.rejected(key, unwanted.generation));
        let length = millis(LEASE);
        let arguments: [&[u8]; 5] = [
            &lease.0,
            length.as_bytes(),
            generation.as_ref().map_or(&[], |id| id),
            CHANNEL.as_bytes(),
            message.as_deref().unwrap_or_default(),
        ];
        self.run(&script::ACQUIRE, &entry(key), &arguments, reply::acquired)
            .await
    }

    async fn renew(&self, key: StoreKey, lease: GenerationId) -> Result<bool, StoreError> {
        let length = millis(LEASE);
        let arguments: [&[u8]; 2] = [&lease.0, length.as_bytes()];
        self.run(&script::RENEW, &entry(key), &arguments, |answer| {
            reply::flag(&answer)
        })
        .await
    }

    async fn complete(
        &self,
        key: StoreKey,
        lease: GenerationId,
        sealed: Vec<u8>,
        ttl: Duration,
    ) -> Result<bool, StoreError> {
        let (ttl, message) = (millis(ttl), self.changed(key, Some(lease)));
        let arguments: [&[u8]; 5] = [
            &lease.0,
            &sealed,
            ttl.as_bytes(),
            CHANNEL.as_bytes(),
            &message,
        ];
        self.run(&script::COMPLETE, &entry(key), &arguments, |answer| {
            reply::flag(&answer)
        })
        .await
    }

    async fn release(&self, key: StoreKey, lease: GenerationId) -> Result<(), StoreError> {
        let message = self.changed(key, None);
        let arguments: [&[u8]; 3] = [&lease.0, CHANNEL.as_bytes(), &message];
        self.run(&script::RELEASE, &entry(key), &arguments, |answer| {
            reply::flag(&answer)
        })
        .await
        .map(|_| ())
    }

    async fn reject(&self, key: StoreKey, generation: GenerationId) -> Result<(), StoreError> {
        let message = self.rejected(key, generation);
        let arguments: [&[u8]; 3] = [&generation.0, CHANNEL.as_bytes(), &message];
        self.run(&script::REJECT, &entry(key), &arguments, |answer| {
            reply::flag(&answer)
        })
        .await
        .map(|_| ())
    }

    async fn read(&self, key: StoreKey) -> Result<Option<StoredValue>, StoreError> {
        self.run(&script::READ, &entry(key), &[], |answer| {
            reply::read(answer).ok()
        })
        .await
    }

    async fn write(
        &self,
        key: StoreKey,
        generation: GenerationId,
        sealed: Vec<u8>,
        ttl: Duration,
    ) -> Result<(), StoreError> {
        let (ttl, message) = (millis(ttl), self.changed(key, Some(generation)));
        let arguments: [&[u8]; 5] = [
            &generation.0,
            &sealed,
            ttl.as_bytes(),
            CHANNEL.as_bytes(),
            &message,
        ];
        self.run(&script::WRITE, &entry(key), &arguments, |answer| {
            reply::flag(&answer)
        })
        .await
        .map(|_| ())
    }

    async fn remove(&self, key: StoreKey) -> Result<bool, StoreError> {
        let message = self.changed(key, None);
        let arguments: [&[u8]; 2] = [CHANNEL.as_bytes(), &message];
        self.run(&script::REMOVE, &entry(key), &arguments, |answer| {
            reply::flag(&answer)
        })
        .await
    }

    async fn take(&self, key: StoreKey, quota: Quota, wanted: u64) -> Result<Taken, StoreError> {
        let longest = LONGEST.as_micros();
        let interval = quota.interval.as_micros().clamp(1, longest);
        let burst = u128::from(quota.burst).clamp(1, (longest / interval).max(1));
        let (interval, burst) = (interval.to_string(), burst.to_string());
        // No bucket has more tokens, and the script calculates with this exactly.
        let most = u64::try_from(longest).unwrap_or(u64::MAX);
        let asked = wanted.min(most).to_string();
        let arguments = [interval.as_bytes(), burst.as_bytes(), asked.as_bytes()];
        self.run(&script::TAKE, &bucket(key), &arguments, |answer| {
            reply::taken(answer, wanted)
        })
        .await
    }

    async fn probe(&self) -> Result<(), StoreError> {
        let session = self.link.session_now().await?;
        let arguments = [CHANNEL.as_bytes()];
        run_in(&session, &script::PROBE, PROBE_KEY, &arguments, |answer| {
            reply::flag(&answer)
        })
        .await
        .map(|_| ())
    }

    fn events(&self) -> broadcast::Receiver<StoreEvent> {
        self.link.events()
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore").finish_non_exhaustive()
    }
}

fn entry(key: StoreKey) -> String {
    format!("hawkgate:e:{}", URL_SAFE_NO_PAD.encode(key.0))
}

fn bucket(key: StoreKey) -> String {
    format!("hawkgate:b:{}", URL_SAFE_NO_PAD.encode(key.0))
}

fn millis(time: Duration) -> String {
    time.min(LONGEST).as_millis().to_string()
}
