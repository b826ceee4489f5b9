//! Requests to an OAuth2 endpoint.

use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};
use url::Url;

use super::authentication::{Request, authenticate};
use super::failure::{ErrorResponse, Failure, not_json};
use super::token_response::{self, TokenResponse};
use crate::clock::SharedClock;
use crate::credential::FetchError;
use crate::remote::http_client::{HttpClient, HttpResponse};
use crate::remote::settings::OauthClient;

const FORM: HeaderValue = HeaderValue::from_static("application/x-www-form-urlencoded");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// An endpoint that takes forms from an authenticated client. Secrets are read for each
/// request, so that a rotated one takes effect without a reload.
#[derive(Debug)]
pub struct Endpoint {
    url: Url,
    config: OauthClient,
    client: HttpClient,
    clock: SharedClock,
}

impl Endpoint {
    /// Its URL.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// hawkgate's client there.
    pub fn client_id(&self) -> &str {
        &self.config.id
    }

    /// `config` is hawkgate's client registration at the server of `url`. `client` must accept
    /// responses of [`super::MAX_RESPONSE_BYTES`].
    pub fn new(url: Url, config: OauthClient, client: HttpClient, clock: SharedClock) -> Self {
        Self {
            url,
            config,
            client,
            clock,
        }
    }

    /// Sends a token request. `parameters` are those of the grant, `grant_type` first; client
    /// authentication is added. Parameters with an empty value must be omitted by the caller
    /// (RFC 6749 §3.2).
    ///
    /// # Errors
    /// The cause, as a [`Failure`]; [`Failure::into_fetch_error`] decides whose fault it is.
    pub async fn grant(&self, parameters: &[(&str, &str)]) -> Result<TokenResponse, Failure> {
        self.grant_with(parameters, HeaderMap::new()).await
    }

    /// Like [`Self::grant`], with additional header fields.
    ///
    /// # Errors
    /// As [`Self::grant`].
    pub async fn grant_with(
        &self,
        parameters: &[(&str, &str)],
        headers: HeaderMap,
    ) -> Result<TokenResponse, Failure> {
        let sent_at = self.clock.now();
        let request = self.request(parameters).await?;
        let response = require_json(self.transmit(request, headers, FORM).await?)?;
        token_response::parse(&response, sent_at).map_err(Failure::Unusable)
    }

    /// Sends `parameters` with client authentication and returns a 200 response in JSON.
    ///
    /// # Errors
    /// As [`Self::grant`].
    pub async fn post(&self, parameters: &[(&str, &str)]) -> Result<HttpResponse, Failure> {
        let request = self.request(parameters).await?;
        require_json(self.transmit(request, HeaderMap::new(), FORM).await?)
    }

    /// Like [`Self::post`], with the parameters as a JSON object (Auth0's `/mfa/challenge`).
    ///
    /// # Errors
    /// As [`Self::grant`].
    pub async fn post_json(&self, parameters: &[(&str, &str)]) -> Result<HttpResponse, Failure> {
        let request = self.request(parameters).await?;
        let response = self.transmit(request.into_json(), HeaderMap::new(), JSON);
        require_json(response.await?)
    }

    /// Sends `parameters` with client authentication and returns any 2xx response, even an empty
    /// one (RFC 7009 §2.2).
    ///
    /// # Errors
    /// As [`Self::grant`].
    pub async fn send(&self, parameters: &[(&str, &str)]) -> Result<HttpResponse, Failure> {
        let request = self.request(parameters).await?;
        self.transmit(request, HeaderMap::new(), FORM).await
    }

    async fn request(&self, parameters: &[(&str, &str)]) -> Result<Request, Failure> {
        let mut request = Request::new(parameters);
        authenticate(&self.config, &mut request, self.clock.now()).await?;
        Ok(request)
    }

    async fn transmit(
        &self,
        mut request: Request,
        mut headers: HeaderMap,
        content_type: HeaderValue,
    ) -> Result<HttpResponse, Failure> {
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(CONTENT_TYPE, content_type);
        if let Some(authorization) = request.authorization.take() {
            headers.insert(http::header::AUTHORIZATION, authorization);
        }
        let body = request.into_body();
        let response = self.client.post(&self.url, headers, body).await?;
        self.check_status(response)
    }

    fn check_status(&self, response: HttpResponse) -> Result<HttpResponse, Failure> {
        let status = response.status;
        if status.is_client_error() || status.is_server_error() {
            return Err(Failure::ErrorResponse(ErrorResponse::read(
                &response,
                self.clock.now(),
            )));
        }
        if status.is_redirection() {
            let text = format!(
                "status {}: redirects are not followed; check the endpoint's URL",
                status.as_u16()
            );
            return Err(unusable(text));
        }
        Ok(response)
    }
}

/// Requires status 200 and a JSON body.
fn require_json(response: HttpResponse) -> Result<HttpResponse, Failure> {
    if response.status != http::StatusCode::OK {
        return Err(unusable(format!("status {}", response.status.as_u16())));
    }
    if !response.is_json() {
        return Err(unusable(not_json(&response)));
    }
    Ok(response)
}

fn unusable(what: String) -> Failure {
    Failure::Unusable(FetchError::BadAnswer(what))
}
