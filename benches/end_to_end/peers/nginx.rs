//! nginx with Debian's defaults for everything that is not named here.

use std::fs;
use std::path::Path;

use super::{Place, WORKERS};
use crate::support::process::Process;

pub(super) fn start(nginx: &Path, place: &Place<'_>) -> Process {
    let conf = place.dir.join("nginx.conf");
    fs::write(&conf, configuration(place)).expect("a configuration");
    let log = place.dir.join("start.log");
    Process::start(
        nginx,
        &[
            Path::new("-c"),
            conf.as_path(),
            Path::new("-e"),
            log.as_path(),
        ],
        true,
    )
}

fn configuration(place: &Place<'_>) -> String {
    let dir = place.dir.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("  {kind}_temp_path {dir}/{kind};\n"))
        .collect();
    format!(
        r#"worker_processes {WORKERS};
daemon off;
pid {dir}/pid;
error_log {dir}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log /dev/null combined;
  keepalive_requests 100000000;
  client_max_body_size 0;
{temporary}
  upstream u {{
    server 127.0.0.1:{upstream};
    keepalive 64;
    keepalive_requests 100000000;
  }}
  server {{
    listen 127.0.0.1:{http};
    listen 127.0.0.1:{tls} ssl http2;
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    ssl_protocols TLSv1.3;
    location / {{
      proxy_pass http://u;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
    }}
  }}
}}
"#,
        upstream = place.ports.upstream,
        http = place.ports.http,
        tls = place.ports.tls,
        certificate = place.identity.certificate.display(),
        key = place.identity.private_key.display(),
    )
}
