//! Optional behaviour of taskcluster-proxy (`docs/design/taskcluster.md`).

mod headers;
mod short_path;

pub use headers::NAMES;
pub(super) use short_path::expand;
