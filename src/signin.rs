//! Signing in from a terminal (RFC 8252, RFC 8628; `docs/design/tokens.md`, "Signing in"): the
//! authorization request, validation of the redirect, polling in the device flow, and the saved
//! session. No network access: `remote::callback_server` receives the redirect and
//! `remote::signin` calls the token endpoint.
//!
//! [`AuthorizationFlow`] → authorization URL → [`AuthorizationFlow::accept_redirect`] → an
//! [`AuthorizationCode`] → tokens → a [`Session`], which `hawkgate token` prints and refreshes.

mod authorization_code;
mod device_polling;
mod loopback_redirect;
mod session;

pub use authorization_code::{
    AuthorizationCode, AuthorizationFlow, AuthorizationRequest, CallbackError, LIFETIME,
    RandomnessError, SavedFlow,
};
pub use device_polling::{DeviceFlowError, DevicePolling, NextPoll};
pub use loopback_redirect::{LoopbackRedirect, LoopbackRedirectError};
pub use session::{Session, SessionClient, SessionError, Tokens};
