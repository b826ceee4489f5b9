use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;

use super::*;
use crate::clock::{ManualClock, UnixMillis};
use crate::credential::{CredentialSource, FetchError, IdentityHasher, Issued, SwapRequest};
use crate::gateway::Observability;
use crate::gateway::resource_isolation::IsolationPolicy;
use crate::gateway::route::Compat;
use crate::gateway::route::tests as fixture;
use crate::gateway::route::{Route, RouteTable};
use crate::gateway::session::SessionTable;
use crate::hawk::{Credentials, Signer};
use crate::secret::SecretString;

const NOW: i64 = 1_700_000_000;
const VALID_URL: &str = "https://tc.example.com/api/queue/v1/task/x%2Fy?z=1";

#[derive(Debug)]
struct StaticSource;

#[async_trait]
impl CredentialSource for StaticSource {
    fn identity(&self, _: &SwapRequest, _: &mut IdentityHasher) -> Result<(), FetchError> {
        Ok(())
    }

    async fn fetch(&self, _: &SwapRequest) -> Result<Issued, FetchError> {
        let credentials = Credentials {
            client_id: "me".into(),
            access_token: SecretString::from("key"),
            certificate: None,
            authorized_scopes: None,
        };
        Ok(Issued {
            credential: Credential::Taskcluster {
                client_id: "me".into(),
                signer: Box::new(Signer::new(&credentials).unwrap()),
            },
            expires_at: None,
            original: None,
        })
    }
}

fn route(name: &str, path: &str, bewit: bool) -> Route {
    let clock = ManualClock::at(UnixMillis::from_secs(NOW));
    let mut route = fixture::route(name, None, path, None);
    route.source = Some(fixture::source(Arc::new(StaticSource), clock));
    route.compat = Compat {
        bewit,
        ..Compat::default()
    };
    route
}

fn gateway() -> Gateway {
    let mut guarded = route("guarded", "/api/guarded/", true);
    guarded.anonymous = false;
    let routes = [
        route("api", "/api/", true),
        route("secrets", "/api/secrets/", false),
        guarded,
    ];
    Gateway {
        routes: RouteTable::new(routes.map(Arc::new).to_vec()),
        sessions: SessionTable::default(),
        login: None,
        credentials: None,
        clock: ManualClock::at(UnixMillis::from_secs(NOW)),
        max_token_bytes: crate::token::DEFAULT_TOKEN_BYTES,
        rule_headers: vec![],
        forward_auth: vec![],
        isolation: IsolationPolicy::default(),
        observability: Observability::default(),
    }
}

async fn sign(url: &str) -> Result<String, Reason> {
    let headers = HeaderMap::new();
    let head = Head {
        method: &Method::POST,
        ..Head::for_test(PATH, &headers)
    };
    match gateway().bewit(head, url).await {
        Ok((_, signed)) => Ok(signed.expose().to_owned()),
        Err(refused) => Err(refused.rejection.reason),
    }
}

#[tokio::test]
async fn a_bewit_is_valid_for_an_hour() {
    for url in [VALID_URL, &format!("  {VALID_URL}\r\n")] {
        let signed = sign(url).await.unwrap();
        let (before, bewit) = signed.split_once("&bewit=").unwrap();
        assert_eq!(before, VALID_URL);
        let plain = URL_SAFE_NO_PAD.decode(bewit).unwrap();
        let plain = String::from_utf8(plain).unwrap();
        assert!(
            plain.starts_with(&format!("me\\{}\\", NOW + 3600)),
            "{plain}"
        );
    }
    for other in [
        "https://TC.example.com:443/api/x",
        "https://tc.example.com/api/x?",
    ] {
        assert!(sign(other).await.unwrap().starts_with(other), "{other}");
    }
}

#[tokio::test]
async fn only_urls_that_a_get_through_the_gateway_would_reach_are_signed() {
    for url in [
        "https://evil.example/api/x",
        "http://tc.example.com/api/x",
        "https://tc.example.com:8443/api/x",
        "https://tc.example.com.evil.example/api/x",
        "https://tc.example.com./api/x",
        "https://tc.example.com/other",
        "https://tc.example.com/",
        "https://tc.example.com/api/secrets/v1/x",
        "ftp://tc.example.com/api/x",
    ] {
        assert_eq!(sign(url).await, Err(Reason::BewitRefused), "{url}");
    }
    let guarded = sign("https://tc.example.com/api/guarded/x").await;
    assert_eq!(guarded, Err(Reason::MissingToken));
}

#[tokio::test]
async fn an_invalid_url_is_refused() {
    let long = format!("https://tc.example.com/api/{}", "x".repeat(5000));
    for url in [
        "",
        " ",
        "/api/x",
        "tc.example.com/api/x",
        "https://",
        "https:///api/x",
        "https://tc.example.com",
        "https://tc.example.com?x",
        "https://user@tc.example.com/api/x",
        "https://user:password@tc.example.com/api/x",
        "https://tc.example.com/api/x#fragment",
        "https://tc.example.com/api/x y",
        "https://tc.example.com/api/x\r\nX-Header: y",
        "https://tc.example.com/api/\u{e4}",
        "https://tc.example.com/api/../x",
        "https://tc.example.com/api/%2e%2e/x",
        "https://tc.example.com/api/%73ecrets/x",
        "https://tc.example.com/api//secrets/x",
        "https://tc.example.com/api/x?bewit=abc",
        "https://tc.example.com\\@evil.example/api/x",
        "https://[::1/api/x",
    ] {
        assert_eq!(sign(url).await, Err(Reason::BadRequest), "{url}");
    }
    assert_eq!(sign(&long).await, Err(Reason::UrlTooLong));
}

#[test]
fn only_the_exact_bewit_path_is_the_endpoint() {
    let gateway = gateway();
    assert!(gateway.is_bewit_endpoint("/bewit") && gateway.is_bewit_endpoint("/bewit?x"));
    for target in ["/bewit/", "/bewits", "/api/bewit", "/", "*"] {
        assert!(!gateway.is_bewit_endpoint(target), "{target}");
    }
    let none = Gateway {
        routes: RouteTable::new(vec![Arc::new(route("api", "/", false))]),
        ..gateway
    };
    assert!(!none.is_bewit_endpoint("/bewit"));
}
