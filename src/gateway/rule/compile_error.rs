//! Errors found by static analysis.

/// A construct that is not allowed, the id of its node, and how to fix it.
#[derive(Debug)]
pub(super) struct CompileError {
    pub(super) node: u64,
    pub(super) problem: String,
    pub(super) remedy: String,
}

/// Returns a [`CompileError`].
pub(super) fn error(
    node: u64,
    problem: impl Into<String>,
    remedy: impl Into<String>,
) -> Result<(), CompileError> {
    Err(CompileError {
        node,
        problem: problem.into(),
        remedy: remedy.into(),
    })
}
