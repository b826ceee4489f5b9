//! The keys of sources of kind `static`.

use super::diagnostic::quoted;
use super::reader::{Field, Reader, section};
use super::resolved::SourceKind;
use super::value::Choice;
use crate::credential::static_secret::{SecretUse, StaticSecretSettings};
use crate::secret::SecretRef;

section! {
    /// Kind `static`: one fixed secret for every caller, such as the key of an API, or a username and
    /// password.
    pub(super) struct StaticSecret {
        /// The secret; reread when it changes, and after a 401. At most 8 KiB.
        secret: SecretRef = [required],
        /// Sends Basic credentials (RFC 7617) with this username; the secret is the password.
        username: String = [optional],
        /// What the secret is: "token" is sent as `inject` says; "password" is sent with `username` as Basic
        /// credentials; "username" is sent as Basic credentials with an empty password. Left out, "password"
        /// with `username`, otherwise "token".
        secret_as: SecretAs = [optional],
    }
}

/// `source.secret_as`
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum SecretAs {
    Token,
    Password,
    Username,
}

impl Choice for SecretAs {
    const NAMES: &'static [&'static str] = &["token", "password", "username"];

    fn from_name(name: &str) -> Option<Self> {
        match name {
            "token" => Some(Self::Token),
            "password" => Some(Self::Password),
            "username" => Some(Self::Username),
            _ => None,
        }
    }
}

impl StaticSecret {
    /// `inject` is that key of the source.
    pub(super) fn resolve<T>(
        self,
        reader: &mut Reader<'_>,
        inject: &Field<T>,
    ) -> Option<SourceKind> {
        self.check_username(reader);
        let used_as = self.used_as(reader)?;
        if inject.given && used_as != SecretUse::Token {
            let problem =
                "has no effect: a username and password are sent as `Authorization: Basic`";
            let remedy = "remove it, or write secret_as = \"token\" without username";
            reader.error(&inject.at, problem, remedy);
        }
        let settings = StaticSecretSettings {
            secret: self.secret.value?,
            used_as,
        };
        let remedy = "put the secret alone into it, as the API's owner issued it";
        reader.check_file(&self.secret.at, remedy, || {
            settings.check().map_err(|unusable| unusable.problem)
        });
        Some(SourceKind::Static(settings))
    }

    fn used_as(&self, reader: &mut Reader<'_>) -> Option<SecretUse> {
        if (self.username.given && self.username.value.is_none())
            || (self.secret_as.given && self.secret_as.value.is_none())
        {
            return None;
        }
        match (self.secret_as.value, self.username.value.clone()) {
            (None | Some(SecretAs::Password), Some(username)) => {
                Some(SecretUse::Password { username })
            }
            (None | Some(SecretAs::Token), None) => Some(SecretUse::Token),
            (Some(SecretAs::Username), None) => Some(SecretUse::Username),
            (Some(SecretAs::Password), None) => {
                let problem = "\"password\" without username";
                let remedy = "add username, or write secret_as = \"token\"";
                reader.error(&self.secret_as.at, problem, remedy);
                None
            }
            (Some(SecretAs::Token | SecretAs::Username), Some(_)) => {
                let problem = "conflicts with secret_as: the secret is no password";
                let remedy = "remove one of the two";
                reader.error(&self.username.at, problem, remedy);
                None
            }
        }
    }

    fn check_username(&self, reader: &mut Reader<'_>) {
        let username = self.username.value.as_deref();
        if let Some(username) = username.filter(|name| name.contains(':')) {
            let problem = format!(
                "{} contains a colon, which ends the username (RFC 7617)",
                quoted(username)
            );
            let remedy = "write the username alone; the password is in secret";
            reader.error(&self.username.at, problem, remedy);
        }
    }
}
