//! The fake provider, the browser and the sessions under test.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::Path;
use std::sync::Mutex;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use futures::FutureExt as _;
use http::{HeaderMap, HeaderValue, header};
use tempfile::TempDir;
use tokio::sync::Semaphore;

use super::super::settings::{SessionStore, Unauthenticated};
use super::super::*;
use crate::clock::{Clock, ManualClock, UnixMillis};
use crate::credential::{Credential, Lease};
use crate::hawk::Credentials;
use crate::secret::{SecretRef, SecretString};
use crate::shared_store::Fleet;
use crate::signin::AuthorizationCode;
use crate::token::BearerToken;

pub(super) const START: UnixMillis = UnixMillis::from_secs(1_796_000_000);
pub(super) const ISSUER: &str = "https://idp.example/";

pub(super) fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// Lets spawned tasks run until they wait for something else.
pub(super) async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// A JWT of about `size` bytes whose signature contains `secret`.
pub(super) fn jwt(secret: &str, size: usize) -> String {
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256","typ":"JWT"}"#);
    let signature = URL_SAFE_NO_PAD.encode(format!("{secret}{}", "s".repeat(200)));
    let rest = size.saturating_sub(header.len() + signature.len() + 2) * 3 / 4;
    let claims = URL_SAFE_NO_PAD.encode(format!("{{\"c\":\"{}\"}}", "c".repeat(rest)));
    format!("{header}.{claims}.{signature}")
}

pub(super) fn tokens(
    access_token: &str,
    expires_at: Option<UnixMillis>,
    refresh_token: Option<&str>,
    id_token: Option<&str>,
) -> SessionGrant {
    SessionGrant::Oidc {
        access_token: BearerToken::new(access_token).unwrap(),
        access_token_expires_at: expires_at,
        refresh_token: refresh_token.map(SecretString::from),
        id_token: id_token.map(SecretString::from),
    }
}

pub(super) fn taskcluster(expires_at: UnixMillis, now: Now) -> SessionGrant {
    let credentials = Credentials {
        client_id: "mozilla/web-abc123".into(),
        access_token: SecretString::from("tc-access-token-secret"),
        certificate: None,
        authorized_scopes: Some(vec!["a:b".into(), "c:*".into()]),
    };
    let credential = Credential::taskcluster(&credentials).unwrap();
    SessionGrant::Taskcluster {
        lease: Lease::detached(credential, expires_at, now),
        credentials,
        expires_at,
    }
}

pub(super) fn grant(grant: SessionGrant) -> ProviderGrant {
    ProviderGrant {
        grant,
        subject: "auth0|user".into(),
        name: Some("Ada Lovelace".into()),
        email: Some("ada@example.com".into()),
        provider_session: Some("sid-1".into()),
    }
}

/// Answers as scripted, and records what it was asked.
#[derive(Debug)]
pub(super) struct FakeProvider {
    pub(super) endpoints: Mutex<Result<ProviderEndpoints, ProviderError>>,
    pub(super) redeems: Mutex<VecDeque<Result<ProviderGrant, ProviderError>>>,
    pub(super) refreshes: Mutex<VecDeque<Result<ProviderGrant, ProviderError>>>,
    pub(super) logout_tokens: Mutex<HashMap<String, LogoutToken>>,
    /// The codes that were redeemed.
    pub(super) codes: Mutex<Vec<AuthorizationCode>>,
    /// The refresh tokens that were used.
    pub(super) used: Mutex<Vec<String>>,
    pub(super) revoked: Mutex<Vec<String>>,
    /// Each refresh takes a permit.
    pub(super) gate: Semaphore,
}

impl Default for FakeProvider {
    fn default() -> Self {
        let endpoints = ProviderEndpoints {
            issuer: ISSUER.into(),
            authorization: "https://idp.example/authorize?tenant=t".parse().unwrap(),
            end_session: Some("https://idp.example/logout?x=y".parse().unwrap()),
            iss_required: false,
        };
        Self {
            endpoints: Mutex::new(Ok(endpoints)),
            redeems: Mutex::default(),
            refreshes: Mutex::default(),
            logout_tokens: Mutex::default(),
            codes: Mutex::default(),
            used: Mutex::default(),
            revoked: Mutex::default(),
            gate: Semaphore::new(1000),
        }
    }
}

#[async_trait]
impl IdentityProvider for FakeProvider {
    async fn endpoints(&self) -> Result<ProviderEndpoints, ProviderError> {
        self.endpoints.lock().unwrap().clone()
    }

    async fn redeem(&self, code: &AuthorizationCode) -> Result<ProviderGrant, ProviderError> {
        self.codes.lock().unwrap().push(AuthorizationCode {
            code: code.code.clone(),
            code_verifier: code.code_verifier.clone(),
            nonce: code.nonce.clone(),
            redirect_uri: code.redirect_uri.clone(),
        });
        self.redeems.lock().unwrap().pop_front().expect("a redeem")
    }

    async fn refresh(
        &self,
        refresh_token: &SecretString,
        _subject: &str,
    ) -> Result<ProviderGrant, ProviderError> {
        let used = refresh_token.expose().to_owned();
        self.used.lock().unwrap().push(used);
        self.gate.acquire().await.unwrap().forget();
        let answer = self.refreshes.lock().unwrap().pop_front();
        answer.expect("a refresh")
    }

    async fn revoke(&self, refresh_token: &SecretString) -> Result<(), ProviderError> {
        let revoked = refresh_token.expose().to_owned();
        self.revoked.lock().unwrap().push(revoked);
        Ok(())
    }

    async fn verify_logout_token(&self, token: &str) -> Result<LogoutToken, LogoutTokenError> {
        let known = self.logout_tokens.lock().unwrap().get(token).cloned();
        known.ok_or_else(|| LogoutTokenError::Invalid("the logout token is not valid".into()))
    }
}

/// Counts refreshes.
#[derive(Debug, Default)]
pub(super) struct Observed(pub(super) Mutex<Vec<RefreshResult>>);

impl RefreshObserver for Observed {
    fn refreshed(&self, result: RefreshResult) {
        self.0.lock().unwrap().push(result);
    }
}

/// A cookie jar.
#[derive(Clone, Debug, Default)]
pub(super) struct Browser(pub(super) BTreeMap<String, String>);

impl Browser {
    pub(super) fn take(&mut self, cookies: &[SetCookie]) {
        for cookie in cookies {
            let text = cookie.as_str();
            assert!(HeaderValue::from_str(text).is_ok());
            let (pair, attributes) = text.split_once(';').unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            if attributes.contains("Max-Age=0;") {
                self.0.remove(name);
            } else {
                self.0.insert(name.to_owned(), value.to_owned());
            }
        }
    }

    pub(super) fn headers(&self) -> HeaderMap {
        let pairs: Vec<_> = self
            .0
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        cookies(&[&pairs.join("; ")])
    }
}

/// The header fields of a request with these `Cookie` fields.
pub(super) fn cookies(fields: &[&str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for field in fields {
        headers.append(header::COOKIE, HeaderValue::from_str(field).unwrap());
    }
    headers
}

pub(super) struct Fixture {
    pub(super) clock: Arc<ManualClock>,
    pub(super) provider: Arc<FakeProvider>,
    pub(super) observed: Arc<Observed>,
    pub(super) settings: SessionSettings,
    pub(super) sessions: Sessions,
    pub(super) site: Site,
    folder: TempDir,
}

pub(super) const NAME: &str = "__Host-hawkgate-web";

impl Fixture {
    pub(super) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(super) fn with(change: impl FnOnce(&mut SessionSettings)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = SessionSettings {
            name: "web".into(),
            kind: SessionKind::Oidc,
            provider: ISSUER.into(),
            client_id: "client 1".into(),
            scopes: vec!["openid".into(), "offline_access".into()],
            audience: Some("urn:api".into()),
            resource: None,
            store: SessionStore::Cookie,
            cookie_key: key(folder.path(), 1),
            previous_cookie_key: None,
            idle: Duration::from_hours(8),
            lifetime: Duration::from_hours(7 * 24),
            prefix: "/oauth2/".into(),
            unauthenticated: Unauthenticated::Login,
            origin: None,
            timeout: secs(5),
        };
        change(&mut settings);
        let clock = ManualClock::at(START);
        let (provider, observed) = (Arc::default(), Arc::<Observed>::default());
        let sessions = build(&settings, &provider, &observed, &clock, None);
        Self {
            clock,
            provider,
            observed,
            settings,
            sessions,
            site: Site {
                origin: "https://app.example".into(),
                security: SiteSecurity::Https,
            },
            folder,
        }
    }

    /// Another replica, or the only one of a fleet: the same clock and provider, but other sessions.
    pub(super) fn replica(&self, fleet: &Fleet, change: impl FnOnce(&mut SessionSettings)) -> Self {
        let mut settings = self.settings.clone();
        change(&mut settings);
        let (clock, provider) = (Arc::clone(&self.clock), Arc::clone(&self.provider));
        let observed = Arc::<Observed>::default();
        let (of, with) = (Arc::clone(&provider), Arc::clone(&observed));
        let sessions = Sessions::new(settings.clone(), of, with, clock.clone(), None, Some(fleet));
        Self {
            clock,
            provider,
            observed,
            settings,
            sessions: sessions.unwrap(),
            site: self.site.clone(),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// The key with this number.
    pub(super) fn key(&self, number: u8) -> SecretRef {
        key(self.folder.path(), number)
    }

    /// Sessions with other settings, in the same process if `same_process`.
    pub(super) fn rebuilt(
        &self,
        same_process: bool,
        change: impl FnOnce(&mut SessionSettings),
    ) -> Sessions {
        let mut settings = self.settings.clone();
        change(&mut settings);
        let predecessor = same_process.then_some(&self.sessions);
        build(
            &settings,
            &self.provider,
            &self.observed,
            &self.clock,
            predecessor,
        )
    }

    pub(super) fn now(&self) -> Now {
        Now::read(&*self.clock)
    }

    pub(super) fn after(&self, duration: Duration) -> UnixMillis {
        self.clock.now().plus(duration)
    }

    /// Begins a sign-in. Returns the parameters of the authorization request.
    pub(super) async fn begin(&self, browser: &mut Browser, to: &str) -> HashMap<String, String> {
        let headers = browser.headers();
        let begun = self
            .sessions
            .begin(to, &self.site, &headers, self.now())
            .await
            .unwrap();
        browser.take(&begun.cookies);
        begun.location.query_pairs().into_owned().collect()
    }

    pub(super) async fn complete(
        &self,
        browser: &Browser,
        query: &str,
    ) -> Result<SignedIn, SignInError> {
        let headers = browser.headers();
        self.sessions
            .complete(query, &self.site, &headers, self.now())
            .await
    }

    pub(super) fn will_redeem(&self, grant: ProviderGrant) {
        self.provider.redeems.lock().unwrap().push_back(Ok(grant));
    }

    pub(super) fn will_refresh(&self, answer: Result<ProviderGrant, ProviderError>) {
        self.provider.refreshes.lock().unwrap().push_back(answer);
    }

    /// The refresh tokens that were used.
    pub(super) fn used(&self) -> Vec<String> {
        self.provider.used.lock().unwrap().clone()
    }

    /// Signs in with `grant`.
    pub(super) async fn signed_in(&self, grant: ProviderGrant) -> (Browser, Arc<UserSession>) {
        let mut browser = Browser::default();
        let session = self.sign_in(&mut browser, grant).await;
        (browser, session)
    }

    pub(super) async fn sign_in(
        &self,
        browser: &mut Browser,
        grant: ProviderGrant,
    ) -> Arc<UserSession> {
        let sent = self.begin(browser, "/").await;
        self.will_redeem(grant);
        let query = format!("code=c&state={}", sent["state"]);
        let signed_in = self.complete(browser, &query).await.unwrap();
        browser.take(&signed_in.cookies);
        signed_in.session
    }

    pub(super) fn open(&self, browser: &Browser) -> Presented {
        open(&self.sessions, &browser.headers(), self.now())
    }

    /// Opens the browser's session, which must be open.
    pub(super) fn opened(&self, browser: &Browser) -> Arc<UserSession> {
        match self.open(browser) {
            Presented::Open(session) => session,
            other => panic!("{other:?}"),
        }
    }

    /// Opens and renews the browser's session, as a request does.
    pub(super) async fn request(&self, browser: &mut Browser) -> Result<Renewed, RenewError> {
        let session = self.opened(browser);
        let renewed = self
            .sessions
            .renew(session, SiteSecurity::Https, self.now())
            .await?;
        browser.take(renewed.cookie.as_slice());
        Ok(renewed)
    }
}

fn key(folder: &Path, number: u8) -> SecretRef {
    let path = folder.join(format!("key{number}"));
    let bytes: Vec<u8> = (0..32).map(|index| index * number).collect();
    std::fs::write(&path, STANDARD.encode(bytes)).unwrap();
    SecretRef::File(path)
}

fn build(
    settings: &SessionSettings,
    provider: &Arc<FakeProvider>,
    observed: &Arc<Observed>,
    clock: &Arc<ManualClock>,
    predecessor: Option<&Sessions>,
) -> Sessions {
    let (provider, observed) = (Arc::clone(provider), Arc::clone(observed));
    let clock = Arc::clone(clock);
    Sessions::new(
        settings.clone(),
        provider,
        observed,
        clock,
        predecessor,
        None,
    )
    .unwrap()
}

pub(super) fn open(sessions: &Sessions, headers: &HeaderMap, now: Now) -> Presented {
    let mut memo = SessionMemo::default();
    let opening = sessions.open(headers, SiteSecurity::Https, now, &mut memo);
    opening.now_or_never().expect("awaits nothing")
}

#[track_caller]
pub(super) fn assert_ended(presented: &Presented, expected: Ended) {
    match presented {
        Presented::Ended(ended) => assert_eq!(*ended, expected),
        other => panic!("{other:?}"),
    }
}

pub(super) fn access_token(session: &UserSession) -> &str {
    match &session.grant {
        SessionGrant::Oidc { access_token, .. } => access_token.expose(),
        SessionGrant::Taskcluster { .. } => panic!("no tokens"),
    }
}
