//! The headers with which taskcluster-proxy says whom it signed as, on an upstream's answer.

use http::{HeaderName, HeaderValue};
use pingora::Result;

use crate::gateway::compat::NAMES;
use crate::proxy::context::Context;
use crate::proxy::headers::Fields;

/// Adds what taskcluster-proxy says of a request for `target`, in the place of whatever the
/// upstream said under the same names.
pub(super) fn add(target: &[u8], head: &mut impl Fields, context: &Context) -> Result<()> {
    let Some(admission) = context
        .admission
        .as_ref()
        .filter(|a| a.route.compat.headers)
    else {
        return Ok(());
    };
    let own = String::from_utf8_lossy(target);
    let target = admission.target().unwrap_or(&own);
    let Some(headers) = admission.taskcluster_proxy_headers(target) else {
        return Ok(());
    };
    head.retain(|name, _| !NAMES.contains(&name))?;
    for (name, value) in headers {
        // A certificate from elsewhere may hold anything; what cannot stand here is left out.
        if let Ok(value) = HeaderValue::from_str(&value) {
            head.put(HeaderName::from_static(name), value)?;
        }
    }
    Ok(())
}
