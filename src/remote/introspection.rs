//! Token introspection over HTTP (RFC 7662 §2).

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use http::StatusCode;

use super::http_client::{HttpClient, HttpClientOptions, TransportError};
use super::oauth::{Endpoint, Failure, MAX_RESPONSE_BYTES, OnBehalfOf};
use crate::credential::FetchError;
use crate::network::Network;
use crate::token::{BearerToken, IntrospectionError, IntrospectionFault, Introspector};

/// The timeout of one request, including connecting.
const TIMEOUT: Duration = Duration::from_secs(3);

/// An HTTP client with the limits for introspection: 3 s and 64 KiB. `ca` is a PEM file with
/// the only CAs trusted.
///
/// # Errors
/// When `ca` cannot be read or the HTTP client cannot be built.
pub fn introspection_client(
    ca: Option<PathBuf>,
    network: &Network,
) -> Result<HttpClient, TransportError> {
    HttpClient::new(&HttpClientOptions {
        timeout: TIMEOUT,
        max_bytes: MAX_RESPONSE_BYTES,
        ca,
        network: network.clone(),
    })
}

/// Calls the introspection endpoint, authenticated as hawkgate's own client. RFC 7662 §4
/// requires authentication, because an open endpoint would allow token scanning.
#[derive(Debug)]
pub struct HttpIntrospector {
    endpoint: Endpoint,
}

impl HttpIntrospector {
    /// `endpoint` is the introspection endpoint.
    pub fn new(endpoint: Endpoint) -> Self {
        Self { endpoint }
    }
}

#[async_trait]
impl Introspector for HttpIntrospector {
    async fn introspect(&self, token: &BearerToken) -> Result<Vec<u8>, IntrospectionError> {
        let form = [
            ("token", token.expose()),
            ("token_type_hint", "access_token"),
        ];
        match self.endpoint.post(&form).await {
            Ok(response) => Ok(response.body.to_vec()),
            // Some servers refuse to introspect their own JWTs with this RFC 7009 §2.2.1 code.
            Err(Failure::ErrorResponse(error)) if error.is("unsupported_token_type") => {
                Ok(b"{\"active\":false}".to_vec())
            }
            Err(failure) => Err(introspection_error(failure)),
        }
    }
}

/// An invalid token gets a 200 response (RFC 7662 §2.2). A 4xx other than 429 still concerns the
/// token alone, which may look like an attack to a firewall, unless it is about hawkgate's client.
fn introspection_error(failure: Failure) -> IntrospectionError {
    let fault = match &failure {
        Failure::ErrorResponse(error)
            if error.concerns_our_client() || error.is("unsupported_grant_type") =>
        {
            IntrospectionFault::Client
        }
        Failure::ErrorResponse(error)
            if error.status.is_client_error() && error.status != StatusCode::TOO_MANY_REQUESTS =>
        {
            IntrospectionFault::Token
        }
        Failure::Unauthenticated(_) => IntrospectionFault::Client,
        _ => IntrospectionFault::Issuer,
    };
    let (cause, retry_after) = match failure.into_fetch_error(OnBehalfOf::Client) {
        FetchError::Unavailable { cause, retry_after }
        | FetchError::Misconfigured { cause, retry_after } => (cause, retry_after),
        other => (other.to_string(), None),
    };
    IntrospectionError {
        fault,
        cause,
        retry_after,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{ManualClock, UnixMillis};
    use crate::remote::settings::{ClientProof, OauthClient};
    use crate::remote::testing::{Reply, closed_port, peer};

    fn introspector(url: &url::Url) -> HttpIntrospector {
        let options = HttpClientOptions {
            timeout: Duration::from_millis(500),
            max_bytes: MAX_RESPONSE_BYTES,
            ca: None,
            network: crate::network::Network::default(),
        };
        let oauth_client = OauthClient {
            id: "me".into(),
            proof: ClientProof::Public,
        };
        let client = HttpClient::new(&options).unwrap();
        let clock = ManualClock::at(UnixMillis(0));
        HttpIntrospector::new(Endpoint::new(url.clone(), oauth_client, client, clock))
    }

    #[tokio::test]
    async fn the_token_is_sent_in_the_form_and_the_response_returned_verbatim() {
        let mut peer = peer(Reply::json(200, "{\"active\":false}")).await;
        let token = BearerToken::new("hunter2==").unwrap();
        let response = introspector(&peer.url).introspect(&token).await.unwrap();
        assert_eq!(response, b"{\"active\":false}");
        let request = peer.requests.recv().await.unwrap();
        let form = "\r\n\r\ntoken=hunter2%3D%3D&token_type_hint=access_token&client_id=me";
        assert!(
            request.starts_with("POST / ") && request.ends_with(form),
            "{request}"
        );
    }

    #[tokio::test]
    async fn the_error_unsupported_token_type_means_not_active() {
        let peer = peer(Reply::json(400, "{\"error\":\"unsupported_token_type\"}")).await;
        let token = BearerToken::new("hunter2").unwrap();
        let response = introspector(&peer.url).introspect(&token).await.unwrap();
        assert_eq!(response, b"{\"active\":false}");
    }

    #[tokio::test]
    async fn a_4xx_is_the_tokens_fault_unless_it_concerns_the_client() {
        use IntrospectionFault::{Client, Issuer, Token};
        let token = BearerToken::new("../hunter2").unwrap();
        for (status, body, fault) in [
            (400, "", Token),
            (400, "{\"error\":\"invalid_request\"}", Token),
            (403, "<html>", Token),
            (404, "", Token),
            (413, "", Token),
            (400, "{\"error\":\"invalid_client\"}", Client),
            (401, "{\"error\":\"invalid_client\"}", Client),
            (401, "", Client),
            (403, "{\"error\":\"unauthorized_client\"}", Client),
            (429, "", Issuer),
            (500, "", Issuer),
            (502, "<html>", Issuer),
            (503, "", Issuer),
        ] {
            let peer = peer(Reply::json(status, body)).await;
            let result = introspector(&peer.url).introspect(&token).await;
            assert_eq!(result.unwrap_err().fault, fault, "{status} {body}");
        }
    }

    #[tokio::test]
    async fn unusable_responses_are_explained_without_the_token() {
        let token = BearerToken::new("hunter2").unwrap();
        let huge = "x".repeat(MAX_RESPONSE_BYTES + 1);
        let html = [("Content-Type", "text/html")];
        for (reply, cause, retry_after) in [
            (
                Reply::json(401, "{\"error\":\"invalid_client\"}"),
                "invalid_client",
                Some(Duration::from_secs(1)),
            ),
            (
                Reply::json(400, "{\"error\":\"hunter2\"}"),
                "status 400",
                None,
            ),
            (Reply::json(404, ""), "status 404", None),
            (
                Reply::new(429, &[("Retry-After", "7")], ""),
                "429",
                Some(Duration::from_secs(7)),
            ),
            (Reply::new(500, &html, "hunter2"), "status 500", None),
            (
                Reply::new(302, &[("Location", "/hunter2")], ""),
                "redirect",
                None,
            ),
            (
                Reply::new(200, &html, "hunter2"),
                "an HTML page, not JSON",
                None,
            ),
            (Reply::json(200, &huge), "larger than", None),
            (Reply::Stall(Vec::new()), "no complete response", None),
        ] {
            let peer = peer(reply).await;
            let error = introspector(&peer.url)
                .introspect(&token)
                .await
                .unwrap_err();
            assert!(error.cause.contains(cause), "{error}");
            assert!(!error.cause.contains("hunter2"), "{error}");
            assert_eq!(error.retry_after, retry_after, "{error}");
        }
        let result = introspector(&closed_port().await).introspect(&token).await;
        assert!(result.is_err());
    }
}
