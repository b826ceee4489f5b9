//! One configured issuer, and the choice among several.

use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use serde_json::Value;

use super::jws::{Jws, possible_issuers};
use super::keys::Keys;
use super::notes::Notes;
use super::rules::Rules;
use super::{
    BearerToken, Caller, KeyFetcher, RefreshObserver, TokenDigest, TokenError, Unauthenticated,
    VerifiedToken,
};
use crate::clock::{SharedClock, UnixMillis};
use crate::config::OidcIssuer;

/// A configured issuer: its rules, its keys, its verified tokens.
#[derive(Debug)]
pub struct Issuer {
    name: Arc<str>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Oidc(Box<Oidc>),
    Delegated,
}

#[derive(Debug)]
struct Oidc {
    rules: Rules,
    keys: Keys,
    clock: SharedClock,
    verified: Cache<TokenDigest, Arc<Remembered>>,
    max_age: Duration,
}

/// A verified token in the cache. It is accepted for exactly as long as verifying it anew
/// would be, and at most `verified_max_age`: not past `exp` and the leeway, not before
/// `nbf` or `iat` should the clock be set back, and not with other keys in force than
/// those it was verified with.
#[derive(Debug)]
struct Remembered {
    token: Arc<VerifiedToken>,
    epoch: u64,
    accepted_from: UnixMillis,
    accepted_until: UnixMillis,
    /// Of the steady clock.
    forgotten_at: Duration,
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
        // The lifetime here only frees memory; what may be used is decided by our clock.
        let verified = Cache::builder()
            .max_capacity(max_verified)
            .time_to_live(config.verified_max_age)
            .build();
        let oidc = Oidc {
            rules,
            keys,
            clock,
            verified,
            max_age: config.verified_max_age,
        };
        Self {
            name,
            kind: Kind::Oidc(Box::new(oidc)),
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

    /// Whether tokens can be verified now.
    pub fn status(&self) -> IssuerStatus {
        match self.as_oidc() {
            Some(oidc) if !oidc.keys.usable() => IssuerStatus::NoKeys,
            _ => IssuerStatus::Usable,
        }
    }

    /// How long ago its keys were last fetched; `None` if never, or if it has none.
    pub fn keys_age(&self) -> Option<Duration> {
        self.as_oidc()?.keys.age()
    }

    /// One step of keeping the keys fresh in the background: fetches if that is due and
    /// waits for it. Meant for a loop that sleeps for [`WarmUp::again_in`] in between.
    pub async fn warm_up(&self) -> WarmUp {
        let mut again_in = None;
        if let Some(oidc) = self.as_oidc() {
            oidc.keys.refresh_if_due().await;
            again_in = Some(oidc.keys.next_attempt_in().max(Duration::from_secs(1)));
        }
        WarmUp {
            status: self.status(),
            again_in,
        }
    }

    fn as_oidc(&self) -> Option<&Oidc> {
        match &self.kind {
            Kind::Oidc(oidc) => Some(oidc),
            Kind::Delegated => None,
        }
    }

    fn is_issuer_of(&self, iss: &str) -> bool {
        self.as_oidc().is_some_and(|oidc| oidc.rules.url == iss)
    }
}

/// Finds out who `token` stands for, asking only the issuers given. A token whose `iss` is
/// that of an `oidc` issuer among them is verified there and nowhere else; any other is
/// for the `delegated` issuer, if there is one.
///
/// # Errors
/// With the first rule that the token breaks, and the issuer whose rule it is.
pub async fn authenticate(
    token: &BearerToken,
    issuers: &[Arc<Issuer>],
) -> Result<Authenticated, Unauthenticated> {
    if let Some(known) = issuers
        .iter()
        .find_map(|i| i.as_oidc()?.recall(token.digest()))
    {
        return Ok(Authenticated {
            caller: Caller::Verified(known),
            how: Some("cached"),
        });
    }
    match choose(token.expose(), issuers)? {
        Choice::Verify(issuer, oidc, jws) => match oidc.verify(issuer, token.digest(), jws).await {
            Ok(verified) => Ok(Authenticated {
                caller: Caller::Verified(verified),
                how: Some("ok"),
            }),
            Err(error) => Err(Unauthenticated {
                issuer: Some(Arc::clone(&issuer.name)),
                error,
            }),
        },
        Choice::Delegate(issuer) => Ok(Authenticated {
            caller: Caller::Delegated {
                issuer: Arc::clone(&issuer.name),
                digest: token.digest(),
            },
            how: None,
        }),
    }
}

enum Choice<'a> {
    Verify(&'a Issuer, &'a Oidc, Jws<'a>),
    Delegate(&'a Issuer),
}

/// Whose token it is. `iss` is not believed here, it only says whose keys must prove it.
fn choose<'a>(token: &'a str, issuers: &'a [Arc<Issuer>]) -> Result<Choice<'a>, Unauthenticated> {
    let error = match Jws::parse(token) {
        Ok(jws) => {
            let iss = jws.claims.get("iss").and_then(Value::as_str);
            let named = iss.and_then(|iss| issuers.iter().find(|i| i.is_issuer_of(iss)));
            if let Some((issuer, oidc)) = named.and_then(|i| Some((i, i.as_oidc()?))) {
                return Ok(Choice::Verify(issuer, oidc, jws));
            }
            match iss {
                Some(_) => TokenError::UnknownIssuer,
                None => TokenError::InvalidClaim { name: "iss" },
            }
        }
        Err(error) => error,
    };
    let delegated = issuers.iter().find(|i| i.is_delegated());
    match (delegated, mentioned(token, issuers)) {
        (Some(delegated), None) => Ok(Choice::Delegate(delegated)),
        // Not well formed, or with an `iss` of several: whoever sent it hopes that
        // somebody reads it otherwise.
        (_, issuer) => Err(Unauthenticated {
            issuer: issuer.map(|i| Arc::clone(&i.name)),
            error,
        }),
    }
}

/// The `oidc` issuer that a token names in any way at all, be it malformed.
fn mentioned<'a>(token: &str, issuers: &'a [Arc<Issuer>]) -> Option<&'a Arc<Issuer>> {
    fn names(value: &Value, issuer: &Issuer) -> bool {
        match value {
            Value::String(iss) => issuer.is_issuer_of(iss),
            Value::Array(list) => list.iter().any(|v| names(v, issuer)),
            _ => false,
        }
    }
    let values = possible_issuers(token);
    issuers
        .iter()
        .find(|issuer| values.iter().any(|v| names(v, issuer)))
}

impl Oidc {
    /// The token with this digest, if it was verified before and would be again.
    fn recall(&self, digest: TokenDigest) -> Option<Arc<VerifiedToken>> {
        let known = self.verified.get(&digest)?;
        let (now, steady) = (self.clock.now(), self.clock.steady());
        let good = Some(known.epoch) == self.keys.epoch_in_force(steady)
            && (known.accepted_from..known.accepted_until).contains(&now)
            && steady < known.forgotten_at;
        good.then(|| Arc::clone(&known.token))
    }

    async fn verify(
        &self,
        issuer: &Issuer,
        digest: TokenDigest,
        jws: Jws<'_>,
    ) -> Result<Arc<VerifiedToken>, TokenError> {
        let wanted = self.rules.header(&jws.header)?;
        let keys = self.keys.select(wanted.algorithm, wanted.kid).await?;
        let proves = |key: &_| is_signed_by(key, &jws);
        if !keys.verifiers.iter().any(proves) {
            return Err(TokenError::BadSignature);
        }
        let facts = self.rules.claims(&jws.claims, self.clock.now())?;
        let starts_at = facts.starts_at;
        let token = Arc::new(VerifiedToken {
            issuer: Arc::clone(&issuer.name),
            subject: facts.subject,
            client: facts.client,
            scopes: facts.scopes,
            permissions: facts.permissions,
            expires_at: facts.expires_at,
            claims: jws.claims,
            digest,
            notes: Notes::default(),
        });
        self.remember(&token, keys.epoch, starts_at);
        Ok(token)
    }

    /// `epoch` is that of the keys which proved the token: were they replaced in the
    /// meantime, the entry is void from the beginning.
    fn remember(&self, token: &Arc<VerifiedToken>, epoch: u64, starts_at: Option<UnixMillis>) {
        let remembered = Remembered {
            token: Arc::clone(token),
            epoch,
            accepted_from: starts_at.map_or(UnixMillis(i64::MIN), |t| self.rules.accepted_from(t)),
            accepted_until: self.rules.accepted_until(token.expires_at),
            forgotten_at: self.clock.steady().saturating_add(self.max_age),
        };
        self.verified.insert(token.digest, Arc::new(remembered));
    }
}

fn is_signed_by(key: &super::jwk::Verifier, jws: &Jws<'_>) -> bool {
    key.verify_sig(jws.signed, &jws.signature).is_ok()
}

#[cfg(test)]
mod tests;
