use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::clock::{ManualClock, UnixMillis};
use crate::credential::IdentityKey;
use crate::remote::http_client::{HttpClient, HttpClientOptions};
use crate::remote::oauth::MAX_RESPONSE_BYTES;
use crate::remote::settings::{ClientProof, OauthClient};
use crate::remote::testing::{Peer, Reply, peer};
use crate::token::{BearerToken, VerifiedToken};

const NOW: UnixMillis = UnixMillis::from_secs(1_900_000_000);

fn settings() -> TokenExchangeSettings {
    TokenExchangeSettings {
        audience: Some("billing".into()),
        resource: None,
        scopes: vec![],
        requested_token_type: None,
        subject_token_type: ACCESS_TOKEN.into(),
    }
}

fn source(peer: &Peer, settings: TokenExchangeSettings) -> TokenExchangeSource {
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
    TokenExchangeSource::new(settings, endpoint)
}

fn request(bearer: Option<&str>, caller: Caller) -> SwapRequest {
    SwapRequest {
        caller,
        bearer: bearer.map(|text| BearerToken::new(text).unwrap()),
        scopes: None,
        clock_offset: 0,
    }
}

/// A caller whose token is valid for `seconds`.
fn verified(seconds: u64) -> Caller {
    let end = NOW.plus(Duration::from_secs(seconds));
    Caller::Verified(Arc::new(
        VerifiedToken::for_tests("idp", "a", None).until(end),
    ))
}

fn response(changes: &Value) -> Reply {
    let mut body = json!({
        "access_token": "t0ken", "token_type": "Bearer", "expires_in": 600, "issued_token_type": ACCESS_TOKEN,
    });
    for (name, value) in changes.as_object().unwrap() {
        body[name] = value.clone();
    }
    Reply::json(200, &body.to_string())
}

#[tokio::test]
async fn the_callers_token_is_sent_as_subject_token() {
    let mut peer = peer(response(&json!({}))).await;
    let issued = source(&peer, settings())
        .fetch(&request(Some("hunter2"), verified(60)))
        .await;
    assert!(matches!(issued.unwrap().credential, Credential::Bearer(t) if t.expose() == "t0ken"));
    let sent = peer.requests.recv().await.unwrap();
    assert!(
        sent.ends_with(
            "\r\n\r\ngrant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange&subject_token=hunter2\
             &subject_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Aaccess_token&audience=billing&client_id=me"
        ),
        "{sent}"
    );
}

#[tokio::test]
async fn the_lifetime_is_bounded_by_both_tokens() {
    let at = |seconds| Some(NOW.plus(Duration::from_secs(seconds)));
    let digest = BearerToken::new("hunter2").unwrap().digest();
    let opaque = Caller::Delegated {
        issuer: "opaque".into(),
        digest,
        peer: None,
    };
    for (expires_in, caller, expected) in [
        (json!(600), verified(60), at(60)),
        (json!(600), verified(3600), at(600)),
        (json!(null), verified(60), at(60)),
        (json!(600), opaque.clone(), at(600)),
        (json!(null), opaque, None),
    ] {
        let peer = peer(response(&json!({ "expires_in": expires_in }))).await;
        let issued = source(&peer, settings())
            .fetch(&request(Some("hunter2"), caller))
            .await;
        assert_eq!(issued.unwrap().expires_at, expected, "{expires_in}");
    }
}

#[tokio::test]
async fn the_issued_token_type_must_be_usable() {
    let custom = "http://auth0.com/oauth/token-type/federated-connection-access-token";
    for (requested, issued, problem) in [
        (None, json!(ACCESS_TOKEN), None),
        (None, json!(JWT), None),
        (Some(custom), json!(custom), None),
        (None, json!(null), Some("no issued_token_type")),
        (
            None,
            json!("urn:ietf:params:oauth:token-type:refresh_token"),
            Some("not that of an access token"),
        ),
        (None, json!(custom), Some("set requested_token_type")),
        (Some(custom), json!(ACCESS_TOKEN), Some("not the requested")),
    ] {
        let peer = peer(response(&json!({ "issued_token_type": issued }))).await;
        let settings = TokenExchangeSettings {
            requested_token_type: requested.map(str::to_owned),
            ..settings()
        };
        let result = source(&peer, settings)
            .fetch(&request(Some("a"), verified(60)))
            .await;
        match (result, problem) {
            (Ok(_), None) => {}
            (Err(FetchError::BadAnswer(text)), Some(problem)) => {
                assert!(text.contains(problem), "{text}");
            }
            (result, _) => panic!("{requested:?} {issued}: {result:?}"),
        }
    }
    let unusable = peer(response(&json!({ "token_type": "N_A" }))).await;
    let result = source(&unusable, settings())
        .fetch(&request(Some("a"), verified(60)))
        .await;
    assert!(result.unwrap_err().to_string().contains("N_A"));
}

#[tokio::test]
async fn a_bad_subject_token_is_refused_and_a_bad_client_is_not() {
    for (status, code, expected) in [
        (400, "invalid_request", "Refused"),
        (400, "invalid_grant", "Refused"),
        (401, "invalid_token", "Refused"),
        (403, "access_denied", "NotEntitled"),
        (400, "invalid_target", "NotEntitled"),
        (401, "invalid_client", "Misconfigured"),
        (400, "unauthorized_client", "Misconfigured"),
        (401, "", "Misconfigured"),
        (400, "unsupported_grant_type", "Misconfigured"),
        (404, "", "BadAnswer"),
        (500, "invalid_request", "Unavailable"),
        (429, "", "Unavailable"),
    ] {
        let body = json!({ "error": code, "error_description": "hunter2" }).to_string();
        let peer = peer(Reply::json(status, &body)).await;
        let result = source(&peer, settings())
            .fetch(&request(Some("hunter2"), verified(60)))
            .await;
        let error = format!("{:?}", result.unwrap_err());
        assert!(
            error.starts_with(expected) && !error.contains("hunter2"),
            "{status} {code}: {error}"
        );
    }
}

#[tokio::test]
async fn cache_keys_are_bound_to_the_token() {
    let peer = peer(response(&json!({}))).await;
    let source = source(&peer, settings());
    let key = IdentityKey::random().unwrap();
    let identity = |bearer: Option<&str>| {
        let mut hasher = key.hasher();
        source.identity(&request(bearer, verified(60)), &mut hasher)?;
        Ok::<_, FetchError>(hasher.finish())
    };
    assert_eq!(identity(Some("a")).unwrap(), identity(Some("a")).unwrap());
    assert_ne!(identity(Some("a")).unwrap(), identity(Some("b")).unwrap());
    assert!(matches!(identity(None), Err(FetchError::NotEntitled(_))));
    assert!(!source.is_shared());
}
