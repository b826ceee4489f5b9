//! The session that a connection presented last, so that a browser that sends the same cookie with
//! request after request costs a comparison instead of opening it.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use zeroize::Zeroizing;

use super::UserSession;

/// What a connection's latest request with a cookie presented: the cookie's bytes and the session
/// opened from it, like [`crate::token::TokenMemo`]. Whether the session has ended is checked again for
/// each request.
///
/// Connections of an HTTP proxy have several callers. The memo has one cookie, which is recognised only
/// by all of its bytes, compared in constant time. A cookie that could not be opened is never stored, so
/// the memory, some kilobytes for each connection, is used by signed-in users only.
#[derive(Default)]
pub struct SessionMemo(Option<Box<Known>>);

struct Known {
    /// Whose cookie it is; see `Inner::instance`.
    instance: u64,
    cookie: Zeroizing<Vec<u8>>,
    session: Arc<UserSession>,
}

impl SessionMemo {
    /// The session, if `cookie` is what is remembered for the sessions `instance`.
    pub(super) fn recall(&self, instance: u64, cookie: &[u8]) -> Option<Arc<UserSession>> {
        let known = self.0.as_ref()?;
        let same =
            known.instance == instance && verify_slices_are_equal(&known.cookie, cookie).is_ok();
        same.then(|| Arc::clone(&known.session))
    }

    /// Remembers what was opened from `cookie`.
    pub(super) fn remember(&mut self, instance: u64, cookie: &[u8], session: &Arc<UserSession>) {
        if self
            .0
            .as_ref()
            .is_some_and(|known| Arc::ptr_eq(&known.session, session))
        {
            return;
        }
        self.0 = Some(Box::new(Known {
            instance,
            cookie: Zeroizing::new(cookie.to_vec()),
            session: Arc::clone(session),
        }));
    }
}

impl fmt::Debug for SessionMemo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionMemo(..)")
    }
}
