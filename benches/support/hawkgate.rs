//! hawkgate's configuration, and whether it is ready.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::identity::{AUDIENCE, HAWK_ID, ISSUER, Identity};
use super::session::NAME;

/// The ports of a hawkgate.
#[derive(Clone, Copy)]
pub(crate) struct Ports {
    /// For plain HTTP.
    pub(crate) http: u16,
    /// For TLS, with HTTP/1.1 and HTTP/2.
    pub(crate) tls: u16,
    /// For `/readyz`.
    pub(crate) admin: u16,
    /// Of the upstream.
    pub(crate) upstream: u16,
}

/// Who may use the only route.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Anybody; requests are passed on without credentials.
    Anonymous,
    /// Callers with the token. Requests are signed with Hawk.
    Token,
    /// The same, or has a session.
    Session,
}

/// Returns a configuration with `threads` workers.
pub(crate) fn configuration(
    ports: Ports,
    threads: usize,
    identity: &Identity,
    access: Access,
) -> String {
    let quoted = |path: &Path| format!("{:?}", path.display().to_string());
    let mut toml = format!(
        r#"
[server]
listen = [
  "127.0.0.1:{http}",
  {{ address = "127.0.0.1:{tls}", tls = {{ cert = {certificate}, key = {key} }} }},
]
admin = "127.0.0.1:{admin}"
threads = {threads}

[[route]]
name = "bench"
path = "/api/"
upstream = "http://127.0.0.1:{upstream}"
"#,
        http = ports.http,
        tls = ports.tls,
        admin = ports.admin,
        upstream = ports.upstream,
        certificate = quoted(&identity.certificate),
        key = quoted(&identity.private_key),
    );
    if access == Access::Anonymous {
        toml.push_str("anonymous = true\n");
    } else {
        let _ = write!(
            toml,
            r#"issuers = ["bench"]
source = "bench"
require_scopes = ["openid"]
{session}
[[issuer]]
name = "bench"
url = "{ISSUER}"
jwks_file = {jwks}
audiences = ["{AUDIENCE}"]

[[source]]
name = "bench"
kind = "taskcluster-static"
client_id = "{HAWK_ID}"
access_token = {{ file = {secret} }}
"#,
            session = if access == Access::Session {
                "session = \"bench\"\n"
            } else {
                ""
            },
            jwks = quoted(&identity.jwks),
            secret = quoted(&identity.hawk_key),
        );
        if access == Access::Session {
            let _ = write!(
                toml,
                r#"
[[session]]
name = "{NAME}"
issuer = "bench"
client_id = "bench"
cookie_key = {{ file = {key} }}
"#,
                key = quoted(&identity.cookie_key),
            );
        }
    }
    toml
}

/// Waits until `/readyz` on the port `admin` is 200, for at most `limit`.
pub(crate) async fn wait_until_ready(admin: u16, limit: Duration) {
    let ask = async {
        while !is_ready(admin).await {
            tokio::time::sleep(Duration::from_micros(500)).await;
        }
    };
    tokio::time::timeout(limit, ask)
        .await
        .expect("hawkgate did not become ready");
}

async fn is_ready(admin: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", admin)).await else {
        return false;
    };
    let request = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let mut answer = String::new();
    stream.write_all(request).await.is_ok()
        && stream.read_to_string(&mut answer).await.is_ok()
        && answer.starts_with("HTTP/1.1 200")
}
