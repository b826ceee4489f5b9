//! From username and password, or what was kept of them, to a token (identity.md §F).

use std::net::IpAddr;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::PasswordSource;
use super::login_store::{LoginKey, PendingChallenge};
use super::mfa::MfaStep;
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

/// One user signing in.
pub(super) struct PasswordSignIn<'a> {
    pub(super) login: LoginKey,
    pub(super) credentials: &'a BasicCredentials,
    /// What to ask for, as it is sent; not empty.
    pub(super) scope: String,
    pub(super) headers: HeaderMap,
}

/// Why there is no token.
#[derive(Debug)]
pub(super) enum SignInError {
    /// Password or code was wrong: it counts as a failed attempt.
    WrongCredentials(FetchError),
    /// It says nothing about either.
    Other(FetchError),
}

/// Which secret of the user's an answer is about.
#[derive(Clone, Copy)]
enum Factor {
    Password,
    Second,
}

impl PasswordSource {
    /// By the refresh token, if one is kept that still does.
    pub(super) async fn refresh(&self, login: LoginKey) -> Result<Option<Granted>, FetchError> {
        let Some(token) = self.logins.refresh_token(login) else {
            return Ok(None);
        };
        let parameters = [
            ("grant_type", "refresh_token"),
            ("refresh_token", token.expose()),
        ];
        match self.tokens.grant(&parameters).await {
            Ok(mut granted) => {
                if let Some(next) = granted.refresh_token.take() {
                    self.logins.rotate_refresh_token(login, next);
                }
                Ok(Some(granted))
            }
            Err(Failure::Denied(denied)) if denied.is("invalid_grant") => {
                self.logins.remove_refresh_token(login);
                Ok(None)
            }
            Err(other) => Err(other.into_fetch_error(About::Ourselves)),
        }
    }

    /// By the password, and whatever second factor it takes.
    pub(super) async fn sign_in(&self, user: &PasswordSignIn<'_>) -> Result<Granted, SignInError> {
        let code = user.credentials.code();
        if let Some(pending) = self.logins.challenge(user.login) {
            let waited = self.clock.monotonic().saturating_sub(pending.since);
            if code.is_some() || !pending.needs_binding_code {
                return self.second(user, &pending).await;
            }
            if waited < RESEND {
                return Err(code_required("a code was sent to the user"));
            }
            self.logins.remove_challenge(user.login);
        }
        let denied = match self.first(user).await {
            Ok(granted) => return Ok(granted),
            Err(Failure::Denied(denied)) => denied,
            Err(other) => return Err(SignInError::Other(other.into_fetch_error(About::Ourselves))),
        };
        if !denied.is("mfa_required") {
            return Err(judge(denied, Factor::Password));
        }
        let Some(mfa_token) = denied.secret("mfa_token") else {
            let cause = format!("{}: the answer has no mfa_token", denied.cause());
            return Err(SignInError::Other(FetchError::BadAnswer(cause)));
        };
        match code {
            None => Err(self.start_challenge(user.login, mfa_token).await),
            Some(code) => {
                let granted = self.with_code(user, &mfa_token, code).await;
                granted.map_err(|failure| refusal(failure, Factor::Second))
            }
        }
    }

    /// What tells the provider whom it is about: the address that connected, never one that
    /// a header claims.
    pub(super) fn headers(&self, peer: Option<IpAddr>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if self.forward_client_ip
            && let Some(peer) = peer
            && let Ok(value) = HeaderValue::from_str(&peer.to_string())
        {
            headers.insert(FORWARDED_FOR, value);
        }
        headers
    }

    async fn first(&self, user: &PasswordSignIn<'_>) -> Result<Granted, Failure> {
        let grant_type = match self.realm {
            Some(_) => PASSWORD_REALM,
            None => "password",
        };
        // Without a scope every scope of the audience would be granted.
        let mut parameters = vec![
            ("grant_type", grant_type),
            ("username", user.credentials.username()),
            ("password", user.credentials.password().expose()),
            ("scope", user.scope.as_str()),
        ];
        parameters.extend(self.realm.as_deref().map(|realm| ("realm", realm)));
        parameters.extend(self.audience.as_deref().map(|api| ("audience", api)));
        self.tokens
            .grant_with(&parameters, user.headers.clone())
            .await
    }

    /// Has the user asked for the factor that the account has.
    async fn start_challenge(&self, login: LoginKey, mfa_token: SecretString) -> SignInError {
        match self.mfa.ask(&mfa_token).await {
            Ok(MfaStep::EnterCode) => code_required("the account has a second factor"),
            Ok(MfaStep::OutOfBand {
                oob_code,
                needs_binding_code,
            }) => {
                let since = self.clock.monotonic();
                let pending = PendingChallenge {
                    mfa_token,
                    oob_code,
                    needs_binding_code,
                    since,
                };
                self.logins.insert_challenge(login, pending);
                if needs_binding_code {
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
        user: &PasswordSignIn<'_>,
        pending: &PendingChallenge,
    ) -> Result<Granted, SignInError> {
        let code = user.credentials.code();
        let answer = match code {
            Some(code) if !(pending.needs_binding_code && is_digits(code)) => {
                self.with_code(user, &pending.mfa_token, code).await
            }
            code => self.out_of_band(user, pending, code).await,
        };
        let failure = match answer {
            Ok(granted) => {
                self.logins.remove_challenge(user.login);
                return Ok(granted);
            }
            Err(failure) => failure,
        };
        if let Failure::Denied(denied) = &failure {
            if denied.is("authorization_pending") {
                return Err(unconfirmed("the user has not confirmed yet", POLL));
            }
            if denied.is("slow_down") {
                return Err(unconfirmed("the provider was asked too often", POLL * 2));
            }
            // A mistyped code may be typed again; what the user declined is over, and so is
            // what has expired.
            let mistyped = code.is_some() && denied.is("invalid_grant");
            if denied.status.is_client_error() && !mistyped {
                self.logins.remove_challenge(user.login);
            }
        }
        Err(refusal(failure, Factor::Second))
    }

    /// Asks whether the user has confirmed, or brings the code that they were sent.
    async fn out_of_band(
        &self,
        user: &PasswordSignIn<'_>,
        pending: &PendingChallenge,
        code: Option<&SecretString>,
    ) -> Result<Granted, Failure> {
        let mut parameters = vec![
            ("grant_type", MFA_OOB),
            ("mfa_token", pending.mfa_token.expose()),
            ("oob_code", pending.oob_code.expose()),
        ];
        parameters.extend(code.map(|code| ("binding_code", code.expose())));
        self.tokens
            .grant_with(&parameters, user.headers.clone())
            .await
    }

    /// By what the user typed: a code of digits, else a recovery code.
    async fn with_code(
        &self,
        user: &PasswordSignIn<'_>,
        mfa_token: &SecretString,
        code: &SecretString,
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
        self.tokens
            .grant_with(&parameters, user.headers.clone())
            .await
    }
}

fn is_digits(code: &SecretString) -> bool {
    let code = code.expose().as_bytes();
    DIGITS.contains(&code.len()) && code.iter().all(u8::is_ascii_digit)
}

fn code_required(cause: &str) -> SignInError {
    SignInError::Other(problem(SignInProblem::CodeRequired, cause.to_owned(), None))
}

fn unconfirmed(cause: &str, wait: Duration) -> SignInError {
    let wait = Some(wait);
    SignInError::Other(problem(SignInProblem::Unconfirmed, cause.to_owned(), wait))
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

fn refusal(failure: Failure, step: Factor) -> SignInError {
    match failure {
        Failure::Denied(denied) => judge(denied, step),
        other => SignInError::Other(other.into_fetch_error(About::Ourselves)),
    }
}

/// What an error answer means; Auth0's statuses vary, its codes count. Whether there is no
/// such user, the password is wrong, known to have leaked, or the account is shut: callers
/// are told the same, operators which.
fn judge(denied: Denied, step: Factor) -> SignInError {
    let wrong = match step {
        Factor::Password => SignInProblem::Password,
        Factor::Second => SignInProblem::CodeRefused,
    };
    let cause = denied.cause();
    if denied.status.is_server_error() {
        return SignInError::Other(Failure::Denied(denied).into_fetch_error(About::Ourselves));
    }
    match denied.code.as_deref() {
        Some("too_many_attempts") => {
            let wait = denied.retry_after.unwrap_or(BLOCKED);
            SignInError::WrongCredentials(problem(
                SignInProblem::TooManyAttempts,
                cause,
                Some(wait),
            ))
        }
        // A 401 with this code is about hawkgate's own client.
        Some("access_denied" | "unauthorized") if denied.status == StatusCode::UNAUTHORIZED => {
            let cause = format!(
                "{cause}: hawkgate's own client was not accepted; look at client_id and its secret or key"
            );
            SignInError::Other(FetchError::Unavailable {
                cause,
                retry_after: None,
            })
        }
        Some("invalid_grant" | "password_leaked" | "access_denied" | "unauthorized") => {
            SignInError::WrongCredentials(problem(wrong, cause, None))
        }
        Some("expired_token") => SignInError::Other(problem(wrong, cause, None)),
        Some("unsupported_challenge_type" | "association_required") => {
            SignInError::Other(problem(SignInProblem::NoFactor, cause, None))
        }
        _ => SignInError::Other(Failure::Denied(denied).into_fetch_error(About::Ourselves)),
    }
}
