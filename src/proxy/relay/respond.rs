//! Responses that hawkgate sends itself.

use std::future::poll_fn;

use http::{Method, StatusCode, header};
use zeroize::Zeroizing;

use super::Transaction;
use crate::gateway::LocalResponse;
use crate::gateway::rejection::{ErrorResponse, Rejection};
use crate::proxy::downstream::Downstream;
use crate::proxy::error::{ErrorKind, RelayError, Side};
use crate::proxy::head::{BodySize, FieldList, ResponseHead};
use crate::proxy::local_response;
use crate::session::SetCookie;

/// Request bodies of at most this number of bytes are read to their end after a rejection, so
/// that the connection can be reused.
const MAX_DRAINED_BODY: u64 = 64 * 1024;

impl Transaction<'_> {
    /// Sends a rejection. The connection is kept alive unless much of the body is unread.
    pub(super) async fn reject(&mut self, rejection: Rejection) -> Result<(), RelayError> {
        let now = self.relay.clock.now();
        let response = rejection.to_response(&self.head.method, now);
        let ErrorResponse {
            status,
            mut headers,
            body,
        } = response;
        let cookies = self.take_cookies();
        if rejection.sign_in.is_none() {
            headers.extend(cookies);
        }
        self.context.rejection = Some(rejection);
        self.respond(status, &fields_of(&headers), body.as_bytes())
            .await
    }

    /// Ends a request that received no response from its upstream: with a rejection, unless a
    /// response was started or the caller is gone. The connection closes.
    pub(super) async fn fail(&mut self, error: RelayError) -> Result<(), RelayError> {
        let Some(rejection) = error.to_rejection() else {
            return Err(error);
        };
        if self.caller.downstream.is_answered() {
            return Err(error);
        }
        self.reject_after_failure(rejection).await;
        Err(error)
    }

    /// Sends a rejection instead of the upstream's response, with the recovery code that the
    /// caller must receive. The connection closes.
    pub(super) async fn reject_after_failure(&mut self, rejection: Rejection) {
        self.answer.close = true;
        let recovery_code = self.context.take_recovery_code();
        let rejection = Rejection {
            recovery_code,
            ..rejection
        };
        // Fails only if the caller has disconnected.
        self.answer.rejected = self.reject(rejection).await.is_ok();
    }

    /// Sends the response of one of hawkgate's own endpoints. Its body is wiped from memory when
    /// it has been sent.
    pub(super) async fn answer_own(&mut self, served: LocalResponse) -> Result<(), RelayError> {
        // Nobody is known who sends a preflight.
        let admitted = self.context.admission.is_some() && !self.context.preflight;
        let verified = admitted || served.details.issuer.is_some();
        self.context.own_endpoint = Some(Box::new(served.details));
        self.context.rejection = served.rejection;
        let refused = self
            .context
            .rejection
            .as_ref()
            .map(|rejection| rejection.reason);
        match refused {
            None if verified => self.conn.state.request_admitted(),
            None => {}
            Some(reason) => self.answer.close |= self.request_refused(reason),
        }
        let body: Zeroizing<Vec<u8>> = served.body;
        let mut headers = served.headers;
        headers.extend(self.take_cookies());
        let mut fields = fields_of(&headers);
        let upstream = &served.upstream_headers;
        fields.extend(upstream.iter().map(|(n, v)| (n.as_ref(), v.as_bytes())));
        self.respond(served.status, &fields, &body).await
    }

    /// Takes the fields that set the cookies of a session.
    fn take_cookies(&mut self) -> impl Iterator<Item = (&'static str, String)> + use<> {
        let cookies = std::mem::take(&mut self.context.cookies);
        let field = |cookie: SetCookie| ("set-cookie", cookie.as_str().to_owned());
        cookies.into_iter().map(field)
    }

    async fn respond(
        &mut self,
        status: StatusCode,
        headers: &[(&[u8], &[u8])],
        body: &[u8],
    ) -> Result<(), RelayError> {
        // In HTTP/2 the stream is reset instead, without an error (RFC 9113 §8.1).
        let http1 = matches!(self.caller.downstream, Downstream::H1(_));
        let unread = http1 && !self.caller.downstream.is_body_done();
        let drains = unread && !self.answer.close && self.is_body_drainable();
        self.answer.close |= unread && !drains;
        let close = self.closes();
        let head = self.local_head(status, headers, body.len());
        let bodiless = head.body == BodySize::Empty;
        let content = if bodiless { &[] } else { body };
        self.caller.downstream.queue_head(head, close)?;
        self.answer.code = status.as_u16();
        self.write_local(content).await?;
        if drains && !self.caller.discard_rest().await {
            self.answer.close = true;
        }
        Ok(())
    }

    async fn write_local(&mut self, content: &[u8]) -> Result<(), RelayError> {
        let caller = &mut self.caller;
        let (downstream, sent) = (&mut caller.downstream, &mut caller.sent);
        let mut left = content;
        let writing = poll_fn(|cx| {
            while !left.is_empty() {
                let written = std::task::ready!(downstream.poll_write(cx, left, true))?;
                *sent += written as u64;
                left = left.get(written..).unwrap_or_default();
            }
            downstream.poll_finish(cx, &mut None)
        });
        let written = caller.deadline.within(caller.write_timeout, writing).await;
        written.unwrap_or_else(|| Err(write_timed_out()))
    }

    fn local_head(
        &self,
        status: StatusCode,
        headers: &[(&[u8], &[u8])],
        length: usize,
    ) -> ResponseHead {
        let date = local_response::date(self.relay.clock.now());
        let mut digits = itoa::Buffer::new();
        let digits = digits.format(length).as_bytes();
        let id = self.context.request_id.as_bytes();
        let mut fields = headers.to_vec();
        if let Some(grant) = &self.context.cors {
            fields.push((b"vary", b"Origin"));
            let cors = grant.fields();
            fields.extend(cors.map(|(name, value)| (name.as_bytes(), value.as_bytes())));
        }
        fields.push((b"x-request-id", id));
        fields.push((b"date", date.as_bytes()));
        let bodiless = status == StatusCode::NO_CONTENT || self.head.method == Method::HEAD;
        if status != StatusCode::NO_CONTENT {
            fields.push((b"content-length", digits));
        }
        let bytes = fields.iter().map(|(name, value)| name.len() + value.len());
        let bytes = bytes.sum();
        ResponseHead {
            status,
            reason: None,
            fields: FieldList::of(fields.into_iter(), bytes),
            body: if bodiless {
                BodySize::Empty
            } else {
                BodySize::Known(length as u64)
            },
        }
    }

    /// Whether the rest of the request body is so short that reading it costs less than a new
    /// connection. After `Expect: 100-continue` the caller may not send a body at all.
    fn is_body_drainable(&self) -> bool {
        let announced = matches!(self.head.body, BodySize::Known(n) if n <= MAX_DRAINED_BODY);
        let expects = self.head.fields.contains(&header::EXPECT);
        announced && (!expects || self.caller.body.continued)
    }
}

fn fields_of<'a>(headers: &'a [(&'static str, String)]) -> Vec<(&'a [u8], &'a [u8])> {
    let fields = headers.iter();
    fields
        .map(|(name, value)| (name.as_bytes(), value.as_bytes()))
        .collect()
}

pub(super) fn write_timed_out() -> RelayError {
    RelayError::new(Side::Caller, ErrorKind::WriteTimeout, "writing a response")
}
