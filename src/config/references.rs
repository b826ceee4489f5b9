//! Names that one table declares and others refer to.

use std::sync::Arc;

use super::diagnostic::{Location, quoted};
use super::reader::{Field, Reader};
use super::value::Item;
use crate::suggest::nearest;

/// A named table, as far as it is valid.
#[derive(Debug)]
pub(super) struct Declaration<T> {
    /// The table.
    pub(super) table: Location,
    /// The location of its name.
    pub(super) at: Location,
    /// `None` if it is missing or invalid.
    pub(super) name: Option<Arc<str>>,
    /// The resolved table; `None` if anything in it is invalid.
    pub(super) value: Option<T>,
}

impl<T> Declaration<T> {
    pub(super) fn new(table: &Location, name: &Field<Arc<str>>, value: Option<T>) -> Self {
        Self {
            table: table.clone(),
            at: name.at.clone(),
            name: name.value.clone(),
            value,
        }
    }
}

/// Refuses tables with the same name; `what` is their kind for messages.
pub(super) fn refuse_duplicates<T>(reader: &mut Reader<'_>, what: &str, all: &[Declaration<T>]) {
    let mut seen = std::collections::HashMap::new();
    for declaration in all {
        let Some(name) = &declaration.name else {
            continue;
        };
        if let Some(first) = seen.insert(name, &declaration.at) {
            let line = reader.line(first);
            let problem = format!(
                "{} is already the name of another {what}, on line {line}",
                quoted(name)
            );
            reader.error(&declaration.at, problem, "give each a different name");
        }
    }
}

/// Returns the index of the table that `reference` names. An unknown name is an error, unless the
/// name of some table is itself invalid and might be the one meant.
pub(super) fn find<T>(
    reader: &mut Reader<'_>,
    what: &str,
    all: &[Declaration<T>],
    reference: &Item<String>,
) -> Option<usize> {
    let name = reference.value.as_str();
    let found = all
        .iter()
        .position(|declaration| declaration.name.as_deref() == Some(name));
    if found.is_none() && all.iter().all(|declaration| declaration.name.is_some()) {
        let names = || {
            all.iter()
                .filter_map(|declaration| declaration.name.as_deref())
        };
        let remedy = match nearest(name, names()) {
            Some(suggestion) => format!("did you mean {suggestion:?}?"),
            None if all.is_empty() => format!("add a [[{what}]] with this name"),
            None => format!("the {what}s are {}", names().collect::<Vec<_>>().join(", ")),
        };
        reader.error(
            &reference.at,
            format!("there is no {what} named {}", quoted(name)),
            remedy,
        );
    }
    found
}
