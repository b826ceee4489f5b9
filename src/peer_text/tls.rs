//! Why a connection failed. Errors of rustls quote the peer's certificate, and errors of HTTP
//! libraries quote what could not be parsed.

use std::error::Error;
use std::io;

use rustls::{CertificateError, Error as TlsError};

/// Describes a failed TLS handshake or connection.
pub fn tls_cause(error: &TlsError) -> &'static str {
    match error {
        TlsError::InvalidCertificate(error) => certificate_cause(error),
        TlsError::NoCertificatesPresented => "the peer presented no certificate",
        TlsError::AlertReceived(_) => "the peer ended the TLS handshake with an alert",
        TlsError::PeerIncompatible(_) => "no TLS version or cipher suite in common",
        TlsError::NoApplicationProtocol => "no application protocol (ALPN) in common",
        TlsError::InvalidMessage(_) | TlsError::InappropriateMessage { .. } => {
            "the peer does not speak TLS as expected"
        }
        _ => "the TLS handshake failed",
    }
}

fn certificate_cause(error: &CertificateError) -> &'static str {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the peer's certificate has expired"
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the peer's certificate is not valid yet"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "the peer's certificate is for another name"
        }
        CertificateError::UnknownIssuer => "the peer's certificate was not issued by a trusted CA",
        CertificateError::Revoked => "the peer's certificate is revoked",
        CertificateError::BadSignature => "the peer's certificate has a bad signature",
        _ => "the peer's certificate is not acceptable",
    }
}

/// Describes an error of a connection by the first of it and its causes that is an error of TLS or
/// of the operating system; `None` if none is.
pub fn connection_cause(error: &(dyn Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(tls) = error.downcast_ref::<TlsError>() {
            return Some(tls_cause(tls).to_owned());
        }
        let Some(io) = error.downcast_ref::<io::Error>() else {
            next = error.source();
            continue;
        };
        // Its `source` skips the error that it wraps.
        let wrapped = io.get_ref().map(|inner| inner as &(dyn Error + 'static));
        if io.kind() != io::ErrorKind::Other && !wrapped.is_some_and(is_specific) {
            return Some(io.kind().to_string());
        }
        next = wrapped;
    }
    None
}

/// Whether `error` may say more than the kind of the error that wraps it.
fn is_specific(error: &(dyn Error + 'static)) -> bool {
    error.is::<TlsError>() || error.is::<io::Error>()
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::ServerName;

    use super::*;

    #[test]
    fn a_certificates_names_are_not_quoted() {
        let error = TlsError::InvalidCertificate(CertificateError::NotValidForNameContext {
            expected: ServerName::try_from("idp.example").unwrap(),
            presented: vec!["the-peers-text.example".into()],
        });
        assert!(error.to_string().contains("the-peers-text"));
        let wrapped = io::Error::new(io::ErrorKind::InvalidData, error);
        let cause = connection_cause(&wrapped).unwrap();
        assert_eq!(cause, "the peer's certificate is for another name");
        // As hyper-rustls wraps it.
        let wrapped = io::Error::other(wrapped);
        let cause = connection_cause(&wrapped).unwrap();
        assert_eq!(cause, "the peer's certificate is for another name");
    }

    #[test]
    fn errors_of_the_system_are_named_by_their_kind() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        assert_eq!(connection_cause(&refused).unwrap(), "connection refused");
        assert_eq!(connection_cause(&io::Error::other("quoted")), None);
    }
}
