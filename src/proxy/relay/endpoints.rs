//! hawkgate's own endpoints: for credentials (`[login]`), for sessions (`[[session]]`), for signed
//! URLs (`POST /bewit`), to replace credentials (`PUT /credentials`), and for other proxies
//! (`[[forward_auth]]`), which have listeners of their own.

use std::future::poll_fn;
use std::sync::Arc;

use http::{Method, StatusCode, Version, header};
use zeroize::Zeroizing;

use super::Transaction;
use super::admit::gateway_head;
use super::body::too_slow;
use crate::gateway::bewit::MAX_URL_BYTES;
use crate::gateway::cors::is_preflight;
use crate::gateway::credentials_endpoint;
use crate::gateway::login::{self, LoginRequest};
use crate::gateway::reason::Reason;
use crate::gateway::rejection::Rejection;
use crate::gateway::session::{self, Endpoint, EndpointRequest};
use crate::gateway::{Gateway, LocalResponse};
use crate::proxy::error::RelayError;
use crate::proxy::head::{BodySize, FieldList, RequestHead, ResponseHead};

/// One of hawkgate's own endpoints.
enum OwnEndpoint {
    Login,
    Session,
    Bewit,
    Credentials,
}

impl Transaction<'_> {
    /// Returns the response if the request is for one of hawkgate's own endpoints, which take
    /// precedence over all routes, or on a listener that serves nothing else, and `Ok(None)`
    /// otherwise.
    pub(super) async fn serve_own(&mut self) -> Result<Option<LocalResponse>, Rejection> {
        let forward_auth = self.conn.metadata.forward_auth.as_ref();
        if let Some(name) = forward_auth.map(Arc::clone) {
            return Box::pin(self.forward_auth(&name)).await.map(Some);
        }
        match own_endpoint(&self.head, &self.context.gateway) {
            None => Ok(None),
            // Boxed, because most requests are for an upstream.
            Some(OwnEndpoint::Login) => Ok(Box::pin(self.login()).await),
            Some(OwnEndpoint::Session) => Box::pin(self.session()).await.map(Some),
            Some(OwnEndpoint::Bewit) => Box::pin(self.bewit()).await.map(Some),
            Some(OwnEndpoint::Credentials) => Box::pin(self.credentials()).await.map(Some),
        }
    }

    async fn login(&mut self) -> Option<LocalResponse> {
        let login = self.context.gateway.login.as_ref()?;
        self.context.preflight = is_preflight(&self.head.method, &self.head.fields);
        let (method, target) = (&self.head.method, self.head.target());
        let host = self.head.host().unwrap_or_default();
        let request = LoginRequest {
            provider: login::provider(target)?,
            head: self.peer.head(method, host, target, &self.head.fields),
        };
        Some(login.respond(request).await)
    }

    async fn session(&mut self) -> Result<LocalResponse, Rejection> {
        let head = gateway_head(&self.peer, &self.head)?;
        let (gateway, target) = (Arc::clone(&self.context.gateway), self.head.target());
        let Some((session, name)) = gateway.sessions.find(head.host, target) else {
            return Err(Reason::NoRoute.into());
        };
        let (session, name) = (Arc::clone(session), name.to_owned());
        let endpoint = Endpoint::named(&name);
        let body = if endpoint.is_some_and(|endpoint| endpoint.reads_body(head.method)) {
            // Not authenticated yet, and the body may be slow.
            self.release_request();
            self.read_body(session::MAX_BODY_BYTES).await?
        } else {
            Zeroizing::default()
        };
        let request = EndpointRequest {
            name: &name,
            head: gateway_head(&self.peer, &self.head)?,
            body: &body,
            request_id: &self.context.request_id,
        };
        Ok(session.respond(request).await)
    }

    async fn bewit(&mut self) -> Result<LocalResponse, Rejection> {
        let head = gateway_head(&self.peer, &self.head)?;
        self.context.gateway.check_bewit_sender(head)?;
        if self.head.method != Method::POST {
            return Ok(self.method_refused("POST"));
        }
        // Not authenticated yet, and the body may be slow.
        self.release_request();
        let url = self.read_url().await?;
        let head = gateway_head(&self.peer, &self.head)?;
        match self.context.gateway.bewit(head, &url).await {
            Ok((admission, signed)) => {
                self.context.admit(admission);
                Ok(LocalResponse::see_other(signed.expose()))
            }
            Err(refused) => Err(self.context.reject(refused)),
        }
    }

    async fn credentials(&mut self) -> Result<LocalResponse, Rejection> {
        let head = gateway_head(&self.peer, &self.head)?;
        self.context.gateway.check_credentials_sender(head)?;
        self.check_credentials_peer().await?;
        if self.head.method != Method::PUT {
            return Ok(self.method_refused("PUT"));
        }
        let body = self.read_body(credentials_endpoint::MAX_BODY_BYTES).await?;
        self.context.gateway.replace_credentials(&body)
    }

    /// Refuses peers that may use the credentials and not replace them.
    async fn check_credentials_peer(&self) -> Result<(), Rejection> {
        let metadata = &self.conn.metadata;
        let allowed = match metadata.process {
            Some(process) => {
                let trusts_networks = metadata.trusts_networks;
                process.may_replace_credentials(trusts_networks).await
            }
            None => Err("the peer is gone".to_owned()),
        };
        allowed.map_err(|cause| {
            let cause = format!("PUT /credentials: {cause}");
            Rejection::from(Reason::PeerNotAllowed).with_cause(cause)
        })
    }

    fn method_refused(&self, allow: &'static str) -> LocalResponse {
        let now = self.relay.clock.now();
        let refusal = Rejection::from(Reason::MethodRefused);
        LocalResponse::refusal(refusal, &self.head.method, now).header("allow", allow)
    }

    /// Reads the body, which must be UTF-8 and at most [`MAX_URL_BYTES`] long.
    async fn read_url(&mut self) -> Result<String, Rejection> {
        let mut body = self.read_body(MAX_URL_BYTES).await?;
        String::from_utf8(std::mem::take(&mut *body))
            .map_err(|_| Rejection::from(Reason::BadRequest).with_cause("the body is not UTF-8"))
    }

    /// Reads the body, which must be at most `limit` bytes long.
    async fn read_body(&mut self, limit: usize) -> Result<Zeroizing<Vec<u8>>, Rejection> {
        let too_large = || {
            let cause = format!("larger than the {limit} bytes that this endpoint accepts");
            Rejection::from(Reason::BodyTooLarge).with_cause(cause)
        };
        if matches!(self.head.body, BodySize::Known(length) if length > limit as u64) {
            return Err(too_large());
        }
        self.continue_request().await.map_err(|e| broken(&e))?;
        let caller = &mut self.caller;
        let (downstream, body) = (&mut caller.downstream, &mut caller.body);
        let timeout = body.timeout();
        let announced = match self.head.body {
            BodySize::Empty => 0,
            BodySize::Known(length) => usize::try_from(length).unwrap_or(limit),
            BodySize::Unknown => limit,
        };
        // Allocated at full size, because reallocation would leave copies of secrets in memory.
        let mut received = Zeroizing::new(Vec::with_capacity(announced.min(limit)));
        loop {
            let (wait, slow) = body.rate.limit(timeout);
            let began = crate::proxy::deadline::now();
            let piece = poll_fn(|cx| body.poll_received(downstream, cx));
            let Some(piece) = caller.deadline.within(wait, piece).await else {
                return Err(broken(&too_slow(slow)));
            };
            body.rate.add_wait(crate::proxy::deadline::now() - began);
            let Some(piece) = piece.map_err(|e| broken(&e))? else {
                break;
            };
            if received.len() + piece.len() > limit {
                return Err(too_large());
            }
            received.extend_from_slice(&piece);
        }
        Ok(received)
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

fn own_endpoint(head: &RequestHead, gateway: &Gateway) -> Option<OwnEndpoint> {
    let target = head.target();
    let host = head.host().unwrap_or_default();
    if gateway.sessions.find(host, target).is_some() {
        return Some(OwnEndpoint::Session);
    }
    if gateway.login.is_some() && login::provider(target).is_some() {
        return Some(OwnEndpoint::Login);
    }
    if gateway.is_credentials_endpoint(target) {
        return Some(OwnEndpoint::Credentials);
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
