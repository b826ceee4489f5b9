//! The CPU time of a request whose credentials are in the cache, with and without the store.

use std::time::{Duration, Instant};

use crate::lab::{Lab, Replica, Setup};
use crate::load::{self, Results};
use crate::options::Options;
use crate::provider::ECHO;
use crate::report::Report;

const CONNECTIONS: usize = 8;
const ROUND: Duration = Duration::from_millis(500);

pub(crate) async fn hit(lab: &Lab, options: &Options, report: &mut Report) {
    let server = lab.server(&[]);
    let with = lab.replica(&Setup::with(&server)).await;
    let without = lab.replica(&Setup::default()).await;
    let mut ratios = Vec::new();
    let mut failed = Results::default();
    for round in 0..=options.rounds {
        let (mut with_store, mut alone) = (0.0, 0.0);
        // In another order each time, so that what else the machine does disturbs both alike.
        for turn in 0..2 {
            let shared = (turn + round) % 2 == 0;
            let replica = if shared { &with } else { &without };
            let (cpu, results) = round_of(replica, &lab.users).await;
            if shared {
                with_store = cpu;
            } else {
                alone = cpu;
            }
            failed.merge(results);
        }
        // The first fills caches and pools.
        if round > 0 {
            ratios.push(with_store / alone);
        }
    }
    ratios.sort_by(f64::total_cmp);
    let median = ratios.get(ratios.len() / 2).copied().unwrap_or(f64::NAN);
    report.add(
        "CPU time of a hit with the store / without",
        "≤ 1.01",
        format!(
            "{median:.3} (median of {} pairs), {}",
            ratios.len(),
            failed.failures()
        ),
    );
}

/// The CPU time of a request in microseconds, in a closed loop.
async fn round_of(replica: &Replica, users: &[String]) -> (f64, Results) {
    let before = replica.process.cpu();
    let end = Instant::now() + ROUND;
    let tasks: Vec<_> = (0..CONNECTIONS)
        .map(|number| {
            let mut client = replica.client();
            let user = users[number % users.len()].clone();
            tokio::spawn(async move {
                let mut results = Results::default();
                while Instant::now() < end {
                    results.add(load::request(&mut client, ECHO, &user).await);
                }
                results
            })
        })
        .collect();
    let mut all = Results::default();
    for task in tasks {
        all.merge(task.await.expect("a client's task"));
    }
    let cpu = replica.process.cpu().saturating_sub(before);
    (cpu.as_secs_f64() * 1e6 / all.requests() as f64, all)
}
