//! Tests of the buffer alone. The tests of the relay replay over real connections.

use std::sync::Arc;

use bytes::Bytes;

use super::Budget;
use super::budget::Reservation;
use super::buffer::{Played, ReplayBuffer};
use crate::gateway::Replayable;
use crate::gateway::outcome::UnauthorizedReason;

const LIMIT: usize = 100_000;

fn buffer() -> (Arc<Budget>, ReplayBuffer) {
    let budget = Budget::new(10 * LIMIT);
    let buffer = ReplayBuffer::new(Reservation::new(&budget, None, 0), LIMIT, None);
    (budget, buffer)
}

fn record(buffer: &mut ReplayBuffer, pieces: &[&[u8]]) {
    for piece in pieces {
        buffer.record(&Bytes::copy_from_slice(piece));
    }
}

/// Plays back everything recorded.
fn play(buffer: &mut ReplayBuffer) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        match buffer.play() {
            Played::Piece(piece) => all.extend_from_slice(&piece),
            Played::Live => return all,
            Played::Incomplete => panic!("incomplete"),
        }
    }
}

#[test]
fn recorded_bytes_can_be_played_back_repeatedly() {
    let (budget, mut buffer) = buffer();
    let large = vec![7; 5000];
    record(&mut buffer, &[b"a", b"bc", &large, b"", b"d", &large, b"e"]);
    let expected = [b"abc".as_slice(), &large, b"d", &large, b"e"].concat();
    for _ in 0..3 {
        assert_eq!(buffer.replayable(), Replayable::Yes);
        buffer.rewind();
        assert!(!buffer.is_playback_done());
        assert_eq!(play(&mut buffer), expected);
        assert!(buffer.is_playback_done());
    }
    assert!(budget.used() >= expected.len());
    drop(buffer);
    assert_eq!(budget.used(), 0);
}

#[test]
fn bytes_read_after_playback_are_recorded() {
    let (_budget, mut buffer) = buffer();
    record(&mut buffer, &[b"first "]);
    buffer.rewind();
    assert_eq!(play(&mut buffer), b"first ");
    record(&mut buffer, &[b"second "]);
    buffer.rewind();
    // Read ahead while the beginning is still being played back.
    record(&mut buffer, &[b"third"]);
    buffer.rewind();
    assert_eq!(play(&mut buffer), b"first second third");
}

#[test]
fn an_empty_recording_plays_back_nothing() {
    let (_budget, mut buffer) = buffer();
    buffer.rewind();
    assert!(buffer.is_playback_done());
    assert_eq!(buffer.play(), Played::Live);
}

#[test]
fn a_recording_over_the_limit_is_discarded() {
    let (budget, mut buffer) = buffer();
    record(&mut buffer, &[&vec![1; LIMIT - 1], b"x"]);
    assert_eq!(buffer.replayable(), Replayable::Yes);
    record(&mut buffer, &[b"y"]);
    let too_large = Replayable::No(UnauthorizedReason::BodyTooLarge);
    assert_eq!(buffer.replayable(), too_large);
    assert_eq!(budget.used(), 0);
    record(&mut buffer, &[b"z"]);
    assert_eq!((buffer.replayable(), budget.used()), (too_large, 0));
}

#[test]
fn a_body_with_content_length_over_the_limit_is_replayable_until_it_is_read() {
    let budget = Budget::new(10 * LIMIT);
    let mut buffer = ReplayBuffer::new(
        Reservation::new(&budget, None, 0),
        LIMIT,
        Some(LIMIT as u64 + 1),
    );
    assert_eq!(buffer.replayable(), Replayable::Yes);
    buffer.rewind();
    assert_eq!(buffer.play(), Played::Live);
    record(&mut buffer, &[b"x"]);
    assert_eq!(budget.used(), 0);
    assert_eq!(
        buffer.replayable(),
        Replayable::No(UnauthorizedReason::BodyTooLarge)
    );
}

#[test]
fn a_recording_over_the_shared_budget_is_discarded() {
    let budget = Budget::new(20_000);
    let mut first = ReplayBuffer::new(Reservation::new(&budget, None, 0), LIMIT, None);
    record(&mut first, &[&vec![1; 15_000]]);
    let mut second = ReplayBuffer::new(Reservation::new(&budget, None, 0), LIMIT, None);
    record(&mut second, &[&vec![1; 10_000]]);
    assert_eq!(
        second.replayable(),
        Replayable::No(UnauthorizedReason::ReplayMemory)
    );
    assert_eq!(first.replayable(), Replayable::Yes);
    drop(first);
    assert_eq!(budget.used(), 0);
}

#[test]
fn a_body_sent_byte_by_byte_uses_little_more_memory_than_its_length() {
    let (budget, mut buffer) = buffer();
    for _ in 0..LIMIT {
        buffer.record(&Bytes::from_static(b"x"));
    }
    assert!(budget.used() >= LIMIT);
    assert!(budget.used() < LIMIT * 5 / 4, "{}", budget.used());
    buffer.rewind();
    assert_eq!(play(&mut buffer).len(), LIMIT);
}

#[test]
fn playback_of_a_discarded_or_finished_recording_is_incomplete() {
    // Discarded, then rewound, which callers should not do.
    let (_budget, mut discarded) = buffer();
    record(&mut discarded, &[&vec![1; LIMIT + 1]]);
    discarded.rewind();
    assert_eq!(discarded.play(), Played::Incomplete);
    assert!(!discarded.is_playback_done());
    // Discarded while the beginning was being played back.
    let (_budget, mut during_playback) = buffer();
    record(&mut during_playback, &[b"a", &vec![1; 5000]]);
    during_playback.rewind();
    record(&mut during_playback, &[&vec![1; LIMIT]]);
    assert_eq!(during_playback.play(), Played::Incomplete);
    // Finished, then rewound.
    let (_budget, mut finished) = buffer();
    record(&mut finished, &[b"a"]);
    finished.finish_recording();
    finished.rewind();
    assert_eq!(finished.play(), Played::Incomplete);
}

#[test]
fn finished_recordings_release_their_memory_after_playback() {
    let (budget, mut idle) = buffer();
    record(&mut idle, &[b"abc"]);
    idle.finish_recording();
    assert_eq!(budget.used(), 0);
    assert_eq!(
        idle.replayable(),
        Replayable::No(UnauthorizedReason::NotReplayable)
    );
    // A response can arrive while the body is still being sent.
    let (budget, mut playing) = buffer();
    record(&mut playing, &[b"abc"]);
    playing.rewind();
    playing.finish_recording();
    assert!(budget.used() > 0);
    assert_eq!(play(&mut playing), b"abc");
    assert_eq!(budget.used(), 0);
    record(&mut playing, &[b"more"]);
    assert_eq!(budget.used(), 0);
}
