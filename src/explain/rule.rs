//! Explains each rule.

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
    let mut asked = Vec::new();
    let ruling = rules.evaluate(caller, request, |rule, held| {
        asked.push((rule.name.clone(), held.clone()));
    });
    for rule in rules.iter() {
        let held = asked.iter().find(|(name, _)| *name == rule.name);
        let (status, said) = match (held.map(|(_, held)| held), rule.effect) {
            (None, _) => (Status::Skipped, "not reached".to_owned()),
            (Some(Ok(false)), _) => (Status::Skipped, "does not match".to_owned()),
            (Some(Ok(true)), Effect::Allow) => (Status::Ok, allows(rule)),
            (Some(Ok(true)), Effect::Deny) => (Status::Failed, "matches: denied".to_owned()),
            (Some(Err(fault)), Effect::Allow) => (
                Status::Skipped,
                format!("fails, so it does not match: {fault}"),
            ),
            (Some(Err(fault)), Effect::Deny) => (
                Status::Failed,
                format!("fails, and a deny rule that fails denies: {fault}"),
            ),
        };
        report.step(Stage::Rules, &*rule.name, status, Some(said));
    }
    match &ruling.verdict {
        Verdict::Deny { cause, .. } => report.failed(Stage::Rules, "decision", cause),
        Verdict::Allow { scopes, .. } => {
            let kept = match scopes {
                Some(scopes) => format!("at most {scopes:?}"),
                None => "everything that the source grants".to_owned(),
            };
            report.note(Stage::Rules, "scopes", kept);
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
