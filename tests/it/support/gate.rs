//! A hawkgate of a test's own, in this process or as the program itself.

use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use hawkgate::app::{self, Deps, Running};
use hawkgate::clock::{ManualClock, SharedClock, SystemClock};
use hawkgate::config;
use hawkgate::log::Logging;
use hawkgate::log::settings::LogFormat;
use hawkgate::proxy::settings::Address;
use tempfile::TempDir;

use super::client::{Client, Http2Client, Request, Response, within};

/// Every log line of this process, of all tests together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

static LOG: LazyLock<(Logging, Captured)> = LazyLock::new(|| {
    let captured = Captured::default();
    let out = Box::new(captured.clone());
    let clock = SystemClock::shared();
    let told_by_tests = std::panic::take_hook();
    let logging = Logging::install_to(out, "trace,audit=info", LogFormat::Json, clock).unwrap();
    let logged = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        logged(panic);
        told_by_tests(panic);
    }));
    (logging, captured)
});

/// Everything logged so far, at level trace.
pub(crate) fn logged() -> String {
    let (logging, captured) = &*LOG;
    logging.flush(Duration::from_secs(10));
    let bytes = captured.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

/// The key of the client "root", for sources of kind `taskcluster-static` and
/// `taskcluster-mint`: in the file `access-token` beside each test's configuration.
pub(crate) const ROOT_KEY: &str = "tests-only-root-access-token-0123456789-abcdef";

/// A configuration as a file in a folder of its own, where other files may lie too.
pub(crate) struct Files(TempDir);

impl Files {
    /// With the file `access-token` in it.
    pub(crate) fn new() -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        files.write("access-token", ROOT_KEY);
        files
    }

    /// Writes a file; returns its path.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

/// `[server]` on free loopback ports: what most tests put before their own sections.
pub(crate) const SERVER: &str = r#"
[server]
listen = ["127.0.0.1:0"]
admin = "127.0.0.1:0"
drain = "10s"
drain_delay = "0s"
"#;

/// A running hawkgate in this process; aborted when dropped.
pub(crate) struct Gate {
    pub(crate) running: Running,
    pub(crate) files: Files,
}

impl Gate {
    /// With the machine's clock and [`SERVER`] before `sections`.
    pub(crate) async fn start(sections: &str) -> Self {
        let text = format!("{SERVER}{sections}");
        Self::start_with(&text, Files::new(), SystemClock::shared()).await
    }

    /// With a clock that stands at the present until moved.
    pub(crate) async fn start_with_clock(sections: &str) -> (Self, Arc<ManualClock>) {
        let clock = ManualClock::at(SystemClock::shared().now());
        let text = format!("{SERVER}{sections}");
        let gate = Self::start_with(&text, Files::new(), clock.clone()).await;
        (gate, clock)
    }

    /// With everything given: the whole text, and the folder that it is written into.
    pub(crate) async fn start_with(text: &str, files: Files, clock: SharedClock) -> Self {
        LazyLock::force(&LOG);
        let path = files.write("hawkgate.toml", text);
        let config = config::load(&path).unwrap_or_else(|errors| panic!("{errors}\n{text}"));
        let access_log = LOG.0.access();
        let surroundings = Deps { clock, access_log };
        let running = app::start(config, surroundings)
            .await
            .unwrap_or_else(|e| panic!("{e}\n{text}"));
        Self { running, files }
    }

    /// The first listener.
    pub(crate) fn address(&self) -> &Address {
        &self.running.listeners[0]
    }

    /// A caller on a connection of its own.
    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.address()).await
    }

    /// One request on a connection of its own.
    pub(crate) async fn send(&self, request: &Request) -> Response {
        self.client().await.request(request).await.unwrap()
    }

    /// An HTTP/2 caller by prior knowledge, at the listener `index`.
    pub(crate) async fn http2(&self, index: usize) -> Http2Client {
        Http2Client::connect(&self.running.listeners[index]).await
    }

    /// GET from the admin listener.
    pub(crate) async fn admin(&self, path: &str) -> Response {
        let mut client = Client::connect(&self.running.admin).await;
        client.request(&Request::get(path)).await.unwrap()
    }

    /// Waits until the sum of these samples is `count`: a request is counted when it is
    /// over, which its caller may see a moment before.
    pub(crate) async fn until_counted(&self, name: &str, labels: &[(&str, &str)], count: u32) {
        let counting = async {
            loop {
                let sum = self.metrics().await.sum(name, labels);
                assert!(sum <= f64::from(count), "{name} {labels:?} is {sum}");
                if (sum - f64::from(count)).abs() < 0.5 {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        within(&format!("{name} {labels:?} to be {count}"), counting).await;
    }

    pub(crate) async fn metrics(&self) -> Samples {
        let response = self.admin("/metrics").await;
        assert_eq!(response.status, 200);
        Samples(response.text())
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.running.abort();
    }
}

/// Prometheus text.
#[derive(Clone, Debug)]
pub(crate) struct Samples(pub(crate) String);

impl Samples {
    /// The sum of all samples of `name` whose labels include `labels`; 0 when there is none.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let wanted: Vec<String> = labels.iter().map(|(k, v)| format!("{k}=\"{v}\"")).collect();
        self.of(name)
            .filter(|(own, _)| wanted.iter().all(|label| own.contains(label)))
            .map(|(_, value)| value)
            .sum()
    }

    /// Whether there is any sample of `name`.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.of(name).next().is_some()
    }

    /// Labels as written and value of each sample of `name`.
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

/// `a="x",b="y"` → its members; values here hold no commas or quotes.
fn split_labels(labels: &str) -> Vec<String> {
    labels.split(',').map(str::to_owned).collect()
}

/// The program itself, as a process; killed when dropped.
pub(crate) struct Program {
    child: Child,
    stderr: Arc<Mutex<String>>,
    reading: Option<std::thread::JoinHandle<()>>,
}

impl Program {
    /// Runs `hawkgate` with these arguments.
    pub(crate) fn start(arguments: &[&str], directory: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_hawkgate"))
            .args(arguments)
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = Arc::new(Mutex::new(String::new()));
        let (pipe, kept) = (child.stderr.take().unwrap(), Arc::clone(&stderr));
        let reading = std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                let mut kept = kept.lock().unwrap();
                kept.push_str(&line);
                kept.push('\n');
            }
        });
        Self {
            child,
            stderr,
            reading: Some(reading),
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote to standard error so far.
    pub(crate) fn stderr(&self) -> String {
        self.stderr.lock().unwrap().clone()
    }

    /// Waits for its end; blocks this thread.
    pub(crate) fn wait(&mut self) -> (ExitStatus, String, String) {
        let mut stdout = String::new();
        if let Some(mut pipe) = self.child.stdout.take() {
            io::Read::read_to_string(&mut pipe, &mut stdout).unwrap();
        }
        let status = self.child.wait().unwrap();
        if let Some(reading) = self.reading.take() {
            reading.join().unwrap();
        }
        (status, stdout, self.stderr())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_samples_by_name_and_label() {
        let samples = Samples(
            "# TYPE a counter\na{x=\"1\",y=\"2\"} 3\na{x=\"2\",y=\"2\"} 4\nab 5\nb 6.5\n".into(),
        );
        let near = |a: f64, b: f64| (a - b).abs() < 1e-9;
        assert!(near(samples.sum("a", &[("y", "2")]), 7.0));
        assert!(near(samples.sum("a", &[("x", "1")]), 3.0));
        assert!(near(samples.sum("b", &[]), 6.5));
        assert!(samples.has("ab") && !samples.has("c"));
    }
}
