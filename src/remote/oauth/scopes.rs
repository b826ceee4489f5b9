//! The requested scopes: those configured for the source, narrowed by the rules.

use super::TokenResponse;
use crate::credential::{FetchError, SwapRequest, scope};

/// The scopes to request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestedScopes {
    /// Empty for the server's default.
    requested: Vec<String>,
    narrowed: bool,
}

impl RequestedScopes {
    /// Narrows `configured`, the source's scopes, to those that the rules allow. If `configured` is
    /// empty, the server would choose, so the rules' list is requested.
    ///
    /// # Errors
    /// [`FetchError::NotEntitled`] if no scope is left: an empty `scope` is invalid, and omitting the
    /// parameter would request the server's default.
    pub fn new(configured: &[String], request: &SwapRequest) -> Result<Self, FetchError> {
        let Some(allowed) = request.scopes.as_deref() else {
            return Ok(Self {
                requested: configured.to_vec(),
                narrowed: false,
            });
        };
        let requested = if configured.is_empty() {
            allowed.to_vec()
        } else {
            scope::intersect(configured, allowed)
        };
        if requested.is_empty() {
            let text = "the rules leave none of the source's scopes";
            return Err(FetchError::NotEntitled(text.into()));
        }
        Ok(Self {
            requested,
            narrowed: true,
        })
    }

    /// The `scope` parameter; `None` to omit it.
    pub fn parameter(&self) -> Option<String> {
        (!self.requested.is_empty()).then(|| self.requested.join(" "))
    }

    /// Rejects a token with more scopes than the rules allow. Without rules, more scopes than
    /// requested are accepted, since some servers always add their defaults.
    pub fn check(&self, response: &TokenResponse) -> Result<(), FetchError> {
        let allowed = |scope: &String| scope::any_satisfies(&self.requested, scope);
        let wider = response.scope.iter().flatten().any(|scope| !allowed(scope));
        if self.narrowed && wider {
            let text = "the token was granted for more scopes than the rules allow";
            return Err(FetchError::BadAnswer(text.into()));
        }
        Ok(())
    }
}
