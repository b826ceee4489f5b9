//! One configured issuer, and the choice among several.

use std::sync::Arc;

use super::{BearerToken, Caller, TokenError};

/// A configured issuer: its rules, its keys, its verified tokens.
#[derive(Debug)]
pub struct Issuer {
    name: Arc<str>,
}

impl Issuer {
    /// Its configured name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }
}

/// What readiness asks of an issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IssuerStatus {
    /// Keys are there (fresh or stale but within the limit), or none are needed.
    Usable,
    /// No keys were ever had, or they are too old.
    NoKeys,
}

/// Finds out who `token` stands for, asking only the issuers given.
pub async fn authenticate(
    _token: &BearerToken,
    _issuers: &[Arc<Issuer>],
) -> Result<Caller, TokenError> {
    Err(TokenError::Malformed)
}
