//! Requests that hawkgate answers itself: for credentials (`[login]`) and for signed URLs
//! (`POST /bewit`).

use http::{Method, Version, header};
use pingora::proxy::Session;
use pingora::{Error, ErrorType};

use super::{Hooks, answer, takes_continue};
use crate::gateway::bewit::MAX_URL_BYTES;
use crate::gateway::login::{self, LoginRequest};
use crate::gateway::reason::Reason;
use crate::gateway::rejection::Rejection;
use crate::gateway::{Gateway, Head, Served};
use crate::proxy::context::Context;

/// What a request is for, if hawkgate answers it.
enum Own {
    Login,
    Bewit,
}

impl Hooks {
    /// The answer, where the request is for an endpoint of hawkgate's own; such an
    /// endpoint goes before every route. `Ok(None)` for all others.
    pub(super) async fn serve_own(
        &self,
        session: &mut Session,
        context: &mut Context,
    ) -> Result<Option<Served>, Rejection> {
        let target = std::str::from_utf8(session.req_header().raw_path());
        match own(target.unwrap_or_default(), &context.gateway) {
            None => Ok(None),
            Some(Own::Login) => Ok(login(session, context).await),
            Some(Own::Bewit) => self.bewit(session, context).await.map(Some),
        }
    }

    async fn bewit(
        &self,
        session: &mut Session,
        context: &mut Context,
    ) -> Result<Served, Rejection> {
        let now = self.clock.now();
        let method = session.req_header().method.clone();
        if method != Method::POST {
            return Ok(
                Served::refusal(Reason::MethodRefused.into(), &method, now).header("allow", "POST")
            );
        }
        let url = read_url(session).await?;
        let peer = context.peer.clone().unwrap_or_default();
        let head = session.req_header();
        let (Some(host), Ok(target)) = (
            super::admit::host(head),
            std::str::from_utf8(head.raw_path()),
        ) else {
            return Err(Reason::BadRequest.into());
        };
        let head = Head {
            method: &head.method,
            host,
            target,
            headers: &head.headers,
            peer: peer.client,
            certificate: peer.certificate.as_deref(),
        };
        match context.gateway.bewit(head, &url).await {
            Ok((admission, signed)) => {
                context.admission = Some(admission);
                Ok(Served::see_other(signed.expose()))
            }
            Err(mut refused) => {
                let rejection = std::mem::replace(&mut refused.rejection, Reason::Internal.into());
                context.refused = Some(refused);
                Err(rejection)
            }
        }
    }
}

/// Whether hawkgate answers requests for `target` itself.
pub(in crate::proxy) fn is_own(target: &str, gateway: &Gateway) -> bool {
    own(target, gateway).is_some()
}

fn own(target: &str, gateway: &Gateway) -> Option<Own> {
    if gateway.login.is_some() && login::provider(target).is_some() {
        return Some(Own::Login);
    }
    (gateway.routes.makes_bewits() && gateway.makes_bewits_at(target)).then_some(Own::Bewit)
}

async fn login(session: &Session, context: &Context) -> Option<Served> {
    let login = context.gateway.login.as_ref()?;
    let head = session.req_header();
    let peer = context.peer.as_ref();
    let target = std::str::from_utf8(head.raw_path()).ok()?;
    let request = LoginRequest {
        provider: login::provider(target)?,
        head: Head {
            method: &head.method,
            host: super::admit::host(head).unwrap_or_default(),
            target,
            headers: &head.headers,
            peer: peer.and_then(|peer| peer.client),
            certificate: peer.and_then(|peer| peer.certificate.as_deref()),
        },
    };
    Some(login.answer(request).await)
}

/// The body, which must be text of at most [`MAX_URL_BYTES`].
async fn read_url(session: &mut Session) -> Result<String, Rejection> {
    let too_large = || Rejection::from(Reason::BodyTooLarge).because("a URL of more than 8 KiB");
    let headers = &session.req_header().headers;
    let expects = headers.contains_key(header::EXPECT);
    if answer::content_length(headers).is_some_and(|length| length > MAX_URL_BYTES as u64) {
        return Err(too_large());
    }
    let broken = |error: Box<Error>| match error.etype() {
        ErrorType::ReadTimedout => Rejection::from(Reason::BodyTimeout),
        _ => Rejection::from(Reason::BadRequest).because("the body broke off"),
    };
    if expects && takes_continue(session) && session.req_header().version != Version::HTTP_2 {
        session.write_continue_response().await.map_err(broken)?;
    }
    let mut body = Vec::new();
    while let Some(piece) = session
        .downstream_session
        .read_request_body()
        .await
        .map_err(broken)?
    {
        if body.len() + piece.len() > MAX_URL_BYTES {
            return Err(too_large());
        }
        body.extend_from_slice(&piece);
    }
    String::from_utf8(body)
        .map_err(|_| Rejection::from(Reason::BadRequest).because("the body is not UTF-8"))
}
