//! One refresh of a session's tokens at a time in the whole fleet.
//!
//! A refresh token may be good for one use, and another look like theft to the provider (RFC 9700
//! §4.14.2). So a replica presents it only while it holds the lease of the session's record, and after
//! recording that it does; the record outlives a lease that was lost. The others wait for the result.

use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::{Either, select};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use zeroize::Zeroizing;

use super::later::{Job, Over};
use super::{Ended, SaveError, Shared, UserSession, ttl};
use crate::clock::Now;
use crate::session::user_session::StoreEntry;
use crate::shared_store::{
    Acquired, GenerationId, LEASE, LEASE_RENEWAL, POLL, StoreError, StoreEvent, StoreKey, Unwanted,
};

/// How much longer than the request that presents it a refresh token counts as presented, if its
/// replica is not heard of again.
const PRESENTED: Duration = Duration::from_secs(10);

/// Who renews a session.
pub(in crate::session) enum Claim {
    /// This replica.
    Granted(Claimed),
    /// Another one already did.
    Newer(Arc<UserSession>),
    /// Nobody: it has ended.
    Ended(Ended),
}

/// The right to renew a session.
pub(in crate::session) struct Claimed {
    shared: Arc<Shared>,
    /// The session as it is in the store.
    pub(in crate::session) session: Arc<UserSession>,
    entry: Arc<StoreEntry>,
    lease: GenerationId,
    /// The entry that says that the refresh token was presented.
    presented: StoreKey,
    lost: AtomicBool,
}

/// What became of a renewed session.
pub(in crate::session) enum Saved {
    /// It is in the store, or will be when that is up again.
    Written(Arc<UserSession>),
    /// Another replica has renewed it, too.
    Newer(Arc<UserSession>),
    /// It has ended meanwhile.
    Gone,
    /// It takes that many bytes.
    TooLarge(usize),
}

/// What holding the lease is good for.
enum Granted {
    /// To renew this session.
    Claimed(Claim),
    /// Nothing: the record is now this one.
    Moved(Arc<UserSession>),
}

impl Shared {
    /// Claims the renewal of `session`, or waits for the replica that has claimed it.
    ///
    /// # Errors
    /// If the store fails, or the other replica's renewal does not end in time.
    pub(in crate::session) async fn claim(
        self: &Arc<Self>,
        session: &Arc<UserSession>,
    ) -> Result<Claim, StoreError> {
        let limit = self.timeout + 2 * LEASE;
        let claimed = tokio::time::timeout(limit, self.claim_or_wait(session)).await;
        claimed.unwrap_or(Err(StoreError::Timeout(limit)))
    }

    async fn claim_or_wait(
        self: &Arc<Self>,
        session: &Arc<UserSession>,
    ) -> Result<Claim, StoreError> {
        let mut events = self.store.events();
        let mut current = Arc::clone(session);
        loop {
            let entry = current.entry.clone().ok_or(StoreError::Down)?;
            let lease = GenerationId::random()?;
            let unwanted = Unwanted {
                generation: entry.generation,
                reject: false,
            };
            let acquired = self.store.acquire(entry.key, lease, Some(unwanted));
            current = match acquired.await? {
                Acquired::Held => {
                    wait(&mut events, entry.key).await;
                    continue;
                }
                Acquired::Value(value) if value.generation == entry.generation => {
                    let problem = "the store returned what was not wanted";
                    return Err(StoreError::Answer(problem.into()));
                }
                Acquired::Value(value) => {
                    let at = StoreEntry {
                        key: entry.key,
                        half: entry.half.clone(),
                        generation: value.generation,
                    };
                    let now = Now::read(&*self.clock);
                    let Some(stored) = self.unseal(at, value.sealed, now) else {
                        return Ok(Claim::Ended(Ended::Invalid));
                    };
                    Arc::new(stored)
                }
                Acquired::Granted => match self.granted(current, entry, lease).await? {
                    Granted::Claimed(claim) => return Ok(claim),
                    Granted::Moved(current) => current,
                },
            };
            if current.generation > session.generation {
                return Ok(Claim::Newer(current));
            }
            if current.generation < session.generation {
                // What this replica has renewed is still to be written.
                let mut newer = UserSession::clone(session);
                newer.entry.clone_from(&current.entry);
                current = Arc::new(newer);
            }
        }
    }

    /// A lease is granted for what has been removed or replaced, too. So the record is read again.
    async fn granted(
        self: &Arc<Self>,
        session: Arc<UserSession>,
        entry: Arc<StoreEntry>,
        lease: GenerationId,
    ) -> Result<Granted, StoreError> {
        let claim = match self.store.read(entry.key).await {
            Ok(Some(value)) if value.generation == entry.generation => {
                self.present(session, &entry, lease).await
            }
            Ok(_) => {
                let now = Now::read(&*self.clock);
                let keys = self.record_keys(session.id);
                match self.read(&keys, &entry.half, now).await {
                    Ok(Some(stored)) => Ok(Granted::Moved(Arc::new(stored))),
                    Ok(None) => Ok(Granted::Claimed(Claim::Ended(Ended::Invalid))),
                    Err(error) => Err(error),
                }
            }
            Err(error) => Err(error),
        };
        if !matches!(claim, Ok(Granted::Claimed(Claim::Granted(_)))) {
            // If that fails, the lease ends by itself.
            let _ = self.store.release(entry.key, lease).await;
        }
        claim
    }

    /// Records that this replica presents the refresh token.
    async fn present(
        self: &Arc<Self>,
        session: Arc<UserSession>,
        entry: &Arc<StoreEntry>,
        lease: GenerationId,
    ) -> Result<Granted, StoreError> {
        let generation = session.generation.to_be_bytes();
        let presented = self
            .ends
            .once_key(&[b"refresh", &session.id.0, &generation]);
        if !self.once(presented, self.timeout + PRESENTED).await? {
            let problem = "another replica has presented the refresh token, and its answer is not in the store";
            return Err(StoreError::Answer(problem.into()));
        }
        Ok(Granted::Claimed(Claim::Granted(Claimed {
            shared: Arc::clone(self),
            session,
            entry: Arc::clone(entry),
            lease,
            presented,
            lost: AtomicBool::new(false),
        })))
    }

    /// Whether this is the first time in the fleet that `key` is used, within `ttl`.
    async fn once(&self, key: StoreKey, ttl: Duration) -> Result<bool, StoreError> {
        let generation = GenerationId::random()?;
        match self.store.acquire(key, generation, None).await? {
            Acquired::Held => Ok(false),
            // What no replica of the fleet wrote says nothing.
            Acquired::Value(value) => Ok(!self.ends.is_own(key, value)),
            Acquired::Granted => {
                let sealed = self.ends.seal(key, generation, Zeroizing::new(vec![1]))?;
                self.store.complete(key, generation, sealed, ttl).await
            }
        }
    }

    /// Whether this is the first time in the fleet that the logout token `id` is used, which is accepted
    /// for `ttl`.
    pub(in crate::session) async fn is_first_logout_token(
        &self,
        id: &str,
        ttl: Duration,
    ) -> Result<bool, StoreError> {
        let key = self.ends.once_key(&[b"logout token", id.as_bytes()]);
        self.once(key, ttl).await
    }
}

/// Waits until `key` may have changed.
async fn wait(events: &mut Receiver<StoreEvent>, key: StoreKey) {
    let changed = async {
        loop {
            match events.recv().await {
                Ok(StoreEvent::Changed { key: changed, .. }) if changed == key => return,
                Ok(StoreEvent::Interrupted) | Err(RecvError::Lagged(_)) => return,
                Ok(_) => {}
                Err(RecvError::Closed) => pending::<()>().await,
            }
        }
    };
    // Events may be lost.
    let _ = tokio::time::timeout(POLL, changed).await;
}

impl Claimed {
    /// Does `work` and keeps the lease meanwhile.
    pub(in crate::session) async fn keep<T>(&self, work: impl Future<Output = T>) -> T {
        match select(pin!(work), pin!(self.renew())).await {
            Either::Left((done, _)) => done,
            Either::Right(((), work)) => work.await,
        }
    }

    /// Renews the lease until it is lost.
    async fn renew(&self) {
        loop {
            tokio::time::sleep(LEASE_RENEWAL).await;
            let renewed = self.shared.store.renew(self.entry.key, self.lease).await;
            // A failing store does not give it to others either.
            if renewed == Ok(false) {
                self.lost.store(true, Ordering::Release);
                return;
            }
        }
    }

    /// Whether the lease is known to be lost. Then the refresh token must not be presented any more.
    pub(in crate::session) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// Gives the renewal up: nothing came of it.
    pub(in crate::session) async fn abandon(self) {
        if self.is_lost() {
            // What the entries say now may be about another replica.
            return;
        }
        let store = &self.shared.store;
        // If these fail, both end by themselves.
        let _ = store.remove(self.presented).await;
        let _ = store.release(self.entry.key, self.lease).await;
    }

    /// Writes the renewed session, as the only replica that has its tokens: also if the lease is lost, unless
    /// another replica has renewed it as well.
    pub(in crate::session) async fn save(&self, mut session: UserSession) -> Saved {
        let shared = &self.shared;
        let now = Now::read(&*shared.clock);
        session.entry = Some(Arc::new(StoreEntry {
            key: self.entry.key,
            half: self.entry.half.clone(),
            generation: self.lease,
        }));
        session.idle_expires_at = session.idle_expires_at.max(now.wall.plus(shared.idle));
        let sealed = match shared.seal(&session) {
            Ok(sealed) => sealed,
            Err(SaveError::TooLarge(size)) => return Saved::TooLarge(size),
            // Nothing can be sealed any more.
            Err(SaveError::Store(_)) => return Saved::Gone,
        };
        let (ttl, key) = (ttl(&session, now.wall), self.entry.key);
        let freshness = shared.watch_written(&session, now);
        match shared.store.complete(key, self.lease, sealed, ttl).await {
            Ok(true) => Saved::Written(shared.remember_written(session, freshness)),
            Ok(false) => self.save_over(session).await,
            Err(_) => self.save_later(session),
        }
    }

    async fn save_over(&self, session: UserSession) -> Saved {
        match self.shared.save_over(&session).await {
            Ok(Over::Written) => Saved::Written(Arc::new(session)),
            Ok(Over::Newer(stored)) => Saved::Newer(stored),
            Ok(Over::Gone) => Saved::Gone,
            Err(SaveError::TooLarge(size)) => Saved::TooLarge(size),
            Err(SaveError::Store(_)) => self.save_later(session),
        }
    }

    /// This replica goes on with the session meanwhile.
    fn save_later(&self, session: UserSession) -> Saved {
        let session = Arc::new(session);
        let until = session.expires_at;
        self.shared.later(Job::Save(Arc::clone(&session)), until);
        Saved::Written(session)
    }
}
