//! How a credential was come by, as closed sets: metrics and logs say it.

use crate::label::labels;

labels! {
    /// How a credential was come by.
    Lookup {
        /// From the cache.
        Hit = "hit",
        /// By an exchange that this request started.
        Fetched = "fetched",
        /// By an exchange that another request had started.
        Joined = "joined",
        /// From the cache although a refresh had failed: still valid.
        Stale = "stale",
        /// A remembered refusal.
        Refused = "refused",
        /// The exchange failed.
        Failed = "failed",
    }
}

labels! {
    /// How an exchange with a source ended.
    ExchangeResult {
        /// A credential came.
        Ok = "ok",
        /// The source refused the caller's token.
        Refused = "refused",
        /// The caller is not entitled.
        NotEntitled = "not_entitled",
        /// The source was unreachable, overloaded or too slow.
        Unavailable = "unavailable",
        /// The answer was not a credential.
        BadAnswer = "bad_answer",
        /// The credential cannot be used: its header would be too long.
        TooLarge = "too_large",
    }
}
