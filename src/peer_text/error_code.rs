//! Error codes that peers send.

/// Stands for a code that looks like one but is in none of the lists.
pub const UNREGISTERED: &str = "an unregistered code";

/// The longest code that counts as one, in characters.
const MAX_CODE_CHARS: usize = 48;

/// The codes of OAuth 2.0 and its extensions (IANA, "OAuth Extensions Error Registry"; RFC 6749
/// §4.1.2.1 and §5.2, RFC 6750 §3.1, RFC 7009 §2.2.1, RFC 7591 §3.2.2, RFC 8628 §3.5, RFC 8693
/// §2.2.2, RFC 8707 §2, RFC 9449 §5), of OpenID Connect, and of Auth0's endpoints. A password or a
/// token can have the shape of a code, so no other is quoted.
const REGISTERED: &[&str] = &[
    "access_denied",
    "account_selection_required",
    "association_required",
    "authorization_pending",
    "blocked_user",
    "consent_required",
    "expired_token",
    "federated_connection_refresh_token_flow_failed",
    "inexistent_connection",
    "inexistent_user",
    "insufficient_scope",
    "insufficient_user_authentication",
    "interaction_required",
    "internal_error",
    "invalid_body",
    "invalid_client",
    "invalid_client_metadata",
    "invalid_dpop_proof",
    "invalid_grant",
    "invalid_query_string",
    "invalid_redirect_uri",
    "invalid_request",
    "invalid_request_object",
    "invalid_request_uri",
    "invalid_scope",
    "invalid_software_statement",
    "invalid_target",
    "invalid_token",
    "invalid_uri",
    "invalid_user_password",
    "login_required",
    "mfa_required",
    "operation_not_supported",
    "password_leaked",
    "registration_not_supported",
    "request_not_supported",
    "request_uri_not_supported",
    "requires_verification",
    "server_error",
    "slow_down",
    "temporarily_unavailable",
    "too_many_attempts",
    "too_many_requests",
    "unapproved_software_statement",
    "unauthorized",
    "unauthorized_client",
    "unmet_authentication_requirements",
    "unsupported_challenge_type",
    "unsupported_grant_type",
    "unsupported_response_type",
    "unsupported_token_type",
    "use_dpop_nonce",
];

/// Codes of Taskcluster's API services, and names of errors of its web-server.
const TASKCLUSTER: &[&str] = &[
    "AuthenticationFailed",
    "AuthorizationError",
    "Error",
    "ErrorReply",
    "InputError",
    "InputTooLarge",
    "InputValidationError",
    "InsufficientScopes",
    "InternalServerError",
    "InvalidRequestArguments",
    "MalformedPayload",
    "RequestConflict",
    "ResourceConflict",
    "ResourceExpired",
    "ResourceNotFound",
    "UnauthorizedError",
];

/// The registered code that `text` is; [`UNREGISTERED`] if it merely has the shape of one, and
/// `None` if it does not.
pub fn error_code(text: &str) -> Option<&'static str> {
    let plain = |b: u8| b.is_ascii_lowercase() || b == b'_';
    if !(1..=MAX_CODE_CHARS).contains(&text.len()) || !text.bytes().all(plain) {
        return None;
    }
    let known = REGISTERED.iter().find(|code| **code == text);
    Some(known.copied().unwrap_or(UNREGISTERED))
}

/// The code of a Taskcluster error that `text` is, otherwise [`UNREGISTERED`].
pub fn taskcluster_error_code(text: &str) -> &'static str {
    let known = TASKCLUSTER.iter().find(|code| **code == text);
    known.copied().unwrap_or(UNREGISTERED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_members_of_the_lists_are_returned() {
        assert_eq!(error_code("invalid_grant"), Some("invalid_grant"));
        for password in ["hunter", "correct_horse_battery_staple", "invalid_grant_"] {
            assert_eq!(error_code(password), Some(UNREGISTERED));
        }
        for other in [
            "",
            "Invalid_grant",
            "invalid grant",
            "e30.e30.c2ln",
            &"a".repeat(49),
        ] {
            assert_eq!(error_code(other), None, "{other}");
        }
        assert_eq!(taskcluster_error_code("InputError"), "InputError");
        assert_eq!(taskcluster_error_code("eyJhbGciOiJub25lIn0"), UNREGISTERED);
    }

    #[test]
    fn the_lists_are_sorted_and_have_the_shape_of_codes() {
        assert!(REGISTERED.is_sorted() && TASKCLUSTER.is_sorted());
        for code in REGISTERED {
            assert_eq!(error_code(code), Some(*code));
        }
    }
}
