//! `PUT /credentials`, as taskcluster-proxy's users know it (taskcluster.md §7).

use std::time::Duration;

use http::{Method, StatusCode};
use pingora::protocols::http::ServerSession;
use zeroize::Zeroizing;

use super::{Admin, AdminPages, Page, PutCredentials};

/// The largest body read, in bytes.
pub(super) const MAX_BODY: usize = 64 * 1024;
/// For all of it.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Where credentials are put; below it, those of one source.
const CREDENTIALS: &str = "/credentials";

impl<P: AdminPages> Admin<P> {
    pub(super) async fn put(
        &self,
        session: &mut ServerSession,
        method: &Method,
        source: Option<&str>,
    ) -> Page {
        // Asked with nothing, to hide the page where no source takes any.
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
        // Browsers send it with every PUT, programs never: no web page shall get here, not
        // even one whose host name leads to this machine.
        if session.req_header().headers.contains_key("origin") {
            return Page::plain(StatusCode::FORBIDDEN, "not for browsers\n");
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

/// The source that a path below `/credentials` names; `None` for other paths.
#[allow(clippy::option_option)]
pub(super) fn source_from_path(path: &str) -> Option<Option<&str>> {
    match path.strip_prefix(CREDENTIALS)? {
        "" => Some(None),
        rest => Some(Some(rest.strip_prefix('/')?)),
    }
}

/// The whole body, wiped when dropped.
async fn read_body(session: &mut ServerSession) -> Result<Zeroizing<Vec<u8>>, Page> {
    let broken = |_| Page::plain(StatusCode::BAD_REQUEST, "the body broke off\n");
    if session.req_header().headers.contains_key("expect") {
        session.write_continue_response().await.map_err(broken)?;
    }
    // All the room at once: growing would leave copies behind.
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
