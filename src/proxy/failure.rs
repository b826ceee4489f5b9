//! What pingora's errors mean to a caller.

use pingora::{Error, ErrorSource, ErrorType};

use crate::gateway::reason::Reason;
use crate::gateway::rejection::Rejection;

/// Where it went wrong.
#[derive(Clone, Debug)]
pub(super) enum Failure {
    /// The caller went away: there is nobody to answer.
    CallerGone,
    /// Answer with this.
    Refuse(Rejection),
}

/// Judges the error with which pingora gave a request up.
pub(super) fn judge(error: &Error) -> Failure {
    let reason = match error.esource() {
        ErrorSource::Upstream => upstream(error.etype()),
        ErrorSource::Downstream => match downstream(error.etype()) {
            Some(reason) => reason,
            None => return Failure::CallerGone,
        },
        ErrorSource::Internal | ErrorSource::Unset => Reason::Internal,
    };
    Failure::Refuse(Rejection::from(reason).because(cause(error)))
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

/// For the operator's log. pingora quotes what it could not parse, which may be anything
/// that a party sent; so of such errors only the kind is told.
pub(super) fn cause(error: &Error) -> String {
    let kind = error.etype().as_str();
    let quotes = matches!(
        error.etype(),
        ErrorType::InvalidHTTPHeader | ErrorType::Custom(_) | ErrorType::CustomCode(..)
    );
    match (
        &error.context,
        error.root_cause().downcast_ref::<std::io::Error>(),
    ) {
        (_, Some(io)) => format!("{kind}: {}", io.kind()),
        (Some(context), None) if !quotes => format!("{kind}: {}", context.as_str()),
        _ => kind.to_owned(),
    }
}
