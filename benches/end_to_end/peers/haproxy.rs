//! HAProxy with its defaults for everything that is not named here.

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Place, WORKERS};
use crate::support::identity::{AUDIENCE, HAWK_ID, HAWK_KEY, ISSUER};
use crate::support::process::Process;

pub(super) fn start(haproxy: &Path, place: &Place<'_>, token: bool) -> Process {
    let conf = place.dir.join("haproxy.cfg");
    fs::write(&conf, configuration(place, token)).expect("a configuration");
    Process::start(haproxy, &[Path::new("-f"), conf.as_path()], true)
}

fn configuration(place: &Place<'_>, token: bool) -> String {
    format!(
        r"global
  nbthread {WORKERS}
  maxconn 4096
  log stdout len 4096 format raw local0
defaults
  mode http
  log global
  option httplog
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend callers
  bind 127.0.0.1:{http}
  bind 127.0.0.1:{tls} ssl crt {certificate} alpn h2,http/1.1 ssl-min-ver TLSv1.3
{rules}
  default_backend upstream
backend upstream
  server u 127.0.0.1:{upstream}
",
        http = place.ports.http,
        tls = place.ports.tls,
        certificate = place.identity.certificate_and_key.display(),
        upstream = place.ports.upstream,
        rules = if token { rules(place) } else { String::new() },
    )
}

/// Verifies signature, issuer, audience and expiry of an RS256 token, and signs with Hawk.
fn rules(place: &Place<'_>) -> String {
    let upstream = place.ports.upstream;
    format!(
        r#"  http-request set-var(txn.token) http_auth_bearer
  http-request deny deny_status 401 unless {{ var(txn.token),jwt_header_query('$.alg') -m str RS256 }}
  http-request deny deny_status 401 unless {{ var(txn.token),jwt_verify("RS256","{key}") -m int 1 }}
  http-request deny deny_status 401 unless {{ var(txn.token),jwt_payload_query('$.iss') -m str {ISSUER} }}
  http-request deny deny_status 401 unless {{ var(txn.token),jwt_payload_query('$.aud') -m str {AUDIENCE} }}
  http-request set-var(txn.now) date()
  http-request set-var(txn.left) var(txn.token),jwt_payload_query('$.exp','int'),sub(txn.now)
  http-request deny deny_status 401 unless {{ var(txn.left) -m int gt 0 }}
  http-request set-var(txn.nonce) uuid()
  http-request set-header Host 127.0.0.1:{upstream}
  http-request set-var-fmt(txn.text) "hawk.1.header\n%[var(txn.now)]\n%[var(txn.nonce)]\n%[method]\n%[pathq]\n127.0.0.1\n{upstream}\n\n\n"
  http-request set-var(txn.mac) var(txn.text),hmac(sha256,{secret}),base64
  http-request set-header Authorization "Hawk id=\"{HAWK_ID}\", ts=\"%[var(txn.now)]\", nonce=\"%[var(txn.nonce)]\", mac=\"%[var(txn.mac)]\"""#,
        key = place.identity.public_key.display(),
        secret = STANDARD.encode(HAWK_KEY),
    )
}
