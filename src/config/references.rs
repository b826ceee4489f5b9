//! Names that one part of the file declares and another refers to.

use std::sync::Arc;

use super::diagnostic::{Location, quoted};
use super::reader::{Field, Reader};
use super::value::Item;
use crate::suggest::nearest;

/// A named table as far as it could be read.
#[derive(Debug)]
pub(super) struct Declared<T> {
    /// The table.
    pub(super) table: Location,
    /// The location of its name.
    pub(super) at: Location,
    /// `None` when it is missing or refused.
    pub(super) name: Option<Arc<str>>,
    /// `None` when something in it is wrong.
    pub(super) meaning: Option<T>,
}

impl<T> Declared<T> {
    pub(super) fn new(table: &Location, name: &Field<Arc<str>>, meaning: Option<T>) -> Self {
        Self {
            table: table.clone(),
            at: name.at.clone(),
            name: name.value.clone(),
            meaning,
        }
    }
}

/// Refuses two of `what` with the same name.
pub(super) fn refuse_duplicates<T>(reader: &mut Reader<'_>, what: &str, all: &[Declared<T>]) {
    let mut seen = std::collections::HashMap::new();
    for declared in all {
        let Some(name) = &declared.name else { continue };
        if let Some(first) = seen.insert(name, &declared.at) {
            let line = reader.line(first);
            let problem = format!(
                "{} is already the name of another {what}, on line {line}",
                quoted(name)
            );
            reader.error(&declared.at, problem, "give each a different name");
        }
    }
}

/// The index of the table that `reference` names. An unknown name is an error, unless it may be
/// that of a table that could not be read.
pub(super) fn find<T>(
    reader: &mut Reader<'_>,
    what: &str,
    all: &[Declared<T>],
    reference: &Item<String>,
) -> Option<usize> {
    let name = reference.value.as_str();
    let found = all
        .iter()
        .position(|declared| declared.name.as_deref() == Some(name));
    if found.is_none() && all.iter().all(|declared| declared.name.is_some()) {
        let names = || all.iter().filter_map(|declared| declared.name.as_deref());
        let remedy = match nearest(name, names()) {
            Some(meant) => format!("did you mean {meant:?}?"),
            None if all.is_empty() => format!("add a [[{what}]] of this name"),
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
