//! `hawkgate check` and `hawkgate run` judge every file and variable alike, before anything listens.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

use hawkgate::clock::{SystemClock, UnixMillis};
use hawkgate::hawk::certificate::Mint;
use hawkgate::secret::SecretString;

use crate::support::gateway::ConfigDir;
use crate::support::program::{Exited, StderrLines};
use crate::support::tls::TestCa;

/// Names every kind of file that a configuration can name.
const CONFIG: &str = r#"
[server]
listen = [
  { address = "127.0.0.1:0", tls = { cert = "cert.pem", key = "key.pem", client_ca = "client-ca.pem" } },
  "unix:hawkgate.sock",
]
admin = "127.0.0.1:0"

[[issuer]]
name = "file"
url = "https://file.example.com"
audiences = ["x"]
jwks_file = "jwks.json"

[[issuer]]
name = "remote"
url = "https://remote.example.com"
jwks_url = "https://remote.example.com/jwks"
audiences = ["x"]
ca = "issuer-ca.pem"
keys_token = { file = "keys-token" }

[[issuer]]
name = "secret"
kind = "shared-secret"
url = "https://secret.example.com"
audiences = ["x"]
secret = { file = "hmac" }

[[source]]
name = "static"
kind = "taskcluster-static"
client_id = "project/x"
access_token = { file = "token" }
certificate = { file = "certificate" }

[[source]]
name = "mint"
kind = "taskcluster-mint"
client_id = "project/issuer"
access_token = { file = "issuer-token" }
client_name = "sso/{sub}"
scopes = ["queue:*"]

[[source]]
name = "oauth"
kind = "client-credentials"
token_url = "https://oauth.example.com/token"
client_id = "x"
private_key = { file = "oauth-key.pem" }
ca = "source-ca.pem"

[[route]]
name = "a"
path = "/a/"
upstream = "https://127.0.0.1:1"
ca = "upstream-ca.pem"
issuers = ["file"]
source = "static"

[[route]]
name = "b"
path = "/b/"
upstream = "https://127.0.0.1:1"
issuers = ["remote"]
source = "mint"

[[route]]
name = "c"
path = "/c/"
upstream = "https://127.0.0.1:1"
issuers = ["secret"]
source = "oauth"

[[issuer]]
name = "opaque"
kind = "introspection"
url = "https://opaque.example.com"
introspection_url = "https://opaque.example.com/introspect"
audiences = ["x"]
client_id = "x"
client_secret = { file = "client-secret" }
ca = "introspection-ca.pem"

[[session]]
name = "web"
issuer = "remote"
client_id = "x"
cookie_key = { file = "cookie-key" }
previous_cookie_key = { file = "previous-cookie-key" }
origin = "http://localhost:8080"

[[route]]
name = "d"
path = "/d/"
upstream = "https://127.0.0.1:1"
issuers = ["opaque"]
session = "web"

[network]
proxy = "http://127.0.0.1:1"
no_proxy = []
proxy_username = "x"
proxy_password = { file = "proxy-password" }
ca = "network-ca.pem"

[trace]
endpoint = "https://127.0.0.1:1/v1/traces"
ca = "trace-ca.pem"
headers = { "x-key" = { file = "trace-key" } }
"#;

/// What is in place of a file.
enum Input {
    Content(Vec<u8>),
    Missing,
    Folder,
    Pipe,
}

fn text(content: impl Into<String>) -> Input {
    Input::Content(content.into().into_bytes())
}

/// Valid files for [`CONFIG`].
struct Files {
    dir: ConfigDir,
    ca: String,
    other_key: String,
    key: String,
    certificate: String,
}

fn certificate(expiry: UnixMillis) -> String {
    let minted = Mint {
        issuer: "project/issuer",
        issuer_token: &SecretString::from("issuer-access-token"),
        client_id: "project/x",
        scopes: &["queue:*".to_owned()],
        start: UnixMillis(expiry.0 - 3_600_000),
        expiry,
    };
    let credentials = minted.sign().unwrap();
    credentials.certificate.unwrap().as_json().to_owned()
}

impl Files {
    fn new() -> Self {
        let dir = ConfigDir::new();
        let authority = TestCa::new();
        let ca = std::fs::read_to_string(authority.file()).unwrap();
        let (server, other) = (authority.issue(&["a.test"]), authority.issue(&["b.test"]));
        let soon = UnixMillis(SystemClock::shared().now().0 + 3_600_000);
        let files = Self {
            dir,
            ca,
            other_key: other.key_pem,
            key: server.key_pem,
            certificate: certificate(soon),
        };
        let write = |name: &str, content: &str| files.dir.write(name, content);
        for name in [
            "client",
            "issuer",
            "source",
            "upstream",
            "trace",
            "introspection",
            "network",
        ] {
            write(&format!("{name}-ca.pem"), &files.ca);
        }
        write("hawkgate.toml", CONFIG);
        write("cert.pem", &server.cert_pem);
        write("key.pem", &files.key);
        write("oauth-key.pem", &files.other_key);
        write("hmac", "0123456789abcdef0123456789abcdef");
        write("token", "access-token");
        write("issuer-token", "issuer-access-token");
        write("certificate", &files.certificate);
        write("trace-key", "k");
        write("keys-token", "token");
        write("client-secret", "secret");
        write("proxy-password", "password");
        write("cookie-key", "1+g+KKBLU35kQkVGsUyvm2e60vKNq85oEW4NNyMZ+gA=");
        write(
            "previous-cookie-key",
            "baBjNSjeqgFE57BYMV8LdT7AuUUWOnK/lqDRgYD53g0=",
        );
        write("jwks.json", JWKS);
        files
    }

    /// Puts `input` in place of the file `name`, calls `judge`, and restores the file.
    fn with<T>(&self, name: &str, input: &Input, judge: impl FnOnce() -> T) -> T {
        let path = self.dir.path(name);
        let valid = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        match input {
            Input::Content(content) => std::fs::write(&path, content).unwrap(),
            Input::Missing => {}
            Input::Folder => std::fs::create_dir(&path).unwrap(),
            Input::Pipe => {
                let made = Command::new("mkfifo").arg(&path).status().unwrap();
                assert!(made.success());
            }
        }
        let judged = judge();
        if path.is_dir() {
            std::fs::remove_dir(&path).unwrap();
        } else if path.exists() {
            std::fs::remove_file(&path).unwrap();
        }
        std::fs::write(&path, valid).unwrap();
        judged
    }

    fn names(&self) -> BTreeSet<String> {
        let folder = self.dir.path("");
        let entries = std::fs::read_dir(folder).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }
}

const JWKS: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

fn hawkgate(command: &str, config: &Path) -> Command {
    let mut process = Command::new(env!("CARGO_BIN_EXE_hawkgate"));
    process.args([command, "--config"]).arg(config);
    process.stdin(Stdio::null());
    process
}

/// Runs `hawkgate check`. Returns what it prints, as an error if it refuses.
fn check(config: &Path) -> Result<String, String> {
    let exited = Exited::run(&mut hawkgate("check", config));
    match exited.code {
        0 => Ok(exited.stdout),
        1 => Err(exited.stdout),
        code => panic!("exit code {code}: {}", exited.stderr),
    }
}

/// Runs `hawkgate run` until it listens, in which case it is killed, or exits. Returns what it logs,
/// as an error if it exits.
fn run(config: &Path) -> Result<String, String> {
    let mut child = hawkgate("run", config)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = StderrLines::of(&mut child);
    let mut log = String::new();
    while let Some(line) = lines.next() {
        log.push_str(&line);
        log.push('\n');
        if line.contains("hawkgate is up") {
            child.kill().unwrap();
            child.wait().unwrap();
            return Ok(log);
        }
    }
    assert_eq!(child.wait().unwrap().code(), Some(1), "{log}");
    Err(log)
}

/// Asserts that both judge the same, and returns their verdict.
fn judge(config: &Path, what: &str) -> Result<(), String> {
    match (check(config), run(config)) {
        (Ok(_), Ok(_)) => Ok(()),
        (Err(checked), Err(run)) => {
            let lines: Vec<serde_json::Value> = run
                .lines()
                .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{what}: {line}")))
                .collect();
            let messages: Vec<_> = lines.iter().map(|line| &line["message"]).collect();
            assert_eq!(messages, checked.lines().collect::<Vec<_>>(), "{what}");
            Err(checked)
        }
        (checked, run) => panic!("{what}: check says {checked:?}, run {run:?}"),
    }
}

/// Inputs that are unusable in place of any file, with a part of the message.
fn unusable() -> Vec<(&'static str, Input, &'static str)> {
    vec![
        ("missing", Input::Missing, "cannot be read"),
        ("folder", Input::Folder, "is not a regular file"),
        ("pipe", Input::Pipe, "is not a regular file"),
        ("empty", text(""), ""),
        ("UTF-16", Input::Content(b"\xff\xfe{\0}\0".into()), "UTF-16"),
        (
            "a huge file",
            Input::Content(vec![b'x'; 5 * 1024 * 1024]),
            "is larger than",
        ),
    ]
}

#[test]
fn the_valid_configuration_is_accepted_by_both_and_check_changes_nothing() {
    let files = Files::new();
    let config = files.dir.path("hawkgate.toml");
    let before = files.names();
    let checked = check(&config);
    let expected = "outgoing proxy: http://127.0.0.1:1 ([network] proxy); not for upstreams\n\
                    valid: 4 routes, 4 issuers, 3 sources, 1 session\n";
    assert_eq!(checked.unwrap(), expected);
    assert_eq!(files.names(), before);
    run(&config).unwrap();
}

#[test]
fn every_file_is_judged_alike() {
    let files = Files::new();
    let config = files.dir.path("hawkgate.toml");
    for (name, key) in [
        ("cert.pem", "tls.cert"),
        ("key.pem", "tls.key"),
        ("client-ca.pem", "tls.client_ca"),
        ("jwks.json", "jwks_file"),
        ("issuer-ca.pem", "ca"),
        ("hmac", "secret"),
        ("token", "access_token"),
        ("certificate", "certificate"),
        ("issuer-token", "access_token"),
        ("oauth-key.pem", "private_key"),
        ("source-ca.pem", "ca"),
        ("upstream-ca.pem", "ca"),
        ("trace-ca.pem", "ca"),
        ("trace-key", "headers.x-key"),
        ("keys-token", "keys_token"),
        ("client-secret", "client_secret"),
        ("introspection-ca.pem", "ca"),
        ("cookie-key", "cookie_key"),
        ("previous-cookie-key", "previous_cookie_key"),
        ("proxy-password", "proxy_password"),
        ("network-ca.pem", "ca"),
    ] {
        for (input, content, message) in unusable() {
            let what = format!("{name}: {input}");
            let verdict = files.with(name, &content, || judge(&config, &what));
            let refused = verdict.expect_err(&what);
            assert!(refused.contains(message), "{what}: {refused}");
            assert!(refused.contains(&format!("{key}\": ")), "{what}: {refused}");
        }
    }
}

/// A file, what is in place of it, and a part of the message if that is refused.
type Case<'a> = (&'a str, Input, Option<&'a str>);

/// Asserts what both make of each case, and that no message quotes a secret.
fn judge_all(files: &Files, cases: Vec<Case<'_>>) {
    let config = files.dir.path("hawkgate.toml");
    for (index, (name, content, expected)) in cases.into_iter().enumerate() {
        let what = format!("case {index}, {name}");
        let verdict = files.with(name, &content, || judge(&config, &what));
        match (expected, verdict) {
            (None, Ok(())) => {}
            (Some(message), Err(refused)) => {
                assert!(refused.contains(message), "{what}: {refused}");
                for secret in ["acc3", "xqueue", &files.certificate] {
                    assert!(!refused.contains(secret), "{what}: {refused}");
                }
            }
            (_, verdict) => panic!("{what}: {verdict:?}"),
        }
    }
}

#[test]
fn certificates_are_judged_alike() {
    let files = Files::new();
    let ca = files.ca.as_str();
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let der = [&[0x30, 0x82, 1, 10][..], &[0; 266]].concat();
    let trusted = ca.replace("CERTIFICATE", "TRUSTED CERTIFICATE");
    let (crlf, bom) = (ca.replace('\n', "\r\n"), format!("\u{feff}{ca}"));
    let one_broken = || text(format!("{ca}{broken}"));
    let none = Some("holds no PEM certificate");
    judge_all(
        &files,
        vec![
            ("upstream-ca.pem", text(format!("{ca}{ca}")), None),
            ("issuer-ca.pem", text(crlf), None),
            ("source-ca.pem", text(format!("# my CA\n{ca}\nend")), None),
            ("issuer-ca.pem", one_broken(), Some("malformed")),
            ("source-ca.pem", one_broken(), Some("malformed")),
            ("upstream-ca.pem", one_broken(), Some("malformed")),
            ("trace-ca.pem", one_broken(), Some("malformed")),
            ("network-ca.pem", one_broken(), Some("malformed")),
            ("introspection-ca.pem", one_broken(), Some("malformed")),
            (
                "network-ca.pem",
                text(bom.as_str()),
                Some("byte order mark"),
            ),
            ("client-ca.pem", one_broken(), Some("malformed")),
            ("cert.pem", one_broken(), Some("malformed")),
            ("issuer-ca.pem", text(bom.as_str()), Some("byte order mark")),
            ("upstream-ca.pem", text(bom), Some("byte order mark")),
            ("source-ca.pem", text(files.key.as_str()), none),
            ("upstream-ca.pem", text(trusted), none),
            (
                "upstream-ca.pem",
                text(format!("{ca}  {ca}")),
                Some("of which 1 can"),
            ),
            ("trace-ca.pem", Input::Content(der), Some("DER")),
        ],
    );
}

#[test]
fn keys_are_judged_alike() {
    let files = Files::new();
    let encrypted = files.key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    let other = files.other_key.as_str();
    let secret_jwk = JWKS.replace("\"x\"", "\"d\":\"AA\",\"x\"");
    let encryption_jwk = JWKS.replace("\"x\"", "\"use\":\"enc\",\"x\"");
    let (no_jwks, no_pem) = (Some("is not a JSON object"), Some("PEM private key"));
    judge_all(
        &files,
        vec![
            ("key.pem", text(files.ca.as_str()), no_pem),
            (
                "key.pem",
                text(other),
                Some("does not match the certificate"),
            ),
            ("key.pem", text(encrypted), Some("encrypted")),
            ("oauth-key.pem", text(files.ca.as_str()), no_pem),
            ("jwks.json", text("junk"), no_jwks),
            ("jwks.json", text("\"keys\""), no_jwks),
            (
                "jwks.json",
                text(JWKS.replace("\"keys\"", "\"kids\"")),
                no_jwks,
            ),
            ("jwks.json", text("{\"keys\":[]}"), Some("has no keys")),
            (
                "jwks.json",
                text(secret_jwk),
                Some("key \"a\" is a private key"),
            ),
            (
                "jwks.json",
                text(encryption_jwk),
                Some("key \"a\" is not for verifying"),
            ),
            ("hmac", text("0123456789"), Some("secret")),
            ("trace-key", text("a\nb"), Some("header")),
            ("keys-token", text("a b"), Some("bearer token")),
            ("keys-token", text("a\nb"), Some("bearer token")),
            ("cookie-key", text("short"), Some("cookie_key")),
        ],
    );
}

#[test]
fn credentials_of_taskcluster_are_judged_alike() {
    let files = Files::new();
    let certificate = files.certificate.as_str();
    let with = |from: &str, to: &str| {
        assert!(certificate.contains(from), "{certificate}");
        text(certificate.replacen(from, to, 1))
    };
    let long = format!("\"queue:{}\"", "x".repeat(4096));
    judge_all(
        &files,
        vec![
            ("token", text("access-token\n"), None),
            ("token", text("acc3ss token"), Some("white space")),
            ("token", text("acc3ss-token\nsecond"), Some("line break")),
            ("token", text("acc3éss-token"), Some("ASCII")),
            ("issuer-token", text("acc3ss token"), Some("white space")),
            ("certificate", text("ghi"), Some("is not a JSON object")),
            ("certificate", text("{}"), Some("check its members")),
            (
                "certificate",
                with("\"version\":1", "\"version\":2"),
                Some("version"),
            ),
            (
                "certificate",
                with("\"seed\":\"", "\"seed\":\"x"),
                Some("44 characters"),
            ),
            (
                "certificate",
                with("\"signature\":\"", "\"signature\":\"x"),
                Some("signature"),
            ),
            ("certificate", with("\"queue:*\"", &long), Some("4096")),
        ],
    );
}

#[test]
fn an_expired_certificate_is_a_warning_of_both() {
    let files = Files::new();
    let config = files.dir.path("hawkgate.toml");
    let expired = text(certificate(UnixMillis(
        SystemClock::shared().now().0 - 60_000,
    )));
    files.with("certificate", &expired, || {
        for output in [check(&config), run(&config)] {
            let output = output.unwrap();
            assert!(output.contains("its certificate expired at"), "{output}");
        }
    });
}

#[test]
fn sockets_that_cannot_be_created_are_judged_alike() {
    let files = Files::new();
    files.dir.write("occupied", "");
    let config = files.dir.path("hawkgate.toml");
    for path in [
        "missing/hawkgate.sock",
        "occupied",
        "occupied/hawkgate.sock",
    ] {
        let changed = CONFIG.replace("unix:hawkgate.sock", &format!("unix:{path}"));
        let verdict = files.with("hawkgate.toml", &text(changed), || judge(&config, path));
        verdict.unwrap_err();
    }
}

#[test]
fn variables_of_taskcluster_proxy_are_named_in_errors_and_their_values_are_not() {
    for (variable, value) in [
        ("TASKCLUSTER_CERTIFICATE", "ghi"),
        ("TASKCLUSTER_CERTIFICATE", "{\"version\":1,\"ghi\":2}"),
        ("TASKCLUSTER_ACCESS_TOKEN", "ghi jkl"),
        ("TASKCLUSTER_ACCESS_TOKEN", "ghi\n"),
        ("TASKCLUSTER_ACCESS_TOKEN", "ghí"),
        ("TASKCLUSTER_CLIENT_ID", "ghi jkl"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hawkgate"));
        command
            .args(["taskcluster-proxy", "--port", "0", "--admin", "127.0.0.1:0"])
            .env("TASKCLUSTER_ROOT_URL", "https://tc.example.com")
            .env("TASKCLUSTER_CLIENT_ID", "project/x")
            .env("TASKCLUSTER_ACCESS_TOKEN", "abc")
            .env(variable, value)
            .stdin(Stdio::null());
        let exited = Exited::run(&mut command);
        assert_eq!(exited.code, 1, "{variable}={value:?}");
        assert!(exited.stderr.contains(variable), "{}", exited.stderr);
        for part in ["ghi", "ghí", "jkl"] {
            assert!(!exited.stderr.contains(part), "{}", exited.stderr);
        }
    }
}
