//! The scenarios, and what must hold in all of them.

mod disturbances;

use std::fmt::Write as _;
use std::time::Duration;

use futures::future::BoxFuture;

use crate::hawkgate::Setup;
use crate::tally::{Class, Ending};
use crate::world::World;
pub(crate) use disturbances::ALL;

/// Something that goes wrong and is put right again.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    setup: Setup,
    /// Disturbs the world and restores it.
    disturb: fn(&mut World) -> BoxFuture<'_, ()>,
    /// Other endings than `200` that are right while the disturbance lasts.
    tolerated: Tolerated,
}

/// Endings for each class of good callers.
struct Tolerated {
    established: &'static [&'static str],
    newcomers: &'static [&'static str],
    local: &'static [&'static str],
}

impl Tolerated {
    /// Every good request is answered with 200.
    const NOTHING: Self = Self::for_all(&[]);

    const fn for_all(endings: &'static [&'static str]) -> Self {
        Self {
            established: endings,
            newcomers: endings,
            local: endings,
        }
    }

    /// Newcomers cannot be served without the peer that is disturbed; nobody else notices.
    const fn newcomers(endings: &'static [&'static str]) -> Self {
        Self {
            newcomers: endings,
            ..Self::NOTHING
        }
    }

    fn of(&self, class: Class) -> &'static [&'static str] {
        match class {
            Class::Established => self.established,
            Class::Newcomer => self.newcomers,
            Class::Local => self.local,
            Class::Hostile => &[],
        }
    }
}

/// How a scenario ended.
pub(crate) struct Outcome {
    pub(crate) name: &'static str,
    pub(crate) seed: u64,
    pub(crate) faults: Vec<String>,
    good: u64,
    served: u64,
    others: Vec<(Ending, u64)>,
    refused: u64,
    recovery: Duration,
    memory: (u64, u64),
}

impl Outcome {
    /// Its row in the table.
    pub(crate) fn row(&self) -> String {
        let mut others = String::new();
        for (ending, count) in &self.others {
            let comma = if others.is_empty() { "" } else { ", " };
            let _ = write!(others, "{comma}{count} × {ending}");
        }
        format!(
            "| {} | {} | {} | {others} | {} | {:.1} s | {:.1}, {:.1} MiB |",
            self.name,
            self.good,
            self.served,
            self.refused,
            self.recovery.as_secs_f64(),
            mebibytes(self.memory.0),
            mebibytes(self.memory.1),
        )
    }
}

#[expect(clippy::cast_precision_loss)]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / 1024.0 / 1024.0
}

/// Runs one scenario: calm, disturbed, calm again.
pub(crate) async fn run(scenario: &'static Scenario, seed: u64) -> Outcome {
    let mut world = World::start(scenario.setup, seed).await;
    let mut faults = Vec::new();
    let callers = world.callers();
    world.pass(3).await;
    callers.stop().await;
    let before = world.hawkgate.memory();

    let callers = world.callers();
    world.pass(1).await;
    world.tally.next_period();
    (scenario.disturb)(&mut world).await;
    let recovery = world.recover().await;
    world.tally.next_period();
    world.pass(2).await;
    callers.stop().await;

    let after = world.settle(before).await;
    let hostile = world.hostile_requests().await;
    if hostile > 0 {
        faults.push(format!("peers saw {hostile} requests with forged tokens"));
    }
    faults.extend(world.tally.violations());
    faults.extend(judge(&world, scenario));
    faults.extend(recovery.as_ref().err().cloned());
    faults.extend(after.as_ref().err().cloned());
    let counted = count(&world);
    let log = world.hawkgate.log();
    faults.extend(judge_log(&log));
    if !world.hawkgate.stop().await {
        faults.push("hawkgate did not exit cleanly".to_owned());
    }
    Outcome {
        name: scenario.name,
        seed,
        faults,
        recovery: recovery.unwrap_or_default(),
        memory: (before, after.unwrap_or_default()),
        ..counted
    }
}

/// Requests that ended in another way than they may.
fn judge(world: &World, scenario: &Scenario) -> Vec<String> {
    let mut faults = Vec::new();
    for class in Class::GOOD {
        for (calm, tolerated) in [(true, &[][..]), (false, scenario.tolerated.of(class))] {
            let endings = world.tally.endings(class, calm);
            let when = if calm { "calm" } else { "disturbed" };
            if endings.is_empty() {
                faults.push(format!("no {class} caller sent a request while {when}"));
            }
            for (ending, count) in endings {
                if ending != "200" && !tolerated.contains(&&*ending) {
                    faults.push(format!(
                        "{count} requests of {class} callers while {when}: {ending}"
                    ));
                }
            }
        }
    }
    if world.tally.endings(Class::Hostile, false).is_empty() {
        faults.push("no forged token was sent".to_owned());
    }
    faults
}

fn judge_log(log: &str) -> Vec<String> {
    let panicked = log.lines().filter(|line| line.contains("panicked"));
    let secret = log
        .lines()
        .filter(|line| line.contains("mac=") || line.contains("eyJ"));
    let panicked = panicked.map(|line| format!("a panic: {line}"));
    panicked
        .chain(secret.map(|_| "the log contains a credential".to_owned()))
        .collect()
}

/// The numbers of requests, without the rest.
fn count(world: &World) -> Outcome {
    let mut outcome = Outcome {
        name: "",
        seed: 0,
        faults: Vec::new(),
        good: 0,
        served: 0,
        others: Vec::new(),
        refused: 0,
        recovery: Duration::ZERO,
        memory: (0, 0),
    };
    for calm in [true, false] {
        for class in Class::GOOD {
            for (ending, count) in world.tally.endings(class, calm) {
                outcome.good += count;
                if ending == "200" {
                    outcome.served += count;
                    continue;
                }
                match outcome
                    .others
                    .iter_mut()
                    .find(|(other, _)| *other == ending)
                {
                    Some((_, total)) => *total += count,
                    None => outcome.others.push((ending, count)),
                }
            }
        }
        let hostile = world.tally.endings(Class::Hostile, calm);
        outcome.refused += hostile.iter().map(|(_, count)| count).sum::<u64>();
    }
    outcome
}
