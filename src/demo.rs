//! `hawkgate demo`: runs an identity provider, a Taskcluster-style API, a web application and
//! hawkgate in one process on loopback, and gives a tour that shows what each of them sends and
//! receives. The application's page shows the same in a browser.
//!
//! The peers are small, but verify everything they receive, and share no code with hawkgate's own
//! verifier and signer. Only the `demo` command uses this module.

mod api;
mod application;
mod cookie_key;
mod hawk;
mod identity_provider;
mod random;
mod server;
mod style;
mod stylesheet;
mod tour;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use crate::app::{self, Deps, Running, StartError};
use crate::clock::SystemClock;
use crate::config::{self, ParseOptions};
use crate::log::AccessLog;
use crate::network::Network;
use crate::proxy::settings::Address;
use crate::remote::dns::SystemResolver;
use crate::remote::http_client::{HttpClient, HttpClientOptions, TransportError};
pub use style::Style;
pub use tour::{keeps_running, next_steps, tour};

/// The demo's configuration, which is also a template for users. The demo replaces its
/// `ADDRESSES` with free ports, and runs what is commented out after the line that begins the part for browsers.
pub const CONFIG: &str = include_str!("demo/hawkgate.toml");

/// The line of [`CONFIG`] after which settings are commented out.
const BROWSERS: &str = "# ---- Browsers ----";
/// The addresses in [`CONFIG`].
const ADDRESSES: Addresses<'static> = Addresses {
    listen: "127.0.0.1:8080",
    admin: "127.0.0.1:9090",
    identity_provider: "http://127.0.0.1:8081",
    api: "http://127.0.0.1:8082",
    application: "http://127.0.0.1:8083",
};
/// The audience that [`CONFIG`] requires of a token.
const AUDIENCE: &str = "hawkgate-demo";
/// The scope that [`CONFIG`] requires of a token.
const SCOPE: &str = "taskcluster-credentials";

/// The addresses in a demo configuration.
struct Addresses<'a> {
    listen: &'a str,
    admin: &'a str,
    identity_provider: &'a str,
    api: &'a str,
    application: &'a str,
}

/// Why the demo failed.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// A step of the tour had an unexpected result.
    #[error("the tour failed: {0}")]
    Tour(String),
    /// One of the servers could not be started.
    #[error("cannot start: {0}")]
    Start(String),
    /// One of the servers did not respond.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// Standard output cannot be written, or signals cannot be received.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl From<StartError> for DemoError {
    fn from(error: StartError) -> Self {
        Self::Start(error.to_string())
    }
}

/// The running servers.
pub struct Demo {
    identity_provider: identity_provider::IdentityProvider,
    api: api::Api,
    _application: application::Application,
    running: Running,
    hawkgate: Url,
    /// Where browsers reach hawkgate: not at the address of the identity provider, because cookies
    /// do not know ports, and the provider would see hawkgate's.
    page: Url,
    admin: Url,
    client: HttpClient,
}

impl std::fmt::Debug for Demo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Demo({})", self.hawkgate)
    }
}

/// Starts the peers, and hawkgate in front of the API and the application, on free loopback ports.
///
/// # Errors
/// Returns an error if one of them cannot be started.
pub async fn start() -> Result<Demo, DemoError> {
    let clock = SystemClock::shared();
    let identity_provider = identity_provider::IdentityProvider::start(clock.clone()).await?;
    let api = api::Api::start(clock.clone(), identity_provider.verifier()).await?;
    let application = application::Application::start(&identity_provider.url).await?;
    let toml = config_with(&Addresses {
        listen: "127.0.0.1:0",
        admin: "127.0.0.1:0",
        identity_provider: origin(&identity_provider.url),
        api: origin(&api.url),
        application: origin(&application.url),
    });
    let cookie_key = cookie_key::CookieKey::create()?;
    let (config, _) = config::parse(
        &toml,
        "demo/hawkgate.toml",
        &options(cookie_key.directory()),
    )
    .map_err(|errors| DemoError::Start(errors.to_string()))?;
    let deps = Deps {
        clock,
        access_log: AccessLog::off(),
        resolver: Arc::new(SystemResolver),
    };
    let running = app::start(config, deps).await?;
    drop(cookie_key);
    let client = HttpClient::new(&HttpClientOptions {
        timeout: Duration::from_secs(10),
        max_bytes: 1024 * 1024,
        ca: None,
        network: Network::default(),
    })?;
    let hawkgate = url_of(running.listeners.first())?;
    let page = at_localhost(&hawkgate)?;
    register_client(&identity_provider, &[&hawkgate, &page]);
    Ok(Demo {
        hawkgate,
        page,
        admin: url_of(running.admin.as_ref())?,
        identity_provider,
        api,
        _application: application,
        running,
        client,
    })
}

/// Registers hawkgate at the provider, with its addresses at each of the `sites`.
fn register_client(identity_provider: &identity_provider::IdentityProvider, sites: &[&Url]) {
    let at = |path: &str| -> Vec<String> {
        let urls = sites.iter().map(|site| format!("{}{path}", origin(site)));
        urls.collect()
    };
    identity_provider.register(at("/oauth2/callback"), at("/oauth2/logout"));
}

fn at_localhost(url: &Url) -> Result<Url, DemoError> {
    let mut url = url.clone();
    url.set_host(Some("localhost"))
        .map_err(|error| DemoError::Start(error.to_string()))?;
    Ok(url)
}

impl Demo {
    /// Shuts hawkgate down; the peers stop when the value is dropped.
    pub async fn shutdown(&self) {
        self.running.drain().await;
    }
}

/// Returns the options for parsing [`CONFIG`], whose files are in `base_dir`. Its secret is read at
/// the start.
fn options(base_dir: &Path) -> ParseOptions {
    ParseOptions {
        read_secrets: false,
        environment: false,
        base_dir: PathBuf::from(base_dir),
    }
}

/// Returns [`CONFIG`] as the demo runs it: with the part for browsers, and with other addresses.
fn config_with(addresses: &Addresses<'_>) -> String {
    with_browsers(CONFIG)
        .replace(ADDRESSES.listen, addresses.listen)
        .replace(ADDRESSES.admin, addresses.admin)
        .replace(ADDRESSES.identity_provider, addresses.identity_provider)
        .replace(ADDRESSES.api, addresses.api)
        .replace(ADDRESSES.application, addresses.application)
}

/// Removes the `#` from the settings after the line that begins the part for browsers. In front of a comment it has a space after
/// it.
fn with_browsers(config: &str) -> String {
    let mut after = false;
    let lines = config.lines().map(|line| {
        after |= line == BROWSERS;
        let setting = line.strip_prefix('#').filter(|rest| !rest.starts_with(' '));
        if after { setting.unwrap_or(line) } else { line }
    });
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// Returns a URL without the trailing slash that `Url` appends, because issuers are compared
/// byte by byte.
fn origin(url: &Url) -> &str {
    url.as_str().trim_end_matches('/')
}

fn url_of(address: Option<&Address>) -> Result<Url, DemoError> {
    match address {
        Some(Address::Tcp(address)) => server::url(*address),
        _ => Err(DemoError::Start("hawkgate listens on no TCP port".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_printed_configuration_is_valid_without_warnings_and_other_files() {
        let (config, warnings) =
            config::parse(CONFIG, "hawkgate.toml", &options(Path::new(""))).unwrap();
        assert_eq!((config.routes.len(), config.sessions.len()), (1, 0));
        assert!(warnings.is_empty(), "{}", warnings[0]);
    }

    #[test]
    fn the_part_for_browsers_is_valid_without_warnings() {
        let toml = with_browsers(CONFIG);
        let (config, warnings) =
            config::parse(&toml, "hawkgate.toml", &options(Path::new(""))).unwrap();
        assert_eq!((config.routes.len(), config.sessions.len()), (2, 1));
        assert!(config.routes.iter().all(|route| route.session.is_some()));
        assert!(warnings.is_empty(), "{}", warnings[0]);
        let session = &config.sessions[0].settings;
        assert_eq!(session.client_id, identity_provider::CLIENT_ID);
        assert_eq!(session.audience.as_deref(), Some(AUDIENCE));
        assert!(session.scopes.iter().any(|scope| scope == SCOPE));
        assert_eq!(session.prefix, "/oauth2/");
    }

    #[test]
    fn the_configuration_that_runs_has_every_address_replaced() {
        let toml = config_with(&Addresses {
            listen: "127.0.0.1:1",
            admin: "127.0.0.1:2",
            identity_provider: "http://127.0.0.1:3",
            api: "http://127.0.0.1:4",
            application: "http://127.0.0.1:5",
        });
        let written = |text: &str| text.lines().filter(|l| !l.starts_with('#')).count();
        assert_eq!(written(&toml), written(&with_browsers(CONFIG)));
        for line in toml.lines().filter(|line| line.contains("127.0.0.1")) {
            assert!(!line.contains(":80") && !line.contains(":90"), "{line}");
        }
        for (address, count) in [
            (":1\"", 1),
            (":2\"", 1),
            (":3\"", 1),
            (":4", 2),
            (":5\"", 1),
        ] {
            let address = format!("127.0.0.1{address}");
            assert_eq!(toml.matches(&address).count(), count, "{address}");
        }
        config::parse(&toml, "hawkgate.toml", &options(Path::new(""))).unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn every_step_of_the_tour_succeeds() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let demo = start().await.unwrap();
        let mut out = Vec::new();
        let style = Style::new(false);
        tour(&demo, style, &mut out).await.unwrap();
        next_steps("./hawkgate", style, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        for expected in [
            "1. Swap",
            "2. Replay",
            "3. Refusal",
            "curl",
            "In a browser",
            "http://localhost:",
            "alice",
            "/metrics",
            "./hawkgate check --config hawkgate.toml",
        ] {
            assert!(
                text.contains(expected),
                "{expected} is missing from\n{text}"
            );
        }
        assert!(!text.contains('\u{1b}'), "no escapes without a terminal");
        demo.shutdown().await;
    }
}
