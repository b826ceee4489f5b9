//! Verification of upstream certificates: CA and host name.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::PrivateKeyDer;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::client::TestRequest;
use super::support::TestProxy;
use crate::gateway::reason::Reason;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A TLS upstream with a self-signed certificate, and the CA file that trusts it.
struct TlsUpstream {
    address: SocketAddr,
    ca: PathBuf,
    _folder: TempDir,
}

async fn start_tls_upstream(names: &[&str]) -> TlsUpstream {
    let key = rcgen::KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
    let parameters = rcgen::CertificateParams::new(names).unwrap();
    let certificate = parameters.self_signed(&key).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, certificate.pem()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut tls) = acceptor.accept(tcp).await else {
                    return;
                };
                let mut piece = vec![0; 4096];
                // These requests are small enough to arrive in one piece.
                while tls.read(&mut piece).await.is_ok_and(|n| n > 0) {
                    tls.write_all(OK).await.unwrap();
                }
            });
        }
    });
    TlsUpstream {
        address,
        ca,
        _folder: folder,
    }
}

async fn status(upstream: &TlsUpstream, host: &'static str, ca: Option<PathBuf>) -> u16 {
    let mut proxy = TestProxy::with(|o| {
        o.addresses = Some(vec![upstream.address]);
        o.tls = Some((host, ca));
    })
    .await;
    let response = proxy
        .connect(false)
        .await
        .send(&TestRequest::get("/api/x"))
        .await;
    let outcome = proxy.outcome().await;
    if response.status != 200 {
        assert_eq!(outcome.rejection, Some(Reason::UpstreamUnreachable));
    }
    response.status
}

#[tokio::test]
async fn upstream_certificates_are_verified_by_ca_and_host_name() {
    let upstream = start_tls_upstream(&["tc.example.com"]).await;
    let ca = Some(upstream.ca.clone());
    assert_eq!(status(&upstream, "tc.example.com", ca.clone()).await, 200);
    assert_eq!(
        status(&upstream, "other.example.com", ca.clone()).await,
        502
    );
    assert_eq!(status(&upstream, "127.0.0.1", ca).await, 502);
}

#[tokio::test]
async fn upstream_certificates_can_name_an_ip_address() {
    let upstream = start_tls_upstream(&["127.0.0.1"]).await;
    let ca = Some(upstream.ca.clone());
    assert_eq!(status(&upstream, "127.0.0.1", ca.clone()).await, 200);
    assert_eq!(status(&upstream, "127.0.0.2", ca).await, 502);
}

#[tokio::test]
async fn upstream_certificates_of_other_cas_are_rejected() {
    let upstream = start_tls_upstream(&["tc.example.com"]).await;
    let other = start_tls_upstream(&["tc.example.com"]).await;
    // Neither the platform's CAs nor another CA have signed the certificate.
    assert_eq!(status(&upstream, "tc.example.com", None).await, 502);
    let another = Some(other.ca.clone());
    assert_eq!(status(&upstream, "tc.example.com", another).await, 502);
}

#[tokio::test]
async fn an_empty_ca_file_trusts_nothing() {
    let upstream = start_tls_upstream(&["tc.example.com"]).await;
    std::fs::write(&upstream.ca, "").unwrap();
    let empty = Some(upstream.ca.clone());
    assert_eq!(status(&upstream, "tc.example.com", empty).await, 502);
}
