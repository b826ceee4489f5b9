//! Composition root: from a resolved [`Config`] to a running hawkgate.

use std::sync::Arc;

use crate::clock::SharedClock;
use crate::config::{Address, Config};
use crate::gateway::Gateway;
use crate::log::AccessLog;

/// What a run needs besides its configuration.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The clock; a manual one in tests.
    pub clock: SharedClock,
    /// Where ended requests are recorded.
    pub access_log: AccessLog,
}

/// A running hawkgate. Dropping it does not stop it; see [`Running::drain`].
#[derive(Debug)]
pub struct Running {
    /// Where callers connect, in the configuration's order, with ports as bound.
    pub listeners: Vec<Address>,
    /// Where operators connect, with the port as bound.
    pub admin: Address,
    /// What decides.
    pub gateway: Arc<Gateway>,
}

/// Why hawkgate cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener cannot be bound.
    #[error("cannot listen on {address}: {cause}")]
    Listen {
        /// As configured.
        address: String,
        /// What the system said.
        cause: std::io::Error,
    },
    /// A file that the configuration names is unusable.
    #[error("{0}")]
    Unusable(String),
}

/// Binds every listener, starts every background task, serves.
///
/// # Errors
/// When something cannot be bound or read; nothing is left running then. Unreachable
/// issuers, exchanges and upstreams are no error.
pub async fn start(_config: Config, _surroundings: Surroundings) -> Result<Running, StartError> {
    Err(StartError::Unusable("skeleton".into()))
}

impl Running {
    /// Readiness turns false, then listeners close, in-flight requests finish within
    /// `server.drain`. Returns when all is over; calling it again changes nothing.
    pub async fn drain(&self) {}

    /// Ends at once.
    pub fn abort(&self) {}
}
