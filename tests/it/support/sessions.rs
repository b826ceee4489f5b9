//! Web applications whose users sign in at hawkgate: the identity provider, the site, and visitors
//! that send what a browser sends.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hawkgate::clock::{ManualClock, SystemClock};
use hawkgate::reload;
use serde_json::{Value, json};

use super::client::{Request, Response};
use super::gateway::{ConfigDir, TestGateway};
use super::peers::Peer;
use super::wait::until;

/// The authority of the site.
pub(crate) const HOST: &str = "app.example.test";
/// Where browsers reach it.
pub(crate) const ORIGIN: &str = "https://app.example.test";
/// The cookie of the session `web`.
pub(crate) const COOKIE: &str = "__Host-hawkgate-web";
/// The secret of its client.
pub(crate) const CLIENT_SECRET: &str = "tests-only-web-client-secret";
/// `aud` of the provider's access tokens.
pub(crate) const AUDIENCE: &str = "urn:hawkgate:application";

/// A cookie key: 32 bytes, base64.
pub(crate) fn cookie_key(seed: u8) -> String {
    let bytes: Vec<u8> = (0..32).map(|at| seed ^ at).collect();
    STANDARD.encode(bytes)
}

/// `[server]` with plain HTTP, as behind a proxy that terminates TLS; `more` are further keys.
pub(crate) fn server(more: &str) -> String {
    format!(
        r#"
[server]
listen = ["127.0.0.1:0", {{ address = "127.0.0.1:0", h2c = true }}]
admin = "127.0.0.1:0"
drain_delay = "0s"
local_hosts = ["{HOST}"]
{more}
"#
    )
}

/// An instance of `tests/peers/session-provider.js`.
pub(crate) struct SessionProvider(Peer);

impl SessionProvider {
    pub(crate) async fn start(options: Value) -> Self {
        Self(Peer::start("session-provider", &options).await)
    }

    pub(crate) fn issuer(&self) -> &str {
        self.0.fact("issuer")
    }

    pub(crate) async fn control(&self, command: &str, arguments: Value) -> Value {
        self.0.control(command, arguments).await
    }

    /// Registers the client `id` of the site at `origin`, with the secret [`CLIENT_SECRET`].
    pub(crate) async fn register(&self, id: &str, origin: &str, prefix: &str) {
        let client =
            json!({ "id": id, "secret": CLIENT_SECRET, "origin": origin, "prefix": prefix });
        self.control("client", client).await;
    }

    /// What a browser does from the authorization request on: the user signs in. Returns the
    /// callback's location.
    pub(crate) async fn sign_in(&self, authorization: &str, user: &str) -> String {
        let arguments = json!({ "url": authorization, "user": user });
        let response = self.control("signIn", arguments).await;
        let location = response["location"].as_str();
        location
            .unwrap_or_else(|| panic!("no callback: {response}"))
            .to_owned()
    }

    /// An access token of a user, for a page that holds its own.
    pub(crate) async fn token(&self, user: &str) -> String {
        let response = self
            .control("token", json!({ "user": user, "client": "web" }))
            .await;
        response["token"].as_str().unwrap().to_owned()
    }

    /// The `sid` of a user's session with the client `web`.
    pub(crate) async fn sid(&self, user: &str) -> String {
        let arguments = json!({ "user": user, "client": "web" });
        let response = self.control("sids", arguments).await;
        response["sids"][0].as_str().unwrap().to_owned()
    }

    /// A logout token for the client `web`: `{claims, header, foreign}`, see the peer.
    pub(crate) async fn logout_token(&self, mut arguments: Value) -> String {
        arguments["client"] = "web".into();
        let response = self.control("logoutToken", arguments).await;
        response["token"].as_str().unwrap().to_owned()
    }

    /// Lifetimes of the tokens issued from now on.
    pub(crate) async fn token_lifetime(&self, lifetime: Duration) {
        let seconds = lifetime.as_secs();
        self.control("ttl", json!({ "accessToken": seconds, "idToken": seconds }))
            .await;
    }

    /// How an endpoint (discovery, jwks, token, revocation) behaves: ok, error, disconnect, slow,
    /// lost.
    pub(crate) async fn mode(&self, endpoint: &str, mode: &str) {
        self.control("mode", json!({ "endpoint": endpoint, "mode": mode }))
            .await;
    }

    /// How often something happened: `token`, `refresh_token granted`, `refresh_token refused`,
    /// `authorization_code granted`, `revocation`, `logout token accepted`.
    pub(crate) async fn count(&self, what: &str) -> u64 {
        let counts = self.control("counts", json!({})).await;
        counts[what].as_u64().unwrap_or(0)
    }
}

/// An instance of `tests/peers/application.js`: the application, or another site.
pub(crate) struct Application(Peer);

impl Application {
    pub(crate) async fn start(options: Value) -> Self {
        Self(Peer::start("application", &options).await)
    }

    pub(crate) fn url(&self) -> &str {
        self.0.fact("url")
    }

    pub(crate) async fn control(&self, command: &str, arguments: Value) -> Value {
        self.0.control(command, arguments).await
    }

    /// The requests that it received so far: `method`, `url`, `headers`, `rawHeaders`, `body`.
    pub(crate) async fn requests(&self) -> Vec<Value> {
        let response = self.control("requests", json!({})).await;
        response["requests"].as_array().unwrap().clone()
    }
}

/// How a [`Site`] differs from the usual one.
#[derive(Default)]
pub(crate) struct Options<'a> {
    /// Of the provider's peer.
    pub(crate) provider: Value,
    /// `[server]`; empty for [`server`].
    pub(crate) server: &'a str,
    /// Keys of the session `web` besides the usual ones; empty for `origin`.
    pub(crate) session: &'a str,
    /// Keys of the route `application`.
    pub(crate) route: &'a str,
    /// Further sections.
    pub(crate) sections: &'a str,
    /// Further files.
    pub(crate) files: &'a [(&'a str, String)],
}

/// A provider, an application, and hawkgate in front of it.
pub(crate) struct Site {
    pub(crate) provider: SessionProvider,
    pub(crate) application: Application,
    pub(crate) gateway: TestGateway,
    /// hawkgate's; it stands still. The provider's goes on.
    pub(crate) clock: Arc<ManualClock>,
    /// The configuration that it started with.
    pub(crate) text: String,
}

impl Site {
    pub(crate) async fn usual() -> Self {
        Self::start(Options::default()).await
    }

    pub(crate) async fn start(options: Options<'_>) -> Self {
        let provider_options = if options.provider.is_null() {
            json!({})
        } else {
            options.provider.clone()
        };
        let provider = SessionProvider::start(provider_options).await;
        provider.register("web", ORIGIN, "/oauth2/").await;
        let application = Application::start(json!({})).await;
        let files = ConfigDir::new();
        files.write("client-secret", CLIENT_SECRET);
        files.write("cookie-key", cookie_key(1));
        for (name, content) in options.files {
            files.write(name, content);
        }
        let clock = ManualClock::at(SystemClock::shared().now());
        let text = config(&provider, &application, &options);
        let gateway = TestGateway::start_with(&text, files, clock.clone()).await;
        Self {
            provider,
            application,
            gateway,
            clock,
            text,
        }
    }

    /// Reloads the configuration `text`, and the files that it names.
    pub(crate) async fn reload(&self, text: &str) {
        let path = self.gateway.files.write("hawkgate.toml", text);
        let loaded = reload::load(&path, None).unwrap_or_else(|e| panic!("{e}"));
        let result = [("result", "success")];
        let name = "hawkgate_config_reloads_total";
        let before = self.gateway.metrics().await.sum(name, &result);
        let running = &self.gateway.running;
        let reloads = running.reloads(path, loaded.fingerprints, None);
        reloads.request();
        until("the reload", async || {
            self.gateway.metrics().await.sum(name, &result) > before
        })
        .await;
    }

    /// Somebody who has not signed in.
    pub(crate) fn visitor(&self) -> Visitor<'_> {
        Visitor::of(&self.gateway)
    }

    /// Somebody who has signed in.
    pub(crate) async fn signed_in(&self, user: &str) -> Visitor<'_> {
        let mut visitor = self.visitor();
        let response = visitor.sign_in(&self.provider, user, "/").await;
        assert_eq!(response.status / 100, 3, "{response:?}");
        visitor
    }
}

/// The configuration of a site.
pub(crate) fn config(
    provider: &SessionProvider,
    application: &Application,
    options: &Options<'_>,
) -> String {
    let usual_server = server("");
    let server = match options.server {
        "" => usual_server.as_str(),
        other => other,
    };
    let usual_session = format!("origin = \"{ORIGIN}\"");
    let session = match options.session {
        "" => usual_session.as_str(),
        other => other,
    };
    let (issuer, upstream) = (provider.issuer(), application.url());
    let (route, sections) = (options.route, options.sections);
    format!(
        r#"{server}
[[issuer]]
name = "idp"
url = "{issuer}"
audiences = ["{AUDIENCE}"]
[[session]]
name = "web"
issuer = "idp"
client_id = "web"
client_secret = {{ file = "client-secret" }}
scopes = ["openid", "profile", "email", "read"]
resource = "{AUDIENCE}"
cookie_key = {{ file = "cookie-key" }}
{session}
[[route]]
name = "application"
upstream = "{upstream}"
session = "web"
{route}
{sections}
"#
    )
}

/// Sends what a browser sends, with the cookies that it would send.
pub(crate) struct Visitor<'a> {
    gateway: &'a TestGateway,
    /// The authority in requests.
    pub(crate) host: String,
    jar: Vec<(String, String)>,
}

impl<'a> Visitor<'a> {
    pub(crate) fn of(gateway: &'a TestGateway) -> Self {
        Self {
            gateway,
            host: HOST.to_owned(),
            jar: Vec::new(),
        }
    }

    /// The same cookies in another browser: somebody who stole them.
    pub(crate) fn thief(&self) -> Self {
        Self {
            gateway: self.gateway,
            host: self.host.clone(),
            jar: self.jar.clone(),
        }
    }

    /// The value of a cookie.
    pub(crate) fn cookie(&self, name: &str) -> Option<&str> {
        let mut jar = self.jar.iter();
        let found = jar.find(|(own, _)| own == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The value of the session cookie.
    #[track_caller]
    pub(crate) fn session(&self) -> &str {
        self.cookie(COOKIE).expect("a session cookie")
    }

    /// Sets a cookie, as the site itself would.
    pub(crate) fn set_cookie(&mut self, name: &str, value: &str) {
        self.jar.retain(|(own, _)| own != name);
        self.jar.push((name.to_owned(), value.to_owned()));
    }

    pub(crate) fn remove_cookie(&mut self, name: &str) {
        self.jar.retain(|(own, _)| own != name);
    }

    /// Every cookie.
    pub(crate) fn cookies(&self) -> &[(String, String)] {
        &self.jar
    }

    /// The names of the cookies of unfinished sign-ins.
    pub(crate) fn attempts(&self) -> Vec<String> {
        let names = self.jar.iter().map(|(name, _)| name);
        names.filter(|n| n.contains("-signin-")).cloned().collect()
    }

    /// The `Cookie` field.
    pub(crate) fn cookie_field(&self) -> String {
        let pairs: Vec<String> = self.jar.iter().map(|(n, v)| format!("{n}={v}")).collect();
        pairs.join("; ")
    }

    /// Sends a request with the cookies, and stores those of the response.
    pub(crate) async fn send(&mut self, mut request: Request) -> Response {
        request.authority.clone_from(&self.host);
        if !self.jar.is_empty() {
            request = request.header("Cookie", &self.cookie_field());
        }
        let response = self.gateway.send(&request).await;
        self.store(&response);
        response
    }

    /// Stores the cookies of a response.
    pub(crate) fn store(&mut self, response: &Response) {
        for field in response.fields.all("set-cookie") {
            let mut parts = field.split(';').map(str::trim);
            let (name, value) = parts.next().unwrap().split_once('=').unwrap();
            if parts.any(|part| part.eq_ignore_ascii_case("max-age=0")) {
                self.remove_cookie(name);
            } else {
                self.set_cookie(name, value);
            }
        }
    }

    /// A link that was clicked on the site, or a URL that was typed.
    pub(crate) async fn navigate(&mut self, target: &str) -> Response {
        self.send(navigation(target)).await
    }

    /// `fetch` by a page of the site.
    pub(crate) async fn fetch(&mut self, method: &str, target: &str) -> Response {
        self.send(own_fetch(method, target)).await
    }

    /// Begins a sign-in; returns the authorization request.
    pub(crate) async fn begin(&mut self, return_to: &str) -> String {
        let response = self.navigate(&login(return_to)).await;
        assert_eq!(response.status, 302, "{response:?}");
        response.header("location").unwrap().to_owned()
    }

    /// Requests a URL of the site, such as the callback's.
    pub(crate) async fn arrive(&mut self, location: &str) -> Response {
        let url = url::Url::parse(location).unwrap();
        let target = match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        };
        self.send(from_elsewhere(&target)).await
    }

    /// Signs in; returns the response to the callback.
    pub(crate) async fn sign_in(
        &mut self,
        provider: &SessionProvider,
        user: &str,
        return_to: &str,
    ) -> Response {
        let authorization = self.begin(return_to).await;
        let callback = provider.sign_in(&authorization, user).await;
        self.arrive(&callback).await
    }

    /// Who is signed in: `sub` of the endpoint `session`, if anybody.
    pub(crate) async fn who(&mut self) -> Option<String> {
        let response = self.fetch("GET", "/oauth2/session").await;
        match response.status {
            200 => Some(response.json()["sub"].as_str().unwrap().to_owned()),
            401 => None,
            _ => panic!("{response:?}"),
        }
    }
}

/// The target that begins a sign-in.
pub(crate) fn login(return_to: &str) -> String {
    let query: String = url::form_urlencoded::byte_serialize(return_to.as_bytes()).collect();
    format!("/oauth2/login?return_to={query}")
}

fn with(mut request: Request, fields: &[(&str, &str)]) -> Request {
    for (name, value) in fields {
        request = request.header(name, value);
    }
    request
}

/// A navigation that the user began.
pub(crate) fn navigation(target: &str) -> Request {
    with(
        Request::get(target),
        &[
            ("Sec-Fetch-Site", "none"),
            ("Sec-Fetch-Mode", "navigate"),
            ("Sec-Fetch-Dest", "document"),
            ("Accept", "text/html,*/*;q=0.8"),
        ],
    )
}

/// A navigation from another site, such as a redirect of the provider.
pub(crate) fn from_elsewhere(target: &str) -> Request {
    with(
        Request::get(target),
        &[
            ("Sec-Fetch-Site", "cross-site"),
            ("Sec-Fetch-Mode", "navigate"),
            ("Sec-Fetch-Dest", "document"),
            ("Accept", "text/html,*/*;q=0.8"),
        ],
    )
}

/// `fetch` by a page of the site.
pub(crate) fn own_fetch(method: &str, target: &str) -> Request {
    let request = with(
        Request::new(method, target),
        &[
            ("Sec-Fetch-Site", "same-origin"),
            ("Sec-Fetch-Mode", "cors"),
            ("Sec-Fetch-Dest", "empty"),
            ("Accept", "*/*"),
        ],
    );
    match method {
        "GET" | "HEAD" => request,
        _ => request.header("Origin", ORIGIN),
    }
}
