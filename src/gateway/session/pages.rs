//! The pages that users see: small, accessible, without scripts and outside assets. What they say
//! comes from here, except for the request id and paths of this site, which are escaped.

use std::fmt::Write as _;
use std::sync::LazyLock;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use zeroize::Zeroizing;

use crate::gateway::local_response::LocalResponse;
use crate::html::escape;

/// Follows the browser's colour scheme; readable at any width.
const STYLE: &str = "\
:root{color-scheme:light dark}\
body{font:1.0625rem/1.6 system-ui,sans-serif;max-width:34rem;margin:0 auto;padding:12vh 1.5rem 2rem}\
h1{font-size:1.6rem;line-height:1.25;margin:0 0 1rem}\
a,button{font:inherit;display:inline-block;margin-top:.75rem;padding:.5rem 1.1rem;border:2px solid;\
border-radius:.5rem;background:none;color:inherit;text-decoration:none;cursor:pointer}\
a:focus-visible,button:focus-visible{outline:3px solid Highlight;outline-offset:2px}\
footer{margin-top:3rem;font-size:.875rem}\
code{font-family:ui-monospace,monospace;overflow-wrap:anywhere}";

/// The source expression of [`STYLE`] (Content Security Policy Level 3 §2.3.1).
static STYLE_SOURCE: LazyLock<String> = LazyLock::new(|| {
    let hash = STANDARD.encode(digest(&SHA256, STYLE.as_bytes()));
    format!("'sha256-{hash}'")
});

/// A page.
pub(super) struct Page<'a> {
    pub(super) status: StatusCode,
    /// Its title and heading.
    pub(super) title: &'a str,
    /// What to do.
    pub(super) text: &'a str,
    pub(super) action: Action<'a>,
    pub(super) request_id: &'a str,
}

/// What the page offers.
pub(super) enum Action<'a> {
    /// Nothing.
    None,
    /// A link to a path of this site.
    Link { path: &'a str, text: &'a str },
    /// A button that sends an empty form to a path of this site, which may redirect to the provider.
    Button { path: &'a str, text: &'a str },
}

impl Page<'_> {
    pub(super) fn respond(&self) -> LocalResponse {
        let form = matches!(self.action, Action::Button { .. });
        // Browsers apply `form-action` to redirects too, and the provider's logout may lead through
        // any of its origins. Nothing in the page comes from the request, so nobody can add a form.
        let form_action = if form {
            "'self' https: http:"
        } else {
            "'none'"
        };
        let policy = format!(
            "default-src 'none'; style-src {}; form-action {form_action}; frame-ancestors 'none'; \
             base-uri 'none'",
            *STYLE_SOURCE
        );
        // With `no-referrer`, the form's request would have `Origin: null`.
        let referrer = if form { "same-origin" } else { "no-referrer" };
        let mut response = LocalResponse::new(self.status)
            .header("content-type", "text/html; charset=utf-8")
            .header("content-security-policy", policy)
            .header("referrer-policy", referrer)
            .header("x-content-type-options", "nosniff")
            .header("x-frame-options", "DENY")
            .header("cross-origin-resource-policy", "same-origin");
        response.body = Zeroizing::new(self.html().into_bytes());
        response
    }

    fn html(&self) -> String {
        let (title, text) = (escape(self.title), escape(self.text));
        let mut html = format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"robots\" content=\"noindex\">\n\
             <title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n\
             <h1>{title}</h1>\n<p>{text}</p>\n"
        );
        // Writing to a String cannot fail.
        let _ = match &self.action {
            Action::None => Ok(()),
            Action::Link { path, text } => writeln!(
                html,
                "<p><a href=\"{}\">{}</a></p>",
                escape(path),
                escape(text)
            ),
            Action::Button { path, text } => writeln!(
                html,
                "<form method=\"post\" action=\"{}\"><button>{}</button></form>",
                escape(path),
                escape(text)
            ),
        };
        let _ = write!(
            html,
            "</main>\n<footer>\n<p>Request <code>{}</code></p>\n</footer>\n</body>\n</html>\n",
            escape(self.request_id)
        );
        html
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(action: Action<'_>) -> LocalResponse {
        Page {
            status: StatusCode::BAD_REQUEST,
            title: "Signing in failed",
            text: "Try <again> & again.",
            action,
            request_id: "\"><script>alert(1)</script>",
        }
        .respond()
    }

    fn value<'r>(response: &'r LocalResponse, name: &str) -> &'r str {
        let found = response.headers.iter().find(|(own, _)| *own == name);
        &found.unwrap().1
    }

    #[test]
    fn a_page_escapes_what_it_quotes_and_allows_nothing_but_its_style() {
        let link = Action::Link {
            path: "/oauth2/login?return_to=%2F&x='y'",
            text: "Try again",
        };
        let response = page(link);
        let html = String::from_utf8(response.body.to_vec()).unwrap();
        assert!(
            !html.contains("<script") && html.contains("&lt;script&gt;"),
            "{html}"
        );
        assert!(html.contains("Try &lt;again&gt; &amp; again."));
        assert!(html.contains("href=\"/oauth2/login?return_to=%2F&amp;x=&#39;y&#39;\""));
        assert_eq!(html.matches("<h1>").count(), 1);
        let policy = value(&response, "content-security-policy");
        let hash = STANDARD.encode(digest(&SHA256, STYLE.as_bytes()));
        assert_eq!(
            policy,
            format!(
                "default-src 'none'; style-src 'sha256-{hash}'; form-action 'none'; \
                 frame-ancestors 'none'; base-uri 'none'"
            )
        );
        assert_eq!(value(&response, "referrer-policy"), "no-referrer");
        assert_eq!(value(&response, "cache-control"), "no-store");
    }

    #[test]
    fn a_form_may_be_sent_to_this_site_and_on_to_the_provider() {
        let response = page(Action::Button {
            path: "/oauth2/logout",
            text: "Sign out",
        });
        let policy = value(&response, "content-security-policy");
        assert!(
            policy.contains("form-action 'self' https: http:;"),
            "{policy}"
        );
        assert_eq!(value(&response, "referrer-policy"), "same-origin");
    }
}
