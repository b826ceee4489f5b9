//! A certificate authority for tests.

use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tempfile::TempDir;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::wire::Stream;

/// A CA whose certificates are also files, for configurations.
pub(crate) struct TestCa {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
    directory: TempDir,
}

/// A certificate and its key, as PEM and as files.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) cert_pem: String,
    pub(crate) key_pem: String,
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

impl TestCa {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, "hawkgate test CA");
        let certificate = params.self_signed(&key).unwrap().pem();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("ca.pem"), &certificate).unwrap();
        Self {
            issuer: Issuer::new(params, key),
            certificate,
            directory,
        }
    }

    /// The CA's certificate as a file.
    pub(crate) fn file(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// A certificate for `names` (DNS names or addresses), for servers and clients.
    pub(crate) fn issue(&self, names: &[&str]) -> Identity {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|&n| n.to_owned()).collect();
        let stem = names.first().map_or("client", String::as_str).to_owned();
        let params = CertificateParams::new(names).unwrap();
        let cert_pem = params.signed_by(&key, &self.issuer).unwrap().pem();
        let key_pem = key.serialize_pem();
        let cert = self.directory.path().join(format!("{stem}.pem"));
        let key = self.directory.path().join(format!("{stem}.key"));
        std::fs::write(&cert, &cert_pem).unwrap();
        std::fs::write(&key, &key_pem).unwrap();
        Identity {
            cert_pem,
            key_pem,
            cert,
            key,
        }
    }

    /// A TLS server as `identity`, offering `alpn`.
    pub(crate) fn acceptor(identity: &Identity, alpn: &[&str]) -> TlsAcceptor {
        let chain = certificates(&identity.cert_pem);
        let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).unwrap();
        let mut config = rustls::ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        config.alpn_protocols = protocols(alpn);
        TlsAcceptor::from(Arc::new(config))
    }

    /// Connects with TLS, trusting only this CA; returns the protocol that ALPN negotiated.
    pub(crate) async fn connect(
        &self,
        stream: Stream,
        name: &str,
        alpn: &[&str],
        client: Option<&Identity>,
    ) -> std::io::Result<(Stream, Option<String>)> {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in certificates(&self.certificate) {
            roots.add(certificate).unwrap();
        }
        let config = rustls::ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match client {
            None => config.with_no_client_auth(),
            Some(identity) => {
                let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).unwrap();
                config
                    .with_client_auth_cert(certificates(&identity.cert_pem), key)
                    .unwrap()
            }
        };
        config.alpn_protocols = protocols(alpn);
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let stream = TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await?;
        let agreed = stream.get_ref().1.alpn_protocol();
        let agreed = agreed.map(|p| String::from_utf8_lossy(p).into_owned());
        Ok((Box::new(stream), agreed))
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn protocols(alpn: &[&str]) -> Vec<Vec<u8>> {
    alpn.iter().map(|p| p.as_bytes().to_vec()).collect()
}

fn certificates(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .map(Result::unwrap)
        .collect()
}
