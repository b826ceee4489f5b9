//! One client's limit over all processes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::lab::{Lab, Replica, Setup};
use crate::options::Options;
use crate::provider::ECHO;
use crate::report::Report;

const LIMIT: u32 = 100;

/// The time between two requests to this of so many replicas, in this second.
type Balance = fn(second: u64, replica: usize, replicas: usize) -> Duration;

const BALANCES: [(&str, Balance); 3] = [
    ("evenly", |_, _, _| Duration::from_millis(20)),
    ("unevenly", |_, replica, _| {
        Duration::from_millis(5 << replica.min(6))
    }),
    ("to one and then the next", |second, replica, replicas| {
        let turn = replica as u64 == second % replicas as u64;
        Duration::from_millis(if turn { 4 } else { 500 })
    }),
];

pub(crate) async fn rate(lab: &Lab, options: &Options, report: &mut Report) {
    let server = lab.server(&[]);
    let setup = Setup {
        limit: Some(LIMIT),
        ..Setup::with(&server)
    };
    let fleet = lab.fleet(options.processes(), &setup).await;
    for ((title, balance), user) in BALANCES.into_iter().zip(&lab.users) {
        let seconds = options.length().as_secs() + 4;
        let admitted = admitted(&fleet, user, balance, seconds).await;
        // What a pause has saved up is used first.
        let steady = admitted.get(3..).unwrap_or_default();
        report.add(
            &format!(
                "{LIMIT} requests/s of one client over {} processes, {title}",
                fleet.len()
            ),
            "95–105 pass",
            format!(
                "{}–{} in each of {} seconds",
                steady.iter().min().unwrap_or(&0),
                steady.iter().max().unwrap_or(&0),
                steady.len()
            ),
        );
    }
}

/// How many requests were admitted in each second.
async fn admitted(fleet: &[Replica], user: &str, balance: Balance, seconds: u64) -> Vec<usize> {
    let counts: Arc<Vec<AtomicUsize>> =
        Arc::new((0..seconds).map(|_| AtomicUsize::new(0)).collect());
    let (start, replicas) = (Instant::now(), fleet.len());
    let senders = fleet.iter().enumerate().map(|(number, replica)| {
        let (counts, user) = (Arc::clone(&counts), user.to_owned());
        let mut client = replica.client();
        tokio::spawn(async move {
            loop {
                let second = start.elapsed().as_secs();
                if second >= seconds {
                    return;
                }
                let next = Instant::now() + balance(second, number, replicas);
                count(&mut client, &user, start, &counts).await;
                tokio::time::sleep_until(next.into()).await;
            }
        })
    });
    for sender in senders.collect::<Vec<_>>() {
        sender.await.expect("a client's task");
    }
    counts
        .iter()
        .map(|count| count.load(Ordering::Relaxed))
        .collect()
}

async fn count(client: &mut Client, user: &str, start: Instant, counts: &[AtomicUsize]) {
    let answer = client.get(ECHO, user).await.expect("an answer");
    match answer.status {
        200 => {
            if let Some(count) = counts.get(start.elapsed().as_secs() as usize) {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
        429 => {}
        other => panic!("{other}: {}", answer.body),
    }
}
