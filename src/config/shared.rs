//! `[shared]`

use std::path::PathBuf;
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::diagnostic::{Location, quoted};
use super::reader::{Field, Reader, Shape, Value, section};
use super::resolved;
use super::units::show_duration;
use super::value::text;
use crate::remote::shared_store::settings::{SharedStoreSettings, StoreUrl};
use crate::secret::{SecretRef, SecretString, is_same_key, key_problem};

section! {
    /// The Valkey or Redis (6.2 or newer) that several replicas share: credentials, sessions with
    /// `store = "shared"`, rate limits and password attempts. Whatever is stored in it is encrypted. Requests
    /// go on without it. Off without this table.
    pub(super) struct Shared {
        /// Where it is: "rediss://valkey.example.com:6379/0"; `redis://` without TLS; `valkeys://` and
        /// `valkey://` mean the same. Sentinel:
        /// "rediss-sentinel://s1:26379,s2:26379/0?sentinelServiceName=mymaster". A cluster:
        /// "rediss-cluster://n1:6379,n2:6379". Without user name and password.
        url: StoreUrl = [required],
        /// The user of the store's access control list; the default user when left out.
        username: String = [optional],
        /// The user's password. Its file is reread for each connection.
        password: SecretRef = [optional],
        /// PEM file with the only CAs trusted for the store; the platform's when left out.
        ca: PathBuf = [optional],
        /// The key of the fleet, which encrypts whatever is stored: 32 bytes in base64, as from
        /// `openssl rand -base64 32`. The same on every replica, and used for nothing else.
        key: SecretRef = [required],
        /// A second key, while keys are rotated: what is encrypted with it is read, too.
        previous_key: SecretRef = [optional],
        /// Time limit for each operation, and so the most that a request waits for one; 5ms to 1s.
        timeout: Duration = [default "'50ms'"],
    }
}

/// The bounds of `timeout`.
const SHORTEST_TIMEOUT: Duration = Duration::from_millis(5);
const LONGEST_TIMEOUT: Duration = Duration::from_secs(1);

const NEW_KEY: &str = "generate one with `openssl rand -base64 32`";

impl Value for StoreUrl {
    const SHAPE: Shape = Shape::Text;

    fn read(reader: &mut Reader<'_>, at: &Location, value: &DeValue<'_>) -> Option<Self> {
        let text = text(reader, at, value, "\"rediss://…\"")?;
        match text.parse::<Self>() {
            Ok(url) => Some(url),
            Err(error) => {
                let message = error.to_string();
                let (problem, remedy) = message
                    .split_once(": ")
                    .unwrap_or((&message, "write \"rediss://valkey.example.com:6379/0\""));
                reader.error(at, problem, remedy);
                None
            }
        }
    }
}

impl Shared {
    pub(super) fn resolve(
        self,
        reader: &mut Reader<'_>,
        document: &DeTable<'_>,
    ) -> Option<resolved::Shared> {
        // Reread for each connection.
        let password = self.password.at.key("file", self.password.at.span());
        reader.exclude_from_watching(&password);
        self.check_connection(reader);
        self.check_keys(reader, document);
        reader.check_range(
            &self.timeout,
            SHORTEST_TIMEOUT,
            LONGEST_TIMEOUT,
            show_duration,
        );
        Some(resolved::Shared {
            store: SharedStoreSettings {
                url: self.url.value?,
                username: self.username.optional()?,
                password: self.password.optional()?,
                ca: self.ca.optional()?,
            },
            key: self.key.value?,
            previous_key: self.previous_key.optional()?,
            timeout: self.timeout.value?,
        })
    }

    fn check_connection(&self, reader: &mut Reader<'_>) {
        if let Some(ca) = &self.ca.value {
            reader.check_cas(&self.ca.at, ca);
        }
        if self.username.given && !self.password.given {
            let problem = "missing: the store's user has a password";
            let remedy = "add password = { file = \"…\" }, or remove username";
            reader.error(&self.password.at, problem, remedy);
        }
        let Some(url) = self.url.value.as_ref().filter(|url| !url.tls) else {
            return;
        };
        if self.ca.given {
            let problem = "has no effect: url is not encrypted";
            reader.error(&self.ca.at, problem, "write rediss:// in url, or remove ca");
        }
        if !url.is_loopback() {
            let problem = "is not encrypted: values in the store are, but anybody who can read the connection sees \
                           the password, and which entries are used when";
            reader.warn(
                &self.url.at,
                problem,
                "write rediss:// if the store has TLS",
            );
        }
    }

    fn check_keys(&self, reader: &mut Reader<'_>, document: &DeTable<'_>) {
        let key = read_key(reader, &self.key);
        let previous = read_key(reader, &self.previous_key);
        let same_place = self.key.value.is_some() && self.key.value == self.previous_key.value;
        let same_text =
            matches!((&key, &previous), (Some(one), Some(other)) if is_same_key(one, other));
        if same_place || same_text {
            let problem = "is the same key as key";
            let remedy = "remove it, or write the key that other replicas use";
            reader.error(&self.previous_key.at, problem, remedy);
        }
        let mut others = secrets(reader, document);
        let password = self.password.value.clone();
        others.extend(password.map(|password| ("password of [shared]".to_owned(), password)));
        for (field, text) in [(&self.key, key), (&self.previous_key, previous)] {
            refuse_reuse(reader, field, text.as_ref(), &others);
        }
    }
}

/// The key's text, if it can be used. An unreadable secret has already been reported.
fn read_key(reader: &mut Reader<'_>, field: &Field<SecretRef>) -> Option<SecretString> {
    let secret = field.value.as_ref().filter(|_| reader.reads_files())?;
    let text = secret.read().ok()?;
    if let Some(problem) = key_problem(&text) {
        reader.error(&field.at, problem, NEW_KEY);
        return None;
    }
    Some(text)
}

/// Refuses a key that is also another secret of the file, because each purpose has a key of its own:
/// a person who is given one of them would have both.
fn refuse_reuse(
    reader: &mut Reader<'_>,
    field: &Field<SecretRef>,
    text: Option<&SecretString>,
    others: &[(String, SecretRef)],
) {
    let Some(secret) = &field.value else { return };
    let same = |other: &SecretRef| {
        let same_text = |text| other.read().is_ok_and(|other| is_same_key(text, &other));
        other == secret || text.is_some_and(same_text)
    };
    if let Some((place, _)) = others.iter().find(|(_, other)| same(other)) {
        let problem = format!("is also {place}");
        reader.error(&field.at, problem, NEW_KEY);
    }
}

/// The secrets of all other tables, each with its place in the file.
fn secrets(reader: &Reader<'_>, document: &DeTable<'_>) -> Vec<(String, SecretRef)> {
    let mut found = Vec::new();
    for (table, value) in document {
        let table = table.get_ref();
        match value.get_ref() {
            _ if table == "shared" => {}
            DeValue::Array(tables) => {
                for entries in tables {
                    if let DeValue::Table(entries) = entries.get_ref() {
                        let name = match entries.get("name").map(toml::Spanned::get_ref) {
                            Some(DeValue::String(name)) => format!("{table} {}", quoted(name)),
                            _ => format!("a {table}"),
                        };
                        collect(reader, entries, &name, &mut found);
                    }
                }
            }
            DeValue::Table(entries) => {
                collect(reader, entries, &format!("[{table}]"), &mut found);
            }
            _ => {}
        }
    }
    found
}

/// The secrets in `entries`, and in tables within it.
fn collect(
    reader: &Reader<'_>,
    entries: &DeTable<'_>,
    table: &str,
    found: &mut Vec<(String, SecretRef)>,
) {
    for (key, value) in entries {
        let DeValue::Table(inner) = value.get_ref() else {
            continue;
        };
        let text = |name| match inner.get(name).map(toml::Spanned::get_ref) {
            Some(DeValue::String(text)) => Some(text),
            _ => None,
        };
        let secret = match (text("file"), text("env")) {
            (Some(file), None) => Some(SecretRef::File(reader.resolve_path(file))),
            (None, Some(env)) => Some(SecretRef::Env(env.to_string())),
            _ => None,
        };
        match secret {
            Some(secret) => found.push((format!("{} of {table}", key.get_ref()), secret)),
            None => collect(reader, inner, table, found),
        }
    }
}
