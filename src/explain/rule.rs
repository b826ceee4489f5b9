//! Explains the result of each rule.

use super::report::{Report, Stage, Status};
use crate::gateway::rule::{Effect, RequestAttributes, Rule, Rules, Verdict};
use crate::token::Caller;

/// Reports what each rule decides about this caller's request.
pub(super) fn explain(
    report: &mut Report,
    rules: Option<&Rules>,
    caller: &Caller,
    request: RequestAttributes<'_>,
) {
    let Some(rules) = rules else {
        report.note(Stage::Rules, "none", "no rule applies here");
        return;
    };
    let mut evaluated = Vec::new();
    let ruling = rules.evaluate(caller, request, |rule, result| {
        evaluated.push((rule.name.clone(), result.clone()));
    });
    for rule in rules.iter() {
        let result = evaluated.iter().find(|(name, _)| *name == rule.name);
        let (status, detail) = match (result.map(|(_, result)| result), rule.effect) {
            (None, _) => (Status::Skipped, "not reached".to_owned()),
            (Some(Ok(false)), _) => (Status::Skipped, "does not match".to_owned()),
            (Some(Ok(true)), Effect::Allow) => (Status::Ok, allows(rule)),
            (Some(Ok(true)), Effect::Deny) => (Status::Failed, "matches: denied".to_owned()),
            (Some(Err(error)), Effect::Allow) => (
                Status::Skipped,
                format!("fails, so it does not match: {error}"),
            ),
            (Some(Err(error)), Effect::Deny) => (
                Status::Failed,
                format!("fails, and a deny rule that fails denies: {error}"),
            ),
        };
        report.step(Stage::Rules, &*rule.name, status, Some(detail));
    }
    match &ruling.verdict {
        Verdict::Deny { cause, .. } => report.failed(Stage::Rules, "decision", cause),
        Verdict::Allow { scopes, .. } => {
            let granted = match scopes {
                Some(scopes) => format!("at most {scopes:?}"),
                None => "everything that the source grants".to_owned(),
            };
            report.note(Stage::Rules, "scopes", granted);
        }
    }
}

fn allows(rule: &Rule) -> String {
    let headers: Vec<_> = rule.headers.iter().map(|(name, _)| name.as_str()).collect();
    match headers.as_slice() {
        [] => "matches: allowed".to_owned(),
        names => format!("matches: allowed, with {}", names.join(", ")),
    }
}
