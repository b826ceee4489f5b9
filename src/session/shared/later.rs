//! Writes that must not be lost because the store fails: they are tried again until they succeed, or no
//! session is left that they could concern.

use std::sync::Arc;
use std::time::Duration;

use super::{Ended, MAX_CLOCK_SKEW, SaveError, Shared, UserSession, Which, ttl};
use crate::clock::{Now, UnixMillis};
use crate::session::user_session::StoreEntry;
use crate::shared_store::{GenerationId, StoreError, StoreKey};

/// The pauses between two attempts: doubled each time, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What is to be written.
pub(super) enum Job {
    /// That sessions have ended.
    End {
        key: StoreKey,
        ended: Ended,
        at: UnixMillis,
    },
    /// That a session is no longer there.
    Remove(Vec<StoreKey>),
    /// A renewed session.
    Save(Arc<UserSession>),
}

/// What came of a renewed session that could not be written under its lease.
pub(super) enum Over {
    Written,
    /// Somebody else has renewed it as well.
    Newer(Arc<UserSession>),
    /// It is not there any more.
    Gone,
}

impl Shared {
    /// Ends `which` for every replica: at once, or when the store is up again.
    pub(in crate::session) async fn end(
        self: &Arc<Self>,
        which: Which<'_>,
        ended: Ended,
        now: Now,
    ) {
        let job = Job::End {
            key: self.ends.key(which),
            ended,
            at: now.wall,
        };
        self.insist(job, now.wall.plus(self.lifetime)).await;
    }

    /// Removes the record of `session`, if there is one: at once, or when the store is up again.
    pub(in crate::session) async fn remove(self: &Arc<Self>, session: &UserSession) {
        self.seen.invalidate(&session.id);
        let keys = self.record_keys(session.id);
        if !keys.is_empty() {
            self.insist(Job::Remove(keys), session.expires_at).await;
        }
    }

    async fn insist(self: &Arc<Self>, job: Job, until: UnixMillis) {
        if self.attempt(&job).await.is_err() {
            self.later(job, until);
        }
    }

    /// Tries again in the background, at most until `until`.
    pub(super) fn later(self: &Arc<Self>, job: Job, until: UnixMillis) {
        let Ok(permit) = Arc::clone(&self.retries).try_acquire_owned() else {
            tracing::warn!(
                "the shared store is down for so long that changes of sessions are lost to it"
            );
            return;
        };
        let shared = Arc::clone(self);
        tokio::spawn(async move {
            let mut pause = FIRST_PAUSE;
            while shared.clock.now() < until {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
                if shared.attempt(&job).await.is_ok() {
                    break;
                }
            }
            drop(permit);
        });
    }

    async fn attempt(&self, job: &Job) -> Result<(), StoreError> {
        match job {
            Job::End { key, ended, at } => {
                let end = at.plus(self.lifetime).plus(MAX_CLOCK_SKEW);
                let ttl = self.clock.now().until(end);
                self.ends
                    .write(&*self.store, *key, (*ended, *at), ttl)
                    .await
            }
            Job::Remove(keys) => {
                for key in keys {
                    self.store.remove(*key).await?;
                }
                Ok(())
            }
            Job::Save(session) => match self.save_over(session).await {
                Err(SaveError::Store(error)) => Err(error),
                Ok(_) | Err(SaveError::TooLarge(_)) => Ok(()),
            },
        }
    }

    /// Writes a renewed session whose lease is over, unless somebody else has renewed it or ended it: only
    /// this replica has its refresh token.
    pub(super) async fn save_over(&self, session: &UserSession) -> Result<Over, SaveError> {
        let now = Now::read(&*self.clock);
        let Some(entry) = &session.entry else {
            return Ok(Over::Gone);
        };
        let keys = self.record_keys(session.id);
        let Some(stored) = self.read(&keys, &entry.half, now).await? else {
            return Ok(Over::Gone);
        };
        if stored.generation >= session.generation {
            return Ok(Over::Newer(Arc::new(stored)));
        }
        let (key, generation) = (
            stored.entry.map_or(entry.key, |at| at.key),
            GenerationId::random()?,
        );
        let mut session = session.clone();
        session.entry = Some(Arc::new(StoreEntry {
            key,
            half: entry.half.clone(),
            generation,
        }));
        let sealed = self.seal(&session)?;
        let ttl = ttl(&session, now.wall);
        self.store.write(key, generation, sealed, ttl).await?;
        Ok(Over::Written)
    }
}
