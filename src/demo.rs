//! `hawkgate demo`: an identity provider, a Taskcluster-style API and hawkgate between
//! them, in one process on loopback, and a tour that shows what each of them sees.
//!
//! The two peers are small but really verify; they share no code with what they check.
//! Nothing outside this module and the `demo` command refers to them.

mod api;
mod hawk;
mod identity;
mod paint;
mod server;
mod tour;

use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use crate::app::{self, Deps, Running, StartError};
use crate::clock::SystemClock;
use crate::config::{self, Address, ParseOptions};
use crate::log::AccessLog;
use crate::remote::http_client::{HttpClient, HttpClientOptions, TransportError};
pub use paint::Paint;
pub use tour::{stay, tour};

/// What a demo token must be meant for.
const AUDIENCE: &str = "hawkgate-demo";
const SCOPE: &str = "taskcluster-credentials";

/// Why the demo ended early.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// A step of the tour did not go as it must.
    #[error("the tour went wrong: {0}")]
    Tour(String),
    /// A party could not be started.
    #[error("cannot start: {0}")]
    Start(String),
    /// A party did not answer.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The terminal is gone, or signals cannot be waited for.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl From<StartError> for DemoError {
    fn from(error: StartError) -> Self {
        Self::Start(error.to_string())
    }
}

/// Everything that plays in the demo, running.
pub struct Stage {
    identity: identity::Provider,
    api: api::Api,
    running: Running,
    hawkgate: Url,
    admin: Url,
    client: HttpClient,
}

impl std::fmt::Debug for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Stage({})", self.hawkgate)
    }
}

/// Starts the two peers and hawkgate in front of the API, on free loopback ports.
///
/// # Errors
/// When one of them cannot be started.
pub async fn start() -> Result<Stage, DemoError> {
    let clock = SystemClock::shared();
    let identity = identity::Provider::start(clock.clone()).await?;
    let api = api::Api::start(clock.clone(), identity.verifier()).await?;
    let toml = configuration(&identity.url, &api.url);
    let (config, _) = config::parse(&toml, "demo.toml", &options())
        .map_err(|errors| DemoError::Start(errors.to_string()))?;
    let surroundings = Deps {
        clock,
        access_log: AccessLog::off(),
    };
    let running = app::start(config, surroundings).await?;
    let client = HttpClient::new(&HttpClientOptions {
        timeout: Duration::from_secs(10),
        max_bytes: 1024 * 1024,
        ca: None,
    })?;
    Ok(Stage {
        hawkgate: url_of(running.listeners.first())?,
        admin: url_of(Some(&running.admin))?,
        identity,
        api,
        running,
        client,
    })
}

impl Stage {
    /// Ends hawkgate; the peers end with the stage.
    pub async fn strike(&self) {
        self.running.drain().await;
    }
}

/// The file exists nowhere and names no other.
fn options() -> ParseOptions {
    ParseOptions {
        read_secrets: false,
        base_dir: PathBuf::new(),
    }
}

/// The same file that a real deployment would have, but for the addresses.
fn configuration(identity: &Url, api: &Url) -> String {
    // An issuer is compared byte by byte: without the slash that `Url` shows.
    let issuer = identity.as_str().trim_end_matches('/');
    format!(
        r#"
[server]
listen = ["127.0.0.1:0"]
admin = "127.0.0.1:0"
drain = "2s"
drain_delay = "0s"

[[issuer]]
name = "demo-sign-in"
url = "{issuer}"
audiences = ["{AUDIENCE}"]

[[source]]
name = "demo-login"
kind = "taskcluster-login"
url = "{api}{}"

[[route]]
name = "demo-api"
path = "/api/"
upstream = "{}"
issuers = ["demo-sign-in"]
source = "demo-login"
require_scopes = ["{SCOPE}"]
"#,
        api::EXCHANGE.trim_start_matches('/'),
        api.as_str().trim_end_matches('/'),
    )
}

fn url_of(address: Option<&Address>) -> Result<Url, DemoError> {
    match address {
        Some(Address::Tcp(address)) => server::url(*address),
        _ => Err(DemoError::Start("hawkgate listens at no TCP port".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_configuration_is_valid_and_warns_of_nothing() {
        let [identity, api] = ["http://127.0.0.1:1/", "http://127.0.0.1:2/"];
        let toml = configuration(&identity.parse().unwrap(), &api.parse().unwrap());
        let (config, warnings) = config::parse(&toml, "demo.toml", &options()).unwrap();
        assert_eq!(config.routes.len(), 1);
        assert!(warnings.is_empty(), "{}", warnings[0]);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_tour_goes_well() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let stage = start().await.unwrap();
        let mut out = Vec::new();
        tour(&stage, Paint::new(false), &mut out).await.unwrap();
        let text = String::from_utf8(out).unwrap();
        for said in ["1. A swap", "2. Revoked", "3. Refused", "curl", "/metrics"] {
            assert!(text.contains(said), "{said} is missing in\n{text}");
        }
        assert!(!text.contains('\u{1b}'), "no colours off a terminal");
        stage.strike().await;
    }
}
