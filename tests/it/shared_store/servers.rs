//! Servers that are full or read-only, Sentinels and Clusters.

use std::time::Duration;

use hawkgate::shared_store::{Acquired, SharedStore, StoreError, StoreEvent, StoreKey};

use super::connections::until_up;
use super::{KEY, changed, id, store};
use crate::support::redis::{RedisServer, Replicated};
use crate::support::wait::{until, within};

const MINUTE: Duration = Duration::from_mins(1);

async fn failure(store: &dyn SharedStore) -> String {
    let error = store.probe().await.unwrap_err();
    assert!(matches!(error, StoreError::Answer(_)), "{error:?}");
    error.to_string()
}

#[tokio::test]
async fn a_full_server_counts_as_down_and_loses_nothing() {
    let server = RedisServer::start(&[]).await;
    let store = store(&server.url());
    store.write(KEY, id(1), vec![1], MINUTE).await.unwrap();
    let unwanted = hawkgate::shared_store::Unwanted {
        generation: id(1),
        reject: false,
    };
    let acquired = store.acquire(KEY, id(2), Some(unwanted)).await.unwrap();
    assert!(matches!(acquired, Acquired::Granted));
    server.command(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let error = failure(&*store).await;
    let expected = format!("{} is full (OOM): raise its maxmemory", server.address());
    assert!(error.starts_with(&expected), "{error}");
    assert!(store.complete(KEY, id(2), vec![2], MINUTE).await.is_err());
    assert_eq!(store.read(KEY).await.unwrap().unwrap().generation, id(1));
    // What frees memory goes on.
    store.reject(KEY, id(1)).await.unwrap();
    assert!(store.read(KEY).await.unwrap().is_none());
    server.command(&["CONFIG", "SET", "maxmemory", "0"]).await;
    store.probe().await.unwrap();
    // The lease is as it was.
    assert!(store.complete(KEY, id(2), vec![2], MINUTE).await.unwrap());
}

#[tokio::test]
async fn a_replica_counts_as_down() {
    let master = RedisServer::start(&[]).await;
    let port = master.port().to_string();
    let replica = RedisServer::start(&["--replicaof", "127.0.0.1", &port]).await;
    let store = store(&replica.url());
    let error = failure(&*store).await;
    assert!(
        error.contains("is a replica and accepts no writes (READONLY)"),
        "{error}"
    );
    for _ in 0..5 {
        let error = store.remove(KEY).await.unwrap_err().to_string();
        assert!(error.contains("(READONLY)"), "{error}");
    }
    // It becomes the master.
    replica.command(&["REPLICAOF", "NO", "ONE"]).await;
    until_up(&*store).await;
    store.write(KEY, id(1), vec![1], MINUTE).await.unwrap();
}

#[tokio::test]
async fn after_a_failover_the_new_master_is_used() {
    let mut servers = Replicated::start().await;
    let unknown = store(&servers.url("other"))
        .probe()
        .await
        .unwrap_err()
        .to_string();
    let expected = "it knows no master of that name (sentinelServiceName)";
    assert!(unknown.contains(expected), "{unknown}");

    let store = store(&servers.url("main"));
    store.write(KEY, id(1), vec![1], MINUTE).await.unwrap();
    until("the replica to have it", async || {
        servers.replica.command(&["DBSIZE"]).await == redis::Value::Int(1)
    })
    .await;
    let mut events = store.events();
    servers.master.kill().await;
    until_up(&*store).await;
    assert_eq!(store.read(KEY).await.unwrap().unwrap().generation, id(1));
    assert_eq!(servers.replica.info("role").await, "master");
    let event = within("the event", events.recv()).await.unwrap();
    assert_eq!(event, StoreEvent::Interrupted);
    store.write(KEY, id(2), vec![2], MINUTE).await.unwrap();
    let event = within("the event", events.recv()).await.unwrap();
    assert_eq!(event, changed(KEY, Some(2)));
}

/// Nobody closes connections to the old master.
#[tokio::test]
async fn after_a_master_has_fallen_silent_the_new_one_is_used() {
    let servers = Replicated::start().await;
    let store = store(&servers.url("main"));
    store.probe().await.unwrap();
    servers.master.pause();
    until_up(&*store).await;
    store.write(KEY, id(2), vec![2], MINUTE).await.unwrap();
    assert_eq!(servers.replica.info("role").await, "master");
    servers.master.resume();
}

/// A Cluster of three nodes, each with a third of the slots.
async fn cluster() -> Vec<RedisServer> {
    let mut nodes = Vec::new();
    for (epoch, (from, to)) in [("0", "5460"), ("5461", "10922"), ("10923", "16383")]
        .into_iter()
        .enumerate()
    {
        let node =
            RedisServer::start_cluster_node(&["--cluster-require-full-coverage", "no"]).await;
        let epoch = (epoch + 1).to_string();
        node.command(&["CLUSTER", "SET-CONFIG-EPOCH", &epoch]).await;
        node.command(&["CLUSTER", "ADDSLOTSRANGE", from, to]).await;
        nodes.push(node);
    }
    let (first, others) = nodes.split_first().unwrap();
    for node in others {
        let bus = node.cluster_port().to_string();
        let port = node.port().to_string();
        first
            .command(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus])
            .await;
    }
    for node in &nodes {
        until("the nodes to know each other", async || {
            let info = format!("{:?}", node.command(&["CLUSTER", "INFO"]).await);
            info.contains("cluster_state:ok")
                && info.contains("cluster_slots_ok:16384")
                && info.contains("cluster_known_nodes:3")
        })
        .await;
    }
    nodes
}

#[tokio::test]
async fn a_cluster_is_one_store() {
    let mut nodes = cluster().await;
    let url = |node: &RedisServer| format!("redis-cluster://{}", node.address());
    let (one, two) = (store(&url(&nodes[0])), store(&url(&nodes[2])));
    two.probe().await.unwrap();
    let mut events = two.events();
    let keys: Vec<_> = (0..30).map(|byte| StoreKey([byte; 32])).collect();
    for key in &keys {
        let acquired = one.acquire(*key, id(1), None).await.unwrap();
        assert!(matches!(acquired, Acquired::Granted));
        let done = one.complete(*key, id(1), vec![1], MINUTE).await;
        assert!(done.unwrap());
        let event = within("the event", events.recv()).await.unwrap();
        assert_eq!(event, changed(*key, Some(1)));
        assert_eq!(two.read(*key).await.unwrap().unwrap().generation, id(1));
    }
    for node in &nodes {
        assert_ne!(node.command(&["DBSIZE"]).await, redis::Value::Int(0));
    }

    // As one server, a node is no store.
    let single = store(&nodes[0].url());
    let mut errors = Vec::new();
    for key in &keys {
        errors.extend(single.read(*key).await.err());
    }
    let error = errors.first().unwrap().to_string();
    assert!(
        error.contains("is a node of a Cluster (MOVED): use redis-cluster://"),
        "{error}"
    );

    // With a node gone, the entries on the others can still be used, also by a replica that knows it.
    nodes[2].kill().await;
    let both = format!(
        "redis-cluster://{},{}",
        nodes[2].address(),
        nodes[1].address()
    );
    let three = store(&both);
    let mut found = 0;
    for key in &keys {
        let read = tokio::time::timeout(Duration::from_secs(5), three.read(*key)).await;
        found += usize::from(matches!(read, Ok(Ok(Some(_)))));
    }
    assert!(found >= 10, "{found} of {}", keys.len());
}
