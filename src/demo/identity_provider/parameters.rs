//! The parameters of an OAuth 2.0 request, from a query or a form (RFC 6749 §3.1, appendix B).

use http::header;
use url::form_urlencoded;

use crate::demo::server::Request;

/// Maximum length of a value, in bytes.
const MAX_VALUE: usize = 4096;

/// Decoded parameters, each of them at most once.
#[derive(Debug, Default)]
pub(super) struct Parameters(Vec<(String, String)>);

/// Why parameters cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

impl Parameters {
    /// Parses the query of a request.
    pub(super) fn of_query(request: &Request) -> Result<Self, Malformed> {
        let query = request.target.split_once('?').map(|(_, query)| query);
        Self::parse(query.unwrap_or_default().as_bytes())
    }

    /// Parses the body of a request.
    pub(super) fn of_form(request: &Request) -> Result<Self, Malformed> {
        let media_type = request
            .header(header::CONTENT_TYPE.as_str())
            .split(';')
            .next();
        let media_type = media_type.unwrap_or_default().trim();
        if !media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            return Err(Malformed(
                "the body is not application/x-www-form-urlencoded",
            ));
        }
        Self::parse(&request.body)
    }

    fn parse(encoded: &[u8]) -> Result<Self, Malformed> {
        let mut found: Vec<(String, String)> = Vec::new();
        for (name, value) in form_urlencoded::parse(encoded) {
            if value.len() > MAX_VALUE {
                return Err(Malformed("a parameter is too long"));
            }
            // Only `resource` may be repeated (RFC 8707 §2), and this provider does not use it.
            if name != "resource" && found.iter().any(|(other, _)| *other == name) {
                return Err(Malformed("a parameter is repeated"));
            }
            found.push((name.into_owned(), value.into_owned()));
        }
        Ok(Self(found))
    }

    /// Returns a value. A parameter without one counts as missing (RFC 6749 §3.1) and is empty.
    pub(super) fn get(&self, name: &str) -> &str {
        let found = self.0.iter().find(|(other, _)| other == name);
        found.map_or("", |(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_and_may_not_be_repeated() {
        let parameters = Parameters::parse(b"a=1%202+3&b=&resource=x&resource=y").unwrap();
        assert_eq!(parameters.get("a"), "1 2 3");
        assert_eq!(parameters.get("b"), "");
        assert_eq!(parameters.get("c"), "");
        assert!(Parameters::parse(b"state=1&state=1").is_err());
        let long = format!("a={}", "x".repeat(MAX_VALUE + 1));
        assert!(Parameters::parse(long.as_bytes()).is_err());
    }
}
