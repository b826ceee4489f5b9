//! Requests at a steady rate, as from a balancer that knows which replicas are in service.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::client::Client;
use crate::lab::Replica;

/// Connections to each replica.
const CONNECTIONS: usize = 4;

/// What came of requests.
#[derive(Clone, Default)]
pub(crate) struct Results {
    /// In microseconds.
    latencies: Vec<u32>,
    /// How many had another answer than 200, or none; and the first of them.
    pub(crate) failed: usize,
    first_failure: Option<String>,
}

impl Results {
    pub(crate) fn requests(&self) -> usize {
        self.latencies.len() + self.failed
    }

    /// The 99th percentile of latencies, in milliseconds.
    pub(crate) fn p99(&self) -> f64 {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let at = sorted.len().saturating_sub(1) * 99 / 100;
        f64::from(sorted.get(at).copied().unwrap_or(0)) / 1000.0
    }

    /// The number of failures, and what the first was.
    pub(crate) fn failures(&self) -> String {
        match &self.first_failure {
            None => "0 failed".to_owned(),
            Some(first) => format!("{} failed ({first})", self.failed),
        }
    }

    pub(crate) fn add(&mut self, result: Result<Duration, String>) {
        match result {
            Ok(latency) => {
                let latency = latency.as_micros();
                self.latencies
                    .push(u32::try_from(latency).unwrap_or(u32::MAX));
            }
            Err(failure) => {
                self.failed += 1;
                self.first_failure.get_or_insert(failure);
            }
        }
    }

    pub(crate) fn merge(&mut self, other: Self) {
        self.latencies.extend(other.latencies);
        self.failed += other.failed;
        if self.first_failure.is_none() {
            self.first_failure = other.first_failure;
        }
    }
}

/// Requests `path` once, and says how long it took or why it failed.
pub(crate) async fn request(
    client: &mut Client,
    path: &str,
    token: &str,
) -> Result<Duration, String> {
    let start = Instant::now();
    match client.get(path, token).await {
        Ok(answer) if answer.status == 200 => Ok(start.elapsed()),
        Ok(answer) => Err(format!("{} {}", answer.status, answer.body)),
        Err(error) => Err(error.to_string()),
    }
}

/// Sends each token to each replica once, 16 at a time at each.
pub(crate) async fn everybody_everywhere(
    replicas: &[Replica],
    users: &[String],
    path: &'static str,
) -> Results {
    const AT_ONCE: usize = 16;
    let users: Arc<[String]> = users.into();
    let mut tasks = Vec::new();
    for (number, replica) in replicas.iter().enumerate() {
        // All begin with the same users, so that replicas want the same at the same time.
        let next = Arc::new(AtomicUsize::new(0));
        for _ in 0..AT_ONCE {
            let (users, next) = (Arc::clone(&users), Arc::clone(&next));
            let mut client = replica.client();
            tasks.push(tokio::spawn(async move {
                let mut results = Results::default();
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= users.len() {
                        return results;
                    }
                    // Half of the replicas in another order.
                    let at = if number % 2 == 0 {
                        at
                    } else {
                        users.len() - 1 - at
                    };
                    results.add(request(&mut client, path, &users[at]).await);
                }
            }));
        }
    }
    joined(tasks).await
}

async fn joined(tasks: Vec<JoinHandle<Results>>) -> Results {
    let mut all = Results::default();
    for task in tasks {
        all.merge(task.await.expect("a client's task"));
    }
    all
}

/// A load that goes on in the background.
pub(crate) struct Load {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

struct Shared {
    users: Vec<String>,
    path: &'static str,
    in_service: Mutex<Vec<SocketAddr>>,
    results: Mutex<Results>,
    next: AtomicUsize,
    ended: AtomicBool,
}

impl Shared {
    fn in_service(&self) -> MutexGuard<'_, Vec<SocketAddr>> {
        self.in_service
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn results(&self) -> MutexGuard<'_, Results> {
        self.results.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Load {
    /// Sends `rate` requests a second for each of `replicas`, of all `users` in turn.
    pub(crate) fn start(
        replicas: &[Replica],
        users: &[String],
        path: &'static str,
        rate: u32,
    ) -> Self {
        let shared = Arc::new(Shared {
            users: users.to_vec(),
            path,
            in_service: Mutex::new(replicas.iter().map(|replica| replica.address).collect()),
            results: Mutex::default(),
            next: AtomicUsize::new(0),
            ended: AtomicBool::new(false),
        });
        let senders = replicas.len() * CONNECTIONS;
        let pause = Duration::from_secs(1) * CONNECTIONS as u32 / rate;
        let sender = |number: usize| {
            let offset = pause * number as u32 / senders as u32;
            tokio::spawn(send(Arc::clone(&shared), number, pause, offset))
        };
        let tasks = (0..senders).map(sender).collect();
        Self { shared, tasks }
    }

    /// Takes a replica out of service, or puts one in.
    pub(crate) fn replace(&self, old: Option<SocketAddr>, new: Option<SocketAddr>) {
        let mut in_service = self.shared.in_service();
        in_service.retain(|address| Some(*address) != old);
        in_service.extend(new);
    }

    /// What came of the requests that ended since the last call.
    pub(crate) fn results(&self) -> Results {
        std::mem::take(&mut *self.shared.results())
    }

    /// The results of requests of the next while.
    pub(crate) async fn run(&self, length: Duration) -> Results {
        self.results();
        tokio::time::sleep(length).await;
        self.results()
    }

    /// Ends after the requests in flight.
    pub(crate) async fn stop(self) -> Results {
        self.shared.ended.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.expect("a client's task");
        }
        std::mem::take(&mut *self.shared.results())
    }
}

async fn send(shared: Arc<Shared>, number: usize, pause: Duration, offset: Duration) {
    let mut clients: HashMap<SocketAddr, Client> = HashMap::new();
    tokio::time::sleep(offset).await;
    let mut ticks = tokio::time::interval(pause);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !shared.ended.load(Ordering::Relaxed) {
        ticks.tick().await;
        let address = {
            let in_service = shared.in_service();
            in_service[number % in_service.len()]
        };
        // A balancer keeps no connections to what is out of service.
        clients.retain(|known, _| *known == address);
        let client = clients
            .entry(address)
            .or_insert_with(|| Client::new(address));
        let at = shared.next.fetch_add(1, Ordering::Relaxed) % shared.users.len();
        let result = request(client, shared.path, &shared.users[at]).await;
        shared.results().add(result);
    }
}
