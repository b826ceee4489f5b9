//! The values that labels may have: names from the configuration and closed sets.

use std::sync::Arc;

use crate::label::Label;

/// Label value for anything without a configured name: a request that matched no route, a token of
/// an unknown issuer.
pub(super) const UNKNOWN: &str = "-";

/// The configured names, which are the only ones that become label values.
#[derive(Clone, Debug, Default)]
pub struct LabelValues {
    /// Names of `[[route]]`.
    pub routes: Vec<Arc<str>>,
    /// Names of `[[issuer]]`.
    pub issuers: Vec<Arc<str>>,
    /// Names of `[[source]]`.
    pub sources: Vec<Arc<str>>,
    /// Names of `[[session]]`.
    pub sessions: Vec<Arc<str>>,
    /// Names of `[[forward_auth]]`.
    pub forward_auth: Vec<Arc<str>>,
}

/// One `child` per member of a closed set, in the set's order.
pub(super) fn children<L: Label, T>(all: &[L], child: impl Fn(&'static str) -> T) -> Vec<T> {
    all.iter().map(|member| child(member.label())).collect()
}
