//! Exchanges of many replicas, compared with those of one, in a simulation.

use std::time::Duration;

use crate::options::Options;
use crate::report::Report;
use crate::simulation::{self, Counted, Scenario};

pub(crate) async fn simulated(options: &Options, report: &mut Report) {
    let (replicas, users) = (options.simulated_replicas.into(), options.simulated_users);
    for (title, revocation) in [("", false), (", everything revoked in the middle", true)] {
        let scenario = |replicas| Scenario {
            replicas,
            users: users as usize,
            pause: Duration::from_secs(10),
            revocation,
        };
        let one = run(scenario(1)).await;
        let fleet = run(scenario(replicas)).await;
        let exchanges = |counted: &Counted| counted.exchanges.iter().sum::<u64>();
        let ratio = exchanges(&fleet) as f64 / exchanges(&one) as f64;
        report.add(
            &format!(
                "exchanges, {replicas} simulated replicas × {users} users, two lifetimes{title}"
            ),
            "≤ 1.02 × one replica's",
            format!(
                "{} ({ratio:.3} × {}), {} of {} requests failed, {} operations of the store",
                exchanges(&fleet),
                exchanges(&one),
                fleet.failed,
                fleet.requests,
                fleet.operations
            ),
        );
    }
}

/// The simulation has a runtime of its own.
async fn run(scenario: Scenario) -> Counted {
    let run = tokio::task::spawn_blocking(move || simulation::run(scenario));
    run.await.expect("a simulation")
}
