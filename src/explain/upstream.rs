//! Explains what happens after the decision: the credential and the forwarded request.

use http::header::AUTHORIZATION;

use super::Question;
use super::report::{Report, Stage};
use crate::config::{Config, TABLES};
use crate::credential::Credential;
use crate::gateway::{Admission, Gateway};
use crate::hawk::bewit::has_bewit;
use crate::hawk::{Grant, scope};
use crate::proxy::preview;
use crate::token::Caller;

/// Reports the source and, if one was obtained, its credential.
pub(super) fn explain_source(
    report: &mut Report,
    config: &Config,
    question: &Question,
    admission: &Admission,
) {
    let Some(source) = &admission.route.source else {
        explain_own(report, &admission.caller);
        return;
    };
    let written = config.sources.iter().find(|s| s.name == *source.name());
    let kind = written.map_or("", |source| source.kind_name);
    let listed = TABLES
        .iter()
        .find(|t| t.name == "source" && t.kind == Some(kind));
    let about = listed.map_or("", |table| table.about.trim());
    report.note(Stage::Source, &**source.name(), about.replace('\n', ""));
    if has_bewit(&question.target) {
        let why = "the URL has a bewit, so the request is forwarded without a signature";
        report.note(Stage::Source, "credential", why);
        return;
    }
    let Some(lease) = admission.credential() else {
        let why = if source.is_local() {
            "would be minted locally (--exchange mints one)"
        } else {
            "not requested (--exchange requests it)"
        };
        report.note(Stage::Source, "credential", why);
        return;
    };
    match lease.credential() {
        Credential::Taskcluster { client_id, signer } => {
            report.note(Stage::Source, "clientId", client_id);
            let scopes = match signer.grant().into_scopes() {
                Some(scopes) => format!("{scopes:?}"),
                None => "all scopes of the client".to_owned(),
            };
            report.note(Stage::Source, "scopes", scopes);
            let unheld = unheld(signer.grant());
            if !unheld.is_empty() {
                let why = format!(
                    "{unheld:?}: unless a role grants them, the upstream answers 401; narrow the \
                     rule's scopes or the source's authorized_scopes"
                );
                report.failed(Stage::Source, "scopes that the certificate lacks", why);
            }
        }
        Credential::Bearer(_) => report.note(Stage::Source, "credential", "a bearer token"),
        Credential::Basic { .. } => {
            report.note(
                Stage::Source,
                "credential",
                "a username and password (Basic)",
            );
        }
    }
    let until = lease.usable_until().to_rfc3339();
    report.note(Stage::Source, "used until", until);
}

/// Reports the credential of a route without a source.
fn explain_own(report: &mut Report, caller: &Caller) {
    let Caller::Client(client) = caller else {
        let why = "requests are forwarded without credentials";
        report.note(Stage::Source, "none", why);
        return;
    };
    let why = "the session's own credentials sign the request";
    report.note(Stage::Source, "none", why);
    report.note(Stage::Source, "clientId", client.client_id());
    let until = client.accepted_until().to_rfc3339();
    report.note(Stage::Source, "used until", until);
}

/// The header that carries the credential, without it.
fn credential_header(admission: &Admission) -> String {
    let source = admission.route.source.as_ref();
    match source.map(|source| source.inject().header()) {
        Some(header) if *header != AUTHORIZATION => format!("{header}: [redacted]"),
        _ => "[redacted]".to_owned(),
    }
}

/// The scopes that a request is narrowed to although its certificate does not contain them.
fn unheld(grant: Grant) -> Vec<String> {
    let Some(certificate) = grant.certificate else {
        return Vec::new();
    };
    let wanted = grant.authorized_scopes.unwrap_or_default().into_iter();
    wanted
        .filter(|scope| !scope::any_satisfies(&certificate.scopes, scope))
        .collect()
}

/// Reports where the request would be sent, and which headers hawkgate would set.
pub(super) fn explain(
    report: &mut Report,
    gateway: &Gateway,
    question: &Question,
    admission: &Admission,
) {
    let upstream = &admission.route.upstream;
    let scheme = if upstream.tls { "https" } else { "http" };
    let authority = String::from_utf8_lossy(upstream.authority.as_bytes());
    report.note(
        Stage::Upstream,
        "address",
        format!("{scheme}://{authority}"),
    );
    if let Some(proxy) = &upstream.proxy {
        report.note(Stage::Upstream, "outgoing proxy", proxy.name.as_str());
    }
    let target = admission.target().unwrap_or(&question.target);
    if admission.target().is_some() {
        let path = target.split('?').next().unwrap_or_default();
        report.note(Stage::Upstream, "path", path);
    }
    if admission.route.passes_401(target) {
        let what = "is the upstream's own (passes_401): passed on, without a replay";
        report.note(Stage::Upstream, "a 401 here", what);
    }
    let own = admission
        .decision()
        .map_or(&[][..], |ruling| ruling.headers());
    let edits = &admission.route.request_headers;
    match preview::headers(upstream, question.client, gateway, edits, own) {
        Ok(headers) => {
            for (name, value) in headers {
                report.note(Stage::Upstream, name, value);
            }
        }
        Err(refusal) => report.failed(Stage::Upstream, "headers", super::cause(&refusal)),
    }
    let own = matches!(admission.caller, Caller::Client(_));
    if (own || admission.route.source.is_some()) && !has_bewit(target) {
        let what = "the credential's own header";
        report.note(Stage::Upstream, what, credential_header(admission));
    }
}
