//! Message heads, independent of the protocol version that carried them.

mod fields;

use bytes::Bytes;
use http::{Method, StatusCode, Version, header};

use crate::header_fields::{HeaderFields, text};
pub(super) use fields::{FieldList, Parsed, Sent};

/// How much content follows a head, as far as the head says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodySize {
    /// No content follows, and the head need not say so.
    Empty,
    /// This number of bytes follows; may be zero.
    Known(u64),
    /// The end is found by reading.
    Unknown,
}

/// The validated head of a request. Not `Debug`, because it can contain cookies and tokens.
pub(super) struct RequestHead {
    pub(super) method: Method,
    /// The version that the caller used: HTTP/1.0, HTTP/1.1 or HTTP/2.
    pub(super) version: Version,
    /// Path and query as received, or `*`. ASCII, because it was validated.
    target: String,
    /// The authority of an absolute-form target, or `:authority`.
    authority: Option<String>,
    /// The field lines without those that frame the body, except for a single valid
    /// `Content-Length`.
    pub(super) fields: FieldList,
    pub(super) body: BodySize,
}

impl RequestHead {
    /// `target` is in origin-form, or `*`.
    pub(super) fn new(
        method: Method,
        version: Version,
        (authority, target): (Option<Bytes>, Bytes),
        fields: FieldList,
        body: BodySize,
    ) -> Self {
        let text = |bytes: Bytes| String::from_utf8(bytes.into()).ok();
        Self {
            method,
            version,
            target: text(target).unwrap_or_default(),
            authority: authority.map(|authority| text(authority).unwrap_or_default()),
            fields,
            body,
        }
    }

    /// Returns path and query as received.
    pub(super) fn target(&self) -> &str {
        &self.target
    }

    /// Returns the authority of the target (`:authority` in HTTP/2), or else `Host`. Empty if an
    /// HTTP/1.0 request has neither (RFC 9112 §3.2).
    pub(super) fn host(&self) -> Option<&str> {
        match &self.authority {
            Some(authority) => Some(authority),
            None => match self.fields.first(&header::HOST) {
                Some(host) => text(host),
                None => (self.version == Version::HTTP_10).then_some(""),
            },
        }
    }
}

/// The head of an upstream's response. Not `Debug`, because it can contain cookies and tokens.
pub(super) struct ResponseHead {
    pub(super) status: StatusCode,
    /// The reason phrase, unless it is the canonical one or there is none.
    pub(super) reason: Option<Box<[u8]>>,
    /// The field lines without those that frame the body or concern the connection, except for a
    /// single valid `Content-Length`. That can be the length of content that is not sent (`HEAD`,
    /// 304).
    pub(super) fields: FieldList,
    /// What follows. `Empty` for interim responses and those that have no content by definition.
    pub(super) body: BodySize,
}
