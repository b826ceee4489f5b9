//! APIs with fixed secrets (`static` sources), and routes that change paths, headers and hosts.

mod rewriting;
mod secrets;

use hawkgate::clock::SystemClock;

use crate::support::client::{Request, Response};
use crate::support::gateway::{ConfigDir, SERVER_CONFIG, TestGateway};
use crate::support::wire::Fields;

/// An anonymous route `api` to `url` with these keys, after [`SERVER_CONFIG`], and further sections.
async fn gateway(files: ConfigDir, url: &str, keys: &str, sections: &str) -> TestGateway {
    let text = format!(
        r#"{SERVER_CONFIG}
[[route]]
name = "api"
upstream = "{url}"
anonymous = true
{keys}
{sections}
"#
    );
    TestGateway::start_with(&text, files, SystemClock::shared()).await
}

#[track_caller]
fn assert_ok(response: &Response) {
    assert_eq!(
        response.status_and_reason(),
        (200, None),
        "{}",
        response.text()
    );
}

/// Every value of a field.
fn values<'f>(fields: &'f Fields, name: &str) -> Vec<&'f str> {
    fields.all(name).collect()
}

fn at(host: &str, target: &str) -> Request {
    let mut request = Request::get(target);
    request.authority = host.into();
    request
}
