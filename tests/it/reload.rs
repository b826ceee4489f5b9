//! Reloading: changed files take effect while requests are being served.

mod files;
mod load;

use std::path::{Path, PathBuf};
use std::time::Duration;

use hawkgate::clock::SystemClock;
use hawkgate::reload::{self, Reloads};

use crate::support::client::{Request, Response};
use crate::support::gateway::{ConfigDir, SERVER_CONFIG, TestGateway};
use crate::support::standard::MINT;
use crate::support::tokens::{IssuerServer, SHARED, claims};
use crate::support::upstream::{FakeUpstream, Reply};
use crate::support::wait::{until, within};

const AUDIENCE: &str = "api";
/// How often watched files are checked in these tests.
const EVERY: Duration = Duration::from_millis(20);

/// A gateway that reloads, with its issuer and upstream.
struct Fixture {
    issuer: IssuerServer,
    upstream: FakeUpstream,
    gateway: TestGateway,
    reloads: Reloads,
}

impl Fixture {
    /// With its files watched.
    async fn start() -> Self {
        Self::start_in(files(), SERVER_CONFIG, Some(EVERY)).await
    }

    async fn start_in(files: ConfigDir, server: &str, every: Option<Duration>) -> Self {
        let issuer = IssuerServer::start(&[&SHARED[1]]).await;
        let upstream = FakeUpstream::http1(|_| Reply::ok()).await;
        let text = format!("{server}{}", sections(&issuer, &upstream, "/api/"));
        let gateway = TestGateway::start_with(&text, files, SystemClock::shared()).await;
        let path = gateway.files.path("hawkgate.toml");
        let loaded = reload::load(&path, None).unwrap();
        let reloads = gateway.running.reloads(path, loaded.fingerprints, every);
        Self {
            issuer,
            upstream,
            gateway,
            reloads,
        }
    }

    /// The initial configuration, with another path for the first route.
    fn text(&self, path: &str) -> String {
        format!(
            "{SERVER_CONFIG}{}",
            sections(&self.issuer, &self.upstream, path)
        )
    }

    fn token(&self) -> String {
        let now = SystemClock::shared().now().as_secs();
        let key = &SHARED[1];
        key.token("ES256", &claims(&self.issuer.issuer(), AUDIENCE, now))
    }

    /// Replaces a file atomically, so that it is never read half-written.
    fn replace(&self, name: &str, content: impl AsRef<[u8]>) {
        let next = self.gateway.files.write("next", content);
        std::fs::rename(next, self.gateway.files.path(name)).unwrap();
    }

    async fn get(&self, path: &str) -> Response {
        self.gateway
            .send(&Request::get(path).bearer(&self.token()))
            .await
    }

    async fn wait_for_reload(&self, result: &str, count: u32) {
        let name = "hawkgate_config_reloads_total";
        self.gateway
            .wait_for_metric(name, &[("result", result)], count)
            .await;
    }
}

/// An issuer, and two sources with a route each.
fn sections(issuer: &IssuerServer, upstream: &FakeUpstream, path: &str) -> String {
    format!(
        r#"
[[issuer]]
name = "idp"
url = "{}"
audiences = ["{AUDIENCE}"]

{MINT}

[[source]]
name = "fixed"
kind = "taskcluster-static"
client_id = "me"
access_token = {{ file = "fixed-token" }}

[[route]]
name = "main"
path = "{path}"
upstream = "{url}"
issuers = ["idp"]
source = "mint"

[[route]]
name = "fixed"
path = "/fixed/"
upstream = "{url}"
issuers = ["idp"]
source = "fixed"
"#,
        issuer.issuer(),
        url = upstream.url(),
    )
}

/// A directory as the kubelet lays it out for a ConfigMap: every file is reached through one symlink.
struct ConfigMap {
    folder: PathBuf,
    version: u32,
}

impl ConfigMap {
    fn new(folder: &Path, files: &[(&str, &str)]) -> Self {
        let mut map = Self {
            folder: folder.to_owned(),
            version: 0,
        };
        map.publish(files);
        for (name, _) in files {
            let link = folder.join(name);
            let _ = std::fs::remove_file(&link);
            std::os::unix::fs::symlink(Path::new("..data").join(name), link).unwrap();
        }
        map
    }

    /// Publishes a new version of all files at once.
    fn publish(&mut self, files: &[(&str, &str)]) {
        self.version += 1;
        let version = format!("..version_{}", self.version);
        let folder = self.folder.join(&version);
        std::fs::create_dir(&folder).unwrap();
        for (name, content) in files {
            std::fs::write(folder.join(name), content).unwrap();
        }
        let link = self.folder.join("..data_tmp");
        std::os::unix::fs::symlink(&version, &link).unwrap();
        std::fs::rename(link, self.folder.join("..data")).unwrap();
        if self.version > 1 {
            let old = format!("..version_{}", self.version - 1);
            std::fs::remove_dir_all(self.folder.join(old)).unwrap();
        }
    }
}

/// A directory with the secret of the source `fixed`.
fn files() -> ConfigDir {
    let files = ConfigDir::new();
    files.write("fixed-token", "the-first-token-of-the-fixed-client");
    files
}

/// Waits for a line in the log of `gateway`.
async fn wait_for_log(gateway: &TestGateway, text: &str) {
    until(&format!("the log to contain {text:?}"), async || {
        gateway.log().contains(text)
    })
    .await;
}
