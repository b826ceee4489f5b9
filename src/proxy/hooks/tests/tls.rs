//! TLS to upstreams is verified: by whom, and for which name.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::PrivateKeyDer;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::caller::Send;
use super::stage::Stage;
use crate::gateway::reason::Reason;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// An upstream with a self-signed certificate for these names, and the file to trust it by.
struct Secured {
    address: SocketAddr,
    ca: PathBuf,
    _folder: TempDir,
}

async fn secured(names: &[&str]) -> Secured {
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
                // These requests are small enough to come in one piece.
                while tls.read(&mut piece).await.is_ok_and(|n| n > 0) {
                    tls.write_all(OK).await.unwrap();
                }
            });
        }
    });
    Secured {
        address,
        ca,
        _folder: folder,
    }
}

async fn status(upstream: &Secured, host: &'static str, ca: Option<PathBuf>) -> u16 {
    let mut stage = Stage::with(|o| {
        o.addresses = Some(vec![upstream.address]);
        o.tls = Some((host, ca));
    })
    .await;
    let got = stage.connect(false).await.send(&Send::get("/api/x")).await;
    let outcome = stage.outcome().await;
    if got.status != 200 {
        assert_eq!(outcome.rejection, Some(Reason::UpstreamUnreachable));
    }
    got.status
}

#[tokio::test]
async fn the_given_ca_and_the_name_count() {
    let upstream = secured(&["tc.example.com"]).await;
    let ca = Some(upstream.ca.clone());
    assert_eq!(status(&upstream, "tc.example.com", ca.clone()).await, 200);
    assert_eq!(
        status(&upstream, "other.example.com", ca.clone()).await,
        502
    );
    assert_eq!(status(&upstream, "127.0.0.1", ca).await, 502);
}

#[tokio::test]
async fn an_address_is_verified_as_an_address() {
    let upstream = secured(&["127.0.0.1"]).await;
    let ca = Some(upstream.ca.clone());
    assert_eq!(status(&upstream, "127.0.0.1", ca.clone()).await, 200);
    assert_eq!(status(&upstream, "127.0.0.2", ca).await, 502);
}

#[tokio::test]
async fn strangers_are_not_trusted() {
    let upstream = secured(&["tc.example.com"]).await;
    let other = secured(&["tc.example.com"]).await;
    // The platform's CAs do not know it, and another CA does not vouch for it.
    assert_eq!(status(&upstream, "tc.example.com", None).await, 502);
    let another = Some(other.ca.clone());
    assert_eq!(status(&upstream, "tc.example.com", another).await, 502);
}

#[tokio::test]
async fn an_unusable_ca_file_is_no_trust() {
    let upstream = secured(&["tc.example.com"]).await;
    std::fs::write(&upstream.ca, "").unwrap();
    let empty = Some(upstream.ca.clone());
    assert_eq!(status(&upstream, "tc.example.com", empty).await, 502);
}
