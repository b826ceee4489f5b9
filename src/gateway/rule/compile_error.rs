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

/// The name that was probably meant: at most a third of its letters are wrong.
pub(super) fn nearest<'n>(name: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    names
        .map(|known| {
            (
                strsim::damerau_levenshtein(&name.to_lowercase(), &known.to_lowercase()),
                known,
            )
        })
        .filter(|(distance, known)| *distance <= name.len().max(known.len()) / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}
