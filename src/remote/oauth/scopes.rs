//! Scopes as they are asked for: what the source is configured with, narrowed by rules.

use super::Granted;
use crate::credential::{FetchError, SwapRequest, scope};

/// What to ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scopes {
    /// Empty: what the server gives by itself.
    asked: Vec<String>,
    narrowed: bool,
}

impl Scopes {
    /// `own` are the source's; empty ones leave the choice to the server, so that the rules'
    /// list is the narrower one.
    ///
    /// # Errors
    /// [`FetchError::NotEntitled`] when nothing is left: an empty `scope` cannot be sent, and
    /// sent without it the request would ask for everything.
    pub fn new(own: &[String], request: &SwapRequest) -> Result<Self, FetchError> {
        let Some(wanted) = request.scopes.as_deref() else {
            return Ok(Self {
                asked: own.to_vec(),
                narrowed: false,
            });
        };
        let asked = if own.is_empty() {
            wanted.to_vec()
        } else {
            scope::intersect(own, wanted)
        };
        if asked.is_empty() {
            let text = "the rules leave none of the source's scopes";
            return Err(FetchError::NotEntitled(text.into()));
        }
        Ok(Self {
            asked,
            narrowed: true,
        })
    }

    /// The `scope` parameter; `None` leaves it out.
    pub fn parameter(&self) -> Option<String> {
        (!self.asked.is_empty()).then(|| self.asked.join(" "))
    }

    /// Refuses a token that may do more than rules allow. Without rules a server may add
    /// what it likes (some always add their default scopes).
    pub fn check(&self, granted: &Granted) -> Result<(), FetchError> {
        let allowed = |scope: &String| scope::any_satisfies(&self.asked, scope);
        let wider = granted.scope.iter().flatten().any(|scope| !allowed(scope));
        if self.narrowed && wider {
            let text = "the token was granted for more scopes than the rules allow";
            return Err(FetchError::BadAnswer(text.into()));
        }
        Ok(())
    }
}
