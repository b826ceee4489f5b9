//! `PUT /credentials`, compatible with taskcluster-proxy (docs/design/taskcluster.md,
//! "taskcluster-proxy").

use std::time::Duration;

use http::{Method, StatusCode};
use pingora::protocols::http::ServerSession;
use zeroize::Zeroizing;

use super::{Admin, AdminPages, Page, PutCredentials, conn_state};

/// Maximum size of the request body, in bytes.
pub(super) const MAX_BODY: usize = 64 * 1024;
/// Timeout for reading the whole body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// The path of the endpoint. The name of a source can follow as another segment.
const CREDENTIALS: &str = "/credentials";

impl<P: AdminPages> Admin<P> {
    pub(super) async fn put(
        &self,
        session: &mut ServerSession,
        method: &Method,
        source: Option<&str>,
    ) -> Page {
        // An empty body probes for a source, so that the endpoint is hidden if no source accepts
        // credentials.
        let unknown = || self.pages.put_credentials(source, b"") == PutCredentials::NoSource;
        if unknown() {
            return Page::plain(StatusCode::NOT_FOUND, "not found\n");
        }
        if *method != Method::PUT {
            let allow = "PUT";
            return Page {
                allow,
                ..Page::plain(StatusCode::METHOD_NOT_ALLOWED, "PUT only\n")
            };
        }
        // Browsers send `Origin` with every PUT, and other clients do not. Requests from web
        // pages must be rejected, even if the page's host name resolves to this machine (DNS
        // rebinding).
        if session.req_header().headers.contains_key("origin") {
            return Page::plain(StatusCode::FORBIDDEN, "not for browsers\n");
        }
        // The body may be slow, and must not keep probes out.
        if let Some(state) = conn_state(session) {
            state.release_request();
        }
        let body = match tokio::time::timeout(BODY_TIMEOUT, read_body(session)).await {
            Ok(Ok(body)) => body,
            Ok(Err(page)) => return page,
            Err(_) => return Page::plain(StatusCode::REQUEST_TIMEOUT, "the body took too long\n"),
        };
        match self.pages.put_credentials(source, &body) {
            PutCredentials::Accepted => Page::plain(StatusCode::OK, ""),
            PutCredentials::Rejected(why) => {
                Page::plain(StatusCode::BAD_REQUEST, format!("{why}\n"))
            }
            PutCredentials::NoSource => Page::plain(StatusCode::NOT_FOUND, "not found\n"),
        }
    }
}

/// Returns the source named by a path at or below `/credentials`, or `None` for other paths.
#[allow(clippy::option_option)]
pub(super) fn source_from_path(path: &str) -> Option<Option<&str>> {
    match path.strip_prefix(CREDENTIALS)? {
        "" => Some(None),
        rest => Some(Some(rest.strip_prefix('/')?)),
    }
}

/// Reads the whole body. It is wiped from memory when dropped.
async fn read_body(session: &mut ServerSession) -> Result<Zeroizing<Vec<u8>>, Page> {
    let broken = |_| Page::plain(StatusCode::BAD_REQUEST, "the body was incomplete\n");
    if session.req_header().headers.contains_key("expect") {
        session.write_continue_response().await.map_err(broken)?;
    }
    // Allocated at full size, because reallocation would leave copies in memory.
    let mut body = Zeroizing::new(Vec::with_capacity(MAX_BODY));
    while let Some(piece) = session.read_request_body().await.map_err(broken)? {
        if body.len() + piece.len() > MAX_BODY {
            session.set_keepalive(None);
            return Err(Page::plain(
                StatusCode::PAYLOAD_TOO_LARGE,
                "the body is larger than 64 KiB\n",
            ));
        }
        body.extend_from_slice(&piece);
    }
    Ok(body)
}
