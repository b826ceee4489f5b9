//! Explains which route matches, and why the others do not.

use std::sync::Arc;

use super::Question;
use super::report::{Report, Stage, Status};
use crate::gateway::Gateway;
use crate::gateway::host::host_name;
use crate::gateway::route::{Mismatch, NoRoute, Route};

/// Reports on every route and returns the one that the gateway chooses.
pub(super) fn explain(
    report: &mut Report,
    gateway: &Gateway,
    question: &Question,
) -> Option<Arc<Route>> {
    let found = gateway.route(&question.host, &question.target, &question.method);
    let mut expanded = None;
    let (chosen, failure) = match found {
        Ok((route, long)) => {
            expanded = long;
            (Some(Arc::clone(route)), None)
        }
        Err(NoRoute::Unmatched) => {
            let failure = "none matches this host, path and method";
            (None, Some(failure.to_owned()))
        }
        Err(NoRoute::Reserved) => {
            let failure = "the path begins with /credentials or /bewit, and no route's path does";
            (None, Some(failure.to_owned()))
        }
        Err(NoRoute::Ambiguous(ambiguity)) => (None, Some(ambiguity.to_string())),
    };
    if let Some(route) = &chosen {
        report.step(
            Stage::Route,
            &*route.name,
            Status::Ok,
            Some(match &expanded {
                // A query may contain a bewit.
                Some(long) => {
                    let path = long.split('?').next().unwrap_or_default();
                    format!("{}, as {path}", describe(route))
                }
                None => describe(route),
            }),
        );
    }
    if let Some(failure) = failure {
        report.failed(Stage::Route, "a route", failure);
    }
    let host = host_name(&question.host);
    let path = question.target.split('?').next().unwrap_or_default();
    let mut others: Vec<_> = gateway
        .routes
        .iter()
        .filter(|route| !chosen.as_ref().is_some_and(|c| Arc::ptr_eq(c, route)))
        .collect();
    others.sort_by_key(|route| Arc::clone(&route.name));
    for route in others {
        let why = match route.mismatch(&host, path, &question.method) {
            Some(Mismatch::Host) => {
                format!("is for host {}", hosts(route))
            }
            Some(Mismatch::Path) => format!("is for paths below {:?}", route.path),
            Some(Mismatch::Method) => format!("is for {} only", methods(route)),
            None if chosen.is_none() => "matches the path as written".to_owned(),
            None => {
                "matches too, but a named host, a longer path and named methods take precedence"
                    .to_owned()
            }
        };
        report.step(Stage::Route, &*route.name, Status::Skipped, Some(why));
    }
    chosen
}

fn describe(route: &Route) -> String {
    let host = if route.hosts.is_empty() {
        "any host".to_owned()
    } else {
        format!("host {}", hosts(route))
    };
    let methods = match &route.methods {
        Some(_) => methods(route),
        None => "any method".to_owned(),
    };
    format!("matches {host}, paths below {:?}, {methods}", route.path)
}

fn hosts(route: &Route) -> String {
    let named = route.hosts.iter();
    let named = named.map(|host| format!("{:?}", host.as_str()));
    named.collect::<Vec<_>>().join(" or ")
}

fn methods(route: &Route) -> String {
    let named = route.methods.iter().flatten();
    named
        .map(http::Method::as_str)
        .collect::<Vec<_>>()
        .join(", ")
}
