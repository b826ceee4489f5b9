//! Configured issuers, and the selection of the issuer that verifies a token.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::cache::{CachedToken, VerifiedTokenCache, Window};
use super::extensions::Extensions;
use super::introspection::{EPOCH, Introspection};
use super::jws::{Jws, claimed_issuers, is_opaque};
use super::keys::Keys;
use super::rules::{Rules, ValidatedClaims, ValidatedHeader};
use super::shared_secret::SharedSecret;
use super::{
    Advice, Caller, IntrospectionObserver, Introspector, KeyFetcher, PresentedToken,
    RefreshObserver, TokenDigest, TokenError, Unauthenticated, VerifiedToken,
};
use crate::bounded_cache::CacheBounds;
use crate::circuit_breaker::Origin;
use crate::clock::{Now, SharedClock};
use crate::token::settings::{IntrospectionIssuer, OidcIssuer, SharedSecretIssuer};

/// A configured issuer with its rules, keys and cache of verified tokens.
#[derive(Debug)]
pub struct Issuer {
    name: Arc<str>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Jwt(Box<JwtIssuer>),
    Introspection(Introspection),
    Delegated,
}

/// An issuer whose tokens are JWTs, which are verified locally.
#[derive(Debug)]
struct JwtIssuer {
    rules: Rules,
    keys: VerificationKeys,
    clock: SharedClock,
    cache: VerifiedTokenCache,
}

/// The keys that verify an issuer's signatures: public keys or a secret, never both.
#[derive(Debug)]
enum VerificationKeys {
    Public(Keys),
    Secret(SharedSecret),
}

/// Whether an issuer is ready, for readiness checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IssuerStatus {
    /// The keys are fresh, or stale within the limit, or no keys are needed.
    Usable,
    /// No keys have been fetched yet, or they are too old.
    NoKeys,
}

/// The caller that a token identifies, and how the token was verified.
#[derive(Clone, Debug)]
pub struct Authenticated {
    /// The caller.
    pub caller: Caller,
    /// "ok" for a token that was just verified, "cached" for a cached one; `None` if the credential
    /// exchange will verify it.
    pub verification: Option<&'static str>,
}

/// The result of one step of the background refresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WarmUp {
    /// Whether tokens of this issuer can be verified at present.
    pub status: IssuerStatus,
    /// When to take the next step; `None` if there is nothing to refresh.
    pub again_in: Option<Duration>,
}

impl Issuer {
    /// An `oidc` issuer that caches verified tokens within `cache`. No keys are fetched yet:
    /// [`Self::warm_up`] or the first token does that. `observer` is notified of the result of each
    /// refresh.
    pub fn oidc(
        name: Arc<str>,
        config: &OidcIssuer,
        fetcher: Arc<dyn KeyFetcher>,
        clock: SharedClock,
        cache: CacheBounds,
        observer: RefreshObserver,
    ) -> Self {
        let rules = Rules::new(config);
        let algorithms = rules.algorithms.clone();
        let keys = Keys::new(
            Arc::clone(&name),
            fetcher,
            Arc::clone(&clock),
            algorithms,
            observer,
        );
        let jwt = JwtIssuer {
            rules,
            keys: VerificationKeys::Public(keys),
            cache: VerifiedTokenCache::new(clock.clone(), cache, config.verified_max_age),
            clock,
        };
        Self {
            name,
            kind: Kind::Jwt(Box::new(jwt)),
        }
    }

    /// A `shared-secret` issuer that caches verified tokens within `cache`. The secret is not
    /// read yet: [`Self::warm_up`] or the first token does that.
    pub fn shared_secret(
        name: Arc<str>,
        config: &SharedSecretIssuer,
        clock: SharedClock,
        cache: CacheBounds,
    ) -> Self {
        let secret = SharedSecret::new(
            Arc::clone(&name),
            config.secret.clone(),
            config.encoding,
            config.algorithms.clone(),
            clock.clone(),
        );
        let jwt = JwtIssuer {
            rules: Rules::for_shared_secret(config),
            keys: VerificationKeys::Secret(secret),
            cache: VerifiedTokenCache::new(clock.clone(), cache, config.verified_max_age),
            clock,
        };
        Self {
            name,
            kind: Kind::Jwt(Box::new(jwt)),
        }
    }

    /// An `introspection` issuer that caches responses within `cache`. `observer` is
    /// notified of the result of each introspection.
    pub fn introspection(
        name: Arc<str>,
        config: &IntrospectionIssuer,
        introspector: Arc<dyn Introspector>,
        clock: SharedClock,
        cache: CacheBounds,
        observer: IntrospectionObserver,
    ) -> Self {
        let introspection = Introspection::new(
            Arc::clone(&name),
            config,
            introspector,
            clock,
            cache,
            observer,
        );
        Self {
            name,
            kind: Kind::Introspection(introspection),
        }
    }

    /// A `delegated` issuer, whose tokens the credential exchange verifies.
    pub fn delegated(name: Arc<str>) -> Self {
        Self {
            name,
            kind: Kind::Delegated,
        }
    }

    /// The configured name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Whether the credential exchange verifies this issuer's tokens.
    pub fn is_delegated(&self) -> bool {
        matches!(self.kind, Kind::Delegated)
    }

    /// Whether tokens are introspected.
    pub fn introspects(&self) -> bool {
        matches!(self.kind, Kind::Introspection(_))
    }

    /// Whether the circuit to the introspection endpoint is open.
    pub fn is_circuit_open(&self) -> bool {
        match &self.kind {
            Kind::Introspection(introspection) => introspection.is_circuit_open(),
            Kind::Jwt(_) | Kind::Delegated => false,
        }
    }

    /// Whether tokens can be verified at present. An `introspection` issuer needs no keys and
    /// always counts as usable, even if it turns out not to respond.
    pub fn status(&self) -> IssuerStatus {
        match self.as_jwt() {
            Some(issuer) if !issuer.keys.usable() => IssuerStatus::NoKeys,
            _ => IssuerStatus::Usable,
        }
    }

    /// The time since the public keys were last fetched; `None` if they have never been, or if the
    /// issuer has none.
    pub fn keys_age(&self) -> Option<Duration> {
        match &self.as_jwt()?.keys {
            VerificationKeys::Public(keys) => keys.age(),
            VerificationKeys::Secret(_) => None,
        }
    }

    /// Why the latest fetch of the public keys yielded none that can be used, for operators; `None` if it
    /// did, or if the issuer has none.
    pub fn keys_problem(&self) -> Option<String> {
        match &self.as_jwt()?.keys {
            VerificationKeys::Public(keys) => keys.problem(),
            VerificationKeys::Secret(_) => None,
        }
    }

    /// Takes one step of the background refresh: fetches the keys if due, and waits for the result.
    /// Call this in a loop, sleeping for [`WarmUp::again_in`] between calls.
    pub async fn warm_up(&self) -> WarmUp {
        let mut again_in = None;
        if let Some(issuer) = self.as_jwt() {
            again_in = Some(issuer.keys.refresh().await.max(Duration::from_secs(1)));
        }
        WarmUp {
            status: self.status(),
            again_in,
        }
    }

    fn as_jwt(&self) -> Option<&JwtIssuer> {
        match &self.kind {
            Kind::Jwt(issuer) => Some(issuer),
            Kind::Introspection(_) | Kind::Delegated => None,
        }
    }

    /// The rules and the public keys of an `oidc` issuer, for tokens of other kinds.
    pub(super) fn public_keys(&self) -> Option<(&Rules, &Keys, &SharedClock)> {
        let issuer = self.as_jwt()?;
        match &issuer.keys {
            VerificationKeys::Public(keys) => Some((&issuer.rules, keys, &issuer.clock)),
            VerificationKeys::Secret(_) => None,
        }
    }

    /// The exact `iss`, if the issuer has one.
    fn url(&self) -> Option<&str> {
        match &self.kind {
            Kind::Jwt(issuer) => Some(&issuer.rules.url),
            Kind::Introspection(introspection) => Some(introspection.url()),
            Kind::Delegated => None,
        }
    }

    /// The token with this digest, if it is cached and still acceptable at `now`; see
    /// [`VerifiedTokenCache::get`].
    fn cached(&self, digest: TokenDigest, now: Option<Now>) -> Option<Arc<CachedToken>> {
        match &self.kind {
            Kind::Jwt(issuer) => issuer.cached(digest, now),
            Kind::Introspection(introspection) => introspection.cached(digest, now),
            Kind::Delegated => None,
        }
    }

    /// Whether `cached`, which this issuer has verified, is still acceptable at `now`.
    pub(super) fn accepts(&self, cached: &CachedToken, now: Now) -> bool {
        match &self.kind {
            Kind::Jwt(issuer) => {
                cached.is_acceptable(now, |monotonic| issuer.keys.epoch(monotonic))
            }
            Kind::Introspection(_) => cached.is_acceptable(now, |_| Some(EPOCH)),
            Kind::Delegated => false,
        }
    }

    fn is_issuer_of(&self, iss: &str) -> bool {
        self.url() == Some(iss)
    }
}

/// A token that an issuer has cached.
pub(super) struct CacheHit<'i> {
    pub(super) issuer: &'i Arc<Issuer>,
    pub(super) cached: Arc<CachedToken>,
}

impl Authenticated {
    /// The caller that `cached` identifies.
    pub(super) fn cached(cached: &CachedToken) -> Self {
        Self {
            caller: Caller::Verified(Arc::clone(&cached.token)),
            verification: Some("cached"),
        }
    }
}

/// The token, if one of `issuers` has it cached: the hot path of [`authenticate`].
pub(super) fn find_cached<'i>(
    token: PresentedToken<'_>,
    issuers: &'i [Arc<Issuer>],
    now: Option<Now>,
) -> Option<CacheHit<'i>> {
    issuers.iter().find_map(|issuer| {
        let cached = issuer.cached(token.digest(), now)?;
        Some(CacheHit { issuer, cached })
    })
}

/// Verifies `token` with one of `issuers`. A token whose `iss` is that of one of them is verified
/// by that issuer only. A token that names no issuer at all is opaque and goes to the
/// `introspection` issuer with the longest matching prefix. Any other token goes to the `delegated`
/// issuer, if there is one. `peer` is the client's address, which failures of tokens that nobody
/// has verified yet count for. No issuer therefore ever receives a token that names another configured
/// issuer.
///
/// # Errors
/// With the first rule that the token violates, and the issuer whose rule it is.
pub async fn authenticate<'t>(
    token: impl Into<PresentedToken<'t>>,
    issuers: &[Arc<Issuer>],
    peer: Option<IpAddr>,
) -> Result<Authenticated, Unauthenticated> {
    let token = token.into();
    if let Some(hit) = find_cached(token, issuers, None) {
        return Ok(Authenticated::cached(&hit.cached));
    }
    let (issuer, verified) = match choose(token.expose(), issuers)? {
        Choice::Verify(issuer, jwt, jws) => (issuer, jwt.verify(issuer, token.digest(), jws).await),
        Choice::Introspect(issuer, introspection) => {
            let origin = Origin::of_peer(peer);
            let verified = introspection.verify(&token.to_bearer(), origin).await;
            (issuer, verified.map_err(|error| (error, None)))
        }
        Choice::Delegate(issuer) => {
            return Ok(Authenticated {
                caller: Caller::Delegated {
                    issuer: Arc::clone(&issuer.name),
                    digest: token.digest(),
                    peer,
                },
                verification: None,
            });
        }
    };
    match verified {
        Ok(verified) => Ok(Authenticated {
            caller: Caller::Verified(verified),
            verification: Some("ok"),
        }),
        Err((error, advice)) => Err(Unauthenticated {
            issuer: Some(Arc::clone(&issuer.name)),
            error,
            advice,
        }),
    }
}

/// How a token is verified, and by which issuer.
enum Choice<'a> {
    Verify(&'a Issuer, &'a JwtIssuer, Jws<'a>),
    Introspect(&'a Issuer, &'a Introspection),
    Delegate(&'a Issuer),
}

/// Chooses the issuer that must verify `token`. `iss` is not trusted here; it only selects the
/// issuer.
fn choose<'a>(token: &'a str, issuers: &'a [Arc<Issuer>]) -> Result<Choice<'a>, Unauthenticated> {
    let error = match Jws::parse(token) {
        Ok(jws) => {
            let iss = jws.claims.get("iss").and_then(Value::as_str);
            let unknown = match iss {
                Some(_) => TokenError::UnknownIssuer,
                None => TokenError::claim("iss"),
            };
            let named = iss.and_then(|iss| issuers.iter().find(|i| i.is_issuer_of(iss)));
            match named.map(|issuer| (issuer, &issuer.kind)) {
                Some((issuer, Kind::Jwt(jwt))) => {
                    return Ok(Choice::Verify(issuer, jwt, jws));
                }
                Some((issuer, Kind::Introspection(introspection))) => {
                    return Ok(Choice::Introspect(issuer, introspection));
                }
                Some((_, Kind::Delegated)) | None => unknown,
            }
        }
        Err(TokenError::Malformed | TokenError::Encrypted) if is_opaque(token) => {
            TokenError::Opaque
        }
        Err(error) => error,
    };
    let claimed = claimed_issuers(token);
    if let Some(issuer) = named_issuer(&claimed, issuers) {
        // Malformed or ambiguous, but a lenient parser would find the name of a configured issuer:
        // refuse the token rather than let another party interpret it differently.
        return Err(Unauthenticated {
            issuer: Some(Arc::clone(&issuer.name)),
            error,
            advice: None,
        });
    }
    if claimed.is_empty()
        && let Some((issuer, introspection)) = introspection_of_opaque(token, issuers)
    {
        return Ok(Choice::Introspect(issuer, introspection));
    }
    let delegated = issuers.iter().find(|i| i.is_delegated());
    let delegated = delegated.map(|issuer| Choice::Delegate(issuer));
    delegated.ok_or(Unauthenticated {
        issuer: None,
        error,
        advice: None,
    })
}

/// The `introspection` issuer with the longest prefix that `token` starts with, otherwise the one
/// without a prefix.
fn introspection_of_opaque<'a>(
    token: &str,
    issuers: &'a [Arc<Issuer>],
) -> Option<(&'a Issuer, &'a Introspection)> {
    let candidates = issuers.iter().filter_map(|issuer| match &issuer.kind {
        Kind::Introspection(introspection) => Some((&**issuer, introspection)),
        Kind::Jwt(_) | Kind::Delegated => None,
    });
    candidates
        .map(|(issuer, introspection)| {
            let prefix = introspection.prefix().unwrap_or_default();
            (prefix, issuer, introspection)
        })
        .filter(|(prefix, ..)| token.starts_with(prefix))
        .max_by_key(|(prefix, ..)| prefix.len())
        .map(|(_, issuer, introspection)| (issuer, introspection))
}

/// The issuer that a possibly malformed token names in any way.
fn named_issuer<'a>(claimed: &[Value], issuers: &'a [Arc<Issuer>]) -> Option<&'a Arc<Issuer>> {
    fn names(value: &Value, issuer: &Issuer) -> bool {
        match value {
            Value::String(iss) => issuer.is_issuer_of(iss),
            Value::Array(list) => list.iter().any(|v| names(v, issuer)),
            _ => false,
        }
    }
    issuers
        .iter()
        .find(|issuer| claimed.iter().any(|v| names(v, issuer)))
}

impl VerificationKeys {
    fn usable(&self) -> bool {
        match self {
            Self::Public(keys) => keys.usable(),
            Self::Secret(secret) => secret.epoch().is_some(),
        }
    }

    /// Refreshes the keys if due, and returns the time until the next refresh.
    async fn refresh(&self) -> Duration {
        match self {
            Self::Public(keys) => {
                keys.refresh_if_due().await;
                keys.next_refresh_in()
            }
            Self::Secret(secret) => {
                secret.refresh_if_due().await;
                secret.next_refresh_in()
            }
        }
    }

    /// The epoch of the keys at a monotonic time, if they may be used.
    fn epoch(&self, monotonic: Duration) -> Option<u64> {
        match self {
            Self::Public(keys) => keys.current_epoch(monotonic),
            Self::Secret(secret) => secret.epoch(),
        }
    }

    /// Verifies the signature, and returns the epoch of the keys that did.
    async fn verify(&self, header: &ValidatedHeader<'_>, jws: &Jws<'_>) -> Result<u64, TokenError> {
        match self {
            Self::Public(keys) => keys.verify(header, jws).await,
            Self::Secret(secret) => {
                let (signing_input, signature) = (jws.signing_input, jws.signature);
                secret
                    .verify(header.algorithm, signing_input, signature)
                    .await
            }
        }
    }
}

impl JwtIssuer {
    /// The token with this digest, if it is cached and still acceptable.
    fn cached(&self, digest: TokenDigest, now: Option<Now>) -> Option<Arc<CachedToken>> {
        let epoch = |monotonic| self.keys.epoch(monotonic);
        self.cache.get(digest, now, epoch)
    }

    /// Verifies a token. A refusal may come with advice.
    async fn verify(
        &self,
        issuer: &Issuer,
        digest: TokenDigest,
        jws: Jws<'_>,
    ) -> Result<Arc<VerifiedToken>, (TokenError, Option<Advice>)> {
        let (epoch, claims) = self.check(&jws).await.map_err(|error| {
            let advice = self.rules.advice(&error, &jws.header, &jws.claims);
            (error, advice)
        })?;
        let window = Window {
            from: claims.starts_at.map(|t| self.rules.accepted_from(t)),
            until: self.rules.accepted_until(claims.expires_at),
        };
        let token = Arc::new(VerifiedToken {
            issuer: Arc::clone(&issuer.name),
            subject: claims.subject,
            client: claims.client,
            scopes: claims.scopes,
            permissions: claims.permissions,
            expires_at: claims.expires_at,
            accepted_until: window.until,
            claims: jws.claims,
            digest,
            extensions: Extensions::default(),
        });
        self.cache.insert(&token, epoch, window);
        Ok(token)
    }

    /// Checks header, signature and claims. Returns the epoch of the keys that verified the signature.
    async fn check(&self, jws: &Jws<'_>) -> Result<(u64, ValidatedClaims), TokenError> {
        let header = self.rules.validate_header(&jws.header)?;
        let epoch = self.keys.verify(&header, jws).await?;
        let (is_at_jwt, now) = (header.is_at_jwt, self.clock.now());
        let claims = self.rules.validate_claims(&jws.claims, is_at_jwt, now)?;
        Ok((epoch, claims))
    }
}

#[cfg(test)]
mod tests;
