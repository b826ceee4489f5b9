//! One configured issuer, and the choice among several.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::cache::{VerifiedTokenCache, Window};
use super::extensions::Extensions;
use super::introspection::Introspection;
use super::jws::{Jws, possible_issuers};
use super::keys::Keys;
use super::rules::{Rules, Wanted};
use super::shared_secret::SharedSecret;
use super::{
    Caller, IntrospectionObserver, Introspector, KeyFetcher, PresentedToken, RefreshObserver,
    TokenDigest, TokenError, Unauthenticated, VerifiedToken,
};
use crate::clock::{Now, SharedClock};
use crate::token::settings::{IntrospectionIssuer, OidcIssuer, SharedSecretIssuer};

/// A configured issuer: its rules, its keys, its verified tokens.
#[derive(Debug)]
pub struct Issuer {
    name: Arc<str>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Signed(Box<Signed>),
    Introspection(Introspection),
    Delegated,
}

/// An issuer whose tokens are JWTs that can be verified here.
#[derive(Debug)]
struct Signed {
    rules: Rules,
    proof: Proof,
    clock: SharedClock,
    cache: VerifiedTokenCache,
}

/// What its signatures are checked with: public keys, or a secret; never both.
#[derive(Debug)]
enum Proof {
    Keys(Keys),
    Secret(SharedSecret),
}

/// What readiness asks of an issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IssuerStatus {
    /// Keys are there (fresh or stale but within the limit), or none are needed.
    Usable,
    /// No keys were ever had, or they are too old.
    NoKeys,
}

/// Who a token stands for, and how that was found out.
#[derive(Clone, Debug)]
pub struct Authenticated {
    /// Who.
    pub caller: Caller,
    /// "ok" for a token verified now, "cached" for one verified before; nothing where the
    /// exchange will be the check.
    pub how: Option<&'static str>,
}

/// What a step of the background refresh found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WarmUp {
    /// Whether tokens of this issuer can be verified now.
    pub status: IssuerStatus,
    /// When to take the next step; `None`: there will never be anything to do.
    pub again_in: Option<Duration>,
}

impl Issuer {
    /// An `oidc` issuer that remembers up to `max_verified` verified tokens. Nothing is
    /// fetched yet: that is done by [`Self::warm_up`] or the first token. `observer` is
    /// told how each attempt to refresh the keys ends.
    pub fn oidc(
        name: Arc<str>,
        config: &OidcIssuer,
        fetcher: Arc<dyn KeyFetcher>,
        clock: SharedClock,
        max_verified: u64,
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
        let signed = Signed {
            rules,
            proof: Proof::Keys(keys),
            cache: VerifiedTokenCache::new(clock.clone(), max_verified, config.verified_max_age),
            clock,
        };
        Self {
            name,
            kind: Kind::Signed(Box::new(signed)),
        }
    }

    /// A `shared-secret` issuer that remembers up to `max_verified` verified tokens. The
    /// secret is read by [`Self::warm_up`] or for the first token.
    pub fn shared_secret(
        name: Arc<str>,
        config: &SharedSecretIssuer,
        clock: SharedClock,
        max_verified: u64,
    ) -> Self {
        let secret = SharedSecret::new(
            Arc::clone(&name),
            config.secret.clone(),
            config.encoding,
            config.algorithms.clone(),
            clock.clone(),
        );
        let signed = Signed {
            rules: Rules::of_shared_secret(config),
            proof: Proof::Secret(secret),
            cache: VerifiedTokenCache::new(clock.clone(), max_verified, config.verified_max_age),
            clock,
        };
        Self {
            name,
            kind: Kind::Signed(Box::new(signed)),
        }
    }

    /// An `introspection` issuer that remembers up to `max_verified` answers. `observer` is
    /// told how each question ends.
    pub fn introspection(
        name: Arc<str>,
        config: &IntrospectionIssuer,
        introspector: Arc<dyn Introspector>,
        clock: SharedClock,
        max_verified: u64,
        observer: IntrospectionObserver,
    ) -> Self {
        let asked = Introspection::new(
            Arc::clone(&name),
            config,
            introspector,
            clock,
            max_verified,
            observer,
        );
        Self {
            name,
            kind: Kind::Introspection(asked),
        }
    }

    /// A `delegated` issuer.
    pub fn delegated(name: Arc<str>) -> Self {
        Self {
            name,
            kind: Kind::Delegated,
        }
    }

    /// Its configured name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Whether its tokens are proved by the source that they are exchanged at.
    pub fn is_delegated(&self) -> bool {
        matches!(self.kind, Kind::Delegated)
    }

    /// Whether tokens can be verified now. Whoever is asked about each token needs no keys:
    /// whether it answers shows with the next token only.
    pub fn status(&self) -> IssuerStatus {
        match self.as_signed() {
            Some(signed) if !signed.proof.usable() => IssuerStatus::NoKeys,
            _ => IssuerStatus::Usable,
        }
    }

    /// How long ago its public keys were last fetched; `None` if never, or if it has none.
    pub fn keys_age(&self) -> Option<Duration> {
        match &self.as_signed()?.proof {
            Proof::Keys(keys) => keys.age(),
            Proof::Secret(_) => None,
        }
    }

    /// One step of keeping the keys fresh in the background: fetches if that is due and
    /// waits for it. Meant for a loop that sleeps for [`WarmUp::again_in`] in between.
    pub async fn warm_up(&self) -> WarmUp {
        let mut again_in = None;
        if let Some(signed) = self.as_signed() {
            again_in = Some(signed.proof.refresh().await.max(Duration::from_secs(1)));
        }
        WarmUp {
            status: self.status(),
            again_in,
        }
    }

    fn as_signed(&self) -> Option<&Signed> {
        match &self.kind {
            Kind::Signed(signed) => Some(signed),
            Kind::Introspection(_) | Kind::Delegated => None,
        }
    }

    /// Its exact `iss`, if it has one.
    fn url(&self) -> Option<&str> {
        match &self.kind {
            Kind::Signed(signed) => Some(&signed.rules.url),
            Kind::Introspection(asked) => Some(asked.url()),
            Kind::Delegated => None,
        }
    }

    /// The token with this digest, if it was found good before and would be again `now`;
    /// see [`VerifiedTokenCache::cached`].
    fn cached(&self, digest: TokenDigest, now: Option<Now>) -> Option<Arc<VerifiedToken>> {
        match &self.kind {
            Kind::Signed(signed) => signed.cached(digest, now),
            Kind::Introspection(asked) => asked.cached(digest, now),
            Kind::Delegated => None,
        }
    }

    fn is_issuer_of(&self, iss: &str) -> bool {
        self.url() == Some(iss)
    }
}

/// Who `token` stands for, where one of `issuers` remembers it: the hot path of
/// [`authenticate`].
pub fn cached(
    token: PresentedToken<'_>,
    issuers: &[Arc<Issuer>],
    now: Now,
) -> Option<Authenticated> {
    cached_at(token, issuers, Some(now))
}

fn cached_at(
    token: PresentedToken<'_>,
    issuers: &[Arc<Issuer>],
    now: Option<Now>,
) -> Option<Authenticated> {
    let mut known = issuers.iter().map(|i| i.cached(token.digest(), now));
    let known = known.find_map(|known| known)?;
    Some(Authenticated {
        caller: Caller::Verified(known),
        how: Some("cached"),
    })
}

/// Finds out who `token` stands for, asking only the issuers given. A token whose `iss` is
/// that of an issuer among them is verified there and nowhere else. A token that names no
/// issuer at all is opaque: it goes to the one `introspection` issuer that it can be of, by
/// its beginning. Whatever is left is for the `delegated` issuer, if there is one. So no
/// party is ever shown a token that is another's.
///
/// # Errors
/// With the first rule that the token breaks, and the issuer whose rule it is.
pub async fn authenticate<'t>(
    token: impl Into<PresentedToken<'t>>,
    issuers: &[Arc<Issuer>],
) -> Result<Authenticated, Unauthenticated> {
    let token = token.into();
    if let Some(known) = cached_at(token, issuers, None) {
        return Ok(known);
    }
    let (issuer, verified) = match choose(token.expose(), issuers)? {
        Choice::Verify(issuer, signed, jws) => {
            (issuer, signed.verify(issuer, token.digest(), jws).await)
        }
        Choice::Ask(issuer, asked) => (issuer, asked.verify(&token.to_bearer()).await),
        Choice::Delegate(issuer) => {
            return Ok(Authenticated {
                caller: Caller::Delegated {
                    issuer: Arc::clone(&issuer.name),
                    digest: token.digest(),
                },
                how: None,
            });
        }
    };
    match verified {
        Ok(verified) => Ok(Authenticated {
            caller: Caller::Verified(verified),
            how: Some("ok"),
        }),
        Err(error) => Err(Unauthenticated {
            issuer: Some(Arc::clone(&issuer.name)),
            error,
        }),
    }
}

enum Choice<'a> {
    Verify(&'a Issuer, &'a Signed, Jws<'a>),
    Ask(&'a Issuer, &'a Introspection),
    Delegate(&'a Issuer),
}

/// Whose token it is. `iss` is not believed here, it only says who must vouch for it.
fn choose<'a>(token: &'a str, issuers: &'a [Arc<Issuer>]) -> Result<Choice<'a>, Unauthenticated> {
    let error = match Jws::parse(token) {
        Ok(jws) => {
            let iss = jws.claims.get("iss").and_then(Value::as_str);
            let unknown = match iss {
                Some(_) => TokenError::UnknownIssuer,
                None => TokenError::InvalidClaim { name: "iss" },
            };
            let named = iss.and_then(|iss| issuers.iter().find(|i| i.is_issuer_of(iss)));
            match named.map(|issuer| (issuer, &issuer.kind)) {
                Some((issuer, Kind::Signed(signed))) => {
                    return Ok(Choice::Verify(issuer, signed, jws));
                }
                Some((issuer, Kind::Introspection(asked))) => {
                    return Ok(Choice::Ask(issuer, asked));
                }
                Some((_, Kind::Delegated)) | None => unknown,
            }
        }
        Err(error) => error,
    };
    let claimed = possible_issuers(token);
    if let Some(issuer) = mentioned(&claimed, issuers) {
        // Not well formed, or with an `iss` of several: whoever sent it hopes that
        // somebody reads it otherwise.
        return Err(Unauthenticated {
            issuer: Some(Arc::clone(&issuer.name)),
            error,
        });
    }
    if claimed.is_empty()
        && let Some((issuer, asked)) = whose_opaque(token, issuers)
    {
        return Ok(Choice::Ask(issuer, asked));
    }
    let delegated = issuers.iter().find(|i| i.is_delegated());
    let delegated = delegated.map(|issuer| Choice::Delegate(issuer));
    delegated.ok_or(Unauthenticated {
        issuer: None,
        error,
    })
}

/// The `introspection` issuer with the longest prefix that `token` begins with, else the one
/// without a prefix.
fn whose_opaque<'a>(
    token: &str,
    issuers: &'a [Arc<Issuer>],
) -> Option<(&'a Issuer, &'a Introspection)> {
    let asked = issuers.iter().filter_map(|issuer| match &issuer.kind {
        Kind::Introspection(asked) => Some((&**issuer, asked)),
        Kind::Signed(_) | Kind::Delegated => None,
    });
    asked
        .filter(|(_, asked)| token.starts_with(asked.prefix().unwrap_or_default()))
        .max_by_key(|(_, asked)| asked.prefix().unwrap_or_default().len())
}

/// The issuer that a token names in any way at all, be it malformed.
fn mentioned<'a>(claimed: &[Value], issuers: &'a [Arc<Issuer>]) -> Option<&'a Arc<Issuer>> {
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

impl Proof {
    fn usable(&self) -> bool {
        match self {
            Self::Keys(keys) => keys.usable(),
            Self::Secret(secret) => secret.epoch().is_some(),
        }
    }

    /// Refreshes if that is due; says when it will be again.
    async fn refresh(&self) -> Duration {
        match self {
            Self::Keys(keys) => {
                keys.refresh_if_due().await;
                keys.next_attempt_in()
            }
            Self::Secret(secret) => {
                secret.refresh_if_due().await;
                secret.next_attempt_in()
            }
        }
    }

    /// The epoch in force at a monotonic time, if a token may be accepted by it.
    fn epoch(&self, monotonic: Duration) -> Option<u64> {
        match self {
            Self::Keys(keys) => keys.epoch_in_force(monotonic),
            Self::Secret(secret) => secret.epoch(),
        }
    }

    /// Checks the signature; gives the epoch of what proved it.
    async fn verify(&self, wanted: &Wanted<'_>, jws: &Jws<'_>) -> Result<u64, TokenError> {
        match self {
            Self::Keys(keys) => {
                let keys = keys.select(wanted.algorithm, wanted.kid).await?;
                let mut verifiers = keys.verifiers.iter();
                if !verifiers.any(|key| key.verify(jws.signing_input, jws.signature)) {
                    return Err(TokenError::BadSignature);
                }
                Ok(keys.epoch)
            }
            Self::Secret(secret) => {
                let (signing_input, signature) = (jws.signing_input, jws.signature);
                secret
                    .verify(wanted.algorithm, signing_input, signature)
                    .await
            }
        }
    }
}

impl Signed {
    /// The token with this digest, if it was verified before and would be again.
    fn cached(&self, digest: TokenDigest, now: Option<Now>) -> Option<Arc<VerifiedToken>> {
        let epoch = |monotonic| self.proof.epoch(monotonic);
        self.cache.get(digest, now, epoch)
    }

    async fn verify(
        &self,
        issuer: &Issuer,
        digest: TokenDigest,
        jws: Jws<'_>,
    ) -> Result<Arc<VerifiedToken>, TokenError> {
        let wanted = self.rules.header(&jws.header)?;
        let epoch = self.proof.verify(&wanted, &jws).await?;
        let facts = self.rules.claims(&jws.claims, self.clock.now())?;
        let window = Window {
            from: facts.starts_at.map(|t| self.rules.accepted_from(t)),
            until: self.rules.accepted_until(facts.expires_at),
        };
        let token = Arc::new(VerifiedToken {
            issuer: Arc::clone(&issuer.name),
            subject: facts.subject,
            client: facts.client,
            scopes: facts.scopes,
            permissions: facts.permissions,
            expires_at: facts.expires_at,
            claims: jws.claims,
            digest,
            extensions: Extensions::default(),
        });
        self.cache.insert(&token, epoch, window);
        Ok(token)
    }
}

#[cfg(test)]
mod tests;
