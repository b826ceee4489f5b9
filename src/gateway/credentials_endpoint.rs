//! `PUT /credentials` on callers' listeners, as taskcluster-proxy has it
//! (`docs/design/taskcluster.md`): the worker that started the proxy sends new credentials there.
//! Who may send them, [`crate::proxy`] decides by the connection.

use std::fmt;
use std::sync::Arc;

use http::{StatusCode, header};

use super::local_response::LocalResponse;
use super::reason::Reason;
use super::rejection::Rejection;
use super::{Gateway, Head, path, reserved_path};
use crate::credential::taskcluster_static::{MAX_UPDATE_BYTES, StaticSource};

/// The path of the endpoint, on every host.
pub const PATH: &str = reserved_path::CREDENTIALS;

/// The largest body, in bytes.
pub const MAX_BODY_BYTES: usize = MAX_UPDATE_BYTES;

/// The endpoint.
pub struct CredentialsEndpoint {
    /// The name of the route.
    pub route: Arc<str>,
    /// The name of the source.
    pub name: Arc<str>,
    /// The source whose credentials are replaced.
    pub source: Arc<StaticSource>,
}

impl fmt::Debug for CredentialsEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = f.debug_struct("CredentialsEndpoint");
        fields.field("source", &self.name).finish_non_exhaustive()
    }
}

impl Gateway {
    /// Whether `target` is the endpoint, and there is one.
    pub fn is_credentials_endpoint(&self, target: &str) -> bool {
        self.credentials.is_some() && path::without_query(target) == PATH
    }

    /// Checks a request to the endpoint before its body is read.
    ///
    /// # Errors
    /// If a web page sent the request. Browsers send `Origin` with every PUT, and other clients do
    /// not; the page may be one that this gateway served.
    pub fn check_credentials_sender(&self, head: Head<'_>) -> Result<(), Rejection> {
        if head.headers.first(&header::ORIGIN).is_some() {
            return Err(Rejection::from(Reason::CrossSite).with_cause("a request with Origin"));
        }
        self.isolation.check(head)
    }

    /// Replaces the credentials with those in `body`, which requests that start from now on are
    /// signed with.
    ///
    /// # Errors
    /// [`Reason::BadRequest`] if they are unusable, in which case the old ones remain.
    pub fn replace_credentials(&self, body: &[u8]) -> Result<LocalResponse, Rejection> {
        let Some(endpoint) = &self.credentials else {
            return Err(Reason::NoRoute.into());
        };
        let name = &endpoint.name;
        match endpoint.source.update(body) {
            Ok(client_id) => {
                let event = "credentials_replaced";
                tracing::info!(target: "audit", event, source = %name, credential = client_id, "credentials replaced through a callers' listener");
                tracing::info!(source = %name, client_id, "credentials replaced until the next start");
                let mut response = LocalResponse::new(StatusCode::OK);
                response.details.route = Some(Arc::clone(&endpoint.route));
                response.details.source = Some(Arc::clone(name));
                Ok(response)
            }
            Err(why) => {
                let event = "credentials_refused";
                tracing::info!(target: "audit", event, source = %name, cause = %why, "credentials sent to a callers' listener rejected");
                Err(Rejection::from(Reason::BadRequest).with_cause(why.to_string()))
            }
        }
    }
}
