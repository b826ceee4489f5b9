//! The buffer with the recorded part of one body, and the playback position.

use bytes::{Bytes, BytesMut};

use super::budget::Reservation;
use crate::gateway::Replayable;
use crate::gateway::outcome::UnauthorizedReason;

/// Pieces of at least this size are shared with the reader instead of copied. (A piece of an
/// HTTP/2 body can keep its whole frame buffer alive, which is at most about four times this
/// size.)
const MIN_SHARED_PIECE: usize = 4 * 1024;

/// Smaller pieces are copied into segments of this size, so that a body sent byte by byte does
/// not cost a hundred bytes of bookkeeping per byte.
const SEGMENT: usize = 16 * 1024;

/// Approximate bookkeeping per segment, in bytes.
const OVERHEAD: usize = 64;

/// The state of the recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RecordState {
    /// All bytes read so far are recorded.
    Complete,
    /// The recording was discarded, for this reason.
    Discarded(UnauthorizedReason),
    /// Recording has ended because there will be no further attempt. Only the bytes still to be
    /// played back are kept.
    Finished,
}

/// The recorded part of one body. Not `Debug`, because bodies can contain secrets.
pub(in crate::proxy) struct ReplayBuffer {
    state: RecordState,
    segments: Vec<Bytes>,
    tail: BytesMut,
    recorded_len: usize,
    limit: usize,
    reservation: Reservation,
    /// The segment to play back next; `None` when reading from the caller.
    playing: Option<usize>,
    /// Whether anything has been read from the caller.
    read: bool,
    /// Whether it was rewound although part of the recording is missing. Continuing would
    /// truncate the body.
    incomplete: bool,
}

/// The next thing to read.
#[cfg_attr(test, derive(Debug, PartialEq, Eq))]
pub(in crate::proxy) enum Played {
    /// A recorded piece.
    Piece(Bytes),
    /// Continue reading from the caller.
    Live,
    /// The next bytes were not recorded.
    Incomplete,
}

impl ReplayBuffer {
    pub(in crate::proxy) fn new(
        reservation: Reservation,
        limit: usize,
        announced: Option<u64>,
    ) -> Self {
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
            reservation,
            playing: None,
            read: false,
            incomplete: false,
        }
    }

    /// Records a piece that was read from the caller.
    pub(in crate::proxy) fn record(&mut self, piece: &Bytes) {
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
            // Most bodies are one small piece, so the first segment gets exactly that size.
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

    pub(in crate::proxy) fn play(&mut self) -> Played {
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

    /// Whether everything recorded has been played back, so that reading continues from the
    /// caller.
    pub(in crate::proxy) fn is_playback_done(&self) -> bool {
        self.playing.is_none() && !self.incomplete
    }

    pub(in crate::proxy) fn rewind(&mut self) {
        match self.state {
            RecordState::Complete => {
                self.flush();
                self.playing = (!self.segments.is_empty()).then_some(0);
            }
            RecordState::Discarded(_) | RecordState::Finished => self.incomplete = self.read,
        }
    }

    pub(in crate::proxy) fn finish_recording(&mut self) {
        if self.state != RecordState::Complete {
            return;
        }
        self.state = RecordState::Finished;
        if self.playing.is_none() {
            self.clear();
        }
    }

    /// Ends both recording and playback.
    pub(in crate::proxy) fn close(&mut self) {
        self.state = RecordState::Finished;
        self.clear();
    }

    pub(in crate::proxy) fn replayable(&self) -> Replayable {
        match self.state {
            RecordState::Complete => Replayable::Yes,
            _ if !self.read => Replayable::Yes,
            RecordState::Discarded(reason) => Replayable::No(reason),
            RecordState::Finished => Replayable::No(UnauthorizedReason::NotReplayable),
        }
    }

    /// Whether any of the body has been read from the caller.
    pub(in crate::proxy) fn has_started(&self) -> bool {
        self.read
    }
}
