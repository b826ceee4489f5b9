//! Users of this machine.

use std::io;

/// The file that maps user names to user ids. Users of other directories (LDAP) have to be given
/// by number.
pub(crate) const PASSWD: &str = "/etc/passwd";

/// Returns the id of the user named `user`, or `user` itself if it is a number. `None` if there
/// is no such user.
///
/// # Errors
/// Returns an error if `/etc/passwd` cannot be read.
pub fn uid_of(user: &str) -> io::Result<Option<u32>> {
    if user.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(user.parse().ok());
    }
    Ok(find_uid(&std::fs::read_to_string(PASSWD)?, user))
}

/// Looks up `user` in the contents of a passwd(5) file.
fn find_uid(passwd: &str, user: &str) -> Option<u32> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(user)).then(|| fields.nth(1)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name_and_number() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbad\nworker:x:1001:100::/:\nodd:x:-1:0::/:\n";
        assert_eq!(find_uid(passwd, "root"), Some(0));
        assert_eq!(find_uid(passwd, "worker"), Some(1001));
        for unknown in ["bad", "odd", "work", "x", ""] {
            assert_eq!(find_uid(passwd, unknown), None, "{unknown}");
        }
        assert_eq!(uid_of("1001").unwrap(), Some(1001));
        assert_eq!(uid_of("99999999999").unwrap(), None);
        assert_eq!(uid_of("root").unwrap(), Some(0));
    }
}
