//! TLS client certificates.

use std::sync::Arc;

/// The verified certificate of a client that has proved possession of its key. Names are as in the
/// certificate: at most 64, each non-empty, at most 1 KiB long and free of control characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The subject's common name; the last if there are several, which is the most specific;
    /// empty if there is none.
    pub common_name: String,
    /// DNS names among the subject alternative names.
    pub dns_names: Vec<String>,
    /// URIs among the subject alternative names, such as a SPIFFE ID.
    pub uris: Vec<String>,
    /// E-mail addresses among the subject alternative names.
    pub emails: Vec<String>,
    /// SHA-256 of the certificate's DER, in lower-case hexadecimal.
    pub fingerprint: String,
}

impl ClientCertificate {
    /// The name used in logs: the first URI, else `CN=…`, else `DNS:…`, else `SHA256:…`. The
    /// prefixes ensure that one kind of name cannot be mistaken for another.
    pub fn label(&self) -> Arc<str> {
        let uri = self.uris.iter().find(|uri| has_scheme(uri));
        if let Some(uri) = uri {
            return uri.as_str().into();
        }
        if !self.common_name.is_empty() {
            return format!("CN={}", self.common_name).into();
        }
        match self.dns_names.first() {
            Some(name) => format!("DNS:{name}").into(),
            None => format!("SHA256:{}", self.fingerprint).into(),
        }
    }
}

/// Whether `uri` begins with `scheme://` (RFC 3986 §3.1), which distinguishes it from other names.
fn has_scheme(uri: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"+-.".contains(&b);
    uri.split_once("://")
        .is_some_and(|(scheme, _)| !scheme.is_empty() && scheme.bytes().all(fits))
}

#[cfg(test)]
impl ClientCertificate {
    /// A certificate for tests.
    pub(crate) fn for_test(common_name: &str, uris: &[&str]) -> Self {
        Self {
            common_name: common_name.into(),
            dns_names: Vec::new(),
            uris: uris.iter().map(|&uri| uri.to_owned()).collect(),
            emails: Vec::new(),
            fingerprint: "ab".repeat(32),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_label_shows_the_kind_of_name() {
        let spiffe = "spiffe://example.org/ns/build/sa/worker";
        let both = ClientCertificate::for_test("worker", &[spiffe]);
        assert_eq!(&*both.label(), spiffe);
        // A URI entry without a scheme cannot be mistaken for a common name.
        let odd = ClientCertificate::for_test("worker", &["CN=admin", "CN=x://admin"]);
        assert_eq!(&*odd.label(), "CN=worker");
        let mut nameless = ClientCertificate::for_test("", &[]);
        assert_eq!(*nameless.label(), *format!("SHA256:{}", "ab".repeat(32)));
        nameless.dns_names = vec!["worker.example.org".into()];
        assert_eq!(&*nameless.label(), "DNS:worker.example.org");
    }
}
