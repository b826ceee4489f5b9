//! Source `taskcluster-mint`.
