//! Being a client of an issuer: what is asked for, what was given, and what is to be done
//! about the difference (RFC 7591, RFC 7592; identity.md §D). Decisions only: the network
//! is spoken to by `remote::registration` and `remote::auth0_tenant`, and
//! `hawkgate register` puts both together.
//!
//! [`ClientMetadata`] (checked wishes) and [`State`] (what the state file remembers) →
//! [`decide`] → a [`Step`], recorded as an [`Intent`] before it is taken.

mod decision;
mod metadata;
mod snippet;
mod state;
mod tenant;

pub use decision::{Choices, Deletion, Refusal, Step, decide, decide_deletion};
pub use metadata::{AuthMethod, ClientMetadata, MetadataError};
pub use snippet::snippet;
pub use state::{Action, Intent, Registration, State, StateError};
pub use tenant::{Change, Connection, Grant, KnownGrant, TenantFacts, TenantRequest, UnknownName};
