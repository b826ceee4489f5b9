//! The response headers in which taskcluster-proxy reports which client it signed as.

use http::{HeaderName, HeaderValue};
use pingora::Result;

use crate::gateway::compat::NAMES;
use crate::proxy::context::Context;
use crate::proxy::headers::HeaderFieldsMut;

/// Adds what taskcluster-proxy reports about a request for `target`, replacing what the
/// upstream sent under the same names.
pub(super) fn add(target: &[u8], head: &mut impl HeaderFieldsMut, context: &Context) -> Result<()> {
    let Some(admission) = context
        .admission
        .as_ref()
        .filter(|a| a.route.compat.headers)
    else {
        return Ok(());
    };
    let original = String::from_utf8_lossy(target);
    let target = admission.target().unwrap_or(&original);
    let Some(headers) = admission.taskcluster_proxy_headers(target) else {
        return Ok(());
    };
    head.retain(|name, _| !NAMES.contains(&name))?;
    for (name, value) in headers {
        // A certificate from elsewhere may hold anything; what is not valid in a header field
        // is left out.
        if let Ok(value) = HeaderValue::from_str(&value) {
            head.insert(HeaderName::from_static(name), value)?;
        }
    }
    Ok(())
}
