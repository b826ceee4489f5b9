//! The functions available in expressions.

use cel::common::ast::CallExpr;

use super::compile_error::{CompileError, error};
use crate::suggest::nearest;

/// Functions called as `f(x)`, and their number of arguments.
const FUNCTIONS: [(&str, usize); 10] = [
    ("bool", 1),
    ("bytes", 1),
    ("double", 1),
    ("dyn", 1),
    ("int", 1),
    ("matches", 2),
    ("size", 1),
    ("string", 1),
    ("type", 1),
    ("uint", 1),
];

/// Functions called as `x.f(y)`, and their number of arguments excluding `x`.
const METHODS: [(&str, usize); 5] = [
    ("contains", 1),
    ("endsWith", 1),
    ("matches", 1),
    ("size", 0),
    ("startsWith", 1),
];

/// Macros, suggested for misspelt function names.
const MACROS: [&str; 5] = ["all", "exists", "exists_one", "filter", "has"];

/// Checks that a call names a known function with the right number of arguments.
pub(super) fn check_function(id: u64, call: &CallExpr) -> Result<(), CompileError> {
    let name = call.func_name.as_str();
    let is_operator = !name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '.');
    if is_operator && call.target.is_none() {
        return Ok(());
    }
    let known: &[(&str, usize)] = match call.target {
        Some(_) => &METHODS,
        None => &FUNCTIONS,
    };
    let call_syntax = |name: &str| match call.target {
        Some(_) => format!("x.{name}(…)"),
        None => format!("{name}(…)"),
    };
    match known.iter().find(|(known, _)| *known == name) {
        Some((_, arguments)) if *arguments == call.args.len() => return Ok(()),
        Some((_, arguments)) => {
            let problem = format!("{} takes {arguments} argument(s)", call_syntax(name));
            return error(id, problem, format!("{} were given", call.args.len()));
        }
        None => {}
    }
    if ["map", "optMap", "optFlatMap"].contains(&name) {
        return no_map(id);
    }
    let names = METHODS.iter().chain(&FUNCTIONS).map(|(name, _)| *name);
    let remedy = match nearest(name, names.chain(MACROS)) {
        Some(meant) if known.iter().any(|(k, _)| *k == meant) => {
            format!("did you mean {}?", call_syntax(meant))
        }
        Some(meant) => format!("did you mean {meant}, with the right arguments?"),
        None => {
            let names: Vec<_> = known.iter().map(|(name, _)| *name).chain(MACROS).collect();
            format!("the functions are {}", names.join(", "))
        }
    };
    error(
        id,
        format!("there is no function {}", call_syntax(name)),
        remedy,
    )
}

/// The error for `map`.
pub(super) fn no_map(id: u64) -> Result<(), CompileError> {
    let problem = "map is not available, because it can create lists of any size";
    error(id, problem, "use exists, all, exists_one or filter")
}
