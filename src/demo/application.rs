//! The web application behind hawkgate: one page, which calls the API through hawkgate from the same
//! origin. Its server knows nothing of sign-ins, tokens and credentials.

use http::{Method, StatusCode};
use serde_json::json;
use url::Url;

use super::server::{self, Request, Response, Server};
use super::{DemoError, origin, stylesheet};

const PAGE: &str = include_str!("web/index.html");
const SCRIPT: &str = include_str!("web/script.js");

/// A running application.
pub(super) struct Application {
    pub(super) url: Url,
    _server: Server,
}

impl Application {
    /// Starts the application. `identity_provider` is where the sign-out form leads in the end.
    pub(super) async fn start(identity_provider: &Url) -> Result<Self, DemoError> {
        let policy = policy(origin(identity_provider));
        let listening = server::listen().await?;
        let server = listening.serve(move |request: &Request| handle(request, &policy));
        Ok(Self {
            url: server.url.clone(),
            _server: server,
        })
    }
}

/// Everything comes from the page's own origin; forms may also lead to the provider, because
/// browsers apply `form-action` to redirects that answer a form.
fn policy(identity_provider: &str) -> String {
    format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
         form-action 'self' {identity_provider}; base-uri 'none'; frame-ancestors 'none'; \
         require-trusted-types-for 'script'; trusted-types 'none'"
    )
}

fn handle(request: &Request, policy: &str) -> Response {
    if !matches!(request.method, Method::GET | Method::HEAD) {
        return server::method_not_allowed("GET, HEAD");
    }
    match request.path() {
        "/" => server::html(StatusCode::OK, PAGE.to_owned(), policy),
        "/script.js" => server::response(StatusCode::OK, "text/javascript; charset=utf-8", SCRIPT),
        stylesheet::PATH => stylesheet::response(),
        stylesheet::ICON_PATH => stylesheet::icon(),
        _ => server::json(StatusCode::NOT_FOUND, &json!({ "error": "Not found" })),
    }
}
