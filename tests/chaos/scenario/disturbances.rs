//! What goes wrong. Each function restores everything before it returns.

use std::net::SocketAddr;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use rustix::process::Signal;
use tokio::net::TcpStream;

use super::{Scenario, Tolerated};
use crate::arguments::Role;
use crate::hawkgate::{Setup, pause};
use crate::peer::Peer;
use crate::world::World;

const EXCHANGE_DOWN: &[&str] = &["503 exchange_unavailable"];
const UPSTREAM_DOWN: &[&str] = &["502 upstream_failed", "502 upstream_unreachable"];

const fn scenario(
    name: &'static str,
    tolerated: Tolerated,
    disturb: fn(&mut World) -> BoxFuture<'_, ()>,
) -> Scenario {
    Scenario {
        name,
        setup: Setup {
            descriptors: None,
            settable_clock: false,
            log_disk_full: false,
        },
        disturb,
        tolerated,
    }
}

const fn with_clock(mut scenario: Scenario) -> Scenario {
    scenario.setup.settable_clock = true;
    scenario
}

const fn with_descriptors(mut scenario: Scenario, limit: u32) -> Scenario {
    scenario.setup.descriptors = Some(limit);
    scenario
}

const fn with_full_log_disk(mut scenario: Scenario) -> Scenario {
    scenario.setup.log_disk_full = true;
    scenario
}

/// Every scenario.
pub(crate) const ALL: &[Scenario] = &[
    scenario("identity-provider-dead", Tolerated::NOTHING, |w| {
        identity_provider_dead(w).boxed()
    }),
    scenario("identity-provider-slow", Tolerated::NOTHING, |w| {
        identity_provider_slow(w).boxed()
    }),
    // Tokens with a key that hawkgate has not fetched yet are refused while it cannot be fetched.
    scenario(
        "identity-provider-hangs",
        Tolerated {
            local: &[],
            ..Tolerated::for_all(&["503 keys_unavailable"])
        },
        |w| identity_provider_fails(w, "hang").boxed(),
    ),
    scenario(
        "identity-provider-junk",
        Tolerated {
            local: &[],
            ..Tolerated::for_all(&["503 keys_unavailable"])
        },
        |w| identity_provider_fails(w, "junk").boxed(),
    ),
    scenario("identity-provider-rotates", Tolerated::NOTHING, |w| {
        rotation(w).boxed()
    }),
    scenario("identity-provider-stopped", Tolerated::NOTHING, |w| {
        async {
            w.identity_provider.signal(Signal::STOP);
            w.pass(5).await;
            w.identity_provider.signal(Signal::CONT);
        }
        .boxed()
    }),
    scenario("exchange-dead", Tolerated::newcomers(EXCHANGE_DOWN), |w| {
        exchange_dead(w).boxed()
    }),
    scenario("exchange-hangs", Tolerated::newcomers(EXCHANGE_DOWN), |w| {
        exchange_fails(w, "hang").boxed()
    }),
    scenario("exchange-500", Tolerated::newcomers(EXCHANGE_DOWN), |w| {
        exchange_fails(w, "status 500").boxed()
    }),
    scenario("exchange-429", Tolerated::newcomers(EXCHANGE_DOWN), |w| {
        exchange_fails(w, "status 429 3").boxed()
    }),
    scenario(
        "exchange-junk",
        Tolerated::newcomers(&["502 exchange_failed"]),
        |w| exchange_fails(w, "junk").boxed(),
    ),
    scenario("exchange-fails-30-percent", Tolerated::NOTHING, |w| {
        exchange_fails(w, "sometimes 30").boxed()
    }),
    scenario(
        "exchange-stopped",
        Tolerated::newcomers(EXCHANGE_DOWN),
        |w| {
            async {
                w.exchange.signal(Signal::STOP);
                w.pass(5).await;
                w.exchange.signal(Signal::CONT);
            }
            .boxed()
        },
    ),
    scenario("credentials-revoked", Tolerated::NOTHING, |w| {
        revocations(w).boxed()
    }),
    scenario(
        "revoked-without-exchange",
        Tolerated {
            local: &[],
            ..Tolerated::for_all(EXCHANGE_DOWN)
        },
        |w| revoked_without_exchange(w).boxed(),
    ),
    scenario("upstream-resets", Tolerated::for_all(UPSTREAM_DOWN), |w| {
        upstream_fails(w, "reset", 5).boxed()
    }),
    // The answer had begun, so the caller can only see that it ends early.
    scenario(
        "upstream-cuts-answers",
        Tolerated::for_all(&["connection ended"]),
        |w| upstream_fails(w, "cut", 5).boxed(),
    ),
    scenario("upstream-slow", Tolerated::NOTHING, |w| {
        upstream_fails(w, "slow 1500", 5).boxed()
    }),
    scenario(
        "upstream-hangs",
        Tolerated::for_all(&["504 upstream_timeout"]),
        |w| upstream_fails(w, "hang", 12).boxed(),
    ),
    scenario("upstream-dead", Tolerated::for_all(UPSTREAM_DOWN), |w| {
        upstream_dead(w).boxed()
    }),
    // Only requests in progress when the old address dies are lost.
    scenario(
        "upstream-moves",
        Tolerated::for_all(&["502 upstream_failed"]),
        |w| upstream_moves(w).boxed(),
    ),
    scenario("upstream-stopped", Tolerated::NOTHING, |w| {
        async {
            w.upstream.signal(Signal::STOP);
            w.pass(5).await;
            w.upstream.signal(Signal::CONT);
        }
        .boxed()
    }),
    with_clock(scenario(
        "clock-20-minutes-ahead",
        Tolerated::NOTHING,
        |w| clock_off(w, 20 * 60).boxed(),
    )),
    with_clock(scenario(
        "clock-20-minutes-behind",
        Tolerated::NOTHING,
        |w| clock_off(w, -20 * 60).boxed(),
    )),
    // No token can be valid yet; what needs no token goes on.
    with_clock(scenario(
        "clock-30-years-behind",
        Tolerated {
            local: &[],
            ..Tolerated::for_all(&["503 clock_not_set"])
        },
        |w| clock_off(w, -30 * 365 * 86_400).boxed(),
    )),
    scenario("reload-storm", Tolerated::NOTHING, |w| {
        reload_storm(w).boxed()
    }),
    scenario("hawkgate-stopped", Tolerated::NOTHING, |w| {
        async {
            w.hawkgate.signal(Signal::STOP);
            w.pass(5).await;
            w.hawkgate.signal(Signal::CONT);
        }
        .boxed()
    }),
    with_descriptors(
        scenario(
            "descriptors-exhausted",
            Tolerated::for_all(&[
                "connection ended",
                "no answer",
                "503 overloaded",
                "502 upstream_unreachable",
                "503 exchange_unavailable",
            ]),
            |w| descriptors_exhausted(w).boxed(),
        ),
        DESCRIPTORS,
    ),
    scenario("state-disk-full", Tolerated::NOTHING, |w| {
        state_disk_full(w).boxed()
    }),
    with_full_log_disk(scenario("log-disk-full", Tolerated::NOTHING, |w| {
        async { w.pass(3).await }.boxed()
    })),
];

async fn identity_provider_dead(world: &mut World) {
    world.identity_provider.kill().await;
    world.pass(5).await;
    world.revive_identity_provider().await;
}

async fn identity_provider_slow(world: &mut World) {
    world.identity_provider.fault("slow 1500").await;
    world.rotate_keys().await;
    world.pass(6).await;
    world.identity_provider.fault("none").await;
}

async fn identity_provider_fails(world: &mut World, fault: &str) {
    world.identity_provider.fault(fault).await;
    world.rotate_keys().await;
    world.pass(6).await;
    world.identity_provider.fault("none").await;
}

async fn rotation(world: &mut World) {
    world.rotate_keys().await;
    world.pass(5).await;
}

async fn exchange_dead(world: &mut World) {
    let address = world.exchange.address();
    world.exchange.kill().await;
    world.pass(5).await;
    world.exchange.restart_at(address).await;
}

async fn exchange_fails(world: &mut World, fault: &str) {
    world.exchange.fault(fault).await;
    world.pass(5).await;
    world.exchange.fault("none").await;
}

/// The exchange learns of it first, as it would from a database that both share.
async fn revoke(world: &mut World) {
    world.exchange.command("revoke").await;
    world.upstream.command("revoke").await;
}

async fn revocations(world: &mut World) {
    for _ in 0..3 {
        revoke(world).await;
        world.pass(2).await;
    }
}

async fn revoked_without_exchange(world: &mut World) {
    world.exchange.fault("status 500").await;
    revoke(world).await;
    world.pass(4).await;
    world.exchange.fault("none").await;
}

async fn upstream_fails(world: &mut World, fault: &str, seconds: u64) {
    world.upstream.fault(fault).await;
    world.pass(seconds).await;
    world.upstream.fault("none").await;
}

async fn upstream_dead(world: &mut World) {
    let address = world.upstream.address();
    world.upstream.kill().await;
    world.pass(4).await;
    world.upstream.restart_at(address).await;
}

async fn upstream_moves(world: &mut World) {
    let new = SocketAddr::from(([127, 0, 0, 2], world.upstream.address().port()));
    let moved = Peer::start(Role::Upstream, new).await;
    let mut old = std::mem::replace(&mut world.upstream, moved);
    world.hawkgate.resolve_upstream_to(new);
    old.kill().await;
    world.pass(4).await;
}

async fn clock_off(world: &mut World, offset_seconds: i64) {
    world.hawkgate.set_clock(offset_seconds);
    world.pass(5).await;
    world.hawkgate.set_clock(0);
}

async fn reload_storm(world: &mut World) {
    for number in 0..100 {
        world.hawkgate.touch_configuration(number);
        world.hawkgate.signal(Signal::HUP);
        pause().await;
    }
}

/// Descriptors of hawkgate's process in that scenario: enough for the other callers.
const DESCRIPTORS: u32 = 96;

/// Connects until hawkgate has no descriptor left, and keeps the connections for a while.
async fn descriptors_exhausted(world: &mut World) {
    let mut connections = Vec::new();
    for _ in 0..2 * DESCRIPTORS {
        connections.extend(TcpStream::connect(world.hawkgate.listener).await);
    }
    world.pass(4).await;
}

/// `hawkgate register` while its state file cannot be written: nothing may be registered that would
/// then be forgotten, and no part of a file may be left.
async fn state_disk_full(world: &mut World) {
    let registered = |count: (u64, u64)| count.1;
    for (limit, expected) in [("trap '' XFSZ; ulimit -f 0; ", 0), ("", 1)] {
        let (output, state) = world
            .hawkgate
            .register(limit, world.identity_provider.address())
            .await;
        let clients = registered(world.identity_provider.count().await);
        let succeeded = output.status.success();
        let explained =
            succeeded || String::from_utf8_lossy(&output.stderr).contains("client.json");
        let right = succeeded == (expected == 1) && state.is_some() == succeeded && explained;
        if !right || clients != expected {
            let text = format!("{clients} clients registered, state {state:?}, {output:?}");
            world.tally.violation(text);
        }
    }
    world.pass(1).await;
}
