//! HTTP/2 by prior knowledge and by ALPN, and TLS.

use std::path::{Path, PathBuf};

use pingora::tls::TlsConnector;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::AsyncWrite;

use super::*;
use crate::proxy::listener::{BindError, Tls};
use crate::proxy::settings::ClientAuth;

fn h2c() -> Listener {
    Listener { h2c: true, ..tcp() }
}

type Client = h2::client::SendRequest<Bytes>;

async fn client<S>(stream: S) -> Client
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (client, connection) = in_time(h2::client::handshake(stream)).await.unwrap();
    tokio::spawn(connection);
    in_time(client.ready()).await.unwrap()
}

/// Status and body of one request.
async fn get(client: &mut Client, request: http::Request<()>) -> Result<(u16, String), h2::Error> {
    let (response, _) = client.send_request(request, true)?;
    let (head, mut body) = in_time(response).await?.into_parts();
    let mut text = Vec::new();
    while let Some(part) = in_time(body.data()).await {
        text.extend_from_slice(&part?);
    }
    Ok((head.status.as_u16(), String::from_utf8(text).unwrap()))
}

fn request(uri: &str) -> http::Request<()> {
    http::Request::get(uri).body(()).unwrap()
}

#[tokio::test]
async fn prior_knowledge_is_served() {
    let rig = Rig::start(&[h2c()], &limits()).await;
    let mut client = client(rig.connect().await).await;
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
    let rig = Rig::start(&[h2c()], &limits()).await;
    let mut stream = rig.connect().await;
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    let mut bytes = Vec::new();
    let _ = in_time(stream.read_to_end(&mut bytes)).await;
    assert!(!bytes.starts_with(b"HTTP/1"));
    assert_eq!(rig.served(), 0);
}

#[tokio::test]
async fn a_preface_that_does_not_come_is_not_waited_for() {
    let limits = Limits {
        header_timeout: Duration::from_millis(50),
        ..limits()
    };
    let rig = Rig::start(&[h2c()], &limits).await;
    let mut stream = rig.connect().await;
    stream.write_all(b"PRI * HTTP/2.0\r\n").await.unwrap();
    let mut bytes = Vec::new();
    let _ = in_time(stream.read_to_end(&mut bytes)).await;
    assert_eq!(rig.served(), 0);
}

#[tokio::test]
async fn an_idle_http2_connection_is_closed() {
    let limits = Limits {
        keepalive_timeout: Duration::from_millis(50),
        ..limits()
    };
    let rig = Rig::start(&[h2c()], &limits).await;
    let (client, connection) = h2::client::handshake(rig.connect().await).await.unwrap();
    let mut client = client.ready().await.unwrap();
    let driver = tokio::spawn(connection);
    assert_eq!(get(&mut client, request("http://a/")).await.unwrap().0, 200);
    // Ends although the client is still there.
    let _ = in_time(driver).await.unwrap();
}

#[tokio::test]
async fn a_head_over_the_limit_is_refused_on_http2() {
    let rig = Rig::start(&[h2c()], &limits()).await;
    let mut client = client(rig.connect().await).await;
    let large = http::Request::get("http://a/")
        .header("x", "y".repeat(40 * 1024))
        .body(())
        .unwrap();
    let refused = get(&mut client, large).await;
    assert!(matches!(refused, Ok((431, _)) | Err(_)), "{refused:?}");
    assert_eq!(rig.served(), 0);
}

#[tokio::test]
async fn a_drain_lets_streams_finish() {
    let rig = Rig::start(&[h2c()], &limits()).await;
    let mut client = client(rig.connect().await).await;
    let begun = get(&mut client, request("http://a/wait"));
    let ending = async {
        in_time(rig.entered.notified()).await;
        let drain = rig.serving.drain(Duration::ZERO, PATIENCE);
        tokio::join!(drain, async { rig.release.notify_one() });
    };
    let (begun, ()) = in_time(async { tokio::join!(begun, ending) }).await;
    assert_eq!(begun.unwrap().0, 200);
}

/// A CA, a server certificate for `localhost` and a client's, in files.
struct Pki {
    dir: tempfile::TempDir,
}

impl Pki {
    fn new() -> Self {
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
            let certificate = params.signed_by(&key, &ca).unwrap();
            std::fs::write(dir.path().join(format!("{name}.pem")), certificate.pem()).unwrap();
            std::fs::write(dir.path().join(format!("{name}.key")), key.serialize_pem()).unwrap();
        }
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn files(&self) -> ListenerTls {
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
    /// With a client's certificate, or not; `None` when the server refuses.
    async fn who(&self, rig: &Rig, alpn: &[&[u8]], with_certificate: bool) -> Option<String> {
        let connector = self.connector(alpn, with_certificate);
        let stream = connector.connect(localhost(), rig.connect().await).await;
        // In TLS 1.3 the client is done before the server has refused it.
        let mut stream = stream.ok()?;
        if alpn == [b"h2"] {
            let mut client = client(stream).await;
            let (_, body) = get(&mut client, request("https://localhost/who"))
                .await
                .ok()?;
            return Some(body);
        }
        let head = b"GET /who HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        let _ = stream.write_all(head).await;
        let mut bytes = Vec::new();
        let _ = in_time(stream.read_to_end(&mut bytes)).await;
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
const NOBODY: &str = "Some(127.0.0.1) Some(127.0.0.1) None";

fn certificate(file: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(file).unwrap()
}

fn localhost() -> ServerName<'static> {
    ServerName::try_from("localhost").unwrap()
}

#[tokio::test]
async fn alpn_chooses_between_http1_and_http2() {
    let pki = Pki::new();
    let rig = Rig::start(&[tls(pki.files())], &limits()).await;

    let connector = pki.connector(&[b"h2", b"http/1.1"], false);
    let stream = connector
        .connect(localhost(), rig.connect().await)
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
            .connect(localhost(), rig.connect().await)
            .await
            .unwrap();
        stream
            .write_all(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /.. HTTP/1.1\r\nHost: a\r\n\r\n")
            .await
            .unwrap();
        assert_eq!(
            reply(&mut stream).await.body,
            "GET /1 0 Some(127.0.0.1) true"
        );
        assert_eq!(all_replies(&mut stream).await[0].status, 400);
    }
}

#[tokio::test]
async fn a_client_certificate_can_be_required() {
    let pki = Pki::new();
    let files = ListenerTls {
        client_ca: Some(pki.path("ca.pem")),
        ..pki.files()
    };
    let rig = Rig::start(&[tls(files)], &limits()).await;
    let head = b"GET /m HTTP/1.1\r\nHost: a\r\n\r\n";

    let connector = pki.connector(&[], true);
    let mut stream = connector
        .connect(localhost(), rig.connect().await)
        .await
        .unwrap();
    stream.write_all(head).await.unwrap();
    assert_eq!(reply(&mut stream).await.status, 200);

    let connector = pki.connector(&[], false);
    // In TLS 1.3 the client is done before the server has refused it.
    if let Ok(mut stream) = connector.connect(localhost(), rig.connect().await).await {
        let _ = stream.write_all(head).await;
        let mut bytes = Vec::new();
        let _ = in_time(stream.read_to_end(&mut bytes)).await;
        assert!(bytes.is_empty());
    }
    assert_eq!(rig.served(), 1);
}

#[tokio::test]
async fn a_client_is_known_by_its_certificate() {
    let (pki, strangers) = (Pki::new(), Pki::new());
    let listeners = [ClientAuth::Optional, ClientAuth::Required].map(|auth| tls(pki.mutual(auth)));
    for (listener, anonymous) in listeners.into_iter().zip([Some(NOBODY), None]) {
        let rig = Rig::start(&[listener], &limits()).await;
        for alpn in [&[b"h2".as_slice()] as &[&[u8]], &[b"http/1.1"]] {
            let who = pki.who(&rig, alpn, true).await;
            assert_eq!(who.as_deref(), Some(WORKER));
            let who = pki.who(&rig, alpn, false).await;
            assert_eq!(who.as_deref(), anonymous);
        }
        // Another CA's certificate is refused even where none would do.
        for name in ["client.pem", "client.key"] {
            std::fs::rename(pki.path(name), pki.path("kept")).unwrap();
            std::fs::copy(strangers.path(name), pki.path(name)).unwrap();
            std::fs::rename(pki.path("kept"), pki.path(&format!("own-{name}"))).unwrap();
        }
        assert_eq!(pki.who(&rig, &[b"http/1.1"], true).await, None);
        for name in ["client.pem", "client.key"] {
            std::fs::rename(pki.path(&format!("own-{name}")), pki.path(name)).unwrap();
        }
    }
}

#[tokio::test]
async fn no_session_outlives_the_certificate_that_began_it() {
    let pki = Pki::new();
    for (files, resumed) in [
        (pki.mutual(ClientAuth::Required), false),
        (pki.files(), true),
    ] {
        let rig = Rig::start(&[tls(files)], &limits()).await;
        let connector = pki.connector(&[], true);
        let mut kinds = Vec::new();
        for _ in 0..2 {
            let mut stream = connector
                .connect(localhost(), rig.connect().await)
                .await
                .unwrap();
            let head = b"GET /who HTTP/1.1\r\nHost: a\r\n\r\n";
            stream.write_all(head).await.unwrap();
            assert_eq!(reply(&mut stream).await.status, 200);
            kinds.push(stream.get_ref().1.handshake_kind());
        }
        let resumption = kinds[1] == Some(rustls::HandshakeKind::Resumed);
        assert_eq!(resumption, resumed, "{kinds:?}");
    }
}

#[tokio::test]
async fn an_announced_client_is_known_by_its_certificate_too() {
    let pki = Pki::new();
    let mut listener = tls(pki.mutual(ClientAuth::Required));
    listener.access.proxies = Some(crate::proxy::settings::TrustedProxies {
        networks: vec!["127.0.0.0/8".parse().unwrap()],
        proxy_protocol: true,
    });
    let rig = Rig::start(&[listener], &limits()).await;
    let mut stream = rig.connect().await;
    stream
        .write_all(b"PROXY TCP6 2001:db8::7 ::1 1 2\r\n")
        .await
        .unwrap();
    let connector = pki.connector(&[], true);
    let mut stream = connector.connect(localhost(), stream).await.unwrap();
    let head = b"GET /who HTTP/1.1\r\nHost: a\r\n\r\n";
    stream.write_all(head).await.unwrap();
    let who = WORKER.replace("127.0.0.1", "2001:db8::7");
    assert_eq!(reply(&mut stream).await.body, who);
    // Refused heads are logged with it as well.
    stream.write_all(b"junk\r\n\r\n").await.unwrap();
    assert_eq!(reply(&mut stream).await.status, 400);
    drop(stream);
    in_time(rig.serving.drain(Duration::ZERO, PATIENCE)).await;
    let outcomes = rig.outcomes();
    let label = outcomes[0].client_cert.as_deref();
    assert_eq!(label, Some("spiffe://example.org/worker"));
}

#[tokio::test]
async fn client_authorities_are_renewed_with_the_rest() {
    let (pki, other) = (Pki::new(), Pki::new());
    let files = ListenerTls {
        client_ca: Some(pki.path("clients.pem")),
        ..pki.mutual(ClientAuth::Required)
    };
    std::fs::copy(other.path("ca.pem"), pki.path("clients.pem")).unwrap();
    let bound = Tls::load(files.clone()).unwrap();
    let outcome = |tls: &Tls| tls.reload().map_err(|e| e.to_string());
    std::fs::write(pki.path("clients.pem"), "junk").unwrap();
    assert!(outcome(&bound).unwrap_err().contains("clients.pem"));
    std::fs::copy(pki.path("ca.pem"), pki.path("clients.pem")).unwrap();
    outcome(&bound).unwrap();
    let rig = Rig::start(&[tls(files)], &limits()).await;
    assert_eq!(pki.who(&rig, &[], true).await.as_deref(), Some(WORKER));
}

#[tokio::test]
async fn a_handshake_that_does_not_come_is_not_waited_for_nor_waited_behind() {
    let pki = Pki::new();
    let limits = Limits {
        header_timeout: Duration::from_millis(300),
        ..limits()
    };
    let rig = Rig::start(&[tls(pki.files())], &limits).await;
    let mut silent = rig.connect().await;
    let connector = pki.connector(&[], false);
    let mut stream = connector
        .connect(localhost(), rig.connect().await)
        .await
        .unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(reply(&mut stream).await.status, 200);
    assert!(in_time(silent.read_u8()).await.is_err());
}

#[tokio::test]
async fn unusable_files_are_named_and_not_shown() {
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
async fn a_renewed_certificate_is_used_without_a_restart() {
    let (old, new) = (Pki::new(), Pki::new());
    let bound = Bound::bind(&[tls(old.files())], &limits()).await.unwrap();
    let tls = bound.tls();
    for name in ["localhost.pem", "localhost.key"] {
        std::fs::copy(new.path(name), old.path(name)).unwrap();
    }
    tls[0].reload().unwrap();
    // A later failure changes nothing.
    std::fs::write(old.path("localhost.key"), "junk").unwrap();
    assert!(tls[0].reload().is_err());
    let Address::Tcp(address) = bound.addresses()[0] else {
        panic!("no TCP listener")
    };
    let app = crate::proxy::admin::Admin::new(Arc::new(NoPages));
    let clock = ManualClock::at(UnixMillis::from_secs(0));
    let serving = bound.serve(vec![app], clock, Arc::new(|_| {}), Workers::Ambient);
    let stream = TcpStream::connect(address).await.unwrap();
    new.connector(&[], false)
        .connect(localhost(), stream)
        .await
        .unwrap();
    serving.abort();
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
}
