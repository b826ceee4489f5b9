//! Builds the store that the fleet shares.

use super::{Builder, Purpose};
use crate::app::StartError;
use crate::app::components::{Component, Components, SharedBasis, reuse_or_build};
use crate::app::shared_store::Shared;
use crate::config::Config;
use crate::reload::Fingerprints;

impl Builder<'_> {
    /// The store of `[shared]`, which is kept while its settings and files are unchanged. Opens no
    /// connection.
    pub(super) fn shared(
        &self,
        config: &Config,
        fingerprints: &Fingerprints,
        previous: &Components,
    ) -> Result<Option<Component<SharedBasis, Shared>>, StartError> {
        let Some(settings) = &config.shared else {
            return Ok(None);
        };
        // Explaining a request must not change what other replicas see.
        if self.purpose == Purpose::Explain {
            return Ok(None);
        }
        let files = fingerprints.only(config.shared_files().chain(config.network_files()));
        let basis = (settings.clone(), config.network.ca.clone());
        let build = || {
            let built = Shared::new(settings, self.metrics.store_observer(), &config.network);
            built.map_err(|error| StartError::Unusable(format!("[shared]: {error}")))
        };
        reuse_or_build(previous.shared.as_slice(), basis, files, build).map(Some)
    }
}
