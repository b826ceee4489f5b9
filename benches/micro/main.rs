//! What each step of the hot path costs by itself, and what a million cached identities
//! change. `cargo bench --bench micro`; the last figures are printed beside their target.

#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a benchmark stops at the first surprise, and prints"
)]
#![allow(
    missing_docs,
    reason = "criterion's macros make undocumented functions"
)]

mod fixture;

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use hawkgate::clock::SystemClock;
use hawkgate::gateway::Head;
use hawkgate::gateway::rule::{Expression, RequestAttributes};
use hawkgate::hawk::{SignedRequest, nonce};
use hawkgate::token::{BearerToken, authenticate};
use http::Method;
use serde_json::json;

use fixture::{Crowd, TARGET, gateway, head_of, issuer, runtime, signer, token, token_with};

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
        let headers = head_of(&token);
        c.bench_function(&format!("verify {algorithm}, cold"), |b| {
            b.iter_batched(
                || runtime.block_on(issuer(&jwks)),
                |issuer| {
                    let bearer = BearerToken::from_headers(&headers)
                        .ok()
                        .flatten()
                        .expect("a bearer");
                    runtime
                        .block_on(authenticate(&bearer, &[issuer]))
                        .expect("a good token")
                },
                BatchSize::SmallInput,
            );
        });
    }
    let (jwks, token) = token("RS256");
    let (issuer, headers) = (runtime.block_on(issuer(&jwks)), head_of(&token));
    let issuers = [issuer];
    c.bench_function("verify, cached", |b| {
        b.iter(|| {
            let bearer = BearerToken::from_headers(black_box(&headers))
                .ok()
                .flatten()
                .expect("a bearer");
            runtime
                .block_on(authenticate(&bearer, &issuers))
                .expect("a good token")
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
    let headers = head_of(&token);
    let admit = || {
        let head = Head {
            method: &Method::GET,
            host: "tc.example.com",
            target: TARGET,
            headers: &headers,
            peer: None,
            certificate: None,
        };
        let admission = runtime.block_on(gateway.admit(head)).expect("an admission");
        gateway
            .sign(&admission, &Method::GET, TARGET)
            .expect("a header")
    };
    admit();
    c.bench_function("route, verify, lease, sign: all cached", |b| b.iter(admit));
}

/// Three rules, of which the last matches; and the most work that one rule may make.
fn rules(c: &mut Criterion) {
    const GROUPS: &str = "claims['https://claims.example.com/groups'].exists(g, g == 'dev')";
    let runtime = runtime();
    let list: Vec<_> = (0..256).map(|n| n % 10).collect();
    let more = json!({ "https://claims.example.com/groups": ["qa", "ops", "dev"], "list": list });
    let (jwks, token) = token_with("RS256", &more);
    let issuer = runtime.block_on(issuer(&jwks));
    let bearer = BearerToken::new(&token).expect("a bearer");
    let caller = runtime
        .block_on(authenticate(&bearer, &[issuer]))
        .expect("a good token")
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
    c.bench_function("rules, once for each token: cold", |b| {
        b.iter(|| once.evaluate(black_box(&caller), request, |_, _| ()));
    });
    c.bench_function("rules, once for each token: remembered", |b| {
        b.iter(|| once.decide(black_box(&caller), request));
    });
    let each = fixture::rules(&format!(
        "{GROUPS} && request.path.startsWith('/api/queue/')"
    ));
    c.bench_function("rules, for each request", |b| {
        b.iter(|| each.decide(black_box(&caller), request));
    });
    let pattern = fixture::rules(
        "request.path.matches('^/api/queue/v1/task/[A-Za-z0-9_-]{22}(/|$)') || true",
    );
    c.bench_function("rules, for each request, with a pattern", |b| {
        b.iter(|| pattern.decide(black_box(&caller), request));
    });
    // Compares lists of 256 as often as the limit of steps lets it.
    let comparisons = ["claims.list != claims.list"; 11].join(" || ");
    let most = fixture::rules(&format!("claims.list.exists(x, {comparisons}) || true"));
    c.bench_function("rules, the most work", |b| {
        b.iter(|| most.evaluate(black_box(&caller), request, |_, _| ()));
    });
}

/// The whole hit of an opaque token: read the header, look up, sign.
fn crowds(c: &mut Criterion) {
    let runtime = runtime();
    let mut group = c.benchmark_group("hit among cached identities");
    // How many are cached, and how many of them take turns to ask.
    for (cached, asking) in [(100, 100), (1_000_000, 100), (1_000_000, 1_000_000)] {
        let crowd = runtime.block_on(Crowd::of(cached));
        let mut order = 0usize;
        group.bench_function(format!("{cached} cached, {asking} ask"), |b| {
            b.iter_batched(
                || {
                    // A stride that visits everybody in no order that a cache line could guess.
                    order = (order + 611_953) % asking;
                    Crowd::head(order)
                },
                |head| runtime.block_on(crowd.hit(&head)),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
    println!("target: the second at most 1.2 times the first");
    println!("(in the third, each hit also finds the processor's own caches cold)");
}

criterion_group!(
    benches,
    routes,
    verification,
    hawk,
    admission,
    rules,
    crowds
);
criterion_main!(benches);
