//! Requested scopes: those configured for the source, narrowed by rules.

use super::Granted;
use crate::credential::{FetchError, SwapRequest, scope};

/// The scopes to request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scopes {
    /// Empty for the server's default.
    requested: Vec<String>,
    narrowed: bool,
}

impl Scopes {
    /// `configured` are the source's scopes. If empty, the server chooses, so the rules' list is
    /// the narrower one.
    ///
    /// # Errors
    /// [`FetchError::NotEntitled`] if no scope is left: `scope` must not be empty, and omitting it
    /// would request all scopes.
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

    /// The `scope` parameter; `None` if it is to be omitted.
    pub fn parameter(&self) -> Option<String> {
        (!self.requested.is_empty()).then(|| self.requested.join(" "))
    }

    /// Refuses a token with more scopes than the rules allow. Without rules, a server may grant
    /// more than requested, and some always add their default scopes.
    pub fn check(&self, granted: &Granted) -> Result<(), FetchError> {
        let allowed = |scope: &String| scope::any_satisfies(&self.requested, scope);
        let wider = granted.scope.iter().flatten().any(|scope| !allowed(scope));
        if self.narrowed && wider {
            let text = "the token was granted for more scopes than the rules allow";
            return Err(FetchError::BadAnswer(text.into()));
        }
        Ok(())
    }
}
