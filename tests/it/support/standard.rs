//! The standard set-up: the certified OpenID provider, a Taskcluster that verifies its
//! requests, and a gateway with one route, named by its host, for each kind of Taskcluster source.

use serde_json::json;

use super::client::{Request, Response};
use super::gateway::{ROOT_KEY, TestGateway};
use super::peers::{OidcProvider, Taskcluster};
use super::tokens::IssuerServer;
use super::upstream::FakeUpstream;

pub(crate) const AUDIENCE: &str = "login.taskcluster.net";

/// The endpoint of the source `login`.
pub(crate) const EXCHANGE: &str = "/api/login/v1/oidc-credentials/mozilla-auth0";

/// A source that creates temporary credentials `sso/<sub>` of the client `root`.
pub(crate) const MINT: &str = r#"
[[source]]
name = "mint"
kind = "taskcluster-mint"
client_id = "root"
access_token = { file = "access-token" }
client_name = "sso/{sub}"
scopes = ["test:*"]
"#;

/// An identity provider, and a Taskcluster whose login endpoint accepts its tokens.
pub(crate) struct Peers {
    pub(crate) provider: OidcProvider,
    pub(crate) taskcluster: Taskcluster,
}

impl Peers {
    /// The client `root` may create clients `sso/…`; it and the users who log in have the scopes
    /// `test:*` and `other:*`.
    pub(crate) async fn start() -> Self {
        let provider = OidcProvider::start(json!({ "ttl": 3600 })).await;
        let taskcluster = Taskcluster::start(json!({
            "login": {
                "issuer": provider.issuer(),
                "jwks": provider.jwks(),
                "audience": AUDIENCE,
                "scopes": ["test:*", "other:*"],
            },
            "clients": {
                "root": {
                    "accessToken": ROOT_KEY,
                    "scopes": ["test:*", "other:*", "auth:create-client:sso/*"],
                },
            },
        }))
        .await;
        Self {
            provider,
            taskcluster,
        }
    }

    /// A user's token with which the login endpoint issues credentials.
    pub(crate) async fn token(&self, sub: &str) -> String {
        self.provider.user_token("RS256", sub, AUDIENCE).await
    }

    /// Successful exchanges at the login endpoint so far.
    pub(crate) async fn exchanges(&self) -> u64 {
        self.taskcluster.count("GET", EXCHANGE, 200).await
    }

    /// The issuers `idp` and `opaque`, and for each of `sources` (login, oauth, mint, static,
    /// narrow) the source and a route of the same name at the host `<name>.test`.
    pub(crate) fn config(&self, sources: &[&str]) -> String {
        let (issuer, root_url) = (self.provider.issuer(), self.taskcluster.url());
        let mut text = format!(
            r#"
[[issuer]]
name = "idp"
url = "{issuer}"
audiences = ["{AUDIENCE}"]
[[issuer]]
name = "opaque"
kind = "delegated"
"#
        );
        for name in sources {
            let issuer = if *name == "oauth" { "opaque" } else { "idp" };
            let source = source(name, root_url);
            text += &format!(
                r#"
[[source]]
name = "{name}"
{source}
[[route]]
name = "{name}"
host = "{name}.test"
upstream = "{root_url}"
issuers = ["{issuer}"]
source = "{name}"
"#
            );
        }
        text
    }
}

/// The keys of a source, without its name.
fn source(name: &str, root_url: &str) -> String {
    let root = "client_id = \"root\"\naccess_token = { file = \"access-token\" }";
    match name {
        "login" => format!("kind = \"taskcluster-login\"\nurl = \"{root_url}{EXCHANGE}\""),
        "oauth" => format!("kind = \"taskcluster-oauth\"\nroot_url = \"{root_url}\""),
        "mint" => format!(
            "kind = \"taskcluster-mint\"\n{root}\nclient_name = \"sso/{{sub}}\"\n\
             scopes = [\"test:*\", \"other:*\"]"
        ),
        "static" => format!("kind = \"taskcluster-static\"\n{root}"),
        "narrow" => format!("kind = \"taskcluster-static\"\n{root}\nauthorized_scopes = []"),
        _ => panic!("no standard source {name}"),
    }
}

/// The audience of [`api_route`].
pub(crate) const API_AUDIENCE: &str = "https://api.example.com";

/// The issuer `idp`, the source `static` and the route `api`, which signs requests to
/// `upstream`, with additional keys for the issuer and the route.
pub(crate) fn api_route(
    issuer: &IssuerServer,
    issuer_keys: &str,
    upstream: &FakeUpstream,
    route_keys: &str,
) -> String {
    format!(
        r#"
[[issuer]]
name = "idp"
url = "{}"
audiences = ["{API_AUDIENCE}"]
{issuer_keys}
[[source]]
name = "static"
kind = "taskcluster-static"
client_id = "root"
access_token = {{ file = "access-token" }}
[[route]]
name = "api"
upstream = "{}"
issuers = ["idp"]
source = "static"
{route_keys}
"#,
        issuer.issuer(),
        upstream.url()
    )
}

/// The peers with a gateway in front.
pub(crate) struct Standard {
    pub(crate) peers: Peers,
    pub(crate) gateway: TestGateway,
}

impl Standard {
    /// With every standard source, and further `sections`.
    pub(crate) async fn start(sections: &str) -> Self {
        let peers = Peers::start().await;
        let all = peers.config(&["login", "oauth", "mint", "static", "narrow"]);
        let gateway = TestGateway::start(&format!("{all}{sections}")).await;
        Self { peers, gateway }
    }

    /// Sends `request` with a bearer token to a route.
    pub(crate) async fn send(&self, route: &str, request: Request, token: &str) -> Response {
        self.gateway.send(&to(route, request, token)).await
    }
}

/// `request` with a bearer token, for the route at `<route>.test`.
pub(crate) fn to(route: &str, request: Request, token: &str) -> Request {
    let mut request = request.bearer(token);
    request.authority = format!("{route}.test");
    request
}
