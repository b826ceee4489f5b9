//! The upstream and each proxy in front of it.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::load::Target;
use crate::process::Process;

/// hawkgate with token verification and Hawk signatures; verified tokens and credentials are
/// cached.
pub(crate) const FULL: &str = "hawkgate, token + Hawk";
/// hawkgate with a route that needs no credentials.
pub(crate) const ANONYMOUS: &str = "hawkgate, anonymous route";
/// pingora without hawkgate.
pub(crate) const PASS_THROUGH: &str = "pingora pass-through";
/// nginx with the same number of workers and an access log.
pub(crate) const NGINX: &str = "nginx proxy_pass";

/// Number of worker threads or processes of every proxy. It must be equal, because fewer workers
/// spend less CPU time per request: each handles more events per wake-up.
const WORKERS: usize = 2;

/// A running proxy.
pub(crate) struct Variant {
    /// Its name in the report.
    pub(crate) name: &'static str,
    /// Its process.
    pub(crate) process: Process,
    /// Resident memory in KiB before the first request.
    pub(crate) idle_rss: u64,
    target: Target,
}

impl Variant {
    /// Returns the request to send, and the address.
    pub(crate) fn target(&self) -> Target {
        self.target.clone()
    }
}

/// The running proxies and their upstream.
pub(crate) struct Proxies {
    /// The proxies, in the order in which they are measured.
    pub(crate) variants: Vec<Variant>,
    hawkgate: PathBuf,
    dir: TempDir,
    _upstream: Option<Process>,
}

const BODY_BYTES: usize = 1024;

impl Proxies {
    /// Builds the release binaries, and starts the upstream and every proxy.
    pub(crate) async fn start() -> Self {
        build();
        let dir = tempfile::tempdir().expect("a folder");
        let nginx = ["/usr/sbin/nginx", "/usr/bin/nginx"]
            .iter()
            .map(PathBuf::from)
            .find(|p| p.exists());
        let upstream = free_port();
        let upstream_process = nginx.as_ref().map(|nginx| {
            let server = upstream_server(upstream);
            start_nginx(nginx, dir.path(), "upstream", upstream, 1, &server)
        });
        if upstream_process.is_none() {
            eprintln!(
                "nginx is not installed, so no ratio to it can be measured (Debian: apt-get install nginx-light)"
            );
            tokio::spawn(rust_upstream(upstream));
        }
        wait_for(upstream).await;
        let release = target_dir().join("release");
        let mut proxies = Self {
            variants: Vec::new(),
            hawkgate: release.join("hawkgate"),
            dir,
            _upstream: upstream_process,
        };
        if let Some(nginx) = &nginx {
            let port = free_port();
            let server = proxy_server(port, upstream);
            let process = start_nginx(nginx, proxies.dir.path(), "proxy", port, WORKERS, &server);
            proxies.add(NGINX, process, port, request(None)).await;
        }
        let port = free_port();
        let process = Process::start(
            &release.join("examples/pass_through"),
            &[&port.to_string(), &upstream.to_string()],
        );
        proxies
            .add(PASS_THROUGH, process, port, request(None))
            .await;
        let token = write_identity(proxies.dir.path());
        for (name, token) in [(ANONYMOUS, None), (FULL, Some(token.as_str()))] {
            let (port, admin) = (free_port(), free_port());
            let config = proxies.dir.path().join(format!("{port}.toml"));
            fs::write(
                &config,
                hawkgate_config(port, admin, upstream, token.is_some(), proxies.dir.path()),
            )
            .expect("a configuration");
            let process = Process::start(
                &proxies.hawkgate,
                &["run", "--config", &config.display().to_string()],
            );
            wait_until_ready(admin).await;
            proxies.add(name, process, port, request(token)).await;
        }
        proxies
    }

    async fn add(&mut self, name: &'static str, process: Process, port: u16, request: Vec<u8>) {
        wait_for(port).await;
        let idle_rss = process.rss();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        self.variants.push(Variant {
            name,
            process,
            idle_rss,
            target: Target { address, request },
        });
    }

    /// Starts hawkgate five times with a JWKS file, and measures the time from spawn until
    /// `/readyz` returns 200.
    pub(crate) async fn time_to_ready(&self) -> Vec<Duration> {
        let mut times = Vec::new();
        for _ in 0..5 {
            let (port, admin) = (free_port(), free_port());
            let config = self.dir.path().join("start.toml");
            fs::write(
                &config,
                hawkgate_config(port, admin, 9, true, self.dir.path()),
            )
            .expect("a configuration");
            let start = Instant::now();
            let process = Process::start(
                &self.hawkgate,
                &["run", "--config", &config.display().to_string()],
            );
            wait_until_ready(admin).await;
            times.push(start.elapsed());
            drop(process);
        }
        times
    }
}

fn build() {
    let mut cargo = Command::new(env!("CARGO"));
    // Some build scripts (such as ring's, which reads `CARGO_PKG_*`) would consider the
    // variables that cargo sets for this benchmark a changed environment, and half of the
    // dependencies would be rebuilt each time.
    let prefixes = [
        "CARGO_MANIFEST_",
        "CARGO_PKG_",
        "CARGO_CRATE_",
        "CARGO_BIN_",
        "CARGO_PRIMARY_",
    ];
    for (name, _) in std::env::vars() {
        if prefixes.iter().any(|prefix| name.starts_with(prefix)) {
            cargo.env_remove(name);
        }
    }
    let status = cargo
        .args([
            "build",
            "--release",
            "--locked",
            "--bin",
            "hawkgate",
            "--example",
            "pass_through",
        ])
        .status()
        .expect("cargo");
    assert!(status.success(), "the release build failed");
}

fn target_dir() -> PathBuf {
    // …/target/release/deps/end_to_end-… (the bench profile builds into release/).
    let exe = std::env::current_exe().expect("the path of this benchmark");
    exe.ancestors()
        .nth(3)
        .expect("a target folder")
        .to_path_buf()
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}

async fn wait_for(port: u16) {
    for _ in 0..2000 {
        if TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("no server listens on port {port}");
}

async fn wait_until_ready(admin: u16) {
    for _ in 0..20_000 {
        if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", admin)).await {
            let _ = stream
                .write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                .await;
            let mut response = String::new();
            let _ = stream.read_to_string(&mut response).await;
            if response.starts_with("HTTP/1.1 200") {
                return;
            }
        }
        tokio::time::sleep(Duration::from_micros(500)).await;
    }
    panic!("hawkgate did not become ready");
}

fn request(token: Option<&str>) -> Vec<u8> {
    let authorization = token.map_or(String::new(), |t| format!("Authorization: Bearer {t}\r\n"));
    format!("GET /api/queue/v1/task/abc?x=1 HTTP/1.1\r\nHost: proxy.example.com\r\nUser-Agent: bench\r\nAccept: */*\r\n{authorization}\r\n").into_bytes()
}

fn start_nginx(
    nginx: &Path,
    dir: &Path,
    name: &str,
    port: u16,
    workers: usize,
    server: &str,
) -> Process {
    let dir = dir.join(format!("nginx-{name}-{port}"));
    fs::create_dir_all(&dir).expect("a folder");
    let temp: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("{kind}_temp_path {}/{kind};\n", dir.display()))
        .collect();
    let conf = format!(
        "worker_processes {workers};\ndaemon off;\npid {0}/pid;\nerror_log {0}/error.log;\nevents {{ worker_connections 4096; }}\nhttp {{\naccess_log off;\nkeepalive_requests 100000000;\n{temp}{server}\n}}\n",
        dir.display()
    );
    let path = dir.join("nginx.conf");
    fs::write(&path, conf).expect("an nginx configuration");
    Process::start(
        nginx,
        &[
            "-c",
            &path.display().to_string(),
            "-e",
            &format!("{}/start.log", dir.display()),
        ],
    )
}

fn upstream_server(port: u16) -> String {
    format!(
        "server {{ listen 127.0.0.1:{port}; default_type application/json; location / {{ return 200 '{}'; }} }}",
        "x".repeat(BODY_BYTES)
    )
}

fn proxy_server(port: u16, upstream: u16) -> String {
    format!(
        "upstream u {{ server 127.0.0.1:{upstream}; keepalive 64; keepalive_requests 100000000; }}\nserver {{ listen 127.0.0.1:{port}; access_log /dev/null combined; location / {{ proxy_pass http://u; proxy_http_version 1.1; proxy_set_header Connection \"\"; }} }}"
    )
}

/// The upstream that is used if nginx is not installed.
async fn rust_upstream(port: u16) {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port))
        .await
        .expect("the upstream's port");
    let response = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {BODY_BYTES}\r\n\r\n{}",
        "x".repeat(BODY_BYTES)
    );
    loop {
        let Ok((mut stream, _)) = listener.accept().await else {
            return;
        };
        let response = response.clone();
        tokio::spawn(async move {
            let mut buffer = [0; 16 * 1024];
            let mut filled = 0;
            while let Ok(read @ 1..) = stream.read(&mut buffer[filled..]).await {
                filled += read;
                if buffer[..filled].ends_with(b"\r\n\r\n") {
                    filled = 0;
                    if stream.write_all(response.as_bytes()).await.is_err() {
                        return;
                    }
                }
            }
        });
    }
}

/// Writes the JWKS and the secret, and returns a token that is valid for an hour.
fn write_identity(dir: &Path) -> String {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use jsonwebtoken::{Algorithm, EncodingKey, Header};

    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
    let point = pair.public_key_raw();
    let (x, y) = (
        URL_SAFE_NO_PAD.encode(&point[1..33]),
        URL_SAFE_NO_PAD.encode(&point[33..65]),
    );
    let jwks = serde_json::json!({"keys": [{"kty": "EC", "crv": "P-256", "kid": "k", "alg": "ES256", "use": "sig", "x": x, "y": y}]});
    fs::write(dir.join("jwks.json"), jwks.to_string()).expect("keys");
    fs::write(
        dir.join("secret"),
        "secret-of-this-benchmark-only-0123456789",
    )
    .expect("a secret");
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock")
        .as_secs();
    let claims = serde_json::json!({
        "iss": "https://bench.example.com/", "aud": "bench", "sub": "alice", "client_id": "bench",
        "iat": now, "exp": now + 3600, "scope": "openid",
    });
    let mut header = Header::new(Algorithm::ES256);
    header.typ = Some("at+jwt".into());
    header.kid = Some("k".into());
    jsonwebtoken::encode(
        &header,
        &claims,
        &EncodingKey::from_ec_der(&pair.serialize_der()),
    )
    .expect("a token")
}

fn hawkgate_config(port: u16, admin: u16, upstream: u16, full: bool, dir: &Path) -> String {
    let dir = dir.display();
    let access = if full {
        "issuers = [\"bench\"]\nsource = \"bench\"\nrequire_scopes = [\"openid\"]"
    } else {
        "anonymous = true"
    };
    let identity = if full {
        format!(
            r#"
[[issuer]]
name = "bench"
url = "https://bench.example.com/"
jwks_file = "{dir}/jwks.json"
audiences = ["bench"]

[[source]]
name = "bench"
kind = "taskcluster-static"
client_id = "bench/client"
access_token = {{ file = "{dir}/secret" }}
"#
        )
    } else {
        String::new()
    };
    format!(
        r#"
[server]
listen = ["127.0.0.1:{port}"]
admin = "127.0.0.1:{admin}"
threads = {WORKERS}
{identity}
[[route]]
name = "bench"
path = "/api/"
upstream = "http://127.0.0.1:{upstream}"
{access}
"#
    )
}
