//! Which headers of callers a route forwards.

use toml::de::DeValue;

use super::Route;
use crate::config::diagnostic::{Location, quoted};
use crate::config::reader::{Reader, Shape, Value};
use crate::config::value::text;
use crate::gateway::request_headers::HeaderPattern;

/// Headers that a request cannot do without.
const REQUIRED: [&str; 5] = [
    "connection",
    "content-length",
    "host",
    "transfer-encoding",
    "upgrade",
];

impl Value for HeaderPattern {
    const SHAPE: Shape = Shape::Text;

    fn read(reader: &mut Reader<'_>, at: &Location, value: &DeValue<'_>) -> Option<Self> {
        let text = text(reader, at, value, "a header name like \"x-corp-user\"")?;
        match Self::parse(text) {
            Ok(pattern) => Some(pattern),
            Err(error) => {
                let problem = format!("{} {error}", quoted(text));
                reader.error(at, problem, "write it like \"x-corp-user\" or \"x-corp-*\"");
                None
            }
        }
    }
}

impl Route {
    pub(super) fn check_headers(&self, reader: &mut Reader<'_>) {
        for item in self.strip_headers.value.iter().flat_map(|list| &list.items) {
            if let Some(name) = REQUIRED.iter().find(|name| item.value.covers(name)) {
                let problem = format!("{} covers {name}", quoted(&item.value.to_string()));
                let remedy = "requests cannot do without that header; write a longer name";
                reader.error(&item.at, problem, remedy);
            }
        }
        for item in self.keep_headers.value.iter().flat_map(|list| &list.items) {
            if !item.value.overlaps_identity() {
                let problem = format!(
                    "{} is not in the list of identity headers",
                    quoted(&item.value.to_string())
                );
                let remedy = "remove it: other headers are forwarded, or always replaced";
                reader.error(&item.at, problem, remedy);
            }
        }
    }
}
