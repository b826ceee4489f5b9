//! pingora.
