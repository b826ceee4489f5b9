//! How credentials are obtained, as closed sets of labels for metrics and logs.

use crate::label::labels;

labels! {
    /// How a credential was obtained.
    Lookup {
        /// From the cache.
        Hit = "hit",
        /// From an exchange that this request started.
        Fetched = "fetched",
        /// From the store of the fleet, after an exchange of another replica.
        Shared = "shared",
        /// From an exchange that another request had started.
        Joined = "joined",
        /// From the cache, still valid, after a renewal failed.
        Stale = "stale",
        /// A cached refusal.
        Refused = "refused",
        /// The exchange failed.
        Failed = "failed",
    }
}

labels! {
    /// How an exchange with a source ended.
    ExchangeResult {
        /// The source issued a credential.
        Ok = "ok",
        /// The source refused the caller's token.
        Refused = "refused",
        /// The caller is not entitled to a credential.
        NotEntitled = "not_entitled",
        /// The source was unreachable, overloaded or too slow.
        Unavailable = "unavailable",
        /// The source refused hawkgate's own client, or what the configuration makes it ask for.
        ClientRefused = "client_refused",
        /// The response did not contain a usable credential.
        BadAnswer = "bad_answer",
        /// The credential cannot be used: its header would be too long.
        TooLarge = "too_large",
    }
}
