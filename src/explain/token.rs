//! Explains each check of a token, with the expected and the actual value.
//!
//! Verification stops at the first check that fails and says which one it was. Together with
//! the order of the checks, that determines the result of all others. A test breaks tokens in
//! two ways at once to prove that [`Check::ALL`] is in that order.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::report::{Report, Stage, Status, Step};
use super::shown::{member, shown, time};
use crate::clock::UnixMillis;
use crate::config::{Config, IssuerKind};
use crate::token::settings::{KeyLocation, OidcIssuer, Profile, TokenFormat};
use crate::token::{
    self, BearerToken, Caller, ClaimRole, Issuer, TokenError, Unauthenticated, UnverifiedToken,
    inspect,
};

/// The checks of a signed token, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Check {
    Form,
    Issuer,
    CriticalHeaders,
    Algorithm,
    Type,
    Key,
    Signature,
    Time,
    OneClient,
    NoIdToken,
    Audience,
    Subject,
    Client,
    Unbound,
    Scopes,
}

impl Check {
    pub(super) const ALL: [Self; 15] = [
        Self::Form,
        Self::Issuer,
        Self::CriticalHeaders,
        Self::Algorithm,
        Self::Type,
        Self::Key,
        Self::Signature,
        Self::Time,
        Self::OneClient,
        Self::NoIdToken,
        Self::Audience,
        Self::Subject,
        Self::Client,
        Self::Unbound,
        Self::Scopes,
    ];

    /// A description for the report.
    fn what(self) -> &'static str {
        match self {
            Self::Form => "a well-formed JWT",
            Self::Issuer => "issued by an issuer of this route (iss)",
            Self::CriticalHeaders => "no critical header extensions (crit)",
            Self::Algorithm => "an accepted algorithm (alg)",
            Self::Type => "an access token, judging by its type (typ)",
            Self::Key => "signed with a key of the issuer (kid)",
            Self::Signature => "a valid signature",
            Self::Time => "valid now (exp, nbf, iat)",
            Self::OneClient => "a single client (client_id, azp)",
            Self::Audience => "an accepted audience (aud)",
            Self::NoIdToken => "not an ID token",
            Self::Subject => "an allowed subject (sub)",
            Self::Client => "an allowed client",
            Self::Unbound => "not bound to a key (cnf)",
            Self::Scopes => "readable scopes (scope, permissions)",
        }
    }

    /// The check that fails with this error, if it is a check of signed tokens.
    pub(super) fn of(error: &TokenError) -> Option<Self> {
        use TokenError as E;
        Some(match error {
            E::TooLarge | E::Opaque | E::Malformed | E::Encrypted | E::DuplicateMember => {
                Self::Form
            }
            E::UnknownIssuer => Self::Issuer,
            E::CriticalHeader => Self::CriticalHeaders,
            E::UnacceptableAlgorithm => Self::Algorithm,
            E::WrongType => Self::Type,
            E::KeyIdMissing
            | E::UnknownKey
            | E::UnsuitableKey { .. }
            | E::KeysUnavailable { .. } => Self::Key,
            E::BadSignature => Self::Signature,
            E::Expired | E::ClockNotSet | E::NotYetValid | E::IssuedInFuture => Self::Time,
            E::ClientMismatch => Self::OneClient,
            E::WrongAudience => Self::Audience,
            E::IdToken | E::RefreshToken | E::LogoutToken | E::NotAccessToken { .. } => {
                Self::NoIdToken
            }
            E::SubjectNotAllowed => Self::Subject,
            E::ClientNotAllowed => Self::Client,
            E::Bound => Self::Unbound,
            E::InvalidClaim { role, .. } => match role {
                ClaimRole::Issuer => Self::Issuer,
                ClaimRole::Time => Self::Time,
                ClaimRole::Client => Self::OneClient,
                ClaimRole::Audience => Self::Audience,
                ClaimRole::Subject => Self::Subject,
                ClaimRole::Scopes | ClaimRole::Other => Self::Scopes,
            },
            _ => return None,
        })
    }
}

/// Verifies the token as the proxy would and reports the result of each check.
pub(super) async fn explain(
    report: &mut Report,
    config: &Config,
    issuers: &[Arc<Issuer>],
    bearer: Option<&BearerToken>,
    now: UnixMillis,
) -> Option<Caller> {
    let Some(bearer) = bearer else {
        let why = "this route needs no token";
        report.note(Stage::Token, "anonymous", why);
        return Some(Caller::Anonymous);
    };
    match token::authenticate(bearer, issuers, None).await {
        Ok(authenticated) => {
            match &authenticated.caller {
                Caller::Delegated { issuer, .. } => {
                    let why = "opaque: the source's exchange verifies it";
                    report.note(Stage::Token, format!("issuer {issuer}"), why);
                }
                caller => {
                    if let Some(issuer) = caller.issuer() {
                        explain_checks(
                            report,
                            config,
                            issuers,
                            bearer,
                            Some(&**issuer),
                            &Outcome::Verified,
                            now,
                        );
                        report.ok(Stage::Token, format!("verified by issuer {issuer}"));
                    }
                }
            }
            Some(authenticated.caller)
        }
        Err(refused) => {
            let outcome = Outcome::Rejected(&refused);
            let issuer = refused.issuer.as_deref();
            explain_checks(report, config, issuers, bearer, issuer, &outcome, now);
            if Check::of(&refused.error).is_none() || !is_signed(config, issuer) {
                report.failed(Stage::Token, "verified", refused.to_string());
            }
            None
        }
    }
}

/// Reports what an unverified token contains.
pub(super) fn explain_unverified(
    report: &mut Report,
    config: &Config,
    issuers: &[Arc<Issuer>],
    bearer: Option<&BearerToken>,
) {
    let Some(bearer) = bearer else { return };
    let iss = inspect(bearer).and_then(|t| Some(t.claims.get("iss")?.as_str()?.to_owned()));
    let named = named_issuers(config, issuers).find(|(_, oidc)| Some(&oidc.url) == iss.as_ref());
    let issuer = named.map(|(name, _)| name.to_owned());
    let now = UnixMillis(0);
    explain_checks(
        report,
        config,
        issuers,
        bearer,
        issuer.as_deref(),
        &Outcome::Unknown,
        now,
    );
}

/// Reports whether the token has the required scopes.
pub(super) fn explain_scopes(report: &mut Report, required: &[String], caller: &Caller) {
    let Caller::Verified(token) = caller else {
        return;
    };
    if required.is_empty() {
        return;
    }
    let all = required.iter().all(|scope| token.scopes().contains(scope));
    report.push(Step {
        stage: Stage::Token,
        what: "the required scopes".into(),
        status: if all { Status::Ok } else { Status::Failed },
        expected: Some(required.join(" ")),
        found: Some(token.scopes().join(" ")),
        detail: None,
    });
}

enum Outcome<'a> {
    Verified,
    Rejected(&'a Unauthenticated),
    Unknown,
}

fn is_signed(config: &Config, issuer: Option<&str>) -> bool {
    issuer.is_none() || find(config, issuer).is_some()
}

fn find<'c>(config: &'c Config, issuer: Option<&str>) -> Option<&'c OidcIssuer> {
    let issuer = config.issuers.iter().find(|i| Some(&*i.name) == issuer)?;
    if let IssuerKind::Oidc(oidc) = &issuer.kind {
        return Some(oidc);
    }
    None
}

fn named_issuers<'c>(
    config: &'c Config,
    issuers: &'c [Arc<Issuer>],
) -> impl Iterator<Item = (&'c str, &'c OidcIssuer)> {
    let names = issuers.iter().map(|issuer| &**issuer.name());
    names.filter_map(|name| Some((name, find(config, Some(name))?)))
}

fn explain_checks(
    report: &mut Report,
    config: &Config,
    issuers: &[Arc<Issuer>],
    bearer: &BearerToken,
    issuer: Option<&str>,
    outcome: &Outcome<'_>,
    now: UnixMillis,
) {
    let oidc = find(config, issuer);
    // The checks of other kinds of issuers are not known here.
    if issuer.is_some() && oidc.is_none() {
        return;
    }
    let failed = match outcome {
        Outcome::Rejected(refused) => match Check::of(&refused.error) {
            Some(check) => Some(check),
            None => return,
        },
        _ => None,
    };
    let token = inspect(bearer);
    for check in Check::ALL {
        let status = match (outcome, failed) {
            (Outcome::Unknown, _) => Status::Note,
            (_, Some(at)) if check == at => Status::Failed,
            (_, Some(at)) if check > at => Status::Skipped,
            _ => Status::Ok,
        };
        let detail = match (outcome, status) {
            (Outcome::Rejected(refused), Status::Failed) => Some(why(refused, issuers)),
            (_, Status::Skipped) => Some("not reached".into()),
            _ => None,
        };
        let reached = status != Status::Skipped;
        report.push(Step {
            stage: Stage::Token,
            what: check.what().into(),
            status,
            expected: expected(check, config, issuers, oidc).filter(|_| reached),
            found: token
                .as_ref()
                .and_then(|t| found(check, t, oidc.map(|oidc| &oidc.format), now))
                .filter(|_| reached),
            detail,
        });
    }
}

/// Why a token was refused and, if that is because there are no keys, why there are none.
fn why(refused: &Unauthenticated, issuers: &[Arc<Issuer>]) -> String {
    let is_its = |issuer: &&Arc<Issuer>| Some(issuer.name()) == refused.issuer.as_ref();
    let problem = match refused.error {
        TokenError::KeysUnavailable { .. } => {
            let issuer = issuers.iter().find(is_its);
            issuer.and_then(|issuer| issuer.keys_problem())
        }
        _ => None,
    };
    match problem {
        Some(problem) => format!("{refused}: {problem}"),
        None => refused.to_string(),
    }
}

/// The value that the configuration requires.
fn expected(
    check: Check,
    config: &Config,
    issuers: &[Arc<Issuer>],
    oidc: Option<&OidcIssuer>,
) -> Option<String> {
    if check == Check::Issuer {
        let urls = named_issuers(config, issuers).map(|(_, oidc)| format!("{:?}", oidc.url));
        return Some(urls.collect::<Vec<_>>().join(" or "));
    }
    let oidc = oidc?;
    let any_of = |list: &[String]| format!("one of {list:?}");
    Some(match check {
        Check::Algorithm => {
            let names = oidc.algorithms.iter().map(|a| a.name());
            format!("one of {}", names.collect::<Vec<_>>().join(", "))
        }
        Check::Type => {
            let types = match oidc.format.token_types.as_deref() {
                None => "any".into(),
                Some([one]) if !one.is_empty() => format!("{one:?}"),
                Some(types) => format!("one of {types:?}"),
            };
            format!("{types} (profile {})", oidc.profile.name())
        }
        Check::Key => match &oidc.keys {
            KeyLocation::Discovery => {
                "a key in the key set that the issuer's discovery document names".into()
            }
            KeyLocation::Url(url) => format!("a key at {url}"),
            KeyLocation::File(path) => format!("a key in {}", path.display()),
        },
        Check::Time => format!("with a leeway of {} s", oidc.leeway.as_secs()),
        Check::Audience => any_of(&oidc.audiences),
        Check::Subject => any_of(oidc.subjects.as_ref()?),
        Check::Client => any_of(oidc.clients.as_ref()?),
        _ => return None,
    })
}

/// The value in the token: only those that identify the issuer, key, times and parties.
fn found(
    check: Check,
    token: &UnverifiedToken,
    format: Option<&TokenFormat>,
    now: UnixMillis,
) -> Option<String> {
    let UnverifiedToken { header, claims } = token;
    let standard = Profile::Rfc9068.format();
    let format = format.unwrap_or(&standard);
    match check {
        Check::Issuer => Some(member(claims, "iss")),
        Check::Algorithm => Some(member(header, "alg")),
        Check::Type => Some(member(header, "typ")),
        Check::Key => Some(member(header, "kid")),
        Check::Time => Some(times(claims, now)),
        Check::Audience => Some(first_member(claims, &format.audience_claims)),
        Check::Subject => Some(member(claims, "sub")),
        Check::OneClient | Check::Client => {
            let names = format.client_claims.iter().filter_map(|name| {
                claims
                    .get(name)
                    .map(|value| format!("{name} {}", shown(value)))
            });
            Some(or_none(names.collect::<Vec<_>>().join(", ")))
        }
        Check::Scopes => Some(first_member(claims, &format.scope_claims)),
        Check::CriticalHeaders => Some(presence(header, &["crit"])),
        Check::NoIdToken => Some(presence(
            claims,
            &["nonce", "at_hash", "c_hash", "token_use"],
        )),
        Check::Unbound => Some(presence(claims, &["cnf"])),
        Check::Form | Check::Signature => None,
    }
}

/// The first of these members that is present.
fn first_member(members: &Map<String, Value>, names: &[String]) -> String {
    let mut present = names.iter().filter_map(|name| members.get(name));
    let nothing = || format!("no {}", names.join(" or "));
    present.next().map_or_else(nothing, shown)
}

/// Which of `names` are present, without their values.
fn presence(members: &Map<String, Value>, names: &[&str]) -> String {
    let present = names.iter().filter(|name| members.contains_key(**name));
    or_none(present.copied().collect::<Vec<_>>().join(", "))
}

fn or_none(text: String) -> String {
    if text.is_empty() { "none".into() } else { text }
}

/// Each time, with its distance from now.
fn times(claims: &Map<String, Value>, now: UnixMillis) -> String {
    let times = ["exp", "nbf", "iat"]
        .iter()
        .filter_map(|name| Some(format!("{name} {}", time(claims.get(*name)?, now))));
    or_none(times.collect::<Vec<_>>().join(", "))
}
