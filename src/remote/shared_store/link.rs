//! Keeps the store connected, by a task in the background: connects at the first use and again after each
//! loss, passes on events, and finds out when the store no longer answers.

use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, PushInfo, PushKind, RedisError, RedisResult, Value};
use tokio::sync::{Notify, broadcast, watch};
use tokio::task::JoinHandle;

use super::connector::{CHANNEL, Connected, Connector};
use super::error::{calls_for_reconnection, store_error};
use crate::shared_store::{EventKey, StoreError, StoreEvent};

/// How often the store is asked whether it is there.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// The pauses between attempts to connect: doubled each time, up to the longest. The first attempt after a
/// loss follows at once.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// A connection that is lost before so many heartbeats counts as a failed attempt.
const STABLE: u32 = 3;

/// The limit for one attempt to connect, all servers included.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(4);

/// The events that a receiver may lag behind.
const EVENTS: usize = 4096;

/// A store that is kept connected until this is dropped.
pub(super) struct Link {
    shared: Arc<Shared>,
    task: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    connector: Connector,
    /// The key of this fleet's events, and the previous one.
    keys: (EventKey, Option<EventKey>),
    events: broadcast::Sender<StoreEvent>,
    state: watch::Sender<State>,
    /// Ends the pause before the next attempt to connect.
    retry: Notify,
}

#[derive(Clone)]
enum State {
    /// The first attempt since the start or a loss is being made.
    Connecting,
    Connected(Session),
    /// The last attempt failed.
    Failed(StoreError),
}

/// A connection, and the means to have it replaced.
#[derive(Clone)]
pub(super) struct Session {
    pub connected: Connected,
    lost: Arc<Lost>,
}

/// Whether a connection is lost or to be replaced, and why.
#[derive(Default)]
struct Lost {
    notify: Notify,
    reason: Mutex<Option<StoreError>>,
}

impl Lost {
    fn because(&self, reason: StoreError) {
        let mut first = self.reason.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert(reason);
        self.notify.notify_one();
    }

    async fn reason(&self) -> StoreError {
        self.notify.notified().await;
        let reason = self.reason.lock().unwrap_or_else(PoisonError::into_inner);
        reason.clone().unwrap_or_else(not_connected)
    }
}

fn not_connected() -> StoreError {
    StoreError::Unreachable("not connected".to_owned())
}

impl Session {
    /// The error that stands for `error`. Has the connection replaced if another one may do better.
    pub(super) fn failed(&self, error: &RedisError) -> StoreError {
        let reason = store_error(&self.connected.name, error);
        if calls_for_reconnection(error) {
            self.lost.because(reason.clone());
        }
        reason
    }
}

impl Link {
    pub(super) fn new(connector: Connector, keys: (EventKey, Option<EventKey>)) -> Self {
        let shared = Shared {
            connector,
            keys,
            events: broadcast::Sender::new(EVENTS),
            state: watch::Sender::new(State::Connecting),
            retry: Notify::new(),
        };
        Self {
            shared: Arc::new(shared),
            task: Mutex::new(None),
        }
    }

    pub(super) fn events(&self) -> broadcast::Receiver<StoreEvent> {
        self.shared.events.subscribe()
    }

    /// The connection, after the first attempt since the start or a loss. If that failed: why.
    pub(super) async fn session(&self) -> Result<Session, StoreError> {
        self.ensure_running();
        settled(&mut self.shared.state.subscribe()).await
    }

    /// As [`Self::session`], but after another attempt if the last one failed.
    pub(super) async fn session_now(&self) -> Result<Session, StoreError> {
        self.ensure_running();
        let mut state = self.shared.state.subscribe();
        let failed = matches!(*state.borrow_and_update(), State::Failed(_));
        if failed {
            self.shared.retry.notify_one();
            // An error would mean that the sender is gone, but `self` has it.
            let _ = state.changed().await;
        }
        settled(&mut state).await
    }

    /// Starts the task, which ends with the runtime that it was started on. If that has happened, it is
    /// started again.
    fn ensure_running(&self) {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if task.as_ref().is_none_or(JoinHandle::is_finished) {
            self.shared.state.send_replace(State::Connecting);
            *task = Some(tokio::spawn(keep_connected(self.shared.clone())));
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let task = self.task.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(task) = task {
            task.abort();
        }
    }
}

async fn settled(state: &mut watch::Receiver<State>) -> Result<Session, StoreError> {
    let settled = state
        .wait_for(|state| !matches!(state, State::Connecting))
        .await;
    match settled.as_deref() {
        Ok(State::Connected(session)) => Ok(session.clone()),
        Ok(State::Failed(error)) => Err(error.clone()),
        Ok(State::Connecting) | Err(_) => Err(not_connected()),
    }
}

/// Says that there is no connection once the task has ended, however it did: nobody may wait for it then.
struct Ended(Arc<Shared>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.state.send_replace(State::Failed(not_connected()));
    }
}

async fn keep_connected(shared: Arc<Shared>) {
    let _ended = Ended(shared.clone());
    let mut attempts = 0;
    let mut pause = Duration::ZERO;
    loop {
        let lost = Arc::new(Lost::default());
        let connected = shared.connect(&lost).await;
        attempts += 1;
        match connected {
            Ok(connected) => {
                // What the other replicas said in the meantime is lost.
                if attempts > 1 {
                    shared.tell(StoreEvent::Interrupted);
                }
                let (reason, heartbeats) = shared.use_until_lost(connected, lost).await;
                if heartbeats >= STABLE {
                    pause = Duration::ZERO;
                }
                // Operations wait for an attempt that follows at once, but do not sit through a pause.
                shared.state.send_replace(match pause {
                    Duration::ZERO => State::Connecting,
                    _ => State::Failed(reason),
                });
            }
            Err(error) => {
                shared.state.send_replace(State::Failed(error));
                pause = pause.max(FIRST_PAUSE);
            }
        }
        if !pause.is_zero() {
            // Either ends the pause.
            let _ = tokio::time::timeout(pause, shared.retry.notified()).await;
        }
        pause = (pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
    }
}

impl Shared {
    async fn connect(self: &Arc<Self>, lost: &Arc<Lost>) -> Result<Connected, StoreError> {
        let (shared, lost) = (Arc::downgrade(self), lost.clone());
        let pushes = move |push: PushInfo| {
            if push.kind == PushKind::Disconnection {
                lost.because(not_connected());
            } else if let Some(shared) = shared.upgrade() {
                shared.received(&push);
            }
            Ok::<(), ()>(())
        };
        let connecting = self.connector.connect(Arc::new(pushes));
        let connected = tokio::time::timeout(ATTEMPT_TIMEOUT, connecting).await;
        let late = || {
            let seconds = ATTEMPT_TIMEOUT.as_secs();
            StoreError::Unreachable(format!("no connection within {seconds} s"))
        };
        connected.map_err(|_| late())?
    }

    /// Lets operations use a connection until it is closed or to be replaced, or the server no longer
    /// answers. Returns why, and the number of heartbeats until then.
    async fn use_until_lost(&self, connected: Connected, lost: Arc<Lost>) -> (StoreError, u32) {
        let mut events = connected.events.clone();
        let session = Session { connected, lost };
        self.state.send_replace(State::Connected(session.clone()));
        let mut lost = pin!(session.lost.reason());
        let mut heartbeats: u32 = 0;
        loop {
            tokio::select! {
                reason = &mut lost => return (reason, heartbeats),
                answer = heartbeat(&mut events) => {
                    // A refusal is an answer, too.
                    if let Err(error) = answer {
                        session.failed(&error);
                    }
                    heartbeats = heartbeats.saturating_add(1);
                }
            }
        }
    }

    /// Passes an event on. What no replica of this fleet sent is ignored.
    fn received(&self, push: &PushInfo) {
        if push.kind != PushKind::Message {
            return;
        }
        let [Value::BulkString(channel), Value::BulkString(message)] = &*push.data else {
            return;
        };
        if channel != CHANNEL.as_bytes() {
            return;
        }
        let (current, previous) = &self.keys;
        let mut keys = std::iter::once(current).chain(previous);
        if let Some(event) = keys.find_map(|key| key.decode(message)) {
            self.tell(event);
        }
    }

    fn tell(&self, event: StoreEvent) {
        // An error means that nobody listens.
        let _ = self.events.send(event);
    }
}

/// Asks the server, after a pause, whether it is there. Limited by the connection's timeout for answers.
async fn heartbeat(connection: &mut MultiplexedConnection) -> RedisResult<Value> {
    tokio::time::sleep(HEARTBEAT).await;
    let mut ping = Cmd::new();
    ping.arg("PING").query_async(connection).await
}
