//! PEM files (RFC 7468) with certificates and private keys. Text between the blocks is ignored, as
//! the RFC says, but no block is: a file with one unusable certificate is unusable.

use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use crate::bounded_file::{self, FileError};

/// The largest PEM file that is read, in bytes; a platform's bundle of CAs has about 250 KB.
pub const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// Why a PEM file cannot be used. Never quotes its content.
#[derive(Debug, thiserror::Error)]
#[error("{} {problem}", path.display())]
pub struct PemError {
    /// The file as configured.
    pub path: PathBuf,
    /// What is wrong with it, after its name.
    pub problem: String,
}

/// The content of a PEM file, and the certificates in it.
#[derive(Debug)]
pub struct Certificates {
    /// The file, byte for byte.
    pub pem: Zeroizing<Vec<u8>>,
    /// At least one, in the order of the file.
    pub certificates: Vec<CertificateDer<'static>>,
}

/// Reads a file of CA certificates.
///
/// # Errors
/// If the file cannot be read, or holds no certificate or one that cannot be a CA's.
pub fn read_cas(path: &Path) -> Result<Certificates, PemError> {
    let found = read_certificates(path)?;
    for (index, certificate) in found.certificates.iter().enumerate() {
        RootCertStore::empty()
            .add(certificate.clone())
            .map_err(|_| unusable(path, malformed(index)))?;
    }
    Ok(found)
}

/// Reads a file of certificates.
///
/// # Errors
/// If the file cannot be read, or holds no certificate or a malformed one.
pub fn read_certificates(path: &Path) -> Result<Certificates, PemError> {
    let pem = read(path)?;
    let certificates = parse_certificates(&pem).map_err(|problem| unusable(path, problem))?;
    Ok(Certificates { pem, certificates })
}

/// Reads the first private key in a file: PKCS#8, PKCS#1 or SEC 1.
///
/// # Errors
/// If the file cannot be read or holds no private key.
pub fn read_private_key(path: &Path) -> Result<PrivateKeyDer<'static>, PemError> {
    let pem = read(path)?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|_| {
        let problem = if contains(&pem, b"ENCRYPTED") {
            "holds an encrypted private key, which is not supported"
        } else if is_der(&pem) {
            "is not PEM but DER: convert it with openssl pkey -inform DER"
        } else {
            "holds no PEM private key"
        };
        unusable(path, problem.into())
    })
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, PemError> {
    bounded_file::read(path, MAX_BYTES)
        .map_err(|error: FileError| unusable(path, error.to_string()))
}

fn unusable(path: &Path, problem: String) -> PemError {
    PemError {
        path: path.to_owned(),
        problem,
    }
}

fn malformed(index: usize) -> String {
    format!(
        "is unusable: its certificate number {} is malformed",
        index + 1
    )
}

/// The platform's CA certificates: those in `SSL_CERT_FILE` and `SSL_CERT_DIR`, if one is set. Those that
/// cannot be used are left out.
pub fn platform_cas() -> Vec<CertificateDer<'static>> {
    let mut found = rustls_native_certs::load_native_certs().certs;
    found.retain(|certificate| {
        let parsed = x509_parser::parse_x509_certificate(certificate);
        parsed.is_ok_and(|(rest, _)| rest.is_empty())
            && RootCertStore::empty().add(certificate.clone()).is_ok()
    });
    found
}

/// Parses every certificate in `pem`. The error says what is wrong with the file.
///
/// # Errors
/// If there is none, or one is malformed.
pub fn parse_certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let mut found = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|_| malformed(found.len()))?;
        let parsed = x509_parser::parse_x509_certificate(&certificate);
        if !parsed.is_ok_and(|(rest, _)| rest.is_empty()) {
            return Err(malformed(found.len()));
        }
        found.push(certificate);
    }
    // The parser skips what is not exactly the beginning of a block, such as an indented one.
    let written = memchr::memmem::find_iter(pem, b"BEGIN CERTIFICATE-").count();
    if written > found.len() {
        return Err(format!(
            "is unusable: it has {written} certificates, of which {} can be read",
            found.len()
        ));
    }
    if found.is_empty() {
        return Err(if is_der(pem) {
            "is not PEM but DER: convert it with openssl x509 -inform DER".into()
        } else {
            "holds no PEM certificate".into()
        });
    }
    Ok(found)
}

/// Whether this is a DER SEQUENCE with a length of two bytes, as certificates and keys are.
fn is_der(content: &[u8]) -> bool {
    content.starts_with(&[0x30, 0x82])
}

fn contains(content: &[u8], part: &[u8]) -> bool {
    memchr::memmem::find(content, part).is_some()
}

#[cfg(test)]
mod tests;
