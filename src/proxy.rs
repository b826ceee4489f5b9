//! The only module that knows pingora: listeners, connections, the hooks of a request, and
//! the operators' pages.

pub mod admin;
pub mod connection;
pub mod guard;
pub mod listener;
pub mod server;
