//! One CEL expression: compiled at load, evaluated without fear of its cost.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock};

use cel::common::types::{CelBool, CelInt, CelList, CelString, CelUInt};
use cel::common::value::{CowVal, Val};
use cel::parser::{ParseErrors, Parser};
use cel::{Context, Env, ExecutionError, IdedExpr, Value};
use regex::{Regex, RegexBuilder};

use super::compile_error::CompileError;
use super::scope::{Facts, Scope};
use super::syntax::{self, Claims};

/// Longest source, in bytes (identity.md §G).
pub const MAX_SOURCE_BYTES: usize = 1024;

/// How deep a source may nest while it is parsed.
const MAX_PARSE_DEPTH: u16 = 32;

/// The parser recurses on what no limit of its own counts (`a.b.c…`, `a[0][0]…`), so it
/// gets a stack that 1 KiB of anything cannot use up; untouched pages cost nothing.
const PARSER_STACK: usize = 64 << 20;

/// Largest program of one pattern of `matches`, in bytes: bounds compiling and matching.
const MAX_PATTERN_PROGRAM: usize = 128 * 1024;

/// The standard library, without `optional` and times.
static LIBRARY: LazyLock<Arc<Env>> =
    LazyLock::new(|| Arc::new(Env::default().with_optional_support(false).with_stdlib()));

/// An expression that passed every check.
pub struct Expression {
    source: Arc<str>,
    root: IdedExpr,
    /// The library, and one function per pattern of this expression.
    functions: Context<'static, 'static>,
    claims: Claims,
    reads_request: bool,
    reads_path: bool,
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Expression").field(&self.source).finish()
    }
}

/// Why a source is refused: what is wrong and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}; {remedy}")]
pub struct ExpressionError {
    /// With the place in the source, where there is one.
    pub problem: String,
    /// What to write instead.
    pub remedy: String,
}

/// Why an evaluation gave no usable value. Texts name functions, types and what stands in
/// the source, never a claim's value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The evaluator's error, in our words.
    #[error("{0}")]
    Failed(String),
    /// A value of another type than wanted.
    #[error("the result is of type {0}, not {1}")]
    WrongType(String, &'static str),
    /// The evaluator panicked: a fault in it, contained here.
    #[error("the evaluator broke down")]
    Panicked,
}

impl Expression {
    /// Compiles `source`.
    ///
    /// # Errors
    /// With the first thing that is wrong with it.
    pub fn compile(source: &str) -> Result<Self, ExpressionError> {
        if source.len() > MAX_SOURCE_BYTES {
            return Err(refused(
                format!("has {} bytes, more than {MAX_SOURCE_BYTES}", source.len()),
                "split it into several rules",
            ));
        }
        let owned = source.to_owned();
        let parser = std::thread::Builder::new()
            .name("rule-parser".into())
            .stack_size(PARSER_STACK)
            .spawn(move || parse(&owned));
        let no_parser = || refused("cannot be parsed: the system gives no thread", "try again");
        let parsed = parser.map_err(|_| no_parser())?.join();
        let (root, analysis) = parsed
            .map_err(|_| refused("makes the parser break down", "write it in another way"))??;
        let mut functions = Context::with_env(Arc::clone(&LIBRARY));
        for (index, (pattern, place)) in analysis.patterns.iter().enumerate() {
            let regex = pattern_program(pattern).map_err(|problem| {
                let problem = format!("{}: the pattern of matches {problem}", at(*place));
                refused(
                    problem,
                    "write a regular expression as of the Rust crate regex",
                )
            })?;
            let matches = move |text: Arc<String>| regex.is_match(&text);
            functions
                .add_function(&syntax::matcher(index), matches)
                .map_err(|e| refused(e.to_string(), "write fewer patterns"))?;
        }
        Ok(Self {
            source: source.into(),
            root,
            functions,
            claims: analysis.claims,
            reads_request: analysis.reads_request,
            reads_path: analysis.reads_path,
        })
    }

    /// As written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether it looks at the request or the client, so that its value can differ between
    /// two requests with one token.
    pub fn reads_request(&self) -> bool {
        self.reads_request
    }

    /// Whether it looks at the path.
    pub fn reads_path(&self) -> bool {
        self.reads_path
    }

    /// Whether it looks at any claim.
    pub fn reads_claims(&self) -> bool {
        !matches!(&self.claims, Claims::Named(names) if names.is_empty())
    }

    /// What of the claims it looks at.
    pub(super) fn claims(&self) -> &Claims {
        &self.claims
    }

    /// Whether it is exactly `true`.
    ///
    /// # Errors
    /// When it fails, or is anything but a boolean.
    pub fn holds(&self, facts: &Facts<'_>) -> Result<bool, Fault> {
        self.evaluate(facts, |value| {
            let boolean = value.downcast_ref::<CelBool>();
            boolean
                .map(|b| *b.inner())
                .ok_or_else(|| Fault::WrongType(value.get_type().name().to_owned(), "bool"))
        })
    }

    /// Its value as text: a string as it is, a boolean or whole number in digits or words,
    /// a list of those joined with commas.
    ///
    /// # Errors
    /// When it fails, is of another type, or a member of the list has a comma itself.
    pub fn text(&self, facts: &Facts<'_>) -> Result<String, Fault> {
        self.evaluate(facts, |value| match value.downcast_ref::<CelList<'_>>() {
            None => scalar(value),
            Some(list) => {
                let members = list.inner().iter().map(|member| {
                    let text = scalar(member.as_ref())?;
                    if text.contains(',') {
                        return Err(Fault::Failed("a member of the list has a comma".into()));
                    }
                    Ok(text)
                });
                Ok(members.collect::<Result<Vec<_>, _>>()?.join(","))
            }
        })
    }

    fn evaluate<T>(
        &self,
        facts: &Facts<'_>,
        read: impl FnOnce(&dyn Val) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let evaluated = catch_unwind(AssertUnwindSafe(|| {
            let scope = Scope::new(facts, &self.claims);
            let mut context = self.functions.new_inner_scope();
            context.set_variable_resolver(&scope);
            let value: CowVal<'_, '_> =
                Value::resolve_val(&self.root, &context).map_err(|e| self.fault(&e))?;
            read(value.as_ref())
        }));
        evaluated.unwrap_or(Err(Fault::Panicked))
    }

    /// The evaluator's own texts quote values.
    fn fault(&self, error: &ExecutionError) -> Fault {
        use ExecutionError as E;
        Fault::Failed(match error {
            E::NoSuchKey(name) | E::UndeclaredReference(name)
                if self.source.contains(name.as_str()) =>
            {
                format!("there is no {name:?}")
            }
            E::NoSuchKey(_) => "there is no such key".into(),
            E::NoSuchOverload(call) => {
                let types = call.argument_types().join(", ");
                format!("{} does not work on ({types})", call.function())
            }
            E::UnexpectedType { want, .. } => format!("a value is not of type {want}"),
            E::ValuesNotComparable(..) => "two values cannot be compared".into(),
            E::UnsupportedBinaryOperator(operator, ..) => {
                format!("{operator} does not work on values of these types")
            }
            E::UnsupportedIndex(..) => "a value cannot be indexed like this".into(),
            E::UnsupportedKeyType(_) => "a value cannot be a map's key".into(),
            E::FunctionError { function, .. } => format!("{function}(…) failed"),
            E::DivisionByZero(_) | E::RemainderByZero(_) => "division by zero".into(),
            E::Overflow(..) => "a number became too large".into(),
            E::IndexOutOfBounds(_) => "an index is out of bounds".into(),
            E::DuplicateKey(_) => "a map has a key twice".into(),
            _ => "it cannot be evaluated".into(),
        })
    }
}

fn scalar(value: &dyn Val) -> Result<String, Fault> {
    if let Some(text) = value.downcast_ref::<CelString<'_>>() {
        return Ok(text.inner().to_owned());
    }
    let plain = value
        .downcast_ref::<CelBool>()
        .map(|b| b.inner().to_string())
        .or_else(|| {
            value
                .downcast_ref::<CelInt>()
                .map(|i| i.inner().to_string())
        })
        .or_else(|| {
            value
                .downcast_ref::<CelUInt>()
                .map(|u| u.inner().to_string())
        });
    plain.ok_or_else(|| Fault::WrongType(value.get_type().name().to_owned(), "string"))
}

/// A pattern with the place of its call in the source.
struct Analyzed {
    patterns: Vec<(String, Option<u32>)>,
    claims: Claims,
    reads_request: bool,
    reads_path: bool,
}

/// Runs on the parser's own stack, with everything that might recurse; what is returned is
/// known to be shallow.
fn parse(source: &str) -> Result<(IdedExpr, Analyzed), ExpressionError> {
    let parser = Parser::new().max_recursion_depth(MAX_PARSE_DEPTH);
    let (mut root, places) = parser
        .parse_with_source_info(source)
        .map_err(|errors| syntax_error(&errors))?;
    let place = |node| places.offset_for(node).map(|(start, _)| start);
    let analysis = syntax::analysis(&mut root).map_err(|error| {
        let CompileError {
            node,
            problem,
            remedy,
        } = error;
        refused(format!("{}: {problem}", at(place(node))), remedy)
    })?;
    let patterns = analysis
        .patterns
        .into_iter()
        .map(|(node, pattern)| (pattern, place(node)));
    let surveyed = Analyzed {
        patterns: patterns.collect(),
        claims: analysis.claims,
        reads_request: analysis.reads_request,
        reads_path: analysis.reads_path,
    };
    Ok((root, surveyed))
}

fn at(place: Option<u32>) -> String {
    match place {
        // Of a call its opening parenthesis, of an operator the operator.
        Some(offset) => format!("near character {}", u64::from(offset) + 1),
        None => "somewhere".into(),
    }
}

/// The parser's first error in one line.
fn syntax_error(errors: &ParseErrors) -> ExpressionError {
    let Some(error) = errors.errors.first() else {
        return refused("is no CEL", "write an expression");
    };
    let told = error.msg.lines().next().unwrap_or_default();
    if told.contains("Recursion limit") {
        let problem = format!("is nested more than {MAX_PARSE_DEPTH} deep");
        return refused(problem, "split it into several rules");
    }
    let told = told.trim_start_matches("Syntax error: ");
    let told = told.split(" expecting {").next().unwrap_or_default();
    let told: String = told.chars().filter(|c| !c.is_control()).take(100).collect();
    let problem = format!("is no CEL: near character {}: {told}", error.pos.1.max(1));
    refused(problem, "write an expression like claims.sub == \"me\"")
}

fn refused(problem: impl Into<String>, remedy: impl Into<String>) -> ExpressionError {
    ExpressionError {
        problem: problem.into(),
        remedy: remedy.into(),
    }
}

fn pattern_program(pattern: &str) -> Result<Regex, &'static str> {
    RegexBuilder::new(pattern)
        .size_limit(MAX_PATTERN_PROGRAM)
        .dfa_size_limit(MAX_PATTERN_PROGRAM)
        .build()
        .map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => "is too large",
            _ => "is no regular expression",
        })
}

#[cfg(test)]
pub(super) mod tests;
