//! hawkgate's own endpoints: for credentials (`[login]`) and for signed URLs (`POST /bewit`).

use std::future::poll_fn;

use http::{Method, StatusCode, Version, header};

use super::Transaction;
use super::admit::gateway_head;
use super::body::too_slow;
use crate::gateway::bewit::MAX_URL_BYTES;
use crate::gateway::login::{self, LoginRequest};
use crate::gateway::reason::Reason;
use crate::gateway::rejection::Rejection;
use crate::gateway::{Gateway, LocalResponse};
use crate::proxy::error::RelayError;
use crate::proxy::head::{BodySize, FieldList, ResponseHead};

/// One of hawkgate's own endpoints.
enum OwnEndpoint {
    Login,
    Bewit,
}

impl Transaction<'_> {
    /// Returns the response if the request is for one of hawkgate's own endpoints, which take
    /// precedence over all routes, and `Ok(None)` otherwise.
    pub(super) async fn serve_own(&mut self) -> Result<Option<LocalResponse>, Rejection> {
        match own_endpoint(self.head.target(), &self.context.gateway) {
            None => Ok(None),
            // Boxed, because most requests are for an upstream.
            Some(OwnEndpoint::Login) => Ok(Box::pin(self.login()).await),
            Some(OwnEndpoint::Bewit) => Box::pin(self.bewit()).await.map(Some),
        }
    }

    async fn login(&self) -> Option<LocalResponse> {
        let login = self.context.gateway.login.as_ref()?;
        let (method, target) = (&self.head.method, self.head.target());
        let host = self.head.host().unwrap_or_default();
        let request = LoginRequest {
            provider: login::provider(target)?,
            head: self.peer.head(method, host, target, &self.head.fields),
        };
        Some(login.respond(request).await)
    }

    async fn bewit(&mut self) -> Result<LocalResponse, Rejection> {
        let head = gateway_head(&self.peer, &self.head)?;
        self.context.gateway.check_bewit_sender(head)?;
        let method = &self.head.method;
        if *method != Method::POST {
            let now = self.relay.clock.now();
            let refusal = LocalResponse::refusal(Reason::MethodRefused.into(), method, now);
            return Ok(refusal.header("allow", "POST"));
        }
        // Not authenticated yet, and the body may be slow.
        self.release_request();
        let url = self.read_url().await?;
        let head = gateway_head(&self.peer, &self.head)?;
        match self.context.gateway.bewit(head, &url).await {
            Ok((admission, signed)) => {
                self.context.admission = Some(admission);
                Ok(LocalResponse::see_other(signed.expose()))
            }
            Err(refused) => Err(self.context.reject(refused)),
        }
    }

    /// Reads the body, which must be UTF-8 and at most [`MAX_URL_BYTES`] long.
    async fn read_url(&mut self) -> Result<String, Rejection> {
        let too_large =
            || Rejection::from(Reason::BodyTooLarge).with_cause("the URL is larger than 8 KiB");
        if matches!(self.head.body, BodySize::Known(length) if length > MAX_URL_BYTES as u64) {
            return Err(too_large());
        }
        self.continue_request().await.map_err(|e| broken(&e))?;
        let caller = &mut self.caller;
        let (downstream, body) = (&mut caller.downstream, &mut caller.body);
        let timeout = body.timeout();
        let mut url = Vec::new();
        loop {
            let (limit, slow) = body.rate.limit(timeout);
            let began = crate::proxy::deadline::now();
            let piece = poll_fn(|cx| body.poll_received(downstream, cx));
            let Some(piece) = caller.deadline.within(limit, piece).await else {
                return Err(broken(&too_slow(slow)));
            };
            body.rate.add_wait(crate::proxy::deadline::now() - began);
            let Some(piece) = piece.map_err(|e| broken(&e))? else {
                break;
            };
            if url.len() + piece.len() > MAX_URL_BYTES {
                return Err(too_large());
            }
            url.extend_from_slice(&piece);
        }
        String::from_utf8(url)
            .map_err(|_| Rejection::from(Reason::BadRequest).with_cause("the body is not UTF-8"))
    }

    /// Sends a 100 Continue if the caller waits for one before it sends a body (RFC 9110 §10.1.1).
    async fn continue_request(&mut self) -> Result<(), RelayError> {
        let expects = self.head.fields.contains(&header::EXPECT);
        let pointless = self.caller.downstream.is_body_done();
        if !expects || pointless || self.head.version == Version::HTTP_10 {
            return Ok(());
        }
        let downstream = &mut self.caller.downstream;
        downstream.queue_interim(&continue_head())?;
        let timeout = self.caller.write_timeout;
        let flushed = poll_fn(|cx| downstream.poll_flush(cx));
        let flushed = self.caller.deadline.within(timeout, flushed).await;
        flushed.unwrap_or_else(|| Err(super::respond::write_timed_out()))?;
        self.caller.body.continued = true;
        Ok(())
    }
}

/// Returns the head of a 100 Continue.
pub(super) fn continue_head() -> ResponseHead {
    ResponseHead {
        status: StatusCode::CONTINUE,
        reason: None,
        fields: FieldList::default(),
        body: BodySize::Empty,
    }
}

fn own_endpoint(target: &str, gateway: &Gateway) -> Option<OwnEndpoint> {
    if gateway.login.is_some() && login::provider(target).is_some() {
        return Some(OwnEndpoint::Login);
    }
    (gateway.routes.has_bewit_route() && gateway.is_bewit_endpoint(target))
        .then_some(OwnEndpoint::Bewit)
}

fn broken(error: &RelayError) -> Rejection {
    match error.to_rejection() {
        Some(rejection) if rejection.reason != Reason::Internal => rejection,
        _ => Rejection::from(Reason::BadRequest).with_cause("the body was incomplete"),
    }
}
