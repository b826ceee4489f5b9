//! hawkgate's own cookies: their names, finding them in a request, and setting them (RFC 6265).

use std::fmt;
use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::COOKIE;
use memchr::memchr;

use super::{SetCookie, SiteSecurity};
use crate::header_fields::{HeaderFields, all};

/// What browsers keep: name, value and attributes together (RFC 6265 §6.1).
pub(super) const MAX_COOKIE_BYTES: usize = 4096;

/// Browsers accept such a cookie only from the host itself over https, for all its paths, so that
/// neither a sibling domain nor an attacker on the network can set it.
const HOST_PREFIX: &str = "__Host-";
const OWN_PREFIX: &str = "hawkgate-";
/// Follows the session's name in the name of an attempt's cookie.
const ATTEMPT: &str = "-signin-";
/// The characters that tell one attempt from another.
const ATTEMPT_ID_CHARS: usize = 8;

/// The names of one session's cookies.
#[derive(Debug)]
pub(super) struct Names {
    https: String,
    loopback: String,
}

/// What a request says about one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found<'h> {
    Nothing,
    One(&'h [u8]),
    /// More than one value: one of them may have been injected.
    Several,
}

impl Names {
    pub(super) fn of(session: &str) -> Self {
        let loopback = format!("{OWN_PREFIX}{session}");
        Self {
            https: format!("{HOST_PREFIX}{loopback}"),
            loopback,
        }
    }

    /// The name of the session's cookie.
    pub(super) fn session(&self, security: SiteSecurity) -> &str {
        match security {
            SiteSecurity::Https => &self.https,
            SiteSecurity::LoopbackHttp => &self.loopback,
        }
    }

    /// The name of the cookie of the attempt with this `state`, which the callback repeats.
    pub(super) fn attempt(&self, security: SiteSecurity, state: &str) -> String {
        let hash = digest::digest(&digest::SHA256, state.as_bytes());
        let mut id = URL_SAFE_NO_PAD.encode(hash);
        id.truncate(ATTEMPT_ID_CHARS);
        format!("{}{ATTEMPT}{id}", self.session(security))
    }

    /// Whether `name` is that of an attempt of this session.
    pub(super) fn is_attempt(&self, security: SiteSecurity, name: &[u8]) -> bool {
        let rest = name.strip_prefix(self.session(security).as_bytes());
        rest.and_then(|rest| rest.strip_prefix(ATTEMPT.as_bytes()))
            .is_some_and(|id| {
                let fits = |b: &u8| b.is_ascii_alphanumeric() || b"-_".contains(b);
                id.len() == ATTEMPT_ID_CHARS && id.iter().all(fits)
            })
    }
}

/// Whether `name` is the name of one of hawkgate's own cookies (session or attempt, of any
/// `[[session]]`), which are not forwarded and which upstreams may not set.
pub fn is_own_cookie(name: &[u8]) -> bool {
    let begins = |text: &[u8], prefix: &str| {
        text.get(..prefix.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
    };
    let rest = if begins(name, HOST_PREFIX) {
        name.get(HOST_PREFIX.len()..).unwrap_or_default()
    } else {
        name
    };
    begins(rest, OWN_PREFIX)
}

/// The cookies of a request, in order. Several `Cookie` fields are one list (RFC 9113 §8.2.3).
pub(super) fn pairs(headers: &dyn HeaderFields) -> impl Iterator<Item = (&[u8], &[u8])> {
    all(headers, &COOKIE).flat_map(|value| Pairs(Some(value)))
}

/// The value of the cookie called `name`.
pub(super) fn find<'h>(headers: &'h dyn HeaderFields, name: &str) -> Found<'h> {
    let mut found = Found::Nothing;
    for (_, value) in pairs(headers).filter(|(given, _)| *given == name.as_bytes()) {
        if found != Found::Nothing {
            return Found::Several;
        }
        found = Found::One(value);
    }
    found
}

struct Pairs<'h>(Option<&'h [u8]>);

impl<'h> Iterator for Pairs<'h> {
    type Item = (&'h [u8], &'h [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let list = self.0?;
        let (pair, rest) = match memchr(b';', list) {
            Some(end) => {
                let (pair, rest) = list.split_at(end);
                (pair, rest.get(1..))
            }
            None => (list, None),
        };
        self.0 = rest;
        let pair = pair.trim_ascii();
        // A cookie without a name has none of ours.
        let at = memchr(b'=', pair).unwrap_or(0);
        let (name, value) = pair.split_at(at);
        Some((
            name.trim_ascii(),
            value.get(1..).unwrap_or_default().trim_ascii(),
        ))
    }
}

/// Sets `name` for `max_age`, in whole seconds.
pub(super) fn set(name: &str, value: &str, security: SiteSecurity, max_age: Duration) -> SetCookie {
    let secure = match security {
        SiteSecurity::Https => "; Secure",
        SiteSecurity::LoopbackHttp => "",
    };
    let max_age = max_age.as_secs();
    SetCookie(format!(
        "{name}={value}; Path=/; Max-Age={max_age}; HttpOnly; SameSite=Lax{secure}"
    ))
}

/// Removes `name`.
pub(super) fn remove(name: &str, security: SiteSecurity) -> SetCookie {
    set(name, "", security, Duration::ZERO)
}

impl fmt::Debug for SetCookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.0.split('=').next().unwrap_or_default();
        write!(f, "SetCookie({name:?}, [redacted])")
    }
}
