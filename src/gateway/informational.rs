//! The headers with which taskcluster-proxy says whom it signed as (taskcluster.md §7).

use super::{Admission, path};
use crate::credential::{Credential, Lease};
use crate::hawk::Grant;
use crate::hawk::bewit::has_bewit;

const ENDPOINT: &str = "x-taskcluster-endpoint";
const VERSION: &str = "x-taskcluster-proxy-version";
const REVISION: &str = "x-taskcluster-proxy-revision";
const PERMANENT_CLIENT: &str = "x-taskcluster-proxy-perm-clientid";
const TEMPORARY_CLIENT: &str = "x-taskcluster-proxy-temp-clientid";
const TEMPORARY_SCOPES: &str = "x-taskcluster-proxy-temp-scopes";
const AUTHORIZED_SCOPES: &str = "x-taskcluster-authorized-scopes";

/// All of them: an upstream's own are taken out where hawkgate states its.
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
    /// What the headers say of this request, which goes upstream as `target`; `None` where
    /// the route does not want them. Names and scopes, never a secret: a bewit that the
    /// caller sent is not repeated.
    pub fn informational(&self, target: &str) -> Option<Vec<(&'static str, String)>> {
        if !self.route.compat.headers {
            return None;
        }
        let upstream = &self.route.upstream;
        let scheme = if upstream.tls { "https" } else { "http" };
        let authority = upstream.authority.to_str().unwrap_or_default();
        let shown = if has_bewit(target) {
            path::without_query(target)
        } else {
            target
        };
        let mut headers = vec![
            (ENDPOINT, format!("{scheme}://{authority}{shown}")),
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
