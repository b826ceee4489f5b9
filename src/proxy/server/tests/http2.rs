//! HTTP/2 by prior knowledge and ALPN, and TLS.

use std::path::{Path, PathBuf};

use pingora::tls::TlsConnector;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

use super::*;
use crate::gateway::Head;
use crate::gateway::rejection::Rejection;
use crate::proxy::listener::{BindError, Tls};
use crate::proxy::settings::ClientAuth;

pub(super) fn h2c() -> Listener {
    Listener { h2c: true, ..tcp() }
}

type Client = h2::client::SendRequest<Bytes>;

pub(super) async fn client<S>(stream: S) -> Client
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (client, connection) = within_timeout(h2::client::handshake(stream)).await.unwrap();
    tokio::spawn(connection);
    within_timeout(client.ready()).await.unwrap()
}

/// Returns the status and body of one response.
pub(super) async fn get(
    client: &mut Client,
    request: http::Request<()>,
) -> Result<(u16, String), h2::Error> {
    let (response, _) = client.send_request(request, true)?;
    let (head, mut body) = within_timeout(response).await?.into_parts();
    let mut text = Vec::new();
    while let Some(part) = within_timeout(body.data()).await {
        text.extend_from_slice(&part?);
    }
    Ok((head.status.as_u16(), String::from_utf8(text).unwrap()))
}

pub(super) fn request(uri: &str) -> http::Request<()> {
    http::Request::get(uri).body(()).unwrap()
}

#[tokio::test]
async fn http2_with_prior_knowledge_is_served() {
    let server = TestServer::start(&[h2c()], &limits()).await;
    let mut client = client(server.connect().await).await;
    for path in ["/a", "/b?c"] {
        let (status, body) = get(&mut client, request(&format!("http://a{path}")))
            .await
            .unwrap();
        assert_eq!(status, 200);
        assert_eq!(body, format!("GET {path} 0 Some(127.0.0.1) false"));
    }
}

#[tokio::test]
async fn http1_is_not_served_on_an_h2c_listener() {
    let server = TestServer::start(&[h2c()], &limits()).await;
    let mut stream = server.connect().await;
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    let mut bytes = Vec::new();
    let _ = within_timeout(stream.read_to_end(&mut bytes)).await;
    assert!(!bytes.starts_with(b"HTTP/1"));
    assert_eq!(server.served(), 0);
}

#[tokio::test]
async fn a_missing_http2_preface_hits_the_header_timeout() {
    let limits = Limits {
        header_timeout: Duration::from_millis(50),
        ..limits()
    };
    let server = TestServer::start(&[h2c()], &limits).await;
    let mut stream = server.connect().await;
    stream.write_all(b"PRI * HTTP/2.0\r\n").await.unwrap();
    let mut bytes = Vec::new();
    let _ = within_timeout(stream.read_to_end(&mut bytes)).await;
    assert_eq!(server.served(), 0);
}

#[tokio::test]
async fn an_idle_http2_connection_is_closed() {
    let limits = Limits {
        keepalive_timeout: Duration::from_millis(50),
        ..limits()
    };
    let server = TestServer::start(&[h2c()], &limits).await;
    let (client, connection) = h2::client::handshake(server.connect().await).await.unwrap();
    let mut client = client.ready().await.unwrap();
    let driver = tokio::spawn(connection);
    assert_eq!(get(&mut client, request("http://a/")).await.unwrap().0, 200);
    // The connection ends although the client is still connected.
    let _ = within_timeout(driver).await.unwrap();
}

#[tokio::test]
async fn an_http2_head_over_the_size_limit_is_rejected() {
    let server = TestServer::start(&[h2c()], &limits()).await;
    let mut client = client(server.connect().await).await;
    let large = http::Request::get("http://a/")
        .header("x", "y".repeat(40 * 1024))
        .body(())
        .unwrap();
    let result = get(&mut client, large).await;
    assert!(matches!(result, Ok((431, _)) | Err(_)), "{result:?}");
    assert_eq!(server.served(), 0);
}

#[tokio::test]
async fn active_http2_streams_finish_during_a_drain() {
    let server = TestServer::start(&[h2c()], &limits()).await;
    let mut client = client(server.connect().await).await;
    let streamed = get(&mut client, request("http://a/wait"));
    let draining = async {
        within_timeout(server.entered.notified()).await;
        let drain = server.handle.drain(Duration::ZERO, TEST_TIMEOUT);
        tokio::join!(drain, async { server.release.notify_one() });
    };
    let (streamed, ()) = within_timeout(async { tokio::join!(streamed, draining) }).await;
    assert_eq!(streamed.unwrap().0, 200);
}

/// A CA, a server certificate for `localhost` and a client certificate, in files.
pub(super) struct Pki {
    dir: tempfile::TempDir,
}

impl Pki {
    pub(super) fn new() -> Self {
        Self::lasting_longer(0)
    }

    /// With certificates that expire this many seconds later than those of the others.
    fn lasting_longer(secs: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut ca = CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
        std::fs::write(dir.path().join("ca.pem"), ca.pem()).unwrap();
        for name in ["localhost", "client"] {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
            if name == "client" {
                let uri = "spiffe://example.org/worker".try_into().unwrap();
                params.subject_alt_names.push(rcgen::SanType::URI(uri));
            }
            params.not_after += Duration::from_secs(secs);
            let certificate = params.signed_by(&key, &ca).unwrap();
            std::fs::write(dir.path().join(format!("{name}.pem")), certificate.pem()).unwrap();
            std::fs::write(dir.path().join(format!("{name}.key")), key.serialize_pem()).unwrap();
        }
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn files(&self) -> ListenerTls {
        ListenerTls {
            cert: self.path("localhost.pem"),
            key: self.path("localhost.key"),
            client_ca: None,
            client_auth: ClientAuth::Required,
        }
    }

    fn connector(&self, alpn: &[&[u8]], with_certificate: bool) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(certificate(&self.path("ca.pem"))).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = if with_certificate {
            let key = PrivateKeyDer::from_pem_file(self.path("client.key")).unwrap();
            builder
                .with_client_auth_cert(vec![certificate(&self.path("client.pem"))], key)
                .unwrap()
        } else {
            builder.with_no_client_auth()
        };
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        TlsConnector::from(Arc::new(config))
    }
}

impl Pki {
    /// The identity that the server sees; `None` if it rejects the connection.
    async fn identity(
        &self,
        server: &TestServer,
        alpn: &[&[u8]],
        with_certificate: bool,
    ) -> Option<String> {
        let connector = self.connector(alpn, with_certificate);
        let stream = connector.connect(localhost(), server.connect().await).await;
        // In TLS 1.3 the client completes its handshake before the server has rejected it.
        let mut stream = stream.ok()?;
        if alpn == [b"h2"] {
            let mut client = client(stream).await;
            let (_, body) = get(&mut client, request("https://localhost/identity"))
                .await
                .ok()?;
            return Some(body);
        }
        let head = b"GET /identity HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        let _ = stream.write_all(head).await;
        let mut bytes = Vec::new();
        let _ = within_timeout(stream.read_to_end(&mut bytes)).await;
        let text = String::from_utf8(bytes).unwrap();
        text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
    }

    fn mutual(&self, client_auth: ClientAuth) -> ListenerTls {
        ListenerTls {
            client_ca: Some(self.path("ca.pem")),
            client_auth,
            ..self.files()
        }
    }
}

const WORKER: &str = "Some(127.0.0.1) Some(127.0.0.1) Some(\"spiffe://example.org/worker\")";
const ANONYMOUS: &str = "Some(127.0.0.1) Some(127.0.0.1) None";

fn certificate(file: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(file).unwrap()
}

fn localhost() -> ServerName<'static> {
    ServerName::try_from("localhost").unwrap()
}

#[tokio::test]
async fn alpn_chooses_between_http1_and_http2() {
    let pki = Pki::new();
    let server = TestServer::start(&[tls(pki.files())], &limits()).await;

    let connector = pki.connector(&[b"h2", b"http/1.1"], false);
    let stream = connector
        .connect(localhost(), server.connect().await)
        .await
        .unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
    let mut h2 = client(stream).await;
    let (status, body) = get(&mut h2, request("https://localhost/2")).await.unwrap();
    assert_eq!(
        (status, body.as_str()),
        (200, "GET /2 0 Some(127.0.0.1) true")
    );

    for alpn in [&[b"http/1.1".as_slice()] as &[&[u8]], &[]] {
        let connector = pki.connector(alpn, false);
        let mut stream = connector
            .connect(localhost(), server.connect().await)
            .await
            .unwrap();
        stream
            .write_all(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /.. HTTP/1.1\r\nHost: a\r\n\r\n")
            .await
            .unwrap();
        assert_eq!(
            read_response(&mut stream).await.body,
            "GET /1 0 Some(127.0.0.1) true"
        );
        assert_eq!(read_responses(&mut stream).await[0].status, 400);
    }
}

#[tokio::test]
async fn a_client_certificate_can_be_required() {
    let pki = Pki::new();
    let files = ListenerTls {
        client_ca: Some(pki.path("ca.pem")),
        ..pki.files()
    };
    let server = TestServer::start(&[tls(files)], &limits()).await;
    let head = b"GET /m HTTP/1.1\r\nHost: a\r\n\r\n";

    let connector = pki.connector(&[], true);
    let mut stream = connector
        .connect(localhost(), server.connect().await)
        .await
        .unwrap();
    stream.write_all(head).await.unwrap();
    assert_eq!(read_response(&mut stream).await.status, 200);

    let connector = pki.connector(&[], false);
    // In TLS 1.3 the client completes its handshake before the server has rejected it.
    if let Ok(mut stream) = connector.connect(localhost(), server.connect().await).await {
        let _ = stream.write_all(head).await;
        let mut bytes = Vec::new();
        let _ = within_timeout(stream.read_to_end(&mut bytes)).await;
        assert!(bytes.is_empty());
    }
    assert_eq!(server.served(), 1);
}

#[tokio::test]
async fn a_client_is_identified_by_its_certificate() {
    let (pki, other_pki) = (Pki::new(), Pki::new());
    let listeners = [ClientAuth::Optional, ClientAuth::Required].map(|auth| tls(pki.mutual(auth)));
    for (listener, anonymous) in listeners.into_iter().zip([Some(ANONYMOUS), None]) {
        let server = TestServer::start(&[listener], &limits()).await;
        for alpn in [&[b"h2".as_slice()] as &[&[u8]], &[b"http/1.1"]] {
            let identity = pki.identity(&server, alpn, true).await;
            assert_eq!(identity.as_deref(), Some(WORKER));
            let identity = pki.identity(&server, alpn, false).await;
            assert_eq!(identity.as_deref(), anonymous);
        }
        // A certificate of another CA is rejected even if certificates are optional.
        for name in ["client.pem", "client.key"] {
            std::fs::rename(pki.path(name), pki.path("kept")).unwrap();
            std::fs::copy(other_pki.path(name), pki.path(name)).unwrap();
            std::fs::rename(pki.path("kept"), pki.path(&format!("own-{name}"))).unwrap();
        }
        assert_eq!(pki.identity(&server, &[b"http/1.1"], true).await, None);
        for name in ["client.pem", "client.key"] {
            std::fs::rename(pki.path(&format!("own-{name}")), pki.path(name)).unwrap();
        }
    }
}

#[tokio::test]
async fn tls_sessions_with_client_certificates_are_not_resumed() {
    let pki = Pki::new();
    for (files, resumed) in [
        (pki.mutual(ClientAuth::Required), false),
        (pki.files(), true),
    ] {
        let server = TestServer::start(&[tls(files)], &limits()).await;
        let connector = pki.connector(&[], true);
        let mut kinds = Vec::new();
        for _ in 0..2 {
            let mut stream = connector
                .connect(localhost(), server.connect().await)
                .await
                .unwrap();
            let head = b"GET /identity HTTP/1.1\r\nHost: a\r\n\r\n";
            stream.write_all(head).await.unwrap();
            assert_eq!(read_response(&mut stream).await.status, 200);
            kinds.push(stream.get_ref().1.handshake_kind());
        }
        let resumption = kinds[1] == Some(rustls::HandshakeKind::Resumed);
        assert_eq!(resumption, resumed, "{kinds:?}");
    }
}

#[tokio::test]
async fn a_client_certificate_is_read_after_a_proxy_header() {
    let pki = Pki::new();
    let mut listener = tls(pki.mutual(ClientAuth::Required));
    listener.access.proxies = Some(crate::proxy::settings::TrustedProxies {
        networks: vec!["127.0.0.0/8".parse().unwrap()],
        proxy_protocol: true,
    });
    let server = TestServer::start(&[listener], &limits()).await;
    let mut stream = server.connect().await;
    stream
        .write_all(b"PROXY TCP6 2001:db8::7 ::1 1 2\r\n")
        .await
        .unwrap();
    let connector = pki.connector(&[], true);
    let mut stream = connector.connect(localhost(), stream).await.unwrap();
    let head = b"GET /identity HTTP/1.1\r\nHost: a\r\n\r\n";
    stream.write_all(head).await.unwrap();
    let identity = WORKER.replace("127.0.0.1", "2001:db8::7");
    assert_eq!(read_response(&mut stream).await.body, identity);
    // Rejected heads are logged with it as well.
    stream.write_all(b"junk\r\n\r\n").await.unwrap();
    assert_eq!(read_response(&mut stream).await.status, 400);
    drop(stream);
    within_timeout(server.handle.drain(Duration::ZERO, TEST_TIMEOUT)).await;
    let outcomes = server.outcomes();
    let label = outcomes[0].client_cert.as_deref();
    assert_eq!(label, Some("spiffe://example.org/worker"));
}

#[tokio::test]
async fn client_cas_are_reloaded() {
    let (pki, other) = (Pki::new(), Pki::new());
    let files = ListenerTls {
        client_ca: Some(pki.path("clients.pem")),
        ..pki.mutual(ClientAuth::Required)
    };
    std::fs::copy(other.path("ca.pem"), pki.path("clients.pem")).unwrap();
    let listeners = Tls::load(files.clone()).unwrap();
    let outcome = |tls: &Tls| tls.reload().map_err(|e| e.to_string());
    std::fs::write(pki.path("clients.pem"), "junk").unwrap();
    assert!(outcome(&listeners).unwrap_err().contains("clients.pem"));
    std::fs::copy(pki.path("ca.pem"), pki.path("clients.pem")).unwrap();
    outcome(&listeners).unwrap();
    let server = TestServer::start(&[tls(files)], &limits()).await;
    assert_eq!(
        pki.identity(&server, &[], true).await.as_deref(),
        Some(WORKER)
    );
}

#[tokio::test]
async fn a_missing_tls_handshake_times_out_without_blocking_other_connections() {
    let pki = Pki::new();
    let limits = Limits {
        header_timeout: Duration::from_millis(300),
        ..limits()
    };
    let server = TestServer::start(&[tls(pki.files())], &limits).await;
    let mut silent = server.connect().await;
    let connector = pki.connector(&[], false);
    let mut stream = connector
        .connect(localhost(), server.connect().await)
        .await
        .unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(read_response(&mut stream).await.status, 200);
    assert!(within_timeout(silent.read_u8()).await.is_err());
}

#[tokio::test]
async fn tls_errors_name_the_file_but_do_not_quote_it() {
    let pki = Pki::new();
    let other = Pki::new();
    std::fs::write(pki.path("junk"), "secret junk").unwrap();
    let cases = [
        (
            ListenerTls {
                cert: pki.path("none.pem"),
                ..pki.files()
            },
            "none.pem",
        ),
        (
            ListenerTls {
                cert: pki.path("junk"),
                ..pki.files()
            },
            "junk",
        ),
        (
            ListenerTls {
                key: pki.path("junk"),
                ..pki.files()
            },
            "junk",
        ),
        (
            ListenerTls {
                key: other.path("localhost.key"),
                ..pki.files()
            },
            "localhost.key",
        ),
        (
            ListenerTls {
                client_ca: Some(pki.path("junk")),
                ..pki.files()
            },
            "junk",
        ),
    ];
    for (files, named) in cases {
        let Err(error @ BindError::Tls { .. }) = Tls::load(files) else {
            panic!("{named} was accepted");
        };
        let text = error.to_string();
        assert!(text.contains(named), "{text}");
        assert!(!text.contains("secret"), "{text}");
    }
}

#[tokio::test]
async fn a_renewed_certificate_is_used_after_a_reload() {
    let (old, new) = (Pki::new(), Pki::lasting_longer(60));
    let listeners = BoundServer::bind(&[tls(old.files())], &limits())
        .await
        .unwrap();
    let (_, tls) = listeners.tls().remove(0);
    let validity = tls.validity().unwrap();
    assert!(validity.not_before < validity.not_after);
    for name in ["localhost.pem", "localhost.key"] {
        std::fs::copy(new.path(name), old.path(name)).unwrap();
    }
    tls.reload().unwrap();
    assert_eq!(tls.validity().unwrap().not_after, validity.not_after + 60);
    // A failed reload keeps the certificate.
    std::fs::write(old.path("localhost.key"), "junk").unwrap();
    assert!(tls.reload().is_err());
    assert_eq!(tls.validity().unwrap().not_after, validity.not_after + 60);
    let Address::Tcp(address) = listeners.addresses()[0] else {
        panic!("no TCP listener")
    };
    let clock = ManualClock::at(UnixMillis::from_secs(0));
    let address_of_pages = &listeners.addresses()[0];
    let app = crate::proxy::admin::Admin::new(Arc::new(NoPages), address_of_pages, clock.clone());
    let handle = listeners.serve(app, clock, Arc::new(|_| {}), Workers::CurrentRuntime);
    let stream = TcpStream::connect(address).await.unwrap();
    new.connector(&[], false)
        .connect(localhost(), stream)
        .await
        .unwrap();
    handle.abort();
}

struct NoPages;

impl crate::proxy::admin::AdminPages for NoPages {
    fn metrics(&self, _accept: &str) -> (String, String) {
        (String::new(), String::new())
    }
    fn ready(&self) -> Result<(), String> {
        Ok(())
    }
    fn started(&self) -> Result<(), String> {
        Ok(())
    }
    fn check_sender(&self, _: Head<'_>) -> Result<(), Rejection> {
        Ok(())
    }
}
