//! Why a password sign-in failed, and whether that counts against the attempt limit.

use std::time::Duration;

use crate::credential::{FetchError, SignInProblem};

/// Why a sign-in failed.
#[derive(Debug)]
pub(super) enum SignInError {
    /// The password or code was wrong; counts as a failed attempt.
    WrongCredentials(FetchError),
    /// Anything else; does not count.
    Other(FetchError),
}

/// An error that the user can act on.
pub(super) fn problem(
    problem: SignInProblem,
    cause: String,
    retry_after: Option<Duration>,
) -> FetchError {
    FetchError::SignIn {
        problem,
        cause,
        retry_after,
    }
}
