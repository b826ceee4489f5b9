//! Waiting where a peer says that there were too many requests (RFC 6585 §4; Auth0 takes
//! five registrations a second, identity.md §D).

use std::time::Duration;

use http::{HeaderName, StatusCode};

use super::http_client::{HttpResponse, RequestError};
use crate::clock::{SharedClock, UnixMillis};

/// How often a request is sent at most.
const ATTEMPTS: u32 = 5;
/// The longest single wait; a peer that wants more is told of instead.
const LONGEST: Duration = Duration::from_mins(1);
/// Where the peer does not say.
const DEFAULT: Duration = Duration::from_secs(1);

/// When an exhausted limit is filled again, epoch seconds (Auth0).
const X_RATELIMIT_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// Sends until the answer is another one than 429, which says that nothing was done, so
/// that even a POST may be repeated. The last answer comes back, be it a 429.
pub(super) async fn with_retry_after<F, S>(
    clock: &SharedClock,
    send: F,
) -> Result<HttpResponse, RequestError>
where
    F: Fn() -> S,
    S: Future<Output = Result<HttpResponse, RequestError>>,
{
    for _ in 1..ATTEMPTS {
        let answer = send().await?;
        match wait(&answer, clock.now()) {
            Some(wait) if wait <= LONGEST => tokio::time::sleep(wait).await,
            _ => return Ok(answer),
        }
    }
    send().await
}

/// How long the peer wants to be left alone, if it does.
pub(super) fn wait(answer: &HttpResponse, now: UnixMillis) -> Option<Duration> {
    if answer.status != StatusCode::TOO_MANY_REQUESTS {
        return None;
    }
    let reset = || {
        let seconds = answer.header(&X_RATELIMIT_RESET)?.trim().parse().ok()?;
        let at = UnixMillis::from_secs(seconds);
        Some(answer.date().unwrap_or(now).until(at))
    };
    Some(answer.retry_after().or_else(reset).unwrap_or(DEFAULT))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use http::HeaderMap;

    use super::*;
    use crate::clock::ManualClock;

    fn answer(status: u16, headers: &[(&'static str, &str)]) -> HttpResponse {
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
    fn the_peer_says_how_long() {
        let now = UnixMillis::from_secs(1_000);
        for (status, headers, wanted) in [
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
            let wanted = wanted.map(Duration::from_secs);
            assert_eq!(wait(&answer(status, &headers), now), wanted, "{headers:?}");
        }
    }

    async fn sent(answers: &[(u16, &str)]) -> (u32, u16) {
        let clock: SharedClock = ManualClock::at(UnixMillis(0));
        let count = AtomicU32::new(0);
        let last = with_retry_after(&clock, || {
            let nth = count.fetch_add(1, Ordering::SeqCst) as usize;
            let (status, after) = answers[nth.min(answers.len() - 1)];
            let answer = answer(status, &[("retry-after", after)]);
            async { Ok(answer) }
        });
        let status = last.await.unwrap().status.as_u16();
        (count.load(Ordering::SeqCst), status)
    }

    #[tokio::test(start_paused = true)]
    async fn waits_and_asks_again_but_not_for_ever() {
        assert_eq!(sent(&[(201, "0")]).await, (1, 201));
        assert_eq!(sent(&[(429, "3"), (429, "3"), (201, "0")]).await, (3, 201));
        assert_eq!(sent(&[(429, "1")]).await, (5, 429));
        assert_eq!(sent(&[(429, "61")]).await, (1, 429));
        assert_eq!(sent(&[(503, "1")]).await, (1, 503));
    }
}
