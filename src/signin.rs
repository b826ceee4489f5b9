//! A person signs in from a terminal (identity.md §E; RFC 8252, RFC 8628): what is sent to
//! the issuer, what of its answers is believed, and what is kept of them. Decisions only:
//! `remote::callback_server` listens, `remote::signin` asks.
//!
//! [`AuthorizationFlow`] → authorization URL → [`AuthorizationFlow::redeem`] the callback's query → a [`Code`]
//! → tokens → [`Session`], which `hawkgate token` prints and refreshes.

mod authorization_code;
mod device_polling;
mod loopback_redirect;
mod session;

pub use authorization_code::{
    AuthorizationCode, AuthorizationFlow, AuthorizationRequest, CallbackError, LIFETIME,
    RandomnessError,
};
pub use device_polling::{DeviceFlowError, DevicePolling, NextPoll};
pub use loopback_redirect::{LoopbackRedirect, LoopbackRedirectError};
pub use session::{Session, SessionClient, SessionError, Tokens};
