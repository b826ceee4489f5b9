//! The table of open connections: counts them, in total and by origin, and chooses which is
//! closed when room is needed. Every operation takes logarithmic time at most, and an origin is
//! forgotten with its last connection.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::ConnState;
use super::origin::Origin;

/// Maximum number of busy connections that are skipped in search of one to evict.
const MAX_SKIPPED: usize = 64;
/// Maximum number of origins in which an idle connection with an admitted request is sought.
const MAX_SOUGHT: usize = 4;

/// How readily a connection is evicted, the most readily first. A connection on which no request
/// was admitted is in no queue while a request is being served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Queue {
    /// No request was admitted, and none is being served.
    Unadmitted,
    /// The first request head has not arrived yet.
    Opening,
    /// A request was admitted. Such a connection is evicted only if it is idle.
    Admitted,
}

impl Queue {
    const ALL: [Self; 3] = [Self::Unadmitted, Self::Opening, Self::Admitted];
}

/// The limit that is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Limit {
    /// `limits.connections`.
    Total,
    /// `limits.connections_per_address`.
    PerAddress,
}

impl Limit {
    /// Returns the cause of a refusal, for the access log.
    pub(in crate::proxy) fn cause(self) -> &'static str {
        match self {
            Self::Total => "limits.connections is reached",
            Self::PerAddress => "limits.connections_per_address is reached",
        }
    }
}

/// The limits of a table.
#[derive(Clone, Copy, Debug)]
pub(super) struct TableLimits {
    pub(super) total: usize,
    /// Not limited if `None`.
    pub(super) per_address: Option<usize>,
}

/// The open connections of one server.
pub(super) struct Table {
    limits: TableLimits,
    /// The number of connections, without those that have been evicted.
    open: usize,
    /// The number of connections that have been evicted and are still being closed.
    closing: usize,
    next_id: u64,
    next_place: u64,
    connections: HashMap<u64, Entry>,
    origins: HashMap<Origin, OriginEntry>,
    /// For each queue, the origins that have connections in it, by their number, then by the
    /// place of the first.
    rankings: [BTreeMap<(usize, Reverse<u64>), Origin>; Queue::ALL.len()],
}

struct Entry {
    origin: Origin,
    place: Option<(Queue, u64)>,
    evicted: bool,
    state: Arc<ConnState>,
}

/// The connections of one origin.
#[derive(Default)]
struct OriginEntry {
    open: usize,
    /// Ids by place; the first is evicted first.
    queues: [BTreeMap<u64, u64>; Queue::ALL.len()],
}

impl Table {
    pub(super) fn new(limits: TableLimits) -> Self {
        Self {
            limits,
            open: 0,
            closing: 0,
            next_id: 0,
            next_place: 0,
            connections: HashMap::new(),
            origins: HashMap::new(),
            rankings: Default::default(),
        }
    }

    pub(super) fn open(&self) -> usize {
        self.open
    }

    pub(super) fn closing(&self) -> usize {
        self.closing
    }

    /// Adds a connection and returns its id. If a limit is reached, another connection is evicted
    /// first, and the limit is returned as well.
    ///
    /// # Errors
    /// Returns the limit that is reached if no connection may be evicted.
    pub(super) fn add(
        &mut self,
        origin: Origin,
        state: impl FnOnce(u64) -> Arc<ConnState>,
    ) -> Result<(Arc<ConnState>, Option<Limit>), Limit> {
        let mut reached = self.make_room_of(origin)?;
        if self.open >= self.limits.total {
            if !self.evict_for(origin) {
                return Err(Limit::Total);
            }
            reached = Some(Limit::Total);
        }
        let id = self.next_id;
        self.next_id += 1;
        let state = state(id);
        let entry = Entry {
            origin,
            place: None,
            evicted: false,
            state: state.clone(),
        };
        self.connections.insert(id, entry);
        self.count(origin);
        self.enqueue(id, Queue::Opening);
        Ok((state, reached))
    }

    /// Removes a connection that has been closed.
    pub(super) fn remove(&mut self, id: u64) {
        self.dequeue(id);
        let Some(entry) = self.connections.remove(&id) else {
            return;
        };
        if entry.evicted {
            self.closing = self.closing.saturating_sub(1);
        } else {
            self.uncount(entry.origin);
        }
    }

    /// Counts an open connection under another origin from now on. The limit of that origin
    /// applies as in [`Table::add`].
    ///
    /// # Errors
    /// The same as for [`Table::add`].
    pub(super) fn set_origin(&mut self, id: u64, origin: Origin) -> Result<Option<Limit>, Limit> {
        let Some(entry) = self.connections.get(&id).filter(|entry| !entry.evicted) else {
            return Ok(None);
        };
        let (before, place) = (entry.origin, entry.place);
        if before == origin {
            return Ok(None);
        }
        let reached = self.make_room_of(origin)?;
        self.dequeue(id);
        self.uncount(before);
        self.count(origin);
        if let Some(entry) = self.connections.get_mut(&id) {
            entry.origin = origin;
        }
        self.enqueue(id, place.map_or(Queue::Opening, |(queue, _)| queue));
        Ok(reached)
    }

    /// Moves a connection to the end of `queue`, if it has not been evicted.
    pub(super) fn enqueue(&mut self, id: u64, queue: Queue) {
        self.dequeue(id);
        let place = self.next_place;
        let Some(entry) = self.connections.get_mut(&id) else {
            return;
        };
        if entry.evicted || !entry.origin.is_evictable() {
            return;
        }
        self.next_place += 1;
        entry.place = Some((queue, place));
        let origin = entry.origin;
        self.edit_queue(origin, queue, |queue| {
            queue.insert(place, id);
        });
    }

    /// Removes a connection from its queue, so that it is not evicted.
    pub(super) fn dequeue(&mut self, id: u64) {
        let Some(entry) = self.connections.get_mut(&id) else {
            return;
        };
        let origin = entry.origin;
        if let Some((queue, place)) = entry.place.take() {
            self.edit_queue(origin, queue, |queue| {
                queue.remove(&place);
            });
        }
    }

    /// Counts an evicted connection as open again: a request had arrived at the same time.
    pub(super) fn restore(&mut self, id: u64) {
        let Some(entry) = self.connections.get_mut(&id) else {
            return;
        };
        if std::mem::take(&mut entry.evicted) {
            let origin = entry.origin;
            self.closing = self.closing.saturating_sub(1);
            self.count(origin);
        }
    }

    /// Evicts one connection, whatever its origin. Returns whether there was one to evict.
    pub(super) fn evict_any(&mut self) -> bool {
        self.evict_from_largest(None)
    }

    /// Makes room for one more connection of `origin`, if its limit is reached, by evicting
    /// another connection of the same origin.
    fn make_room_of(&mut self, origin: Origin) -> Result<Option<Limit>, Limit> {
        let Some(limit) = self.limits.per_address.filter(|_| origin.is_address()) else {
            return Ok(None);
        };
        if self.open_of(origin) < limit {
            return Ok(None);
        }
        for queue in Queue::ALL {
            let mut skip = MAX_SKIPPED;
            if let Some(id) = self.first_idle(origin, queue, &mut skip) {
                self.evict(id);
                return Ok(Some(Limit::PerAddress));
            }
        }
        Err(Limit::PerAddress)
    }

    /// Makes room for one more connection of `origin`. Idle connections with an admitted request
    /// have to give way only to their own origin, and to those that have fewer connections.
    fn evict_for(&mut self, origin: Origin) -> bool {
        let held = self.open_of(origin);
        if self.evict_from_largest(Some(held)) {
            return true;
        }
        let mut skip = MAX_SKIPPED;
        let own = self.first_idle(origin, Queue::Admitted, &mut skip);
        own.map(|id| self.evict(id)).is_some()
    }

    /// Evicts a connection of the origin that has the most that may be evicted.
    fn evict_from_largest(&mut self, held: Option<usize>) -> bool {
        let mut skip = MAX_SKIPPED;
        for queue in [Queue::Unadmitted, Queue::Opening] {
            let ranking = self.rankings.get(queue as usize);
            let largest = ranking.and_then(|ranking| ranking.values().next_back().copied());
            if let Some(id) = largest.and_then(|origin| self.first_idle(origin, queue, &mut skip)) {
                self.evict(id);
                return true;
            }
        }
        let ranking = self.rankings.get(Queue::Admitted as usize);
        let largest = ranking.into_iter().flat_map(|ranking| ranking.values());
        let largest: Vec<_> = largest.rev().take(MAX_SOUGHT).copied().collect();
        for origin in largest {
            if held.is_some_and(|held| self.open_of(origin) <= held + 1) {
                continue;
            }
            if let Some(id) = self.first_idle(origin, Queue::Admitted, &mut skip) {
                self.evict(id);
                return true;
            }
        }
        false
    }

    /// Returns the first connection of a queue that is idle. Busy ones before it are moved to the
    /// end of the queue.
    fn first_idle(&mut self, origin: Origin, queue: Queue, skip: &mut usize) -> Option<u64> {
        loop {
            let queued = self.origins.get(&origin)?.queues.get(queue as usize)?;
            let id = *queued.values().next()?;
            if !self.connections.get(&id)?.state.is_busy() {
                return Some(id);
            }
            *skip = skip.checked_sub(1)?;
            self.enqueue(id, queue);
        }
    }

    fn evict(&mut self, id: u64) {
        self.dequeue(id);
        let Some(entry) = self.connections.get_mut(&id) else {
            return;
        };
        entry.evicted = true;
        entry.state.evict();
        let origin = entry.origin;
        self.closing += 1;
        self.uncount(origin);
    }

    fn open_of(&self, origin: Origin) -> usize {
        self.origins.get(&origin).map_or(0, |entry| entry.open)
    }

    fn count(&mut self, origin: Origin) {
        self.open += 1;
        self.origins.entry(origin).or_default().open += 1;
    }

    /// Must be called after the connection has left its queue.
    fn uncount(&mut self, origin: Origin) {
        self.open = self.open.saturating_sub(1);
        if let Some(entry) = self.origins.get_mut(&origin) {
            entry.open = entry.open.saturating_sub(1);
            if entry.open == 0 {
                self.origins.remove(&origin);
            }
        }
    }

    /// Changes a queue, and the rank of its origin accordingly.
    fn edit_queue(
        &mut self,
        origin: Origin,
        queue: Queue,
        edit: impl FnOnce(&mut BTreeMap<u64, u64>),
    ) {
        let ranking = self.rankings.get_mut(queue as usize);
        let queued = self.origins.get_mut(&origin);
        let queued = queued.and_then(|entry| entry.queues.get_mut(queue as usize));
        let (Some(ranking), Some(queued)) = (ranking, queued) else {
            return;
        };
        if let Some(rank) = rank(queued) {
            ranking.remove(&rank);
        }
        edit(queued);
        if let Some(rank) = rank(queued) {
            ranking.insert(rank, origin);
        }
    }
}

/// Returns the rank of an origin with this queue. Places are unique, and so are ranks.
fn rank(queue: &BTreeMap<u64, u64>) -> Option<(usize, Reverse<u64>)> {
    let (first, _) = queue.first_key_value()?;
    Some((queue.len(), Reverse(*first)))
}

#[cfg(test)]
impl Table {
    pub(super) fn is_empty(&self) -> bool {
        let ranked = self.rankings.iter().any(|ranking| !ranking.is_empty());
        self.connections.is_empty() && self.origins.is_empty() && !ranked
    }

    /// Whether all counts and ranks agree. Checked for a sample of origins only.
    pub(super) fn is_consistent(&self) -> bool {
        let queued: usize = self.rankings.iter().map(BTreeMap::len).sum();
        let sample = self.origins.iter().take(5);
        let ranked = |(origin, entry): (&Origin, &OriginEntry)| {
            let mut ranks = entry.queues.iter().zip(&self.rankings);
            let agree = ranks.all(|(queue, ranking)| {
                rank(queue).is_none_or(|rank| ranking.get(&rank) == Some(origin))
            });
            agree && entry.open > 0
        };
        self.connections.len() == self.open + self.closing
            && queued <= self.open.min(3 * self.origins.len())
            && sample.into_iter().all(ranked)
    }
}
