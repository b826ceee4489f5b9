//! The callers: good ones, who check every answer, and hostile ones.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::peer::{LARGE_PATH, STATIC_CLIENT, access_token, sha256};
use crate::tally::{Class, Tally};
use crate::tokens::{FORGERIES, HOSTILE, Issuer};

/// A caller that waits longer than this for an answer considers its request lost.
const PATIENCE: Duration = Duration::from_secs(25);

/// Callers with cached credentials.
const ESTABLISHED: u64 = 8;

type HttpClient = Client<HttpConnector, Full<Bytes>>;

/// A sequence of numbers that depends on the seed only (SplitMix64).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// What all callers know.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) gateway: SocketAddr,
    pub(crate) issuer: Issuer,
    pub(crate) tally: Tally,
    /// Makes the subjects of newcomers distinct.
    pub(crate) newcomers: Arc<AtomicU64>,
}

/// Callers that send requests until they are stopped.
pub(crate) struct Callers {
    tasks: JoinSet<()>,
    stopping: Arc<AtomicBool>,
}

impl Callers {
    /// Starts all callers.
    pub(crate) fn start(target: &Target, seed: u64) -> Self {
        let stopping = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for number in 0..ESTABLISHED {
            let stopping = Arc::clone(&stopping);
            tasks.spawn(established(target.clone(), number, seed, stopping));
        }
        // Milliseconds between two requests.
        let others = [
            (Class::Newcomer, 200),
            (Class::Local, 100),
            (Class::Hostile, 60),
        ];
        for (class, interval) in others {
            let stopping = Arc::clone(&stopping);
            tasks.spawn(repeat(target.clone(), class, interval, seed, stopping));
        }
        Self { tasks, stopping }
    }

    /// Waits for the requests in progress and closes all connections.
    pub(crate) async fn stop(self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.tasks.join_all().await;
    }
}

/// A caller with a token of its own, which it keeps.
async fn established(target: Target, number: u64, seed: u64, stopping: Arc<AtomicBool>) {
    let subject = format!("user-{number}");
    let mut random = Random::new(seed ^ (number << 32));
    let caller = Caller::new(target, Class::Established);
    let mut token = caller.target.issuer.token(&subject);
    let mut keys = caller.target.issuer.rotations();
    while !stopping.load(Ordering::Relaxed) {
        // Half of them sign in again once the issuer has another key.
        let rotations = caller.target.issuer.rotations();
        if number.is_multiple_of(2) && rotations != keys {
            keys = rotations;
            token = caller.target.issuer.token(&subject);
        }
        let expected = Expected::client(&subject);
        caller
            .send("/api", Some(&token), &expected, &mut random)
            .await;
        tokio::time::sleep(Duration::from_millis(20 + random.below(100))).await;
    }
}

/// Callers of the other classes, each request from another one.
async fn repeat(target: Target, class: Class, interval: u64, seed: u64, stopping: Arc<AtomicBool>) {
    let mut random = Random::new(seed ^ interval);
    let caller = Caller::new(target, class);
    while !stopping.load(Ordering::Relaxed) {
        let number = caller.target.newcomers.fetch_add(1, Ordering::Relaxed);
        caller.send_as(class, number, &mut random).await;
        tokio::time::sleep(Duration::from_millis(interval / 2 + random.below(interval))).await;
    }
}

/// What a correct answer says.
struct Expected {
    client: String,
}

impl Expected {
    fn client(subject: &str) -> Self {
        Self {
            client: format!("chaos/{subject}/"),
        }
    }
}

struct Caller {
    target: Target,
    class: Class,
    client: HttpClient,
}

impl Caller {
    fn new(target: Target, class: Class) -> Self {
        Self {
            target,
            class,
            client: Client::builder(TokioExecutor::new()).build_http(),
        }
    }

    async fn send_as(&self, class: Class, number: u64, random: &mut Random) {
        let issuer = &self.target.issuer;
        match class {
            Class::Local => {
                let expected = Expected {
                    client: STATIC_CLIENT.to_owned(),
                };
                self.send("/local", None, &expected, random).await;
            }
            Class::Hostile => {
                let subject = format!("{HOSTILE}{number}");
                let forgery = FORGERIES[usize::try_from(random.below(6)).unwrap()];
                let token = issuer.forge(forgery, &subject);
                self.send("/api", Some(&token), &Expected::client(&subject), random)
                    .await;
            }
            Class::Newcomer | Class::Established => {
                let subject = format!("newcomer-{number}");
                let token = issuer.token(&subject);
                self.send("/api", Some(&token), &Expected::client(&subject), random)
                    .await;
            }
        }
    }

    /// Sends one request, and counts how it ended.
    async fn send(
        &self,
        prefix: &str,
        token: Option<&str>,
        expected: &Expected,
        random: &mut Random,
    ) {
        let (method, path, body) = content(random);
        let uri = format!("http://{}{prefix}{path}", self.target.gateway);
        let mut request = Request::builder().method(method.clone()).uri(uri);
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Full::new(body.clone())).unwrap();
        let sent = self.target.tally.period();
        let exchange = async {
            let (head, body) = self.client.request(request).await.ok()?.into_parts();
            let body = body.collect().await.ok()?.to_bytes();
            Some(Response::from_parts(head, body))
        };
        let ending = match tokio::time::timeout(PATIENCE, exchange).await {
            Ok(Some(response)) => {
                self.check(&response, &method, &body, token, expected);
                ending(&response)
            }
            Ok(None) => "connection ended".to_owned(),
            Err(_) => "no answer".to_owned(),
        };
        self.target.tally.count(self.class, sent, ending);
    }

    /// Records whatever must not be in this answer.
    fn check(
        &self,
        response: &Response<Bytes>,
        method: &Method,
        body: &Bytes,
        token: Option<&str>,
        expected: &Expected,
    ) {
        let violation = |what: &str| {
            let text = format!("{what} ({} caller): {response:?}", self.class);
            self.target
                .tally
                .violation(text.chars().take(600).collect());
        };
        let own = response.headers().contains_key("x-hawkgate-error");
        if self.class == Class::Hostile && !own {
            violation("a forged token was not refused");
        }
        if response.status() == 200 && !own {
            let answer: Value = serde_json::from_slice(response.body()).unwrap_or_default();
            let client = answer["clientId"].as_str().unwrap_or_default();
            if !client.starts_with(&expected.client) {
                violation("the answer is for another caller");
            }
            if answer["method"] != method.as_str() || answer["sha256"] != sha256(body) {
                violation("the upstream received another request");
            }
        }
        let text = format!("{response:?}");
        let secrets = (0..4).map(|epoch| access_token(&format!("{}{epoch}", expected.client)));
        let secrets = secrets.chain([access_token(STATIC_CLIENT), "Hawk id=".to_owned()]);
        if secrets
            .chain(token.map(str::to_owned))
            .any(|secret| text.contains(&secret))
        {
            violation("the answer contains a credential");
        }
    }
}

/// What a request carries.
fn content(random: &mut Random) -> (Method, String, Bytes) {
    match random.below(10) {
        0..=5 => (
            Method::GET,
            format!("/item/{}", random.below(1000)),
            Bytes::new(),
        ),
        6 => (Method::GET, LARGE_PATH.to_owned(), Bytes::new()),
        _ => {
            let length = 1 + random.below(32 * 1024);
            let byte = u8::try_from(random.below(256)).unwrap();
            let body = vec![byte; usize::try_from(length).unwrap()];
            (Method::POST, "/items?a=b%2Fc".to_owned(), body.into())
        }
    }
}

fn ending(response: &Response<Bytes>) -> String {
    let reason = response.headers().get("x-hawkgate-error");
    let reason = reason.and_then(|reason| reason.to_str().ok());
    let status = response.status().as_u16();
    reason.map_or_else(|| status.to_string(), |reason| format!("{status} {reason}"))
}

/// GETs a page of the admin listener: status and text.
pub(crate) async fn get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let client: HttpClient = Client::builder(TokioExecutor::new()).build_http();
    let uri = format!("http://{address}{path}").parse().unwrap();
    let exchange = async {
        let response = client.get(uri).await.ok()?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.ok()?.to_bytes();
        Some((status, String::from_utf8_lossy(&body).into_owned()))
    };
    tokio::time::timeout(PATIENCE, exchange).await.ok()?
}

/// Whether a newcomer and a local process are served now.
pub(crate) async fn all_served(target: &Target, seed: u64) -> bool {
    let silent = Target {
        tally: Tally::default(),
        ..target.clone()
    };
    let mut random = Random::new(seed);
    for class in [Class::Newcomer, Class::Local] {
        let caller = Caller::new(silent.clone(), class);
        let number = silent.newcomers.fetch_add(1, Ordering::Relaxed);
        // The tally that nobody reads has one entry: this request's.
        caller.send_as(class, number, &mut random).await;
        let served = silent.tally.endings(class, true);
        if served.iter().any(|(ending, _)| ending != "200") {
            return false;
        }
    }
    true
}
