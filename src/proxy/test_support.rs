//! What tests of connections share.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::client::ConnMetadata;
use super::connection_limit::{ConnectionLimit, Origin, Permit};
use super::drain::Signal;
use super::record::Recorder;
use super::service::ConnInfo;
use super::settings::{Limits, MinRate};
use super::{h1, h2};
use crate::clock::{ManualClock, SharedClock, UnixMillis};
use crate::gateway::outcome::Outcome;

/// The timeouts of [`limits`].
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);

/// Limits that are far away, and no replay.
pub(super) fn limits() -> Limits {
    Limits {
        header_bytes: 32 * 1024,
        url_bytes: 8 * 1024,
        header_timeout: TIMEOUT,
        body_timeout: TIMEOUT,
        min_body_rate: MinRate {
            bytes_per_second: 0,
            grace: Limits::BODY_RATE_GRACE,
        },
        keepalive_timeout: TIMEOUT,
        unadmitted_keepalive: TIMEOUT,
        linger: Limits::LINGER,
        connections: 100,
        requests_in_flight: 100,
        requests_in_flight_per_address: 100,
        connections_per_address: Some(0),
        body: None,
        replay_body: 0,
        replay_memory: 0,
    }
}

/// What serving a caller's connection on loopback needs, without a listener.
pub(super) struct TestConn {
    limits: Limits,
    pub(super) info: ConnInfo,
    clock: SharedClock,
    recorder: Recorder,
    outcomes: Arc<Mutex<Vec<Outcome>>>,
    /// Its place among the open connections.
    _permit: Permit,
}

impl TestConn {
    /// Must be called in a Tokio runtime.
    pub(super) fn new(limits: Limits, signal: Signal) -> Self {
        let peer = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let origin = Origin::of(Some(peer));
        let permit = ConnectionLimit::new(&limits).admit(origin, signal.clone(), Duration::ZERO);
        let permit = permit.ok().unwrap();
        let outcomes: Arc<Mutex<Vec<Outcome>>> = Arc::default();
        let record = Arc::clone(&outcomes);
        Self {
            info: ConnInfo {
                worker: 0,
                signal,
                state: permit.state(),
                peer: Some(peer),
                tls: false,
                metadata: ConnMetadata::default(),
                address: None,
                write_timeout: limits.body_timeout,
                memo: Mutex::default(),
            },
            clock: ManualClock::at(UnixMillis::from_secs(0)),
            recorder: Arc::new(move |outcome| record.lock().unwrap().push(outcome.clone())),
            outcomes,
            limits,
            _permit: permit,
        }
    }

    pub(super) fn h1_settings(&self) -> h1::server::Settings<'_> {
        h1::server::Settings {
            head: (&self.limits).into(),
            header_timeout: self.limits.header_timeout,
            keepalive_timeout: self.limits.keepalive_timeout,
            unadmitted_keepalive: self.limits.unadmitted_keepalive,
            linger: self.limits.linger,
            clock: &self.clock,
            recorder: &self.recorder,
        }
    }

    pub(super) fn h2_settings(&self) -> h2::server::Settings<'_> {
        h2::server::Settings {
            head: (&self.limits).into(),
            header_timeout: self.limits.header_timeout,
            keepalive_timeout: self.limits.keepalive_timeout,
            unadmitted_keepalive: self.limits.unadmitted_keepalive,
            clock: &self.clock,
            recorder: &self.recorder,
        }
    }

    /// Returns what is recorded, now and later.
    pub(super) fn outcomes(&self) -> Arc<Mutex<Vec<Outcome>>> {
        Arc::clone(&self.outcomes)
    }
}
