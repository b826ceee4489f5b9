//! Measures each step of the hot path, and a cache hit among a million cached identities:
//! `cargo bench --bench micro`.

#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a benchmark panics on any failure, and prints"
)]
#![allow(
    missing_docs,
    reason = "criterion's macros generate undocumented functions"
)]

mod fixture;
mod session;

use std::borrow::Cow;
use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use hawkgate::clock::{Now, SystemClock};
use hawkgate::gateway::request_headers::StrippedHeaders;
use hawkgate::gateway::reserved_headers::{as_read, is_hop_by_hop, is_reserved};
use hawkgate::gateway::resource_isolation::Transport;
use hawkgate::gateway::rule::{Expression, RequestAttributes};
use hawkgate::gateway::{CallerMemo, Head};
use hawkgate::hawk::{SignedRequest, nonce};
use hawkgate::token::{BearerToken, DEFAULT_TOKEN_BYTES, authenticate};
use http::{HeaderMap, Method};
use serde_json::json;

use fixture::{
    CachedCallers, TARGET, bearer_headers, gateway, issuer, runtime, signer, token, token_with,
};

fn routes(c: &mut Criterion) {
    let gateway = gateway(100, None);
    c.bench_function("route match, 100 routes", |b| {
        b.iter(|| {
            gateway.routes.find(
                black_box("tc.example.com:443"),
                black_box(TARGET),
                &Method::GET,
            )
        });
    });
}

fn verification(c: &mut Criterion) {
    let runtime = runtime();
    for algorithm in ["RS256", "ES256", "EdDSA"] {
        let (jwks, token) = token(algorithm);
        let headers = bearer_headers(&token);
        c.bench_function(&format!("verify {algorithm}, cold"), |b| {
            b.iter_batched(
                || runtime.block_on(issuer(&jwks)),
                |issuer| {
                    let bearer = BearerToken::from_headers(&headers, DEFAULT_TOKEN_BYTES)
                        .ok()
                        .flatten()
                        .expect("a bearer");
                    runtime
                        .block_on(authenticate(&bearer, &[issuer], None))
                        .expect("a valid token")
                },
                BatchSize::SmallInput,
            );
        });
    }
    let (jwks, token) = token("RS256");
    let (issuer, headers) = (runtime.block_on(issuer(&jwks)), bearer_headers(&token));
    let issuers = [issuer];
    c.bench_function("verify, cached", |b| {
        b.iter(|| {
            let bearer = BearerToken::from_headers(black_box(&headers), DEFAULT_TOKEN_BYTES)
                .ok()
                .flatten()
                .expect("a bearer");
            runtime
                .block_on(authenticate(&bearer, &issuers, None))
                .expect("a valid token")
        });
    });
}

fn hawk(c: &mut Criterion) {
    let signer = signer();
    let clock = SystemClock::shared();
    c.bench_function("Hawk header", |b| {
        b.iter(|| {
            signer.authorization(&SignedRequest {
                at: clock.now(),
                nonce: &nonce(),
                method: "GET",
                target: black_box(TARGET),
                host: "tc.example.com",
                port: 443,
                payload_hash: None,
            })
        });
    });
}

fn admission(c: &mut Criterion) {
    let runtime = runtime();
    let (jwks, token) = token("RS256");
    let gateway = gateway(10, Some(runtime.block_on(issuer(&jwks))));
    let headers = bearer_headers(&token);
    let admit = || {
        let admitted = runtime.block_on(gateway.admit(head(&headers)));
        let admission = admitted.expect("an admission");
        gateway
            .sign(&admission, &Method::GET, TARGET)
            .expect("a header")
    };
    admit();
    c.bench_function("route, verify, lease, sign: all cached", |b| b.iter(admit));
    let clock = SystemClock::shared();
    let mut memo = CallerMemo::default();
    c.bench_function("route, recall, lease, sign", |b| {
        b.iter(|| {
            let now = Now::read(&*clock);
            let head = head(&headers);
            let found = gateway.match_route(head).expect("a route");
            let admitted = gateway.admit_with_memo(found, head, now, &mut memo);
            let admission = runtime.block_on(admitted).expect("an admission");
            gateway
                .sign(&admission, &Method::GET, TARGET)
                .expect("a header")
        });
    });
}

fn head(headers: &HeaderMap) -> Head<'_> {
    Head {
        method: &Method::GET,
        host: "tc.example.com",
        target: TARGET,
        headers,
        peer: None,
        transport: Transport::Tcp,
        https: false,
        certificate: None,
    }
}

/// Which fields of a request are forwarded, by name.
fn header_names(c: &mut Criterion) {
    const NAMES: [&str; 9] = [
        "host",
        "user-agent",
        "accept",
        "accept-encoding",
        "authorization",
        "x-request-id",
        "content-type",
        "x-taskcluster-trace-id",
        "cache-control",
    ];
    let stripped = StrippedHeaders::default();
    c.bench_function("names of nine fields", |b| {
        b.iter(|| {
            let names = black_box(NAMES).into_iter();
            let removed = names.filter(|name| {
                matches!(as_read(name), Cow::Owned(_))
                    || is_hop_by_hop(name)
                    || is_reserved(name)
                    || stripped.strips(name)
            });
            removed.count()
        });
    });
}

/// Three rules, of which the last matches, and the most expensive rule that the limits allow.
fn rules(c: &mut Criterion) {
    const GROUPS: &str = "claims['https://claims.example.com/groups'].exists(g, g == 'dev')";
    let runtime = runtime();
    let list: Vec<_> = (0..256).map(|n| n % 10).collect();
    let more = json!({ "https://claims.example.com/groups": ["qa", "ops", "dev"], "list": list });
    let (jwks, token) = token_with("RS256", &more);
    let issuer = runtime.block_on(issuer(&jwks));
    let bearer = BearerToken::new(&token).expect("a bearer");
    let caller = runtime
        .block_on(authenticate(&bearer, &[issuer], None))
        .expect("a valid token")
        .caller;
    let request = RequestAttributes {
        method: "GET",
        host: "tc.example.com",
        path: TARGET,
        user_agent: "curl/8",
        address: None,
        certificate: None,
    };
    c.bench_function("rule, compile", |b| {
        b.iter(|| Expression::compile(black_box(GROUPS)));
    });
    let once = fixture::rules(GROUPS);
    c.bench_function("rules, once per token: cold", |b| {
        b.iter(|| once.evaluate(black_box(&caller), request, |_, _| ()));
    });
    c.bench_function("rules, once per token: cached", |b| {
        b.iter(|| once.decide(black_box(&caller), request));
    });
    let each = fixture::rules(&format!(
        "{GROUPS} && request.path.startsWith('/api/queue/')"
    ));
    c.bench_function("rules, per request", |b| {
        b.iter(|| each.decide(black_box(&caller), request));
    });
    let pattern = fixture::rules(
        "request.path.matches('^/api/queue/v1/task/[A-Za-z0-9_-]{22}(/|$)') || true",
    );
    c.bench_function("rules, per request, with a pattern", |b| {
        b.iter(|| pattern.decide(black_box(&caller), request));
    });
    // Compares lists of 256 elements as often as the step limit allows.
    let comparisons = ["claims.list != claims.list"; 11].join(" || ");
    let most_expensive = fixture::rules(&format!("claims.list.exists(x, {comparisons}) || true"));
    c.bench_function("rules, most expensive", |b| {
        b.iter(|| most_expensive.evaluate(black_box(&caller), request, |_, _| ()));
    });
}

/// A whole cache hit for an opaque token: read the header, look up, sign.
fn cache_hits(c: &mut Criterion) {
    let runtime = runtime();
    let mut group = c.benchmark_group("hit among cached identities");
    // The number of cached identities, and the number of those that send requests.
    for (cached, active) in [(100, 100), (1_000_000, 100), (1_000_000, 1_000_000)] {
        let callers = runtime.block_on(CachedCallers::new(cached));
        let mut order = 0usize;
        group.bench_function(format!("{cached} cached, {active} active"), |b| {
            b.iter_batched(
                || {
                    // The stride visits every identity in an order that the CPU cannot prefetch.
                    order = (order + 611_953) % active;
                    CachedCallers::headers(order)
                },
                |headers| runtime.block_on(callers.hit(&headers)),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
    println!("target: the second benchmark takes at most 1.2 times as long as the first");
    println!("(in the third, each hit also misses the CPU's caches)");
}

criterion_group!(
    benches,
    routes,
    verification,
    hawk,
    admission,
    header_names,
    rules,
    cache_hits,
    session::session
);
criterion_main!(benches);
