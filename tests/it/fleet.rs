//! Replicas with one shared store, a real Redis server.

mod faults;

use std::sync::atomic::{AtomicU32, Ordering};

use hawkgate::clock::SystemClock;

use crate::support::client::Request;
use crate::support::gateway::{ConfigDir, SERVER_CONFIG, TestGateway};
use crate::support::standard::{Peers, to};
use crate::support::wait::until;

/// The replicas of a fleet, the provider that they ask, and the users who come to them.
struct FleetLab {
    peers: Peers,
    replicas: Vec<TestGateway>,
    users: AtomicU32,
}

/// A key for `[shared]`, in base64.
fn fleet_key(first: u8) -> String {
    use base64::Engine as _;
    let bytes: Vec<u8> = (first..first + 32).collect();
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

impl FleetLab {
    /// Without replicas.
    async fn new() -> Self {
        Self {
            peers: Peers::start().await,
            replicas: Vec::new(),
            users: AtomicU32::new(0),
        }
    }

    /// Two replicas with the store at `url`.
    async fn with_two(url: &str) -> Self {
        let mut lab = Self::new().await;
        for _ in 0..2 {
            lab.add(url, "", 1).await;
        }
        lab
    }

    /// Adds a replica with further keys of `[shared]`, and the fleet's key that begins with the byte `key`.
    async fn add(&mut self, url: &str, keys: &str, key: u8) {
        let files = ConfigDir::new();
        files.write("fleet-key", fleet_key(key));
        let sections = self.peers.config(&["login"]);
        let text = format!(
            "{SERVER_CONFIG}{sections}\n[shared]\nurl = \"{url}\"\nkey = {{ file = \"fleet-key\" }}\n{keys}\n"
        );
        let replica = TestGateway::start_with(&text, files, SystemClock::shared()).await;
        self.replicas.push(replica);
    }

    /// The token of a user who has not been here yet.
    async fn new_user(&self) -> String {
        let number = self.users.fetch_add(1, Ordering::Relaxed);
        self.peers.token(&format!("user|{number}")).await
    }

    /// A request of a user to one replica, which must succeed.
    async fn visit(&self, replica: usize, token: &str) {
        let request = to("login", Request::get("/api/x"), token);
        let response = self.replicas[replica].send(&request).await;
        assert_eq!(response.status, 200, "{}", response.text());
    }

    /// Requests of a new user to every replica.
    async fn visit_all(&self) {
        let token = self.new_user().await;
        for replica in 0..self.replicas.len() {
            self.visit(replica, &token).await;
        }
    }

    /// How many exchanges a new user who comes to every replica costs.
    async fn exchanges_of_a_new_user(&self) -> u64 {
        let before = self.peers.exchanges().await;
        self.visit_all().await;
        self.peers.exchanges().await - before
    }

    async fn is_up(&self, replica: usize) -> bool {
        let metrics = self.replicas[replica].metrics().await;
        assert!(metrics.has("hawkgate_shared_up"));
        metrics.sum("hawkgate_shared_up", &[]) > 0.5
    }

    /// Lets users come until every replica says that the store is up, or down.
    async fn visit_until(&self, up: bool) {
        for replica in 0..self.replicas.len() {
            until("the store's state to change", async || {
                self.visit(replica, &self.new_user().await).await;
                self.is_up(replica).await == up
            })
            .await;
        }
    }

    async fn assert_ready(&self) {
        for replica in &self.replicas {
            assert_eq!(replica.admin("/readyz").await.status, 200);
        }
    }

    /// The number of log lines that contain both texts.
    fn lines(&self, one: &str, other: &str) -> usize {
        let log = self.replicas[0].log();
        let lines = log
            .lines()
            .filter(|line| line.contains(one) && line.contains(other));
        lines.count()
    }
}
