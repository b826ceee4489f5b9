//! The endpoints of a session: signing in, who is signed in, signing out.

use std::borrow::Cow;
use std::sync::Arc;

use http::{HeaderName, Method, StatusCode, header};
use serde_json::json;
use zeroize::Zeroizing;

use super::browser;
use super::pages::{Action, Page};
use super::{LABEL, Session, digest, unavailable};
use crate::clock::Now;
use crate::gateway::Head;
use crate::gateway::local_response::{LocalResponse, RequestDetails};
use crate::gateway::outcome::{SessionEvent, SessionRecord, SignInResult};
use crate::gateway::reason::Reason;
use crate::gateway::rejection::Rejection;
use crate::header_fields::only;
use crate::label::Label;
use crate::session::{
    LogoutTokenError, Presented, SessionMemo, SetCookie, SignInError, SiteSecurity, UserSession,
};

/// The maximum size of a request body, in bytes: a form with a logout token.
pub const MAX_BODY_BYTES: usize = 16 * 1024;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// An endpoint below the prefix of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Begins a sign-in.
    Login,
    /// Completes it.
    Callback,
    /// Says who is signed in.
    Session,
    /// Signs out.
    Logout,
    /// Accepts the provider's logout tokens.
    BackChannelLogout,
}

impl Endpoint {
    /// The endpoint of this name.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "login" => Self::Login,
            "callback" => Self::Callback,
            "session" => Self::Session,
            "logout" => Self::Logout,
            "backchannel-logout" => Self::BackChannelLogout,
            _ => return None,
        })
    }

    /// Whether it reads the body of a request with this method.
    pub fn reads_body(self, method: &Method) -> bool {
        self == Self::BackChannelLogout && *method == Method::POST
    }

    /// The supported methods, as in `Allow`.
    fn methods(self) -> &'static str {
        match self {
            // A HEAD must not use up the code.
            Self::Callback => "GET",
            Self::Login | Self::Session => "GET, HEAD",
            Self::Logout => "GET, HEAD, POST",
            Self::BackChannelLogout => "POST",
        }
    }

    fn supports(self, method: &Method) -> bool {
        self.methods().split(", ").any(|own| own == method.as_str())
    }
}

/// A request to an endpoint.
#[derive(Clone, Copy)]
pub struct EndpointRequest<'a> {
    /// The path below the prefix.
    pub name: &'a str,
    /// The head.
    pub head: Head<'a>,
    /// The body, if [`Endpoint::reads_body`].
    pub body: &'a [u8],
    /// The request id, which users are shown.
    pub request_id: &'a str,
}

impl Session {
    /// Handles a request to one of the endpoints.
    pub async fn respond(&self, request: EndpointRequest<'_>) -> LocalResponse {
        let head = request.head;
        let mut record = SessionRecord {
            name: self.name().clone(),
            event: None,
            id: None,
            subject: None,
            via_cookie: false,
        };
        let Some(endpoint) = Endpoint::named(request.name) else {
            return self.refuse(Reason::NoRoute.into(), request, record);
        };
        if !endpoint.supports(head.method) {
            return self
                .refuse(Reason::MethodRefused.into(), request, record)
                .header("allow", endpoint.methods());
        }
        if let Err(rejection) = self.check_rate(endpoint, head).await {
            return self.refuse(rejection, request, record);
        }
        let now = Now::read(&*self.clock);
        let handled = match (endpoint, head.method) {
            (Endpoint::Login, _) => self.login(request, now, &mut record).await,
            (Endpoint::Callback, _) => self.callback(request, now, &mut record).await,
            (Endpoint::Session, _) => self.who(request, now, &mut record).await,
            (Endpoint::Logout, &Method::POST) => self.sign_out(request, now, &mut record).await,
            (Endpoint::Logout, _) => self.logout_page(request, now).await,
            (Endpoint::BackChannelLogout, _) => {
                self.back_channel_logout(request, now, &mut record).await
            }
        };
        match handled {
            Ok(response) => detailed(response, record),
            Err(rejection) => self.refuse(rejection, request, record),
        }
    }

    /// Who is signed in costs nothing but opening a cookie. Logout tokens count if they are refused: the
    /// provider sends many from one address when it signs many users out. Everything else can be done by
    /// anyone, and may cost a request to the provider.
    async fn check_rate(&self, endpoint: Endpoint, head: Head<'_>) -> Result<(), Rejection> {
        let client = head.client();
        if let Some(wait) = self.rates.check_address(client)? {
            wait.await?;
        }
        match endpoint {
            Endpoint::Session | Endpoint::BackChannelLogout => Ok(()),
            Endpoint::Login | Endpoint::Callback | Endpoint::Logout => {
                self.check_unverified(head).await
            }
        }
    }

    async fn check_unverified(&self, head: Head<'_>) -> Result<(), Rejection> {
        let client = head.client();
        if let Some(wait) = self.rates.check_unverified(client)? {
            wait.await?;
        }
        // Callers on a Unix socket are all behind the same local proxy.
        if client.address.is_some()
            && let Some(wait) = self.sign_ins.check_address(client)?
        {
            wait.await?;
        }
        Ok(())
    }

    /// A page for browsers that would show it, otherwise JSON.
    fn refuse(
        &self,
        rejection: Rejection,
        request: EndpointRequest<'_>,
        record: SessionRecord,
    ) -> LocalResponse {
        let method = request.head.method;
        let refusal = LocalResponse::refusal(rejection, method, self.clock.now());
        let response = if browser::navigates(request.head) {
            as_page(refusal, request)
        } else {
            refusal
        };
        detailed(response, record)
    }

    async fn login(
        &self,
        request: EndpointRequest<'_>,
        now: Now,
        record: &mut SessionRecord,
    ) -> Result<LocalResponse, Rejection> {
        let head = request.head;
        let site = self.site(head)?;
        let return_to = return_to(head.target);
        match self
            .sessions
            .begin(&return_to, &site, head.headers, now)
            .await
        {
            Ok(begun) => {
                let response = redirect(StatusCode::FOUND, begun.location.as_str());
                Ok(with_cookies(response, begun.cookies))
            }
            Err(error) => Ok(self.failed(&error, request, &return_to, record)),
        }
    }

    async fn callback(
        &self,
        request: EndpointRequest<'_>,
        now: Now,
        record: &mut SessionRecord,
    ) -> Result<LocalResponse, Rejection> {
        let head = request.head;
        let site = self.site(head)?;
        let query = head.target.split_once('?').map_or("", |(_, query)| query);
        let completed = self.sessions.complete(query, &site, head.headers, now);
        let signed_in = match completed.await {
            Ok(signed_in) => signed_in,
            Err(error) => {
                let sessions = &self.sessions;
                let return_to = sessions.attempted_destination(query, &site, head.headers, now);
                let return_to = return_to.as_deref().unwrap_or("/");
                return Ok(self.failed(&error, request, return_to, record));
            }
        };
        note(record, &signed_in.session);
        record.event = Some(SessionEvent::SignIn(SignInResult::Ok));
        let response = redirect(StatusCode::SEE_OTHER, &signed_in.return_to);
        Ok(with_cookies(response, signed_in.cookies))
    }

    /// The page about a sign-in that failed, from which it can be tried again.
    fn failed(
        &self,
        error: &SignInError,
        request: EndpointRequest<'_>,
        return_to: &str,
        record: &mut SessionRecord,
    ) -> LocalResponse {
        let failure = Failure::of(error);
        record.event = Some(SessionEvent::SignIn(failure.result));
        let mut rejection = Rejection::from(Reason::SignInFailed).with_cause(error.to_string());
        let encoded: String = url::form_urlencoded::byte_serialize(return_to.as_bytes()).collect();
        let path = format!("{}?return_to={encoded}", self.path("login"));
        let page = Page {
            status: failure.status,
            title: failure.title,
            text: failure.text,
            action: Action::Link {
                path: &path,
                text: "Try again",
            },
            request_id: request.request_id,
        };
        let mut response = if browser::is_from_script(request.head) {
            let method = request.head.method;
            let refusal = LocalResponse::refusal(rejection.clone(), method, self.clock.now());
            LocalResponse {
                status: failure.status,
                ..refusal
            }
        } else {
            page.respond()
                .header("x-hawkgate-error", Reason::SignInFailed.label())
        };
        if failure.status == StatusCode::SERVICE_UNAVAILABLE {
            response = response.header("retry-after", "5");
        }
        rejection.retry_after = None;
        response.rejection = Some(rejection);
        response
    }

    async fn who(
        &self,
        request: EndpointRequest<'_>,
        now: Now,
        record: &mut SessionRecord,
    ) -> Result<LocalResponse, Rejection> {
        let head = request.head;
        let site = self.site(head)?;
        let own = |sender: &[u8]| sender == site.origin.as_bytes();
        if let Some(cause) = browser::cross_site(head, own, |_| false) {
            return Err(Rejection::from(Reason::CrossSite).with_cause(cause));
        }
        let mut memo = SessionMemo::default();
        let presented = self
            .sessions
            .open(head.headers, site.security, now, &mut memo);
        let session = match presented.await {
            Presented::Open(session) => session,
            Presented::Unavailable { cause, retry_after } => {
                return Err(unavailable(cause, Some(retry_after)));
            }
            Presented::None => return Err(self.sign_in_at(head.target, false, None)),
            Presented::Ended(_) => {
                let removal = self.sessions.removal(site.security);
                return Err(self.sign_in_at(head.target, false, Some(removal)));
            }
        };
        record.via_cookie = true;
        let body = json!({
            "sub": session.subject,
            "name": session.name,
            "email": session.email,
            "issuer": self.provider,
            "expires": session.expires_at.to_rfc3339(),
            "idle_expires": session.idle_expires_at.min(session.expires_at).to_rfc3339(),
        });
        Ok(json_response(StatusCode::OK, &body))
    }

    async fn sign_out(
        &self,
        request: EndpointRequest<'_>,
        now: Now,
        record: &mut SessionRecord,
    ) -> Result<LocalResponse, Rejection> {
        let head = request.head;
        let site = self.site(head)?;
        let own = |sender: &[u8]| sender == site.origin.as_bytes();
        let (Ok(fetch_site), Ok(sender)) = (
            only(head.headers, &SEC_FETCH_SITE),
            only(head.headers, &header::ORIGIN),
        ) else {
            return Err(Reason::CrossSite.into());
        };
        if let Some(cause) = browser::initiated_elsewhere(fetch_site, sender, own) {
            return Err(Rejection::from(Reason::CrossSite).with_cause(cause));
        }
        // An error here must not read as a sign-out: the session may still be open.
        let session = self.opened(head, now, site.security).await?;
        if let Some(session) = &session {
            note(record, session);
            record.event = Some(SessionEvent::SignOut);
        }
        let signed_out = self.sessions.sign_out(session.as_deref(), &site, now).await;
        let location = match &signed_out.location {
            Some(location) => Cow::Borrowed(location.as_str()),
            None => self.path("logout").into(),
        };
        let response = if browser::is_from_script(head) {
            json_response(StatusCode::OK, &json!({ "location": location }))
        } else {
            redirect(StatusCode::SEE_OTHER, &location)
        };
        Ok(with_cookies(response, signed_out.cookies))
    }

    async fn logout_page(
        &self,
        request: EndpointRequest<'_>,
        now: Now,
    ) -> Result<LocalResponse, Rejection> {
        let security = self.security(request.head)?;
        let (logout, login) = (self.path("logout"), self.path("login"));
        let opened = self.opened(request.head, now, security).await;
        let page = if opened.is_ok_and(|session| session.is_none()) {
            Page {
                status: StatusCode::OK,
                title: "You are signed out",
                text: "This browser has no session here.",
                action: Action::Link {
                    path: &login,
                    text: "Sign in",
                },
                request_id: request.request_id,
            }
        } else {
            Page {
                status: StatusCode::OK,
                title: "Sign out?",
                text: "You are signed in. Signing out ends your session here and at the identity \
                       provider.",
                action: Action::Button {
                    path: &logout,
                    text: "Sign out",
                },
                request_id: request.request_id,
            }
        };
        Ok(page.respond())
    }

    async fn opened(
        &self,
        head: Head<'_>,
        now: Now,
        security: SiteSecurity,
    ) -> Result<Option<Arc<UserSession>>, Rejection> {
        let mut memo = SessionMemo::default();
        let opening = self.sessions.open(head.headers, security, now, &mut memo);
        match opening.await {
            Presented::Open(session) => Ok(Some(session)),
            Presented::None | Presented::Ended(_) => Ok(None),
            Presented::Unavailable { cause, retry_after } => {
                Err(unavailable(cause, Some(retry_after)))
            }
        }
    }

    /// The answers are those of OpenID Connect Back-Channel Logout 1.0 §2.8.
    async fn back_channel_logout(
        &self,
        request: EndpointRequest<'_>,
        now: Now,
        record: &mut SessionRecord,
    ) -> Result<LocalResponse, Rejection> {
        let ended = match logout_token(request) {
            Ok(token) => self.sessions.back_channel_logout(&token, now).await,
            Err(cause) => Err(LogoutTokenError::Invalid(cause.to_owned())),
        };
        if ended.is_err() {
            self.check_unverified(request.head).await?;
        }
        record.event = Some(SessionEvent::BackChannelLogout {
            accepted: ended.is_ok(),
        });
        match ended {
            Ok(()) => Ok(LocalResponse::new(StatusCode::OK)),
            Err(LogoutTokenError::Unavailable { cause, retry_after }) => {
                let mut refused = Rejection::from(Reason::KeysUnavailable).with_cause(cause);
                refused.retry_after = Some(retry_after);
                Err(refused)
            }
            Err(LogoutTokenError::Invalid(cause)) => {
                let body = json!({
                    "error": "invalid_request",
                    "error_description": Reason::LogoutTokenRefused.message(),
                });
                let response = json_response(StatusCode::BAD_REQUEST, &body)
                    .header("x-hawkgate-error", Reason::LogoutTokenRefused.label());
                let refused = Rejection::from(Reason::LogoutTokenRefused).with_cause(cause);
                Ok(with_rejection(response, refused))
            }
        }
    }
}

/// The page that says the same as a refusal.
fn as_page(refusal: LocalResponse, request: EndpointRequest<'_>) -> LocalResponse {
    let Some(rejection) = refusal.rejection else {
        return refusal;
    };
    let page = Page {
        status: refusal.status,
        title: title(rejection.reason),
        text: rejection.reason.message(),
        action: Action::None,
        request_id: request.request_id,
    };
    let mut response = page.respond();
    let own = ["content-type", "cache-control"];
    let further = refusal.headers.into_iter();
    let further = further.filter(|(name, _)| !own.contains(name));
    response.headers.extend(further);
    with_rejection(response, rejection)
}

/// The `logout_token` in the form, which must be the only one.
fn logout_token(request: EndpointRequest<'_>) -> Result<Zeroizing<String>, &'static str> {
    let kind = only(request.head.headers, &header::CONTENT_TYPE)
        .ok()
        .flatten();
    let media = kind.and_then(|kind| kind.split(|b| *b == b';').next());
    let form = b"application/x-www-form-urlencoded";
    if !media.is_some_and(|media| media.trim_ascii().eq_ignore_ascii_case(form)) {
        return Err("Content-Type is not application/x-www-form-urlencoded");
    }
    let mut tokens =
        url::form_urlencoded::parse(request.body).filter(|(name, _)| name == "logout_token");
    match (tokens.next(), tokens.next()) {
        (Some((_, token)), None) => Ok(Zeroizing::new(token.into_owned())),
        (None, _) => Err("no logout_token"),
        (Some(_), Some(_)) => Err("several logout_tokens"),
    }
}

/// Where to go after the sign-in: the only valid `return_to` in the query, otherwise the root.
fn return_to(target: &str) -> String {
    let query = target.split_once('?').map_or("", |(_, query)| query);
    let mut values = url::form_urlencoded::parse(query.as_bytes())
        .filter(|(name, _)| name == "return_to")
        .map(|(_, value)| value);
    match (values.next(), values.next()) {
        (Some(value), None) => crate::session::return_to(&value).unwrap_or("/").to_owned(),
        _ => "/".to_owned(),
    }
}

fn note(record: &mut SessionRecord, session: &UserSession) {
    record.id = Some(digest(session.id));
    record.subject = Some(session.subject.clone());
}

fn detailed(mut response: LocalResponse, record: SessionRecord) -> LocalResponse {
    response.details = RequestDetails {
        route: Some(LABEL.into()),
        session: Some(Box::new(record)),
        ..RequestDetails::default()
    };
    response
}

fn with_rejection(mut response: LocalResponse, rejection: Rejection) -> LocalResponse {
    response.rejection = Some(rejection);
    response
}

fn with_cookies(mut response: LocalResponse, cookies: Vec<SetCookie>) -> LocalResponse {
    for cookie in cookies {
        response = response.header("set-cookie", cookie.as_str());
    }
    response
}

fn redirect(status: StatusCode, location: &str) -> LocalResponse {
    LocalResponse::new(status)
        .header("location", location)
        .header("referrer-policy", "no-referrer")
}

fn json_response(status: StatusCode, body: &serde_json::Value) -> LocalResponse {
    let mut response = LocalResponse::new(status)
        .header("content-type", "application/json")
        .header("x-content-type-options", "nosniff")
        .header("cross-origin-resource-policy", "same-origin");
    response.body = Zeroizing::new(body.to_string().into_bytes());
    response
}

fn title(reason: Reason) -> &'static str {
    match reason {
        Reason::NoRoute => "There is nothing here",
        Reason::InsecureOrigin => "This site needs https",
        Reason::RateLimited => "Too many requests",
        Reason::SignInRequired => "Sign in first",
        _ => "This is not possible",
    }
}

/// How a failed sign-in is shown and counted.
struct Failure {
    result: SignInResult,
    status: StatusCode,
    title: &'static str,
    text: &'static str,
}

impl Failure {
    #[rustfmt::skip]
    fn of(error: &SignInError) -> Self {
        use SignInResult as R;
        let row = |result, status, title, text| Self { result, status, title, text };
        match error {
            SignInError::UnknownAttempt => row(R::UnknownAttempt, StatusCode::BAD_REQUEST, "This sign-in is no longer valid",
                "It was completed before, was begun in another browser, or your browser does not keep cookies for this site. Begin again."),
            SignInError::Expired => row(R::Expired, StatusCode::BAD_REQUEST, "Signing in took too long",
                "A sign-in has to be completed within ten minutes. Begin again."),
            SignInError::IssuerMismatch => row(R::InvalidCallback, StatusCode::BAD_REQUEST, "This answer comes from somewhere else",
                "The answer to your sign-in came from another identity provider than the one that was asked. If this happens again, tell the people who run this site."),
            SignInError::Malformed => row(R::InvalidCallback, StatusCode::BAD_REQUEST, "This sign-in cannot be completed",
                "The identity provider's answer is incomplete. Begin again; if this happens again, tell the people who run this site."),
            SignInError::Denied("access_denied") => row(R::Denied, StatusCode::FORBIDDEN, "You were not signed in",
                "The identity provider did not allow it, or you declined. Try again, perhaps with another account."),
            SignInError::Denied(_) => row(R::Denied, StatusCode::BAD_GATEWAY, "You were not signed in",
                "The identity provider refused the sign-in. Try again; if this happens again, tell the people who run this site."),
            SignInError::Provider(_) => row(R::ProviderError, StatusCode::BAD_GATEWAY, "Signing in failed",
                "The identity provider did not accept the sign-in. Try again; if this happens again, tell the people who run this site."),
            SignInError::Unavailable(_) => row(R::Unavailable, StatusCode::SERVICE_UNAVAILABLE, "The identity provider cannot be reached",
                "Try again in a moment."),
            SignInError::Token(_) => row(R::TokenInvalid, StatusCode::FORBIDDEN, "Your account cannot be used here",
                "The identity provider signed you in, but what it issued is not accepted here. Try another account, or tell the people who run this site."),
            SignInError::TooLarge(_) => row(R::TooLarge, StatusCode::INTERNAL_SERVER_ERROR, "Your session is too large",
                "The identity provider issued more than your browser can keep for this site. Tell the people who run this site."),
            SignInError::TooLargeToShare(_) => row(R::TooLarge, StatusCode::INTERNAL_SERVER_ERROR, "Your session is too large",
                "The identity provider issued more than can be kept for this site. Tell the people who run this site."),
            SignInError::StoreUnavailable(_) => row(R::Unavailable, StatusCode::SERVICE_UNAVAILABLE, "Nobody can sign in at the moment",
                "Try again in a moment."),
            SignInError::Randomness => row(R::Internal, StatusCode::INTERNAL_SERVER_ERROR, "Signing in failed",
                "An internal error occurred. Try again."),
        }
    }
}
