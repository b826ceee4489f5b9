use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::join_all;
use serde_json::json;

use super::*;
use crate::clock::{ManualClock, UnixMillis};
use crate::remote::jwks::key_client;
use crate::remote::testing::{Peer, Reply, peer_with};

struct Fixture {
    cache: MetadataCache,
    clock: Arc<ManualClock>,
    peer: Peer,
    /// 0 is up, another number the status of every answer.
    status: Arc<AtomicUsize>,
}

async fn fixture() -> Fixture {
    let status = Arc::new(AtomicUsize::new(0));
    let answered = Arc::clone(&status);
    let peer = peer_with(move |request| {
        let host = request
            .lines()
            .find_map(|line| line.strip_prefix("host: "))
            .unwrap();
        let issuer = format!("http://{host}/");
        match answered.load(Ordering::SeqCst) {
            0 => Reply::json(200, &json!({"issuer": issuer}).to_string()),
            status => Reply::json(u16::try_from(status).unwrap(), "{}"),
        }
    })
    .await;
    let clock = ManualClock::at(UnixMillis(0));
    let client = key_client(None, &crate::network::Network::default()).unwrap();
    Fixture {
        cache: MetadataCache::new(peer.url.as_str(), client, clock.clone()),
        clock,
        peer,
        status,
    }
}

impl Fixture {
    /// The requests received since the last call.
    fn requests(&mut self) -> usize {
        std::iter::from_fn(|| self.peer.requests.try_recv().ok()).count()
    }

    /// Waits for a refresh in the background.
    async fn refreshed(&self) {
        let fetch = self.cache.0.state().fetch.clone();
        fetch.unwrap().wait().await;
    }
}

#[tokio::test]
async fn however_many_ask_one_fetch_serves_them_for_an_hour() {
    let mut fixture = fixture().await;
    let all = join_all((0..50).map(|_| fixture.cache.get())).await;
    assert!(all.iter().all(Result::is_ok));
    fixture.clock.advance(Duration::from_mins(59));
    fixture.cache.get().await.unwrap();
    assert_eq!(fixture.requests(), 1);
    fixture.clock.advance(Duration::from_mins(1));
    fixture.cache.get().await.unwrap();
    fixture.refreshed().await;
    fixture.cache.get().await.unwrap();
    assert_eq!(fixture.requests(), 1);
}

#[tokio::test]
async fn a_provider_that_is_down_is_asked_again_at_growing_intervals() {
    let mut fixture = fixture().await;
    fixture.status.store(503, Ordering::SeqCst);
    let mut asked = 0;
    for wait in [1, 2, 4, 8, 16, 30, 30] {
        for _ in 0..20 {
            let error = fixture.cache.get().await.unwrap_err();
            assert_eq!(error.retry_after, Duration::from_secs(wait));
            assert!(error.to_string().contains("503"), "{error}");
        }
        // Each fetch tries both well-known locations.
        asked += fixture.requests();
        fixture.clock.advance(Duration::from_secs(wait));
    }
    assert_eq!(asked, 14);
    fixture.status.store(0, Ordering::SeqCst);
    fixture.cache.get().await.unwrap();
}

#[tokio::test]
async fn stale_metadata_is_used_for_a_day_while_the_provider_is_down() {
    let mut fixture = fixture().await;
    fixture.cache.get().await.unwrap();
    fixture.status.store(500, Ordering::SeqCst);
    fixture.clock.advance(Duration::from_hours(1));
    for _ in 0..10 {
        fixture.cache.get().await.unwrap();
        fixture.refreshed().await;
    }
    assert_eq!(fixture.requests(), 3);
    fixture.clock.advance(Duration::from_mins(24 * 60 - 1));
    fixture.cache.get().await.unwrap();
    fixture.refreshed().await;
    fixture.clock.advance(Duration::from_mins(1));
    fixture.cache.get().await.unwrap_err();
}
