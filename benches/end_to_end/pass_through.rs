//! A minimal pingora proxy without an access log: the baseline for the overhead of hawkgate. It
//! is built as an example so that it shares the release profile. Its arguments are two ports:
//! its own and the upstream's.

#![allow(clippy::expect_used, reason = "started by the benchmark only")]

use async_trait::async_trait;
use pingora::prelude::*;
use pingora::proxy::{ProxyHttp, Session, http_proxy_service};
use pingora::server::configuration::{Opt, ServerConf};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct PassThrough {
    upstream: String,
}

#[async_trait]
impl ProxyHttp for PassThrough {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(
            self.upstream.as_str(),
            false,
            String::new(),
        )))
    }
}

fn main() {
    let mut args = std::env::args().skip(1);
    let mut port = || args.next().expect("two arguments: own port, upstream port");
    let (own, upstream) = (port(), port());
    let conf = ServerConf {
        threads: 2,
        // Otherwise pingora sleeps for five minutes before it exits.
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(0),
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None::<Opt>, conf);
    server.bootstrap();
    let proxy = PassThrough {
        upstream: format!("127.0.0.1:{upstream}"),
    };
    let mut service = http_proxy_service(&server.configuration, proxy);
    service.add_tcp(&format!("127.0.0.1:{own}"));
    server.add_service(service);
    server.run_forever();
}
