//! Admission, before anything is sent upstream: validates the head, routes and admits the
//! request, and limits its body.

use std::sync::atomic::Ordering;
use std::time::Duration;

use http::{Method, Version, header};
use pingora::http::RequestHeader;
use pingora::proxy::Session;

use super::{Hooks, local_response};
use crate::gateway::reason::Reason;
use crate::gateway::rejection::Rejection;
use crate::gateway::{Admission, AdmissionError, Head, LocalResponse, OTP};
use crate::header_fields::HeaderFields;
use crate::proxy::client::{PeerInfo, conn_state};
use crate::proxy::connection_limit::ConnState;
use crate::proxy::context::Context;
use crate::proxy::in_flight::{Counted, CountedRequest};
use crate::proxy::replay::{BodyLimits, Replay};
use crate::proxy::settings::Limits;
use crate::proxy::{headers, validate};

/// Maximum time to wait for the rest of a body after an early response, before the connection is
/// closed.
const DRAIN: Duration = Duration::from_secs(10);

/// How a request that is not rejected is served.
pub(super) enum Admitted {
    /// It is sent upstream.
    Forward,
    /// hawkgate sends this response.
    Answer(Box<LocalResponse>),
}

impl Hooks {
    /// Admits the request and starts recording its body for a replay, or produces a response.
    pub(super) async fn admit(
        &self,
        session: &mut Session,
        context: &mut Context,
    ) -> Result<Admitted, Rejection> {
        context.request_id = self.request_id(&session.req_header().headers);
        let peer = PeerInfo::from_session(session);
        let address = peer.accountable.map(|ip| self.in_flight.address(ip));
        context.peer = Some(peer);
        context.conn_state = conn_state(session);
        if session.req_header().version == Version::HTTP_2 {
            let state = context.conn_state.as_ref();
            context.stream = state.map(ConnState::begin_stream);
        }
        let (limits, checked) = {
            let limits = self.limits.load();
            let checked = check_head(session.req_header(), &limits);
            (BodyLimits::from(&**limits), checked)
        };
        prepare(session, &limits);
        checked?;
        context.counted = Some(Counted::begin(self.in_flight.clone(), address)?);
        if let Some(served) = self.serve_own(session, context).await? {
            return Ok(Admitted::Answer(Box::new(served)));
        }
        match admit_head(context, session.req_header()).await? {
            Ok(admission) => {
                context.admission = Some(admission);
                context.request_admitted();
            }
            Err(refused) => return Err(context.reject(refused)),
        }
        // No longer needed, and each attempt begins with a copy of this head.
        session
            .req_header_mut()
            .remove_header(&header::AUTHORIZATION);
        forget_code(session, context);
        self.limit_and_record_body(session, context, limits)?;
        Ok(Admitted::Forward)
    }

    fn limit_and_record_body(
        &self,
        session: &mut Session,
        context: &mut Context,
        limits: BodyLimits,
    ) -> Result<(), Rejection> {
        // A response can be held back, and an upgraded connection closed in time, only by a session
        // that records.
        let narrowed = context.admission.as_ref();
        let narrowed = narrowed.is_some_and(Admission::sends_authorized_scopes);
        if session.is_body_empty() && !narrowed && !session.is_upgrade_req() {
            return Ok(());
        }
        let announced = local_response::content_length(&session.req_header().headers);
        if let (Some(limit), Some(length)) = (limits.body, announced)
            && length > limit
        {
            return Err(Reason::BodyTooLarge.into());
        }
        let address = context.counted.as_ref().and_then(CountedRequest::address);
        context.replay = Some(Replay::begin(
            session,
            limits,
            &self.budget,
            address,
            announced,
        ));
        Ok(())
    }

    pub(in crate::proxy) fn request_id(&self, headers: &dyn HeaderFields) -> String {
        if let Some(id) = headers::request_id(headers) {
            return id.to_owned();
        }
        let mut id = String::with_capacity(self.serial_start.len() + 16);
        id.push_str(&self.serial_start);
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        // Avoids `std::fmt`, because this runs for every request.
        let digits = (serial | 1).ilog2() / 4;
        let digit = |place: u32| {
            let digit = u32::try_from((serial >> (place * 4)) & 0xf).ok()?;
            char::from_digit(digit, 16)
        };
        id.extend((0..=digits).rev().filter_map(digit));
        id
    }
}

async fn admit_head(
    context: &Context,
    head: &RequestHeader,
) -> Result<Result<Admission, Box<AdmissionError>>, Rejection> {
    let peer = context.peer.clone().unwrap_or_default();
    Ok(context.gateway.admit(gateway_head(&peer, head)?).await)
}

/// Assembles the head of `peer`'s request for the gateway.
pub(super) fn gateway_head<'a>(
    peer: &'a PeerInfo,
    head: &'a RequestHeader,
) -> Result<Head<'a>, Rejection> {
    let (Some(host), Ok(target)) = (host(head), std::str::from_utf8(head.raw_path())) else {
        return Err(Reason::BadRequest.into());
    };
    Ok(peer.head(&head.method, host, target, &head.headers))
}

/// Removes the one-time password, which only the source may see. Some upstreams would also read
/// the field when spelled with `_`.
fn forget_code(session: &mut Session, context: &Context) {
    let admission = context.admission.as_ref();
    if admission.is_some_and(|a| a.route.takes_password()) {
        let head = session.req_header_mut();
        head.remove_header(&OTP);
        head.remove_header("x_otp");
    }
}

fn prepare(session: &mut Session, limits: &BodyLimits) {
    session.set_read_timeout(Some(limits.timeout));
    session.set_write_timeout(Some(limits.timeout));
    session.set_total_drain_timeout(Some(DRAIN.min(limits.timeout)));
}

/// Validates an HTTP/2 head. The raw bytes of an HTTP/1 head have already been checked. The
/// target is routed and signed as received, so it must be valid.
fn check_head(head: &RequestHeader, limits: &Limits) -> Result<(), Rejection> {
    if head.version == Version::HTTP_2 {
        validate::check_head(head, &limits.into())?;
    }
    let target = head.raw_path();
    let origin_form = target.first() == Some(&b'/');
    let server_wide = target == b"*" && head.method == Method::OPTIONS;
    if !head.raw_path_is_utf8() || !(origin_form || server_wide) {
        return Err(Reason::BadRequest.into());
    }
    Ok(())
}

/// Returns the authority of the request target (`:authority` in HTTP/2), or else `Host`.
pub(in crate::proxy) fn host(head: &RequestHeader) -> Option<&str> {
    match head.uri.authority() {
        Some(authority) => Some(authority.as_str()),
        None => head.headers.get(header::HOST)?.to_str().ok(),
    }
}
