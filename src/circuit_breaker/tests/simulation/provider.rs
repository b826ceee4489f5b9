//! Providers that misbehave as they are told.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Mutex;

use async_trait::async_trait;

use super::*;
use crate::bounded_cache::CacheBounds;
use crate::circuit_breaker::Jitter;
use crate::credential::{
    CacheLimits, CachedSource, Credential, CredentialSource, FetchError, IdentityHasher, Issued,
    SourceOptions, SwapRequest,
};
use crate::secret::SecretString;
use crate::token::settings::{IntrospectionIssuer, Profile};
use crate::token::{
    BearerToken, Caller, IntrospectionError, IntrospectionFault, IntrospectionObserver,
    Introspector, Issuer, VerifiedToken, authenticate,
};

/// How long a provider takes to answer.
const LATENCY: Duration = Duration::from_millis(20);
/// How long the HTTP client waits for one that hangs.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(3);

/// Room for everybody.
const BOUNDS: CacheBounds = CacheBounds {
    entries: 10_000,
    bytes: 64 << 20,
};

/// What a provider does with one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Ok,
    Status403,
    Status500,
    Status429 { retry_after: u64 },
    Hang,
}

type Behaviour = dyn Fn(&str, Duration, &mut Random) -> Answer + Send + Sync;

/// Answers by the caller's or token's name and the time, and counts calls.
pub(super) struct Provider {
    behaviour: Box<Behaviour>,
    random: Mutex<Random>,
    clock: Arc<PausedClock>,
    calls: AtomicUsize,
    responses: AtomicUsize,
    shared: bool,
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Provider")
    }
}

impl Provider {
    pub(super) fn new(
        seed: u64,
        shared: bool,
        behaviour: impl Fn(&str, Duration, &mut Random) -> Answer + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            behaviour: Box::new(behaviour),
            random: Mutex::new(Random(seed)),
            clock: PausedClock::shared(),
            calls: AtomicUsize::new(0),
            responses: AtomicUsize::new(0),
            shared,
        })
    }

    pub(super) fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    pub(super) fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    /// The answers that were neither a failure nor a 429.
    pub(super) fn responses(&self) -> usize {
        self.responses.load(Ordering::Relaxed)
    }

    async fn answer(&self, name: &str) -> Answer {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let answer = (self.behaviour)(name, self.now(), &mut self.random.lock().unwrap());
        let responds = matches!(answer, Answer::Ok | Answer::Status403);
        self.responses
            .fetch_add(usize::from(responds), Ordering::Relaxed);
        pass(if answer == Answer::Hang {
            CLIENT_TIMEOUT
        } else {
            LATENCY
        })
        .await;
        answer
    }

    /// A source in front of this provider.
    pub(super) fn source(self: &Arc<Self>) -> Arc<CachedSource> {
        let options = SourceOptions {
            limits: CacheLimits {
                max_entries: BOUNDS.entries,
                max_bytes: BOUNDS.bytes,
                max_age: Duration::from_hours(1),
                refresh_ahead: Duration::from_mins(1),
                refusals: Duration::from_secs(20),
            },
            timeout: Duration::from_secs(10),
            concurrency: 32,
        };
        let clock = Arc::clone(&self.clock);
        let jitter = Jitter::Fixed(0.5);
        let source = CachedSource::with_jitter("sim".into(), self.clone(), options, clock, jitter);
        Arc::new(source.unwrap())
    }

    /// An issuer that asks this provider about tokens.
    pub(super) fn issuers(self: &Arc<Self>) -> Arc<[Arc<Issuer>]> {
        let config = IntrospectionIssuer {
            url: "https://as.example.com".into(),
            token_prefix: None,
            audiences: vec!["api".into()],
            format: Profile::Rfc9068.format(),
            leeway: Duration::from_secs(30),
            clients: None,
            subjects: None,
            verified_max_age: Duration::from_mins(1),
        };
        let issuer = Issuer::introspection(
            "sim".into(),
            &config,
            self.clone(),
            self.clock.clone(),
            BOUNDS,
            IntrospectionObserver::default(),
        );
        [Arc::new(issuer)].into()
    }
}

#[async_trait]
impl CredentialSource for Provider {
    fn identity(&self, _: &SwapRequest, _: &mut IdentityHasher) -> Result<(), FetchError> {
        Ok(())
    }

    fn is_shared(&self) -> bool {
        self.shared
    }

    async fn fetch(&self, request: &SwapRequest) -> Result<Issued, FetchError> {
        let unavailable = |retry_after: Option<u64>| FetchError::Unavailable {
            cause: "failed".into(),
            retry_after: retry_after.map(Duration::from_secs),
        };
        match self.answer(request.caller.subject().unwrap()).await {
            Answer::Ok => Ok(Issued {
                credential: Credential::Bearer(SecretString::from("x")),
                expires_at: Some(self.clock.now().plus(Duration::from_mins(15))),
                original: None,
            }),
            Answer::Status403 => Err(FetchError::Refused("status 403".into())),
            Answer::Status500 | Answer::Hang => Err(unavailable(None)),
            Answer::Status429 { retry_after } => Err(unavailable(Some(retry_after))),
        }
    }
}

#[async_trait]
impl Introspector for Provider {
    async fn introspect(&self, token: &BearerToken) -> Result<Vec<u8>, IntrospectionError> {
        let failed = |fault, retry_after: Option<u64>| IntrospectionError {
            fault,
            cause: "failed".into(),
            retry_after: retry_after.map(Duration::from_secs),
        };
        match self.answer(token.expose()).await {
            Answer::Ok => {
                let subject = token.expose();
                let body = serde_json::json!({
                    "active": true, "iss": "https://as.example.com", "aud": "api", "sub": subject,
                });
                Ok(body.to_string().into_bytes())
            }
            Answer::Status403 => Err(failed(IntrospectionFault::Token, None)),
            Answer::Status500 | Answer::Hang => Err(failed(IntrospectionFault::Issuer, None)),
            Answer::Status429 { retry_after } => {
                Err(failed(IntrospectionFault::Issuer, Some(retry_after)))
            }
        }
    }
}

/// A request by a caller whose token is verified.
pub(super) fn user(subject: &str) -> SwapRequest {
    SwapRequest {
        caller: Caller::Verified(Arc::new(VerifiedToken::for_tests("idp", subject, None))),
        bearer: None,
        scopes: None,
        clock_offset: 0,
    }
}

/// Whether an opaque token from `host` is accepted.
pub(super) async fn accepts(issuers: &[Arc<Issuer>], token: &str, host: u64) -> bool {
    let address = u32::try_from(host).unwrap() + u32::from(Ipv4Addr::new(10, 0, 0, 0));
    let peer = IpAddr::from(Ipv4Addr::from(address));
    let token = BearerToken::new(token).unwrap();
    authenticate(&token, issuers, Some(peer)).await.is_ok()
}
