//! CEL expressions, which are compiled and checked at load time so that evaluation is cheap and
//! safe.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock};

use cel::common::types::{CelBool, CelInt, CelList, CelString, CelUInt};
use cel::common::value::{CowVal, Val};
use cel::parser::{ParseErrors, Parser};
use cel::{Context, Env, ExecutionError, IdedExpr, Value};
use regex::{Regex, RegexBuilder};

use super::activation::Activation;
use super::analysis::{self, ClaimsRead};
use super::attributes::Attributes;
use super::compile_error::CompileError;

/// Maximum length of a source, in bytes.
pub const MAX_SOURCE_BYTES: usize = 1024;

/// Maximum nesting depth that the parser accepts.
const MAX_PARSE_DEPTH: u16 = 32;

/// Stack size of the parser's thread, in bytes. The parser's depth limit ignores some
/// recursions (`a.b.c…`, `a[0][0]…`), so the stack is large enough for any source of 1 KiB;
/// untouched pages cost nothing.
const PARSER_STACK_SIZE: usize = 64 << 20;

/// Maximum size of a compiled `matches` pattern, in bytes; limits the cost of compiling and
/// matching.
const MAX_PATTERN_SIZE: usize = 128 * 1024;

/// The standard library, without optional values and time types.
static LIBRARY: LazyLock<Arc<Env>> =
    LazyLock::new(|| Arc::new(Env::default().with_optional_support(false).with_stdlib()));

/// A compiled expression that passed every check.
pub struct Expression {
    source: Arc<str>,
    root: IdedExpr,
    /// The standard library, and one function for each pattern of this expression.
    functions: Context<'static, 'static>,
    claims: ClaimsRead,
    reads_request: bool,
    reads_path: bool,
    path_text_with_capitals: Option<String>,
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Expression").field(&self.source).finish()
    }
}

/// Why a source does not compile, and how to fix it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}; {remedy}")]
pub struct ExpressionError {
    /// What is wrong, with the position in the source if known.
    pub problem: String,
    /// What to write instead.
    pub remedy: String,
}

/// Why an evaluation produced no usable value. Messages contain functions, types and names from
/// the source, never the value of a claim.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvaluationError {
    /// The interpreter failed. The message does not come from the interpreter, whose messages quote
    /// values.
    #[error("{0}")]
    Failed(String),
    /// The value is not of the required type.
    #[error("the result is of type {0}, not {1}")]
    WrongType(String, &'static str),
    /// The interpreter panicked. The panic is caught.
    #[error("the interpreter panicked")]
    Panicked,
}

impl Expression {
    /// Compiles `source`.
    ///
    /// # Errors
    /// With the first problem found.
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
            .stack_size(PARSER_STACK_SIZE)
            .spawn(move || parse(&owned));
        let no_parser = || refused("cannot be parsed: no thread could be started", "try again");
        let parsed = parser.map_err(|_| no_parser())?.join();
        let (root, analysis) =
            parsed.map_err(|_| refused("makes the parser panic", "write it differently"))??;
        let mut functions = Context::with_env(Arc::clone(&LIBRARY));
        for (index, (pattern, offset)) in analysis.patterns.iter().enumerate() {
            let regex = compile_pattern(pattern).map_err(|problem| {
                let problem = format!("{}: the pattern of matches {problem}", at(*offset));
                refused(
                    problem,
                    "write a regular expression in the syntax of the Rust crate regex",
                )
            })?;
            let matches = move |text: Arc<String>| regex.is_match(&text);
            functions
                .add_function(&analysis::matcher(index), matches)
                .map_err(|e| refused(e.to_string(), "write fewer patterns"))?;
        }
        Ok(Self {
            source: source.into(),
            root,
            functions,
            claims: analysis.claims,
            reads_request: analysis.reads_request,
            reads_path: analysis.reads_path,
            path_text_with_capitals: analysis.path_text_with_capitals,
        })
    }

    /// The source.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether the expression reads attributes of the request or the client, so that its value can
    /// differ between two requests with the same token.
    pub fn reads_request(&self) -> bool {
        self.reads_request
    }

    /// Whether the expression reads the path.
    pub fn reads_path(&self) -> bool {
        self.reads_path
    }

    /// A text with capitals that the expression compares the path with. It never matches a path in
    /// lower case.
    pub fn path_text_with_capitals(&self) -> Option<&str> {
        self.path_text_with_capitals.as_deref()
    }

    /// Whether the expression reads any claim.
    pub fn reads_claims(&self) -> bool {
        !matches!(&self.claims, ClaimsRead::Named(names) if names.is_empty())
    }

    /// The claims that the expression reads.
    pub(super) fn claims(&self) -> &ClaimsRead {
        &self.claims
    }

    /// Evaluates the expression as a condition.
    ///
    /// # Errors
    /// If the evaluation fails or the value is not a boolean.
    pub fn is_true(&self, attributes: &Attributes<'_>) -> Result<bool, EvaluationError> {
        self.evaluate(attributes, |value| {
            let boolean = value.downcast_ref::<CelBool>();
            boolean.map(|b| *b.inner()).ok_or_else(|| {
                EvaluationError::WrongType(value.get_type().name().to_owned(), "bool")
            })
        })
    }

    /// Evaluates the expression as a string. Booleans and integers are formatted; the members of a
    /// list are joined with commas.
    ///
    /// # Errors
    /// If the evaluation fails, the value is of another type, or a member of the list contains a
    /// comma.
    pub fn text(&self, attributes: &Attributes<'_>) -> Result<String, EvaluationError> {
        self.evaluate(attributes, |value| {
            match value.downcast_ref::<CelList<'_>>() {
                None => scalar(value),
                Some(list) => {
                    let members = list.inner().iter().map(|member| {
                        let text = scalar(member.as_ref())?;
                        if text.contains(',') {
                            return Err(EvaluationError::Failed(
                                "a member of the list contains a comma".into(),
                            ));
                        }
                        Ok(text)
                    });
                    Ok(members.collect::<Result<Vec<_>, _>>()?.join(","))
                }
            }
        })
    }

    fn evaluate<T>(
        &self,
        attributes: &Attributes<'_>,
        read: impl FnOnce(&dyn Val) -> Result<T, EvaluationError>,
    ) -> Result<T, EvaluationError> {
        let evaluated = catch_unwind(AssertUnwindSafe(|| {
            let activation = Activation::new(attributes, &self.claims);
            let mut context = self.functions.new_inner_scope();
            context.set_variable_resolver(&activation);
            let value: CowVal<'_, '_> =
                Value::resolve_val(&self.root, &context).map_err(|e| self.evaluation_error(&e))?;
            read(value.as_ref())
        }));
        evaluated.unwrap_or(Err(EvaluationError::Panicked))
    }

    /// Converts the interpreter's error, whose message is dropped because it may quote values.
    fn evaluation_error(&self, error: &ExecutionError) -> EvaluationError {
        use ExecutionError as E;
        EvaluationError::Failed(match error {
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
            E::Overflow(..) => "integer overflow".into(),
            E::IndexOutOfBounds(_) => "an index is out of bounds".into(),
            E::DuplicateKey(_) => "a map has a duplicate key".into(),
            _ => "it cannot be evaluated".into(),
        })
    }
}

fn scalar(value: &dyn Val) -> Result<String, EvaluationError> {
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
    plain.ok_or_else(|| EvaluationError::WrongType(value.get_type().name().to_owned(), "string"))
}

/// The result of analysing a parsed source; patterns come with the offset of their call.
struct ParsedAnalysis {
    patterns: Vec<(String, Option<u32>)>,
    claims: ClaimsRead,
    reads_request: bool,
    reads_path: bool,
    path_text_with_capitals: Option<String>,
}

/// Parses and analyses `source`. Runs on the parser's thread because both recurse deeply. The depth
/// of the result is limited.
fn parse(source: &str) -> Result<(IdedExpr, ParsedAnalysis), ExpressionError> {
    let parser = Parser::new().max_recursion_depth(MAX_PARSE_DEPTH);
    let (mut root, offsets) = parser
        .parse_with_source_info(source)
        .map_err(|errors| syntax_error(&errors))?;
    let offset = |node| offsets.offset_for(node).map(|(start, _)| start);
    let analysis = analysis::analyze(&mut root).map_err(|error| {
        let CompileError {
            node,
            problem,
            remedy,
        } = error;
        refused(format!("{}: {problem}", at(offset(node))), remedy)
    })?;
    let patterns = analysis
        .patterns
        .into_iter()
        .map(|(node, pattern)| (pattern, offset(node)));
    let analyzed = ParsedAnalysis {
        patterns: patterns.collect(),
        claims: analysis.claims,
        reads_request: analysis.reads_request,
        reads_path: analysis.reads_path,
        path_text_with_capitals: analysis.path_text_with_capitals,
    };
    Ok((root, analyzed))
}

fn at(offset: Option<u32>) -> String {
    match offset {
        // The offset of a call is that of its opening parenthesis; that of an operation is its
        // operator's.
        Some(offset) => format!("near character {}", u64::from(offset) + 1),
        None => "at an unknown position".into(),
    }
}

/// The parser's first error, on one line.
fn syntax_error(errors: &ParseErrors) -> ExpressionError {
    let Some(error) = errors.errors.first() else {
        return refused("is not valid CEL", "write an expression");
    };
    let message = error.msg.lines().next().unwrap_or_default();
    if message.contains("Recursion limit") {
        let problem = format!("is nested more than {MAX_PARSE_DEPTH} deep");
        return refused(problem, "split it into several rules");
    }
    let message = message.trim_start_matches("Syntax error: ");
    let message = message.split(" expecting {").next().unwrap_or_default();
    let message: String = message
        .chars()
        .filter(|c| !c.is_control())
        .take(100)
        .collect();
    let problem = format!(
        "is not valid CEL: near character {}: {message}",
        error.pos.1.max(1)
    );
    refused(problem, "write an expression like claims.sub == \"me\"")
}

fn refused(problem: impl Into<String>, remedy: impl Into<String>) -> ExpressionError {
    ExpressionError {
        problem: problem.into(),
        remedy: remedy.into(),
    }
}

fn compile_pattern(pattern: &str) -> Result<Regex, &'static str> {
    RegexBuilder::new(pattern)
        .size_limit(MAX_PATTERN_SIZE)
        .dfa_size_limit(MAX_PATTERN_SIZE)
        .build()
        .map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => "is too large",
            _ => "is not a regular expression",
        })
}

#[cfg(test)]
pub(super) mod tests;
