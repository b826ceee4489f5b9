//! The provider's pages: HTML without scripts, under a strict content security policy.

use std::fmt::Write;

use http::StatusCode;
use url::Url;

use super::grants::{AuthorizationRequest, SCOPES};
use super::users::USERS;
use crate::demo::server::{self, Response};
use crate::html::escape;

/// Where the sign-in form is sent.
pub(super) const SIGN_IN: &str = "/sign-in";
const LAYOUT: &str = include_str!("../web/provider.html");
const FORM: &str = include_str!("../web/sign_in.html");

/// Returns the sign-in form for a request. `attempt` is the secret of the sign-in.
pub(super) fn sign_in(
    request: &AuthorizationRequest,
    attempt: &str,
    username: &str,
    problem: Option<&str>,
) -> Response {
    let client = origin_of(&request.redirect_uri);
    let problem_html = problem.map_or(String::new(), |problem| {
        format!(
            r#"<p class="problem" id="problem" role="alert">{}</p>"#,
            escape(problem)
        )
    });
    let form = fill(
        FORM,
        &[
            ("problem", &problem_html),
            (
                "invalid",
                if problem.is_some() { FIELD_INVALID } else { "" },
            ),
            ("action", SIGN_IN),
            ("attempt", &escape(attempt)),
            ("username", &escape(username)),
            ("client", &escape(&client)),
            ("users", &users()),
            ("scopes", &scopes(&request.scopes)),
        ],
    );
    let status = match problem {
        Some(_) => StatusCode::FORBIDDEN,
        None => StatusCode::OK,
    };
    // Browsers apply `form-action` to the redirect that answers the form as well.
    page(status, "Sign in", &form, &client)
}

/// The fields of a refused form.
const FIELD_INVALID: &str = r#" aria-invalid="true" aria-describedby="problem""#;

fn users() -> String {
    USERS.iter().fold(String::new(), |mut rows, user| {
        let (name, sub, password) = (user.name, user.sub, user.password);
        let _ = write!(
            rows,
            r#"<tr><th scope="row">{name}</th><td><code>{sub}</code></td><td><code>{password}</code></td></tr>"#
        );
        rows
    })
}

fn scopes(granted: &[&str]) -> String {
    let granted = SCOPES.iter().filter(|(scope, _)| granted.contains(scope));
    granted.fold(String::new(), |mut items, (scope, meaning)| {
        let _ = write!(items, "<li>{meaning} <code>{scope}</code></li>");
        items
    })
}

/// Returns an error page, for a request that cannot be answered to its client.
pub(super) fn error(status: StatusCode, text: &str) -> Response {
    let body = format!(
        "<h1>This did not work</h1><p>The identity provider refuses the request: {}.</p>\
         <p>Go back to the application, and start again there.</p>",
        escape(text)
    );
    page(status, "Error", &body, "")
}

/// Returns the page at the end of a session whose client wants nobody back.
pub(super) fn signed_out() -> Response {
    let body = "<h1>Signed out</h1><p>Your session at the identity provider has ended.</p>";
    page(StatusCode::OK, "Signed out", body, "")
}

fn page(status: StatusCode, title: &str, body: &str, form_target: &str) -> Response {
    let policy = format!(
        "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self' {form_target}; base-uri 'none'; \
         frame-ancestors 'none'"
    );
    let html = fill(LAYOUT, &[("title", title), ("body", body)]);
    server::html(status, html, &policy)
}

/// Replaces each `{{name}}` by its value, once: values are not searched for names.
fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut parts = template.split("{{");
    let mut filled = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (name, rest) = part.split_once("}}").unwrap_or((part, ""));
        let value = values.iter().find(|(known, _)| *known == name);
        filled.push_str(value.map_or("", |(_, value)| value));
        filled.push_str(rest);
    }
    filled
}

fn origin_of(url: &str) -> String {
    Url::parse(url).map_or(String::new(), |url| url.origin().ascii_serialization())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_not_searched_for_names() {
        let filled = fill("<{{a}}>{{b}}{{c}}", &[("a", "{{b}}"), ("b", "x")]);
        assert_eq!(filled, "<{{b}}>x");
    }
}
