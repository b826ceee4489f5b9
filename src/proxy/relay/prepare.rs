//! The header fields of each attempt, and those of the answer.

use http::{HeaderName, HeaderValue, Method, StatusCode, header};

use super::{Stop, internal};
use crate::gateway::CredentialHeader;
use crate::gateway::compat::NAMES;
use crate::gateway::rejection::RECOVERY_CODE;
use crate::gateway::rule::Decision;
use crate::proxy::client::PeerInfo;
use crate::proxy::context::Context;
use crate::proxy::error::{ErrorKind, RelayError, Side};
use crate::proxy::headers::{self, HeaderFieldsMut, InvalidField};

/// Prepares the fields of a request for the upstream, except for the credential. Idempotent,
/// because a traced request has other fields in each attempt.
pub(super) fn prepare_request(
    fields: &mut impl HeaderFieldsMut,
    upgrade: bool,
    peer: &PeerInfo,
    context: &Context,
) -> Result<(), RelayError> {
    prepare(fields, upgrade, peer, context).map_err(|InvalidField(cause)| internal(cause))
}

fn prepare(
    fields: &mut impl HeaderFieldsMut,
    upgrade: bool,
    peer: &PeerInfo,
    context: &Context,
) -> Result<(), InvalidField> {
    let admission = context.admission.as_ref();
    let admission = admission.ok_or(InvalidField("the request was not admitted"))?;
    let route = &admission.route;
    headers::prepare_request(
        fields,
        upgrade,
        &route.stripped_headers,
        &route.upstream,
        peer.client,
        &context.request_id,
    )?;
    if let Some(trace) = &context.trace {
        headers::set_trace_headers(fields, trace)?;
    }
    headers::edit(fields, &route.request_headers)?;
    let ruling_headers = admission.decision().map_or(&[][..], Decision::headers);
    headers::set_rule_headers(fields, &context.gateway.rule_headers, ruling_headers)?;
    if let Some(source) = &route.source {
        headers::remove_reserved(fields, source.inject().header())?;
    }
    Ok(())
}

/// Returns the field that authenticates this attempt. `method` and `target` are those sent
/// upstream.
pub(super) fn credential_header(
    method: &Method,
    target: &str,
    context: &Context,
) -> Result<Option<CredentialHeader>, Stop> {
    let Some(admission) = &context.admission else {
        return Err(internal("the request was not admitted").into());
    };
    Ok(context.gateway.sign(admission, method, target)?)
}

/// Prepares the fields of an upstream's response for the caller. `target` is the target of the
/// request.
pub(super) fn sanitize_response(
    fields: &mut impl HeaderFieldsMut,
    status: StatusCode,
    target: &str,
    context: &mut Context,
) -> Result<(), RelayError> {
    sanitize(fields, status, target, context).map_err(|InvalidField(cause)| {
        RelayError::new(Side::Upstream, ErrorKind::InvalidMessage, cause)
    })
}

fn sanitize(
    fields: &mut impl HeaderFieldsMut,
    status: StatusCode,
    target: &str,
    context: &mut Context,
) -> Result<(), InvalidField> {
    headers::sanitize_response(fields, status)?;
    let interim = status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS;
    if !interim {
        if let Some(edits) = context.response_edits() {
            headers::edit(fields, edits)?;
        }
        add_taskcluster_proxy_headers(fields, target, context)?;
    }
    headers::remove_echoes(fields, status, &context.sent)?;
    if let Some(grant) = &context.cors {
        if interim {
            headers::remove_cors_fields(fields)?;
        } else {
            headers::set_cors_fields(fields, grant)?;
        }
    }
    if !interim && let Some(code) = context.take_recovery_code() {
        let mut code = headers::value(code.expose())?;
        code.set_sensitive(true);
        fields.insert(HeaderName::from_static(RECOVERY_CODE), code)?;
        fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))?;
    }
    if !interim && context.has_session() {
        headers::add_session_cookies(fields, &std::mem::take(&mut context.cookies))?;
    }
    Ok(())
}

/// Adds the headers in which taskcluster-proxy reports the client that signed a request for
/// `target`, replacing those that the upstream sent with the same names.
fn add_taskcluster_proxy_headers(
    fields: &mut impl HeaderFieldsMut,
    target: &str,
    context: &Context,
) -> Result<(), InvalidField> {
    let admission = context.admission.as_ref();
    let Some(admission) = admission.filter(|a| a.route.compat.headers) else {
        return Ok(());
    };
    let target = admission.target().unwrap_or(target);
    let Some(headers) = admission.taskcluster_proxy_headers(target) else {
        return Ok(());
    };
    fields.retain(|name, _| !NAMES.contains(&name))?;
    for (name, value) in headers {
        // Certificates are not issued by hawkgate and may contain any text. Values that are not
        // valid in a header field are omitted.
        if let Ok(value) = HeaderValue::from_str(&value) {
            fields.insert(HeaderName::from_static(name), value)?;
        }
    }
    Ok(())
}
