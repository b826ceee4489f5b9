//! Keys, tokens, routes and cached callers for the benchmarks.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::signature::KeyPair as _;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hawkgate::bounded_cache::CacheBounds;
use hawkgate::clock::SystemClock;
use hawkgate::credential::{
    CacheLimits, CachedSource, Credential, CredentialSource, FetchError, IdentityHasher, Issued,
    SourceOptions, SwapRequest,
};
use hawkgate::gateway::resource_isolation::IsolationPolicy;
use hawkgate::gateway::route::{Compat, Isolation};
use hawkgate::gateway::route::{Route, RouteTable, Upstream, UpstreamTimeouts};
use hawkgate::gateway::rule::{Effect, Expression, Rule, Rules};
use hawkgate::gateway::upstream_addresses::UpstreamAddresses;
use hawkgate::gateway::{Gateway, Observability, RefusalLog, UpstreamClock};
use hawkgate::hawk::{Credentials, SignedRequest, Signer, nonce};
use hawkgate::secret::SecretString;
use hawkgate::token::settings::{Algorithm, KeyLocation, OidcIssuer, Profile};
use hawkgate::token::{
    BearerToken, Caller, DEFAULT_TOKEN_BYTES, FetchedKeys, Issuer, KeyFetchError, KeyFetcher,
    RefreshObserver,
};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};

/// A typical Taskcluster path.
pub(crate) const TARGET: &str = "/api/queue/v1/task/VGhpc0lzQVRhc2tJZA/status?continuationToken=1";

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

/// Returns a JWKS document, and a token that is valid for an hour.
pub(crate) fn token(algorithm: &str) -> (Vec<u8>, String) {
    token_with(algorithm, &json!({}))
}

/// Like [`token`], with additional claims.
pub(crate) fn token_with(algorithm: &str, more: &Value) -> (Vec<u8>, String) {
    let (mut jwk, key, name) = match algorithm {
        "RS256" => rsa(),
        "ES256" => p256(),
        _ => ed25519(),
    };
    jwk["kid"] = json!("k");
    jwk["use"] = json!("sig");
    #[allow(clippy::disallowed_methods)]
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock")
        .as_secs();
    let mut claims = json!({
        "iss": "https://bench.example.com/", "aud": "bench", "sub": "alice", "client_id": "bench",
        "iat": now, "exp": now + 3600, "scope": "openid profile",
    });
    for (name, value) in more.as_object().into_iter().flatten() {
        claims[name] = value.clone();
    }
    let mut header = Header::new(name);
    header.typ = Some("at+jwt".into());
    header.kid = Some("k".into());
    let token = jsonwebtoken::encode(&header, &claims, &key).expect("a token");
    (json!({ "keys": [jwk] }).to_string().into_bytes(), token)
}

fn rsa() -> (Value, EncodingKey, jsonwebtoken::Algorithm) {
    let pair = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).expect("a key");
    let public = pair.public_key();
    let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let jwk = json!({
        "kty": "RSA",
        "n": part(public.modulus().big_endian_without_leading_zero()),
        "e": part(public.exponent().big_endian_without_leading_zero()),
    });
    let der = AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(&pair).expect("its encoding");
    let pem = format!(
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
        base64::engine::general_purpose::STANDARD.encode(der.as_ref())
    );
    let key = EncodingKey::from_rsa_pem(pem.as_bytes()).expect("a signing key");
    (jwk, key, jsonwebtoken::Algorithm::RS256)
}

fn p256() -> (Value, EncodingKey, jsonwebtoken::Algorithm) {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
    let point = pair.public_key_raw();
    let jwk = json!({
        "kty": "EC", "crv": "P-256",
        "x": URL_SAFE_NO_PAD.encode(&point[1..33]), "y": URL_SAFE_NO_PAD.encode(&point[33..65]),
    });
    let key = EncodingKey::from_ec_der(&pair.serialize_der());
    (jwk, key, jsonwebtoken::Algorithm::ES256)
}

fn ed25519() -> (Value, EncodingKey, jsonwebtoken::Algorithm) {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
    let jwk =
        json!({"kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(pair.public_key_raw())});
    let key = EncodingKey::from_ed_der(&pair.serialize_der());
    (jwk, key, jsonwebtoken::Algorithm::EdDSA)
}

pub(crate) fn bearer_headers(token: &str) -> HeaderMap {
    let value = HeaderValue::try_from(format!("Bearer {token}")).expect("a header");
    HeaderMap::from_iter([(AUTHORIZATION, value)])
}

#[derive(Debug)]
struct StaticKeys(Vec<u8>);

#[async_trait]
impl KeyFetcher for StaticKeys {
    async fn fetch(&self) -> Result<FetchedKeys, KeyFetchError> {
        Ok(FetchedKeys {
            document: self.0.clone(),
            max_age: None,
        })
    }
}

/// Returns an issuer whose keys have been fetched.
pub(crate) async fn issuer(jwks: &[u8]) -> Arc<Issuer> {
    let config = OidcIssuer {
        url: "https://bench.example.com/".into(),
        keys: KeyLocation::Discovery,
        ca: None,
        keys_token: None,
        audiences: vec!["bench".into()],
        algorithms: Algorithm::ALL.to_vec(),
        profile: Profile::Rfc9068,
        format: Profile::Rfc9068.format(),
        leeway: Duration::from_secs(30),
        clients: None,
        subjects: None,
        verified_max_age: Duration::from_mins(5),
    };
    let keys = Arc::new(StaticKeys(jwks.to_vec()));
    let issuer = Issuer::oidc(
        "bench".into(),
        &config,
        keys,
        SystemClock::shared(),
        CacheBounds {
            entries: 1000,
            bytes: 1 << 30,
        },
        RefreshObserver::default(),
    );
    issuer.warm_up().await;
    Arc::new(issuer)
}

fn credentials() -> Credentials {
    Credentials {
        client_id: "project/bench".into(),
        access_token: SecretString::from("secret-of-this-benchmark-only-0123456789"),
        certificate: None,
        authorized_scopes: None,
    }
}

pub(crate) fn signer() -> Signer {
    Signer::new(&credentials()).expect("a signer")
}

#[derive(Debug)]
struct FixedCredential;

#[async_trait]
impl CredentialSource for FixedCredential {
    fn identity(&self, _: &SwapRequest, _: &mut IdentityHasher) -> Result<(), FetchError> {
        Ok(())
    }

    /// As of most sources.
    fn epoch(&self) -> Option<u64> {
        Some(0)
    }

    async fn fetch(&self, _: &SwapRequest) -> Result<Issued, FetchError> {
        Ok(Issued {
            credential: Credential::Taskcluster {
                client_id: "project/bench".into(),
                signer: Box::new(signer()),
            },
            expires_at: None,
            original: None,
        })
    }
}

fn source(entries: u64) -> Arc<CachedSource> {
    let options = SourceOptions {
        limits: CacheLimits {
            max_entries: entries,
            max_bytes: 1 << 30,
            max_age: Duration::from_hours(1),
            refresh_ahead: Duration::from_mins(1),
            refusals: Duration::from_secs(10),
        },
        timeout: Duration::from_secs(5),
        concurrency: 32,
    };
    Arc::new(
        CachedSource::new(
            "bench".into(),
            Arc::new(FixedCredential),
            options,
            SystemClock::shared(),
        )
        .expect("a source"),
    )
}

/// Returns rules as an operator might write them: two that do not match, and one that matches if
/// `last` is true.
pub(crate) fn rules(last: &str) -> Rules {
    let rule = |(at, when): (usize, &str)| {
        Arc::new(Rule {
            name: format!("rule{at}").into(),
            when: Expression::compile(when).expect("an expression"),
            effect: Effect::Allow,
            scopes: None,
            headers: vec![],
        })
    };
    let all = [
        "'suspended' in claims && claims.suspended != false",
        "token.issuer == 'another' && claims.sub.startsWith('ci/')",
        last,
    ];
    Rules::new(all.into_iter().enumerate().map(rule).collect()).expect("some")
}

/// Returns a gateway with `count` routes, one of which matches [`TARGET`].
pub(crate) fn gateway(count: usize, issuer: Option<Arc<Issuer>>) -> Gateway {
    let issuers: Vec<_> = issuer.into_iter().collect();
    let source = source(1000);
    let route = |at: usize| {
        let path = if at == 0 {
            "/api/".to_owned()
        } else {
            format!("/api/service{at}/v1/")
        };
        Arc::new(Route {
            name: format!("route{at}").into(),
            hosts: vec![],
            rewrite: None,
            request_headers: hawkgate::gateway::header_edits::HeaderEdits::default(),
            response_headers: hawkgate::gateway::header_edits::HeaderEdits::default(),
            path,
            case_insensitive_path: false,
            methods: None,
            upstream: Arc::new(upstream()),
            issuers: issuers.clone(),
            session: None,
            source: Some(Arc::clone(&source)),
            stripped_headers: hawkgate::gateway::request_headers::StrippedHeaders::default(),
            require_scopes: vec!["openid".into()],
            passes_401: vec![],
            refused_scopes: RefusalLog::default(),
            anonymous: false,
            workload_token: None,
            isolation: Isolation::Off,
            cors: None,
            rules: None,
            rates: hawkgate::gateway::rate_limit::RateLimiters::default(),
            retry: None,
            upgrade_expiry: hawkgate::gateway::route::UpgradeExpiry::default(),
            compat: Compat::default(),
        })
    };
    Gateway {
        routes: RouteTable::new((0..count).map(route).collect()),
        sessions: hawkgate::gateway::session::SessionTable::default(),
        login: None,
        credentials: None,
        clock: SystemClock::shared(),
        max_token_bytes: DEFAULT_TOKEN_BYTES,
        rule_headers: vec![],
        forward_auth: vec![],
        isolation: IsolationPolicy::default(),
        observability: Observability::default(),
    }
}

fn upstream() -> Upstream {
    let second = Duration::from_secs(1);
    Upstream {
        tls: true,
        host: "tc.example.com".into(),
        port: 443,
        authority: HeaderValue::from_static("tc.example.com"),
        signed_port: 443,
        ca: None,
        additional_ca: None,
        proxy: None,
        http2: false,
        timeouts: UpstreamTimeouts {
            connect: second,
            read: second,
            write: second,
            idle: second,
        },
        addresses: UpstreamAddresses::fixed(vec![]),
        clock: UpstreamClock::default(),
    }
}

/// Callers with opaque tokens, whose credentials are all cached.
pub(crate) struct CachedCallers {
    source: Arc<CachedSource>,
    issuer: Arc<str>,
}

impl CachedCallers {
    pub(crate) async fn new(count: usize) -> Self {
        let callers = Self {
            source: source(count as u64 + 1000),
            issuer: "opaque".into(),
        };
        for at in 0..count {
            callers.hit(&Self::headers(at)).await;
        }
        callers
    }

    /// Returns the headers that caller number `at` sends.
    pub(crate) fn headers(at: usize) -> HeaderMap {
        bearer_headers(&format!("opaque-token-{at:032}"))
    }

    /// Reads the token from the headers, looks up the credentials and signs a request.
    pub(crate) async fn hit(&self, headers: &HeaderMap) -> String {
        let bearer = BearerToken::from_headers(headers, DEFAULT_TOKEN_BYTES)
            .ok()
            .flatten()
            .expect("a bearer");
        let request = SwapRequest {
            caller: Caller::Delegated {
                issuer: Arc::clone(&self.issuer),
                digest: bearer.digest(),
                peer: None,
            },
            bearer: Some(bearer),
            scopes: None,
            clock_offset: 0,
        };
        let leased = self.source.lease(&request).await.expect("a lease");
        let Credential::Taskcluster { signer, .. } = leased.lease.credential() else {
            unreachable!("the source issues nothing else")
        };
        let signed = SignedRequest {
            at: hawkgate::clock::UnixMillis::from_secs(1_700_000_000),
            nonce: &nonce(),
            method: "GET",
            target: TARGET,
            host: "tc.example.com",
            port: 443,
            payload_hash: None,
        };
        signer.authorization(&signed).expect("a header")
    }
}
