//! From username and password, or what was kept of them, to a token (identity.md §F).

use std::net::IpAddr;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::PasswordSource;
use super::memory::{Login, Pending};
use super::mfa::Asked;
use crate::credential::{FetchError, SignInProblem};
use crate::remote::oauth::{About, Denied, Failure, Granted};
use crate::secret::SecretString;
use crate::token::BasicCredentials;

/// Auth0's extension that names the user directory.
const PASSWORD_REALM: &str = "http://auth0.com/oauth/grant-type/password-realm";
const MFA_OTP: &str = "http://auth0.com/oauth/grant-type/mfa-otp";
const MFA_OOB: &str = "http://auth0.com/oauth/grant-type/mfa-oob";
const MFA_RECOVERY_CODE: &str = "http://auth0.com/oauth/grant-type/mfa-recovery-code";

/// Whom a confidential client vouches for (Auth0's brute-force protection counts by it).
const FORWARDED_FOR: HeaderName = HeaderName::from_static("auth0-forwarded-for");

/// A confirmation is asked after no more often.
const POLL: Duration = Duration::from_secs(5);
/// Whoever sends no code so long after one was sent to them wants another one.
const RESEND: Duration = Duration::from_secs(30);
/// What a provider that blocks a user without saying how long is taken to mean.
const BLOCKED: Duration = Duration::from_mins(1);
/// The shortest and longest code of an authenticator app or a text message.
const DIGITS: std::ops::RangeInclusive<usize> = 4..=10;

/// Why there is no token.
#[derive(Debug)]
pub(super) enum Refusal {
    /// Password or code was wrong: it counts as a failed attempt.
    Wrong(FetchError),
    /// It says nothing about either.
    Other(FetchError),
}

/// Which secret of the user's an answer is about.
#[derive(Clone, Copy)]
enum Step {
    Password,
    SecondFactor,
}

impl PasswordSource {
    /// By the refresh token, if one is kept that still does.
    pub(super) async fn refresh(&self, login: Login) -> Result<Option<Granted>, FetchError> {
        let Some(token) = self.memory.refresh_token(login) else {
            return Ok(None);
        };
        let parameters = [
            ("grant_type", "refresh_token"),
            ("refresh_token", token.expose()),
        ];
        match self.tokens.grant(&parameters).await {
            Ok(mut granted) => {
                if let Some(next) = granted.refresh_token.take() {
                    self.memory.rotate_refresh_token(login, next);
                }
                Ok(Some(granted))
            }
            Err(Failure::Denied(denied)) if denied.is("invalid_grant") => {
                self.memory.drop_refresh_token(login);
                Ok(None)
            }
            Err(other) => Err(other.into_fetch_error(About::Ourselves)),
        }
    }

    /// By the password, and whatever second factor it takes.
    pub(super) async fn sign_in(
        &self,
        login: Login,
        credentials: &BasicCredentials,
        peer: Option<IpAddr>,
    ) -> Result<Granted, Refusal> {
        let headers = self.headers(peer);
        if let Some(pending) = self.memory.pending(login) {
            let waited = self.clock.steady().saturating_sub(pending.since);
            match credentials.code() {
                Some(code) => return self.second(login, &pending, Some(code), headers).await,
                None if !pending.prompts => {
                    return self.second(login, &pending, None, headers).await;
                }
                None if waited < RESEND => return Err(code_required("a code was sent")),
                None => self.memory.drop_pending(login),
            }
        }
        let denied = match self.first(credentials, headers.clone()).await {
            Ok(granted) => return Ok(granted),
            Err(Failure::Denied(denied)) => denied,
            Err(other) => return Err(Refusal::Other(other.into_fetch_error(About::Ourselves))),
        };
        if !denied.is("mfa_required") {
            return Err(judge(denied, Step::Password));
        }
        let Some(mfa_token) = denied.secret("mfa_token") else {
            let cause = format!("{}: the answer has no mfa_token", denied.cause());
            return Err(Refusal::Other(FetchError::BadAnswer(cause)));
        };
        let Some(code) = credentials.code() else {
            return Err(self.ask_for_factor(login, mfa_token).await);
        };
        self.with_code(&mfa_token, code, headers)
            .await
            .map_err(|denied| refusal(denied, Step::SecondFactor))
    }

    fn headers(&self, peer: Option<IpAddr>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        // The address that connected; never one that a header claims.
        if self.forward_client_ip
            && let Some(peer) = peer
            && let Ok(value) = HeaderValue::from_str(&peer.to_string())
        {
            headers.insert(FORWARDED_FOR, value);
        }
        headers
    }

    async fn first(
        &self,
        credentials: &BasicCredentials,
        headers: HeaderMap,
    ) -> Result<Granted, Failure> {
        let grant_type = match self.realm {
            Some(_) => PASSWORD_REALM,
            None => "password",
        };
        // Without a scope every scope of the audience would be granted.
        let mut parameters = vec![
            ("grant_type", grant_type),
            ("username", credentials.username()),
            ("password", credentials.password().expose()),
            ("scope", self.scope.as_str()),
        ];
        parameters.extend(self.realm.as_deref().map(|realm| ("realm", realm)));
        parameters.extend(
            self.audience
                .as_deref()
                .map(|audience| ("audience", audience)),
        );
        self.tokens.grant_with(&parameters, headers).await
    }

    /// Has the user asked for the factor that the account has.
    async fn ask_for_factor(&self, login: Login, mfa_token: SecretString) -> Refusal {
        match self.mfa.ask(&mfa_token).await {
            Ok(Asked::Code) => code_required("the account has a second factor"),
            Ok(Asked::OutOfBand { oob_code, prompts }) => {
                let since = self.clock.steady();
                let pending = Pending {
                    mfa_token,
                    oob_code,
                    prompts,
                    since,
                };
                self.memory.set_pending(login, pending);
                if prompts {
                    code_required("a code was sent to the user")
                } else {
                    unconfirmed("a confirmation was asked for", POLL)
                }
            }
            Err(error) => error,
        }
    }

    /// What was asked for comes, or is asked after.
    async fn second(
        &self,
        login: Login,
        pending: &Pending,
        code: Option<&SecretString>,
        headers: HeaderMap,
    ) -> Result<Granted, Refusal> {
        let answer = match code {
            Some(code) if !(pending.prompts && is_digits(code)) => {
                self.with_code(&pending.mfa_token, code, headers).await
            }
            code => {
                let mut parameters = vec![
                    ("grant_type", MFA_OOB),
                    ("mfa_token", pending.mfa_token.expose()),
                    ("oob_code", pending.oob_code.expose()),
                ];
                parameters.extend(code.map(|code| ("binding_code", code.expose())));
                self.tokens.grant_with(&parameters, headers).await
            }
        };
        match answer {
            Ok(granted) => {
                self.memory.drop_pending(login);
                Ok(granted)
            }
            Err(Failure::Denied(denied)) if denied.is("authorization_pending") => {
                Err(unconfirmed("the user has not confirmed yet", POLL))
            }
            Err(Failure::Denied(denied)) if denied.is("slow_down") => {
                Err(unconfirmed("the provider was asked too often", POLL * 2))
            }
            Err(failure) => {
                // A mistyped code may be typed again; what the user declined is over, and so
                // is what has expired.
                if matches!(&failure, Failure::Denied(d) if d.status.is_client_error()
                    && !(code.is_some() && d.is("invalid_grant")))
                {
                    self.memory.drop_pending(login);
                }
                Err(refusal(failure, Step::SecondFactor))
            }
        }
    }

    /// By what the user typed: a code of digits, else a recovery code.
    async fn with_code(
        &self,
        mfa_token: &SecretString,
        code: &SecretString,
        headers: HeaderMap,
    ) -> Result<Granted, Failure> {
        let (grant_type, name) = if is_digits(code) {
            (MFA_OTP, "otp")
        } else {
            (MFA_RECOVERY_CODE, "recovery_code")
        };
        let parameters = [
            ("grant_type", grant_type),
            ("mfa_token", mfa_token.expose()),
            (name, code.expose()),
        ];
        self.tokens.grant_with(&parameters, headers).await
    }
}

fn is_digits(code: &SecretString) -> bool {
    let code = code.expose().as_bytes();
    DIGITS.contains(&code.len()) && code.iter().all(u8::is_ascii_digit)
}

fn code_required(cause: &str) -> Refusal {
    Refusal::Other(problem(SignInProblem::CodeRequired, cause.to_owned(), None))
}

fn unconfirmed(cause: &str, wait: Duration) -> Refusal {
    let wait = Some(wait);
    Refusal::Other(problem(SignInProblem::Unconfirmed, cause.to_owned(), wait))
}

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

fn refusal(failure: Failure, step: Step) -> Refusal {
    match failure {
        Failure::Denied(denied) => judge(denied, step),
        other => Refusal::Other(other.into_fetch_error(About::Ourselves)),
    }
}

/// What an error answer means; Auth0's statuses vary, its codes count. Whether there is no
/// such user, the password is wrong, known to have leaked, or the account is shut: callers
/// are told the same, operators which.
fn judge(denied: Denied, step: Step) -> Refusal {
    let wrong = match step {
        Step::Password => SignInProblem::Password,
        Step::SecondFactor => SignInProblem::CodeRefused,
    };
    let cause = denied.cause();
    if denied.status.is_server_error() {
        return Refusal::Other(Failure::Denied(denied).into_fetch_error(About::Ourselves));
    }
    match denied.code.as_deref() {
        Some("too_many_attempts") => {
            let wait = denied.retry_after.unwrap_or(BLOCKED);
            Refusal::Wrong(problem(SignInProblem::TooManyAttempts, cause, Some(wait)))
        }
        // A 401 with this code is about hawkgate's own client.
        Some("access_denied" | "unauthorized") if denied.status == StatusCode::UNAUTHORIZED => {
            let cause = format!(
                "{cause}: hawkgate's own client was not accepted; look at client_id and its secret or key"
            );
            Refusal::Other(FetchError::Unavailable {
                cause,
                retry_after: None,
            })
        }
        Some("invalid_grant" | "password_leaked" | "access_denied" | "unauthorized") => {
            Refusal::Wrong(problem(wrong, cause, None))
        }
        Some("expired_token") => Refusal::Other(problem(wrong, cause, None)),
        Some("unsupported_challenge_type" | "association_required") => {
            Refusal::Other(problem(SignInProblem::NoFactor, cause, None))
        }
        _ => Refusal::Other(Failure::Denied(denied).into_fetch_error(About::Ourselves)),
    }
}
