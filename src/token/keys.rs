//! An issuer's keys: fetched, kept, refreshed, never trusted blindly.

use std::time::Duration;

use async_trait::async_trait;

/// A JWKS document as it came, and how long its sender says it is good.
#[derive(Clone, Debug)]
pub struct FetchedKeys {
    /// The document, at most 256 KiB.
    pub document: Vec<u8>,
    /// `Cache-Control: max-age`, unclamped; `None` when absent.
    pub max_age: Option<Duration>,
}

/// Why keys could not be fetched. Texts are for operators and hold no secret.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct KeyFetchError(pub String);

/// Where an issuer's keys come from (a URL, discovery, or a file).
#[async_trait]
pub trait KeyFetcher: Send + Sync + std::fmt::Debug {
    /// Fetches the document once, within the time and size limits.
    async fn fetch(&self) -> Result<FetchedKeys, KeyFetchError>;
}

/// The end of one attempt to refresh keys, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyRefresh {
    /// New document, other keys than before.
    Changed,
    /// New document, same keys.
    Unchanged,
    /// Nothing usable came; earlier keys, if any, stay.
    Failed,
}
