//! Reads the identity in a client certificate. The TLS handshake has already verified the chain
//! and that the client holds the private key.

use aws_lc_rs::digest::{SHA256, digest};
use std::fmt::Write as _;

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

use crate::gateway::client_certificate::ClientCertificate;

/// Maximum number of names in a certificate, because rules iterate over all of them.
const MAX_NAMES: usize = 64;
/// Maximum length of a name, in bytes.
const MAX_NAME: usize = 1024;

/// The reason why a certificate is rejected. A rule that denies by name must not be bypassed by
/// a name that cannot be read, so such a connection is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::proxy) enum CertificateError {
    /// The certificate is not X.509, or has an extension that cannot be parsed.
    #[error("it cannot be read")]
    Unreadable,
    /// The certificate has more names than are examined.
    #[error("it has more than {MAX_NAMES} names")]
    TooManyNames,
    /// A name is empty, too long or not text.
    #[error("one of its names is empty, too long or not plain text")]
    BadName,
}

/// Reads the names of the leaf certificate.
///
/// # Errors
/// Returns an error if any of them cannot be read exactly.
pub(in crate::proxy) fn read(der: &[u8]) -> Result<ClientCertificate, CertificateError> {
    let (rest, parsed) =
        x509_parser::parse_x509_certificate(der).map_err(|_| CertificateError::Unreadable)?;
    if !rest.is_empty() {
        return Err(CertificateError::Unreadable);
    }
    let mut certificate = ClientCertificate {
        common_name: common_name(&parsed)?,
        dns_names: Vec::new(),
        uris: Vec::new(),
        emails: Vec::new(),
        fingerprint: fingerprint(der),
    };
    let alternative = parsed
        .subject_alternative_name()
        .map_err(|_| CertificateError::Unreadable)?;
    let names = alternative.map_or(&[][..], |names| &names.value.general_names);
    if names.len() > MAX_NAMES {
        return Err(CertificateError::TooManyNames);
    }
    for name in names {
        match name {
            GeneralName::DNSName(text) => certificate.dns_names.push(plain(text)?),
            GeneralName::URI(text) => certificate.uris.push(plain(text)?),
            GeneralName::RFC822Name(text) => certificate.emails.push(plain(text)?),
            // Rules do not use addresses, directory names and the other kinds.
            _ => {}
        }
    }
    Ok(certificate)
}

/// Returns the last common name, which is the most specific: in Active Directory names,
/// `CN=Users` comes before the common name of the user.
fn common_name(parsed: &X509Certificate<'_>) -> Result<String, CertificateError> {
    match parsed.subject().iter_common_name().last() {
        None => Ok(String::new()),
        Some(name) => plain(name.as_str().map_err(|_| CertificateError::BadName)?),
    }
}

fn plain(text: &str) -> Result<String, CertificateError> {
    let fits = !text.is_empty() && text.len() <= MAX_NAME && !text.chars().any(char::is_control);
    fits.then(|| text.to_owned())
        .ok_or(CertificateError::BadName)
}

fn fingerprint(der: &[u8]) -> String {
    let hash = digest(&SHA256, der);
    hash.as_ref().iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use rcgen::string::Ia5String;
    use rcgen::{CertificateParams, DnType, DnValue, KeyPair, SanType};

    use super::*;

    fn certificate_with(change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    fn ia5(text: &str) -> Ia5String {
        Ia5String::try_from(text).unwrap()
    }

    #[test]
    fn common_name_and_subject_alternative_names_are_read() {
        let der = certificate_with(|params| {
            params
                .distinguished_name
                .push(DnType::CommonName, "worker-1");
            params.subject_alt_names = vec![
                SanType::DnsName(ia5("worker.example.org")),
                SanType::URI(ia5("spiffe://example.org/worker")),
                SanType::Rfc822Name(ia5("worker@example.org")),
                SanType::IpAddress([192, 0, 2, 1].into()),
                SanType::DnsName(ia5("other.example.org")),
            ];
        });
        let read = read(&der).unwrap();
        assert_eq!(read.common_name, "worker-1");
        assert_eq!(read.dns_names, ["worker.example.org", "other.example.org"]);
        assert_eq!(read.uris, ["spiffe://example.org/worker"]);
        assert_eq!(read.emails, ["worker@example.org"]);
        assert_eq!(read.fingerprint.len(), 64);
        assert!(read.fingerprint.bytes().all(|b| b.is_ascii_hexdigit()));
        let other = certificate_with(|_| {});
        assert_ne!(super::read(&other).unwrap().fingerprint, read.fingerprint);
    }

    #[test]
    fn a_certificate_without_names_is_accepted() {
        let read = read(&certificate_with(|_| {})).unwrap();
        assert_eq!(read.common_name, "");
        assert!(read.dns_names.is_empty() && read.uris.is_empty() && read.emails.is_empty());
    }

    #[test]
    fn a_certificate_with_an_unreadable_name_is_rejected() {
        let named = |value: DnValue| {
            let der = certificate_with(|params| {
                params.distinguished_name.push(DnType::CommonName, value);
            });
            read(&der)
        };
        let text = |text: &str| named(DnValue::Utf8String(text.into()));
        assert_eq!(text("admin\0.evil"), Err(CertificateError::BadName));
        assert_eq!(text("a\nlevel=fatal"), Err(CertificateError::BadName));
        assert_eq!(text(&"x".repeat(1025)), Err(CertificateError::BadName));
        assert_eq!(text(""), Err(CertificateError::BadName));
        let bmp = rcgen::string::BmpString::try_from("worker").unwrap();
        assert_eq!(
            named(DnValue::BmpString(bmp)),
            Err(CertificateError::BadName)
        );
        assert_eq!(text("wörker").unwrap().common_name, "wörker");
        let der =
            certificate_with(|params| params.subject_alt_names = vec![SanType::URI(ia5("a\0b"))]);
        assert_eq!(read(&der), Err(CertificateError::BadName));
    }

    #[test]
    fn too_many_names_and_truncated_certificates_are_rejected() {
        let names = |count: usize| {
            let der = certificate_with(|params| {
                let name = |n| SanType::DnsName(ia5(&format!("n{n}.example.org")));
                params.subject_alt_names = (0..count).map(name).collect();
            });
            read(&der)
        };
        assert_eq!(names(MAX_NAMES).unwrap().dns_names.len(), MAX_NAMES);
        assert_eq!(names(MAX_NAMES + 1), Err(CertificateError::TooManyNames));
        let whole =
            certificate_with(|params| params.subject_alt_names = vec![SanType::DnsName(ia5("a"))]);
        for end in 0..whole.len() {
            assert!(read(&whole[..end]).is_err(), "{end}");
        }
        let longer = [&whole[..], b"x"].concat();
        assert_eq!(read(&longer), Err(CertificateError::Unreadable));
    }

    #[test]
    fn corrupted_certificates_never_panic() {
        let whole = certificate_with(|params| {
            params.subject_alt_names = vec![SanType::URI(ia5("spiffe://example.org/w"))];
        });
        for at in 0..whole.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut corrupted = whole.clone();
                corrupted[at] ^= flip;
                // Parsing must not panic, and a parsed name must not contain control characters.
                if let Ok(read) = read(&corrupted) {
                    assert!(
                        read.uris
                            .iter()
                            .all(|uri| !uri.chars().any(char::is_control))
                    );
                }
            }
        }
    }
}
