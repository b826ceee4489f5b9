//! hawkgate as a child process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::callers::get;
use crate::peer::{STATIC_CLIENT, access_token, send_signal};
use crate::tokens::AUDIENCE;

/// The upstream's host name, which `libnss_wrapper` resolves from a file.
pub(crate) const UPSTREAM_NAME: &str = "upstream.chaos.test";

/// How long hawkgate may take to start or to stop.
const START_AND_STOP: Duration = Duration::from_mins(1);

/// What is unusual about the process.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Setup {
    /// Limit of open descriptors.
    pub(crate) descriptors: Option<u32>,
    /// Whether [`Hawkgate::set_clock`] works.
    pub(crate) settable_clock: bool,
    /// Whether the log goes to a full disk.
    pub(crate) log_disk_full: bool,
}

/// The ports of the peers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerAddresses {
    pub(crate) identity_provider: SocketAddr,
    pub(crate) exchange: SocketAddr,
    pub(crate) upstream_port: u16,
}

/// A running hawkgate; killed when dropped.
pub(crate) struct Hawkgate {
    files: TempDir,
    child: Child,
    pub(crate) listener: SocketAddr,
    pub(crate) admin: SocketAddr,
}

impl Hawkgate {
    /// Starts it and waits until it is ready.
    pub(crate) async fn start(setup: Setup, peers: PeerAddresses) -> Self {
        let files = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(files.path().join(name), text).unwrap();
        write("access-token", &access_token(STATIC_CLIENT));
        write("hosts", &format!("127.0.0.1 {UPSTREAM_NAME}\n"));
        write("clock", "+0");
        // Ports that are free now. hawkgate would choose and log them, but some logs are lost.
        let [listener, admin] = free_addresses();
        write("hawkgate.toml", &configuration(listener, admin, peers));
        let child = command(setup, files.path()).spawn().unwrap();
        let mut started = Self {
            files,
            child,
            listener,
            admin,
        };
        started.wait_until_ready().await;
        started
    }

    async fn wait_until_ready(&mut self) {
        let deadline = Instant::now() + START_AND_STOP;
        while get(self.admin, "/readyz")
            .await
            .is_none_or(|page| page.0 != 200)
        {
            let exited = self.child.try_wait().unwrap();
            assert!(
                exited.is_none() && Instant::now() < deadline,
                "not ready: {}",
                self.log()
            );
            pause().await;
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// Everything logged so far; empty if the log goes to a full disk.
    pub(crate) fn log(&self) -> String {
        let log = std::fs::read(self.path("log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Moves the upstream's name to another address.
    pub(crate) fn resolve_upstream_to(&self, address: SocketAddr) {
        let line = format!("{} {UPSTREAM_NAME}\n", address.ip());
        replace(&self.path("hosts"), &line);
    }

    /// Sets the clock of hawkgate to the real time plus this many seconds.
    pub(crate) fn set_clock(&self, offset_seconds: i64) {
        replace(&self.path("clock"), &format!("{offset_seconds:+}"));
    }

    /// Rewrites the configuration file with a comment that makes it different.
    pub(crate) fn touch_configuration(&self, number: u32) {
        let path = self.path("hawkgate.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        let (text, _) = text.split_once("# version").unwrap_or((&text, ""));
        replace(&path, &format!("{text}# version {number}\n"));
    }

    /// Runs `hawkgate register` after the shell command `limit`. Returns its output and the state
    /// file that it leaves.
    pub(crate) async fn register(
        &self,
        limit: &str,
        issuer: SocketAddr,
    ) -> (std::process::Output, Option<String>) {
        let output = Command::new("sh")
            .args(["-c", &format!("{limit}exec \"$0\" \"$@\"")])
            .args([
                env!("CARGO_BIN_EXE_hawkgate"),
                "register",
                "--client-name",
                "chaos",
            ])
            .args([
                "--issuer",
                &format!("http://{issuer}"),
                "--auth-method",
                "none",
            ])
            .args([
                "--redirect-uri",
                "http://127.0.0.1/callback",
                "--state",
                "client.json",
            ])
            .current_dir(self.state_directory())
            .stdin(Stdio::null())
            .output()
            .await
            .unwrap();
        let state = std::fs::read_to_string(self.state_directory().join("client.json"));
        (output, state.ok())
    }

    /// A private directory, as state files need it.
    fn state_directory(&self) -> PathBuf {
        use std::os::unix::fs::DirBuilderExt as _;
        let path = self.path("state");
        let created = std::fs::DirBuilder::new()
            .mode(0o700)
            .recursive(true)
            .create(&path);
        created.unwrap();
        path
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        send_signal(&self.child, signal);
    }

    /// Anonymous memory in bytes. Other resident memory is the program file's own pages.
    pub(crate) fn memory(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id().unwrap());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"));
        let kib = line.unwrap().trim().trim_end_matches(" kB");
        kib.parse::<u64>().unwrap() * 1024
    }

    /// The value of a metric without labels, or the sum of its series.
    pub(crate) async fn metric(&self, name: &str) -> Option<f64> {
        let (_, text) = get(self.admin, "/metrics").await?;
        let values = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let value = rest.rsplit(' ').next()?.parse::<f64>().ok()?;
            (rest.starts_with(' ') || rest.starts_with('{')).then_some(value)
        });
        Some(values.sum())
    }

    /// Asks it to stop; true if it drained in time and exited with 0.
    pub(crate) async fn stop(mut self) -> bool {
        self.signal(Signal::TERM);
        let exited = tokio::time::timeout(START_AND_STOP, self.child.wait()).await;
        exited.is_ok_and(|status| status.unwrap().success())
    }
}

/// A route with an exchange, and one for local processes.
fn configuration(listener: SocketAddr, admin: SocketAddr, peers: PeerAddresses) -> String {
    let PeerAddresses {
        identity_provider,
        exchange,
        upstream_port,
    } = peers;
    format!(
        r#"
[server]
listen = ["{listener}"]
admin = "{admin}"
drain = "10s"
drain_delay = "0s"

# Small, so that the caches are full before memory is measured for the first time.
[cache]
max_entries = 20

[[issuer]]
name = "idp"
url = "http://{identity_provider}"
audiences = ["{AUDIENCE}"]
algorithms = ["ES256"]

[[source]]
name = "login"
kind = "taskcluster-login"
url = "http://{exchange}/login"
timeout = "3s"

[[source]]
name = "local"
kind = "taskcluster-static"
client_id = "{STATIC_CLIENT}"
access_token = {{ file = "access-token" }}

[[route]]
name = "api"
path = "/api/"
upstream = "http://{UPSTREAM_NAME}:{upstream_port}"
allow_plaintext = true
read_timeout = "10s"
issuers = ["idp"]
source = "login"

[[route]]
name = "local"
path = "/local/"
upstream = "http://{UPSTREAM_NAME}:{upstream_port}"
allow_plaintext = true
read_timeout = "10s"
anonymous = true
source = "local"
"#
    )
}

fn command(setup: Setup, files: &Path) -> Command {
    let limit = setup
        .descriptors
        .map_or_else(String::new, |n| format!("ulimit -n {n}; "));
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("{limit}exec \"$0\" \"$@\"")])
        .args([env!("CARGO_BIN_EXE_hawkgate"), "run", "--config"])
        .arg(files.join("hawkgate.toml"))
        .env("NSS_WRAPPER_HOSTS", files.join("hosts"))
        // Otherwise the allocator keeps freed memory, in amounts that vary by more than 10 %.
        .env("MIMALLOC_PURGE_DELAY", "0")
        .kill_on_drop(true)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let mut preload = vec![library("libnss_wrapper.so", "libnss-wrapper")];
    if setup.settable_clock {
        preload.push(library("faketime/libfaketime.so.1", "libfaketime"));
        command
            .env("FAKETIME_TIMESTAMP_FILE", files.join("clock"))
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("NO_FAKE_STAT", "1");
    }
    command.env("LD_PRELOAD", preload.join(":"));
    let log = if setup.log_disk_full {
        std::fs::File::options().write(true).open("/dev/full")
    } else {
        std::fs::File::create(files.join("log"))
    };
    command.stderr(log.unwrap());
    command
}

/// The path of a library to preload, in one of Debian's folders.
fn library(name: &str, package: &str) -> String {
    let folders = std::fs::read_dir("/usr/lib").unwrap();
    let mut paths = folders.map(|folder| folder.unwrap().path().join(name));
    let found = paths.find(|path| path.exists());
    let found = found.unwrap_or_else(|| panic!("{name} is missing: apt-get install {package}"));
    found.display().to_string()
}

fn free_addresses() -> [SocketAddr; 2] {
    let sockets = [(); 2].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    sockets.map(|socket| socket.local_addr().unwrap())
}

/// Replaces a file as a whole, so that hawkgate never reads half of it.
fn replace(path: &Path, text: &str) {
    let temporary = path.with_extension("new");
    std::fs::write(&temporary, text).unwrap();
    std::fs::rename(&temporary, path).unwrap();
}

/// Between two polls.
pub(crate) async fn pause() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}
