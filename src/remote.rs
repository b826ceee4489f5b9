//! Network clients: the only place that knows the HTTP client. One file per party spoken
//! to; [`client`] sets the limits that all of them share.

pub mod client;
pub mod dns;
