//! The response headers in which taskcluster-proxy reports the client that signed the request.

use http::{HeaderName, HeaderValue};
use pingora::Result;

use crate::gateway::compat::NAMES;
use crate::proxy::context::Context;
use crate::proxy::headers::HeaderFieldsMut;

/// Adds the headers that taskcluster-proxy would send for a request for `target`, replacing
/// those that the upstream sent with the same names.
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
        // Certificates are not issued by hawkgate and may contain any text. Values that are not
        // valid in a header field are omitted.
        if let Ok(value) = HeaderValue::from_str(&value) {
            head.insert(HeaderName::from_static(name), value)?;
        }
    }
    Ok(())
}
