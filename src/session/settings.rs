//! `[[session]]`, resolved.

use std::sync::Arc;
use std::time::Duration;

use crate::secret::SecretRef;

/// One `[[session]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionSettings {
    /// Unique among sessions.
    pub name: Arc<str>,
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
