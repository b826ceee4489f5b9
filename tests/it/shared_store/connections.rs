//! Connections: events between replicas, losses, servers that fall silent.

use std::time::Duration;

use hawkgate::shared_store::{Acquired, GenerationId, SharedStore, StoreError, StoreEvent};
use tokio::sync::broadcast;

use super::{KEY, changed, id, rejected, store, store_with};
use crate::support::redis::RedisServer;
use crate::support::wait::{until, within};

const MINUTE: Duration = Duration::from_mins(1);

async fn put(store: &dyn SharedStore, generation: GenerationId) -> Result<(), StoreError> {
    store
        .write(KEY, generation, b"value".to_vec(), MINUTE)
        .await
}

/// Receives until `event` arrives.
async fn receive(events: &mut broadcast::Receiver<StoreEvent>, event: StoreEvent) {
    within("the event", async {
        while events.recv().await.unwrap() != event {}
    })
    .await;
}

pub(super) async fn until_up(store: &dyn SharedStore) {
    until("the store to be up", async || store.probe().await.is_ok()).await;
}

#[tokio::test]
async fn replicas_hear_of_each_others_events_and_not_of_other_fleets() {
    let server = RedisServer::start(&[]).await;
    let (one, two) = (store(&server.url()), store(&server.url()));
    let stranger = hawkgate::remote::shared_store::RedisStore::new(
        &super::settings(&server.url()),
        &hawkgate::network::Network::default(),
        &super::fleet_keys(2),
    )
    .unwrap();
    for store in [&*one, &*two, &stranger] {
        store.probe().await.unwrap();
    }
    let mut events = two.events();
    stranger.reject(KEY, id(1)).await.unwrap();
    let garbage: &[&[u8]] = &[b"PUBLISH", b"hawkgate:events", b"\x01garbage\xff"];
    server.command_bytes(garbage).await;
    one.reject(KEY, id(2)).await.unwrap();
    let event = within("the event", events.recv()).await.unwrap();
    assert_eq!(event, rejected(2));
    assert!(events.is_empty());
}

#[tokio::test]
async fn a_store_that_is_not_there_fails_at_once_and_is_found_when_it_comes() {
    let mut server = RedisServer::start(&[]).await;
    server.kill().await;
    let store = store(&server.url());
    let error = put(&*store, id(1)).await.unwrap_err();
    let expected = format!("{}: connection refused", server.address());
    assert_eq!(error, StoreError::Unreachable(expected));
    assert_eq!(store.probe().await.unwrap_err(), error);
    let mut events = store.events();
    server.restart().await;
    // Without a probe, too.
    until("the store to be up", async || {
        put(&*store, id(1)).await.is_ok()
    })
    .await;
    receive(&mut events, StoreEvent::Interrupted).await;
    receive(&mut events, changed(KEY, Some(1))).await;
}

#[tokio::test]
async fn a_loss_fails_what_is_under_way_and_interrupts_events() {
    let mut server = RedisServer::start(&[]).await;
    let store = store(&server.url());
    store.probe().await.unwrap();
    let mut events = store.events();
    server.pause();
    let waiting = tokio::spawn({
        let store = store.clone();
        async move { put(&*store, id(1)).await }
    });
    server.kill().await;
    let error = within("the failure", waiting).await.unwrap().unwrap_err();
    assert!(matches!(error, StoreError::Unreachable(_)), "{error:?}");
    until("operations to fail at once", async || {
        matches!(put(&*store, id(1)).await, Err(StoreError::Unreachable(text)) if text.contains("refused"))
    })
    .await;
    assert!(events.is_empty());
    server.restart().await;
    until_up(&*store).await;
    assert_eq!(events.recv().await.unwrap(), StoreEvent::Interrupted);
    // The new server has none of the scripts cached.
    put(&*store, id(2)).await.unwrap();
    assert_eq!(store.read(KEY).await.unwrap().unwrap().generation, id(2));
    receive(&mut events, changed(KEY, Some(2))).await;
}

#[tokio::test]
async fn connections_that_are_closed_are_opened_again() {
    let server = RedisServer::start(&[]).await;
    let store = store(&server.url());
    store.probe().await.unwrap();
    let mut events = store.events();
    for kind in ["normal", "pubsub", "normal"] {
        server.command(&["CLIENT", "KILL", "TYPE", kind]).await;
    }
    receive(&mut events, StoreEvent::Interrupted).await;
    until("operations to succeed", async || {
        put(&*store, id(1)).await.is_ok()
    })
    .await;
    receive(&mut events, changed(KEY, Some(1))).await;
}

/// A connection that no longer carries anything is noticed, though nobody closes it.
#[tokio::test]
async fn a_server_that_falls_silent_is_given_up() {
    let server = RedisServer::start(&[]).await;
    let store = store(&server.url());
    store.probe().await.unwrap();
    server.pause();
    until("the connection to be given up", async || {
        let put = tokio::time::timeout(Duration::from_secs(10), put(&*store, id(1)));
        matches!(put.await, Ok(Err(StoreError::Unreachable(_))))
    })
    .await;
    let mut events = store.events();
    server.resume();
    until_up(&*store).await;
    receive(&mut events, StoreEvent::Interrupted).await;
    put(&*store, id(2)).await.unwrap();
}

/// A holder that has died is followed: real time, unlike in the other cases.
#[tokio::test]
async fn a_lease_ends_by_the_servers_clock() {
    let server = RedisServer::start(&[]).await;
    let (dead, next) = (store(&server.url()), store(&server.url()));
    let acquired = dead.acquire(KEY, id(1), None).await.unwrap();
    assert!(matches!(acquired, Acquired::Granted));
    drop(dead);
    let acquired = next.acquire(KEY, id(2), None).await.unwrap();
    assert!(matches!(acquired, Acquired::Held));
    until("the lease to end", async || {
        let acquired = next.acquire(KEY, id(2), None).await.unwrap();
        matches!(acquired, Acquired::Granted)
    })
    .await;
}

#[tokio::test]
async fn the_store_outlives_the_runtime_that_used_it_first() {
    let server = RedisServer::start(&[]).await;
    let store = store(&server.url());
    let first = store.clone();
    let used = std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(first.probe()).unwrap();
    });
    tokio::task::spawn_blocking(move || used.join().unwrap())
        .await
        .unwrap();
    until_up(&*store).await;
    put(&*store, id(1)).await.unwrap();
}

#[tokio::test]
async fn a_dropped_store_closes_its_connections() {
    let server = RedisServer::start(&[]).await;
    let store = store(&server.url());
    store.probe().await.unwrap();
    let clients = async || server.info("connected_clients").await;
    // This one's and that of the question.
    assert_eq!(clients().await, "2");
    drop(store);
    until("the connection to be closed", async || {
        clients().await == "1"
    })
    .await;
}

#[tokio::test]
async fn each_database_is_a_store_of_its_own() {
    let server = RedisServer::start(&[]).await;
    let zero = store(&server.url());
    let three = store(&format!("{}/3", server.url()));
    put(&*three, id(1)).await.unwrap();
    assert!(zero.read(KEY).await.unwrap().is_none());
    let none = store(&format!("{}/99", server.url()));
    let error = none.probe().await.unwrap_err().to_string();
    assert!(error.contains("has no database of that number"), "{error}");
}

#[tokio::test]
async fn debug_output_says_nothing_of_the_settings() {
    let mut settings = super::settings("redis://127.0.0.1:1");
    settings.username = Some("somebody".into());
    assert_eq!(format!("{:?}", store_with(&settings)), "RedisStore { .. }");
}
