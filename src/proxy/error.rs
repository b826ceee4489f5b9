//! Why a request could not be relayed.

use std::io;

use crate::gateway::reason::Reason;
use crate::gateway::rejection::Rejection;
use crate::peer_text;

/// An error while a request was relayed.
#[derive(Debug)]
pub(super) struct RelayError {
    pub(super) side: Side,
    pub(super) kind: ErrorKind,
    pub(super) retry: Retry,
    cause: Cause,
}

/// Who caused an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Caller,
    Upstream,
    /// hawkgate itself.
    Gateway,
}

/// What failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ErrorKind {
    ConnectTimeout,
    ConnectRefused,
    NoRoute,
    ConnectFailed,
    TlsFailed,
    ReadTimeout,
    WriteTimeout,
    ReadFailed,
    WriteFailed,
    /// The peer closed the connection, or reset the stream, too early.
    Closed,
    /// The message is not valid, unambiguous HTTP.
    InvalidMessage,
    /// The request body is larger than `limits.body`.
    BodyTooLarge,
    /// The request body arrives too slowly.
    BodyTimeout,
    Internal,
}

/// When a failed attempt may be repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retry {
    Never,
    /// If the connection was reused, because it may have been dead all along.
    IfReused,
    /// Always: the upstream said that it did not process the request (RFC 9113 §8.7).
    Unprocessed,
    /// Always, but in HTTP/1.1: the upstream does not serve this request in HTTP/2 (RFC 9113 §7,
    /// `HTTP_1_1_REQUIRED`).
    WithHttp1,
}

#[derive(Debug)]
enum Cause {
    Text(&'static str),
    /// Composed by hawkgate; contains no text of a peer.
    Composed(String),
    Io(io::Error),
    Other(Box<dyn std::error::Error + Send + Sync>),
}

impl RelayError {
    /// Creates an error with a constant explanation for the operator.
    pub(super) fn new(side: Side, kind: ErrorKind, cause: &'static str) -> Self {
        Self {
            side,
            kind,
            retry: Retry::Never,
            cause: Cause::Text(cause),
        }
    }

    /// Creates an error with an explanation for the operator, which contains no text of a peer.
    pub(super) fn explained(side: Side, kind: ErrorKind, cause: String) -> Self {
        Self {
            cause: Cause::Composed(cause),
            ..Self::new(side, kind, "")
        }
    }

    /// Creates an error from one of the operating system.
    pub(super) fn io(side: Side, kind: ErrorKind, cause: io::Error) -> Self {
        Self {
            cause: Cause::Io(cause),
            ..Self::new(side, kind, "")
        }
    }

    /// Creates an error from one of a library. Its text is not shown, because it may quote the
    /// peer; only what [`peer_text::connection_cause`] recognises in it.
    pub(super) fn because(
        side: Side,
        kind: ErrorKind,
        cause: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self {
            cause: Cause::Other(cause.into()),
            ..Self::new(side, kind, "")
        }
    }

    /// Says when the attempt may be repeated.
    pub(super) fn retry(self, retry: Retry) -> Self {
        Self { retry, ..self }
    }

    /// Returns the rejection that answers a request which failed with this error. `None` if the
    /// caller is gone.
    pub(super) fn to_rejection(&self) -> Option<Rejection> {
        let reason = match self.side {
            Side::Upstream => self.kind.upstream_reason(),
            Side::Caller => self.kind.caller_reason()?,
            Side::Gateway => Reason::Internal,
        };
        Some(Rejection::from(reason).with_cause(self.describe()))
    }

    /// Describes the error for the operator's log. Contains no secret and no text of a peer.
    pub(super) fn describe(&self) -> String {
        let kind = self.kind.label();
        match self.detail() {
            Some(detail) => format!("{kind}: {detail}"),
            None => kind.to_owned(),
        }
    }

    /// What is known beyond the kind of error.
    pub(super) fn detail(&self) -> Option<String> {
        match &self.cause {
            Cause::Text("") => None,
            Cause::Text(text) => Some((*text).to_owned()),
            Cause::Composed(text) => Some(text.clone()),
            Cause::Io(error) => peer_text::connection_cause(error),
            Cause::Other(error) => peer_text::connection_cause(&**error),
        }
    }
}

impl ErrorKind {
    fn upstream_reason(self) -> Reason {
        match self {
            Self::ConnectTimeout | Self::ReadTimeout | Self::WriteTimeout => {
                Reason::UpstreamTimeout
            }
            Self::ConnectRefused | Self::NoRoute | Self::ConnectFailed | Self::TlsFailed => {
                Reason::UpstreamUnreachable
            }
            _ => Reason::UpstreamFailed,
        }
    }

    /// `None` if no response can reach the caller.
    fn caller_reason(self) -> Option<Reason> {
        match self {
            Self::BodyTooLarge => Some(Reason::BodyTooLarge),
            Self::BodyTimeout | Self::ReadTimeout => Some(Reason::BodyTimeout),
            Self::ReadFailed | Self::WriteFailed | Self::WriteTimeout | Self::Closed => None,
            _ => Some(Reason::BadRequest),
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::ConnectTimeout => "ConnectTimedout",
            Self::ConnectRefused => "ConnectRefused",
            Self::NoRoute => "ConnectNoRoute",
            Self::ConnectFailed => "ConnectError",
            Self::TlsFailed => "TLSHandshakeFailure",
            Self::ReadTimeout => "ReadTimedout",
            Self::WriteTimeout => "WriteTimedout",
            Self::ReadFailed => "ReadError",
            Self::WriteFailed => "WriteError",
            Self::Closed => "ConnectionClosed",
            Self::InvalidMessage => "InvalidHTTPHeader",
            Self::BodyTooLarge => "BodyTooLarge",
            Self::BodyTimeout => "BodyTimeout",
            Self::Internal => "InternalError",
        }
    }
}
