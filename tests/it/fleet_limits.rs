//! Limits that the replicas of a fleet share, through whole proxies and a real Redis server.

use hawkgate::clock::SystemClock;

use crate::support::client::{Request, Response};
use crate::support::gateway::{ConfigDir, TestGateway};
use crate::support::redis::RedisServer;
use crate::support::upstream::{FakeUpstream, Reply};

const FLEET_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// Replicas with these sections and one store.
async fn replicas(count: usize, store: &RedisServer, sections: &str) -> Vec<TestGateway> {
    let text = format!(
        r#"
[server]
listen = [{{ address = "127.0.0.1:0", trusted_proxies = ["127.0.0.0/8"] }}]
admin = "127.0.0.1:0"
[shared]
url = "{}"
key = {{ file = "fleet-key" }}
timeout = "1s"
{sections}
"#,
        store.url()
    );
    let mut replicas = Vec::new();
    for _ in 0..count {
        let files = ConfigDir::new();
        files.write("fleet-key", FLEET_KEY);
        replicas.push(TestGateway::start_with(&text, files, SystemClock::shared()).await);
    }
    replicas
}

/// A request of the client at `address`, as the proxy in front of the replicas passes it on.
async fn send(replica: &TestGateway, address: &str, request: Request) -> Response {
    replica
        .send(&request.header("X-Forwarded-For", address))
        .await
}

#[tokio::test]
async fn one_client_has_one_limit_at_all_replicas_and_each_limits_alone_without_the_store() {
    let upstream = FakeUpstream::http1(|_| Reply::ok()).await;
    let mut store = RedisServer::start(&[]).await;
    let sections = format!(
        r#"
[[route]]
name = "limited"
upstream = "{}"
anonymous = true
rate = {{ requests = 1, per = "1h", burst = 3, by = "address" }}
"#,
        upstream.url()
    );
    let replicas = replicas(2, &store, &sections).await;
    let status = async |replica: usize, address: &str| {
        send(&replicas[replica], address, Request::get("/x"))
            .await
            .status
    };
    let mut admitted = 0;
    for attempt in 0..10 {
        let status = status(attempt % 2, "192.0.2.1").await;
        admitted += usize::from(status == 200);
        assert!(matches!(status, 200 | 429), "{status}");
    }
    assert_eq!(admitted, 3);
    assert_eq!(status(1, "192.0.2.2").await, 200, "another client");
    let keys: Vec<String> = redis::from_redis_value(store.command(&["KEYS", "*"]).await).unwrap();
    let buckets = keys.iter().filter(|key| key.starts_with("hawkgate:b:"));
    assert_eq!(buckets.count(), 2, "{keys:?}");

    store.kill().await;
    for replica in [0, 1] {
        for expected in [200, 200, 200, 429] {
            assert_eq!(status(replica, "192.0.2.3").await, expected, "{replica}");
        }
    }
}
