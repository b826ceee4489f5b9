//! Web applications whose users sign in at hawkgate, attacked with raw requests. `browser.rs` shows
//! the same with a real browser.

mod callbacks;
mod cookies;
mod cross_site;
mod endpoints;
mod fleet;
mod logout;
mod origins;
mod records;
mod renewal;
mod taskcluster;

use crate::support::client::Response;

/// Asserts that nobody was signed in: a page of hawkgate's own, with an error status, a request id
/// and no session cookie.
#[track_caller]
fn assert_sign_in_refused(response: &Response, case: &str) {
    assert!(
        (400..600).contains(&response.status),
        "{case}: {response:?}"
    );
    let kind = response.header("content-type").unwrap_or_default();
    assert!(kind.starts_with("text/html"), "{case}: {response:?}");
    for field in response.fields.all("set-cookie") {
        let session = field.starts_with("__Host-hawkgate-web=");
        assert!(!session || field.contains("Max-Age=0"), "{case}: {field}");
    }
    let page = response.text();
    let id = response.header("x-request-id").unwrap_or_default();
    assert!(!id.is_empty() && page.contains(id), "{case}: {page}");
}

/// Asserts that the session has ended, and that the browser is told to forget its cookie.
#[track_caller]
fn assert_signed_out(response: &Response) {
    assert_eq!(
        response.status_and_reason(),
        (401, Some("sign_in_required")),
        "{response:?}"
    );
    let mut fields = response.fields.all("set-cookie");
    assert!(
        fields.any(|field| field.contains("Max-Age=0")),
        "{response:?}"
    );
}
