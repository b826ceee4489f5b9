//! Entry points for fuzzing: cookies and `return_to`. See [`crate::fuzzing`].

use std::time::Duration;

use http::{HeaderMap, HeaderValue, header};
use url::Url;

use super::attempt::SignInAttempt;
use super::cookie::{self, Found};
use super::record;
use crate::clock::{Now, UnixMillis};

const NOW: Now = Now {
    wall: UnixMillis::from_secs(1_796_000_000),
    monotonic: Duration::ZERO,
};

/// Checks where a user goes after the sign-in. What is accepted stays on the site.
pub fn return_to(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Some(accepted) = super::return_to(text) else {
        return;
    };
    assert_eq!(accepted, text, "changed");
    let origins = ["https://app.example/oauth2/callback", "http://localhost:80"];
    for base in origins.iter().filter_map(|base| Url::parse(base).ok()) {
        let joined = base.join(accepted).ok();
        let same = joined.is_some_and(|url| url.origin() == base.origin());
        assert!(same, "another site");
    }
}

/// Finds cookies in `Cookie` fields, one for each line, and reads unsealed ones.
pub fn session_cookie(data: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in data.split(|b| *b == b'\n').take(3) {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(header::COOKIE, value);
        }
    }
    let own = cookie::pairs(&headers).filter(|(name, _)| *name == b"hawkgate-web");
    let found = cookie::find(&headers, "hawkgate-web");
    assert_eq!(own.count() > 1, found == Found::Several);
    if let Found::One(value) = found {
        assert!(!value.contains(&b';'), "more than one cookie's value");
    }
    // Without the seal, which no fuzzer gets past.
    if let Some((session, active_at)) = record::decode(data, NOW) {
        let written = record::encode(&session, active_at, true);
        assert!(record::decode(&written, NOW).is_some(), "not read back");
    }
    if let Some(attempt) = SignInAttempt::decode(data) {
        assert!(
            SignInAttempt::decode(&attempt.encode()).is_some(),
            "not read back"
        );
    }
}
