//! What holds for callers and upstreams of each protocol: HTTP/1 and HTTP/2 on either side. The
//! replay of bodies in these pairs has its own matrix, in the unit tests.

mod early_answers;
mod frames;
mod peers;
mod streaming;
mod trailers;
mod unprocessed;

use std::path::Path;

use hawkgate::clock::SystemClock;

use crate::support::gateway::{ConfigDir, TestGateway};
use peers::Caller;

/// The protocols of caller and upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pair {
    http2_caller: bool,
    http2_upstream: bool,
}

impl Pair {
    const ALL: [Self; 4] = [
        Self::new(false, false),
        Self::new(false, true),
        Self::new(true, false),
        Self::new(true, true),
    ];

    const fn new(http2_caller: bool, http2_upstream: bool) -> Self {
        Self {
            http2_caller,
            http2_upstream,
        }
    }

    fn name(self) -> &'static str {
        match (self.http2_caller, self.http2_upstream) {
            (false, false) => "h1 to h1",
            (false, true) => "h1 to h2",
            (true, false) => "h2 to h1",
            (true, true) => "h2 to h2",
        }
    }

    /// The host of the route to the upstream.
    fn host(self) -> &'static str {
        if self.http2_upstream {
            "h2.test"
        } else {
            "h1.test"
        }
    }

    async fn caller(self, gateway: &TestGateway) -> Caller {
        let listener = &gateway.running.listeners[usize::from(self.http2_caller)];
        Caller::connect(listener, self.http2_caller).await
    }
}

/// A gateway with a route `h1.test` to the upstream at `http1` and a route `h2.test` to the one
/// at `http2`, whose certificate is from the CA in the file `ca`.
async fn gateway(http1: &str, http2: &str, ca: &Path) -> TestGateway {
    let ca = ca.display();
    let text = format!(
        r#"
[server]
listen = ["127.0.0.1:0", {{ address = "127.0.0.1:0", h2c = true }}]
admin = "127.0.0.1:0"
drain_delay = "0s"
threads = 1
local_hosts = ["h1.test", "h2.test"]
[[source]]
name = "static"
kind = "taskcluster-static"
client_id = "root"
access_token = {{ file = "access-token" }}
[[route]]
name = "h1"
host = "h1.test"
upstream = "{http1}"
anonymous = true
source = "static"
[[route]]
name = "h2"
host = "h2.test"
upstream = "{http2}"
ca = "{ca}"
http2 = true
anonymous = true
source = "static"
"#
    );
    TestGateway::start_with(&text, ConfigDir::new(), SystemClock::shared()).await
}
