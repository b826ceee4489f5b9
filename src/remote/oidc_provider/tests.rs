use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::*;
use crate::bounded_cache::CacheBounds;
use crate::clock::ManualClock;
use crate::remote::settings::{AssertionKey, ClientProof, OauthClient};
use crate::remote::testing::{Reply, peer_with};
use crate::secret::SecretRef;
use crate::token::settings::{IntrospectionIssuer, OidcIssuer, Profile};
use crate::token::testing::{AUDIENCE, NOW, RSA, ScriptedKeys, clock, configured, issuer, with};
use crate::token::{IntrospectionError, IntrospectionObserver, Introspector};

/// Part of every secret, so that no message and no `Debug` output may contain it.
const SECRET: &str = "s3cret";

/// An OpenID provider whose answers can be replaced.
struct Fake {
    url: Url,
    replies: Arc<Mutex<HashMap<&'static str, Reply>>>,
    requests: mpsc::UnboundedReceiver<String>,
    keys: Arc<ScriptedKeys>,
    clock: Arc<ManualClock>,
    /// Removed with the test.
    files: tempfile::TempDir,
}

impl Fake {
    async fn start() -> Self {
        let replies: Arc<Mutex<HashMap<&'static str, Reply>>> = Arc::default();
        let known = Arc::clone(&replies);
        let peer = peer_with(move |request| {
            let path = request.split(' ').nth(1).unwrap_or_default();
            let replies = known.lock().unwrap();
            let reply = replies.get(path).cloned();
            reply.unwrap_or_else(|| Reply::json(404, "{}"))
        })
        .await;
        let fake = Self {
            url: peer.url,
            replies,
            requests: peer.requests,
            keys: ScriptedKeys::of(&[RSA.jwk()]),
            clock: clock(),
            files: tempfile::tempdir().unwrap(),
        };
        fake.publish(&json!({}));
        fake
    }

    fn reply(&self, path: &'static str, reply: Reply) {
        self.replies.lock().unwrap().insert(path, reply);
    }

    /// Publishes the metadata with some members changed.
    fn publish(&self, changes: &Value) {
        let at = |path: &str| self.url.join(path).unwrap().to_string();
        let metadata = json!({
            "issuer": self.url.as_str(),
            "authorization_endpoint": at("authorize"),
            "token_endpoint": at("token"),
            "revocation_endpoint": at("revoke"),
            "end_session_endpoint": at("logout"),
            "authorization_response_iss_parameter_supported": true,
        });
        let document = with(&metadata, changes).to_string();
        self.reply(
            "/.well-known/openid-configuration",
            Reply::json(200, &document),
        );
    }

    fn provider(&self) -> OidcProvider {
        self.provider_of(ClientProof::SecretBasic(self.file("secret", SECRET)))
    }

    fn provider_of(&self, proof: ClientProof) -> OidcProvider {
        let settings = OidcProviderSettings {
            issuer: self.url.to_string(),
            client: OauthClient {
                id: "client-1".into(),
                proof,
            },
            resources: vec!["https://api.example/".into()],
            ca: None,
            timeout: Duration::from_millis(500),
        };
        let config = configured(self.url.as_str(), Profile::Workload);
        let config = OidcIssuer {
            subjects: Some(vec!["*".into()]),
            ..config
        };
        let issuer = issuer("main", &config, &self.keys, &self.clock);
        OidcProvider::new(settings, issuer, self.clock.clone()).unwrap()
    }

    fn file(&self, name: &str, text: &str) -> SecretRef {
        let path = self.files.path().join(name);
        std::fs::write(&path, text).unwrap();
        SecretRef::File(path)
    }

    fn id_token(&self, changes: &Value) -> String {
        let claims = json!({
            "iss": self.url.as_str(), "aud": "client-1", "sub": "ada", "iat": NOW, "exp": NOW + 300,
            "nonce": "n-1", "name": "Ada", "email": "ada@example.com", "sid": "s-1",
        });
        RSA.token(&json!({}), &with(&claims, changes))
    }

    fn access_token(&self, changes: &Value) -> String {
        let claims = json!({
            "iss": self.url.as_str(), "aud": AUDIENCE, "sub": "ada", "iat": NOW, "exp": NOW + 200,
        });
        RSA.token(&json!({}), &with(&claims, changes))
    }

    /// A token response with some members changed.
    fn issue(&self, changes: &Value) {
        let usual = json!({
            "access_token": self.access_token(&json!({})), "token_type": "Bearer",
            "expires_in": 300, "refresh_token": "s3cret-refresh-2",
            "id_token": self.id_token(&json!({})),
        });
        let body = with(&usual, changes).to_string();
        self.reply("/token", Reply::json(200, &body));
    }

    /// The requests received so far, without those for metadata.
    fn received(&mut self) -> Vec<String> {
        let requests = std::iter::from_fn(|| self.requests.try_recv().ok());
        requests
            .filter(|request| !request.contains("/.well-known/"))
            .collect()
    }
}

fn code() -> AuthorizationCode {
    AuthorizationCode {
        code: "s3cret-code".into(),
        code_verifier: "s3cret-verifier".into(),
        nonce: "n-1".into(),
        redirect_uri: "https://app.example/oauth2/callback".parse().unwrap(),
    }
}

fn old_refresh_token() -> SecretString {
    "s3cret-refresh-1".into()
}

/// The class of an error, after checking that it quotes nothing.
fn class<T: std::fmt::Debug>(result: Result<T, ProviderError>) -> (&'static str, String) {
    let error = result.unwrap_err();
    let text = format!("{error} {error:?}");
    assert!(!text.contains(SECRET), "{text}");
    let class = match error {
        ProviderError::Refused(_) => "refused",
        ProviderError::Unavailable { .. } => "unavailable",
        ProviderError::Misconfigured(_) => "misconfigured",
        ProviderError::InvalidToken(_) => "invalid token",
    };
    (class, text)
}

#[tokio::test]
async fn endpoints_come_from_the_metadata() {
    let fake = Fake::start().await;
    let found = fake.provider().endpoints().await.unwrap();
    assert_eq!(found.issuer, fake.url.as_str());
    assert_eq!(found.authorization, fake.url.join("authorize").unwrap());
    assert_eq!(found.end_session, Some(fake.url.join("logout").unwrap()));
    assert!(found.iss_required);
    fake.publish(&json!({"end_session_endpoint": null,
        "authorization_response_iss_parameter_supported": null}));
    let found = fake.provider().endpoints().await.unwrap();
    assert_eq!((found.end_session, found.iss_required), (None, false));
}

#[tokio::test]
async fn metadata_that_cannot_be_used_is_the_operators_to_fix() {
    let fake = Fake::start().await;
    for (changes, expected) in [
        (
            json!({"authorization_endpoint": null}),
            "no authorization_endpoint",
        ),
        (json!({"issuer": "https://other.example"}), "another issuer"),
        (
            json!({"authorization_endpoint": "http://s3cret.example/a"}),
            "authorization_endpoint",
        ),
        (
            json!({"end_session_endpoint": "javascript:s3cret"}),
            "end_session_endpoint",
        ),
        (
            json!({"token_endpoint": "ftp://s3cret.example/"}),
            "token_endpoint",
        ),
    ] {
        fake.publish(&changes);
        let (class, text) = class(fake.provider().endpoints().await);
        assert_eq!(class, "misconfigured", "{text}");
        assert!(text.contains(expected), "{text}");
    }
    fake.publish(&json!({"token_endpoint": null}));
    let (class, text) = class(fake.provider().redeem(&code()).await);
    assert!(
        class == "misconfigured" && text.contains("no token_endpoint"),
        "{text}"
    );
}

#[tokio::test]
async fn a_code_is_redeemed_with_pkce_and_the_client_authenticates() {
    let mut fake = Fake::start().await;
    fake.issue(&json!({}));
    let pem = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let key = AssertionKey {
        key: fake.file("key", &pem),
        key_id: None,
        algorithm: None,
        audience: fake.url.to_string(),
    };
    for (proof, authentication) in [
        (ClientProof::Public, "client_id=client-1"),
        (
            ClientProof::SecretBasic(fake.file("secret", SECRET)),
            "authorization: Basic Y2xpZW50LTE6czNjcmV0",
        ),
        (
            ClientProof::SecretPost(fake.file("secret", SECRET)),
            "client_id=client-1&client_secret=s3cret",
        ),
        (
            ClientProof::PrivateKeyJwt(key),
            "client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer",
        ),
    ] {
        let granted = fake.provider_of(proof).redeem(&code()).await.unwrap();
        let debug = format!("{granted:?}");
        assert!(!debug.contains(SECRET) && !debug.contains("eyJ"), "{debug}");
        assert_eq!(granted.subject, "ada");
        assert_eq!(granted.name.as_deref(), Some("Ada"));
        assert_eq!(granted.email.as_deref(), Some("ada@example.com"));
        assert_eq!(granted.provider_session.as_deref(), Some("s-1"));
        let SessionGrant::Oidc {
            access_token_expires_at,
            refresh_token,
            id_token,
            ..
        } = granted.grant
        else {
            panic!("{debug}");
        };
        // The token's own `exp` is earlier than `expires_in`.
        assert_eq!(
            access_token_expires_at,
            Some(UnixMillis::from_secs(NOW + 200))
        );
        assert_eq!(refresh_token, Some("s3cret-refresh-2".into()));
        assert!(id_token.is_some());
        let requests = fake.received();
        let [request] = &requests[..] else {
            panic!("{requests:?}");
        };
        assert!(request.starts_with("POST /token HTTP/1.1\r\n"), "{request}");
        assert!(
            request.contains(
                "grant_type=authorization_code&code=s3cret-code\
                 &redirect_uri=https%3A%2F%2Fapp.example%2Foauth2%2Fcallback\
                 &code_verifier=s3cret-verifier&resource=https%3A%2F%2Fapi.example%2F"
            ),
            "{request}"
        );
        assert!(request.contains(authentication), "{request}");
    }
}

#[tokio::test]
async fn each_failure_of_the_token_endpoint_has_its_class() {
    let fake = Fake::start().await;
    let provider = fake.provider();
    let quoting = |code: &str| {
        json!({"error": code, "error_description": "s3cret-code is used up"}).to_string()
    };
    let retry = [("Retry-After", "7")];
    for (reply, expected, text) in [
        (
            Reply::json(400, &quoting("invalid_grant")),
            "refused",
            "invalid_grant",
        ),
        (
            Reply::json(403, &quoting("invalid_grant")),
            "refused",
            "403",
        ),
        (
            Reply::json(400, &quoting("interaction_required")),
            "refused",
            "interaction",
        ),
        (
            Reply::json(400, &quoting("login_required")),
            "refused",
            "login_required",
        ),
        (
            Reply::json(401, &quoting("invalid_client")),
            "misconfigured",
            "client_id",
        ),
        (
            Reply::json(400, &quoting("unauthorized_client")),
            "misconfigured",
            "grants",
        ),
        (
            Reply::json(400, &quoting("invalid_request")),
            "misconfigured",
            "400",
        ),
        (
            Reply::json(400, &quoting("s3cret_code")),
            "misconfigured",
            "400",
        ),
        (Reply::json(404, ""), "misconfigured", "404"),
        (Reply::json(401, ""), "misconfigured", "client_id"),
        (
            Reply::json(500, &quoting("invalid_grant")),
            "unavailable",
            "500",
        ),
        (Reply::new(503, &retry, "s3cret"), "unavailable", "7s"),
        (Reply::new(429, &retry, ""), "unavailable", "7s"),
        (
            Reply::new(429, &[("Retry-After", "99999999")], ""),
            "unavailable",
            "300s",
        ),
        (
            Reply::new(302, &[("Location", "/s3cret")], ""),
            "misconfigured",
            "redirects",
        ),
        (Reply::json(200, "[\"s3cret\"]"), "misconfigured", "shape"),
        (
            Reply::new(200, &[("Content-Type", "text/html")], "s3cret"),
            "misconfigured",
            "JSON",
        ),
        (
            Reply::json(200, &"x".repeat(70_000)),
            "misconfigured",
            "larger",
        ),
        (Reply::Bytes(Vec::new()), "unavailable", "127.0.0.1"),
        (Reply::Stall(Vec::new()), "unavailable", "within"),
    ] {
        fake.reply("/token", reply.clone());
        for result in [
            provider.redeem(&code()).await,
            provider.refresh(&old_refresh_token(), "ada").await,
        ] {
            let (class, found) = class(result);
            assert_eq!(class, expected, "{reply:?} {found}");
            assert!(found.contains(text), "{reply:?} {found}");
        }
    }
    let unreadable = ClientProof::SecretPost(SecretRef::File("/nonexistent/secret".into()));
    let (class, text) = class(fake.provider_of(unreadable).redeem(&code()).await);
    assert!(
        class == "misconfigured" && text.contains("/nonexistent"),
        "{text}"
    );
}

#[tokio::test]
async fn an_id_token_that_is_not_valid_fails_the_sign_in() {
    let fake = Fake::start().await;
    let provider = fake.provider();
    for (changes, expected, text) in [
        (json!({"id_token": null}), "misconfigured", "openid"),
        (
            json!({"id_token": "s3cret"}),
            "invalid token",
            "well-formed",
        ),
        (
            json!({"id_token": fake.id_token(&json!({"nonce": "n-2"}))}),
            "invalid token",
            "nonce",
        ),
        (
            json!({"id_token": fake.id_token(&json!({"aud": "other"}))}),
            "invalid token",
            "audience",
        ),
        (
            json!({"id_token": fake.id_token(&json!({"exp": NOW - 31}))}),
            "invalid token",
            "expired",
        ),
        (
            json!({"id_token": fake.id_token(&json!({"iss": "https://x/"}))}),
            "invalid token",
            "issuer",
        ),
        (
            json!({"id_token": fake.id_token(&json!({"at_hash": "x"}))}),
            "invalid token",
            "at_hash",
        ),
        (
            json!({"id_token": "x".repeat(40_000)}),
            "invalid token",
            "32 KiB",
        ),
    ] {
        fake.issue(&changes);
        let (class, found) = class(provider.redeem(&code()).await);
        assert_eq!(class, expected, "{found}");
        assert!(found.contains(text), "{found}");
    }
}

#[tokio::test]
async fn an_access_token_that_the_issuer_would_refuse_fails_the_sign_in() {
    let fake = Fake::start().await;
    let provider = fake.provider();
    let of = |changes: Value| json!({"access_token": fake.access_token(&changes)});
    for (changes, text) in [
        (of(json!({"aud": "client-1"})), "audience or resource"),
        (of(json!({"iss": "https://other.example/"})), "not accepted"),
        (of(json!({"exp": NOW - 31})), "expired"),
        (
            json!({"access_token": "s3cret-opaque"}),
            "opaque access tokens",
        ),
        (
            json!({"access_token": "x".repeat(9_000)}),
            "opaque access tokens",
        ),
    ] {
        fake.issue(&changes);
        let (class, found) = class(provider.redeem(&code()).await);
        assert_eq!(class, "invalid token", "{found}");
        assert!(found.contains(text), "{found}");
    }
}

#[tokio::test]
async fn nobody_signs_in_while_the_keys_are_not_available() {
    let fake = Fake::start().await;
    fake.issue(&json!({}));
    fake.keys.go_down();
    let (class, text) = class(fake.provider().redeem(&code()).await);
    assert!(
        class == "unavailable" && text.contains("retry_after: Some"),
        "{text}"
    );
}

#[tokio::test]
async fn a_session_is_renewed_with_or_without_a_new_refresh_token() {
    let mut fake = Fake::start().await;
    let provider = fake.provider();
    let renewed = json!({"nonce": null, "name": "Ada L.", "sid": "s-2"});
    for (changes, refresh_token, name) in [
        (
            json!({"id_token": fake.id_token(&renewed)}),
            "s3cret-refresh-2",
            Some("Ada L."),
        ),
        (json!({"id_token": null}), "s3cret-refresh-2", None),
        (
            json!({"id_token": null, "refresh_token": null}),
            "s3cret-refresh-1",
            None,
        ),
        (
            json!({"id_token": null, "refresh_token": ""}),
            "s3cret-refresh-1",
            None,
        ),
    ] {
        fake.issue(&changes);
        let granted = provider.refresh(&old_refresh_token(), "ada").await.unwrap();
        assert_eq!(
            (granted.subject.as_str(), granted.name.as_deref()),
            ("ada", name)
        );
        let SessionGrant::Oidc {
            refresh_token: found,
            id_token,
            access_token_expires_at,
            ..
        } = granted.grant
        else {
            panic!("{changes}");
        };
        assert_eq!(found, Some(refresh_token.into()), "{changes}");
        assert_eq!(id_token.is_some(), name.is_some());
        assert_eq!(
            access_token_expires_at,
            Some(UnixMillis::from_secs(NOW + 200))
        );
    }
    let requests = fake.received();
    assert_eq!(requests.len(), 4);
    assert!(
        requests[0].contains(
            "grant_type=refresh_token&refresh_token=s3cret-refresh-1&resource=https%3A%2F%2Fapi"
        ),
        "{}",
        requests[0]
    );
}

#[tokio::test]
async fn a_renewal_for_another_user_is_refused() {
    let fake = Fake::start().await;
    let other = json!({"nonce": null, "sub": "eve"});
    for keys_down in [false, true] {
        if keys_down {
            fake.keys.go_down();
        }
        fake.issue(&json!({"id_token": fake.id_token(&other)}));
        let provider = fake.provider();
        let (class, text) = class(provider.refresh(&old_refresh_token(), "ada").await);
        assert!(
            class == "invalid token" && text.contains("other than"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn renewed_tokens_are_kept_while_the_keys_are_not_available() {
    let fake = Fake::start().await;
    fake.issue(&json!({"id_token": fake.id_token(&json!({"nonce": null}))}));
    fake.keys.go_down();
    let granted = fake
        .provider()
        .refresh(&old_refresh_token(), "ada")
        .await
        .unwrap();
    let SessionGrant::Oidc {
        refresh_token,
        access_token_expires_at,
        ..
    } = granted.grant
    else {
        panic!();
    };
    assert_eq!(refresh_token, Some("s3cret-refresh-2".into()));
    assert_eq!(
        access_token_expires_at,
        Some(UnixMillis::from_secs(NOW + 300))
    );
}

#[tokio::test]
async fn a_refresh_token_is_revoked_if_the_provider_can_do_that() {
    let mut fake = Fake::start().await;
    fake.reply("/revoke", Reply::new(200, &[], ""));
    let provider = fake.provider();
    provider.revoke(&old_refresh_token()).await.unwrap();
    let requests = fake.received();
    assert!(
        requests[0].ends_with("token=s3cret-refresh-1&token_type_hint=refresh_token"),
        "{requests:?}"
    );
    fake.reply("/revoke", Reply::json(503, "s3cret"));
    let (class, text) = class(provider.revoke(&old_refresh_token()).await);
    assert_eq!(class, "unavailable", "{text}");
    fake.publish(&json!({"revocation_endpoint": null}));
    fake.received();
    fake.provider().revoke(&old_refresh_token()).await.unwrap();
    assert!(fake.received().is_empty());
}

#[tokio::test]
async fn logout_tokens_are_verified_with_the_issuers_keys() {
    let fake = Fake::start().await;
    let provider = fake.provider();
    let claims = json!({
        "iss": fake.url.as_str(), "aud": "client-1", "sid": "s-1", "jti": "j-1", "iat": NOW, "exp": NOW + 60,
        "events": {"http://schemas.openid.net/event/backchannel-logout": {}},
    });
    let token = RSA.token(&json!({"typ": "logout+jwt"}), &claims);
    let found = provider.verify_logout_token(&token).await.unwrap();
    assert_eq!((found.id.as_str(), found.subject), ("j-1", None));
    assert_eq!(found.provider_session.as_deref(), Some("s-1"));
    assert_eq!(found.accepted_until, UnixMillis::from_secs(NOW + 90));
    let id_token = fake.id_token(&json!({}));
    let refused = provider.verify_logout_token(&id_token).await.unwrap_err();
    assert!(refused.to_string().contains("events"), "{refused}");
}

#[tokio::test]
async fn an_introspecting_issuers_id_tokens_are_verified_with_the_keys_of_its_metadata() {
    let fake = Fake::start().await;
    let jwks_uri = fake.url.join("jwks").unwrap().to_string();
    fake.publish(&json!({"jwks_uri": jwks_uri}));
    let document = json!({"keys": [RSA.jwk()]}).to_string();
    fake.reply("/jwks", Reply::json(200, &document));
    fake.issue(&json!({"access_token": "s3cret-opaque"}));
    let settings = fake.provider().settings;
    let config = IntrospectionIssuer {
        url: fake.url.to_string(),
        token_prefix: None,
        audiences: vec![AUDIENCE.into()],
        format: Profile::Rfc9068.format(),
        leeway: Duration::ZERO,
        clients: None,
        subjects: None,
        verified_max_age: Duration::from_secs(10),
    };
    let issuer = Issuer::introspection(
        "introspecting".into(),
        &config,
        Arc::new(Active),
        fake.clock.clone(),
        CacheBounds::of_entries(10),
        IntrospectionObserver::default(),
    );
    let provider = OidcProvider::new(settings, Arc::new(issuer), fake.clock.clone()).unwrap();
    let granted = provider.redeem(&code()).await.unwrap();
    assert_eq!(granted.subject, "ada");
}

/// Reports every token as active.
#[derive(Debug)]
struct Active;

#[async_trait]
impl Introspector for Active {
    async fn introspect(&self, _token: &BearerToken) -> Result<Vec<u8>, IntrospectionError> {
        let response = json!({"active": true, "sub": "ada", "aud": AUDIENCE, "exp": NOW + 60});
        Ok(response.to_string().into_bytes())
    }
}
