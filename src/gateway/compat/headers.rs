//! The response headers in which taskcluster-proxy describes the credentials it signed with.

use crate::credential::{Credential, Lease};
use crate::gateway::{Admission, path};
use crate::hawk::Grant;
use crate::hawk::bewit::has_bewit;

const ENDPOINT: &str = "x-taskcluster-endpoint";
const VERSION: &str = "x-taskcluster-proxy-version";
const REVISION: &str = "x-taskcluster-proxy-revision";
const PERMANENT_CLIENT: &str = "x-taskcluster-proxy-perm-clientid";
const TEMPORARY_CLIENT: &str = "x-taskcluster-proxy-temp-clientid";
const TEMPORARY_SCOPES: &str = "x-taskcluster-proxy-temp-scopes";
const AUTHORIZED_SCOPES: &str = "x-taskcluster-authorized-scopes";

/// All of these headers. On routes where hawkgate adds them, the upstream's are removed.
pub const NAMES: &[&str] = &[
    ENDPOINT,
    VERSION,
    REVISION,
    PERMANENT_CLIENT,
    TEMPORARY_CLIENT,
    TEMPORARY_SCOPES,
    AUTHORIZED_SCOPES,
];

impl Admission {
    /// The headers for this request, sent upstream as `target`; `None` unless the route has
    /// `headers` on. They contain names and scopes, never secrets: the query is omitted if it
    /// has a bewit.
    pub fn taskcluster_proxy_headers(&self, target: &str) -> Option<Vec<(&'static str, String)>> {
        if !self.route.compat.headers {
            return None;
        }
        let upstream = &self.route.upstream;
        let scheme = if upstream.tls { "https" } else { "http" };
        let authority = upstream.authority.to_str().unwrap_or_default();
        let target = if has_bewit(target) {
            path::without_query(target)
        } else {
            target
        };
        let mut headers = vec![
            (ENDPOINT, format!("{scheme}://{authority}{target}")),
            (VERSION, crate::VERSION.to_owned()),
            (REVISION, crate::REVISION.to_owned()),
        ];
        let credential = self.lease.as_ref().map(Lease::credential);
        if let Some(Credential::Taskcluster { client_id, signer }) = credential {
            let Grant {
                certificate,
                authorized_scopes,
            } = signer.grant();
            if let Some(certificate) = certificate {
                headers.push((TEMPORARY_CLIENT, client_id.clone()));
                headers.push((TEMPORARY_SCOPES, json(&certificate.scopes)));
            } else {
                headers.push((PERMANENT_CLIENT, client_id.clone()));
            }
            if let Some(scopes) = authorized_scopes {
                headers.push((AUTHORIZED_SCOPES, json(&scopes)));
            }
        }
        Some(headers)
    }
}

fn json(scopes: &[String]) -> String {
    serde_json::Value::from(scopes).to_string()
}
