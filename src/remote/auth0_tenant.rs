//! Reads and changes an Auth0 tenant's registration settings through its Management API
//! (`docs/design/tokens.md`, "Auth0 Management API").

use std::collections::BTreeSet;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;
use zeroize::Zeroizing;

use super::http_client::{HttpClient, HttpResponse};
use super::retry::with_retry_after;
use crate::clock::SharedClock;
use crate::registration::{
    ClientGrant, Connection, ExistingGrant, TenantChange, TenantRequirements, TenantState,
};
use crate::secret::SecretString;

/// Grants per page.
const PAGE_SIZE: usize = 100;
/// The most pages read; more than a few dozen grants for one API are implausible.
const MAX_PAGES: usize = 20;

/// A client of one tenant's Management API.
#[derive(Clone, Debug)]
pub struct Auth0Tenant {
    url: Url,
    token: SecretString,
    client: HttpClient,
    clock: SharedClock,
}

/// Why the tenant could not be read or changed. The messages quote nothing from the responses.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct TenantError(String);

#[derive(Deserialize)]
struct ConnectionBody {
    id: String,
    name: String,
    #[serde(default)]
    is_domain_connection: bool,
}

#[derive(Deserialize)]
struct GrantBody {
    id: String,
    audience: String,
    #[serde(default)]
    scope: Vec<String>,
    default_for: Option<String>,
    subject_type: Option<String>,
}

impl Auth0Tenant {
    /// Creates a client of the tenant at `url` (`https://TENANT.auth0.com/`) with a Management API
    /// token.
    pub fn new(url: Url, token: SecretString, client: HttpClient, clock: SharedClock) -> Self {
        Self {
            url,
            token,
            client,
            clock,
        }
    }

    /// Reads the current state of everything in `requirements`.
    ///
    /// # Errors
    /// When the API cannot be reached, refuses, or sends an unexpected response.
    pub async fn state(
        &self,
        requirements: &TenantRequirements,
    ) -> Result<TenantState, TenantError> {
        let mut state = TenantState {
            registration_open: self.is_open().await?,
            ..TenantState::default()
        };
        for name in &requirements.connections {
            state.connections.extend(self.connection(name).await?);
        }
        for grant in &requirements.grants {
            state.grants.extend(self.grant(&grant.audience).await?);
        }
        Ok(state)
    }

    /// Makes one change.
    ///
    /// # Errors
    /// As [`Self::state`].
    pub async fn apply(&self, change: &TenantChange) -> Result<(), TenantError> {
        let setting = |on: bool| json!({"flags": {"enable_dynamic_client_registration": on}});
        let (method, path, scope, body) = match change {
            TenantChange::OpenRegistration | TenantChange::CloseRegistration => (
                Method::PATCH,
                vec!["tenants", "settings"],
                "update:tenant_settings",
                setting(*change == TenantChange::OpenRegistration),
            ),
            TenantChange::PromoteConnection(connection) => (
                Method::PATCH,
                vec!["connections", &connection.id],
                "update:connections",
                json!({"is_domain_connection": true}),
            ),
            TenantChange::AddGrant(grant) => (
                Method::POST,
                vec!["client-grants"],
                "create:client_grants",
                json!({
                    "default_for": "third_party_clients",
                    "audience": grant.audience,
                    "scope": grant.scopes,
                    "subject_type": "user",
                }),
            ),
            TenantChange::WidenGrant(known) => (
                Method::PATCH,
                vec!["client-grants", &known.id],
                "update:client_grants",
                json!({"scope": known.grant.scopes}),
            ),
        };
        let url = self.url(&path, &[])?;
        self.call(method, &url, Some(&body), scope).await.map(drop)
    }

    async fn is_open(&self) -> Result<bool, TenantError> {
        let query = [("fields", "flags"), ("include_fields", "true")];
        let settings: Value = self
            .read(&["tenants", "settings"], &query, "read:tenant_settings")
            .await?;
        let flag = settings
            .get("flags")
            .and_then(|flags| flags.get("enable_dynamic_client_registration"));
        Ok(flag.and_then(Value::as_bool).unwrap_or(false))
    }

    async fn connection(&self, name: &str) -> Result<Option<Connection>, TenantError> {
        let query = [
            ("name", name),
            ("fields", "id,name,is_domain_connection"),
            ("include_fields", "true"),
        ];
        let found: Vec<ConnectionBody> = self
            .read(&["connections"], &query, "read:connections")
            .await?;
        // Do not rely on the API's filter.
        let named = found.into_iter().find(|c| c.name == name);
        Ok(named.map(|c| Connection {
            id: c.id,
            name: c.name,
            is_domain_connection: c.is_domain_connection,
        }))
    }

    /// The default client grant for third-party clients acting on behalf of users.
    async fn grant(&self, audience: &str) -> Result<Option<ExistingGrant>, TenantError> {
        for page in 0..MAX_PAGES {
            let (page, per_page) = (page.to_string(), PAGE_SIZE.to_string());
            let query = [
                ("audience", audience),
                ("per_page", per_page.as_str()),
                ("page", page.as_str()),
            ];
            let grants: Vec<GrantBody> = self
                .read(&["client-grants"], &query, "read:client_grants")
                .await?;
            let last = grants.len() < PAGE_SIZE;
            let matches = |g: &GrantBody| {
                g.audience == audience
                    && g.default_for.as_deref() == Some("third_party_clients")
                    && g.subject_type.as_deref() == Some("user")
            };
            if let Some(found) = grants.into_iter().find(matches) {
                return Ok(Some(ExistingGrant {
                    id: found.id,
                    grant: ClientGrant {
                        audience: found.audience,
                        scopes: found.scope.into_iter().collect::<BTreeSet<_>>(),
                    },
                }));
            }
            if last {
                break;
            }
        }
        Ok(None)
    }

    async fn read<T: serde::de::DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        scope: &str,
    ) -> Result<T, TenantError> {
        let url = self.url(path, query)?;
        let response = self.call(Method::GET, &url, None, scope).await?;
        serde_json::from_slice(&response.body).map_err(|_| {
            TenantError(format!(
                "{}: the response does not have the documented shape",
                resource(&url)
            ))
        })
    }

    /// The URL of an API resource. Each element of `path` is escaped as one segment, because
    /// identifiers come from the tenant.
    fn url(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Url, TenantError> {
        let mut url = self.url.clone();
        url.path_segments_mut()
            .map_err(|()| TenantError("--auth0-tenant is not a tenant URL".into()))?
            .clear()
            .extend(["api", "v2"])
            .extend(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Ok(url)
    }

    async fn call(
        &self,
        method: Method,
        url: &Url,
        body: Option<&Value>,
        scope: &str,
    ) -> Result<HttpResponse, TenantError> {
        let headers = self.headers()?;
        let body = body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
        let send = || {
            self.client
                .request(method.clone(), url, headers.clone(), body.clone())
        };
        let response = with_retry_after(&self.clock, send)
            .await
            .map_err(|e| TenantError(format!("{method} {}: {e}", resource(url))))?;
        if response.status.is_success() {
            return Ok(response);
        }
        let remedy = match response.status {
            StatusCode::UNAUTHORIZED => {
                "the management token is not valid, or is for another audience (it must be TENANT/api/v2/)".to_owned()
            }
            StatusCode::FORBIDDEN => format!("the management token lacks the scope {scope}"),
            StatusCode::NOT_FOUND => "not found; is --auth0-tenant the tenant's own domain?".to_owned(),
            StatusCode::TOO_MANY_REQUESTS => "too many requests; try again later".to_owned(),
            status if status.is_redirection() => "a redirect, which is not followed".to_owned(),
            _ => "no further details".to_owned(),
        };
        let (status, path) = (response.status.as_u16(), resource(url));
        Err(TenantError(format!(
            "{method} {path}: status {status}: {remedy}"
        )))
    }

    fn headers(&self) -> Result<HeaderMap, TenantError> {
        let text = Zeroizing::new(format!("Bearer {}", self.token.expose()));
        let mut token = HeaderValue::from_str(&text).map_err(|_| {
            TenantError(
                "the management token contains characters that are not allowed in a header".into(),
            )
        })?;
        token.set_sensitive(true);
        let json = HeaderValue::from_static("application/json");
        Ok(HeaderMap::from_iter([
            (AUTHORIZATION, token),
            (ACCEPT, json.clone()),
            (CONTENT_TYPE, json),
        ]))
    }
}

/// The path of `url` up to the kind of resource. What follows is an identifier that the tenant chose.
fn resource(url: &Url) -> String {
    let segments = url.path_segments().into_iter().flatten().take(3);
    segments.fold(String::new(), |path, segment| path + "/" + segment)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Reply, peer};
    use super::*;
    use crate::clock::SystemClock;
    use crate::remote::jwks::key_client;

    fn tenant(url: &Url) -> Auth0Tenant {
        let token = "a-management-token".into();
        Auth0Tenant::new(
            url.clone(),
            token,
            key_client(None, &crate::network::Network::default()).unwrap(),
            SystemClock::shared(),
        )
    }

    #[tokio::test]
    async fn errors_come_with_a_remedy_and_quote_nothing_from_the_response() {
        for (reply, expected) in [
            (
                Reply::json(403, "{\"message\":\"a-secret\"}"),
                "lacks the scope read:tenant_settings",
            ),
            (Reply::json(401, "{}"), "audience"),
            (Reply::json(404, "{}"), "own domain"),
            (Reply::new(302, &[("Location", "/x")], ""), "not followed"),
            (Reply::json(500, "a-secret"), "500"),
            (Reply::json(200, "a-secret"), "shape"),
            (Reply::json(200, &"x".repeat(300_000)), "larger than"),
        ] {
            let peer = peer(reply).await;
            let error = tenant(&peer.url)
                .state(&TenantRequirements::default())
                .await;
            let error = error.unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains("a-secret") && !error.contains("a-management-token"));
        }
    }

    #[tokio::test]
    async fn identifiers_are_escaped_as_one_path_segment() {
        let mut peer = peer(Reply::json(200, "{}")).await;
        let connection = Connection {
            id: "../x?y#z".into(),
            name: "n".into(),
            is_domain_connection: false,
        };
        let change = TenantChange::PromoteConnection(connection);
        tenant(&peer.url).apply(&change).await.unwrap();
        let request = peer.requests.recv().await.unwrap();
        assert!(
            request.starts_with("PATCH /api/v2/connections/..%2Fx%3Fy%23z "),
            "{request}"
        );
        assert!(
            request.ends_with("{\"is_domain_connection\":true}"),
            "{request}"
        );
    }
}
