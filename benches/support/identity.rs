//! Keys, a token, a certificate and Hawk credentials, as files that every proxy can read.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::KeyPair as _;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;

use super::http1::Field;

/// The issuer of the token.
pub(crate) const ISSUER: &str = "https://bench.example.com/";
/// The audience of the token.
pub(crate) const AUDIENCE: &str = "bench";
/// The Taskcluster client with whose key requests are signed.
pub(crate) const HAWK_ID: &str = "bench/client";
/// Its key.
pub(crate) const HAWK_KEY: &str = "secret-of-this-benchmark-only-0123456789";

/// The key of the session's cookies, in base64.
const COOKIE_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// The files, and the token.
pub(crate) struct Identity {
    /// A JWK set with one RSA key of 2,048 bits.
    pub(crate) jwks: PathBuf,
    /// The same key in PEM.
    pub(crate) public_key: PathBuf,
    /// [`HAWK_KEY`].
    pub(crate) hawk_key: PathBuf,
    /// A certificate for `localhost` (P-256).
    pub(crate) certificate: PathBuf,
    /// Its private key.
    pub(crate) private_key: PathBuf,
    /// Both in one file, as HAProxy reads them.
    pub(crate) certificate_and_key: PathBuf,
    /// The key of the session's cookies.
    pub(crate) cookie_key: PathBuf,
    /// An RS256 token that is valid for an hour.
    pub(crate) token: String,
    signing_key: EncodingKey,
    root: CertificateDer<'static>,
}

impl Identity {
    /// Makes everything, and writes the files to `dir`.
    pub(crate) fn write(dir: &Path) -> Self {
        let pair = KeyPair::generate(KeySize::Rsa2048).expect("a key");
        let public: PublicKeyX509Der<'_> = pair.public_key().as_der().expect("a public key");
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let jwks = json!({ "keys": [{
            "kty": "RSA", "kid": "k", "alg": "RS256", "use": "sig",
            "n": part(pair.public_key().modulus().big_endian_without_leading_zero()),
            "e": part(pair.public_key().exponent().big_endian_without_leading_zero()),
        }] });
        let name = vec!["localhost".to_owned()];
        let tls = rcgen::generate_simple_self_signed(name).expect("a certificate");
        let (certificate, private_key) = (tls.cert.pem(), tls.signing_key.serialize_pem());
        let signing_key = signing_key(&pair);
        let write = |name: &str, contents: &str| {
            let path = dir.join(name);
            fs::write(&path, contents).expect("a file");
            path
        };
        Self {
            jwks: write("jwks.json", &jwks.to_string()),
            public_key: write("public.pem", &pem("PUBLIC KEY", public.as_ref())),
            hawk_key: write("hawk-key", HAWK_KEY),
            cookie_key: write("cookie-key", COOKIE_KEY),
            certificate: write("cert.pem", &certificate),
            private_key: write("key.pem", &private_key),
            certificate_and_key: write("both.pem", &format!("{certificate}{private_key}")),
            token: token(&signing_key, "alice"),
            signing_key,
            root: tls.cert.der().clone(),
        }
    }

    /// Returns a token of `subject`.
    pub(crate) fn token_of(&self, subject: &str) -> String {
        token(&self.signing_key, subject)
    }

    /// Returns the field with the token.
    pub(crate) fn bearer(&self) -> Field {
        ("authorization", format!("Bearer {}", self.token))
    }

    /// Returns the field with the cookie of a session that has the token.
    pub(crate) async fn cookie(&self) -> Field {
        let cookie = super::session::cookie(&self.cookie_key, &self.token).await;
        ("cookie", cookie)
    }

    /// Returns the settings of a client that trusts the certificate, uses TLS 1.3 and offers
    /// `protocol` (ALPN).
    pub(crate) fn tls_client(&self, protocol: &[u8]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).expect("a root");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.to_vec()];
        Arc::new(config)
    }
}

fn signing_key(pair: &KeyPair) -> EncodingKey {
    let der: aws_lc_rs::encoding::Pkcs8V1Der<'_> = pair.as_der().expect("a private key");
    let key = EncodingKey::from_rsa_pem(pem("PRIVATE KEY", der.as_ref()).as_bytes());
    key.expect("a signing key")
}

fn token(key: &EncodingKey, subject: &str) -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock")
        .as_secs();
    let claims = json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": subject, "client_id": "bench",
        "iat": now, "exp": now + 3600, "scope": "openid",
    });
    let mut header = Header::new(Algorithm::RS256);
    header.typ = Some("at+jwt".into());
    header.kid = Some("k".into());
    jsonwebtoken::encode(&header, &claims, key).expect("a token")
}

fn pem(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
}
