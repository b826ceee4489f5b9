//! A small OpenID provider: discovery, a JWK Set, a sign-in form for two users, the authorization
//! code flow with PKCE, access tokens according to RFC 9068, refresh tokens that are valid once,
//! and logout.

mod authorization;
mod grants;
mod pages;
mod parameters;
mod token_endpoint;
mod tokens;
mod users;

use std::sync::{Arc, OnceLock};

use http::{Method, StatusCode};
use serde_json::{Value, json};
use url::Url;

use self::grants::Grants;
use self::tokens::TokenSigner;
use super::server::{self, Request, Response, Server};
use super::{DemoError, stylesheet};
use crate::clock::SharedClock;

pub(super) use self::tokens::{AccessToken, TokenVerifier, Validity};
pub(super) use self::users::USERS;

/// The only client: hawkgate, as the demo's configuration calls it.
pub(super) const CLIENT_ID: &str = "hawkgate";

/// A registered client. Its addresses are compared byte by byte (RFC 9700 §4.1.3).
#[derive(Debug)]
pub(super) struct Client {
    id: &'static str,
    pub(super) redirect_uris: Vec<String>,
    pub(super) post_logout_redirect_uris: Vec<String>,
}

/// A running identity provider.
pub(super) struct IdentityProvider {
    pub(super) url: Url,
    service: Arc<Service>,
    _server: Server,
}

struct Service {
    authority: String,
    tokens: TokenSigner,
    grants: Grants,
    client: OnceLock<Client>,
}

impl IdentityProvider {
    pub(super) async fn start(clock: SharedClock) -> Result<Self, DemoError> {
        let listening = server::listen().await?;
        let url = listening.url.clone();
        let service = Arc::new(Service {
            authority: url.authority().to_owned(),
            tokens: TokenSigner::new(super::origin(&url).to_owned(), clock.clone())?,
            grants: Grants::new(clock),
            client: OnceLock::new(),
        });
        let handler = service.clone();
        let server = listening.serve(move |request| handler.handle(request));
        Ok(Self {
            url,
            service,
            _server: server,
        })
    }

    /// Registers the client, once its addresses are known. A second one is not registered.
    pub(super) fn register(
        &self,
        redirect_uris: Vec<String>,
        post_logout_redirect_uris: Vec<String>,
    ) {
        let client = Client {
            id: CLIENT_ID,
            redirect_uris,
            post_logout_redirect_uris,
        };
        let _ = self.service.client.set(client);
    }

    /// Issues a token for `audience` to the tour, without a sign-in.
    pub(super) fn token(&self, audience: &str, validity: Validity) -> Result<String, DemoError> {
        self.service.tokens.tour_token(audience, validity)
    }

    /// Returns the verifier that the API uses for tokens.
    pub(super) fn verifier(&self) -> Arc<TokenVerifier> {
        self.service.tokens.verifier()
    }
}

impl Service {
    fn client(&self, id: &str) -> Option<&Client> {
        self.any_client().filter(|client| client.id == id)
    }

    fn any_client(&self) -> Option<&Client> {
        self.client.get()
    }

    fn handle(&self, request: &Request) -> Response {
        // Another name in Host is that of a web page that resolves its own name to this machine.
        if request.header("host") != self.authority {
            return pages::error(
                StatusCode::MISDIRECTED_REQUEST,
                "this is not the address of the provider",
            );
        }
        match (request.path(), &request.method) {
            ("/.well-known/openid-configuration", _) => {
                server::json(StatusCode::OK, &self.metadata())
            }
            ("/jwks", _) => server::json(StatusCode::OK, &self.tokens.keys()),
            (stylesheet::PATH, _) => stylesheet::response(),
            (stylesheet::ICON_PATH, _) => stylesheet::icon(),
            (authorization::AUTHORIZE, &Method::GET | &Method::POST) => {
                authorization::authorize(self, request)
            }
            (pages::SIGN_IN, &Method::POST) => authorization::sign_in(self, request),
            (pages::SIGN_IN, _) => server::method_not_allowed("POST"),
            (token_endpoint::TOKEN, _) => token_endpoint::token(self, request),
            (token_endpoint::REVOKE, _) => token_endpoint::revoke(self, request),
            (token_endpoint::END_SESSION, &Method::GET | &Method::POST) => {
                token_endpoint::end_session(self, request)
            }
            (authorization::AUTHORIZE | token_endpoint::END_SESSION, _) => {
                server::method_not_allowed("GET, POST")
            }
            _ => server::json(StatusCode::NOT_FOUND, &json!({ "error": "Not found" })),
        }
    }

    fn metadata(&self) -> Value {
        let issuer = self.tokens.issuer();
        let at = |path: &str| format!("{issuer}{path}");
        let scopes: Vec<&str> = grants::SCOPES.iter().map(|(s, _)| *s).collect();
        json!({
            "issuer": issuer,
            "jwks_uri": at("/jwks"),
            "authorization_endpoint": at(authorization::AUTHORIZE),
            "token_endpoint": at(token_endpoint::TOKEN),
            "revocation_endpoint": at(token_endpoint::REVOKE),
            "end_session_endpoint": at(token_endpoint::END_SESSION),
            "response_types_supported": ["code"],
            "response_modes_supported": ["query"],
            "grant_types_supported": ["authorization_code", "refresh_token"],
            "subject_types_supported": ["public"],
            "scopes_supported": scopes,
            "claims_supported": ["sub", "name", "email", "email_verified", "sid", "auth_time"],
            "id_token_signing_alg_values_supported": ["ES256"],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": ["none"],
            "revocation_endpoint_auth_methods_supported": ["none"],
            "authorization_response_iss_parameter_supported": true,
            "request_parameter_supported": false,
            "request_uri_parameter_supported": false,
        })
    }
}

#[cfg(test)]
mod tests;
