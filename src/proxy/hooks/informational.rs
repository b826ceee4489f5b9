//! The headers with which taskcluster-proxy says whom it signed as, on an upstream's answer.

use http::{HeaderValue, StatusCode};
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora::proxy::Session;

use crate::gateway::informational::NAMES;
use crate::proxy::context::Context;

/// Adds what taskcluster-proxy says of each request, in the place of whatever the upstream
/// said under the same names.
pub(super) fn add(session: &Session, head: &mut ResponseHeader, context: &Context) -> Result<()> {
    let interim = head.status.is_informational() && head.status != StatusCode::SWITCHING_PROTOCOLS;
    let Some(admission) = context.admission.as_ref().filter(|_| !interim) else {
        return Ok(());
    };
    let own = String::from_utf8_lossy(session.req_header().raw_path());
    let target = admission.target().unwrap_or(&own);
    let Some(headers) = admission.informational(target) else {
        return Ok(());
    };
    for name in NAMES {
        head.remove_header(*name);
    }
    for (name, value) in headers {
        // A certificate from elsewhere may hold anything; what cannot stand here is left out.
        if let Ok(value) = HeaderValue::from_str(&value) {
            head.insert_header(name, value)?;
        }
    }
    Ok(())
}
