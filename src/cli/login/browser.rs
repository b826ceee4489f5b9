//! Signing in with a browser on this machine (RFC 8252): a door on loopback is opened, the
//! browser is sent to the issuer, and comes back through the door with a code.

use std::process::{Command, Stdio};

use url::Url;

use hawkgate::remote::callback_server::{CallbackRequest, CallbackServer, Page};
use hawkgate::signin::{
    AuthorizationCode, AuthorizationFlow, CallbackError, LIFETIME, LoopbackRedirect, Session,
};
use hawkgate::token::IdTokenVerifier;

use super::LoginContext;
use crate::cli::exit::{CommandError, failed, status};

/// Where the client names none.
const DEFAULT_REDIRECT: &str = "http://127.0.0.1/callback";

impl LoginContext<'_> {
    pub(super) async fn browser_flow(
        &self,
        verifier: &IdTokenVerifier,
    ) -> Result<Session, CommandError> {
        let remedy = "try --device";
        let offered = &self.provider.authorization_endpoint;
        let endpoint = self
            .provider
            .need(offered, "authorization_endpoint", remedy)?;
        self.check_pkce()?;
        let mut door = self.open_door().await?;
        let (issuer, iss_required) = (
            &self.who.issuer,
            self.provider.authorization_response_iss_parameter_supported,
        );
        let uri = door.at().uri().clone();
        let mut attempt =
            AuthorizationFlow::begin(issuer, iss_required, uri, self.clock.monotonic())?;
        self.send_to(&attempt.url(endpoint, &self.who.id, &self.request));
        let answered = tokio::time::timeout(LIFETIME, self.answer(&mut door, &mut attempt)).await;
        let end = match answered {
            Err(_) => Err(CallbackError::Expired.into()),
            Ok(Err(stop)) => Err(stop),
            Ok(Ok((code, visitor))) => {
                let session = tokio::select! {
                    session = self.redeem(verifier, &code) => session,
                    never = turn_away(&mut door) => never,
                };
                visitor.answer(if session.is_ok() {
                    Page::Done
                } else {
                    Page::Failed
                });
                session
            }
        };
        door.shut().await;
        end
    }

    /// Waits for the answer that is ours; others are shown a page and change nothing.
    async fn answer(
        &self,
        door: &mut CallbackServer,
        attempt: &mut AuthorizationFlow,
    ) -> Result<(AuthorizationCode, CallbackRequest), CommandError> {
        while let Some(visitor) = door.next().await {
            match attempt.redeem(visitor.query(), self.clock.monotonic()) {
                Ok(code) => return Ok((code, visitor)),
                Err(CallbackError::StateMismatch | CallbackError::AlreadyUsed) => {
                    visitor.answer(Page::Unexpected)
                }
                Err(error) => {
                    visitor.answer(Page::Failed);
                    return Err(error.into());
                }
            }
        }
        failed("the port on this machine was lost")
    }

    async fn redeem(
        &self,
        verifier: &IdTokenVerifier,
        code: &AuthorizationCode,
    ) -> Result<Session, CommandError> {
        let endpoint = self.token_endpoint()?;
        let received = self.sign_in.redeem(endpoint, code, &self.request).await?;
        let nonce = self.request.wants_id_token().then_some(code.nonce.as_str());
        self.believe(verifier, received, nonce).await
    }

    /// A provider that says what it takes must take S256; one that says nothing is not
    /// asked: it ignores what it does not know (RFC 6749 §3.1).
    fn check_pkce(&self) -> Result<(), CommandError> {
        let methods = self.provider.code_challenge_methods_supported.as_ref();
        match methods {
            Some(methods) if !methods.iter().any(|m| m == "S256") => failed(
                "the issuer does not take PKCE with S256: signing in there would not be safe",
            ),
            _ => Ok(()),
        }
    }

    async fn open_door(&self) -> Result<CallbackServer, CommandError> {
        let given = self
            .args
            .redirect_uri
            .as_ref()
            .or(self.who.redirect_uri.as_ref());
        let mut at = LoopbackRedirect::parse(given.map_or(DEFAULT_REDIRECT, String::as_str))?;
        if let Some(port) = self.args.port {
            at = at.with_port(port);
        }
        let address = at.address();
        CallbackServer::open(at).await.or_else(|error| {
            failed(format!(
                "cannot listen at {address} for the browser: {error}; choose another --port"
            ))
        })
    }

    /// The URL holds no secret of a person; whoever has it can only begin a sign-in that
    /// ends here.
    fn send_to(&self, url: &Url) {
        if !self.args.no_browser && opened(url) {
            status("a browser was opened for you to sign in; or go yourself to");
        } else {
            status("to sign in, open this in a browser on this machine:");
        }
        status(&format!("\n  {url}\n"));
    }
}

/// While tokens are being fetched, whoever else comes is turned away: the answer was taken.
async fn turn_away(door: &mut CallbackServer) -> Result<Session, CommandError> {
    while let Some(visitor) = door.next().await {
        visitor.answer(Page::Unexpected);
    }
    std::future::pending().await
}

/// Asks the desktop to open `url`, which is http or https: that was checked with the
/// issuer's metadata. The program is not waited for; it may be the browser itself.
fn opened(url: &Url) -> bool {
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
