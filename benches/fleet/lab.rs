//! The fleet, and what it needs.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::client::Client;
use crate::options::Options;
use crate::provider::Provider;
use crate::store::{self, Server};
use crate::support::free_port;
use crate::support::hawkgate::wait_until_ready;
use crate::support::identity::{AUDIENCE, ISSUER, Identity};
use crate::support::process::Process;

const START_LIMIT: Duration = Duration::from_secs(30);

/// `[shared] timeout`, its default.
pub(crate) const DEADLINE: Duration = Duration::from_millis(50);

/// The key of the fleet, in base64.
const FLEET_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// The programs, the users, the exchange and the upstream.
pub(crate) struct Lab {
    dir: TempDir,
    identity: Identity,
    hawkgate: PathBuf,
    server: PathBuf,
    /// The token of each user.
    pub(crate) users: Vec<String>,
    pub(crate) provider: Provider,
}

/// How the replicas are configured.
#[derive(Clone, Default)]
pub(crate) struct Setup {
    /// `[shared] url`; without it, each is alone.
    pub(crate) store: Option<String>,
    /// `limits.rate`, in requests a second.
    pub(crate) limit: Option<u32>,
}

/// A hawkgate.
pub(crate) struct Replica {
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
    admin: u16,
}

impl Lab {
    pub(crate) fn new(hawkgate: PathBuf, options: &Options) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let identity = Identity::write(dir.path());
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text);
        write("fleet-key", FLEET_KEY).expect("a file");
        write("client-secret", "secret-of-this-benchmark-only").expect("a file");
        let user = |number| identity.token_of(&format!("user-{number}"));
        Self {
            users: (0..options.users()).map(user).collect(),
            hawkgate: hawkgate.canonicalize().expect("the path of hawkgate"),
            server: options.server.clone().unwrap_or_else(store::program),
            provider: Provider::start(),
            identity,
            dir,
        }
    }

    /// A token of a user who has sent no request yet.
    pub(crate) fn new_user(&self) -> String {
        use std::sync::atomic::{AtomicU64, Ordering};
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        self.identity.token_of(&format!("new-user-{number}"))
    }

    /// Starts a server of the store.
    pub(crate) fn server(&self, more: &[&str]) -> Server {
        Server::start(&self.server, self.dir.path(), more)
    }

    /// Starts a sentinel that watches `master`.
    pub(crate) fn sentinel(&self, master: &Server) -> Server {
        Server::sentinel(&self.server, self.dir.path(), master)
    }

    pub(crate) async fn fleet(&self, processes: usize, setup: &Setup) -> Vec<Replica> {
        let mut replicas = Vec::new();
        for _ in 0..processes {
            replicas.push(self.replica(setup).await);
        }
        replicas
    }

    pub(crate) async fn replica(&self, setup: &Setup) -> Replica {
        let (http, admin) = (free_port(), free_port());
        let file = self.dir.path().join(format!("hawkgate-{http}.toml"));
        fs::write(&file, self.configuration(http, admin, setup)).expect("a configuration");
        let file = file.display().to_string();
        let show_errors = std::env::var_os("BENCH_LOG").is_some();
        let args = ["run", "--config", &file];
        let process = Process::start(&self.hawkgate, &args, show_errors);
        wait_until_ready(admin, START_LIMIT).await;
        Replica {
            process,
            address: SocketAddr::from(([127, 0, 0, 1], http)),
            admin,
        }
    }

    fn configuration(&self, http: u16, admin: u16, setup: &Setup) -> String {
        let file = |name: &str| quoted(&self.dir.path().join(name));
        let mut toml = format!(
            r#"
[server]
listen = ["127.0.0.1:{http}"]
admin = "127.0.0.1:{admin}"
threads = 1
drain = "5s"

[[issuer]]
name = "bench"
url = "{ISSUER}"
jwks_file = {jwks}
audiences = ["{AUDIENCE}"]

[[source]]
name = "bench"
kind = "token-exchange"
token_url = "http://127.0.0.1:{exchange}/token"
client_id = "bench"
client_secret = {{ file = {secret} }}

[[route]]
name = "bench"
path = "/api/"
upstream = "http://127.0.0.1:{upstream}"
issuers = ["bench"]
source = "bench"
"#,
            jwks = quoted(&self.identity.jwks),
            exchange = self.provider.exchange,
            upstream = self.provider.upstream,
            secret = file("client-secret"),
        );
        if let Some(limit) = setup.limit {
            let _ = write!(toml, "\n[limits]\nrate = {{ requests = {limit} }}\n");
        }
        if let Some(url) = &setup.store {
            let key = file("fleet-key");
            let _ = write!(
                toml,
                "\n[shared]\nurl = \"{url}\"\nkey = {{ file = {key} }}\n"
            );
        }
        toml
    }
}

impl Setup {
    pub(crate) fn with(server: &Server) -> Self {
        Self {
            store: Some(format!("redis://127.0.0.1:{}/0", server.port)),
            limit: None,
        }
    }
}

impl Replica {
    pub(crate) fn client(&self) -> Client {
        Client::new(self.address)
    }

    /// The value of a metric without labels.
    pub(crate) async fn metric(&self, name: &str) -> Option<f64> {
        let mut client = Client::new(SocketAddr::from(([127, 0, 0, 1], self.admin)));
        let answer = client.get("/metrics", "").await.ok()?;
        let line = answer.body.lines().find(|line| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(' '))
        })?;
        line.rsplit(' ').next()?.parse().ok()
    }
}

fn quoted(path: &Path) -> String {
    format!("{:?}", path.display().to_string())
}
