//! Builds the sources that need no network. The login endpoint (minting) and
//! `PUT /credentials` (replacing) use them as well as the cache.

use std::sync::Arc;

use super::StartError;
use crate::clock::{SharedClock, UnixMillis};
use crate::config::{self, SourceKind};
use crate::credential::taskcluster_mint::{MintSettings, MintSource, NameTemplate};
use crate::credential::taskcluster_static::{StaticSettings, StaticSource};

type Failure = Box<dyn std::error::Error>;

/// A source whose credentials may be replaced at run time, with its name.
pub(super) type Updatable = (Arc<str>, Arc<StaticSource>);

/// Builds a source of kind `taskcluster-mint`.
pub(super) fn mint(kind: &SourceKind, clock: &SharedClock) -> Result<MintSource, Failure> {
    let SourceKind::TaskclusterMint {
        client_id,
        access_token,
        client_name,
        scopes,
        lifetime,
    } = kind
    else {
        return Err("is not of kind taskcluster-mint".into());
    };
    let settings = MintSettings {
        client_id: client_id.clone(),
        access_token: access_token.clone(),
        client_name: NameTemplate::parse(client_name)?,
        scopes: scopes.clone(),
        lifetime: *lifetime,
    };
    Ok(MintSource::new(settings, clock.clone())?)
}

/// Builds a source of kind `taskcluster-static`.
pub(super) fn static_source(kind: &SourceKind) -> Result<StaticSource, Failure> {
    let settings = static_settings(kind).ok_or("is not of kind taskcluster-static")?;
    Ok(StaticSource::new(settings)?)
}

/// Warnings about sources whose credentials have expired at `now`. They are no errors: the files may
/// be replaced, `PUT /credentials` may, and this machine's clock may be wrong.
pub(super) fn expired(sources: &[config::Source], now: UnixMillis) -> Vec<String> {
    let mut problems = Vec::new();
    for source in sources {
        // Unusable credentials are an error elsewhere.
        let checked = static_settings(&source.kind).and_then(|settings| settings.check().ok());
        if let Some(expiry) = checked.flatten().filter(|expiry| *expiry <= now) {
            problems.push(format!(
                "source {:?}: its certificate expired at {}, so the upstream will answer 401; replace its \
                 access_token and certificate",
                source.name,
                expiry.to_rfc3339()
            ));
        }
    }
    problems
}

fn static_settings(kind: &SourceKind) -> Option<StaticSettings> {
    let SourceKind::TaskclusterStatic {
        client_id,
        access_token,
        certificate,
        authorized_scopes,
        ..
    } = kind
    else {
        return None;
    };
    Some(StaticSettings {
        client_id: client_id.clone(),
        access_token: access_token.clone(),
        certificate: certificate.clone(),
        authorized_scopes: authorized_scopes.clone(),
    })
}

/// Builds those of `sources` whose credentials may be replaced at run time.
pub(super) fn updatable(sources: &[config::Source]) -> Result<Vec<Updatable>, StartError> {
    let may = |source: &&config::Source| {
        matches!(
            source.kind,
            SourceKind::TaskclusterStatic {
                credentials_update: true,
                ..
            }
        )
    };
    let built = sources.iter().filter(may).map(|source| {
        let built = static_source(&source.kind)
            .map_err(|e| StartError::unusable("source", &source.name, &*e))?;
        Ok((Arc::clone(&source.name), Arc::new(built)))
    });
    built.collect()
}
