//! Dynamic client registration (RFC 7591, RFC 7592; `docs/design/tokens.md`, "Signing in"):
//! validates the desired metadata and decides what to do, without any network access.
//! `remote::registration` and `remote::auth0_tenant` send the requests, and the command
//! `hawkgate register` ties them together.
//!
//! Desired [`ClientMetadata`] and the [`RegistrationState`] file → [`plan_registration`] → a
//! [`RegistrationPlan`], recorded as an [`Intent`] before it is carried out.

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
pub use state::{Action, Intent, Registration, RegistrationState};
