//! Explains what a page of another origin may do.

use super::Question;
use super::report::{Report, Stage, Status};
use crate::gateway::cors::{Cors, CorsGrant};

const WHAT: &str = "cors";

/// Reports what `cors` of the route says about the page that sends the request, if one does.
pub(super) fn explain(report: &mut Report, cors: Option<&Cors>, question: &Question) {
    let Some(origin) = &question.origin else {
        return;
    };
    let headers = question.headers(None);
    match cors {
        None => {
            let why = format!(
                "the route has none, so pages of {origin} cannot send a token, nor read the answer"
            );
            report.step(Stage::Route, WHAT, Status::Failed, Some(why));
        }
        Some(Cors::Upstream) => {
            let why = "the upstream answers preflights; pages cannot read what hawkgate refuses";
            report.note(Stage::Route, WHAT, why);
        }
        Some(Cors::Policy(policy)) => explain_grant(report, &policy.grant(&headers), origin),
    }
}

/// Reports what `grant` lets pages of `origin` do.
pub(super) fn explain_grant(report: &mut Report, grant: &CorsGrant, origin: &str) {
    if !grant.is_allowed() {
        let why = format!(
            "allowed_origins has no {origin}: browsers keep the answer from its pages, and send nothing that needs a preflight"
        );
        report.step(Stage::Route, WHAT, Status::Failed, Some(why));
        return;
    }
    let fields = grant.preflight_fields().chain(grant.exposed_field());
    let fields: Vec<_> = fields
        .map(|(name, value)| format!("\n            {name}: {value}"))
        .collect();
    let why = format!("pages of {origin} may use the route:{}", fields.concat());
    report.step(Stage::Route, WHAT, Status::Ok, Some(why));
}
