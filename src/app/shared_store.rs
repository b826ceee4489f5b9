//! Builds the store that the replicas of a fleet share, and passes its events on
//! (`docs/design/fleet.md`).

mod key_id;
mod section;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::broadcast::{self, Receiver};

use crate::config;
use crate::credential::CachedSource;
use crate::metrics::SharedStoreMetrics;
use crate::network::Network;
use crate::remote::shared_store::RedisStore;
use crate::secret::SecretRef;
use crate::session::Sessions;
use crate::shared_store::{Fleet, FleetKeys, Guard, SharedStore, StoreEvent};

pub(super) use section::section;

/// How often a store is looked at that no request needs.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// The shared store of a configuration.
pub(super) struct Shared {
    fleet: Fleet,
    guard: Arc<Guard>,
    metrics: Arc<SharedStoreMetrics>,
    /// Taken by the task that passes events on. It exists from the start, so that no event is missed.
    events: Mutex<Option<Receiver<StoreEvent>>>,
    recipients: ArcSwap<Recipients>,
}

/// Who is told about events.
#[derive(Default)]
pub(super) struct Recipients {
    pub(super) sources: Vec<Arc<CachedSource>>,
    pub(super) sessions: Vec<Arc<Sessions>>,
}

/// Which store a component uses, as a part of what it is built from. Two are equal if they are the same
/// store, and not just configured in the same way: a component must not keep a store that was replaced.
#[derive(Clone)]
pub(super) struct UsedStore(pub(super) Option<Arc<Shared>>);

impl PartialEq for UsedStore {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            _ => false,
        }
    }
}

impl UsedStore {
    /// What the component needs to use it.
    pub(super) fn fleet(&self) -> Option<&Fleet> {
        self.0.as_ref().map(|shared| &shared.fleet)
    }
}

impl Shared {
    pub(super) fn new(
        settings: &config::Shared,
        metrics: Arc<SharedStoreMetrics>,
        network: &Network,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let key = settings.key.read()?;
        let previous = settings.previous_key.as_ref();
        let previous = previous.map(SecretRef::read).transpose()?;
        let keys = FleetKeys::new(&key, previous.as_ref())?;
        let store = Arc::new(RedisStore::new(&settings.store, network, &keys)?);
        let guard = Guard::new(store, settings.timeout, Arc::clone(&metrics) as _);
        let guard = Arc::new(guard);
        Ok(Self {
            events: Mutex::new(Some(guard.events())),
            fleet: Fleet {
                store: Arc::clone(&guard) as Arc<dyn SharedStore>,
                keys: Arc::new(keys),
            },
            guard,
            metrics,
            recipients: ArcSwap::default(),
        })
    }

    /// Whether the store is used, rather than down.
    pub(super) fn is_up(&self) -> bool {
        self.metrics.is_up()
    }

    /// Connects, for at most two seconds, so that the first requests need not.
    pub(super) async fn warm_up(&self) {
        self.guard.check().await;
    }

    /// Passes events on to these components from now on.
    pub(super) fn pass_on_to(&self, recipients: Recipients) {
        self.recipients.store(Arc::new(recipients));
    }

    /// Passes events on until the store is gone. To be called once.
    pub(super) async fn run(self: Arc<Self>) {
        let receiver = self
            .events
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let compare = key_id::compare(&self.fleet);
        let Some(mut receiver) = receiver else { return };
        let pass_on = async {
            while let Some(event) = next(&mut receiver).await {
                self.recipients.load().on_event(&event);
            }
        };
        tokio::select! {
            ((), ()) = async { tokio::join!(compare, pass_on) } => {}
            () = self.watch() => {}
        }
    }

    /// Looks from time to time whether the store is there, because a replica that serves hits only does not
    /// notice.
    async fn watch(&self) {
        loop {
            tokio::time::sleep(LOOK_INTERVAL).await;
            self.guard.check().await;
        }
    }
}

/// The next event; `None` if the store is gone. A receiver that is too slow has missed some.
async fn next(receiver: &mut broadcast::Receiver<StoreEvent>) -> Option<StoreEvent> {
    match receiver.recv().await {
        Ok(event) => Some(event),
        Err(RecvError::Lagged(_)) => Some(StoreEvent::Interrupted),
        Err(RecvError::Closed) => None,
    }
}

impl Recipients {
    fn on_event(&self, event: &StoreEvent) {
        for source in &self.sources {
            source.on_event(event);
        }
        for sessions in &self.sessions {
            sessions.on_event(event);
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("fleet", &self.fleet)
            .finish_non_exhaustive()
    }
}
