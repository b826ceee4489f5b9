//! `[[session]]`, resolved.

use std::sync::Arc;
use std::time::Duration;

use crate::secret::SecretRef;

/// One `[[session]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionSettings {
    /// Unique among sessions.
    pub name: Arc<str>,
    /// Whom users sign in with.
    pub kind: SessionKind,
    /// The issuer identifier of the provider; the root URL of a Taskcluster deployment. Cookies are bound
    /// to it.
    pub provider: String,
    /// hawkgate's client at the provider. Not a secret.
    pub client_id: String,
    /// The scopes to request.
    pub scopes: Vec<String>,
    /// The `audience` parameter.
    pub audience: Option<String>,
    /// The `resource` parameter (RFC 8707).
    pub resource: Option<String>,
    /// Where sessions are.
    pub store: SessionStore,
    /// 32 bytes in base64.
    pub cookie_key: SecretRef,
    /// The key of before; still opens cookies.
    pub previous_cookie_key: Option<SecretRef>,
    /// How long an unused session lasts.
    pub idle: Duration,
    /// How long any session lasts.
    pub lifetime: Duration,
    /// The path below which the endpoints are; begins and ends with `/`.
    pub prefix: String,
    /// What a navigation without a session gets.
    pub unauthenticated: Unauthenticated,
    /// The origin at which browsers reach hawkgate (`origin` in the file); derived from each request
    /// when `None`.
    pub origin: Option<String>,
    /// The time limit of one request to the provider.
    pub timeout: Duration,
}

/// Whom users sign in with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SessionKind {
    /// An OpenID provider.
    #[default]
    Oidc,
    /// A Taskcluster deployment's own OAuth2 server.
    Taskcluster,
}

/// Where sessions are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SessionStore {
    /// In the browser's cookie, sealed.
    #[default]
    Cookie,
    /// In the store that the fleet shares; the cookie finds and opens them there.
    Shared,
}

/// What a navigation without a session gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unauthenticated {
    /// 302 to the login endpoint.
    #[default]
    Login,
    /// 401.
    Refuse,
}
