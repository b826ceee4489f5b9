//! TLS 1.2 and 1.3 for callers, with ALPN for HTTP/2 and, if configured, client certificates.

use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use pingora::listeners::tls::Acceptor;
use pingora::protocols::Ssl;
use pingora::protocols::l4::stream::Stream as L4Stream;
use pingora::protocols::tls::TlsStream;
use pingora::{Error, ErrorType};
use rustls::crypto::aws_lc_rs;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};

use super::BindError;
use crate::gateway::client_certificate::ClientCertificate;
use crate::pem::{self, PemError};
use crate::proxy::client::read_certificate;
use crate::proxy::settings::{ClientAuth, ListenerTls};

/// The TLS configuration of a listener, which can be reloaded.
pub struct Tls {
    files: ListenerTls,
    loaded: ArcSwap<Loaded>,
}

/// What was made of the files.
struct Loaded {
    acceptor: Acceptor,
    validity: Option<Validity>,
}

/// The validity of a certificate (RFC 5280 §4.1.2.5), in seconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first second in which it is valid.
    pub not_before: i64,
    /// The last second in which it is valid.
    pub not_after: i64,
}

/// A listener's reloaded and validated files, for [`Tls::commit_reload`].
pub struct PreparedTls(Arc<Loaded>);

impl std::fmt::Debug for PreparedTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PreparedTls(..)")
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// Returns an error for the first file that cannot be used.
    pub fn load(files: ListenerTls) -> Result<Self, BindError> {
        let loaded = load(&files)?;
        Ok(Self {
            loaded: ArcSwap::from_pointee(loaded),
            files,
        })
    }

    /// Reloads the files and uses them for new connections. TLS sessions established before are
    /// not resumed.
    ///
    /// # Errors
    /// The same as for [`Tls::load`]; the old certificate then stays in use.
    pub fn reload(&self) -> Result<(), BindError> {
        self.prepare_reload()
            .map(|prepared| self.commit_reload(prepared))
    }

    /// Reloads the files, for [`Tls::commit_reload`].
    ///
    /// # Errors
    /// The same as for [`Tls::load`].
    pub fn prepare_reload(&self) -> Result<PreparedTls, BindError> {
        load(&self.files).map(|loaded| PreparedTls(Arc::new(loaded)))
    }

    /// Uses `prepared` for new connections. TLS sessions established before are not resumed.
    pub fn commit_reload(&self, prepared: PreparedTls) {
        self.loaded.store(prepared.0);
    }

    /// The validity of the listener's own certificate, the first in its file. `None` if it cannot be
    /// read.
    pub fn validity(&self) -> Option<Validity> {
        self.loaded.load().validity
    }

    /// Performs the server side of a handshake. Also returns the identity in the client's
    /// certificate, if the client presented one. The caller has to enforce a deadline.
    ///
    /// # Errors
    /// Returns an error if the handshake fails, or a name in the client's certificate cannot be read
    /// unambiguously.
    pub(in crate::proxy) async fn handshake(
        &self,
        stream: L4Stream,
    ) -> pingora::Result<(TlsStream<L4Stream>, Option<ClientCertificate>)> {
        let loaded = self.loaded.load_full();
        let stream = loaded.acceptor.tls_handshake(stream).await?;
        let leaf = stream.get_ssl().and_then(|tls| tls.peer_certificate_der());
        let certificate = leaf.map(read_certificate).transpose().map_err(|error| {
            let cause = format!("client certificate rejected: {error}");
            Error::explain(ErrorType::TLSHandshakeFailure, cause)
        })?;
        Ok((stream, certificate))
    }
}

fn load(files: &ListenerTls) -> Result<Loaded, BindError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|e| unusable("certificate", &files.cert, e))?;
    let builder = match &files.client_ca {
        Some(file) => {
            builder.with_client_cert_verifier(client_verifier(file, files.client_auth, provider)?)
        }
        None => builder.with_no_client_auth(),
    };
    let chain = pem::read_certificates(&files.cert).map_err(|e| of_file("certificate", e))?;
    let validity = chain.certificates.first().and_then(|leaf| validity(leaf));
    let key = pem::read_private_key(&files.key).map_err(|e| of_file("key", e))?;
    let mut config = builder
        .with_single_cert(chain.certificates, key)
        .map_err(|e| {
            unusable(
                "key",
                &files.key,
                format!("does not match the certificate: {e}"),
            )
        })?;
    if files.client_ca.is_some() {
        // A resumed session would accept the certificate with which it was established, although
        // that may have expired since.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Loaded {
        acceptor: Acceptor::from_server_config(Arc::new(config)),
        validity,
    })
}

fn validity(certificate: &[u8]) -> Option<Validity> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let validity = parsed.validity();
    Some(Validity {
        not_before: validity.not_before.timestamp(),
        not_after: validity.not_after.timestamp(),
    })
}

fn client_verifier(
    file: &Path,
    auth: ClientAuth,
    provider: Arc<rustls::crypto::CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, BindError> {
    let mut roots = RootCertStore::empty();
    let cas = pem::read_cas(file).map_err(|e| of_file("client CA", e))?;
    for certificate in cas.certificates {
        roots
            .add(certificate)
            .map_err(|e| unusable("client CA", file, e))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = match auth {
        ClientAuth::Required => builder,
        ClientAuth::Optional => builder.allow_unauthenticated(),
    };
    builder.build().map_err(|e| unusable("client CA", file, e))
}

fn of_file(what: &'static str, error: PemError) -> BindError {
    BindError::Tls {
        what,
        file: error.path,
        cause: error.problem,
    }
}

fn unusable(what: &'static str, file: &Path, cause: impl Display) -> BindError {
    BindError::Tls {
        what,
        file: file.to_owned(),
        cause: format!("{cause}"),
    }
}
