//! Sessions with a fake provider, a browser that is a cookie jar, and a manual clock.

mod cookies;
mod fleet;
mod fleet_refreshes;
mod refreshes;
mod sign_ins;
mod sign_outs;
mod support;
