//! `PUT /credentials`, compatible with taskcluster-proxy (docs/design/taskcluster.md,
//! "taskcluster-proxy").

use std::future::poll_fn;
use std::time::Duration;

use http::{Method, StatusCode, header};
use zeroize::Zeroizing;

use super::{Admin, AdminPages, Page, PutCredentials};
use crate::proxy::downstream::Downstream;
use crate::proxy::error::RelayError;
use crate::proxy::head::{BodySize, FieldList, RequestHead, ResponseHead};
use crate::proxy::service::ConnInfo;

/// Maximum size of the request body, in bytes.
pub(super) const MAX_BODY: usize = 64 * 1024;
/// Timeout for reading the whole body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// The path of the endpoint. The name of a source can follow as another segment.
const CREDENTIALS: &str = "/credentials";

impl<P: AdminPages> Admin<P> {
    pub(super) async fn put(
        &self,
        head: &RequestHead,
        downstream: &mut Downstream<'_>,
        conn: &ConnInfo,
        source: Option<&str>,
    ) -> Page {
        // An empty body probes for a source, so that the endpoint is hidden if no source accepts
        // credentials.
        let unknown = || self.pages.put_credentials(source, b"") == PutCredentials::NoSource;
        if unknown() {
            return Page::plain(StatusCode::NOT_FOUND, "not found\n");
        }
        if head.method != Method::PUT {
            let allow = "PUT";
            return Page {
                allow,
                ..Page::plain(StatusCode::METHOD_NOT_ALLOWED, "PUT only\n")
            };
        }
        // Browsers send `Origin` with every PUT, and other clients do not. Requests from web
        // pages must be rejected, even if the page's host name resolves to this machine (DNS
        // rebinding).
        if head.fields.contains(&header::ORIGIN) {
            return Page::plain(StatusCode::FORBIDDEN, "not for browsers\n");
        }
        // The body may be slow, and must not keep probes out.
        conn.state.release_request();
        let reading = read_body(head, downstream);
        let body = match tokio::time::timeout(BODY_TIMEOUT, reading).await {
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
async fn read_body(
    head: &RequestHead,
    downstream: &mut Downstream<'_>,
) -> Result<Zeroizing<Vec<u8>>, Page> {
    let broken = |_: RelayError| Page::plain(StatusCode::BAD_REQUEST, "the body was incomplete\n");
    if head.fields.contains(&header::EXPECT) && !downstream.is_body_done() {
        downstream.queue_interim(&continue_head()).map_err(broken)?;
        poll_fn(|cx| downstream.poll_flush(cx))
            .await
            .map_err(broken)?;
    }
    // Allocated at full size, because reallocation would leave copies in memory.
    let mut body = Zeroizing::new(Vec::with_capacity(MAX_BODY));
    while let Some(piece) = poll_fn(|cx| downstream.poll_body(cx))
        .await
        .map_err(broken)?
    {
        if body.len() + piece.len() > MAX_BODY {
            return Err(Page::plain(
                StatusCode::PAYLOAD_TOO_LARGE,
                "the body is larger than 64 KiB\n",
            ));
        }
        body.extend_from_slice(&piece);
    }
    Ok(body)
}

fn continue_head() -> ResponseHead {
    ResponseHead {
        status: StatusCode::CONTINUE,
        reason: None,
        fields: FieldList::default(),
        body: BodySize::Empty,
    }
}
