//! Sources that need no network, which others than the cache need too: the login endpoint
//! mints, and `PUT /credentials` replaces.

use std::sync::Arc;

use super::StartError;
use super::build::unusable;
use crate::clock::SharedClock;
use crate::config::{self, SourceKind};
use crate::credential::taskcluster_mint::{MintSettings, MintSource, NameTemplate};
use crate::credential::taskcluster_static::{StaticSettings, StaticSource};

type Failure = Box<dyn std::error::Error>;

/// A source whose credentials may be replaced while running, and its name.
pub(super) type Updatable = (Arc<str>, Arc<StaticSource>);

/// A source of kind `taskcluster-mint`.
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

/// A source of kind `taskcluster-static`.
pub(super) fn fixed(kind: &SourceKind) -> Result<StaticSource, Failure> {
    let SourceKind::TaskclusterStatic {
        client_id,
        access_token,
        certificate,
        authorized_scopes,
        ..
    } = kind
    else {
        return Err("is not of kind taskcluster-static".into());
    };
    Ok(StaticSource::new(StaticSettings {
        client_id: client_id.clone(),
        access_token: access_token.clone(),
        certificate: certificate.clone(),
        authorized_scopes: authorized_scopes.clone(),
    })?)
}

/// Those of `sources` whose credentials may be replaced.
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
        let fixed = fixed(&source.kind).map_err(|e| unusable("source", &source.name, &*e))?;
        Ok((Arc::clone(&source.name), Arc::new(fixed)))
    });
    built.collect()
}
