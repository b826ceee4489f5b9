//! What was read of one body, in order, and how much of it has been played back.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::budget::{Budget, Share};
use crate::gateway::Replayable;
use crate::gateway::outcome::UnauthorizedReason;

/// Pieces from this size on are shared with the reader, not copied. (A piece of an HTTP/2
/// body can hold on to the frame buffer that it lies in, some four times this at most.)
const SHARED_FROM: usize = 4 * 1024;

/// Smaller pieces are copied together into segments of this size: a body sent byte by
/// byte must not cost a hundred bytes of bookkeeping for each.
const SEGMENT: usize = 16 * 1024;

/// Bookkeeping of one segment, roughly.
const OVERHEAD: usize = 64;

/// How far the copy is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Copied {
    /// All that was read is here.
    Whole,
    /// Nothing is kept any more, for this reason.
    Lost(UnauthorizedReason),
    /// There will be no further attempt; what is still to be played is here.
    Spent,
}

/// What was read of one body.
#[derive(Debug)]
pub(super) struct ReplayBuffer {
    copied: Copied,
    segments: Vec<Bytes>,
    tail: BytesMut,
    kept: usize,
    limit: usize,
    share: Share,
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
    Torn,
}

impl ReplayBuffer {
    pub(super) fn new(budget: &Arc<Budget>, limit: usize, announced: Option<u64>) -> Self {
        let hopeless = announced.is_some_and(|length| length > limit as u64);
        Self {
            copied: if hopeless {
                Copied::Lost(UnauthorizedReason::BodyTooLarge)
            } else {
                Copied::Whole
            },
            segments: Vec::new(),
            tail: BytesMut::new(),
            kept: 0,
            limit,
            share: Share::none_of(budget),
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
        if self.copied != Copied::Whole {
            return;
        }
        if self.kept + piece.len() > self.limit {
            self.lose(UnauthorizedReason::BodyTooLarge);
        } else if self.keep(piece) {
            self.kept += piece.len();
        } else {
            self.lose(UnauthorizedReason::ReplayMemory);
        }
    }

    fn keep(&mut self, piece: &Bytes) -> bool {
        if piece.len() >= SHARED_FROM {
            self.flush();
            let granted = self.share.grow(piece.len() + OVERHEAD);
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
            if !self.share.grow(size + OVERHEAD) {
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

    fn lose(&mut self, reason: UnauthorizedReason) {
        self.copied = Copied::Lost(reason);
        self.incomplete |= self.playing.is_some();
        self.forget();
    }

    fn forget(&mut self) {
        self.segments = Vec::new();
        self.tail = BytesMut::new();
        self.playing = None;
        self.share.release();
    }

    pub(super) fn play(&mut self) -> Played {
        if self.incomplete {
            return Played::Torn;
        }
        let Some(next) = self.playing else {
            return Played::Live;
        };
        let piece = self.segments.get(next).cloned();
        self.playing = Some(next + 1).filter(|n| *n < self.segments.len());
        if self.playing.is_none() && self.copied == Copied::Spent {
            self.forget();
        }
        piece.map_or(Played::Live, Played::Piece)
    }

    /// Whether everything kept was played: what comes next is live.
    pub(super) fn played(&self) -> bool {
        self.playing.is_none() && !self.incomplete
    }

    pub(super) fn rewind(&mut self) {
        match self.copied {
            Copied::Whole => {
                self.flush();
                self.playing = (!self.segments.is_empty()).then_some(0);
            }
            Copied::Lost(_) | Copied::Spent => self.incomplete = self.read,
        }
    }

    pub(super) fn spend(&mut self) {
        if self.copied != Copied::Whole {
            return;
        }
        self.copied = Copied::Spent;
        if self.playing.is_none() {
            self.forget();
        }
    }

    /// Nothing will be played any more.
    pub(super) fn close(&mut self) {
        self.copied = Copied::Spent;
        self.forget();
    }

    pub(super) fn replayable(&self) -> Replayable {
        match self.copied {
            Copied::Whole => Replayable::Yes,
            _ if !self.read => Replayable::Yes,
            Copied::Lost(reason) => Replayable::No(reason),
            Copied::Spent => Replayable::No(UnauthorizedReason::NotReplayable),
        }
    }

    /// Whether anything of the body came from the caller.
    pub(super) fn begun(&self) -> bool {
        self.read
    }
}
