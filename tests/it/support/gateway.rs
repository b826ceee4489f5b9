//! A gateway for one test, in this process.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use hawkgate::app::{self, Deps, Running};
use hawkgate::clock::{ManualClock, SharedClock, SystemClock};
use hawkgate::config;
use hawkgate::log::Logging;
use hawkgate::log::settings::LogFormat;
use hawkgate::proxy::settings::Address;
use hawkgate::remote::dns::{Resolver, SystemResolver};
use tempfile::TempDir;

use super::client::{Client, Http2Client, Request, Response};
use super::wait::until;

/// Everything that all tests of this process log.
#[derive(Clone, Debug, Default)]
pub(crate) struct CapturedLog(Arc<Mutex<Vec<u8>>>);

impl Write for CapturedLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

static LOG: LazyLock<(Logging, CapturedLog)> = LazyLock::new(|| {
    let captured = CapturedLog::default();
    let out = Box::new(captured.clone());
    let clock = SystemClock::shared();
    let default_hook = std::panic::take_hook();
    let logging = Logging::install_to(out, "trace,audit=info", LogFormat::Json, clock).unwrap();
    let logging_hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        logging_hook(panic);
        default_hook(panic);
    }));
    (logging, captured)
});

/// What this process has logged at level trace, after the first `start` bytes.
fn captured_since(start: usize) -> String {
    let (logging, captured) = &*LOG;
    logging.flush(Duration::from_secs(10));
    let bytes = captured.0.lock().unwrap()[start..].to_vec();
    String::from_utf8(bytes).unwrap()
}

/// The access token of the client `root`, for sources of kind `taskcluster-static` and
/// `taskcluster-mint`. Every [`ConfigDir`] has it in the file `access-token`.
pub(crate) const ROOT_KEY: &str = "tests-only-root-access-token-0123456789-abcdef";

/// A temporary directory for a configuration and the files that it refers to.
pub(crate) struct ConfigDir(TempDir);

impl ConfigDir {
    /// With the file `access-token`.
    pub(crate) fn new() -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        files.write("access-token", ROOT_KEY);
        files
    }

    /// Writes a file and returns its path.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

/// A `[server]` section on free loopback ports, which most tests put before their own sections. The
/// names are those that raw requests have in `Host`; other requests use `localhost`.
pub(crate) const SERVER_CONFIG: &str = r#"
[server]
listen = ["127.0.0.1:0"]
admin = "127.0.0.1:0"
drain = "10s"
drain_delay = "0s"
local_hosts = ["a", "x", "api.test"]
"#;

/// A gateway running in this process; aborted when dropped.
pub(crate) struct TestGateway {
    pub(crate) running: Running,
    pub(crate) files: ConfigDir,
    /// Bytes that this process had logged when the gateway started.
    log_start: usize,
}

impl TestGateway {
    /// With the system clock, and [`SERVER_CONFIG`] before `sections`.
    pub(crate) async fn start(sections: &str) -> Self {
        let text = format!("{SERVER_CONFIG}{sections}");
        Self::start_with(&text, ConfigDir::new(), SystemClock::shared()).await
    }

    /// With one worker, listeners for HTTP/1 and HTTP/2 (in this order), and an anonymous route with
    /// these keys whose requests to the upstream at `url` are signed.
    pub(crate) async fn signing(url: &str, route_keys: &str) -> Self {
        let text = format!(
            r#"
[server]
listen = ["127.0.0.1:0", {{ address = "127.0.0.1:0", h2c = true }}]
admin = "127.0.0.1:0"
drain_delay = "0s"
threads = 1
[[source]]
name = "static"
kind = "taskcluster-static"
client_id = "root"
access_token = {{ file = "access-token" }}
[[route]]
name = "api"
upstream = "{url}"
anonymous = true
source = "static"
{route_keys}
"#
        );
        Self::start_with(&text, ConfigDir::new(), SystemClock::shared()).await
    }

    /// With a clock that stands still at the present time until the test advances it.
    pub(crate) async fn start_with_clock(sections: &str) -> (Self, Arc<ManualClock>) {
        let clock = ManualClock::at(SystemClock::shared().now());
        let text = format!("{SERVER_CONFIG}{sections}");
        let gateway = Self::start_with(&text, ConfigDir::new(), clock.clone()).await;
        (gateway, clock)
    }

    /// With [`SERVER_CONFIG`] before `sections`, a resolver of its own, and a clock that stands
    /// still until the test advances it.
    pub(crate) async fn start_resolving(
        sections: &str,
        resolver: Arc<dyn Resolver>,
    ) -> (Self, Arc<ManualClock>) {
        let clock = ManualClock::at(SystemClock::shared().now());
        let text = format!("{SERVER_CONFIG}{sections}");
        let gateway = Self::start_on(&text, ConfigDir::new(), clock.clone(), resolver).await;
        (gateway, clock)
    }

    /// With the whole configuration, written into `files`, and a clock.
    pub(crate) async fn start_with(text: &str, files: ConfigDir, clock: SharedClock) -> Self {
        Self::start_on(text, files, clock, Arc::new(SystemResolver)).await
    }

    async fn start_on(
        text: &str,
        files: ConfigDir,
        clock: SharedClock,
        resolver: Arc<dyn Resolver>,
    ) -> Self {
        let log_start = LOG.1.0.lock().unwrap().len();
        let path = files.write("hawkgate.toml", text);
        let config = config::load(&path).unwrap_or_else(|errors| panic!("{errors}\n{text}"));
        let access_log = LOG.0.access();
        let deps = Deps {
            clock,
            access_log,
            resolver,
        };
        let running = app::start(config, deps)
            .await
            .unwrap_or_else(|e| panic!("{e}\n{text}"));
        Self {
            running,
            files,
            log_start,
        }
    }

    /// The first listener.
    pub(crate) fn address(&self) -> &Address {
        &self.running.listeners[0]
    }

    /// A new connection.
    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.address()).await
    }

    /// Sends one request on a new connection.
    pub(crate) async fn send(&self, request: &Request) -> Response {
        self.client().await.request(request).await.unwrap()
    }

    /// An HTTP/2 connection with prior knowledge to the listener `index`.
    pub(crate) async fn http2(&self, index: usize) -> Http2Client {
        Http2Client::connect(&self.running.listeners[index]).await
    }

    /// The address of the admin listener.
    pub(crate) fn admin_address(&self) -> &Address {
        self.running.admin.as_ref().expect("an admin listener")
    }

    /// GETs a page of the admin listener.
    pub(crate) async fn admin(&self, path: &str) -> Response {
        let mut client = Client::connect(self.admin_address()).await;
        client.request(&Request::get(path)).await.unwrap()
    }

    /// Waits until these samples add up to `count`: a request is counted when it ends, which may be
    /// shortly after the caller has the response.
    pub(crate) async fn wait_for_metric(&self, name: &str, labels: &[(&str, &str)], count: u32) {
        until(&format!("{name} {labels:?} to be {count}"), async || {
            let sum = self.metrics().await.sum(name, labels);
            assert!(sum <= f64::from(count), "{name} {labels:?} is {sum}");
            (sum - f64::from(count)).abs() < 0.5
        })
        .await;
    }

    /// Everything logged since the gateway started, including by tests that run at the same time.
    pub(crate) fn log(&self) -> String {
        captured_since(self.log_start)
    }

    pub(crate) async fn metrics(&self) -> Metrics {
        let response = self.admin("/metrics").await;
        assert_eq!(response.status, 200);
        Metrics(response.text())
    }
}

impl Drop for TestGateway {
    fn drop(&mut self) {
        self.running.abort();
    }
}

/// Metrics in the Prometheus text format.
#[derive(Clone, Debug)]
pub(crate) struct Metrics(pub(crate) String);

impl Metrics {
    /// The sum of all samples of `name` whose labels include `labels`; 0 if there are none.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let expected: Vec<String> = labels.iter().map(|(k, v)| format!("{k}=\"{v}\"")).collect();
        self.of(name)
            .filter(|(own, _)| expected.iter().all(|label| own.contains(label)))
            .map(|(_, value)| value)
            .sum()
    }

    /// Whether there are samples of `name`.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.of(name).next().is_some()
    }

    /// The labels, as written, and the value of each sample of `name`.
    fn of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (Vec<String>, f64)> + 'a {
        self.0.lines().filter_map(move |line| {
            let rest = line.strip_prefix(name)?;
            let (labels, value) = match rest.strip_prefix('{') {
                Some(rest) => rest.rsplit_once("} ")?,
                None => ("", rest.strip_prefix(' ')?),
            };
            Some((split_labels(labels), value.trim().parse().ok()?))
        })
    }
}

/// Splits `a="x",b="y"`; hawkgate's label values contain no commas or quotes.
fn split_labels(labels: &str) -> Vec<String> {
    labels.split(',').map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_samples_by_name_and_label() {
        let samples = Metrics(
            "# TYPE a counter\na{x=\"1\",y=\"2\"} 3\na{x=\"2\",y=\"2\"} 4\nab 5\nb 6.5\n".into(),
        );
        let near = |a: f64, b: f64| (a - b).abs() < 1e-9;
        assert!(near(samples.sum("a", &[("y", "2")]), 7.0));
        assert!(near(samples.sum("a", &[("x", "1")]), 3.0));
        assert!(near(samples.sum("b", &[]), 6.5));
        assert!(samples.has("ab") && !samples.has("c"));
    }
}
