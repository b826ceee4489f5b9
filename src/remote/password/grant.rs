//! The grants that sign a user in: refresh token, password, and Auth0's MFA grants. Classifies
//! their errors.

use std::net::IpAddr;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::PasswordSource;
use super::error::{SignInError, problem};
use super::login_store::{LoginKey, PendingChallenge};
use super::mfa::MfaStep;
use crate::credential::{FetchError, SignInProblem};
use crate::remote::oauth::{ErrorResponse, Failure, OnBehalfOf, TokenResponse};
use crate::remote::retry::DEFAULT_DELAY;
use crate::secret::SecretString;
use crate::token::BasicCredentials;

/// Auth0's extension that names the user directory.
const PASSWORD_REALM: &str = "http://auth0.com/oauth/grant-type/password-realm";
const MFA_OTP: &str = "http://auth0.com/oauth/grant-type/mfa-otp";
const MFA_OOB: &str = "http://auth0.com/oauth/grant-type/mfa-oob";
const MFA_RECOVERY_CODE: &str = "http://auth0.com/oauth/grant-type/mfa-recovery-code";

/// The caller's address, for Auth0's brute-force protection; honoured only from confidential
/// clients.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("auth0-forwarded-for");

/// How often clients should poll for an out-of-band confirmation.
const POLL_INTERVAL: Duration = Duration::from_secs(5);
/// A request without a code this long after one was sent gets a new challenge.
const RESEND_AFTER: Duration = Duration::from_secs(30);
/// The retry delay if a provider blocks a user without giving one.
const DEFAULT_BLOCK: Duration = Duration::from_mins(1);
/// The lengths of one-time codes from authenticator apps and text messages.
const CODE_LENGTHS: std::ops::RangeInclusive<usize> = 4..=10;

/// One sign-in.
pub(super) struct PasswordSignIn<'a> {
    pub(super) login: LoginKey,
    pub(super) credentials: &'a BasicCredentials,
    /// The `scope` parameter; not empty.
    pub(super) scope: String,
    pub(super) headers: HeaderMap,
}

/// The factor that an error concerns.
#[derive(Clone, Copy)]
enum Factor {
    Password,
    Second,
}

impl PasswordSource {
    /// Signs in with the stored refresh token, if there is a valid one.
    pub(super) async fn refresh(
        &self,
        login: LoginKey,
    ) -> Result<Option<TokenResponse>, FetchError> {
        let Some(token) = self.logins.refresh_token(login) else {
            return Ok(None);
        };
        let parameters = [
            ("grant_type", "refresh_token"),
            ("refresh_token", token.expose()),
        ];
        match self.tokens.grant(&parameters).await {
            Ok(mut response) => {
                if let Some(next) = response.refresh_token.take() {
                    self.logins.rotate_refresh_token(login, next);
                }
                Ok(Some(response))
            }
            Err(Failure::ErrorResponse(error)) if error.is("invalid_grant") => {
                self.logins.remove_refresh_token(login);
                Ok(None)
            }
            Err(other) => Err(other.into_fetch_error(OnBehalfOf::Client)),
        }
    }

    /// Signs in with the password, and the second factor if the account requires one.
    pub(super) async fn sign_in(
        &self,
        sign_in: &PasswordSignIn<'_>,
    ) -> Result<TokenResponse, SignInError> {
        let code = sign_in.credentials.code();
        if let Some(pending) = self.logins.challenge(sign_in.login) {
            let waited = self.clock.monotonic().saturating_sub(pending.sent_at);
            if code.is_some() || !pending.needs_binding_code {
                return self.complete_challenge(sign_in, &pending).await;
            }
            if waited < RESEND_AFTER {
                return Err(code_required("a code was sent to the user"));
            }
            self.logins.remove_challenge(sign_in.login);
        }
        let error = match self.password_grant(sign_in).await {
            Ok(response) => return Ok(response),
            Err(Failure::ErrorResponse(error)) => error,
            Err(other) => {
                return Err(SignInError::Other(
                    other.into_fetch_error(OnBehalfOf::Client),
                ));
            }
        };
        if !error.is("mfa_required") {
            return Err(classify(error, Factor::Password));
        }
        let Some(mfa_token) = error.secret("mfa_token") else {
            let cause = format!("{}: the response has no mfa_token", error.cause());
            return Err(SignInError::Other(FetchError::BadAnswer(cause)));
        };
        match code {
            None => Err(self.start_challenge(sign_in.login, mfa_token).await),
            Some(code) => {
                let response = self.with_code(sign_in, &mfa_token, code).await;
                response.map_err(|failure| sign_in_error(failure, Factor::Second))
            }
        }
    }

    /// Forwards the address of the connection, never one from a header.
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

    async fn password_grant(&self, sign_in: &PasswordSignIn<'_>) -> Result<TokenResponse, Failure> {
        let grant_type = match self.realm {
            Some(_) => PASSWORD_REALM,
            None => "password",
        };
        // Auth0 grants every scope of the audience if the request has none.
        let mut parameters = vec![
            ("grant_type", grant_type),
            ("username", sign_in.credentials.username()),
            ("password", sign_in.credentials.password().expose()),
            ("scope", sign_in.scope.as_str()),
        ];
        parameters.extend(self.realm.as_deref().map(|realm| ("realm", realm)));
        parameters.extend(self.audience.as_deref().map(|api| ("audience", api)));
        self.tokens
            .grant_with(&parameters, sign_in.headers.clone())
            .await
    }

    /// Challenges the user for the account's second factor. Always an error: the user has to act.
    async fn start_challenge(&self, login: LoginKey, mfa_token: SecretString) -> SignInError {
        match self.mfa.start(&mfa_token).await {
            Ok(MfaStep::EnterCode) => code_required("the account has a second factor"),
            Ok(MfaStep::OutOfBand {
                oob_code,
                needs_binding_code,
            }) => {
                let sent_at = self.clock.monotonic();
                let pending = PendingChallenge {
                    mfa_token,
                    oob_code,
                    needs_binding_code,
                    sent_at,
                };
                self.logins.insert_challenge(login, pending);
                if needs_binding_code {
                    code_required("a code was sent to the user")
                } else {
                    unconfirmed("the user was asked to confirm", POLL_INTERVAL)
                }
            }
            Err(error) => error,
        }
    }

    /// Completes a pending challenge with the user's code, or polls for the confirmation.
    async fn complete_challenge(
        &self,
        sign_in: &PasswordSignIn<'_>,
        pending: &PendingChallenge,
    ) -> Result<TokenResponse, SignInError> {
        let code = sign_in.credentials.code();
        let result = match code {
            Some(code) if !(pending.needs_binding_code && is_digits(code)) => {
                self.with_code(sign_in, &pending.mfa_token, code).await
            }
            code => self.out_of_band(sign_in, pending, code).await,
        };
        let failure = match result {
            Ok(response) => {
                self.logins.remove_challenge(sign_in.login);
                return Ok(response);
            }
            Err(failure) => failure,
        };
        if let Failure::ErrorResponse(error) = &failure {
            if error.is("authorization_pending") {
                return Err(unconfirmed("the user has not confirmed yet", POLL_INTERVAL));
            }
            if error.is("slow_down") {
                return Err(unconfirmed("polled too often", POLL_INTERVAL * 2));
            }
            // A mistyped code can be corrected; a declined or expired challenge is over.
            let mistyped = code.is_some() && error.is("invalid_grant");
            if error.status.is_client_error() && !mistyped {
                self.logins.remove_challenge(sign_in.login);
            }
        }
        Err(sign_in_error(failure, Factor::Second))
    }

    /// Polls for the confirmation, or submits the code that was sent to the user.
    async fn out_of_band(
        &self,
        sign_in: &PasswordSignIn<'_>,
        pending: &PendingChallenge,
        code: Option<&SecretString>,
    ) -> Result<TokenResponse, Failure> {
        let mut parameters = vec![
            ("grant_type", MFA_OOB),
            ("mfa_token", pending.mfa_token.expose()),
            ("oob_code", pending.oob_code.expose()),
        ];
        parameters.extend(code.map(|code| ("binding_code", code.expose())));
        self.tokens
            .grant_with(&parameters, sign_in.headers.clone())
            .await
    }

    /// Completes the sign-in with a one-time code, or a recovery code if it is not all digits.
    async fn with_code(
        &self,
        sign_in: &PasswordSignIn<'_>,
        mfa_token: &SecretString,
        code: &SecretString,
    ) -> Result<TokenResponse, Failure> {
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
            .grant_with(&parameters, sign_in.headers.clone())
            .await
    }
}

fn is_digits(code: &SecretString) -> bool {
    let code = code.expose().as_bytes();
    CODE_LENGTHS.contains(&code.len()) && code.iter().all(u8::is_ascii_digit)
}

fn code_required(cause: &str) -> SignInError {
    SignInError::Other(problem(SignInProblem::CodeRequired, cause.to_owned(), None))
}

fn unconfirmed(cause: &str, wait: Duration) -> SignInError {
    let wait = Some(wait);
    SignInError::Other(problem(SignInProblem::Unconfirmed, cause.to_owned(), wait))
}

fn sign_in_error(failure: Failure, factor: Factor) -> SignInError {
    match failure {
        Failure::ErrorResponse(error) => classify(error, factor),
        other => SignInError::Other(other.into_fetch_error(OnBehalfOf::Client)),
    }
}

/// Classifies an error response by its code, because Auth0's statuses vary. Callers cannot tell
/// an unknown user from a wrong or leaked password or a blocked account; operators can.
fn classify(error: ErrorResponse, factor: Factor) -> SignInError {
    let wrong = match factor {
        Factor::Password => SignInProblem::Password,
        Factor::Second => SignInProblem::CodeRefused,
    };
    let cause = error.cause();
    if error.status.is_server_error() {
        return SignInError::Other(
            Failure::ErrorResponse(error).into_fetch_error(OnBehalfOf::Client),
        );
    }
    match error.code {
        Some("too_many_attempts") => {
            let wait = error.retry_after.unwrap_or(DEFAULT_BLOCK);
            SignInError::WrongCredentials(problem(
                SignInProblem::TooManyAttempts,
                cause,
                Some(wait),
            ))
        }
        // A 401 with this code concerns hawkgate's own client.
        Some("access_denied" | "unauthorized") if error.status == StatusCode::UNAUTHORIZED => {
            let cause = format!(
                "the identity provider refused hawkgate's client: {cause}; check client_id and its secret or key"
            );
            SignInError::Other(FetchError::Misconfigured {
                cause,
                retry_after: Some(DEFAULT_DELAY),
            })
        }
        Some("invalid_grant" | "password_leaked" | "access_denied" | "unauthorized") => {
            SignInError::WrongCredentials(problem(wrong, cause, None))
        }
        Some("expired_token") => SignInError::Other(problem(wrong, cause, None)),
        Some("unsupported_challenge_type" | "association_required") => {
            SignInError::Other(problem(SignInProblem::NoFactor, cause, None))
        }
        _ => SignInError::Other(Failure::ErrorResponse(error).into_fetch_error(OnBehalfOf::Client)),
    }
}
