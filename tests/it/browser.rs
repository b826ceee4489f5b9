//! Web applications in a real browser: Chromium, the certified OpenID provider, and hawkgate between
//! the pages and the application. Screenshots of hawkgate's own pages go to `target/browser`.

mod cross_site;
mod demo;
mod example;
mod sign_in;
mod sign_out;
mod taskcluster;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hawkgate::clock::{Clock, SharedClock, SystemClock, UnixMillis};
use hawkgate::proxy::settings::Address;
use serde_json::json;

use crate::support::browser::{Browser, Page};
use crate::support::gateway::{ConfigDir, TestGateway};
use crate::support::sessions::{
    Application, CLIENT_SECRET, HOST, Options, SessionProvider, config, cookie_key,
};
use crate::support::tls::TestCa;

/// A site with TLS, as users reach it.
struct Site {
    provider: SessionProvider,
    application: Application,
    gateway: TestGateway,
    /// hawkgate's.
    clock: Arc<AdvancedClock>,
    /// `https://app.example.test:<port>`, or what [`Site::loopback`] says.
    origin: String,
    browser: Browser,
}

/// The system's clock, some time ahead. One that stands still would not do: a browser takes its time,
/// and tokens that seem to come from the future are refused.
#[derive(Debug)]
struct AdvancedClock {
    system: SharedClock,
    seconds: AtomicU64,
}

impl AdvancedClock {
    fn shared() -> Arc<Self> {
        Arc::new(Self {
            system: SystemClock::shared(),
            seconds: AtomicU64::new(0),
        })
    }

    fn advance(&self, by: Duration) {
        self.seconds.fetch_add(by.as_secs(), Ordering::SeqCst);
    }

    fn ahead(&self) -> Duration {
        Duration::from_secs(self.seconds.load(Ordering::SeqCst))
    }
}

impl Clock for AdvancedClock {
    fn now(&self) -> UnixMillis {
        self.system.now().plus(self.ahead())
    }

    fn monotonic(&self) -> Duration {
        self.system.monotonic() + self.ahead()
    }
}

fn port(gateway: &TestGateway) -> u16 {
    match gateway.address() {
        Address::Tcp(address) => address.port(),
        Address::Unix(path) => panic!("{}", path.display()),
    }
}

/// `[server]` with TLS for the site's name.
fn tls_server(files: &ConfigDir) -> String {
    let identity = TestCa::new().issue(&[HOST]);
    let cert = files.write("cert.pem", &identity.cert_pem);
    let key = files.write("key.pem", &identity.key_pem);
    format!(
        r#"
[server]
listen = [{{ address = "127.0.0.1:0", tls = {{ cert = "{}", key = "{}" }} }}]
admin = "127.0.0.1:0"
drain_delay = "0s"
local_hosts = ["{HOST}"]
"#,
        cert.display(),
        key.display()
    )
}

/// Another site with TLS, for the browser at any name that ends in `.test`.
async fn other_site() -> Application {
    let identity = TestCa::new().issue(&["evil.test"]);
    let tls = json!({ "cert": identity.cert_pem, "key": identity.key_pem });
    Application::start(json!({ "tls": tls })).await
}

/// The origin of `site` under another name.
fn at(site: &Application, name: &str) -> String {
    site.url().replace("127.0.0.1", name)
}

impl Site {
    async fn start(route: &str) -> Self {
        let files = ConfigDir::new();
        let server = tls_server(&files);
        Self::start_in(files, &server, route, |port| {
            format!("https://{HOST}:{port}")
        })
        .await
    }

    /// Without TLS, at a loopback name.
    async fn loopback() -> Self {
        let server = r#"
[server]
listen = ["127.0.0.1:0"]
admin = "127.0.0.1:0"
drain_delay = "0s"
"#;
        let origin = |port| format!("http://localhost:{port}");
        Self::start_in(ConfigDir::new(), server, "", origin).await
    }

    async fn start_in(
        files: ConfigDir,
        server: &str,
        route: &str,
        origin: impl Fn(u16) -> String,
    ) -> Self {
        let provider = SessionProvider::start(json!({})).await;
        let application = Application::start(json!({})).await;
        files.write("client-secret", CLIENT_SECRET);
        files.write("cookie-key", cookie_key(1));
        let options = Options {
            server,
            session: "prefix = \"/oauth2/\"",
            route,
            ..Options::default()
        };
        let text = config(&provider, &application, &options);
        let clock = AdvancedClock::shared();
        let gateway = TestGateway::start_with(&text, files, clock.clone()).await;
        let origin = origin(port(&gateway));
        provider.register("web", &origin, "/oauth2/").await;
        Self {
            provider,
            application,
            gateway,
            clock,
            origin,
            browser: Browser::start().await,
        }
    }

    /// A URL of the site.
    fn url(&self, target: &str) -> String {
        format!("{}{target}", self.origin)
    }

    /// A regular expression for exactly this URL of the site.
    fn exactly(&self, target: &str) -> String {
        format!("^{}$", regex_escaped(&self.url(target)))
    }

    /// Opens a tab with a page of the application, signed in as `user`.
    async fn signed_in(&self, user: &str) -> Page<'_> {
        let page = self.browser.page().await;
        page.goto(&self.url("/page")).await;
        sign_in_at_provider(&page, user).await;
        page.wait_for_url(&self.exactly("/page")).await;
        page
    }

    /// The requests that the application received, except for pages and the icon that Chromium asks
    /// for by itself.
    async fn received(&self) -> Vec<String> {
        let requests = self.application.requests().await;
        let lines = requests.iter().map(|request| {
            let text = |name: &str| request[name].as_str().unwrap().to_owned();
            format!("{} {}", text("method"), text("url"))
        });
        let browsing = |line: &String| line.starts_with("GET /page") || line == "GET /favicon.ico";
        lines.filter(|line| !browsing(line)).collect()
    }
}

/// Fills in the provider's form.
async fn sign_in_at_provider(page: &Page<'_>, user: &str) {
    page.wait_for_url("/interaction/").await;
    page.fill("input[name=user]", user).await;
    let password = format!("{user}-password");
    page.fill("input[name=password]", &password).await;
    page.click("button[value=sign-in]").await;
}

fn regex_escaped(text: &str) -> String {
    let special = |c: char| ".?+*()[]{}|^$\\".contains(c);
    let escape = |c| {
        if special(c) {
            format!("\\{c}")
        } else {
            c.to_string()
        }
    };
    text.chars().map(escape).collect()
}
