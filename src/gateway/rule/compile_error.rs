//! What is held against an expression.

/// Something that an expression may not have, and which node has it.
#[derive(Debug)]
pub(super) struct CompileError {
    pub(super) node: u64,
    pub(super) problem: String,
    pub(super) remedy: String,
}

/// Says no.
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
