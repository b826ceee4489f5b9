//! Maps pingora's errors to rejections.

use pingora::{Error, ErrorSource, ErrorType, ImmutStr};

use super::context::Context;
use super::record::RequestError;
use crate::gateway::reason::Reason;
use crate::gateway::rejection::Rejection;
use crate::peer_text;

/// What to do about an error.
#[derive(Clone, Debug)]
pub(super) enum Failure {
    /// The caller has disconnected, so no response can be sent.
    CallerGone,
    /// Respond with this rejection.
    Reject(Rejection),
}

/// Classifies an error with which a request failed in pingora.
pub(super) fn classify(error: &Error) -> Failure {
    let reason = match error.esource() {
        ErrorSource::Upstream => upstream(error.etype()),
        ErrorSource::Downstream => match downstream(error.etype()) {
            Some(reason) => reason,
            None => return Failure::CallerGone,
        },
        ErrorSource::Internal | ErrorSource::Unset => Reason::Internal,
    };
    Failure::Reject(Rejection::from(reason).with_cause(cause(error)))
}

impl From<&Error> for RequestError {
    fn from(error: &Error) -> Self {
        Self {
            by_caller: matches!(classify(error), Failure::CallerGone),
            cause: cause(error),
        }
    }
}

/// Returns the rejection to send for a request that ended with `error`: the one already decided
/// on, or the one that corresponds to the error. `None` if the caller has disconnected. It
/// includes the recovery code that the caller must receive.
pub(super) fn rejection(error: &Error, context: &mut Context) -> Option<Rejection> {
    let rejection = match (context.rejection.take(), classify(error)) {
        (Some(rejection), _) | (None, Failure::Reject(rejection)) => rejection,
        (None, Failure::CallerGone) => return None,
    };
    Some(Rejection {
        recovery_code: context.take_recovery_code(),
        ..rejection
    })
}

fn upstream(kind: &ErrorType) -> Reason {
    match kind {
        ErrorType::ConnectTimedout
        | ErrorType::TLSHandshakeTimedout
        | ErrorType::ReadTimedout
        | ErrorType::WriteTimedout => Reason::UpstreamTimeout,
        ErrorType::ConnectRefused
        | ErrorType::ConnectNoRoute
        | ErrorType::ConnectError
        | ErrorType::ConnectProxyFailure
        | ErrorType::BindError
        | ErrorType::SocketError
        | ErrorType::AcceptError
        | ErrorType::InvalidCert
        | ErrorType::HandshakeError
        | ErrorType::TLSHandshakeFailure => Reason::UpstreamUnreachable,
        _ => Reason::UpstreamFailed,
    }
}

fn downstream(kind: &ErrorType) -> Option<Reason> {
    match kind {
        ErrorType::HTTPStatus(413) => Some(Reason::BodyTooLarge),
        ErrorType::HTTPStatus(408) | ErrorType::ReadTimedout => Some(Reason::BodyTimeout),
        ErrorType::ReadError
        | ErrorType::WriteError
        | ErrorType::WriteTimedout
        | ErrorType::ConnectionClosed
        | ErrorType::H2Error => None,
        _ => Some(Reason::BadRequest),
    }
}

/// Describes an error for the operator's log. pingora quotes input that it could not parse and
/// certificates that it does not accept, so a context is only used if it is constant.
pub(super) fn cause(error: &Error) -> String {
    let kind = error.etype().as_str();
    let quotes = matches!(
        error.etype(),
        ErrorType::Custom(_) | ErrorType::CustomCode(..)
    );
    let root = error.root_cause();
    match (peer_text::connection_cause(root), &error.context) {
        _ if quotes => kind.to_owned(),
        (Some(cause), _) => format!("{kind}: {cause}"),
        (None, Some(ImmutStr::Static(context))) => format!("{kind}: {context}"),
        _ => kind.to_owned(),
    }
}
