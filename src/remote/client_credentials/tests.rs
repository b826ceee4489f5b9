use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::clock::{ManualClock, UnixMillis};
use crate::credential::Lookup;
use crate::credential::{CacheLimits, CachedSource, Lease, Leased, Replacement, SourceOptions};
use crate::remote::http_client::{HttpClient, HttpClientOptions};
use crate::remote::oauth::MAX_RESPONSE_BYTES;
use crate::remote::settings::{ClientProof, OauthClient};
use crate::remote::testing::{Peer, Reply, peer};
use crate::token::{Caller, VerifiedToken};

const NOW: UnixMillis = UnixMillis::from_secs(1_900_000_000);
const TOKEN: &str = "{\"access_token\":\"t0ken\",\"token_type\":\"Bearer\",\"expires_in\":600}";

fn settings() -> ClientCredentialsSettings {
    ClientCredentialsSettings {
        audience: Some("https://api.example.com/".into()),
        resource: Some("urn:api".into()),
        scopes: vec!["read:a".into(), "read:b".into(), "write".into()],
        organization: Some("org_1".into()),
    }
}

fn source(peer: &Peer, settings: ClientCredentialsSettings) -> ClientCredentialsSource {
    let options = HttpClientOptions {
        timeout: Duration::from_secs(5),
        max_bytes: MAX_RESPONSE_BYTES,
        ca: None,
        network: crate::network::Network::default(),
    };
    let client_config = OauthClient {
        id: "me".into(),
        proof: ClientProof::Public,
    };
    let client = HttpClient::new(&options).unwrap();
    let endpoint = Endpoint::new(
        peer.url.clone(),
        client_config,
        client,
        ManualClock::at(NOW),
    );
    ClientCredentialsSource::new(settings, endpoint)
}

fn request(subject: &str, scopes: Option<&[&str]>) -> SwapRequest {
    let token = VerifiedToken::for_tests("idp", subject, None);
    SwapRequest {
        caller: Caller::Verified(Arc::new(token)),
        bearer: None,
        scopes: scopes.map(|list| list.iter().map(|s| (*s).to_owned()).collect()),
        clock_offset: 0,
    }
}

async fn form(peer: &mut Peer) -> String {
    let request = peer.requests.recv().await.unwrap();
    request.split_once("\r\n\r\n").unwrap().1.to_owned()
}

#[tokio::test]
async fn all_configured_parameters_are_sent() {
    let mut peer = peer(Reply::json(200, TOKEN)).await;
    let issued = source(&peer, settings())
        .fetch(&request("a", None))
        .await
        .unwrap();
    assert!(matches!(&issued.credential, Credential::Bearer(t) if t.expose() == "t0ken"));
    assert_eq!(issued.expires_at, Some(NOW.plus(Duration::from_mins(10))));
    assert_eq!(
        form(&mut peer).await,
        "grant_type=client_credentials&audience=https%3A%2F%2Fapi.example.com%2F&resource=urn%3Aapi\
         &scope=read%3Aa+read%3Ab+write&organization=org_1&client_id=me"
    );
    let bare = source(&peer, ClientCredentialsSettings::default());
    bare.fetch(&request("a", None)).await.unwrap();
    assert_eq!(
        form(&mut peer).await,
        "grant_type=client_credentials&client_id=me"
    );
}

#[tokio::test]
async fn rules_narrow_the_scope_and_never_empty_it() {
    let mut peer = peer(Reply::json(200, TOKEN)).await;
    let narrow = |own: &[&str]| {
        let scopes = own.iter().map(|s| (*s).to_owned()).collect();
        source(
            &peer,
            ClientCredentialsSettings {
                scopes,
                ..Default::default()
            },
        )
    };
    let (own, none) = (narrow(&["read:a", "read:b", "write"]), narrow(&[]));
    for (source, allowed, sent) in [
        (&own, &["read:*", "admin"][..], Some("read%3Aa+read%3Ab")),
        (&own, &["*"], Some("read%3Aa+read%3Ab+write")),
        (&none, &["x"], Some("x")),
        (&own, &["admin"], None),
        (&own, &[], None),
        (&none, &[], None),
    ] {
        let result = source.fetch(&request("a", Some(allowed))).await;
        match sent {
            Some(sent) => {
                result.unwrap();
                let sent = format!("grant_type=client_credentials&scope={sent}&client_id=me");
                assert_eq!(form(&mut peer).await, sent);
            }
            None => assert!(
                matches!(result, Err(FetchError::NotEntitled(_))),
                "{allowed:?}"
            ),
        }
    }
    assert!(
        peer.requests.try_recv().is_err(),
        "no other request was sent"
    );
}

#[tokio::test]
async fn a_token_with_more_scopes_than_the_rules_allow_is_rejected() {
    let body = TOKEN.replace('}', ",\"scope\":\"read:a admin\"}");
    let peer = peer(Reply::json(200, &body)).await;
    let source = source(&peer, settings());
    // Without rules the server may grant additional scopes.
    source.fetch(&request("a", None)).await.unwrap();
    let error = source
        .fetch(&request("a", Some(&["read:a"])))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, FetchError::BadAnswer(t) if t.contains("more scopes")),
        "{error}"
    );
}

#[tokio::test]
async fn errors_are_never_the_callers_fault() {
    for (status, error) in [
        (400, "invalid_grant"),
        (401, "invalid_client"),
        (401, "invalid_token"),
        (403, "access_denied"),
        (400, "invalid_scope"),
        (400, "invalid_request"),
    ] {
        let peer = peer(Reply::json(status, &format!("{{\"error\":\"{error}\"}}"))).await;
        let error = source(&peer, settings())
            .fetch(&request("a", None))
            .await
            .unwrap_err();
        let operator_error = matches!(error, FetchError::Misconfigured { .. });
        assert!(operator_error, "{status} {error}");
    }
}

#[tokio::test]
async fn callers_share_one_token_per_set_of_scopes() {
    let mut peer = peer(Reply::json(200, TOKEN)).await;
    let options = SourceOptions {
        limits: CacheLimits {
            max_entries: 100,
            max_bytes: 1 << 20,
            max_age: Duration::from_hours(1),
            refresh_ahead: Duration::ZERO,
            refusals: Duration::from_secs(10),
        },
        timeout: Duration::from_secs(5),
        concurrency: 4,
    };
    let inner = Arc::new(source(&peer, settings()));
    let cached = CachedSource::new("own".into(), inner, options, ManualClock::at(NOW)).unwrap();
    for (subject, scopes, expected) in [
        ("a", None, Lookup::Fetched),
        ("b", None, Lookup::Hit),
        ("b", Some(&["read:a", "write"][..]), Lookup::Fetched),
        ("c", Some(&["write", "read:a"][..]), Lookup::Hit),
        ("c", Some(&["write"][..]), Lookup::Fetched),
    ] {
        let leased = cached.lease(&request(subject, scopes)).await.unwrap();
        assert_eq!(leased.lookup, expected, "{subject} {scopes:?}");
    }
    // A token that the upstream rejects is replaced for all callers.
    let (a, b) = (request("a", None), request("b", None));
    let rejected = cached.lease(&a).await.unwrap().lease;
    assert_eq!(
        replaced(&cached, &a, &rejected).await.lookup,
        Lookup::Fetched
    );
    assert_eq!(replaced(&cached, &b, &rejected).await.lookup, Lookup::Hit);
    let mut requests = 0;
    while peer.requests.try_recv().is_ok() {
        requests += 1;
    }
    assert_eq!((requests, cached.entries()), (4, 3));
}

async fn replaced(cached: &CachedSource, request: &SwapRequest, rejected: &Lease) -> Leased {
    match cached.replace(request, rejected).await.unwrap() {
        Replacement::New(leased) => leased,
        Replacement::StillRejected => panic!("the replacement is limited"),
    }
}
