//! Latency at a fixed rate, with `h2load` of nghttp2.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::process::Command;

use crate::peers::Running;
use crate::report::Figures;
use crate::support::upstream::path;

const CONNECTIONS: u64 = 32;
/// Requests per second on each connection. All connections send at the same moments, so requests
/// arrive in bursts of [`CONNECTIONS`].
const RATE: u64 = 125;

/// Returns how to install `h2load` if it is not installed.
pub(crate) fn missing() -> Option<&'static str> {
    let found = std::process::Command::new("h2load")
        .arg("--version")
        .output();
    found
        .is_err()
        .then_some("h2load is not installed: apt-get install nghttp2-client")
}

/// Sends 4,000 requests a second for `length`.
pub(crate) async fn run(proxy: &Running, dir: &Path, length: Duration) -> Figures {
    let requests = CONNECTIONS * (RATE as f64 * length.as_secs_f64()).ceil() as u64;
    let log = dir.join("h2load.log");
    // h2load appends.
    let _ = fs::remove_file(&log);
    let mut command = Command::new("h2load");
    command
        .arg("--h1")
        .arg(format!("--clients={CONNECTIONS}"))
        .arg(format!("--rps={RATE}"))
        .arg(format!("--requests={requests}"))
        .arg(format!("--log-file={}", log.display()))
        .arg(format!("http://{}{}", proxy.http, path(1024)));
    if let Some((name, value)) = &proxy.credentials {
        command.arg(format!("--header={name}: {value}"));
    }
    let before = proxy.process.cpu();
    let start = Instant::now();
    let output = command.kill_on_drop(true).output().await.expect("h2load");
    let elapsed = start.elapsed();
    let cpu = proxy.process.cpu().saturating_sub(before);
    assert!(output.status.success(), "h2load failed: {output:?}");
    let latencies = read_log(&log);
    assert_eq!(latencies.len() as u64, requests, "{}", proxy.name);
    Figures::new(&latencies, cpu, elapsed, requests as f64)
}

/// Reads the third column, microseconds, and requires the second, the status, to be 200.
fn read_log(log: &Path) -> Vec<u32> {
    let log = fs::read_to_string(log).expect("the log of h2load");
    log.lines()
        .map(|line| {
            let mut columns = line.split('\t').skip(1);
            assert_eq!(columns.next(), Some("200"), "{line}");
            let latency = columns.next().and_then(|latency| latency.parse().ok());
            latency.expect("a latency")
        })
        .collect()
}
