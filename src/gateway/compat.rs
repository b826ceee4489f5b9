//! Optional behaviour of taskcluster-proxy (`docs/design/taskcluster.md`).

mod headers;
mod short_path;

pub use headers::NAMES;
pub(super) use short_path::expand;

/// `route.compat`: which parts of taskcluster-proxy's behaviour a route has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compat {
    /// Accepts `/<service>/<version>/<path>` as short for `/api/<service>/<version>/<path>`.
    pub shortcut: bool,
    /// Whether `POST /bewit` signs this route's URLs.
    pub bewit: bool,
    /// Adds taskcluster-proxy's `X-Taskcluster-…` headers to responses.
    pub headers: bool,
}
