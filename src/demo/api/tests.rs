//! The API against hawkgate's own signer, over real sockets.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};

use super::*;
use crate::clock::{Clock, ManualClock};
use crate::demo::identity_provider::{IdentityProvider, Validity};
use crate::demo::{AUDIENCE, server};
use crate::hawk::{Certificate, Credentials, SignedRequest, Signer};
use crate::remote::http_client::{HttpClient, HttpClientOptions, HttpResponse};

struct Peers {
    clock: Arc<ManualClock>,
    identity: IdentityProvider,
    api: Api,
    client: HttpClient,
}

impl Peers {
    async fn start() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let clock = ManualClock::at(UnixMillis::from_secs(1_795_201_809));
        let identity = IdentityProvider::start(clock.clone()).await.unwrap();
        let api = Api::start(clock.clone(), identity.verifier())
            .await
            .unwrap();
        let client = HttpClient::new(&HttpClientOptions {
            timeout: Duration::from_secs(20),
            max_bytes: 65_536,
            ca: None,
            network: crate::network::Network::default(),
        })
        .unwrap();
        Self {
            clock,
            identity,
            api,
            client,
        }
    }

    async fn get(&self, path: &str, authorization: &str) -> HttpResponse {
        let value = HeaderValue::try_from(authorization).unwrap();
        let headers = HeaderMap::from_iter([(header::AUTHORIZATION, value)]);
        let url = self.api.url.join(path).unwrap();
        self.client.get(&url, headers).await.unwrap()
    }

    fn token(&self) -> String {
        let validity = Validity::For(Duration::from_hours(1));
        self.identity.token(AUDIENCE, validity).unwrap()
    }

    async fn credentials(&self) -> Signer {
        let response = self
            .get(EXCHANGE, &format!("Bearer {}", self.token()))
            .await;
        assert_eq!(response.status, StatusCode::OK);
        let body: Value = serde_json::from_slice(&response.body).unwrap();
        let credentials = &body["credentials"];
        let text = |name: &str| credentials[name].as_str().unwrap();
        Signer::new(&Credentials {
            client_id: text("clientId").into(),
            access_token: text("accessToken").into(),
            certificate: Some(Certificate::parse(text("certificate")).unwrap()),
            authorized_scopes: None,
        })
        .unwrap()
    }

    fn sign(&self, signer: &Signer, target: &str) -> String {
        let request = SignedRequest {
            at: self.clock.now(),
            nonce: "n",
            method: "GET",
            target,
            host: "127.0.0.1",
            port: self.api.url.port().unwrap(),
            payload_hash: None,
        };
        signer.authorization(&request).unwrap()
    }
}

const CURRENT: &str = "/api/auth/v1/scopes/current";

#[tokio::test]
async fn credentials_from_the_exchange_work_until_they_are_revoked() {
    let peers = Peers::start().await;
    let signer = peers.credentials().await;
    let response = peers.get(CURRENT, &peers.sign(&signer, CURRENT)).await;
    assert_eq!(response.status, StatusCode::OK);
    let elsewhere = peers.sign(&signer, "/api/auth/v1/other");
    assert_eq!(
        peers.get(CURRENT, &elsewhere).await.status,
        StatusCode::UNAUTHORIZED
    );
    peers.api.revoke().unwrap();
    let response = peers.get(CURRENT, &peers.sign(&signer, CURRENT)).await;
    assert_eq!(response.status, StatusCode::UNAUTHORIZED);
    assert_eq!(
        response.header(&header::WWW_AUTHENTICATE),
        Some("hawk"),
        "the challenge that Taskcluster sends"
    );
    let fresh = peers.credentials().await;
    let response = peers.get(CURRENT, &peers.sign(&fresh, CURRENT)).await;
    assert_eq!(response.status, StatusCode::OK);
    let clients: Vec<bool> = peers
        .api
        .take_requests()
        .iter()
        .map(|s| s.client.is_ok())
        .collect();
    assert_eq!(clients, [true, false, false, true]);
    assert_eq!(peers.api.exchanges(), 2);
}

#[tokio::test]
async fn a_bearer_token_is_refused_by_an_endpoint_that_requires_hawk() {
    let peers = Peers::start().await;
    for authorization in [
        &format!("Bearer {}", peers.token()),
        "Hawk id=\"demo/alice\"",
        "",
    ] {
        let response = peers.get(CURRENT, authorization).await;
        assert_eq!(response.status, StatusCode::UNAUTHORIZED, "{authorization}");
    }
    assert!(
        peers.api.take_requests()[0].bearer,
        "the bearer token is recorded"
    );
}

#[tokio::test]
async fn the_exchange_refuses_invalid_tokens() {
    let peers = Peers::start().await;
    let hour = Duration::from_hours(1);
    let other_provider = IdentityProvider::start(peers.clock.clone()).await.unwrap();
    let (head, tail) = {
        let token = peers.token();
        let (head, tail) = token.split_once('.').unwrap();
        (head.to_owned(), tail.to_owned())
    };
    let invalid = [
        peers
            .identity
            .token("another-api", Validity::For(hour))
            .unwrap(),
        peers
            .identity
            .token(AUDIENCE, Validity::ExpiredFor(hour))
            .unwrap(),
        other_provider.token(AUDIENCE, Validity::For(hour)).unwrap(),
        format!("{head}.e30.{tail}"),
        format!("{head}..{tail}"),
        String::new(),
    ];
    for token in invalid {
        let response = peers.get(EXCHANGE, &format!("Bearer {token}")).await;
        assert_eq!(response.status, StatusCode::BAD_REQUEST, "{token}");
    }
    assert_eq!(peers.api.exchanges(), 0);
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused() {
    let peers = Peers::start().await;
    let body = bytes::Bytes::from(vec![b'x'; server::MAX_BODY + 1]);
    let url = peers.api.url.join("/api/queue/v1/x").unwrap();
    let response = peers.client.post(&url, HeaderMap::new(), body).await;
    // Refused before the whole body has arrived, so the client sees either the response or a
    // closed connection.
    assert!(response.is_err() || response.is_ok_and(|a| a.status == StatusCode::PAYLOAD_TOO_LARGE));
    assert!(peers.api.take_requests().is_empty());
}
