//! What the token of a refused request is, and what to do about it, judging by its shape.

use std::sync::Arc;

use super::identify::{self, Identification, Kind};
use crate::clock::UnixMillis;
use crate::config::{Config, IssuerKind};
use crate::token::Issuer;
use crate::token::settings::Profile;

/// Advice for the operator.
#[derive(Debug, Default)]
pub(super) struct Hints {
    pub(super) advice: Vec<String>,
    /// An `[[issuer]]` section to add, in TOML.
    pub(super) issuer_section: Option<String>,
}

/// A configured issuer of signed tokens.
struct Configured<'c> {
    name: &'c str,
    url: &'c str,
    profile: Profile,
}

fn configured(config: &Config) -> impl Iterator<Item = Configured<'_>> {
    config.issuers.iter().filter_map(|issuer| {
        let (url, profile) = match &issuer.kind {
            IssuerKind::Oidc(oidc) => (&oidc.url, oidc.profile),
            IssuerKind::SharedSecret(secret) => (&secret.url, secret.profile),
            IssuerKind::Introspection(_) | IssuerKind::Delegated => return None,
        };
        Some(Configured {
            name: &issuer.name,
            url,
            profile,
        })
    })
}

/// Advice about `token`, which was not accepted. `accepted` are the issuers of the route; `None` if no
/// route matches.
pub(super) fn for_token(
    config: &Config,
    accepted: Option<&[Arc<Issuer>]>,
    token: &str,
    now: UnixMillis,
) -> Hints {
    let found = identify::identify(token.as_bytes(), now);
    let Some(iss) = found.iss.as_deref() else {
        return for_unreadable(config, found);
    };
    let own = configured(config).find(|issuer| issuer.url == iss);
    let mut hints = Hints::default();
    if let Some(issuer) = own {
        let is_accepted = accepted.is_none_or(|issuers| {
            issuers
                .iter()
                .any(|accepted| &**accepted.name() == issuer.name)
        });
        if !is_accepted {
            hints.advice.push(format!(
                "issuer {:?} of the configuration has this url, but the route does not name it: add it to the \
                     route's issuers",
                    issuer.name
                ));
        }
        hints.advice.push(looks_like(&found, Some(&issuer)));
    } else {
        hints.advice.extend(near_miss(config, iss));
        hints.advice.push(looks_like(&found, None));
        hints.issuer_section = found.issuer_section;
    }
    hints.advice.extend(found.advice);
    hints
}

fn for_unreadable(config: &Config, found: Identification) -> Hints {
    let takes_opaque = config.issuers.iter().any(|issuer| {
        matches!(
            issuer.kind,
            IssuerKind::Introspection(_) | IssuerKind::Delegated
        )
    });
    let mut advice = vec![format!("this is {}", found.what)];
    advice.extend(found.advice);
    Hints {
        advice,
        issuer_section: found.issuer_section.filter(|_| !takes_opaque),
    }
}

/// What the token looks like, and which profile takes it, if another than that of `issuer`.
fn looks_like(found: &Identification, issuer: Option<&Configured<'_>>) -> String {
    let what = &found.what;
    let Some(profile) = found.profile else {
        return format!("this looks like {what}");
    };
    let takes = format!("this looks like {what}; `profile = {profile:?}` takes it");
    match issuer {
        Some(issuer) if issuer.profile.name() == profile || found.kind == Kind::Jwt => {
            format!("this looks like {what}")
        }
        Some(issuer) => {
            let own = issuer.profile.name();
            format!("{takes}. Issuer {:?} has profile = {own:?}", issuer.name)
        }
        None => takes,
    }
}

/// An issuer whose url differs from `iss` in a way that is easily overlooked.
fn near_miss(config: &Config, iss: &str) -> Option<String> {
    fn bare(url: &str) -> String {
        let url = url.trim_end_matches('/').to_ascii_lowercase();
        let url = url
            .strip_prefix("https://")
            .or(url.strip_prefix("http://"))
            .unwrap_or(&url);
        url.trim_end_matches("/v2.0").to_owned()
    }
    let near = configured(config).find(|issuer| bare(issuer.url) == bare(iss))?;
    Some(format!(
        "the token's iss and the url of issuer {:?} are almost the same, but they are compared byte by byte (scheme, \
         case, a slash at the end): write url as the token has it",
        near.name
    ))
}
