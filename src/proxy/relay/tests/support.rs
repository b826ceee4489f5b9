//! The proxy under test, with a scripted source of credentials.

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use http::HeaderValue;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::client::TestClient;
use super::failures::raw_upstream;
use super::upstream::Upstream as Server;
use crate::circuit_breaker::Jitter;
use crate::clock::{ManualClock, SystemClock};
use crate::credential::{
    CacheLimits, CachedSource, Credential, CredentialSource, FetchError, IdentityHasher, Issued,
    SourceOptions, SwapRequest,
};
use crate::gateway::header_edits::HeaderEdits;
use crate::gateway::outcome::Outcome;
use crate::gateway::request_headers::StrippedHeaders;
use crate::gateway::resource_isolation::IsolationPolicy;
use crate::gateway::route::{Compat, Isolation};
use crate::gateway::route::{Route, RouteTable, UpgradeExpiry, Upstream, UpstreamTimeouts};
use crate::gateway::session::SessionTable;
use crate::gateway::upstream_addresses::UpstreamAddresses;
use crate::gateway::upstream_retry::{RetryPolicy, UpstreamRetry};
use crate::gateway::{Gateway, Observability};
use crate::hawk::{Credentials, Signer};
use crate::proxy::server::{BoundServer, ServerHandle, Workers};
use crate::proxy::settings::{Address, Limits, Listener, ListenerAccess};
use crate::proxy::{Budget, InFlight, Recorder, Relay, test_support};
use crate::secret::SecretString;

const MIB: usize = 1024 * 1024;

/// The credentials of client `number`.
pub(super) fn credentials(number: usize) -> Credentials {
    Credentials {
        client_id: format!("client-{number}"),
        access_token: SecretString::from(format!("key-{number}").as_str()),
        certificate: None,
        authorized_scopes: None,
    }
}

#[derive(Debug, Default)]
pub(super) struct ScriptedSource {
    pub(super) fetched: AtomicUsize,
    pub(super) fails: Mutex<bool>,
}

#[async_trait]
impl CredentialSource for ScriptedSource {
    fn identity(&self, _: &SwapRequest, _: &mut IdentityHasher) -> Result<(), FetchError> {
        Ok(())
    }

    async fn fetch(&self, _: &SwapRequest) -> Result<Issued, FetchError> {
        if *self.fails.lock().unwrap() {
            return Err(FetchError::BadAnswer("scripted".into()));
        }
        let number = self.fetched.fetch_add(1, Ordering::SeqCst) + 1;
        let credentials = credentials(number);
        Ok(Issued {
            credential: Credential::Taskcluster {
                client_id: credentials.client_id.clone(),
                signer: Box::new(Signer::new(&credentials).unwrap()),
            },
            expires_at: None,
            original: None,
        })
    }
}

pub(super) struct Options {
    pub(super) http2: bool,
    pub(super) limits: Limits,
    pub(super) read_timeout: Duration,
    /// Used instead of the test upstream's address.
    pub(super) addresses: Option<Vec<SocketAddr>>,
    /// For TLS: the host name to verify, and the CA file.
    pub(super) tls: Option<(&'static str, Option<PathBuf>)>,
    /// The route's `passes_401`.
    pub(super) passes_401: Vec<String>,
    /// The route's `response_headers`.
    pub(super) response_headers: HeaderEdits,
    /// The route's `retry`, without jitter.
    pub(super) retry: Option<RetryPolicy>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            http2: false,
            limits: Limits {
                body_timeout: Duration::from_secs(30),
                keepalive_timeout: Duration::from_mins(1),
                unadmitted_keepalive: Limits::UNADMITTED_KEEPALIVE,
                connections: 1000,
                requests_in_flight: 1000,
                requests_in_flight_per_address: 1000,
                connections_per_address: None,
                replay_body: 10 * MIB,
                replay_memory: 64 * MIB,
                ..test_support::limits()
            },
            read_timeout: Duration::from_secs(30),
            addresses: None,
            tls: None,
            passes_401: vec![],
            response_headers: HeaderEdits::default(),
            retry: None,
        }
    }
}

pub(super) struct TestProxy {
    /// The HTTP/1 listener.
    pub(super) address: SocketAddr,
    /// The listener for HTTP/2 with prior knowledge.
    pub(super) h2c: SocketAddr,
    pub(super) upstream: Arc<Server>,
    pub(super) credential_source: Arc<ScriptedSource>,
    pub(super) budget: Arc<Budget>,
    pub(super) in_flight: InFlight,
    pub(super) clock: Arc<ManualClock>,
    outcomes: mpsc::UnboundedReceiver<Outcome>,
    pub(super) handle: ServerHandle,
}

impl TestProxy {
    pub(super) async fn new(options: Options) -> Self {
        let upstream = Server::start(options.http2).await;
        let credential_source = Arc::new(ScriptedSource::default());
        let clock = ManualClock::at(SystemClock::shared().now());
        let gateway = Arc::new(Gateway {
            routes: RouteTable::new(vec![Arc::new(route(
                &options,
                upstream.address,
                source(&credential_source, &clock),
            ))]),
            sessions: SessionTable::default(),
            login: None,
            credentials: None,
            clock: clock.clone(),
            max_token_bytes: crate::token::DEFAULT_TOKEN_BYTES,
            rule_headers: vec![],
            forward_auth: vec![],
            isolation: IsolationPolicy::default(),
            observability: Observability::default(),
        });
        let limits = options.limits.clone();
        let budget = Budget::new(limits.replay_memory);
        let (record, outcomes) = mpsc::unbounded_channel();
        let recorder: Recorder = Arc::new(move |outcome: &Outcome| {
            let _ = record.send(outcome.clone());
        });
        let relay = Relay::new(
            Arc::new(ArcSwap::new(gateway)),
            Arc::new(ArcSwap::from_pointee(limits.clone())),
            Arc::clone(&budget),
            clock.clone(),
            Arc::clone(&recorder),
            1,
        );
        let in_flight = relay.in_flight();
        let listeners = BoundServer::bind(&[listener(false), listener(true)], &limits)
            .await
            .unwrap();
        let address = |index: usize| match &listeners.addresses()[index] {
            Address::Tcp(address) => *address,
            Address::Unix(_) => unreachable!(),
        };
        let (address, h2c) = (address(0), address(1));
        let handle = listeners.serve(Arc::new(relay), clock.clone(), recorder, Workers::default());
        Self {
            address,
            h2c,
            upstream,
            credential_source,
            budget,
            in_flight,
            clock,
            outcomes,
            handle,
        }
    }

    pub(super) async fn connect(&self, http2: bool) -> TestClient {
        let address = if http2 { self.h2c } else { self.address };
        TestClient::connect(address, http2).await
    }

    pub(super) async fn start() -> Self {
        Self::new(Options::default()).await
    }

    pub(super) async fn with(change: impl FnOnce(&mut Options)) -> Self {
        let mut options = Options::default();
        change(&mut options);
        Self::new(options).await
    }

    /// Starts a proxy for a raw TCP upstream, which calls `serve` with each connection.
    pub(super) async fn with_raw_upstream<F, T>(serve: F) -> Self
    where
        F: Fn(usize, TcpStream) -> T + Send + 'static,
        T: Future<Output = ()> + Send + 'static,
    {
        let address = raw_upstream(serve).await;
        Self::with(|o| o.addresses = Some(vec![address])).await
    }

    /// Revokes all credentials issued so far. A second passes, because more exchanges in a second
    /// than the burst allows would be limited.
    pub(super) fn revoke(&self) {
        self.clock.advance(Duration::from_secs(1));
        let fetched = self.fetched().max(1);
        self.upstream
            .valid_from
            .store(fetched + 1, Ordering::SeqCst);
    }

    pub(super) fn fetched(&self) -> usize {
        self.credential_source.fetched.load(Ordering::SeqCst)
    }

    /// Waits for the next outcome.
    pub(super) async fn outcome(&mut self) -> Outcome {
        let waited = tokio::time::timeout(Duration::from_mins(1), self.outcomes.recv());
        waited.await.expect("no request ended in time").unwrap()
    }
}

fn source(credential_source: &Arc<ScriptedSource>, clock: &Arc<ManualClock>) -> CachedSource {
    let options = SourceOptions {
        limits: CacheLimits {
            max_entries: 10,
            max_bytes: 1 << 20,
            max_age: Duration::from_hours(1),
            refresh_ahead: Duration::ZERO,
            refusals: Duration::from_secs(10),
        },
        timeout: Duration::from_secs(5),
        concurrency: 4,
    };
    let inner: Arc<dyn CredentialSource> = credential_source.clone();
    CachedSource::new("scripted".into(), inner, options, clock.clone()).unwrap()
}

fn route(options: &Options, upstream: SocketAddr, source: CachedSource) -> Route {
    let own = vec![upstream];
    let host = options.tls.as_ref().map_or("tc.example.com", |tls| tls.0);
    Route {
        name: "tc".into(),
        hosts: vec![],
        rewrite: None,
        request_headers: HeaderEdits::default(),
        response_headers: options.response_headers.clone(),
        path: "/".into(),
        case_insensitive_path: false,
        methods: None,
        upstream: Arc::new(Upstream {
            tls: options.tls.is_some(),
            host: host.into(),
            port: 8443,
            authority: HeaderValue::from_static("tc.example.com:8443"),
            signed_port: 443,
            ca: options
                .tls
                .clone()
                .and_then(|(_, ca)| Some(std::fs::read(ca?).unwrap().into())),
            additional_ca: None,
            proxy: None,
            http2: options.http2,
            timeouts: UpstreamTimeouts {
                connect: Duration::from_secs(5),
                read: options.read_timeout,
                write: Duration::from_secs(30),
                idle: Duration::from_secs(4),
            },
            addresses: UpstreamAddresses::fixed(options.addresses.clone().unwrap_or(own)),
            clock: crate::gateway::UpstreamClock::default(),
        }),
        issuers: vec![],
        source: Some(Arc::new(source)),
        stripped_headers: StrippedHeaders::default(),
        require_scopes: vec![],
        passes_401: options.passes_401.clone(),
        refused_scopes: crate::gateway::RefusalLog::default(),
        anonymous: true,
        session: None,
        workload_token: None,
        isolation: Isolation::Off,
        cors: None,
        rules: None,
        rates: crate::gateway::rate_limit::RateLimiters::default(),
        retry: options
            .retry
            .clone()
            .map(|policy| UpstreamRetry::with_jitter(policy, Jitter::Fixed(0.0))),
        upgrade_expiry: UpgradeExpiry::default(),
        compat: Compat::default(),
    }
}

fn listener(h2c: bool) -> Listener {
    Listener {
        address: Address::Tcp(([127, 0, 0, 1], 0).into()),
        mode: 0o600,
        tls: None,
        h2c,
        access: ListenerAccess::default(),
        forward_auth: None,
    }
}
