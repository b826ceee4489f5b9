//! Outgoing proxies, additional CAs, and what providers send: `docs/networks.md`.

use std::io::Write as _;
use std::process::{Command, Stdio};

use flate2::Compression;
use flate2::write::GzEncoder;
use hawkgate::clock::{SharedClock, SystemClock};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::client::Request;
use crate::support::gateway::{ConfigDir, SERVER_CONFIG, TestGateway};
use crate::support::program::{Exited, StderrLines};
use crate::support::secrets::Secrets;
use crate::support::tinyproxy::Tinyproxy;
use crate::support::tls::TestCa;
use crate::support::tokens::{Key, claims};
use crate::support::upstream::{FakeUpstream, Protocol, ReceivedRequest, Reply};
use crate::support::wait::until;

const ISSUER: &str = "https://idp.test/";
const AUDIENCE: &str = "api";

/// An identity provider and an API at names that only the proxy can resolve.
struct Remote {
    ca: TestCa,
    key: Key,
    provider: FakeUpstream,
    api: FakeUpstream,
}

impl Remote {
    async fn start() -> Self {
        let ca = TestCa::new();
        let key = Key::ed25519("a");
        let jwks = json!({ "keys": [key.jwk()] }).to_string();
        let identity = ca.issue(&["idp.test"]);
        let provider = FakeUpstream::start(Protocol::tls(&identity, &["http/1.1"]), move |_| {
            Reply::new(200, jwks.clone())
        });
        let identity = ca.issue(&["api.test"]);
        let tls = Protocol::tls(&identity, &["h2", "http/1.1"]);
        let api = FakeUpstream::start(tls, |_| Reply::new(200, "from the API")).await;
        Self {
            provider: provider.await,
            ca,
            key,
            api,
        }
    }

    fn token(&self) -> String {
        let now = SystemClock::shared().now().as_secs();
        self.key.token("EdDSA", &claims(ISSUER, AUDIENCE, now))
    }

    /// An issuer whose keys are at the provider, and a route with these keys to `upstream`.
    fn config(&self, upstream: &str, route_keys: &str) -> String {
        format!(
            r#"
[[issuer]]
name = "idp"
url = "{ISSUER}"
jwks_url = "https://idp.test:{}/jwks"
audiences = ["{AUDIENCE}"]

[[route]]
name = "api"
path = "/"
upstream = "{upstream}"
issuers = ["idp"]
{route_keys}
"#,
            self.provider.port()
        )
    }

    /// With these keys in `[network]`, whatever the environment says.
    async fn gateway(&self, network: &str, upstream: &str) -> TestGateway {
        self.gateway_with(network, upstream, "").await
    }

    async fn gateway_with(&self, network: &str, upstream: &str, route_keys: &str) -> TestGateway {
        let ca = self.ca.file();
        let list = if network.contains("no_proxy") {
            ""
        } else {
            "no_proxy = []"
        };
        let network = format!("[network]\nca = \"{}\"\n{list}\n{network}", ca.display());
        let config = self.config(upstream, route_keys);
        TestGateway::start(&format!("{network}\n{config}")).await
    }

    /// Sends a request with a token. Returns the status and the reason of a refusal.
    async fn answer(&self, gateway: &TestGateway) -> (u16, Option<String>) {
        let request = Request::get("/x").bearer(&self.token());
        let response = gateway.send(&request).await;
        (response.status, response.error_reason().map(str::to_owned))
    }
}

async fn plain() -> FakeUpstream {
    FakeUpstream::http1(|_| Reply::ok()).await
}

#[tokio::test]
async fn an_identity_provider_behind_a_proxy_is_reached() {
    let (remote, upstream) = (Remote::start().await, plain().await);
    let proxy = Tinyproxy::start(&["idp.test"]).await;
    let keys = format!("proxy = \"{}\"", proxy.url());
    let gateway = remote.gateway(&keys, &upstream.url()).await;
    assert_eq!(remote.answer(&gateway).await, (200, None));
    let provider = format!("idp.test:{}", remote.provider.port());
    assert!(proxy.tunnels(&provider) >= 1, "{:?}", proxy.requests());
    assert_eq!(proxy.tunnels(&format!("127.0.0.1:{}", upstream.port())), 0);

    // Reached directly, its name does not resolve.
    let keys = format!("{keys}\nno_proxy = [\"test\"]");
    let gateway = remote.gateway(&keys, &upstream.url()).await;
    assert_eq!(remote.answer(&gateway).await.0, 503);
    until("the reason in the log", async || {
        gateway.log().contains("the name cannot be resolved")
    })
    .await;
}

#[tokio::test]
async fn a_proxys_password_is_sent_and_never_shown() {
    let (remote, upstream) = (Remote::start().await, plain().await);
    let proxy = Tinyproxy::start_with(&["idp.test"], "BasicAuth hawkgate hunter2hunter2").await;
    let files = ConfigDir::new();
    let password = files.write("password", "hunter2hunter2\n");
    let credentials = format!(
        "proxy = \"{}\"\nproxy_username = \"hawkgate\"\nproxy_password = {{ file = \"{}\" }}\n",
        proxy.url(),
        password.display()
    );
    let gateway = remote.gateway(&credentials, &upstream.url()).await;
    assert_eq!(remote.answer(&gateway).await, (200, None));
    let secrets = Secrets::default();
    secrets.add("the proxy's password", "hunter2hunter2");
    secrets.add(
        "the proxy's credentials",
        "aGF3a2dhdGU6aHVudGVyMmh1bnRlcjI=",
    );
    secrets.assert_absent("the log", &gateway.log());

    let refused = async |keys: &str, problem: &str| {
        let gateway = remote.gateway(keys, &upstream.url()).await;
        assert_eq!(remote.answer(&gateway).await.0, 503);
        let expected = format!("the outgoing proxy {} {problem}", proxy.url());
        until(problem, async || gateway.log().contains(&expected)).await;
    };
    let without = format!("proxy = \"{}\"", proxy.url());
    refused(&without, "requires valid credentials (407)").await;
    // tinyproxy answers 401 to wrong ones.
    std::fs::write(&password, "another-password").unwrap();
    refused(&credentials, "opened no tunnel to it").await;
}

#[tokio::test]
async fn a_proxy_that_is_down_or_refuses_is_named() {
    let (remote, upstream) = (Remote::start().await, plain().await);
    let down = plain().await;
    down.down().await;
    let keys = format!("proxy = \"{}\"", down.url());
    let gateway = remote.gateway(&keys, &upstream.url()).await;
    assert_eq!(remote.answer(&gateway).await.0, 503);
    let expected = format!(
        "the outgoing proxy {} cannot be reached: connection refused",
        down.url()
    );
    until("the reason in the log", async || {
        gateway.log().contains(&expected)
    })
    .await;

    // It cannot resolve the name either.
    let proxy = Tinyproxy::start(&[]).await;
    let keys = format!("proxy = \"{}\"", proxy.url());
    let gateway = remote.gateway(&keys, &upstream.url()).await;
    assert_eq!(remote.answer(&gateway).await.0, 503);
    let expected = format!("the outgoing proxy {} opened no tunnel to it", proxy.url());
    until("the reason in the log", async || {
        gateway.log().contains(&expected)
    })
    .await;
}

#[tokio::test]
async fn upstreams_are_reached_through_the_proxy_only_on_demand() {
    let remote = Remote::start().await;
    let proxy = Tinyproxy::start(&["idp.test", "api.test"]).await;
    let upstream = format!("https://api.test:{}", remote.api.port());
    let keys = format!("proxy = \"{}\"", proxy.url());
    let gateway = remote.gateway(&keys, &upstream).await;
    assert_eq!(remote.answer(&gateway).await.0, 502);
    assert_eq!(proxy.tunnels(&format!("api.test:{}", remote.api.port())), 0);

    let keys = format!("{keys}\nproxy_upstreams = true");
    for route_keys in ["", "http2 = true"] {
        let before = remote.api.attempts().len();
        let gateway = remote.gateway_with(&keys, &upstream, route_keys).await;
        for _ in 0..3 {
            assert_eq!(remote.answer(&gateway).await, (200, None), "{route_keys}");
        }
        let request: ReceivedRequest = remote.api.attempts()[before].request.clone();
        let protocol = if route_keys.is_empty() {
            "HTTP/1.1"
        } else {
            "HTTP/2"
        };
        assert_eq!(request.protocol, protocol);
        assert_eq!(request.authority, format!("api.test:{}", remote.api.port()));
    }
    // Connections are kept, in each worker.
    let connections = remote.api.connections();
    assert!(connections < 6, "{connections}");
    let authority = format!("api.test:{}", remote.api.port());
    assert_eq!(proxy.tunnels(&authority), connections);
}

#[tokio::test]
async fn plain_upstreams_are_tunnelled_too_and_see_the_signed_target() {
    let remote = Remote::start().await;
    let proxy = Tinyproxy::start(&["idp.test", "plain.test"]).await;
    let upstream = plain().await;
    let url = format!("http://plain.test:{}", upstream.port());
    let keys = format!("proxy = \"{}\"\nproxy_upstreams = true", proxy.url());
    let gateway = remote
        .gateway_with(&keys, &url, "allow_plaintext = true")
        .await;
    assert_eq!(remote.answer(&gateway).await, (200, None));
    let attempts = upstream.attempts();
    assert_eq!(attempts[0].request.target, "/x");
    assert!(attempts[0].request.header("proxy-authorization").is_none());
    assert_eq!(proxy.tunnels(&format!("plain.test:{}", upstream.port())), 1);
}

#[tokio::test]
async fn an_upstream_behind_a_proxy_that_refuses_is_502_and_the_proxy_is_named() {
    let remote = Remote::start().await;
    let proxy = Tinyproxy::start(&["idp.test"]).await;
    let keys = format!("proxy = \"{}\"\nproxy_upstreams = true", proxy.url());
    let gateway = remote.gateway(&keys, "https://nowhere.test").await;
    let answer = remote.answer(&gateway).await;
    assert_eq!(answer, (502, Some("upstream_unreachable".into())));
    let expected = format!(
        "the outgoing proxy {} answered CONNECT with status 5",
        proxy.url()
    );
    until("the reason in the log", async || {
        gateway.log().contains(&expected)
    })
    .await;
}

/// `hawkgate` with only these variables of the environment for proxies.
fn hawkgate(command: &str, files: &ConfigDir, variables: &[(&str, &str)]) -> Command {
    let mut process = Command::new(env!("CARGO_BIN_EXE_hawkgate"));
    process.args([command, "--config"]);
    process.arg(files.path("hawkgate.toml"));
    for name in ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"] {
        process.env_remove(name).env_remove(name.to_lowercase());
    }
    process.envs(variables.iter().copied()).stdin(Stdio::null());
    process
}

#[tokio::test]
async fn the_environment_names_the_proxy_which_check_and_run_show() {
    let (remote, upstream) = (Remote::start().await, plain().await);
    let proxy = Tinyproxy::start_with(&["idp.test"], "BasicAuth hawkgate hunter2hunter2").await;
    let with_credentials = proxy.url().replace("//", "//hawkgate:hunter2hunter2@");
    let files = ConfigDir::new();
    let config = format!("{SERVER_CONFIG}{}", remote.config(&upstream.url(), ""));
    let ca = format!("ca = \"{}\"\n", remote.ca.file().display());
    let config = config.replace("jwks_url", &format!("{ca}jwks_url"));
    files.write("hawkgate.toml", config);
    let variables = [
        ("HTTPS_PROXY", with_credentials.as_str()),
        ("NO_PROXY", "localhost, 127.0.0.1 .svc"),
    ];
    let line = format!(
        "outgoing proxy: {} (HTTPS_PROXY) for https, none for http; not for upstreams, not for localhost, svc, 127.0.0.1",
        proxy.url()
    );

    let checked = Exited::run(&mut hawkgate("check", &files, &variables));
    assert_eq!(
        checked.stdout,
        format!("{line}\nvalid: 1 route, 1 issuer, 0 sources\n")
    );

    // Although it does not read the secrets that the file names.
    let authority = format!("idp.test:{}", remote.provider.port());
    let token = files.write("token", remote.token());
    let mut explain = hawkgate("explain", &files, &variables);
    explain.arg("--token-file").arg(token);
    let explained = tokio::task::spawn_blocking(move || Exited::run(&mut explain));
    let explained = explained.await.unwrap();
    assert!(
        explained.stdout.contains("verified by issuer idp"),
        "{}",
        explained.stdout
    );
    let before = proxy.tunnels(&authority);
    assert!(before >= 1);

    let mut child = hawkgate("run", &files, &variables)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = StderrLines::of(&mut child);
    let shown = lines.wait_for("outgoing proxy");
    assert!(
        shown.contains(&line) && !shown.contains("hunter2"),
        "{shown}"
    );
    let up = lines.wait_for("hawkgate is up");
    assert!(!up.contains("hunter2"));
    until("the keys to be fetched", async || {
        proxy.tunnels(&authority) > before && !remote.provider.attempts().is_empty()
    })
    .await;
    child.kill().unwrap();
    child.wait().unwrap();
    for line in lines.finish() {
        assert!(!line.contains("hunter2"), "{line}");
    }
}

#[test]
fn a_variable_that_names_no_usable_proxy_is_refused_by_check_and_run() {
    let files = ConfigDir::new();
    let open = "[[route]]\nname = \"a\"\npath = \"/\"\nupstream = \"http://127.0.0.1:1\"\nanonymous = true\n";
    let write =
        |network: &str| files.write("hawkgate.toml", format!("{SERVER_CONFIG}{network}{open}"));
    write("");
    let variables = [("ALL_PROXY", "socks5://user:hunter2@proxy.example:1080")];
    for command in ["check", "run"] {
        let exited = Exited::run(&mut hawkgate(command, &files, &variables));
        let output = exited.stdout + &exited.stderr;
        assert_eq!(exited.code, 1, "{output}");
        assert!(
            output.contains("the environment variable ALL_PROXY is a SOCKS proxy"),
            "{output}"
        );
        assert!(!output.contains("hunter2"), "{output}");
    }
    // A proxy in the file replaces it.
    write("[network]\nproxy = \"none\"\n");
    let checked = Exited::run(&mut hawkgate("check", &files, &variables));
    assert_eq!(checked.stdout, "valid: 1 route, 0 issuers, 0 sources\n");
    // Entries of NO_PROXY that match nothing are named.
    write("");
    let variables = [
        ("https_proxy", "http://p.example"),
        ("no_proxy", "a.example,*.b.example"),
    ];
    let checked = Exited::run(&mut hawkgate("check", &files, &variables)).stdout;
    assert!(
        checked.contains("\"*.b.example\" in no_proxy has a wildcard"),
        "{checked}"
    );
}

#[tokio::test]
async fn additional_cas_are_trusted_beside_the_platforms_unless_a_section_has_its_own() {
    let (remote, upstream) = (Remote::start().await, plain().await);
    let proxy = Tinyproxy::start(&["idp.test"]).await;
    let keys = format!("proxy = \"{}\"", proxy.url());
    let gateway = remote.gateway(&keys, &upstream.url()).await;
    assert_eq!(remote.answer(&gateway).await, (200, None));
    // The issuer's own CA replaces it.
    let other = TestCa::new();
    let config = remote.config(&upstream.url(), "");
    let own = format!("ca = \"{}\"\njwks_url", other.file().display());
    let network = format!(
        "[network]\nca = \"{}\"\nno_proxy = []\n{keys}\n",
        remote.ca.file().display()
    );
    let config = format!("{network}{}", config.replace("jwks_url", &own));
    let gateway = TestGateway::start(&config).await;
    assert_eq!(remote.answer(&gateway).await.0, 503);
}

/// A gateway whose issuer `idp` is discovered at `provider`.
async fn discovering(provider: &FakeUpstream, upstream: &FakeUpstream, keys: &str) -> TestGateway {
    let (issuer, upstream) = (provider.url(), upstream.url());
    let text = format!(
        r#"
[[issuer]]
name = "idp"
url = "{issuer}"
audiences = ["{AUDIENCE}"]
{keys}
[[route]]
name = "api"
path = "/"
upstream = "{upstream}"
issuers = ["idp"]
"#
    );
    TestGateway::start(&text).await
}

/// An issuer whose documents `encode` turns into replies.
async fn provider(
    key: &Key,
    encode: impl Fn(&ReceivedRequest, &str) -> Reply + Send + Sync + 'static,
) -> FakeUpstream {
    let jwks = json!({ "keys": [key.jwk()] }).to_string();
    FakeUpstream::http1(move |request| {
        let own = format!("http://{}", request.authority);
        let metadata = json!({ "issuer": own, "jwks_uri": format!("{own}/jwks") });
        match request.path() {
            "/jwks" => encode(request, &jwks),
            "/.well-known/openid-configuration" => encode(request, &metadata.to_string()),
            _ => Reply::new(404, ""),
        }
    })
    .await
}

async fn status_at(gateway: &TestGateway, key: &Key, issuer: &str, clock: &SharedClock) -> u16 {
    let claims = claims(issuer, AUDIENCE, clock.now().as_secs());
    let request = Request::get("/x").bearer(&key.token("EdDSA", &claims));
    gateway.send(&request).await.status
}

#[tokio::test]
async fn what_providers_send_may_be_compressed_and_begin_with_a_byte_order_mark() {
    let key = Key::ed25519("a");
    let provider = provider(&key, |_, text| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(b"\xef\xbb\xbf").unwrap();
        encoder.write_all(text.as_bytes()).unwrap();
        Reply::new(200, encoder.finish().unwrap())
            .header("content-encoding", "gzip")
            .header("content-type", "application/json; charset=utf-8")
    })
    .await;
    let upstream = plain().await;
    let gateway = discovering(&provider, &upstream, "").await;
    let clock = SystemClock::shared();
    assert_eq!(
        status_at(&gateway, &key, &provider.url(), &clock).await,
        200
    );
}

#[tokio::test]
async fn keys_behind_a_bearer_token_are_fetched_with_keys_token() {
    let key = Key::ed25519("a");
    let provider = provider(&key, |request, text| {
        match request.header("authorization") {
            Some("Bearer service-account-token" | "Bearer rotated-account-token") => {
                Reply::new(200, text.to_owned())
            }
            _ => Reply::new(401, ""),
        }
    })
    .await;
    let upstream = plain().await;
    let clock = SystemClock::shared();
    let gateway = discovering(&provider, &upstream, "").await;
    assert_eq!(
        status_at(&gateway, &key, &provider.url(), &clock).await,
        503
    );
    until("advice in the log", async || {
        gateway.log().contains("set keys_token")
    })
    .await;

    let files = ConfigDir::new();
    let token = files.write("token", "service-account-token\n");
    let keys = format!("keys_token = {{ file = \"{}\" }}", token.display());
    let gateway = discovering(&provider, &upstream, &keys).await;
    assert_eq!(
        status_at(&gateway, &key, &provider.url(), &clock).await,
        200
    );
    assert!(!gateway.log().contains("service-account-token"));
}

#[tokio::test]
async fn keys_token_goes_to_no_other_origin() {
    let key = Key::ed25519("a");
    let jwks = json!({ "keys": [key.jwk()] }).to_string();
    let other = FakeUpstream::http1(move |_| Reply::new(200, jwks.clone())).await;
    let elsewhere = format!("{}/jwks", other.url());
    let provider = FakeUpstream::http1(move |request| {
        let own = format!("http://{}", request.authority);
        Reply::new(
            200,
            json!({ "issuer": own, "jwks_uri": elsewhere }).to_string(),
        )
    })
    .await;
    let files = ConfigDir::new();
    let token = files.write("token", "service-account-token");
    let keys = format!("keys_token = {{ file = \"{}\" }}", token.display());
    let upstream = plain().await;
    let gateway = discovering(&provider, &upstream, &keys).await;
    let clock = SystemClock::shared();
    assert_eq!(
        status_at(&gateway, &key, &provider.url(), &clock).await,
        200
    );
    let sent = |server: &FakeUpstream| {
        let mut all = server.attempts().into_iter();
        all.any(|a| a.request.header("authorization").is_some())
    };
    assert!(sent(&provider) && !sent(&other));
}

#[tokio::test]
async fn listeners_issuers_and_upstreams_may_have_ipv6_addresses() {
    let key = Key::ed25519("a");
    let jwks = json!({ "keys": [key.jwk()] }).to_string();
    let listener = TcpListener::bind("[::1]:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let jwks = jwks.clone();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                let length = jwks.len();
                let reply = format!(
                    "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{jwks}"
                );
                stream.write_all(reply.as_bytes()).await.unwrap();
            });
        }
    });
    let text = format!(
        r#"
[server]
listen = ["[::1]:0"]
admin = "[::1]:0"
drain_delay = "0s"
[[issuer]]
name = "idp"
url = "{ISSUER}"
jwks_url = "http://[::1]:{port}/jwks"
audiences = ["{AUDIENCE}"]
[[route]]
name = "api"
path = "/"
upstream = "http://[::1]:{port}"
issuers = ["idp"]
"#
    );
    let gateway = TestGateway::start_with(&text, ConfigDir::new(), SystemClock::shared()).await;
    let clock = SystemClock::shared();
    assert_eq!(status_at(&gateway, &key, ISSUER, &clock).await, 200);
    assert_eq!(gateway.admin("/readyz").await.status, 200);
}
