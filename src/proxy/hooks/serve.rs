//! hawkgate's own endpoints: for credentials (`[login]`) and for signed URLs (`POST /bewit`).

use http::{Method, Version, header};
use pingora::proxy::Session;
use pingora::{Error, ErrorType};

use super::{Hooks, local_response, takes_continue};
use crate::gateway::bewit::MAX_URL_BYTES;
use crate::gateway::login::{self, LoginRequest};
use crate::gateway::reason::Reason;
use crate::gateway::rejection::Rejection;
use crate::gateway::{Gateway, LocalResponse};
use crate::proxy::body_rate::{RateMeter, TooSlow};
use crate::proxy::context::Context;
use crate::proxy::replay::BodyLimits;

/// One of hawkgate's own endpoints.
enum OwnEndpoint {
    Login,
    Bewit,
}

impl Hooks {
    /// Returns the response if the request is for one of hawkgate's own endpoints, which take
    /// precedence over all routes, and `Ok(None)` otherwise.
    pub(super) async fn serve_own(
        &self,
        session: &mut Session,
        context: &mut Context,
    ) -> Result<Option<LocalResponse>, Rejection> {
        let target = std::str::from_utf8(session.req_header().raw_path());
        match own_endpoint(target.unwrap_or_default(), &context.gateway) {
            None => Ok(None),
            Some(OwnEndpoint::Login) => Ok(login(session, context).await),
            Some(OwnEndpoint::Bewit) => self.bewit(session, context).await.map(Some),
        }
    }

    async fn bewit(
        &self,
        session: &mut Session,
        context: &mut Context,
    ) -> Result<LocalResponse, Rejection> {
        let now = self.clock.now();
        let peer = context.peer.clone().unwrap_or_default();
        let head = super::admit::gateway_head(&peer, session.req_header())?;
        context.gateway.check_bewit_sender(head)?;
        let method = session.req_header().method.clone();
        if method != Method::POST {
            return Ok(
                LocalResponse::refusal(Reason::MethodRefused.into(), &method, now)
                    .header("allow", "POST"),
            );
        }
        // Not authenticated yet, and the body may be slow.
        context.release_request();
        let limits = BodyLimits::from(&**self.limits.load());
        let url = read_url(session, &limits).await?;
        let head = super::admit::gateway_head(&peer, session.req_header())?;
        match context.gateway.bewit(head, &url).await {
            Ok((admission, signed)) => {
                context.admission = Some(admission);
                Ok(LocalResponse::see_other(signed.expose()))
            }
            Err(refused) => Err(context.reject(refused)),
        }
    }
}

/// Whether `target` belongs to one of hawkgate's own endpoints.
pub(in crate::proxy) fn is_own(target: &str, gateway: &Gateway) -> bool {
    own_endpoint(target, gateway).is_some()
}

fn own_endpoint(target: &str, gateway: &Gateway) -> Option<OwnEndpoint> {
    if gateway.login.is_some() && login::provider(target).is_some() {
        return Some(OwnEndpoint::Login);
    }
    (gateway.routes.has_bewit_route() && gateway.is_bewit_endpoint(target))
        .then_some(OwnEndpoint::Bewit)
}

async fn login(session: &Session, context: &Context) -> Option<LocalResponse> {
    let login = context.gateway.login.as_ref()?;
    let head = session.req_header();
    let peer = context.peer.clone().unwrap_or_default();
    let target = std::str::from_utf8(head.raw_path()).ok()?;
    let host = super::admit::host(head).unwrap_or_default();
    let request = LoginRequest {
        provider: login::provider(target)?,
        head: peer.head(&head.method, host, target, &head.headers),
    };
    Some(login.respond(request).await)
}

/// Reads the body, which must be UTF-8 and at most [`MAX_URL_BYTES`] long.
async fn read_url(session: &mut Session, limits: &BodyLimits) -> Result<String, Rejection> {
    let too_large =
        || Rejection::from(Reason::BodyTooLarge).with_cause("the URL is larger than 8 KiB");
    let headers = &session.req_header().headers;
    let expects = headers.contains_key(header::EXPECT);
    if local_response::content_length(headers).is_some_and(|length| length > MAX_URL_BYTES as u64) {
        return Err(too_large());
    }
    let broken = |error: Box<Error>| match error.etype() {
        ErrorType::ReadTimedout => Rejection::from(Reason::BodyTimeout),
        _ => Rejection::from(Reason::BadRequest).with_cause("the body was incomplete"),
    };
    if expects && takes_continue(session) && session.req_header().version != Version::HTTP_2 {
        session.write_continue_response().await.map_err(broken)?;
    }
    let mut body = Vec::new();
    let mut rate = RateMeter::new(limits.min_rate(session.is_http2()));
    let too_slow = |slow: TooSlow| Rejection::from(Reason::BodyTimeout).with_cause(slow.cause());
    while let Some(piece) = rate
        .within(
            limits.timeout,
            session.downstream_session.read_request_body(),
        )
        .await
        .map_err(too_slow)?
        .map_err(broken)?
    {
        rate.received(piece.len());
        if body.len() + piece.len() > MAX_URL_BYTES {
            return Err(too_large());
        }
        body.extend_from_slice(&piece);
    }
    String::from_utf8(body)
        .map_err(|_| Rejection::from(Reason::BadRequest).with_cause("the body is not UTF-8"))
}
