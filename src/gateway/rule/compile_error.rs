//! What is matched against an expression.

/// A construct that is not allowed, and the node it is at.
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
