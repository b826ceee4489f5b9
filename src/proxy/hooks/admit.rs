//! Before anything goes upstream: the head, the route and the caller, the body's limits.

use std::sync::atomic::Ordering;
use std::time::Duration;

use http::{Method, Version, header};
use pingora::http::RequestHeader;
use pingora::proxy::Session;

use super::{Hooks, answer};
use crate::gateway::reason::Reason;
use crate::gateway::rejection::Rejection;
use crate::gateway::{Admission, Head, OTP, Refused, Served};
use crate::header_fields::HeaderFields;
use crate::proxy::client::PeerInfo;
use crate::proxy::context::Context;
use crate::proxy::replay::{BodyLimits, Replay};
use crate::proxy::settings::Limits;
use crate::proxy::{headers, validate};

/// How long the rest of a body may take to arrive after an early answer, before the
/// connection is given up.
const DRAIN: Duration = Duration::from_secs(10);

/// What becomes of a request that is not refused.
pub(super) enum Admitted {
    /// It goes upstream.
    Forward,
    /// This is the answer.
    Answer(Box<Served>),
}

impl Hooks {
    /// Admits the request, and from then on keeps its body for a replay; or answers it.
    pub(super) async fn admit(
        &self,
        session: &mut Session,
        context: &mut Context,
    ) -> Result<Admitted, Rejection> {
        context.request_id = self.request_id(&session.req_header().headers);
        context.peer = Some(PeerInfo::of(session));
        let (limits, checked) = {
            let limits = self.limits.load();
            let checked = check_head(session.req_header(), &limits);
            (BodyLimits::from(&**limits), checked)
        };
        prepare(session, &limits);
        checked?;
        if let Some(served) = self.serve_own(session, context).await? {
            return Ok(Admitted::Answer(Box::new(served)));
        }
        match decide(context, session.req_header()).await? {
            Ok(admission) => context.admission = Some(admission),
            Err(mut refused) => {
                let rejection = std::mem::replace(&mut refused.rejection, Reason::Internal.into());
                context.refused = Some(refused);
                return Err(rejection);
            }
        }
        // Not needed any more, and each attempt begins with a copy of this head.
        session
            .req_header_mut()
            .remove_header(&header::AUTHORIZATION);
        forget_code(session, context);
        self.keep_body(session, context, limits)?;
        Ok(Admitted::Forward)
    }

    fn keep_body(
        &self,
        session: &mut Session,
        context: &mut Context,
        limits: BodyLimits,
    ) -> Result<(), Rejection> {
        if session.is_body_empty() {
            return Ok(());
        }
        let announced = answer::content_length(&session.req_header().headers);
        if let (Some(limit), Some(length)) = (limits.body, announced)
            && length > limit
        {
            return Err(Reason::BodyTooLarge.into());
        }
        context.replay = Some(Replay::begin(session, limits, &self.budget, announced));
        Ok(())
    }

    pub(in crate::proxy) fn request_id(&self, headers: &dyn HeaderFields) -> String {
        if let Some(id) = headers::request_id(headers) {
            return id.to_owned();
        }
        let mut id = String::with_capacity(self.serial_start.len() + 16);
        id.push_str(&self.serial_start);
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        // Without the machinery of formatting, as this is done for every request.
        let digits = (serial | 1).ilog2() / 4;
        let digit = |place: u32| {
            let digit = u32::try_from((serial >> (place * 4)) & 0xf).ok()?;
            char::from_digit(digit, 16)
        };
        id.extend((0..=digits).rev().filter_map(digit));
        id
    }
}

async fn decide(
    context: &Context,
    head: &RequestHeader,
) -> Result<Result<Admission, Box<Refused>>, Rejection> {
    let (Some(host), Ok(target)) = (host(head), std::str::from_utf8(head.raw_path())) else {
        return Err(Reason::BadRequest.into());
    };
    let peer = context.peer.as_ref();
    let head = Head {
        method: &head.method,
        host,
        target,
        headers: &head.headers,
        peer: peer.and_then(|peer| peer.client),
        certificate: peer.and_then(|peer| peer.certificate.as_deref()),
    };
    Ok(context.gateway.admit(head).await)
}

/// A second factor's code is for the source alone, however an upstream would spell it.
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

/// Over HTTP/1 the listener has checked the raw bytes before; over HTTP/2 this is the first
/// look at a head. What is signed and routed is the target as it stands, so it must be one.
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

/// `Host`, or `:authority` where there is none.
pub(super) fn host(head: &RequestHeader) -> Option<&str> {
    match head.uri.authority() {
        Some(authority) => Some(authority.as_str()),
        None => head.headers.get(header::HOST)?.to_str().ok(),
    }
}
