//! Bodies in both directions at once, and readers that are slower than their upstream.

use std::sync::atomic::Ordering;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming};

use super::Pair;
use super::peers::{MIB, Peers, channel, full, read, request};
use crate::known_differences::{Differences, patiently};
use crate::support::upstream::sha256;
use crate::support::wait::until;

/// Reads until this many bytes have arrived.
async fn read_exactly(body: &mut Incoming, size: usize) -> Result<Bytes, String> {
    let mut bytes = BytesMut::new();
    while bytes.len() < size {
        let frame = patiently(body.frame()).await?;
        let frame = frame.and_then(Result::ok).ok_or("a truncated body")?;
        if let Ok(data) = frame.into_data() {
            bytes.extend_from_slice(&data);
        }
    }
    Ok(bytes.freeze())
}

/// Sends a piece, waits for its echo, and so on.
async fn converse(peers: &Peers, pair: Pair) -> Result<(), String> {
    let mut caller = pair.caller(&peers.gateway).await;
    let (sender, body) = channel();
    let mut answer = caller.send(request(pair, "POST", "/echo", body)).await?;
    for round in 0..20 {
        let piece = Bytes::from(format!("{round} ").repeat(500));
        sender.send(Frame::data(piece.clone())).await.unwrap();
        let echo = read_exactly(answer.body_mut(), piece.len()).await?;
        assert_eq!(echo, piece, "{pair:?}");
    }
    drop(sender);
    let (rest, _) = read(answer.into_body()).await?;
    assert!(rest.is_empty(), "{pair:?}");
    Ok(())
}

#[tokio::test]
async fn a_conversation_passes_in_both_directions() {
    let peers = Peers::start().await;
    let mut found = Differences::default();
    for pair in Pair::ALL {
        found.record(
            "conversation",
            pair.name(),
            converse(&peers, pair).await.err(),
        );
    }
    found.assert_known();
}

/// Sends `content` to be echoed, and reads it at the same time.
async fn echo(peers: &Peers, pair: Pair, content: &Bytes) -> Result<(), String> {
    let mut caller = pair.caller(&peers.gateway).await;
    let (sender, body) = channel();
    let mut rest = content.clone();
    tokio::spawn(async move {
        while !rest.is_empty() {
            let piece = rest.split_to(rest.len().min(50_000));
            if sender.send(Frame::data(piece)).await.is_err() {
                return;
            }
        }
    });
    let answer = caller.send(request(pair, "POST", "/echo", body)).await?;
    let (echo, _) = read(answer.into_body()).await?;
    assert_eq!(sha256(&echo), sha256(content), "{pair:?}");
    Ok(())
}

#[tokio::test]
async fn large_bodies_pass_in_both_directions_at_once() {
    const SIZE: usize = 8 * MIB;
    let peers = Peers::start().await;
    let mut found = Differences::default();
    let content: Bytes = (0..SIZE).map(|n| u8::try_from(n % 251).unwrap()).collect();
    for pair in Pair::ALL {
        let what = echo(&peers, pair, &content).await.err();
        found.record("large echo", pair.name(), what);
    }
    found.assert_known();
}

/// The upstream is not read faster than the caller reads, except for what buffers hold.
async fn read_slowly(peers: &Peers, pair: Pair) -> Result<(), String> {
    const SIZE: usize = 96 * MIB;
    // The kernel's buffers of two connections, and windows of HTTP/2.
    const BUFFERED: usize = 40 * MIB;
    let downloaded = &peers.arrived.downloaded;
    downloaded.store(0, Ordering::SeqCst);
    let mut caller = pair.caller(&peers.gateway).await;
    let path = format!("/download/{SIZE}");
    let mut answer = caller.send(request(pair, "GET", &path, full(""))).await?;
    let (mut before, mut unchanged) = (0, 0);
    until("the upstream to stand still", async || {
        let now = downloaded.load(Ordering::SeqCst);
        unchanged = if now == before { unchanged + 1 } else { 0 };
        before = now;
        unchanged == 20
    })
    .await;
    if before > BUFFERED {
        return Err("reads ahead".into());
    }
    read_exactly(answer.body_mut(), SIZE).await?;
    let (rest, _) = read(answer.into_body()).await?;
    assert!(rest.is_empty(), "{pair:?}");
    Ok(())
}

#[tokio::test]
async fn a_slow_reader_slows_its_upstream_down() {
    let peers = Peers::start().await;
    let mut found = Differences::default();
    for pair in Pair::ALL {
        let what = read_slowly(&peers, pair).await.err();
        found.record("slow reader", pair.name(), what);
    }
    found.assert_known();
}
