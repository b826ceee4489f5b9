//! pingora lives here and nowhere else: sessions come in, [`crate::gateway`] decides,
//! requests go out and answers come back.

// pingora passes its errors boxed.
#![allow(clippy::unnecessary_box_returns)]

mod answer;
mod context;
mod failure;
pub mod hooks;
mod peer;
mod replay;
mod translate;

pub use peer::{CaError, check_ca};
pub use replay::{BodyLimits, Budget};
