//! Source `taskcluster-static`.
