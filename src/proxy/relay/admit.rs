//! Admission, before anything is sent upstream: counts, routes and admits the request, and limits
//! its body. Then the request is forwarded, or answered.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use http::{HeaderName, Method, Version, header};

use super::body::TrailerPolicy;
use super::{State, Transaction};
use crate::gateway::cors::CorsGrant;
use crate::gateway::reason::Reason;
use crate::gateway::rejection::{RECOVERY_CODE, Rejection};
use crate::gateway::route::Route;
use crate::gateway::{Admission, AdmissionError, Head, LocalResponse, OTP, Preflight};
use crate::header_fields::HeaderFields;
use crate::proxy::client::PeerInfo;
use crate::proxy::error::RelayError;
use crate::proxy::head::{BodySize, RequestHead};
use crate::proxy::headers::{self, InvalidField};
use crate::proxy::in_flight::{Address, Counted};
use crate::proxy::replay::{BodyLimits, ReplayBuffer, Reservation};
use crate::trace;

/// Spelled so, some upstreams read it as `X-OTP`.
const OTP_WITH_UNDERSCORE: HeaderName = HeaderName::from_static("x_otp");

/// How a request that is not rejected is served.
enum Admitted {
    /// It is sent upstream.
    Forward,
    /// hawkgate sends this response.
    Answer(Box<LocalResponse>),
}

impl Transaction<'_> {
    /// Serves the request to its end.
    pub(super) async fn run(&mut self) -> Result<(), RelayError> {
        self.context.request_id = self.relay.request_id(&self.head.fields);
        let own = match &self.conn.address {
            Some(_) => None,
            None => self
                .peer
                .accountable
                .map(|ip| self.relay.in_flight.address(ip)),
        };
        let address = own.as_ref().or(self.conn.address.as_ref());
        let counted = Counted::begin(&self.relay.in_flight, address.map(|address| &**address));
        let admitted = match &counted {
            Err(overloaded) => {
                // Before the request is routed, but pages have to be able to read it.
                self.context.cors = self.find_cors();
                Err(overloaded.clone())
            }
            Ok(_) => match self.context.begin_trace(&self.head.fields) {
                None => self.admit(address).await,
                Some(span) => Box::pin(trace::in_span(span, self.admit(address))).await,
            },
        };
        self.context.times.admitted = Some(self.relay.clock.monotonic());
        match admitted {
            Ok(Admitted::Forward) => self.forward().await,
            // What is less common is boxed, so that the future of a forwarded request stays small.
            Ok(Admitted::Answer(served)) => Box::pin(self.answer_own(*served)).await,
            Err(rejection) => {
                if self.context.admission.is_none() && self.request_refused(rejection.reason) {
                    self.answer.close = true;
                }
                Box::pin(self.reject(rejection)).await
            }
        }
    }

    /// Admits the request and begins to record its body for a replay, or produces a response.
    async fn admit(&mut self, address: Option<&Arc<Address>>) -> Result<Admitted, Rejection> {
        if let Some(served) = self.serve_own().await? {
            return Ok(Admitted::Answer(Box::new(served)));
        }
        if self.head.method == Method::OPTIONS
            && let Some(admitted) = Box::pin(self.preflight()).await?
        {
            return Ok(admitted);
        }
        match self.authorize().await? {
            Ok(admission) => {
                self.context.admit(admission);
                self.conn.state.request_admitted();
            }
            Err(refused) => return Err(self.context.reject(refused)),
        }
        let admission = self.context.admission.as_ref();
        if admission.is_some_and(|admission| admission.route.takes_password()) {
            // Only the source may see the one-time password.
            self.head.fields.remove(&OTP);
            self.head.fields.remove(&OTP_WITH_UNDERSCORE);
        }
        if let Some(response) = self.count_hop() {
            return Ok(Admitted::Answer(Box::new(response)));
        }
        self.limit_and_record_body(address)?;
        Ok(Admitted::Forward)
    }

    /// Counts this hop of an admitted OPTIONS request with a valid `Max-Forwards`, and answers the
    /// request if it may go no further (RFC 9110 §7.6.2). TRACE is not admitted.
    fn count_hop(&mut self) -> Option<LocalResponse> {
        if self.head.method != Method::OPTIONS {
            return None;
        }
        let left = headers::max_forwards(&self.head.fields)?;
        if let Some(left) = left.checked_sub(1) {
            let mut digits = itoa::Buffer::new();
            let digits = digits.format(left).as_bytes();
            self.head.fields.set(&header::MAX_FORWARDS, digits);
            return None;
        }
        let admission = self.context.admission.as_ref()?;
        let response = LocalResponse::options(admission.route.methods.as_deref());
        Some(match self.context.take_recovery_code() {
            Some(code) => response.header(RECOVERY_CODE, code.expose()),
            None => response,
        })
    }

    /// Serves a preflight of a route with `cors`, for which nobody has to be authenticated. `None` if
    /// the request is none.
    async fn preflight(&mut self) -> Result<Option<Admitted>, Rejection> {
        let head = gateway_head(&self.peer, &self.head)?;
        let has_body = !self.caller.downstream.is_body_done();
        let preflight = self.context.gateway.preflight(head, has_body, self.began);
        let served = preflight.await;
        let admission = match served {
            Ok(None) => return Ok(None),
            Ok(Some(Preflight::Answer(response))) => {
                self.context.preflight = true;
                return Ok(Some(Admitted::Answer(response)));
            }
            Ok(Some(Preflight::Forward(admission))) => admission,
            Err(refused) => {
                self.context.preflight = true;
                self.context.cors = self.find_cors();
                return Err(self.context.reject(refused));
            }
        };
        self.context.preflight = true;
        self.context.admission = Some(*admission);
        headers::keep_preflight_fields(&mut self.head.fields)
            .map_err(|InvalidField(cause)| Rejection::from(Reason::Internal).with_cause(cause))?;
        // Its caller is not known, so its connection is the first to give way.
        self.release_request();
        Ok(Some(match self.count_hop() {
            Some(response) => Admitted::Answer(Box::new(response)),
            None => Admitted::Forward,
        }))
    }

    /// What a page may read of the answer, for requests that are refused before they are routed.
    fn find_cors(&self) -> Option<CorsGrant> {
        let head = gateway_head(&self.peer, &self.head).ok()?;
        self.context.gateway.cors_grant(head)
    }

    async fn authorize(&mut self) -> Result<Result<Admission, Box<AdmissionError>>, Rejection> {
        let head = gateway_head(&self.peer, &self.head)?;
        let gateway = &self.context.gateway;
        let found = match gateway.match_route(head) {
            Ok(found) => found,
            Err(refused) => return Ok(Err(refused)),
        };
        if let Some(cors) = &found.route.cors {
            self.context.cors = cors.grant(&self.head.fields);
        }
        let slot = || {
            self.conn
                .memo
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        let mut memo = std::mem::take(&mut *slot());
        let admitted = gateway
            .admit_with_memo(found, head, self.began, &mut memo)
            .await;
        *slot() = memo;
        Ok(admitted)
    }

    fn limit_and_record_body(&mut self, address: Option<&Arc<Address>>) -> Result<(), Rejection> {
        if self.caller.downstream.is_body_done() {
            return Ok(());
        }
        let limits = BodyLimits::from(&**self.relay.limits.load());
        let announced = match self.head.body {
            BodySize::Known(length) => Some(length),
            BodySize::Empty | BodySize::Unknown => None,
        };
        if let (Some(limit), Some(length)) = (limits.body, announced)
            && length > limit
        {
            return Err(Reason::BodyTooLarge.into());
        }
        let reservation = Reservation::new(&self.relay.budget, address, limits.replay);
        let recording = ReplayBuffer::new(reservation, limits.replay, announced);
        let trailers = self.trailer_policy();
        self.caller.body.record_in(recording, trailers);
        // An HTTP/1.0 caller cannot mean it (RFC 9110 §10.1.1).
        self.caller.body.expects_continue =
            self.head.version != Version::HTTP_10 && self.head.fields.contains(&header::EXPECT);
        Ok(())
    }

    /// Only the trailers of HTTP/2 are forwarded.
    fn trailer_policy(&self) -> Option<TrailerPolicy> {
        let admission = self.context.admission.as_ref();
        let admission = admission.filter(|_| self.head.version == Version::HTTP_2)?;
        Some(TrailerPolicy {
            gateway: Arc::clone(&self.context.gateway),
            route: Arc::<Route>::clone(&admission.route),
        })
    }
}

/// Assembles the head of `peer`'s request for the gateway.
pub(super) fn gateway_head<'a>(
    peer: &'a PeerInfo,
    head: &'a RequestHead,
) -> Result<Head<'a>, Rejection> {
    let target = head.target();
    let origin_form = target.starts_with('/');
    let server_wide = target == "*" && head.method == Method::OPTIONS;
    match head.host() {
        Some(host) if origin_form || server_wide => {
            Ok(peer.head(&head.method, host, target, &head.fields))
        }
        _ => Err(Reason::BadRequest.into()),
    }
}

impl State {
    /// Returns the caller's request id, or a new one.
    fn request_id(&self, fields: &dyn HeaderFields) -> String {
        if let Some(id) = headers::request_id(fields) {
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
