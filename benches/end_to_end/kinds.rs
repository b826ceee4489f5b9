//! What is measured.

use crate::support::http1::{Field, Request};
use crate::support::upstream::path;

/// One kind of load or state.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Get1K,
    Post1K,
    Post64K,
    Get64K,
    GetTls,
    GetHttp2,
    Upload,
    Download,
    FixedRate,
    Idle,
    UnreadHttp1,
    UnreadHttp2,
}

/// How requests are sent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http1Tls,
    Http2Tls,
}

/// A closed loop: each request is sent as soon as the one before it on that connection or stream
/// has been answered.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) protocol: Protocol,
    /// The length of the request's body; 0 for a GET.
    pub(crate) body: usize,
    /// The length of the answer's body.
    pub(crate) answer: usize,
    /// Whether CPU time is reported per MiB instead of per request.
    pub(crate) bulk: bool,
}

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// The length of a bulk transfer.
const BULK: usize = 50 * MIB;

/// The answer of which callers read nothing but the head.
pub(crate) const UNREAD: usize = MIB;

impl Kind {
    /// Every kind, in the order of the report.
    pub(crate) const ALL: [Self; 12] = [
        Self::Get1K,
        Self::Post1K,
        Self::Post64K,
        Self::Get64K,
        Self::GetTls,
        Self::GetHttp2,
        Self::Upload,
        Self::Download,
        Self::FixedRate,
        Self::Idle,
        Self::UnreadHttp1,
        Self::UnreadHttp2,
    ];

    /// The name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Get1K => "get-1k",
            Self::Post1K => "post-1k",
            Self::Post64K => "post-64k",
            Self::Get64K => "get-64k",
            Self::GetTls => "get-tls",
            Self::GetHttp2 => "get-http2",
            Self::Upload => "upload",
            Self::Download => "download",
            Self::FixedRate => "fixed-rate",
            Self::Idle => "idle",
            Self::UnreadHttp1 => "unread-http1",
            Self::UnreadHttp2 => "unread-http2",
        }
    }

    /// The title in the report.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Get1K => "GET, 1 KiB answer",
            Self::Post1K => "POST 1 KiB",
            Self::Post64K => "POST 64 KiB",
            Self::Get64K => "GET, 64 KiB answer",
            Self::GetTls => "GET over TLS 1.3",
            Self::GetHttp2 => "GET over HTTP/2 and TLS 1.3",
            Self::Upload => "upload of 50 MiB, per MiB",
            Self::Download => "download of 50 MiB, per MiB",
            Self::FixedRate => "4,000 requests/s in bursts of 32",
            Self::Idle => "1,000 idle connections",
            Self::UnreadHttp1 => "1,000 unread HTTP/1.1 answers",
            Self::UnreadHttp2 => "1,000 HTTP/2 streams without window",
        }
    }

    /// The closed loop of this kind, if it is one.
    pub(crate) fn load(self) -> Option<Load> {
        let (protocol, body, answer) = match self {
            Self::Get1K => (Protocol::Http1, 0, KIB),
            Self::Post1K => (Protocol::Http1, KIB, KIB),
            Self::Post64K => (Protocol::Http1, 64 * KIB, KIB),
            Self::Get64K => (Protocol::Http1, 0, 64 * KIB),
            Self::GetTls => (Protocol::Http1Tls, 0, KIB),
            Self::GetHttp2 => (Protocol::Http2Tls, 0, KIB),
            Self::Upload => (Protocol::Http1, BULK, 0),
            Self::Download => (Protocol::Http1, 0, BULK),
            Self::FixedRate | Self::Idle | Self::UnreadHttp1 | Self::UnreadHttp2 => return None,
        };
        Some(Load {
            protocol,
            body,
            answer,
            bulk: body.max(answer) == BULK,
        })
    }
}

impl Load {
    /// Returns the request over HTTP/1.1.
    pub(crate) fn request(self, credentials: Option<&Field>) -> Request {
        let method = if self.body > 0 { "POST" } else { "GET" };
        let path = path(self.answer);
        Request::new(method, &path, credentials, self.body, self.answer)
    }

    /// Returns the number of units (requests, or MiB) of `requests` requests.
    pub(crate) fn units(self, requests: usize) -> f64 {
        let size = if self.bulk { BULK / MIB } else { 1 };
        (requests * size) as f64
    }
}
