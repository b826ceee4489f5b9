//! The sessions of users who sign in with a browser, as requests meet them: which endpoints there
//! are, at which site, and what a request without a session gets (`docs/design/sessions.md`). What a
//! session is, and how it is kept, is [`crate::session`]'s.

mod authenticate;
mod browser;
mod cookie_caller;
mod endpoints;
mod pages;
#[cfg(test)]
mod tests;

use std::fmt::{self, Write as _};
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;

use super::Head;
use super::host::{HostPattern, host_name, is_loopback};
use super::path;
use super::rate_limit::{Rate, RateBy, RateLimiter, RateLimiters};
use super::reason::Reason;
use super::rejection::{Rejection, SignInRequired};
use crate::clock::SharedClock;
use crate::session::settings::Unauthenticated;
use crate::session::{SessionId, Sessions, SetCookie, Site, SiteSecurity};
use crate::token::Issuer;
pub use cookie_caller::CookieCaller;
pub use endpoints::{Endpoint, EndpointRequest, MAX_BODY_BYTES};

/// The value of the `route` label and log field for the endpoints.
pub const LABEL: &str = "session";

/// How often one address may begin and complete sign-ins, and send logout tokens that are refused,
/// whatever `limits.rate` says: anyone can, and each may cost a request to the provider or the
/// verification of a signature. Many users may share an address.
const SIGN_INS: Rate = Rate {
    requests: 20,
    per: Duration::from_secs(1),
    burst: 200,
    by: RateBy::Address,
    clients: 10_000,
};

/// One `[[session]]`.
pub struct Session {
    /// Its sign-ins, cookies and renewals.
    pub sessions: Arc<Sessions>,
    /// The path below which its endpoints are; begins and ends with `/`.
    pub prefix: String,
    /// What a navigation without a session gets.
    pub unauthenticated: Unauthenticated,
    /// The site at which browsers reach it, if configured.
    pub site: Option<Site>,
    /// The issuer that verifies its access tokens; none if it has Taskcluster credentials.
    pub issuers: Vec<Arc<Issuer>>,
    /// The issuer identifier, or the deployment's root URL.
    pub provider: String,
    /// The limits that all routes share.
    pub rates: RateLimiters,
    /// The limit on sign-ins of one address.
    pub sign_ins: RateLimiters,
    /// The clock.
    pub clock: SharedClock,
}

impl Session {
    /// The configured name.
    pub fn name(&self) -> &Arc<str> {
        &self.sessions.name
    }

    /// The limit on sign-ins of one address, which may be shared by all sessions.
    pub fn sign_in_limit(clock: SharedClock) -> RateLimiter {
        RateLimiter::new(&SIGN_INS, clock)
    }

    /// The path of an endpoint.
    fn path(&self, endpoint: &str) -> String {
        format!("{}{endpoint}", self.prefix)
    }

    /// Which cookies the browser accepts from the site that this request was sent to.
    ///
    /// # Errors
    /// [`Reason::InsecureOrigin`] if it was sent over http, and not to this machine itself.
    pub fn security(&self, head: Head<'_>) -> Result<SiteSecurity, Rejection> {
        if let Some(site) = &self.site {
            return Ok(site.security);
        }
        if head.https {
            return Ok(SiteSecurity::Https);
        }
        if is_loopback(&host_name(head.host)) {
            return Ok(SiteSecurity::LoopbackHttp);
        }
        Err(Reason::InsecureOrigin.into())
    }

    /// The site that this request was sent to.
    ///
    /// # Errors
    /// As [`Session::security`], and [`Reason::BadRequest`] if `Host` is no name.
    fn site(&self, head: Head<'_>) -> Result<Site, Rejection> {
        if let Some(site) = &self.site {
            return Ok(site.clone());
        }
        let security = self.security(head)?;
        let origin = origin(head.host, security).ok_or_else(|| {
            Rejection::from(Reason::BadRequest).with_cause("Host is not a name or address")
        })?;
        Ok(Site { origin, security })
    }

    /// Whether `sender`, the value of `Origin`, is the origin of the site that this request was sent to.
    fn is_own(&self, sender: &[u8], head: Head<'_>) -> bool {
        if let Some(site) = &self.site {
            return site.origin.as_bytes() == sender;
        }
        self.site(head)
            .is_ok_and(|site| site.origin.as_bytes() == sender)
    }

    /// The refusal of a request without a session; `removal` deletes a cookie that is none, or no
    /// longer one.
    fn sign_in_required(&self, head: Head<'_>, removal: Option<SetCookie>) -> Rejection {
        let navigates = browser::navigates(head);
        if navigates && browser::is_unsafe(head.method) {
            // The browser withholds the cookie from forms of other sites. Their users are not sent
            // to sign in for such a form.
            if browser::is_foreign(head, |sender| self.is_own(sender, head)) {
                return Rejection::from(Reason::CrossSite)
                    .with_cause("a form of another origin, without a session");
            }
        }
        self.sign_in_at(head.target, navigates, removal)
    }

    /// Like [`Self::sign_in_required`], for a request for `target`.
    fn sign_in_at(&self, target: &str, navigates: bool, removal: Option<SetCookie>) -> Rejection {
        let login_url = self.path("login");
        let redirects = navigates && self.unauthenticated == Unauthenticated::Login;
        let location = redirects.then(|| match crate::session::return_to(target) {
            Some(target) => {
                let encoded: String =
                    url::form_urlencoded::byte_serialize(target.as_bytes()).collect();
                format!("{login_url}?return_to={encoded}")
            }
            None => login_url.clone(),
        });
        Rejection {
            sign_in: Some(Box::new(SignInRequired {
                login_url,
                location,
                removal,
            })),
            ..Reason::SignInRequired.into()
        }
    }
}

/// The refusal of a request whose session cannot be read or renewed for now.
fn unavailable(cause: String, retry_after: Option<Duration>) -> Rejection {
    let rejection = Rejection::from(Reason::SessionUnavailable).with_cause(cause);
    Rejection {
        retry_after: retry_after.or(rejection.retry_after),
        ..rejection
    }
}

/// Tells sessions apart in logs, without revealing their ids.
fn digest(id: SessionId) -> String {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &id.0);
    let mut text = String::with_capacity(16);
    for byte in hash.as_ref().iter().take(8) {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("name", self.name())
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

/// The origin of a site at `host`, the value of `Host` (RFC 6454 §6.2); `None` if that is no name or
/// address.
fn origin(host: &str, security: SiteSecurity) -> Option<String> {
    let (scheme, default_port) = match security {
        SiteSecurity::Https => ("https", ":443"),
        SiteSecurity::LoopbackHttp => ("http", ":80"),
    };
    let host = host.strip_suffix(default_port).unwrap_or(host);
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (host, None),
    };
    let digits =
        |port: &str| (1..=5).contains(&port.len()) && port.bytes().all(|b| b.is_ascii_digit());
    if port.is_some_and(|port| !digits(port)) {
        return None;
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    let literal = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'));
    let name = match literal {
        Some(literal) => format!("[{}]", literal.parse::<Ipv6Addr>().ok()?),
        None if !name.is_empty() && name.bytes().all(plain) => name.to_ascii_lowercase(),
        None => return None,
    };
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    Some(format!("{scheme}://{name}{port}"))
}

/// Every `[[session]]`, by where its endpoints are.
#[derive(Debug, Default)]
pub struct SessionTable(Vec<Placed>);

#[derive(Debug)]
struct Placed {
    session: Arc<Session>,
    /// The hosts that have a route with the session; `None` if a route with it has no host.
    hosts: Option<Vec<HostPattern>>,
}

impl SessionTable {
    /// The endpoints of `sessions` exist on every host that has a route with that session, and on
    /// every host if such a route has none. `routes` are the session and the hosts of each route.
    pub fn new(sessions: Vec<Arc<Session>>, routes: &[(&Arc<Session>, &[HostPattern])]) -> Self {
        let placed = |session: Arc<Session>| {
            let own: Vec<&[HostPattern]> = routes
                .iter()
                .filter(|(of, _)| Arc::ptr_eq(of, &session))
                .map(|(_, hosts)| *hosts)
                .collect();
            // Without any route, too, so that they can be tried.
            let everywhere = own.is_empty() || own.iter().any(|hosts| hosts.is_empty());
            Placed {
                hosts: (!everywhere).then(|| own.concat()),
                session,
            }
        };
        Self(sessions.into_iter().map(placed).collect())
    }

    /// The session whose prefix is at the beginning of `target`, and the rest of its path. `host` is
    /// the value of `Host`.
    pub fn find<'t>(&self, host: &str, target: &'t str) -> Option<(&Arc<Session>, &'t str)> {
        if self.0.is_empty() {
            return None;
        }
        let path = path::without_query(target);
        self.0.iter().find_map(|placed| {
            let rest = path.strip_prefix(placed.session.prefix.as_str())?;
            let here = match &placed.hosts {
                None => true,
                Some(hosts) => {
                    let name = host_name(host);
                    hosts.iter().any(|own| own.covers(&name))
                }
            };
            here.then_some((&placed.session, rest))
        })
    }

    /// Every session.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Session>> {
        self.0.iter().map(|placed| &placed.session)
    }
}
