//! Faults of the store, under load.

use std::time::Duration;

use rustix::process::Signal;

use crate::lab::{DEADLINE, Lab, Replica, Setup};
use crate::load::{self, Load, Results};
use crate::options::Options;
use crate::provider::CHECKED;
use crate::report::Report;
use crate::store::{MASTER, Server};

/// Between two new users.
const MISSES_PAUSE: Duration = Duration::from_millis(20);

pub(crate) async fn killed(lab: &Lab, options: &Options, report: &mut Report) {
    let server = lab.server(&[]);
    let setup = Setup::with(&server);
    under_load(lab, options, report, "killed", &setup, move || drop(server)).await;
}

pub(crate) async fn paused(lab: &Lab, options: &Options, report: &mut Report) {
    let server = lab.server(&[]);
    let setup = Setup::with(&server);
    let stop = || server.signal(Signal::STOP);
    under_load(lab, options, report, "paused (SIGSTOP)", &setup, stop).await;
}

pub(crate) async fn filled(lab: &Lab, options: &Options, report: &mut Report) {
    let server = lab.server(&[]);
    let setup = Setup::with(&server);
    let fill = || server.wait_for("CONFIG SET maxmemory 1", |answer| answer == "+OK");
    under_load(lab, options, report, "full", &setup, fill).await;
}

pub(crate) async fn failover(lab: &Lab, options: &Options, report: &mut Report) {
    let master = lab.server(&[]);
    let of = format!("127.0.0.1 {}", master.port);
    let replica = lab.server(&["--replicaof", &of]);
    let sentinel = lab.sentinel(&master);
    wait_for_replica(&sentinel).await;
    let url = format!(
        "redis-sentinel://127.0.0.1:{}/0?sentinelServiceName={MASTER}",
        sentinel.port
    );
    let setup = Setup {
        store: Some(url),
        limit: None,
    };
    let kill = move || drop(master);
    under_load(lab, options, report, "failed over (Sentinel)", &setup, kill).await;
    drop(replica);
}

/// The sentinel learns of the master's replicas from the master, every ten seconds.
async fn wait_for_replica(sentinel: &Server) {
    let count = format!("SENTINEL REPLICAS {MASTER}");
    let limit = tokio::time::Instant::now() + Duration::from_secs(15);
    while sentinel.ask(&count).as_deref() != Some("*1") {
        assert!(tokio::time::Instant::now() < limit, "no replica is known");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Measures requests before and after `fault`: hits at a steady rate, and misses beside them.
async fn under_load(
    lab: &Lab,
    options: &Options,
    report: &mut Report,
    title: &str,
    setup: &Setup,
    fault: impl FnOnce(),
) {
    let fleet = lab.fleet(options.processes(), setup).await;
    load::everybody_everywhere(&fleet, &lab.users, CHECKED).await;
    let load = Load::start(&fleet, &lab.users, CHECKED, options.rate);
    let (before, misses_before) = tokio::join!(
        load.run(options.length()),
        misses(lab, &fleet, options.length())
    );
    fault();
    let (during, misses_during) = tokio::join!(
        load.run(options.length()),
        misses(lab, &fleet, options.length())
    );
    let up = replicas_with_store(&fleet).await;
    load.stop().await;
    let deadline = DEADLINE.as_millis();
    for (kind, before, during) in [
        ("hits", before, during),
        ("misses", misses_before, misses_during),
    ] {
        report.add(
            &format!("store {title} under load: {kind}"),
            &format!("0 failed, p99 + {deadline} ms and 10 %"),
            format!(
                "{} of {}, p99 {:.1} ms (before: {:.1} ms); store up at {up} of {}",
                during.failures(),
                during.requests(),
                during.p99(),
                before.p99(),
                fleet.len()
            ),
        );
    }
}

/// At how many replicas the store counts as up.
async fn replicas_with_store(fleet: &[Replica]) -> usize {
    let mut up = 0;
    for replica in fleet {
        let value = replica.metric("hawkgate_shared_up").await;
        up += usize::from(value == Some(1.0));
    }
    up
}

/// Requests of users who are new, at each replica in turn: a miss there, though not always an exchange.
async fn misses(lab: &Lab, fleet: &[Replica], length: Duration) -> Results {
    let end = tokio::time::Instant::now() + length;
    let mut clients: Vec<_> = fleet.iter().map(Replica::client).collect();
    let mut results = Results::default();
    while tokio::time::Instant::now() < end {
        let user = lab.new_user();
        for client in &mut clients {
            results.add(load::request(client, CHECKED, &user).await);
        }
        tokio::time::sleep(MISSES_PAUSE).await;
    }
    results
}
