//! No fault of the store is a fault of requests: they go on with what each replica knows by itself, the log
//! says so once, the metric too, and readiness does not depend on it.

use super::FleetLab;
use crate::support::redis::{RedisServer, Replicated};
use crate::support::tls::TestCa;
use crate::support::wait::until;

const DOWN: &str = "the shared store is down: ";

impl FleetLab {
    /// The store has a fault, which makes it down for the reason `text`, once for each replica, and is then
    /// sound again.
    async fn survives(&self, text: &str, mut heal: impl AsyncFnMut()) {
        self.visit_until(false).await;
        for _ in 0..3 {
            let each_alone = self.replicas.len() as u64;
            assert_eq!(self.exchanges_of_a_new_user().await, each_alone);
        }
        self.assert_ready().await;
        assert_eq!(
            self.lines(DOWN, text),
            self.replicas.len(),
            "{}",
            self.replicas[0].log()
        );
        heal().await;
        self.until_shared().await;
        assert_eq!(self.lines(DOWN, text), self.replicas.len());
    }

    /// Waits until the store is up, and a new user costs one exchange again.
    async fn until_shared(&self) {
        self.visit_until(true).await;
        assert_eq!(self.exchanges_of_a_new_user().await, 1);
        self.assert_ready().await;
    }
}

#[tokio::test]
async fn a_store_that_is_killed_and_comes_back() {
    let mut server = RedisServer::start(&[]).await;
    let lab = FleetLab::with_two(&server.url()).await;
    lab.until_shared().await;
    server.kill().await;
    let text = format!("{}: ", server.address());
    lab.survives(&text, async || server.restart().await).await;
}

#[tokio::test]
async fn a_store_that_is_not_there_at_the_start() {
    let mut server = RedisServer::start(&[]).await;
    server.kill().await;
    let lab = FleetLab::with_two(&server.url()).await;
    let text = format!("{}: connection refused", server.address());
    lab.survives(&text, async || server.restart().await).await;
}

#[tokio::test]
async fn a_store_that_falls_silent() {
    let server = RedisServer::start(&[]).await;
    let mut lab = FleetLab::new().await;
    for _ in 0..2 {
        lab.add(&server.url(), "timeout = \"57ms\"", 1).await;
    }
    lab.until_shared().await;
    server.pause();
    lab.survives("no answer within 57ms", async || server.resume())
        .await;
    for replica in &lab.replicas {
        let metrics = replica.metrics().await;
        let timeouts = metrics.sum("hawkgate_shared_requests_total", &[("result", "timeout")]);
        assert!(timeouts >= 3.0, "{timeouts}");
        let skipped = metrics.sum("hawkgate_shared_requests_total", &[("result", "skipped")]);
        assert!(skipped >= 1.0, "{skipped}");
    }
}

#[tokio::test]
async fn a_store_that_is_full() {
    let server = RedisServer::start(&[]).await;
    let lab = FleetLab::with_two(&server.url()).await;
    lab.until_shared().await;
    server.command(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let text = format!("{} is full (OOM)", server.address());
    lab.survives(&text, async || {
        server.command(&["CONFIG", "SET", "maxmemory", "0"]).await;
    })
    .await;
}

#[tokio::test]
async fn a_store_that_is_read_only() {
    let server = RedisServer::start(&[]).await;
    let lab = FleetLab::with_two(&server.url()).await;
    lab.until_shared().await;
    let dead = crate::support::redis::free_port().to_string();
    server.command(&["REPLICAOF", "127.0.0.1", &dead]).await;
    let text = format!(
        "{} is a replica and accepts no writes (READONLY)",
        server.address()
    );
    lab.survives(&text, async || {
        server.command(&["REPLICAOF", "NO", "ONE"]).await;
    })
    .await;
}

#[tokio::test]
async fn a_store_whose_acl_refuses_a_command() {
    let server = RedisServer::start(&[]).await;
    let lab = FleetLab::with_two(&server.url()).await;
    lab.until_shared().await;
    server
        .command(&["ACL", "SETUSER", "default", "-hset"])
        .await;
    let text = format!(
        "{} refuses the user something (NOPERM): the ACL user needs",
        server.address()
    );
    lab.survives(&text, async || {
        server
            .command(&["ACL", "SETUSER", "default", "+hset"])
            .await;
    })
    .await;
}

#[tokio::test]
async fn a_store_with_a_certificate_of_another_ca() {
    let (ca, other) = (TestCa::new(), TestCa::new());
    let identity = ca.issue(&["127.0.0.1"]);
    let (cert, key) = (
        identity.cert.display().to_string(),
        identity.key.display().to_string(),
    );
    let server = RedisServer::start_tls(&[
        "--tls-cert-file",
        &cert,
        "--tls-key-file",
        &key,
        "--tls-auth-clients",
        "no",
    ])
    .await;
    let url = format!("rediss://{}", server.address());
    let mut lab = FleetLab::new().await;
    let ca_file = |ca: &TestCa| format!("ca = \"{}\"", ca.file().display());
    lab.add(&url, &ca_file(&other), 1).await;
    lab.visit_all().await;
    lab.assert_ready().await;
    assert!(!lab.is_up(0).await);
    let text = format!("{}: the peer's certificate ", server.address());
    assert_eq!(lab.lines(DOWN, &text), 1, "{}", lab.replicas[0].log());
    lab.replicas.clear();
    for _ in 0..2 {
        lab.add(&url, &ca_file(&ca), 1).await;
    }
    lab.until_shared().await;
}

#[tokio::test]
async fn a_store_that_fails_over() {
    let mut servers = Replicated::start().await;
    let lab = FleetLab::with_two(&servers.url("main")).await;
    lab.until_shared().await;
    servers.master.kill().await;
    let text = format!("{}: ", servers.master.address());
    // The store comes up again without anything being done.
    lab.visit_until(false).await;
    lab.assert_ready().await;
    lab.until_shared().await;
    assert!(lab.lines(DOWN, &text) <= 2, "{}", lab.replicas[0].log());
    assert_eq!(servers.replica.info("role").await, "master");
}

#[tokio::test]
async fn a_store_that_is_cleared() {
    let server = RedisServer::start(&[]).await;
    let lab = FleetLab::with_two(&server.url()).await;
    let token = lab.new_user().await;
    lab.visit(0, &token).await;
    server.command(&["FLUSHALL"]).await;
    server.command(&["SCRIPT", "FLUSH"]).await;
    lab.visit(0, &token).await;
    lab.visit(1, &token).await;
    assert_eq!(lab.peers.exchanges().await, 2);
    lab.until_shared().await;
}

/// Writes `script` over every entry of a server.
async fn tamper(server: &RedisServer, script: &str) {
    let all = format!(
        "for _, key in ipairs(redis.call('KEYS', 'hawkgate:e:*')) do {script} end return 1"
    );
    server.command(&["EVAL", &all, "0"]).await;
}

#[tokio::test]
async fn values_that_are_none_are_replaced() {
    let server = RedisServer::start(&[]).await;
    let lab = FleetLab::with_two(&server.url()).await;
    for script in [
        "redis.call('HSET', key, 'v', '')",
        "redis.call('HSET', key, 'v', 'garbage')",
        "redis.call('HSET', key, 'v', string.rep('x', 100000))",
        "redis.call('HSET', key, 'g', '0123456789abcdef')",
        "redis.call('HSET', key, 'g', 'x')",
        "redis.call('HDEL', key, 'e')",
    ] {
        let token = lab.new_user().await;
        let before = lab.peers.exchanges().await;
        lab.visit(0, &token).await;
        tamper(&server, script).await;
        lab.visit(1, &token).await;
        assert_eq!(lab.peers.exchanges().await, before + 2, "{script}");
        assert!(lab.is_up(0).await && lab.is_up(1).await, "{script}");
    }
    // Values of other users are none of theirs.
    let (one, two) = (lab.new_user().await, lab.new_user().await);
    lab.visit(0, &one).await;
    lab.visit(0, &two).await;
    let before = lab.peers.exchanges().await;
    let swap = "local last for _, key in ipairs(redis.call('KEYS', 'hawkgate:e:*')) do \
        local value = redis.call('HMGET', key, 'g', 'v') \
        if last then redis.call('HSET', key, 'g', last[1], 'v', last[2]) end last = value end return 1";
    server.command(&["EVAL", swap, "0"]).await;
    lab.visit(1, &one).await;
    lab.visit(1, &two).await;
    assert!(lab.peers.exchanges().await > before);
    lab.until_shared().await;
}

#[tokio::test]
async fn a_replica_with_another_key_shares_nothing_and_says_so() {
    let server = RedisServer::start(&[]).await;
    let mut lab = FleetLab::with_two(&server.url()).await;
    lab.until_shared().await;
    lab.add(&server.url(), "", 7).await;
    assert_eq!(lab.exchanges_of_a_new_user().await, 2);
    let warning = "another replica with this shared store has another key ([shared] key)";
    until("the warning", async || lab.lines(warning, "") >= 1).await;
    for replica in 0..3 {
        assert!(lab.is_up(replica).await);
    }
    lab.assert_ready().await;
}
