//! The authorization code flow with a browser on this machine (RFC 8252): listen on loopback,
//! send the browser to the issuer, receive the redirect, exchange the code for tokens.

use std::process::{Command, Stdio};

use url::Url;

use hawkgate::remote::callback_server::{CallbackRequest, CallbackServer, Page};
use hawkgate::signin::{
    AuthorizationCode, AuthorizationFlow, CallbackError, LIFETIME, LoopbackRedirect, Session,
};
use hawkgate::token::IdTokenVerifier;

use super::LoginContext;
use crate::cli::exit::{CommandError, failed, status};

/// The redirect URI of clients that were registered without a loopback one.
const DEFAULT_REDIRECT_URI: &str = "http://127.0.0.1/callback";

impl LoginContext<'_> {
    pub(super) async fn browser_flow(
        &self,
        verifier: &IdTokenVerifier,
    ) -> Result<Session, CommandError> {
        let remedy = "try --device";
        let endpoint = &self.provider.authorization_endpoint;
        let endpoint = self
            .provider
            .require(endpoint, "authorization_endpoint", remedy)?;
        self.require_pkce()?;
        let mut server = self.listen().await?;
        let (issuer, iss_required) = (
            &self.client.issuer,
            self.provider.authorization_response_iss_parameter_supported,
        );
        let uri = server.redirect().uri().clone();
        let mut flow = AuthorizationFlow::start(issuer, iss_required, uri, self.clock.monotonic())?;
        self.open_browser(&flow.url(endpoint, &self.client.id, &self.request));
        let code = self.authorization_code(&mut server, &mut flow);
        let callback = tokio::time::timeout(LIFETIME, code).await;
        let result = match callback {
            Err(_) => Err(CallbackError::Expired.into()),
            Ok(Err(error)) => Err(error),
            Ok(Ok((code, callback))) => {
                let session = tokio::select! {
                    session = self.exchange_code(verifier, &code) => session,
                    never = reject_callbacks(&mut server) => never,
                };
                callback.respond(if session.is_ok() {
                    Page::Done
                } else {
                    Page::Failed
                });
                session
            }
        };
        server.shutdown().await;
        result
    }

    /// Waits for the redirect that belongs to `flow`. Other requests get an error page and have
    /// no effect.
    async fn authorization_code(
        &self,
        server: &mut CallbackServer,
        flow: &mut AuthorizationFlow,
    ) -> Result<(AuthorizationCode, CallbackRequest), CommandError> {
        while let Some(callback) = server.next().await {
            match flow.accept_redirect(callback.query(), self.clock.monotonic()) {
                Ok(code) => return Ok((code, callback)),
                Err(CallbackError::StateMismatch | CallbackError::AlreadyUsed) => {
                    callback.respond(Page::Unexpected);
                }
                Err(error) => {
                    callback.respond(Page::Failed);
                    return Err(error.into());
                }
            }
        }
        failed("the local port was closed unexpectedly")
    }

    async fn exchange_code(
        &self,
        verifier: &IdTokenVerifier,
        code: &AuthorizationCode,
    ) -> Result<Session, CommandError> {
        let endpoint = self.token_endpoint()?;
        let response = self
            .sign_in
            .exchange_code(endpoint, code, &self.request)
            .await?;
        let nonce = self.request.wants_id_token().then_some(code.nonce.as_str());
        self.verified_session(verifier, response, nonce).await
    }

    /// If the provider lists its PKCE methods, S256 must be among them. A provider without a list
    /// is sent a challenge anyway; it must ignore unknown parameters (RFC 6749 §3.1).
    fn require_pkce(&self) -> Result<(), CommandError> {
        let methods = self.provider.code_challenge_methods_supported.as_ref();
        match methods {
            Some(methods) if !methods.iter().any(|m| m == "S256") => failed(
                "the issuer does not support PKCE with S256, so signing in would not be safe",
            ),
            _ => Ok(()),
        }
    }

    async fn listen(&self) -> Result<CallbackServer, CommandError> {
        let uri = self
            .args
            .redirect_uri
            .as_ref()
            .or(self.client.redirect_uri.as_ref());
        let mut redirect =
            LoopbackRedirect::parse(uri.map_or(DEFAULT_REDIRECT_URI, String::as_str))?;
        if let Some(port) = self.args.port {
            redirect = redirect.with_port(port);
        }
        let address = redirect.address();
        CallbackServer::bind(redirect).await.or_else(|error| {
            failed(format!(
                "cannot listen on {address} for the browser: {error}; choose another --port"
            ))
        })
    }

    /// Printing the URL is safe: it contains no secret of the user's, and the redirect of any
    /// sign-in started with it goes to this process.
    fn open_browser(&self, url: &Url) {
        if !self.args.no_browser && launch_browser(url) {
            status("opened your browser to sign in. If nothing happens, open this URL:");
        } else {
            status("to sign in, open this URL in a browser on this machine:");
        }
        status(&format!("\n  {url}\n"));
    }
}

/// Rejects further callbacks while the code is being exchanged.
async fn reject_callbacks(server: &mut CallbackServer) -> Result<Session, CommandError> {
    while let Some(callback) = server.next().await {
        callback.respond(Page::Unexpected);
    }
    std::future::pending().await
}

/// Asks the desktop to open `url`, whose scheme (http or https) was validated with the issuer's
/// metadata. Does not wait for the program, which may be the browser itself.
fn launch_browser(url: &Url) -> bool {
    let program = if cfg!(target_os = "macos") {
        "open"
    } else {
        "xdg-open"
    };
    let started = Command::new(program)
        .arg(url.as_str())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    started.is_ok()
}
