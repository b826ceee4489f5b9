//! What an Auth0 tenant needs before clients may register by themselves and be of use
//! (seed 002, identity.md §D): the setting, domain connections, grants for third-party
//! clients. Differences only; nothing that the tenant has is taken away, but for the
//! setting when it is to be shut again.

use std::collections::BTreeSet;
use std::fmt;

/// What is wanted of the tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TenantRequirements {
    /// Names of connections that registered clients may use.
    pub connections: Vec<String>,
    /// What they may ask for.
    pub grants: Vec<ClientGrant>,
}

/// Scopes of one API that third-party clients may ask for on behalf of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientGrant {
    /// The API's identifier.
    pub audience: String,
    /// Scopes of it.
    pub scopes: BTreeSet<String>,
}

/// What the tenant has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TenantState {
    /// Whether clients may register by themselves.
    pub open: bool,
    /// Those of the wished connections that there are.
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
    /// Whether clients that registered themselves may use it.
    pub is_domain_connection: bool,
}

/// A grant that the tenant has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExistingGrant {
    /// Its identifier.
    pub id: String,
    /// What it allows.
    pub grant: ClientGrant,
}

/// One call that changes the tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TenantChange {
    /// `PATCH /api/v2/tenants/settings`.
    OpenRegistration,
    /// The same, the other way.
    CloseRegistration,
    /// `PATCH /api/v2/connections/{id}`.
    PromoteConnection(Connection),
    /// `POST /api/v2/client-grants`.
    AddGrant(ClientGrant),
    /// `PATCH /api/v2/client-grants/{id}` with all the scopes that it is to have.
    WidenGrant(ExistingGrant),
}

/// A connection that the tenant does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the tenant has no connection named {0:?}; see Authentication in its dashboard for their names"
)]
pub struct UnknownConnection(pub String);

impl TenantRequirements {
    /// What is missing of the request, apart from the setting.
    ///
    /// # Errors
    /// When a connection is named that is not there.
    pub fn differences(&self, facts: &TenantState) -> Result<Vec<TenantChange>, UnknownConnection> {
        let mut changes = Vec::new();
        for name in &self.connections {
            let found = facts.connections.iter().find(|c| c.name == *name);
            let connection = found.ok_or_else(|| UnknownConnection(name.clone()))?;
            if !connection.is_domain_connection {
                changes.push(TenantChange::PromoteConnection(connection.clone()));
            }
        }
        for grant in &self.grants {
            let known = facts
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
    /// From `AUDIENCE=scope scope`; without `=`, no scopes.
    pub fn parse(text: &str) -> Option<Self> {
        // An audience is often a URL, and may have a query with `=` in it; scopes have none.
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
                "open the tenant for registration by anybody (flags.enable_dynamic_client_registration = true)",
            ),
            Self::CloseRegistration => f.write_str(
                "shut registration again (flags.enable_dynamic_client_registration = false)",
            ),
            Self::PromoteConnection(connection) => write!(
                f,
                "let clients that registered themselves use the connection {:?} (is_domain_connection = true)",
                connection.name
            ),
            Self::AddGrant(grant) => write!(
                f,
                "let third-party clients ask users for {} of {}",
                grant.scopes(),
                grant.audience
            ),
            Self::WidenGrant(known) => write!(
                f,
                "widen what third-party clients may ask users for of {} to {}",
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
    fn only_differences_are_changed() {
        let request = TenantRequirements {
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
        let facts = TenantState {
            open: false,
            connections: vec![connection("users", true), connection("github", false)],
            grants: vec![
                known("g1", "https://api/=read admin"),
                known("g2", "https://same/=a b"),
            ],
        };
        let changes = request.differences(&facts).unwrap();
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
                .differences(&facts)
                .unwrap_err()
                .to_string()
                .contains("ldap")
        );
    }

    #[test]
    fn grants_are_written_in_one_word() {
        assert_eq!(grant("https://api/?v=1=read").audience, "https://api/?v=1");
        assert_eq!(grant("urn:api").scopes.len(), 0);
        assert_eq!(grant("urn:api=b a b").scopes(), "a b");
        assert_eq!(ClientGrant::parse("=read"), None);
    }
}
