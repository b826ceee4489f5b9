//! Static analysis of expressions at load time. The interpreter has no cost limit, so anything that
//! could be slow to evaluate is rejected here, as is anything that could never succeed
//! (`docs/rules.md`).

use std::collections::BTreeSet;

use cel::IdedExpr;
use cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue, SelectExpr, operators,
};

use super::compile_error::{CompileError, error};
use super::functions::{check_function, no_map};
use super::variables::{FIELDS, GROUPS, ROOTS};
use crate::suggest::nearest;

/// Type names, as in `type(x) == string`.
const TYPES: [&str; 10] = [
    "bool",
    "bytes",
    "double",
    "int",
    "list",
    "map",
    "null_type",
    "string",
    "type",
    "uint",
];

/// Maximum depth of the syntax tree. The interpreter recurses on a worker thread's stack.
const MAX_DEPTH: usize = 32;

/// Maximum number of members of an array or object in the claims that a rule reads.
pub const MAX_MEMBERS: usize = 256;

/// Maximum number of steps of one evaluation. Each node of the tree counts once, or [`MAX_MEMBERS`]
/// times if it is inside a comprehension.
pub const MAX_STEPS: usize = 16 * 1024;

/// The claims that an expression reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ClaimsRead {
    /// Only the claims with these names.
    Named(BTreeSet<String>),
    /// The claims object as a whole.
    All,
}

impl ClaimsRead {
    fn insert(&mut self, claim: &str) {
        if let Self::Named(names) = self {
            names.insert(claim.to_owned());
        }
    }

    /// Extends this set to the union of both.
    pub(super) fn join(&mut self, other: &Self) {
        match (&mut *self, other) {
            (Self::Named(names), Self::Named(others)) => names.extend(others.iter().cloned()),
            _ => *self = Self::All,
        }
    }
}

/// The result of analysing an expression.
#[derive(Debug)]
pub(super) struct Analysis {
    pub(super) claims: ClaimsRead,
    pub(super) reads_request: bool,
    pub(super) reads_path: bool,
    /// A text with capitals that the path is compared with.
    pub(super) path_text_with_capitals: Option<String>,
    /// The literal patterns of `matches` calls with their nodes; see [`matcher`] for the index.
    pub(super) patterns: Vec<(u64, String)>,
    steps: usize,
    variables: Vec<String>,
}

/// The position of the traversal in the tree.
#[derive(Clone, Copy)]
struct Position {
    depth: usize,
    /// How many times the node may be evaluated.
    times: usize,
}

impl Position {
    fn child(self) -> Self {
        Self {
            depth: self.depth + 1,
            ..self
        }
    }

    fn repeated(self) -> bool {
        self.times > 1
    }
}

/// The name of the function that replaces the call to `matches` with this index, so that its
/// pattern is compiled once at load time. No source can contain this name.
pub(super) fn matcher(index: usize) -> String {
    format!("@matches{index}")
}

/// Analyses the tree below `root` and replaces calls to `matches` with functions that have a
/// compiled pattern.
///
/// # Errors
/// With the first construct that is not allowed.
pub(super) fn analyze(root: &mut IdedExpr) -> Result<Analysis, CompileError> {
    let mut analysis = Analysis {
        claims: ClaimsRead::Named(BTreeSet::new()),
        reads_request: false,
        reads_path: false,
        path_text_with_capitals: None,
        patterns: Vec::new(),
        steps: 0,
        variables: Vec::new(),
    };
    analysis.node(root, Position { depth: 0, times: 1 })?;
    Ok(analysis)
}

impl Analysis {
    fn node(&mut self, node: &mut IdedExpr, position: Position) -> Result<(), CompileError> {
        let id = node.id;
        self.steps = self.steps.saturating_add(position.times);
        if position.depth > MAX_DEPTH {
            let problem = format!("is nested more than {MAX_DEPTH} deep");
            return error(id, problem, "split it into several rules");
        }
        if self.steps > MAX_STEPS {
            let problem = format!(
                "could take more than {MAX_STEPS} steps (those inside exists, all, exists_one and \
                 filter count {MAX_MEMBERS} times)"
            );
            return error(id, problem, "split it into several rules");
        }
        let child = position.child();
        match &mut node.expr {
            Expr::Literal(_) => Ok(()),
            Expr::Ident(name) => self.variable(id, name),
            Expr::Select(select) => self.select(id, select, child),
            Expr::Call(call) => self.call(id, call, child),
            Expr::List(list) => self.nodes(&mut list.elements, child),
            Expr::Map(map) => {
                for entry in &mut map.entries {
                    if let EntryExpr::MapEntry(entry) = &mut entry.expr {
                        self.node(&mut entry.key, child)?;
                        self.node(&mut entry.value, child)?;
                    }
                }
                Ok(())
            }
            Expr::Comprehension(comprehension) => self.comprehension(id, comprehension, child),
            Expr::Struct(message) => {
                let problem = format!(
                    "constructs a message {:?}; message types are not supported",
                    message.type_name
                );
                error(id, problem, "write a map in braces, with quoted keys")
            }
            Expr::Unspecified => error(id, "is incomplete", "write an expression"),
        }
    }

    fn nodes(&mut self, nodes: &mut [IdedExpr], position: Position) -> Result<(), CompileError> {
        nodes
            .iter_mut()
            .try_for_each(|node| self.node(node, position))
    }

    fn is_bound(&self, name: &str) -> bool {
        // The parser names its accumulators like this; no source can contain such a name.
        name.starts_with('@') || self.variables.iter().any(|v| v == name)
    }

    fn variable(&mut self, id: u64, name: &str) -> Result<(), CompileError> {
        if self.is_bound(name) || TYPES.contains(&name) {
            return Ok(());
        }
        if name == "claims" {
            self.claims = ClaimsRead::All;
            return Ok(());
        }
        if ROOTS.contains(&name) {
            let fields = fields_of(name).collect::<Vec<_>>().join(", ");
            return error(
                id,
                format!("{name} is not a value itself"),
                format!("write one of {fields}"),
            );
        }
        let names = ROOTS
            .iter()
            .copied()
            .chain(self.variables.iter().map(String::as_str));
        let remedy = match nearest(name, names) {
            Some(meant) => format!("did you mean {meant}?"),
            None => format!("the variables are {}", ROOTS.join(", ")),
        };
        error(id, format!("there is no variable {name:?}"), remedy)
    }

    fn select(
        &mut self,
        id: u64,
        select: &mut SelectExpr,
        position: Position,
    ) -> Result<(), CompileError> {
        let Some(root) = self.root_or_group(&select.operand.expr) else {
            return self.node(&mut select.operand, position);
        };
        if root == "claims" {
            self.claims.insert(&select.field);
            return Ok(());
        }
        let name = format!("{root}.{}", select.field);
        if GROUPS.contains(&name.as_str()) {
            let fields = fields_of(&name).collect::<Vec<_>>().join(", ");
            let problem = format!("{name} is not a value itself");
            return error(id, problem, format!("write one of {fields}"));
        }
        if !FIELDS.contains(&name.as_str()) {
            let known = || fields_of(&root);
            let remedy = match nearest(&name, known()) {
                Some(meant) => format!("did you mean {meant}?"),
                None => format!(
                    "the attributes are {}",
                    known().collect::<Vec<_>>().join(", ")
                ),
            };
            return error(id, format!("there is no {name}"), remedy);
        }
        if select.test {
            let problem = format!("{name} is always present");
            return error(id, problem, format!("compare it: {name} != \"\""));
        }
        self.reads_request |= root != "token";
        self.reads_path |= name == "request.path";
        Ok(())
    }

    /// The root or group that an expression names, unless a comprehension variable shadows it.
    fn root_or_group(&self, expr: &Expr) -> Option<String> {
        match expr {
            Expr::Ident(root) => {
                let fixed = ROOTS.contains(&root.as_str()) && !self.is_bound(root);
                fixed.then(|| root.clone())
            }
            Expr::Select(select) if !select.test => {
                let root = self.root_or_group(&select.operand.expr)?;
                let name = format!("{root}.{}", select.field);
                GROUPS.contains(&name.as_str()).then_some(name)
            }
            _ => None,
        }
    }

    fn call(
        &mut self,
        id: u64,
        call: &mut CallExpr,
        position: Position,
    ) -> Result<(), CompileError> {
        check_function(id, call)?;
        if let Some(text) = path_text_with_capitals(call) {
            self.path_text_with_capitals.get_or_insert(text);
        }
        if call.func_name == "matches" {
            return self.matches(id, call, position);
        }
        // Only this claim is read, whatever characters its name contains.
        if let Some(claim) = literal_claim(call)
            && !self.is_bound("claims")
        {
            self.claims.insert(&claim);
            return Ok(());
        }
        if let Some(target) = &mut call.target {
            self.node(target, position)?;
        }
        self.nodes(&mut call.args, position)
    }

    /// Requires a literal pattern, which is compiled at load time. The text to match may be any
    /// expression: the `regex` crate matches in linear time.
    fn matches(
        &mut self,
        id: u64,
        call: &mut CallExpr,
        position: Position,
    ) -> Result<(), CompileError> {
        let pattern = call.args.pop();
        let Some(IdedExpr {
            expr: Expr::Literal(LiteralValue::String(pattern)),
            ..
        }) = pattern
        else {
            let problem = "the pattern of matches is not a literal";
            return error(id, problem, "write it as a quoted string");
        };
        let index = self.patterns.len();
        self.patterns.push((id, pattern.inner().to_owned()));
        call.func_name = matcher(index);
        if let Some(target) = call.target.take() {
            call.args.push(*target);
        }
        self.nodes(&mut call.args, position)
    }

    fn comprehension(
        &mut self,
        id: u64,
        all: &mut ComprehensionExpr,
        position: Position,
    ) -> Result<(), CompileError> {
        if position.repeated() {
            let problem = "nests one comprehension in another";
            return error(id, problem, "split it into several rules, or use `in`");
        }
        for name in [Some(&all.iter_var), all.iter_var2.as_ref()]
            .into_iter()
            .flatten()
        {
            if ROOTS.contains(&name.as_str()) || TYPES.contains(&name.as_str()) {
                let problem = format!("{name} is already defined");
                return error(id, problem, "choose another name for the variable");
            }
        }
        if appends_other_values(&all.loop_step, &all.iter_var) {
            return no_map(id);
        }
        let inside = Position {
            times: MAX_MEMBERS,
            ..position
        };
        // The range must not be the result of a comprehension either: a chain of them could double
        // a list again and again.
        self.node(&mut all.iter_range, inside)?;
        self.node(&mut all.accu_init, inside)?;
        let before = self.variables.len();
        self.variables.push(all.iter_var.clone());
        self.variables.extend(all.iter_var2.clone());
        self.node(&mut all.loop_cond, inside)?;
        self.node(&mut all.loop_step, inside)?;
        self.node(&mut all.result, inside)?;
        self.variables.truncate(before);
        Ok(())
    }
}

/// Whether a loop step appends anything except the member itself, which is what `filter`
/// appends.
fn appends_other_values(step: &IdedExpr, member: &str) -> bool {
    let Expr::Call(call) = &step.expr else {
        return false;
    };
    if call.func_name == operators::CONDITIONAL {
        return call
            .args
            .iter()
            .any(|arm| appends_other_values(arm, member));
    }
    let adds_list = match (&call.func_name[..], call.args.as_slice()) {
        (
            operators::ADD,
            [
                accumulator,
                IdedExpr {
                    expr: Expr::List(list),
                    ..
                },
            ],
        ) if matches!(&accumulator.expr, Expr::Ident(name) if name.starts_with('@')) => list,
        _ => return false,
    };
    !adds_list
        .elements
        .iter()
        .all(|element| matches!(&element.expr, Expr::Ident(name) if name == member))
}

/// A literal with capitals that `call` compares `request.path` with. In a pattern, a letter after a
/// backslash is no capital.
fn path_text_with_capitals(call: &CallExpr) -> Option<String> {
    let operands = || call.target.as_deref().into_iter().chain(&call.args);
    let is_path = |node: &IdedExpr| {
        matches!(&node.expr, Expr::Select(select) if select.field == "path"
            && matches!(&select.operand.expr, Expr::Ident(root) if root == "request"))
    };
    if !operands().any(is_path) {
        return None;
    }
    operands()
        .flat_map(|node| match &node.expr {
            Expr::List(list) => list.elements.as_slice(),
            _ => std::slice::from_ref(node),
        })
        .filter_map(|node| match &node.expr {
            Expr::Literal(LiteralValue::String(text)) => Some(text.inner()),
            _ => None,
        })
        .find(|text| {
            let mut previous = ' ';
            text.chars().any(|c| {
                let escaped = std::mem::replace(&mut previous, c) == '\\';
                c.is_uppercase() && !escaped
            })
        })
        .map(str::to_owned)
}

/// The claim named in `claims["…"]` or `"…" in claims`.
fn literal_claim(call: &CallExpr) -> Option<String> {
    let [first, second] = call.args.as_slice() else {
        return None;
    };
    let (object, key) = match call.func_name.as_str() {
        operators::INDEX => (first, second),
        operators::IN => (second, first),
        _ => return None,
    };
    match (&object.expr, &key.expr) {
        (Expr::Ident(name), Expr::Literal(LiteralValue::String(key))) if name == "claims" => {
            Some(key.inner().to_owned())
        }
        _ => None,
    }
}

fn fields_of(root: &str) -> impl Iterator<Item = &'static str> + Clone {
    let prefix = format!("{root}.");
    FIELDS
        .iter()
        .copied()
        .filter(move |field| field.starts_with(&prefix))
}
