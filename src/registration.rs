//! Being a client of an issuer: what is asked for, what was given, and what is to be done
//! about the difference (RFC 7591, RFC 7592; identity.md §D). Decisions only: the network
//! is spoken to by `remote::registration` and `remote::auth0_tenant`, and
//! `hawkgate register` puts both together.
//!
//! [`ClientMetadata`] (checked wishes) and [`RegistrationState`] (what the state file remembers) →
//! [`plan_registration`] → a [`RegistrationPlan`], recorded as an [`Intent`] before it is taken.

mod auth0_tenant;
mod metadata;
mod plan;
mod snippet;
mod state;

pub use auth0_tenant::{
    ClientGrant, Connection, ExistingGrant, TenantChange, TenantRequirements, TenantState,
    UnknownConnection,
};
pub use metadata::{AuthMethod, ClientMetadata, MetadataError};
pub use plan::{
    DeletionPlan, Overrides, PlanError, RegistrationPlan, plan_deletion, plan_registration,
};
pub use snippet::snippet;
pub use state::{Action, Intent, Registration, RegistrationState, StateError};
