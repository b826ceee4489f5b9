//! What was read of one body, in order, and how much of it has been played back.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::budget::{Budget, Reservation};
use crate::gateway::Replayable;
use crate::gateway::outcome::UnauthorizedReason;

/// Pieces from this size on are shared with the reader, not state. (A piece of an HTTP/2
/// body can hold on to the frame buffer that it lies in, some four times this at most.)
const MIN_SHARED_PIECE: usize = 4 * 1024;

/// Smaller pieces are state together into segments of this size: a body sent byte by
/// byte must not cost a hundred bytes of bookkeeping for each.
const SEGMENT: usize = 16 * 1024;

/// Bookkeeping of one segment, roughly.
const OVERHEAD: usize = 64;

/// How far the copy is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RecordState {
    /// All that was read is here.
    Complete,
    /// Nothing is kept any more, for this reason.
    Discarded(UnauthorizedReason),
    /// There will be no further attempt; what is still to be played is here.
    Finished,
}

/// What was read of one body.
#[derive(Debug)]
pub(super) struct ReplayBuffer {
    state: RecordState,
    segments: Vec<Bytes>,
    tail: BytesMut,
    recorded_len: usize,
    limit: usize,
    reservation: Reservation,
    /// The segment to play next; `None` once reading live.
    playing: Option<usize>,
    /// Whether anything was read from the caller.
    read: bool,
    /// Rewound although something is missing: reading on would truncate the body.
    incomplete: bool,
    /// Whether the caller got a 100 Continue.
    pub(super) continued: bool,
}

/// What a reader gets from the buffer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Played {
    /// This was read before.
    Piece(Bytes),
    /// Read on from the caller.
    Live,
    /// What comes next was not kept.
    Incomplete,
}

impl ReplayBuffer {
    pub(super) fn new(budget: &Arc<Budget>, limit: usize, announced: Option<u64>) -> Self {
        let over_limit = announced.is_some_and(|length| length > limit as u64);
        Self {
            state: if over_limit {
                RecordState::Discarded(UnauthorizedReason::BodyTooLarge)
            } else {
                RecordState::Complete
            },
            segments: Vec::new(),
            tail: BytesMut::new(),
            recorded_len: 0,
            limit,
            reservation: Reservation::new(budget),
            playing: None,
            read: false,
            incomplete: false,
            continued: false,
        }
    }

    /// Keeps one piece just read from the caller.
    pub(super) fn record(&mut self, piece: &Bytes) {
        if piece.is_empty() {
            return;
        }
        self.read = true;
        if self.state != RecordState::Complete {
            return;
        }
        if self.recorded_len + piece.len() > self.limit {
            self.discard(UnauthorizedReason::BodyTooLarge);
        } else if self.append(piece) {
            self.recorded_len += piece.len();
        } else {
            self.discard(UnauthorizedReason::ReplayMemory);
        }
    }

    fn append(&mut self, piece: &Bytes) -> bool {
        if piece.len() >= MIN_SHARED_PIECE {
            self.flush();
            let granted = self.reservation.grow(piece.len() + OVERHEAD);
            if granted {
                self.segments.push(piece.clone());
            }
            return granted;
        }
        if self.tail.capacity() - self.tail.len() < piece.len() {
            self.flush();
            // Most bodies are one small piece: the first segment is made to measure.
            let size = if self.segments.is_empty() {
                piece.len()
            } else {
                SEGMENT
            };
            if !self.reservation.grow(size + OVERHEAD) {
                return false;
            }
            self.tail = BytesMut::with_capacity(size);
        }
        self.tail.extend_from_slice(piece);
        true
    }

    fn flush(&mut self) {
        if !self.tail.is_empty() {
            self.segments.push(std::mem::take(&mut self.tail).freeze());
        }
    }

    fn discard(&mut self, reason: UnauthorizedReason) {
        self.state = RecordState::Discarded(reason);
        self.incomplete |= self.playing.is_some();
        self.clear();
    }

    fn clear(&mut self) {
        self.segments = Vec::new();
        self.tail = BytesMut::new();
        self.playing = None;
        self.reservation.release();
    }

    pub(super) fn play(&mut self) -> Played {
        if self.incomplete {
            return Played::Incomplete;
        }
        let Some(next) = self.playing else {
            return Played::Live;
        };
        let piece = self.segments.get(next).cloned();
        self.playing = Some(next + 1).filter(|n| *n < self.segments.len());
        if self.playing.is_none() && self.state == RecordState::Finished {
            self.clear();
        }
        piece.map_or(Played::Live, Played::Piece)
    }

    /// Whether everything kept was played: what comes next is live.
    pub(super) fn is_played_back(&self) -> bool {
        self.playing.is_none() && !self.incomplete
    }

    pub(super) fn rewind(&mut self) {
        match self.state {
            RecordState::Complete => {
                self.flush();
                self.playing = (!self.segments.is_empty()).then_some(0);
            }
            RecordState::Discarded(_) | RecordState::Finished => self.incomplete = self.read,
        }
    }

    pub(super) fn finish_recording(&mut self) {
        if self.state != RecordState::Complete {
            return;
        }
        self.state = RecordState::Finished;
        if self.playing.is_none() {
            self.clear();
        }
    }

    /// Nothing will be played any more.
    pub(super) fn close(&mut self) {
        self.state = RecordState::Finished;
        self.clear();
    }

    pub(super) fn replayable(&self) -> Replayable {
        match self.state {
            RecordState::Complete => Replayable::Yes,
            _ if !self.read => Replayable::Yes,
            RecordState::Discarded(reason) => Replayable::No(reason),
            RecordState::Finished => Replayable::No(UnauthorizedReason::NotReplayable),
        }
    }

    /// Whether anything of the body came from the caller.
    pub(super) fn has_started(&self) -> bool {
        self.read
    }
}
