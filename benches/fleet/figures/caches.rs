//! Exchanges, restarts and revocations.

use std::time::{Duration, Instant};

use crate::lab::{Lab, Setup};
use crate::load::{self, Load};
use crate::options::Options;
use crate::provider::{CHECKED, ECHO};
use crate::report::Report;

/// How often the time until an invalidation arrives is measured.
const INVALIDATIONS: usize = 50;

pub(crate) async fn exchanges(lab: &Lab, options: &Options, report: &mut Report) {
    let server = lab.server(&[]);
    let (processes, users) = (options.processes(), lab.users.len());
    let mut setups = vec![("", "≤ 1.02 × users", Setup::with(&server))];
    if options.without {
        setups.push((", without the store", "", Setup::default()));
    }
    for (title, wanted, setup) in setups {
        lab.provider.reset();
        let fleet = lab.fleet(processes, &setup).await;
        let results = load::everybody_everywhere(&fleet, &lab.users, CHECKED).await;
        let exchanges = lab.provider.exchanges();
        let ratio = exchanges as f64 / users as f64;
        report.add(
            &format!("exchanges, {processes} processes × {users} users{title}"),
            wanted,
            format!("{exchanges} ({ratio:.3} × users), {}", results.failures()),
        );
    }
}

pub(crate) async fn restart(lab: &Lab, options: &Options, report: &mut Report) {
    let server = lab.server(&[]);
    let setup = Setup::with(&server);
    let mut fleet = lab.fleet(options.processes(), &setup).await;
    load::everybody_everywhere(&fleet, &lab.users, CHECKED).await;
    lab.provider.reset();
    let load = Load::start(&fleet, &lab.users, CHECKED, options.rate);
    for replica in &mut fleet {
        let new = lab.replica(&setup).await;
        load.replace(Some(replica.address), Some(new.address));
        let mut old = std::mem::replace(replica, new);
        // Requests that were sent to it before go on; nothing new comes.
        let drained = tokio::task::spawn_blocking(move || old.process.terminate());
        drained.await.expect("a terminated process");
    }
    tokio::time::sleep(options.length()).await;
    let mut results = load.stop().await;
    results.merge(load::everybody_everywhere(&fleet, &lab.users, CHECKED).await);
    report.add(
        &format!(
            "rolling restart of {} processes under load",
            options.processes()
        ),
        "0 exchanges, 0 failed",
        format!(
            "{} exchanges, {} of {} requests",
            lab.provider.exchanges(),
            results.failures(),
            results.requests()
        ),
    );
}

pub(crate) async fn revoked(lab: &Lab, options: &Options, report: &mut Report) {
    let server = lab.server(&[]);
    let fleet = lab.fleet(options.processes(), &Setup::with(&server)).await;
    load::everybody_everywhere(&fleet, &lab.users, CHECKED).await;
    lab.provider.reset();
    let load = Load::start(&fleet, &lab.users, CHECKED, options.rate);
    tokio::time::sleep(Duration::from_millis(500)).await;
    lab.provider.revoke_all();
    let mut results = load::everybody_everywhere(&fleet, &lab.users, CHECKED).await;
    results.merge(load.stop().await);
    let exchanges = lab.provider.exchanges();
    report.add(
        &format!(
            "everything revoked at once, {} processes",
            options.processes()
        ),
        "1 exchange an identity, 0 failed",
        format!(
            "{:.3} exchanges an identity, {} of {} requests",
            exchanges as f64 / lab.users.len() as f64,
            results.failures(),
            results.requests()
        ),
    );
}

pub(crate) async fn invalidation(lab: &Lab, _: &Options, report: &mut Report) {
    lab.provider.exchange_at_once();
    let server = lab.server(&[]);
    let fleet = lab.fleet(2, &Setup::with(&server)).await;
    let [a, b] = fleet.as_slice() else { return };
    let (mut a, mut b) = (a.client(), b.client());
    let mut times = Vec::new();
    for user in lab.users.iter().take(INVALIDATIONS) {
        a.get(ECHO, user).await.expect("an answer");
        let token = b.get(ECHO, user).await.expect("an answer").body;
        lab.provider.revoke(&token);
        let rejected = tokio::spawn({
            let user = user.clone();
            async move {
                let status = a.get(CHECKED, &user).await.expect("an answer").status;
                assert_eq!(status, 200, "replayed");
                a
            }
        });
        // The upstream answers this path whatever the token, so only A learns of the revocation.
        let limit = Instant::now() + Duration::from_secs(10);
        while b.get(ECHO, user).await.expect("an answer").body == token {
            assert!(Instant::now() < limit, "the other process goes on with it");
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        let dropped = Instant::now();
        a = rejected.await.expect("a client's task");
        let rejected = lab.provider.rejected_at().expect("a rejection");
        times.push(dropped.saturating_duration_since(rejected));
    }
    times.sort_unstable();
    let ms = |at: usize| times.get(at).map_or(0.0, |time| time.as_secs_f64() * 1e3);
    report.add(
        "401 at one process until another has replaced the credentials",
        "≤ 50 ms",
        format!(
            "median {:.1} ms, most {:.1} ms, of {}",
            ms(times.len() / 2),
            ms(times.len().saturating_sub(1)),
            times.len()
        ),
    );
}
