//! The store that a fleet shares, on Valkey or Redis (`docs/design/fleet.md`).

pub mod settings;
