//! Who may connect to a listener: networks and users of this machine.

use std::io;

use ipnet::IpNet;
use toml::de::DeValue;

use super::finding::{At, quoted};
use super::reader::{Field, Reader, Shape, Value};
use super::resolved::{Address, ListenerAccess};
use super::value::{List, text};

/// Where users have their numbers. Users from elsewhere (LDAP) are written as numbers.
const PASSWD: &str = "/etc/passwd";

impl Value for IpNet {
    const SHAPE: Shape = Shape::Text;

    fn read(reader: &mut Reader<'_>, at: &At, value: &DeValue<'_>) -> Option<Self> {
        let written = text(reader, at, value, "\"10.0.0.0/8\"")?;
        let Ok(network) = written.parse::<Self>() else {
            let problem = format!("{} is no network", quoted(written));
            let remedy = match written.parse::<std::net::IpAddr>() {
                Ok(ip) => format!("write {}", quoted(&Self::from(ip).to_string())),
                Err(_) => "write it like \"10.0.0.0/8\" or \"fd00::/8\"".into(),
            };
            reader.error(at, problem, remedy);
            return None;
        };
        if network.prefix_len() == 0 {
            reader.error(
                at,
                "is every address",
                "leave the key out, or write a narrower one",
            );
            return None;
        }
        if network != network.trunc() {
            let problem = "has bits set behind its prefix";
            reader.error(
                at,
                problem,
                format!("write {}", quoted(&network.trunc().to_string())),
            );
            return None;
        }
        Some(network)
    }
}

/// A user's name, or number.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct User(String);

impl Value for User {
    const SHAPE: Shape = Shape::Text;

    fn read(reader: &mut Reader<'_>, at: &At, value: &DeValue<'_>) -> Option<Self> {
        let name = text(reader, at, value, "\"builder\"")?;
        if name.is_empty() || name.bytes().any(|b| b.is_ascii_control() || b == b':') {
            let problem = format!("{} is no user", quoted(name));
            reader.error(at, problem, "write a user's name or number");
            return None;
        }
        if reader.reads_files() {
            match uid_of(name) {
                Ok(Some(_)) => {}
                Ok(None) => {
                    let problem = format!("{PASSWD} has no user {}", quoted(name));
                    reader.error(
                        at,
                        problem,
                        "write a user of this machine, or a user's number",
                    );
                }
                Err(cause) => {
                    let problem = format!("{PASSWD} cannot be read: {cause}");
                    reader.error(at, problem, "write the user's number");
                }
            }
        }
        Some(Self(name.to_owned()))
    }
}

/// The number of a user of this machine by name, or the number that `user` is.
///
/// # Errors
/// When `/etc/passwd` cannot be read.
pub fn uid_of(user: &str) -> io::Result<Option<u32>> {
    if user.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(user.parse().ok());
    }
    Ok(find_uid(&std::fs::read_to_string(PASSWD)?, user))
}

/// Looks `user` up in the text of a passwd(5) file.
fn find_uid(passwd: &str, user: &str) -> Option<u32> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(user)).then(|| fields.nth(1)?.parse().ok())?
    })
}

/// Judges both keys of the listener at `address`.
pub(super) fn resolve(
    reader: &mut Reader<'_>,
    address: &Address,
    networks: Field<List<IpNet>>,
    users: Field<List<User>>,
) -> Option<ListenerAccess> {
    let empty = "is empty: nobody could connect";
    if networks.value.as_ref().is_some_and(List::is_empty) {
        reader.error(&networks.at, empty, "name networks, or leave the key out");
    }
    if users.value.as_ref().is_some_and(List::is_empty) {
        reader.error(&users.at, empty, "name users, or leave the key out");
    }
    if networks.given && matches!(address, Address::Unix(_)) {
        let problem = "a Unix socket's callers have no address";
        reader.error(&networks.at, problem, "write allowed_users, or remove it");
    }
    if users.given && !address.is_local() {
        let problem = "the users of other machines cannot be told apart";
        reader.error(
            &users.at,
            problem,
            "listen on loopback or a Unix socket, or remove it",
        );
    }
    Some(ListenerAccess {
        networks: networks.optional()?.map(List::into_values),
        users: users
            .optional()?
            .map(|list| list.into_values().into_iter().map(|user| user.0).collect()),
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
        for nobody in ["bad", "odd", "work", "x", ""] {
            assert_eq!(find_uid(passwd, nobody), None, "{nobody}");
        }
        assert_eq!(uid_of("1001").unwrap(), Some(1001));
        assert_eq!(uid_of("99999999999").unwrap(), None);
        assert_eq!(uid_of("root").unwrap(), Some(0));
    }
}
