//! What an Auth0 tenant needs for dynamic client registration: the tenant setting, domain
//! connections, and client grants for third-party clients (`docs/design/tokens.md`, "Auth0
//! Management API"). Computes only additions: nothing is removed, except that the setting
//! can be disabled again afterwards.

use std::collections::BTreeSet;
use std::fmt;

/// What dynamically registered clients need in the tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TenantRequirements {
    /// Names of the connections that they may use.
    pub connections: Vec<String>,
    /// The API scopes that they may request.
    pub grants: Vec<ClientGrant>,
}

/// The scopes of one API that third-party clients may request on behalf of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientGrant {
    /// The API's identifier.
    pub audience: String,
    /// The API's scopes.
    pub scopes: BTreeSet<String>,
}

/// The tenant's current state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TenantState {
    /// Whether dynamic client registration is enabled.
    pub registration_open: bool,
    /// The required connections that exist.
    pub connections: Vec<Connection>,
    /// The default grants for third-party clients.
    pub grants: Vec<ExistingGrant>,
}

/// A connection of the tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Its identifier.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Whether dynamically registered clients may use it.
    pub is_domain_connection: bool,
}

/// A client grant that exists in the tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExistingGrant {
    /// Its identifier.
    pub id: String,
    /// What it grants.
    pub grant: ClientGrant,
}

/// One Management API request that changes the tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TenantChange {
    /// `PATCH /api/v2/tenants/settings`.
    OpenRegistration,
    /// The same request, disabling registration.
    CloseRegistration,
    /// `PATCH /api/v2/connections/{id}`.
    PromoteConnection(Connection),
    /// `POST /api/v2/client-grants`.
    AddGrant(ClientGrant),
    /// `PATCH /api/v2/client-grants/{id}` with the complete new list of scopes.
    WidenGrant(ExistingGrant),
}

/// A required connection that does not exist in the tenant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the tenant has no connection named {0:?}; the dashboard lists them under Authentication")]
pub struct UnknownConnection(pub String);

impl TenantRequirements {
    /// The changes that turn `state` into one that meets the requirements, apart from enabling
    /// registration.
    ///
    /// # Errors
    /// When a required connection does not exist.
    pub fn missing_changes(
        &self,
        state: &TenantState,
    ) -> Result<Vec<TenantChange>, UnknownConnection> {
        let mut changes = Vec::new();
        for name in &self.connections {
            let found = state.connections.iter().find(|c| c.name == *name);
            let connection = found.ok_or_else(|| UnknownConnection(name.clone()))?;
            if !connection.is_domain_connection {
                changes.push(TenantChange::PromoteConnection(connection.clone()));
            }
        }
        for grant in &self.grants {
            let known = state
                .grants
                .iter()
                .find(|k| k.grant.audience == grant.audience);
            match known {
                None => changes.push(TenantChange::AddGrant(grant.clone())),
                Some(known) if grant.scopes.is_subset(&known.grant.scopes) => {}
                Some(known) => {
                    let mut wider = known.clone();
                    wider.grant.scopes.extend(grant.scopes.iter().cloned());
                    changes.push(TenantChange::WidenGrant(wider));
                }
            }
        }
        Ok(changes)
    }
}

impl ClientGrant {
    /// Parses `AUDIENCE=scope scope`. Without `=` there are no scopes.
    pub fn parse(text: &str) -> Option<Self> {
        // The last `=`, because an audience is often a URL whose query may contain one.
        let (audience, scopes) = text.rsplit_once('=').unwrap_or((text, ""));
        (!audience.trim().is_empty()).then(|| Self {
            audience: audience.trim().to_owned(),
            scopes: scopes.split_whitespace().map(str::to_owned).collect(),
        })
    }

    fn scopes(&self) -> String {
        let scopes: Vec<&str> = self.scopes.iter().map(String::as_str).collect();
        if scopes.is_empty() {
            "no scopes".to_owned()
        } else {
            scopes.join(" ")
        }
    }
}

impl fmt::Display for TenantChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OpenRegistration => f.write_str(
                "enable dynamic client registration for anyone (flags.enable_dynamic_client_registration = true)",
            ),
            Self::CloseRegistration => f.write_str(
                "disable dynamic client registration (flags.enable_dynamic_client_registration = false)",
            ),
            Self::PromoteConnection(connection) => write!(
                f,
                "let dynamically registered clients use the connection {:?} (is_domain_connection = true)",
                connection.name
            ),
            Self::AddGrant(grant) => write!(
                f,
                "let third-party clients request {} of {} on behalf of users",
                grant.scopes(),
                grant.audience
            ),
            Self::WidenGrant(known) => write!(
                f,
                "extend the scopes of {} that third-party clients may request on behalf of users to {}",
                known.grant.audience,
                known.grant.scopes()
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(text: &str) -> ClientGrant {
        ClientGrant::parse(text).unwrap()
    }

    fn connection(name: &str, is_domain_connection: bool) -> Connection {
        let id = format!("con_{name}");
        Connection {
            id,
            name: name.into(),
            is_domain_connection,
        }
    }

    #[test]
    fn only_missing_settings_are_changed() {
        let requirements = TenantRequirements {
            connections: vec!["users".into(), "github".into()],
            grants: vec![
                grant("https://api/=read write"),
                grant("https://other/=x"),
                grant("https://same/=a"),
            ],
        };
        let known = |id: &str, text| ExistingGrant {
            id: id.into(),
            grant: grant(text),
        };
        let state = TenantState {
            registration_open: false,
            connections: vec![connection("users", true), connection("github", false)],
            grants: vec![
                known("g1", "https://api/=read admin"),
                known("g2", "https://same/=a b"),
            ],
        };
        let changes = requirements.missing_changes(&state).unwrap();
        assert_eq!(
            changes,
            [
                TenantChange::PromoteConnection(connection("github", false)),
                TenantChange::WidenGrant(known("g1", "https://api/=admin read write")),
                TenantChange::AddGrant(grant("https://other/=x")),
            ]
        );
        let unknown = TenantRequirements {
            connections: vec!["ldap".into()],
            grants: vec![],
        };
        assert!(
            unknown
                .missing_changes(&state)
                .unwrap_err()
                .to_string()
                .contains("ldap")
        );
    }

    #[test]
    fn a_grant_is_parsed_from_audience_and_scopes() {
        assert_eq!(grant("https://api/?v=1=read").audience, "https://api/?v=1");
        assert_eq!(grant("urn:api").scopes.len(), 0);
        assert_eq!(grant("urn:api=b a b").scopes(), "a b");
        assert_eq!(ClientGrant::parse("=read"), None);
    }
}
