//! Retries after 429 (Too Many Requests, RFC 6585 §4). Auth0 allows five registrations a second
//! per tenant.

use std::time::Duration;

use http::{HeaderName, StatusCode};

use super::http_client::{HttpResponse, RequestError};
use crate::clock::{SharedClock, UnixMillis};

/// The most times that a request is sent.
const ATTEMPTS: u32 = 5;
/// The longest delay before a retry; if the peer asks for a longer one, the 429 is returned.
const MAX_DELAY: Duration = Duration::from_mins(1);
/// The delay if the peer does not give one.
pub(super) const DEFAULT_DELAY: Duration = Duration::from_secs(1);

/// When an exhausted rate limit is reset, in epoch seconds (Auth0).
pub(super) const X_RATELIMIT_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// Sends a request, and again after each 429. Even a POST may be repeated, because a 429 means
/// that it was not processed. Returns the last response, even if that is a 429.
pub(super) async fn with_retry_after<F, S>(
    clock: &SharedClock,
    send: F,
) -> Result<HttpResponse, RequestError>
where
    F: Fn() -> S,
    S: Future<Output = Result<HttpResponse, RequestError>>,
{
    for _ in 1..ATTEMPTS {
        let response = send().await?;
        match retry_delay(&response, clock.now()) {
            Some(delay) if delay <= MAX_DELAY => tokio::time::sleep(delay).await,
            _ => return Ok(response),
        }
    }
    send().await
}

/// How long to wait after `response`, if it says so: its `Retry-After`, or when a rate limit is
/// reset, by the peer's clock if the response has a `Date`.
pub(super) fn retry_after(response: &HttpResponse, now: UnixMillis) -> Option<Duration> {
    let reset = || {
        let seconds = response.header(&X_RATELIMIT_RESET)?.trim().parse().ok()?;
        let at = UnixMillis::from_secs(seconds);
        Some(response.date().unwrap_or(now).until(at))
    };
    response
        .retry_after()
        .or_else(|| is_429(response).then(reset).flatten())
}

/// [`retry_after`], and a default after a 429, so that such a request is never repeated at once.
pub(super) fn overload_delay(response: &HttpResponse, now: UnixMillis) -> Option<Duration> {
    retry_after(response, now).or_else(|| is_429(response).then_some(DEFAULT_DELAY))
}

/// How long to wait before trying again, if the response is a 429.
pub(super) fn retry_delay(response: &HttpResponse, now: UnixMillis) -> Option<Duration> {
    overload_delay(response, now).filter(|_| is_429(response))
}

fn is_429(response: &HttpResponse) -> bool {
    response.status == StatusCode::TOO_MANY_REQUESTS
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use http::HeaderMap;

    use super::*;
    use crate::clock::ManualClock;

    fn response(status: u16, headers: &[(&'static str, &str)]) -> HttpResponse {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        HttpResponse {
            status: StatusCode::from_u16(status).unwrap(),
            headers: map,
            body: bytes::Bytes::new(),
        }
    }

    #[test]
    fn the_delay_follows_retry_after_then_the_rate_limit_reset() {
        let now = UnixMillis::from_secs(1_000);
        for (status, headers, expected) in [
            (200, vec![("retry-after", "7")], None),
            (429, vec![("retry-after", "7")], Some(7)),
            (429, vec![("x-ratelimit-reset", "1009")], Some(9)),
            (429, vec![("x-ratelimit-reset", "900")], Some(0)),
            (
                429,
                vec![("retry-after", "2"), ("x-ratelimit-reset", "1009")],
                Some(2),
            ),
            (429, vec![("retry-after", "soon")], Some(1)),
            (429, vec![], Some(1)),
        ] {
            let expected = expected.map(Duration::from_secs);
            assert_eq!(
                retry_delay(&response(status, &headers), now),
                expected,
                "{headers:?}"
            );
        }
    }

    async fn sent(responses: &[(u16, &str)]) -> (u32, u16) {
        let clock: SharedClock = ManualClock::at(UnixMillis(0));
        let count = AtomicU32::new(0);
        let last = with_retry_after(&clock, || {
            let nth = count.fetch_add(1, Ordering::SeqCst) as usize;
            let (status, after) = responses[nth.min(responses.len() - 1)];
            let response = response(status, &[("retry-after", after)]);
            async { Ok(response) }
        });
        let status = last.await.unwrap().status.as_u16();
        (count.load(Ordering::SeqCst), status)
    }

    #[tokio::test(start_paused = true)]
    async fn only_429_is_retried_and_only_a_few_times() {
        assert_eq!(sent(&[(201, "0")]).await, (1, 201));
        assert_eq!(sent(&[(429, "3"), (429, "3"), (201, "0")]).await, (3, 201));
        assert_eq!(sent(&[(429, "1")]).await, (5, 429));
        assert_eq!(sent(&[(429, "61")]).await, (1, 429));
        assert_eq!(sent(&[(503, "1")]).await, (1, 503));
    }
}
