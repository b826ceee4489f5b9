//! The two users of the demo.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};

/// A user. The sign-in page shows the passwords, so they are kept as they are; a real provider
/// keeps a slow hash of each (Argon2id).
#[derive(Debug, PartialEq, Eq)]
pub(in crate::demo) struct User {
    /// The username, and `sub` in tokens.
    pub(in crate::demo) sub: &'static str,
    pub(in crate::demo) name: &'static str,
    pub(in crate::demo) email: &'static str,
    pub(in crate::demo) password: &'static str,
}

pub(in crate::demo) const USERS: [User; 2] = [
    User {
        sub: "alice",
        name: "Alice Adams",
        email: "alice@example.com",
        password: "tea-party",
    },
    User {
        sub: "bob",
        name: "Bob Brown",
        email: "bob@example.com",
        password: "toolbox",
    },
];

/// Returns the user with this username and password. Takes as long for an unknown user as for a
/// wrong password.
pub(super) fn authenticate(username: &str, password: &str) -> Option<&'static User> {
    USERS.iter().fold(None, |found, user| {
        let matches = equal(username, user.sub) & equal(password, user.password);
        if matches { Some(user) } else { found }
    })
}

/// Compares digests, so that the time depends neither on where the texts differ nor on the length
/// of the secret one.
pub(super) fn equal(given: &str, expected: &str) -> bool {
    let hash = |text: &str| digest(&SHA256, text.as_bytes());
    verify_slices_are_equal(hash(given).as_ref(), hash(expected).as_ref()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_users_own_password_is_accepted() {
        for user in &USERS {
            assert_eq!(authenticate(user.sub, user.password), Some(user));
        }
        for (name, password) in [
            ("alice", "toolbox"),
            ("alice", ""),
            ("alice", "tea-party "),
            ("Alice", "tea-party"),
            ("", ""),
            ("mallory", "tea-party"),
        ] {
            assert_eq!(authenticate(name, password), None, "{name} {password}");
        }
    }
}
