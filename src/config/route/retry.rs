//! `retry` of a route.

use std::time::Duration;

use crate::config::reader::{Field, Reader, section};
use crate::config::units::show_duration;
use crate::config::value::{List, Nested};
use crate::gateway::upstream_retry::RetryPolicy;

section! {
    /// Sends a request again when the upstream fails.
    pub(in crate::config) struct Retry {
        /// For how long, since the request arrived; 1s to 1h.
        max_elapsed: Duration = [default "'15m'"],
        /// The statuses of the upstream after which an idempotent request is sent again; from 429 and 500 to
        /// 599.
        statuses: List<u64> = [default "[502, 503, 504]"],
    }
}

/// Resolves the key `retry`. Returns `Some(None)` if it is absent.
#[allow(clippy::option_option)]
pub(super) fn resolve(
    reader: &mut Reader<'_>,
    field: Field<Nested<Retry>>,
) -> Option<Option<RetryPolicy>> {
    let Some(Nested(retry)) = field.optional()? else {
        return Some(None);
    };
    let (least, most) = (Duration::from_secs(1), Duration::from_hours(1));
    reader.check_range(&retry.max_elapsed, least, most, show_duration);
    let mut statuses = Vec::new();
    for item in retry.statuses.value?.items {
        if let Ok(status @ (429 | 500..=599)) = u16::try_from(item.value) {
            statuses.push(status);
        } else {
            let problem = format!("{} is not the status of a failing upstream", item.value);
            reader.error(&item.at, problem, "choose from 429 and 500 to 599");
        }
    }
    Some(Some(RetryPolicy {
        max_elapsed: retry.max_elapsed.value?,
        statuses,
    }))
}
