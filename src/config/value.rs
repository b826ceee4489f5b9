//! Types of values: strings, numbers, durations, sizes, lists, paths and secrets.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::diagnostic::{Location, quoted};
use super::foreign;
use super::reader::{Reader, Section, Shape, Table, Value, section};
use super::units;
use crate::secret::SecretRef;
use crate::suggest::nearest;

/// Returns the content of a string, and refuses any other type; `example` completes the remedy.
pub(super) fn text<'v>(
    reader: &mut Reader<'_>,
    at: &Location,
    value: &'v DeValue<'_>,
    example: &str,
) -> Option<&'v str> {
    let DeValue::String(text) = value else {
        let problem = format!("must be a string, not {}", type_name(value));
        reader.error(at, problem, format!("write {example}"));
        return None;
    };
    if let Some((problem, remedy)) = foreign::placeholder(text) {
        if at.is_variable_name() {
            reader.error(at, problem, "write the variable's name alone");
        } else {
            reader.error(at, problem, remedy);
        }
        return None;
    }
    Some(text)
}

/// The name of a value's type, with an article.
fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

/// For the remedy: an integer with `unit` appended, or else `example`, in quotes.
fn with_unit(value: &DeValue<'_>, unit: &str, example: &str) -> String {
    match value {
        DeValue::Integer(i)
            if i.radix() == 10 && i.as_str().bytes().all(|b| b.is_ascii_digit()) =>
        {
            format!("\"{}{unit}\"", i.as_str())
        }
        _ => format!("{example:?}"),
    }
}

/// The remedy for an invalid duration or size: adds `unit` if only that is missing.
fn unit_remedy(text: &str, unit: &str, otherwise: &str) -> String {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        format!("write it with its unit: \"{text}{unit}\"")
    } else {
        otherwise.into()
    }
}

impl Value for String {
    const SHAPE: Shape = Shape::Text;

    fn read(reader: &mut Reader<'_>, at: &Location, value: &DeValue<'_>) -> Option<Self> {
        let text = text(reader, at, value, "\"…\"")?;
        if text.trim().is_empty() {
            reader.error(
                at,
                "is empty",
                "write a value, or leave the key out if it is optional",
            );
            return None;
        }
        if text.chars().any(char::is_control) {
            reader.error(at, "contains a control character", "remove it");
            return None;
        }
        Some(text.to_owned())
    }
}

/// The name of an issuer, source or route, which appears in metrics and logs.
impl Value for Arc<str> {
    const SHAPE: Shape = Shape::Name;

    fn read(reader: &mut Reader<'_>, at: &Location, value: &DeValue<'_>) -> Option<Self> {
        let text = text(reader, at, value, "\"…\"")?;
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        if text.is_empty() || text.len() > 64 || !text.bytes().all(fits) {
            let problem = format!("{} is not a valid name", quoted(text));
            reader.error(at, problem, "use 1 to 64 characters from A-Z a-z 0-9 . _ -");
            return None;
        }
        Some(text.into())
    }
}

impl Value for bool {
    const SHAPE: Shape = Shape::Flag;

    fn read(reader: &mut Reader<'_>, at: &Location, value: &DeValue<'_>) -> Option<Self> {
        let DeValue::Boolean(flag) = value else {
            let problem = format!("must be a boolean, not {}", type_name(value));
            reader.error(at, problem, "write true or false, without quotes");
            return None;
        };
        Some(*flag)
    }
}

impl Value for u64 {
    const SHAPE: Shape = Shape::Count;

    fn read(reader: &mut Reader<'_>, at: &Location, value: &DeValue<'_>) -> Option<Self> {
        let DeValue::Integer(integer) = value else {
            let problem = format!("must be a whole number, not {}", type_name(value));
            reader.error(at, problem, "write digits without quotes");
            return None;
        };
        let number = Self::from_str_radix(integer.as_str(), integer.radix()).ok();
        if number.is_none() {
            reader.error(
                at,
                "is not a number from 0 to 2^64 - 1",
                "write a number in that range",
            );
        }
        number
    }
}

/// A fraction from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub(super) struct Fraction(pub(super) f64);

impl Value for Fraction {
    const SHAPE: Shape = Shape::Fraction;

    fn read(reader: &mut Reader<'_>, at: &Location, value: &DeValue<'_>) -> Option<Self> {
        let number = match value {
            DeValue::Float(float) => float.as_str().parse().ok(),
            DeValue::Integer(integer) => integer.as_str().parse().ok(),
            _ => {
                let problem = format!("must be a number, not {}", type_name(value));
                reader.error(
                    at,
                    problem,
                    "write a number from 0.0 to 1.0, without quotes",
                );
                return None;
            }
        };
        let fraction = number.filter(|fraction: &f64| (0.0..=1.0).contains(fraction));
        if fraction.is_none() {
            reader.error(
                at,
                "is not between 0 and 1",
                "write 0.1 for a tenth, 1.0 for all",
            );
        }
        fraction.map(Self)
    }
}

impl Value for Duration {
    const SHAPE: Shape = Shape::Duration;

    fn read(reader: &mut Reader<'_>, at: &Location, value: &DeValue<'_>) -> Option<Self> {
        let text = text(reader, at, value, &with_unit(value, "s", "30s"))?;
        let duration = units::duration(text);
        if duration.is_none() {
            let remedy = unit_remedy(
                text,
                "s",
                "write it like \"30s\", \"5m\", \"1h30m\" or \"250ms\"",
            );
            reader.error(at, format!("{} is not a duration", quoted(text)), remedy);
        }
        duration
    }
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub(super) struct Size(pub(super) u64);

impl Size {
    /// The size as a `usize`; saturates, because the limits refuse larger sizes anyway.
    pub(super) fn bytes(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl Value for Size {
    const SHAPE: Shape = Shape::Size;

    fn read(reader: &mut Reader<'_>, at: &Location, value: &DeValue<'_>) -> Option<Self> {
        let text = text(reader, at, value, &with_unit(value, "B", "8MiB"))?;
        let size = units::size(text);
        if size.is_none() {
            let remedy = unit_remedy(
                text,
                "B",
                "write it like \"8MiB\", \"64KiB\", \"10MB\" or \"512B\"",
            );
            reader.error(at, format!("{} is not a size", quoted(text)), remedy);
        }
        size.map(Self)
    }
}

impl Value for PathBuf {
    const SHAPE: Shape = Shape::File;

    fn read(reader: &mut Reader<'_>, at: &Location, value: &DeValue<'_>) -> Option<Self> {
        let path = text(reader, at, value, "\"path/to/file\"")?;
        if path.is_empty() || path.contains('\0') {
            reader.error(at, "is not a path", "write \"path/to/file\"");
            return None;
        }
        let path = reader.resolve_path(path);
        reader.record_file(at, &path);
        Some(path)
    }
}

/// One of a closed set of strings.
pub(super) trait Choice: Sized {
    /// The strings, as written in the file.
    const NAMES: &'static [&'static str];
    /// Returns the member written as `name`.
    fn from_name(name: &str) -> Option<Self>;
    /// Returns a problem and a remedy more helpful than a suggestion of the nearest name.
    fn explain_refusal(_name: &str) -> Option<(String, String)> {
        None
    }
}

impl<T: Choice> Value for T {
    const SHAPE: Shape = Shape::Choice(T::NAMES);

    fn read(reader: &mut Reader<'_>, at: &Location, value: &DeValue<'_>) -> Option<Self> {
        let all = || {
            T::NAMES
                .iter()
                .map(|n| format!("{n:?}"))
                .collect::<Vec<_>>()
                .join(", ")
        };
        let name = text(reader, at, value, &format!("one of {}", all()))?;
        if let Some(member) = T::from_name(name) {
            return Some(member);
        }
        if let Some((problem, remedy)) = T::explain_refusal(name) {
            reader.error(at, problem, remedy);
            return None;
        }
        let remedy = match nearest(name, T::NAMES.iter().copied()) {
            Some(suggestion) => format!("did you mean {suggestion:?}?"),
            None => format!("write one of {}", all()),
        };
        reader.error(at, format!("{} is not a valid value", quoted(name)), remedy);
        None
    }
}

/// One element of a list with its location.
#[derive(Debug)]
pub(super) struct Item<T> {
    pub(super) at: Location,
    pub(super) value: T,
}

/// Limits the elements of a list, because each is compared with every other.
pub(super) const MAX_ITEMS: usize = 1000;

/// An array of at most [`MAX_ITEMS`] elements, no two of which are equal. Invalid elements are left
/// out, so that the others can still be checked.
#[derive(Debug)]
pub(super) struct List<T> {
    pub(super) items: Vec<Item<T>>,
    /// The number of elements in the file, including invalid ones.
    len: usize,
}

impl<T> List<T> {
    /// Whether the array in the file is empty.
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The elements.
    pub(super) fn values(&self) -> impl Iterator<Item = &T> {
        self.items.iter().map(|item| &item.value)
    }

    /// The elements without their locations.
    pub(super) fn into_values(self) -> Vec<T> {
        self.items.into_iter().map(|item| item.value).collect()
    }
}

impl<T: Value + PartialEq> Value for List<T> {
    const SHAPE: Shape = Shape::List(&T::SHAPE);

    fn read(reader: &mut Reader<'_>, at: &Location, value: &DeValue<'_>) -> Option<Self> {
        let DeValue::Array(array) = value else {
            let problem = format!("must be an array, not {}", type_name(value));
            let remedy = match value {
                DeValue::String(text) => format!("write [{}]", quoted(text)),
                _ => "write it in brackets: […]".into(),
            };
            reader.error(at, problem, remedy);
            return None;
        };
        if array.len() > MAX_ITEMS {
            let problem = format!("has more than {MAX_ITEMS} elements");
            reader.error(at, problem, "remove some");
            return None;
        }
        let mut items: Vec<Item<T>> = Vec::new();
        for (index, element) in array.iter().enumerate() {
            let at = at.item(index, element.span());
            let Some(value) = T::read(reader, &at, element.get_ref()) else {
                continue;
            };
            if items.iter().any(|item| item.value == value) {
                reader.error(&at, "is listed twice", "remove one of the two");
                continue;
            }
            items.push(Item { at, value });
        }
        Some(Self {
            items,
            len: array.len(),
        })
    }
}

/// A table as a value.
#[derive(Debug)]
pub(super) struct Nested<S>(pub(super) S);

impl<S: Section> Value for Nested<S> {
    const SHAPE: Shape = Shape::Table(S::KEYS);

    fn read(reader: &mut Reader<'_>, at: &Location, value: &DeValue<'_>) -> Option<Self> {
        let DeValue::Table(entries) = value else {
            let keys: Vec<_> = S::KEYS
                .iter()
                .map(|key| format!("{} = …", key.name))
                .collect();
            let problem = format!("must be a table, not {}", type_name(value));
            reader.error(at, problem, format!("write {{ {} }}", keys.join(", ")));
            return None;
        };
        let table = Table {
            at: at.clone(),
            entries,
        };
        let section = S::read(reader, &table);
        reader.refuse_unknown(&table, &[S::KEYS], |_| None);
        Some(Self(section))
    }
}

section! {
    /// Where a secret is read from: exactly one of the two keys.
    struct SecretTable {
        /// A file whose content, without trailing newlines, is the secret; reread when it changes.
        file: PathBuf = [optional],
        /// An environment variable of the hawkgate process.
        env: String = [optional],
    }
}

impl Value for SecretRef {
    const SHAPE: Shape = Shape::Secret;

    fn read(reader: &mut Reader<'_>, at: &Location, value: &DeValue<'_>) -> Option<Self> {
        const REMEDY: &str = "write { file = \"…\" } or { env = \"…\" }";
        let entries = match value {
            DeValue::Table(entries) => entries,
            DeValue::String(text) if let Some(refusal) = foreign::secret_placeholder(text) => {
                reader.error(at, refusal.0, refusal.1);
                return None;
            }
            _ => {
                let problem = "is a secret, which must not be in the configuration itself";
                reader.error(at, problem, REMEDY);
                return None;
            }
        };
        let secret = read_secret_table(reader, at, entries, REMEDY)?;
        if reader.reads_files()
            && let Err(cause) = secret.read()
        {
            // The message does not repeat the variable's name, which may be the secret itself, entered
            // in the wrong place.
            let problem = match &secret {
                SecretRef::File(_) => cause.to_string(),
                SecretRef::Env(_) => {
                    "names an environment variable that is not set, is empty or is not UTF-8".into()
                }
            };
            reader.error(at, problem, "put the secret there");
            return None;
        }
        Some(secret)
    }
}

fn read_secret_table(
    reader: &mut Reader<'_>,
    at: &Location,
    entries: &DeTable<'_>,
    remedy: &str,
) -> Option<SecretRef> {
    let table = Table {
        at: at.clone(),
        entries,
    };
    let section = SecretTable::read(reader, &table);
    // The message does not repeat the other keys either.
    if entries
        .keys()
        .any(|key| !["file", "env"].contains(&key.get_ref().as_ref()))
    {
        reader.error(at, "has a key other than file and env", remedy);
        return None;
    }
    let given = (section.file.given, section.env.given);
    match (section.file.value, section.env.value) {
        (Some(file), None) if !given.1 => Some(SecretRef::File(file)),
        (None, Some(env)) if !given.0 => {
            let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
            if env.bytes().all(fits) {
                return Some(SecretRef::Env(env));
            }
            // The message does not repeat the value, which may be the secret itself.
            reader.error(
                &section.env.at,
                "is not the name of an environment variable",
                "write the variable's name, not its value",
            );
            None
        }
        _ if given == (true, true) => {
            reader.error(at, "has both file and env", remedy);
            None
        }
        _ if given == (false, false) => {
            reader.error(at, "has neither file nor env", remedy);
            None
        }
        _ => None,
    }
}
