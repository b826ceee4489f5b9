//! Reads a response as the endpoint does, for [`crate::remote::fuzzing`].

use super::failure::ErrorResponse;
use super::token_response;
use crate::clock::UnixMillis;
use crate::remote::http_client::HttpResponse;

/// Reads a response to a request that was sent at `now`.
pub(in crate::remote) fn read(response: &HttpResponse, now: UnixMillis) {
    if response.status.is_success() {
        if let Ok(answer) = token_response::parse(response, now) {
            assert!(
                answer
                    .access_token
                    .expose()
                    .bytes()
                    .all(|b| b.is_ascii_graphic())
            );
            assert!(answer.expires_at.is_none_or(|at| at > now));
        }
    } else {
        let error = ErrorResponse::read(response, now);
        let _ = (
            error.cause(),
            error.concerns_our_client(),
            error.secret("mfa_token"),
        );
    }
}
