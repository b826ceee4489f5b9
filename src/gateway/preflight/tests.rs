use std::time::Duration;

use futures::FutureExt as _;
use http::{HeaderMap, HeaderValue};

use super::*;
use crate::clock::{ManualClock, SharedClock, UnixMillis};
use crate::gateway::cors::{
    AllowedOrigins, Cors, CorsSettings, DEFAULT_MAX_AGE, FieldNames, OriginPattern, PolicySettings,
};
use crate::gateway::rate_limit::{Rate, RateBy, RateLimiter, RateLimiters};
use crate::gateway::reason::Reason;
use crate::gateway::resource_isolation::{IsolationPolicy, Transport};
use crate::gateway::route::{Isolation, RouteTable, tests as routes};
use crate::gateway::{Observability, compat};

const APP: &str = "https://app.example.com";
const EVIL: &str = "https://evil.example";

fn policy(methods: Option<&[Method]>) -> Cors {
    let settings = PolicySettings {
        allowed_origins: AllowedOrigins::Listed(vec![OriginPattern::parse(APP).unwrap()]),
        allowed_headers: FieldNames::Listed(Vec::new()),
        exposed_headers: FieldNames::Listed(Vec::new()),
        allow_credentials: false,
        max_age: DEFAULT_MAX_AGE,
    };
    Cors::new(&CorsSettings::Policy(settings), methods, false)
}

fn gateway(routes: Vec<Route>, clock: SharedClock) -> Gateway {
    Gateway {
        routes: RouteTable::new(routes.into_iter().map(Arc::new).collect()),
        sessions: crate::gateway::session::SessionTable::default(),
        login: None,
        credentials: None,
        clock,
        max_token_bytes: crate::token::DEFAULT_TOKEN_BYTES,
        rule_headers: vec![],
        forward_auth: vec![],
        isolation: IsolationPolicy::default(),
        observability: Observability::default(),
    }
}

struct Fixture {
    gateway: Gateway,
    clock: Arc<ManualClock>,
}

/// A route for each way to configure it.
fn fixture() -> Fixture {
    let clock = ManualClock::at(UnixMillis::from_secs(1_800_000_000));
    let guarded = |name: &str, path: &str, methods: Option<&[Method]>, cors: Option<Cors>| Route {
        anonymous: false,
        cors,
        ..routes::route(name, None, path, methods)
    };
    let mut local = guarded("local", "/local/", None, Some(policy(None)));
    local.anonymous = true;
    local.isolation = Isolation::Always;
    let mut limited = guarded("limited", "/limited/", None, Some(policy(None)));
    let rate = |by| {
        let rate = Rate {
            requests: 1,
            per: Duration::from_mins(1),
            burst: 2,
            by,
            clients: 10,
        };
        Arc::new(RateLimiter::new(&rate, clock.clone()))
    };
    limited.rates = RateLimiters::new(vec![rate(RateBy::Address)]);
    let mut by_client = guarded("by-client", "/by-client/", None, Some(policy(None)));
    by_client.rates = RateLimiters::new(vec![rate(RateBy::Client)]);
    let mut short = guarded("short", "/api/", None, Some(policy(None)));
    short.compat = route_compat();
    let get = [Method::GET];
    let post = [Method::POST];
    let routes = vec![
        guarded("open", "/open/", None, Some(policy(None))),
        guarded("get", "/split/", Some(&get), Some(policy(Some(&get)))),
        guarded("post", "/split/", Some(&post), Some(policy(Some(&post)))),
        guarded("without", "/without/", None, None),
        guarded("upstream", "/upstream/", None, Some(Cors::Upstream)),
        local,
        limited,
        by_client,
        short,
    ];
    Fixture {
        gateway: gateway(routes, clock.clone()),
        clock,
    }
}

fn route_compat() -> crate::gateway::route::Compat {
    // A short path is expanded before it is routed.
    assert!(compat::expand("/queue/v1/ping").is_some());
    crate::gateway::route::Compat {
        shortcut: true,
        ..crate::gateway::route::Compat::default()
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Got {
    /// Answered, with or without permission, on this route.
    Answer(String, bool),
    /// Sent to the upstream of this route.
    Forward(String),
    Refused(Reason),
    /// It goes the way of every other request.
    None,
}

impl Fixture {
    fn send(&self, target: &str, fields: &[(&'static str, &str)]) -> Got {
        self.send_as(&Method::OPTIONS, "localhost", target, fields, false)
    }

    fn preflight(&self, target: &str, origin: &str, method: &str) -> Got {
        let fields = [
            ("origin", origin),
            ("access-control-request-method", method),
            ("sec-fetch-site", "cross-site"),
        ];
        self.send(target, &fields)
    }

    fn send_as(
        &self,
        method: &Method,
        host: &str,
        target: &str,
        fields: &[(&'static str, &str)],
        has_body: bool,
    ) -> Got {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        let head = Head {
            method,
            host,
            transport: Transport::Tcp,
            ..Head::for_test(target, &headers)
        };
        let now = Now::read(&*self.clock);
        let preflight = self.gateway.preflight(head, has_body, now);
        match preflight.now_or_never().unwrap() {
            Ok(None) => Got::None,
            Ok(Some(Preflight::Answer(answer))) => {
                assert_eq!(answer.status, 204);
                let allows = |(name, _): &(&str, String)| name.starts_with("access-control-");
                let allowed = answer.headers.iter().any(allows);
                assert_eq!(allowed, answer.details.cause.is_none());
                Got::Answer(answer.details.route.unwrap().to_string(), allowed)
            }
            Ok(Some(Preflight::Forward(admission))) => {
                assert!(admission.credential().is_none() && admission.caller.subject().is_none());
                Got::Forward(admission.route.name.to_string())
            }
            Err(refused) => {
                assert!(refused.route.is_some());
                Got::Refused(refused.rejection.reason)
            }
        }
    }
}

fn answer(route: &str, allowed: bool) -> Got {
    Got::Answer(route.into(), allowed)
}

#[test]
fn a_preflight_matches_the_route_of_the_method_that_it_asks_for() {
    let fixture = fixture();
    for (target, method, expected) in [
        ("/open/x", "GET", answer("open", true)),
        ("/open/x?y", "DELETE", answer("open", true)),
        ("/split/x", "GET", answer("get", true)),
        ("/split/x", "POST", answer("post", true)),
        ("/api/queue/v1/ping", "GET", answer("short", true)),
        ("/without/x", "GET", Got::None),
        ("/nowhere", "GET", Got::None),
        ("/upstream/x", "GET", Got::Forward("upstream".into())),
    ] {
        assert_eq!(fixture.preflight(target, APP, method), expected, "{target}");
    }
    for origin in [EVIL, "null"] {
        assert_eq!(
            fixture.preflight("/open/x", origin, "GET"),
            answer("open", false)
        );
        let forwarded = Got::Forward("upstream".into());
        assert_eq!(fixture.preflight("/upstream/x", origin, "GET"), forwarded);
    }
}

#[test]
fn a_method_that_no_route_takes_gets_no_permission() {
    let fixture = fixture();
    for method in ["PUT", "post", "", "GET, POST"] {
        let got = fixture.preflight("/split/x", APP, method);
        assert!(matches!(got, Got::Answer(_, false)), "{method} {got:?}");
    }
    // No preflight: asks for no method, or comes from no page.
    assert_eq!(fixture.send("/split/x", &[("origin", APP)]), Got::None);
    let asks = [("access-control-request-method", "GET")];
    assert_eq!(fixture.send("/split/x", &asks), Got::None);
    let fields = [("origin", APP), asks[0]];
    let got = fixture.send_as(&Method::GET, "localhost", "/split/x", &fields, false);
    assert_eq!(got, Got::None);
}

#[test]
fn ambiguous_paths_get_no_answer_of_their_own() {
    let fixture = fixture();
    for target in ["/open/%2e%2e/split/x", "*", "/%6fpen/x"] {
        assert_eq!(fixture.preflight(target, APP, "GET"), Got::None, "{target}");
    }
}

#[test]
fn several_origins_or_methods_are_none() {
    let fixture = fixture();
    let (origin, method) = (("origin", APP), ("access-control-request-method", "GET"));
    let got = fixture.send("/open/x", &[origin, origin, method]);
    assert_eq!(got, answer("open", false));
    let got = fixture.send("/open/x", &[origin, method, method]);
    assert_eq!(got, answer("open", false));
}

#[test]
fn content_never_goes_upstream_without_a_token() {
    let fixture = fixture();
    let fields = [("origin", APP), ("access-control-request-method", "GET")];
    let send = |target| fixture.send_as(&Method::OPTIONS, "localhost", target, &fields, true);
    assert_eq!(send("/upstream/x"), Got::None);
    assert_eq!(send("/open/x"), answer("open", true));
}

#[test]
fn a_local_route_knows_its_own_names_and_the_listed_pages_only() {
    let fixture = fixture();
    assert_eq!(
        fixture.preflight("/local/x", APP, "PUT"),
        answer("local", true)
    );
    for origin in [EVIL, "null", "http://localhost:3000"] {
        let got = fixture.preflight("/local/x", origin, "PUT");
        assert_eq!(got, Got::Refused(Reason::CrossSite), "{origin}");
    }
    let fields = [("origin", APP), ("access-control-request-method", "PUT")];
    for host in ["evil.example", "evil.example:8080", "0.0.0.0"] {
        let got = fixture.send_as(&Method::OPTIONS, host, "/local/x", &fields, false);
        assert_eq!(got, Got::Refused(Reason::HostNotAllowed), "{host}");
    }
}

#[test]
fn requests_of_listed_pages_pass_the_check_of_local_routes() {
    let fixture = fixture();
    let route = fixture
        .gateway
        .routes
        .find("localhost", "/local/x", &Method::PUT);
    let route = route.unwrap();
    let check = |host, fields: &[(&'static str, &str)]| {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        let head = Head {
            host,
            ..Head::for_test("/local/x", &headers)
        };
        let checked = fixture.gateway.check_isolation(route, head);
        checked.map_err(|rejection| rejection.reason)
    };
    let site = ("sec-fetch-site", "cross-site");
    assert_eq!(check("localhost", &[("origin", APP), site]), Ok(()));
    assert_eq!(
        check("evil.example", &[("origin", APP), site]),
        Err(Reason::HostNotAllowed)
    );
    for fields in [
        &[("origin", EVIL), site][..],
        &[("origin", APP), ("origin", APP)],
        &[("origin", APP), ("origin", EVIL)],
        &[site],
        &[("referer", "https://app.example.com/page")],
    ] {
        let refused = Err(Reason::CrossSite);
        assert_eq!(check("localhost", fields), refused, "{fields:?}");
    }
}

#[test]
fn preflights_are_limited_by_address_and_not_as_callers() {
    let fixture = fixture();
    for _ in 0..2 {
        let got = fixture.preflight("/limited/x", APP, "GET");
        assert_eq!(got, answer("limited", true));
    }
    let got = fixture.preflight("/limited/x", APP, "GET");
    assert_eq!(got, Got::Refused(Reason::RateLimited));
    fixture.clock.advance(Duration::from_mins(1));
    let got = fixture.preflight("/limited/x", APP, "GET");
    assert_eq!(got, answer("limited", true));
    for _ in 0..5 {
        let got = fixture.preflight("/by-client/x", APP, "GET");
        assert_eq!(got, answer("by-client", true));
    }
}

#[test]
fn what_a_page_may_read_is_known_before_routing() {
    let fixture = fixture();
    let allowed = |target: &str, fields: &[(&'static str, &str)], method: Method| {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        let head = Head {
            method: &method,
            ..Head::for_test(target, &headers)
        };
        let grant = fixture.gateway.cors_grant(head);
        grant.map(|grant| grant.is_allowed())
    };
    let app = ("origin", APP);
    assert_eq!(allowed("/open/x", &[app], Method::GET), Some(true));
    assert_eq!(
        allowed("/open/x", &[("origin", EVIL)], Method::GET),
        Some(false)
    );
    assert_eq!(allowed("/split/x", &[app], Method::PUT), None);
    let asks = ("access-control-request-method", "POST");
    assert_eq!(
        allowed("/split/x", &[app, asks], Method::OPTIONS),
        Some(true)
    );
    for target in ["/without/x", "/upstream/x", "/nowhere", "/%6fpen/x"] {
        assert_eq!(allowed(target, &[app], Method::GET), None, "{target}");
    }
}

#[test]
fn a_gateway_without_cors_has_no_preflights() {
    let clock = ManualClock::at(UnixMillis::from_secs(1_800_000_000));
    let route = routes::route("r", None, "/", None);
    let fixture = Fixture {
        gateway: gateway(vec![route], clock.clone()),
        clock,
    };
    assert_eq!(fixture.preflight("/x", APP, "GET"), Got::None);
}
