//! What an expression may be: its tree is walked once, when it is loaded, and everything
//! that could run for long, or could never work, is refused then. CEL itself has no budget
//! of work (identity.md §G).

use std::collections::BTreeSet;

use cel::IdedExpr;
use cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue, SelectExpr, operators,
};

use super::compile_error::{CompileError, error};
use super::functions::{check_function, no_map};
use super::scope::{FIELDS, GROUPS, ROOTS};
use crate::suggest::nearest;

/// Types, as `type(x) == string` names them.
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

/// Deepest tree. The evaluator recurses, and its stack is a worker's.
const MAX_DEPTH: usize = 32;

/// Most members of an array or object among the claims that a rule reads.
pub const MAX_MEMBERS: usize = 256;

/// Most steps that one evaluation can take: nodes of the tree, those inside a
/// comprehension counted once for each member that there may be.
pub const MAX_STEPS: usize = 16 * 1024;

/// What of the claims an expression looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Claims {
    /// These only.
    Named(BTreeSet<String>),
    /// The object as a whole.
    All,
}

impl Claims {
    fn name(&mut self, claim: &str) {
        if let Self::Named(names) = self {
            names.insert(claim.to_owned());
        }
    }

    /// Looks at what either of the two looks at.
    pub(super) fn join(&mut self, other: &Self) {
        match (&mut *self, other) {
            (Self::Named(mine), Self::Named(theirs)) => mine.extend(theirs.iter().cloned()),
            _ => *self = Self::All,
        }
    }
}

/// What the walk finds out.
#[derive(Debug)]
pub(super) struct Analysis {
    pub(super) claims: Claims,
    pub(super) reads_request: bool,
    pub(super) reads_path: bool,
    /// The literal patterns of `matches`, in the order of their numbers.
    pub(super) patterns: Vec<(u64, String)>,
    steps: usize,
    variables: Vec<String>,
}

/// Where in the tree the walk is.
#[derive(Clone, Copy)]
struct Place {
    depth: usize,
    /// How often what is here may be evaluated.
    times: usize,
}

impl Place {
    fn below(self) -> Self {
        Self {
            depth: self.depth + 1,
            ..self
        }
    }

    fn repeated(self) -> bool {
        self.times > 1
    }
}

/// The function that call number `index` of `matches` becomes: its pattern is compiled
/// once, at load, and no source can spell the name.
pub(super) fn matcher(index: usize) -> String {
    format!("@matches{index}")
}

/// Walks the tree below `root`, and puts compiled patterns in place of literal ones.
///
/// # Errors
/// With the first thing that is refused.
pub(super) fn analysis(root: &mut IdedExpr) -> Result<Analysis, CompileError> {
    let mut analysis = Analysis {
        claims: Claims::Named(BTreeSet::new()),
        reads_request: false,
        reads_path: false,
        patterns: Vec::new(),
        steps: 0,
        variables: Vec::new(),
    };
    analysis.node(root, Place { depth: 0, times: 1 })?;
    Ok(analysis)
}

impl Analysis {
    fn node(&mut self, node: &mut IdedExpr, place: Place) -> Result<(), CompileError> {
        let id = node.id;
        self.steps = self.steps.saturating_add(place.times);
        if place.depth > MAX_DEPTH {
            let problem = format!("is nested more than {MAX_DEPTH} deep");
            return error(id, problem, "split it into several rules");
        }
        if self.steps > MAX_STEPS {
            let problem = format!(
                "could take more than {MAX_STEPS} steps (what is inside exists, all, exists_one \
                 and filter counts {MAX_MEMBERS} times)"
            );
            return error(id, problem, "split it into several rules");
        }
        let below = place.below();
        match &mut node.expr {
            Expr::Literal(_) => Ok(()),
            Expr::Ident(name) => self.variable(id, name),
            Expr::Select(select) => self.select(id, select, below),
            Expr::Call(call) => self.call(id, call, below),
            Expr::List(list) => self.nodes(&mut list.elements, below),
            Expr::Map(map) => {
                for entry in &mut map.entries {
                    if let EntryExpr::MapEntry(entry) = &mut entry.expr {
                        self.node(&mut entry.key, below)?;
                        self.node(&mut entry.value, below)?;
                    }
                }
                Ok(())
            }
            Expr::Comprehension(comprehension) => self.comprehension(id, comprehension, below),
            Expr::Struct(message) => {
                let problem = format!(
                    "makes a message {:?}; there are no such types",
                    message.type_name
                );
                error(id, problem, "write a map in braces, with quoted keys")
            }
            Expr::Unspecified => error(id, "is incomplete", "write an expression"),
        }
    }

    fn nodes(&mut self, nodes: &mut [IdedExpr], place: Place) -> Result<(), CompileError> {
        nodes.iter_mut().try_for_each(|node| self.node(node, place))
    }

    fn is_bound(&self, name: &str) -> bool {
        // The parser's own accumulators cannot be written in a source.
        name.starts_with('@') || self.variables.iter().any(|v| v == name)
    }

    fn variable(&mut self, id: u64, name: &str) -> Result<(), CompileError> {
        if self.is_bound(name) || TYPES.contains(&name) {
            return Ok(());
        }
        if name == "claims" {
            self.claims = Claims::All;
            return Ok(());
        }
        if ROOTS.contains(&name) {
            let fields = fields_of(name).collect::<Vec<_>>().join(", ");
            return error(
                id,
                format!("{name} is no value by itself"),
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
        place: Place,
    ) -> Result<(), CompileError> {
        let Some(root) = self.fixed_name(&select.operand.expr) else {
            return self.node(&mut select.operand, place);
        };
        if root == "claims" {
            self.claims.name(&select.field);
            return Ok(());
        }
        let name = format!("{root}.{}", select.field);
        if GROUPS.contains(&name.as_str()) {
            let fields = fields_of(&name).collect::<Vec<_>>().join(", ");
            let problem = format!("{name} is no value by itself");
            return error(id, problem, format!("write one of {fields}"));
        }
        if !FIELDS.contains(&name.as_str()) {
            let known = || fields_of(&root);
            let remedy = match nearest(&name, known()) {
                Some(meant) => format!("did you mean {meant}?"),
                None => format!("there are {}", known().collect::<Vec<_>>().join(", ")),
            };
            return error(id, format!("there is no {name}"), remedy);
        }
        if select.test {
            let problem = format!("{name} is always there");
            return error(id, problem, format!("compare it: {name} != \"\""));
        }
        self.reads_request |= root != "token";
        self.reads_path |= name == "request.path";
        Ok(())
    }

    /// The root or group that an expression names, unless a comprehension has taken it.
    fn fixed_name(&self, expr: &Expr) -> Option<String> {
        match expr {
            Expr::Ident(root) => {
                let fixed = ROOTS.contains(&root.as_str()) && !self.is_bound(root);
                fixed.then(|| root.clone())
            }
            Expr::Select(select) if !select.test => {
                let root = self.fixed_name(&select.operand.expr)?;
                let name = format!("{root}.{}", select.field);
                GROUPS.contains(&name.as_str()).then_some(name)
            }
            _ => None,
        }
    }

    fn call(&mut self, id: u64, call: &mut CallExpr, place: Place) -> Result<(), CompileError> {
        check_function(id, call)?;
        if call.func_name == "matches" {
            return self.matches(id, call, place);
        }
        // A claim by its exact name, whatever characters it has; other claims are not read.
        if let Some(claim) = named_claim(call)
            && !self.is_bound("claims")
        {
            self.claims.name(&claim);
            return Ok(());
        }
        if let Some(target) = &mut call.target {
            self.node(target, place)?;
        }
        self.nodes(&mut call.args, place)
    }

    /// A pattern that is compiled at load: so it must be there then. What it is matched
    /// against may be anything; the time that takes is linear (crate `regex`).
    fn matches(&mut self, id: u64, call: &mut CallExpr, place: Place) -> Result<(), CompileError> {
        let pattern = call.args.pop();
        let Some(IdedExpr {
            expr: Expr::Literal(LiteralValue::String(pattern)),
            ..
        }) = pattern
        else {
            let problem = "the pattern of matches is no literal";
            return error(id, problem, "write it as a text in quotes");
        };
        let index = self.patterns.len();
        self.patterns.push((id, pattern.inner().to_owned()));
        call.func_name = matcher(index);
        if let Some(target) = call.target.take() {
            call.args.push(*target);
        }
        self.nodes(&mut call.args, place)
    }

    fn comprehension(
        &mut self,
        id: u64,
        all: &mut ComprehensionExpr,
        place: Place,
    ) -> Result<(), CompileError> {
        if place.repeated() {
            let problem = "goes through a list inside of going through a list";
            return error(id, problem, "split it into several rules, or use `in`");
        }
        for name in [Some(&all.iter_var), all.iter_var2.as_ref()]
            .into_iter()
            .flatten()
        {
            if ROOTS.contains(&name.as_str()) || TYPES.contains(&name.as_str()) {
                let problem = format!("{name} is the name of something else already");
                return error(id, problem, "call the list's members otherwise");
            }
        }
        if keeps_something_else(&all.loop_step, &all.iter_var) {
            return no_map(id);
        }
        let inside = Place {
            times: MAX_MEMBERS,
            ..place
        };
        // Not even the list that is gone through may come of another comprehension: chained,
        // they could double a list again and again.
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

/// Whether a step adds anything to a list but the member itself, as `filter` does.
fn keeps_something_else(step: &IdedExpr, member: &str) -> bool {
    let Expr::Call(call) = &step.expr else {
        return false;
    };
    if call.func_name == operators::CONDITIONAL {
        return call
            .args
            .iter()
            .any(|arm| keeps_something_else(arm, member));
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
        .all(|kept| matches!(&kept.expr, Expr::Ident(name) if name == member))
}

/// The claim in `claims["…"]` and `"…" in claims`.
fn named_claim(call: &CallExpr) -> Option<String> {
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
