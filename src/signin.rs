//! A person signs in from a terminal (identity.md §E; RFC 8252, RFC 8628): what is sent to
//! the issuer, what of its answers is believed, and what is kept of them. Decisions only:
//! `remote::callback` listens, `remote::signin` asks.
//!
//! [`Attempt`] → authorization URL → [`Attempt::redeem`] the callback's query → a [`Code`]
//! → tokens → [`Session`], which `hawkgate token` prints and refreshes.

mod attempt;
mod loopback;
mod polling;
mod session;

pub use attempt::{Attempt, AttemptError, AuthorizationRequest, CallbackError, Code, LIFETIME};
pub use loopback::{Loopback, LoopbackError};
pub use polling::{Next, Polling, PollingEnd};
pub use session::{Session, SessionClient, SessionError, Tokens};
