//! Determines which changed keys need a restart.

use crate::config::{Config, Server};
use crate::log::settings::{AUDIT_LEVEL, Log};
use crate::proxy::settings::{Limits, Listener};

/// The keys that differ between `running` and `new` and only take effect after a restart.
pub fn restart_needed(running: &Config, new: &Config) -> Vec<&'static str> {
    // Destructured, here and below, so that a new key does not compile until it is classified.
    let Config {
        server,
        limits,
        max_token_bytes: _,
        rate: _,
        log,
        issuers: _,
        sources: _,
        sessions: _,
        routes: _,
        rules: _,
        login: _,
        // Its listeners are among those of `server`.
        forward_auth: _,
        cache: _,
        network: _,
        shared: _,
        trace: _,
        files: _,
    } = running;
    let mut keys = of_server(server, &new.server);
    keys.extend(of_limits(limits, &new.limits));
    keys.extend(of_log(log, &new.log));
    keys
}

/// `new`, except for keys that need a restart, which keep their values from `running`.
pub fn applicable(running: &Limits, new: &Limits) -> Limits {
    Limits {
        body: new.body,
        replay_body: new.replay_body,
        min_body_rate: new.min_body_rate,
        requests_in_flight: new.requests_in_flight,
        requests_in_flight_per_address: new.requests_in_flight_per_address,
        ..running.clone()
    }
}

/// `running`, with the keys of `new` that need no restart.
pub fn applicable_server(running: &Server, new: &Server) -> Server {
    Server {
        local_hosts: new.local_hosts.clone(),
        ..running.clone()
    }
}

fn of_server(running: &Server, new: &Server) -> Vec<&'static str> {
    let Server {
        listen,
        admin,
        drain,
        drain_delay,
        startup_grace,
        threads,
        local_hosts: _,
    } = running;
    changed([
        ("server.listen", own(listen) != own(&new.listen)),
        (
            "forward_auth.listen",
            forward_auth(listen) != forward_auth(&new.listen),
        ),
        ("server.admin", *admin != new.admin),
        ("server.drain", *drain != new.drain),
        ("server.drain_delay", *drain_delay != new.drain_delay),
        ("server.startup_grace", *startup_grace != new.startup_grace),
        ("server.threads", *threads != new.threads),
    ])
}

/// The listeners of `server.listen` itself.
fn own(listen: &[Listener]) -> Vec<&Listener> {
    listen.iter().filter(|l| l.forward_auth.is_none()).collect()
}

/// The listeners of `[[forward_auth]]`.
fn forward_auth(listen: &[Listener]) -> Vec<&Listener> {
    listen.iter().filter(|l| l.forward_auth.is_some()).collect()
}

fn of_limits(running: &Limits, new: &Limits) -> Vec<&'static str> {
    let Limits {
        header_bytes,
        url_bytes,
        header_timeout,
        body_timeout,
        min_body_rate: _,
        keepalive_timeout,
        unadmitted_keepalive: _,
        linger: _,
        connections,
        requests_in_flight: _,
        requests_in_flight_per_address: _,
        connections_per_address,
        body: _,
        replay_body: _,
        replay_memory,
    } = running;
    changed([
        ("limits.header_bytes", *header_bytes != new.header_bytes),
        ("limits.url_bytes", *url_bytes != new.url_bytes),
        (
            "limits.header_timeout",
            *header_timeout != new.header_timeout,
        ),
        ("limits.body_timeout", *body_timeout != new.body_timeout),
        (
            "limits.keepalive_timeout",
            *keepalive_timeout != new.keepalive_timeout,
        ),
        ("limits.connections", *connections != new.connections),
        (
            "limits.connections_per_address",
            *connections_per_address != new.connections_per_address,
        ),
        ("limits.replay_memory", *replay_memory != new.replay_memory),
    ])
}

fn of_log(running: &Log, new: &Log) -> Vec<&'static str> {
    let Log {
        format,
        level: _,
        access_sample,
        audit,
    } = running;
    changed([
        ("log.format", *format != new.format),
        ("log.level", written_level(running) != written_level(new)),
        (
            "log.access_sample",
            access_sample.total_cmp(&new.access_sample).is_ne(),
        ),
        ("log.audit", *audit != new.audit),
    ])
}

/// The level as configured, without the directive that `log.audit` adds.
fn written_level(log: &Log) -> &str {
    let bare = log.level.strip_suffix(AUDIT_LEVEL).filter(|_| log.audit);
    bare.unwrap_or(&log.level)
}

fn changed<const N: usize>(keys: [(&'static str, bool); N]) -> Vec<&'static str> {
    let changed = keys.into_iter().filter(|(_, changed)| *changed);
    changed.map(|(key, _)| key).collect()
}
