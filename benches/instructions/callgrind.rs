//! Runs of hawkgate under callgrind, and what callgrind wrote.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};

use crate::support::hawkgate::{self, Access, Ports};
use crate::support::http1::{Connection, Field, Request};
use crate::support::identity::Identity;
use crate::support::process::Process;
use crate::support::{free_port, upstream};

/// Requests of each kind after which caches are warm and connections open.
const WARM_UP: u64 = 50;

/// Programs run about fifty times slower than usual.
const START_LIMIT: Duration = Duration::from_mins(2);

/// A hawkgate to measure, and the upstream.
pub(crate) struct Lab {
    /// The field with the token, and the one with a session's cookie.
    pub(crate) credentials: [Field; 2],
    program: PathBuf,
    config: PathBuf,
    ports: Ports,
    dir: TempDir,
}

impl Lab {
    /// Starts the upstream. hawkgate is `program`, with one worker.
    pub(crate) async fn new(program: &Path) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let identity = Identity::write(dir.path());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let ports = Ports {
            http: free_port(),
            tls: free_port(),
            admin: free_port(),
            upstream: listener.local_addr().expect("an address").port(),
        };
        tokio::spawn(upstream::serve(listener));
        let config = dir.path().join("hawkgate.toml");
        let toml = hawkgate::configuration(ports, 1, &identity, Access::Session);
        fs::write(&config, toml).expect("a configuration");
        Self {
            credentials: [identity.bearer(), identity.cookie().await],
            program: program.to_owned(),
            config,
            ports,
            dir,
        }
    }

    /// Starts hawkgate, warms it up with `warm_up`, sends `measured` as many times as it says, and
    /// stops it. All on one connection, one request after the other.
    pub(crate) async fn run(
        &self,
        warm_up: &[(&str, Request)],
        measured: Option<(&Request, u64)>,
    ) -> Profile {
        let output = self.dir.path().join("callgrind.out");
        let mut process = self.start(&output);
        hawkgate::wait_until_ready(self.ports.admin, START_LIMIT).await;
        let stream = TcpStream::connect(("127.0.0.1", self.ports.http)).await;
        let mut connection = Connection::new(stream.expect("a connection"));
        for (_, request) in warm_up {
            for _ in 0..WARM_UP {
                connection.exchange(request).await;
            }
        }
        if let Some((request, count)) = measured {
            for _ in 0..count {
                connection.exchange(request).await;
            }
        }
        drop(connection);
        process.terminate();
        Profile::read(&fs::read_to_string(&output).expect("what callgrind wrote"))
    }

    fn start(&self, output: &Path) -> Process {
        let output = format!("--callgrind-out-file={}", output.display());
        let program = self.program.display().to_string();
        let config = self.config.display().to_string();
        Process::start(
            Path::new("valgrind"),
            &[
                "--tool=callgrind",
                &output,
                &program,
                "run",
                "--config",
                &config,
            ],
            false,
        )
    }
}

/// Instructions of each function.
#[derive(Default)]
pub(crate) struct Profile {
    functions: HashMap<String, Cost>,
}

#[derive(Clone, Copy, Default)]
struct Cost {
    /// In the function itself.
    own: i64,
    /// In the functions that it calls.
    called: i64,
}

impl Profile {
    /// Reads a profile: <https://valgrind.org/docs/manual/cl-format.html>.
    fn read(text: &str) -> Self {
        let mut names = HashMap::new();
        let mut profile = Self::default();
        let mut function = String::new();
        let mut is_call = false;
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("fn=") {
                function = resolve(name, &mut names);
            } else if let Some(name) = line.strip_prefix("cfn=") {
                resolve(name, &mut names);
            } else if line.starts_with("calls=") {
                is_call = true;
            } else if line.starts_with(['+', '-', '*']) || line.starts_with(char::is_numeric) {
                let cost = line.split(' ').nth(1).and_then(|cost| cost.parse().ok());
                let (cost, entry): (i64, _) = (
                    cost.unwrap_or_default(),
                    profile.functions.entry(function.clone()).or_default(),
                );
                if std::mem::take(&mut is_call) {
                    entry.called += cost;
                } else {
                    entry.own += cost;
                }
            }
        }
        profile
    }

    /// Returns the difference to `before`, divided by `requests`.
    pub(crate) fn per_request(&self, before: &Self, requests: u64) -> Self {
        let requests = i64::try_from(requests).expect("a small number");
        let functions = self.functions.iter().map(|(name, cost)| {
            let before = before.functions.get(name).copied().unwrap_or_default();
            let cost = Cost {
                own: (cost.own - before.own) / requests,
                called: (cost.called - before.called) / requests,
            };
            (name.clone(), cost)
        });
        Self {
            functions: functions.collect(),
        }
    }

    /// Returns the instructions of all functions.
    pub(crate) fn total(&self) -> u64 {
        let total: i64 = self.functions.values().map(|cost| cost.own).sum();
        u64::try_from(total).unwrap_or_default()
    }

    /// Prints the functions with the most instructions, with and without those of the functions
    /// that they call, and the sums by crate.
    pub(crate) fn print_functions(&self) {
        println!("\n  own functions' code:");
        print_longest(
            self.functions
                .iter()
                .map(|(name, cost)| (&**name, cost.own)),
        );
        println!("\n  with the functions that they call:");
        let inclusive = |cost: &Cost| cost.own + cost.called;
        print_longest(
            self.functions
                .iter()
                .map(|(name, cost)| (&**name, inclusive(cost))),
        );
        let mut crates = HashMap::<&str, i64>::new();
        for (name, cost) in &self.functions {
            *crates.entry(crate_of(name)).or_default() += cost.own;
        }
        println!("\n  by crate:");
        print_longest(crates.into_iter());
        println!();
    }
}

const SHOWN: usize = 40;

fn print_longest<'a>(costs: impl Iterator<Item = (&'a str, i64)>) {
    let mut costs: Vec<_> = costs.filter(|(_, cost)| *cost > 0).collect();
    costs.sort_by_key(|(name, cost)| (-cost, *name));
    for (name, cost) in costs.into_iter().take(SHOWN) {
        println!("{cost:>9}  {name}");
    }
}

/// Names are written once and then referred to by number: `(12) name`, `(12)`.
fn resolve(text: &str, names: &mut HashMap<String, String>) -> String {
    match text.split_once(' ') {
        Some((number, name)) => {
            names.insert(number.to_owned(), name.to_owned());
            name.to_owned()
        }
        None => names.get(text).cloned().unwrap_or_default(),
    }
}

/// Returns the crate of a Rust function, also of `<T as Trait>::f`, and "C" for other functions.
fn crate_of(name: &str) -> &str {
    let path = name.trim_start_matches(['<', '&', '*']);
    let path = path.strip_prefix("dyn ").unwrap_or(path);
    path.split_once("::").map_or("C", |(first, _)| first)
}
