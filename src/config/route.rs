//! `[[route]]`

mod access;
mod bewit;
mod credentials;
mod header_edits;
mod headers;
mod hosts;
mod passes_401;
mod retry;
mod rewrite;
mod session;
mod upstream;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use url::Url;

use super::cors::{self, CorsValue};
use super::diagnostic::quoted;
use super::rate::{self, Rate};
use super::reader::{Reader, Section, Table, section};
use super::references::Declaration;
use super::resolved::{self, IssuerKind};
use super::value::{Choice, List, Nested};
use crate::gateway::is_plain;
use crate::gateway::request_headers::{HeaderPattern, StrippedHeaders};
use crate::gateway::route::{Compat, UpgradeExpiry};
use crate::proxy::settings::Listener;

section! {
    /// Which requests go to which upstream, and what they must present. A route with a host takes
    /// precedence over one without, and a name over a wildcard; then the longer path, then a route with
    /// methods.
    pub(super) struct Route {
        /// Unique among routes; a metric label.
        name: Arc<str> = [required],
        /// Only requests to this host (lower case, without a port), or to one of these; any when left out.
        /// "*.example.com" stands for every name below a domain, of any depth, but not for the domain itself.
        host: Hosts = [optional],
        /// Only paths with this prefix, by whole segments; compared without decoding.
        path: String = [default "'/'"],
        /// Whether the upstream ignores the case of paths. Then the prefix matches in any case, and rules
        /// see paths in lower case. The same for all routes to one upstream.
        case_insensitive_path: bool = [default "false"],
        /// Only these methods; any except TRACE and CONNECT when left out.
        methods: List<Method> = [optional],
        /// Removes this prefix from the path that is sent upstream, by whole segments; `path` must begin with
        /// it. Rules, logs and this route's `path` go by the path that the caller sent.
        strip_prefix: String = [optional],
        /// Puts this prefix before the path that is sent upstream, after `strip_prefix`.
        add_prefix: String = [optional],
        /// Scheme, host and port of the upstream. The request's path is kept, except as `strip_prefix` and
        /// `add_prefix` say.
        upstream: Url = [required],
        /// Names of the issuers whose tokens are accepted.
        issuers: List<String> = [default "[]"],
        /// Name of the source of upstream credentials; requests are forwarded without credentials when left
        /// out.
        source: String = [optional],
        /// Name of the session with which users sign in, beside `issuers` or instead of them: a request
        /// without `Authorization` may come with the session's cookie.
        session: String = [optional],
        /// Scopes that the token must have, all of them.
        require_scopes: List<String> = [default "[]"],
        /// Headers of callers that are not forwarded, in addition to those that identify callers at other
        /// proxies, like `Remote-User` (docs/hardening.md has the list); "x-corp-*" stands for all names that
        /// begin with "x-corp-".
        strip_headers: List<HeaderPattern> = [default "[]"],
        /// Headers of that list that are forwarded anyway.
        keep_headers: List<HeaderPattern> = [default "[]"],
        /// Headers to change in requests, after those of callers that are not forwarded are removed, and
        /// before rules and the source set theirs. Not for secrets: a source sends those.
        request_headers: Nested<HeaderEditKeys> = [optional],
        /// Headers to change in the upstream's responses; hawkgate's own stay as they are.
        response_headers: Nested<HeaderEditKeys> = [optional],
        /// Paths below this route's whose 401s are the upstream's own: passed on, without new credentials and
        /// without a replay. Prefixes, by whole segments, of the path that is sent upstream.
        passes_401: List<String> = [default "[]"],
        /// Accepts requests without a token. With a source, every listener must be loopback, a Unix
        /// socket or confined to `local_networks`, because anyone who can connect can use the source's
        /// credentials.
        anonymous: bool = [default "false"],
        /// A file with the token to use when the caller sends no Authorization; it is verified like any
        /// other token. Every listener must be loopback or a Unix socket.
        workload_token: Nested<WorkloadToken> = [optional],
        /// Which web pages of other origins may use the route; "upstream" sends preflights upstream, without
        /// credentials, and passes on the upstream's CORS headers. Left out, the route has no CORS:
        /// preflights need a token too, and pages of other origins cannot read refusals.
        cors: CorsValue = [optional],
        /// When an upgraded connection, such as a WebSocket, is closed: "token" when the caller's token
        /// expires, "none" never, so that it can outlive the token by any time.
        upgrade_expiry: UpgradeExpiry = [default "'token'"],
        /// Rewrites `/<service>/<version>/<path>` to `/api/<service>/<version>/<path>`, like
        /// taskcluster-proxy; a version is `v` followed by digits.
        shortcut: bool = [default "false"],
        /// Answers `POST /bewit` with the URL in its body, signed for an hour; the URL must be at this
        /// upstream and below this route's path. Requires a source of Taskcluster credentials.
        bewit: bool = [default "false"],
        /// Answers `PUT /credentials` by replacing the credentials of the route's source, which must have
        /// credentials_update, like taskcluster-proxy. Only root and the user that hawkgate runs as may send
        /// them; from `local_networks` everyone who may connect, if the listener names no `allowed_users`.
        credentials: bool = [default "false"],
        /// Adds taskcluster-proxy's informational headers to responses: endpoint, version, client and
        /// scopes.
        taskcluster_headers: bool = [default "false"],
        /// Rate limit of each client on this route, in addition to `limits.rate`; unlimited when left out.
        rate: Nested<Rate> = [optional],
        /// Sends a request again while the upstream cannot be reached, closes the connection or answers with
        /// one of `statuses`: idempotent methods only, unless nothing had been sent. Off when left out.
        retry: Nested<retry::Retry> = [optional],
        /// Allows an http upstream on another machine, which exposes requests and responses in cleartext.
        allow_plaintext: bool = [default "false"],
        /// PEM file with the only CAs trusted for this upstream; the platform's when left out.
        ca: PathBuf = [optional],
        /// Uses HTTP/2 if the upstream supports it; Taskcluster uses HTTP/1.1.
        http2: bool = [default "false"],
        /// The port in the Hawk MAC, if the service computes the MAC with a port other than the upstream's;
        /// 1 to 65535.
        signed_port: u64 = [optional],
        /// Time to connect, and again for the TLS handshake; 10ms to 5m.
        connect_timeout: Duration = [default "'5s'"],
        /// Timeout between two reads of the response; must be longer than any long poll (Taskcluster: 20s).
        /// 10ms to 24h.
        read_timeout: Duration = [default "'120s'"],
        /// Timeout for each write of the request; 10ms to 1h.
        write_timeout: Duration = [default "'60s'"],
        /// How long an idle connection is kept; must be less than the upstream's own timeout (web-server:
        /// 6s). At most 1h.
        idle_timeout: Duration = [default "'4s'"],
    }
}

section! {
    /// A token that is renewed outside hawkgate, such as a projected service account token.
    pub(super) struct WorkloadToken {
        /// The file; reread when it changes.
        file: PathBuf = [required],
    }
}

impl Choice for Method {
    const NAMES: &'static [&'static str] =
        &["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

    fn from_name(name: &str) -> Option<Self> {
        let known = Self::NAMES.contains(&name);
        known
            .then(|| Self::from_bytes(name.as_bytes()).ok())
            .flatten()
    }

    fn explain_refusal(name: &str) -> Option<(String, String)> {
        ["TRACE", "CONNECT"].contains(&name).then(|| {
            let problem = format!("{name} is rejected on every route");
            (problem, format!("choose from {}", Self::NAMES.join(", ")))
        })
    }
}

impl Choice for UpgradeExpiry {
    const NAMES: &'static [&'static str] = &["token", "none"];

    fn from_name(name: &str) -> Option<Self> {
        match name {
            "token" => Some(Self::Token),
            "none" => Some(Self::None),
            _ => None,
        }
    }
}

pub(super) use bewit::refuse_shadowed as refuse_shadowed_by_bewit;
pub(super) use credentials::refuse_ambiguous as refuse_ambiguous_credentials;
use header_edits::HeaderEditKeys;
pub(super) use header_edits::refuse_headers_of_rules;
use hosts::Hosts;

/// What the checks of a route depend on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context<'a> {
    pub(super) issuers: &'a [Declaration<IssuerKind>],
    pub(super) sources: &'a [Declaration<resolved::Source>],
    pub(super) sessions: &'a [Declaration<resolved::Session>],
    /// The listeners; `None` if they are invalid.
    pub(super) listen: Option<&'a [Listener]>,
}

impl Context<'_> {
    /// Whether only this machine can connect; true if the listeners are invalid, which has its own
    /// error.
    fn is_local_only(&self) -> bool {
        self.listen
            .is_none_or(|listen| listen.iter().all(Listener::is_local))
    }

    /// Like [`Self::is_local_only`], with the containers in `local_networks`.
    fn is_confined(&self) -> bool {
        self.listen
            .is_none_or(|listen| listen.iter().all(Listener::is_confined))
    }
}

/// Reads one `[[route]]`.
pub(super) fn read(
    reader: &mut Reader<'_>,
    table: &Table<'_>,
    context: Context<'_>,
) -> Declaration<resolved::Route> {
    let route = Route::read(reader, table);
    reader.refuse_unknown(table, &[Route::KEYS], |_| None);
    let mut declaration = Declaration::new(&table.at, &route.name, None);
    declaration.value = route.resolve(reader, context);
    declaration
}

impl Route {
    fn resolve(self, reader: &mut Reader<'_>, context: Context<'_>) -> Option<resolved::Route> {
        self.check_host(reader);
        self.check_path(reader);
        self.check_rewrite(reader);
        if let Some(methods) = &self.methods.value
            && methods.is_empty()
        {
            let problem = "is empty: no request would match";
            reader.error(
                &self.methods.at,
                problem,
                "list methods, or leave the key out for every method",
            );
        }
        self.check_headers(reader);
        self.check_scopes(reader);
        self.check_passes_401(reader);
        self.check_bewit(reader, context);
        self.check_credentials(reader, context);
        let access = self.resolve_access(reader, context);
        let upstream = self.resolve_upstream(reader, context);
        let rewrite = self.rewrite();
        let request_headers = self.resolve_request_headers(reader, context);
        let response_headers = self.resolve_response_headers(reader);
        let needs_no_token = self.needs_no_token(context);
        let cors = cors::resolve(reader, self.cors, needs_no_token);
        let access = access?;
        Some(resolved::Route {
            name: self.name.value?,
            hosts: self
                .host
                .optional()?
                .map_or_else(Vec::new, Hosts::into_patterns),
            path: self.path.value?,
            case_insensitive_path: self.case_insensitive_path.value?,
            methods: self.methods.optional()?.map(List::into_values),
            rewrite,
            upstream: upstream?,
            issuers: access.issuers,
            source: access.source,
            session: access.session,
            stripped_headers: StrippedHeaders {
                also: self.strip_headers.value?.into_values(),
                kept: self.keep_headers.value?.into_values(),
            },
            request_headers: request_headers?,
            response_headers: response_headers?,
            require_scopes: self.require_scopes.value?.into_values(),
            passes_401: self.passes_401.value?.into_values(),
            anonymous: self.anonymous.value?,
            workload_token: match self.workload_token.optional()? {
                Some(Nested(token)) => {
                    reader.exclude_from_watching(&token.file.at);
                    Some(token.file.value?)
                }
                None => None,
            },
            cors: cors?,
            rate: rate::resolve(reader, self.rate)?,
            retry: retry::resolve(reader, self.retry)?,
            upgrade_expiry: self.upgrade_expiry.value?,
            compat: Compat {
                shortcut: self.shortcut.value?,
                bewit: self.bewit.value?,
                credentials: self.credentials.value?,
                headers: self.taskcluster_headers.value?,
            },
        })
    }

    fn check_path(&self, reader: &mut Reader<'_>) {
        let path = self.path.value.as_deref();
        if let Some((problem, remedy)) = path.and_then(prefix_problem) {
            reader.error(&self.path.at, problem, remedy);
        }
    }

    fn check_scopes(&self, reader: &mut Reader<'_>) {
        for scope in self
            .require_scopes
            .value
            .iter()
            .flat_map(|list| &list.items)
        {
            if scope.value.contains(' ') {
                let problem = format!(
                    "{} contains a space, which separates scopes",
                    quoted(&scope.value)
                );
                reader.error(&scope.at, problem, "write each scope as a separate string");
            }
        }
    }
}

/// What is wrong with a path prefix, and the remedy. Requests are matched by their raw path, and
/// refused if another reading of it would match another route. A prefix that can be read in several
/// ways would therefore never match.
fn prefix_problem(path: &str) -> Option<(&'static str, String)> {
    Some(if path.starts_with(['^', '~']) || path.contains(".*") {
        (
            "is a regular expression",
            "write a prefix, like \"/api/\": it matches everything below it".to_owned(),
        )
    } else if !path.starts_with('/') {
        (
            "does not begin with /",
            format!("write {}", quoted(&format!("/{path}"))),
        )
    } else if path.contains(['?', '#']) {
        ("has a query or fragment", "write the path alone".to_owned())
    } else if path.contains('%') {
        (
            "has percent-escapes, which never match",
            "write a shorter prefix without them".to_owned(),
        )
    } else if path
        .split('/')
        .any(|segment| [".", ".."].contains(&segment))
    {
        (
            "has dot segments, which never match",
            "write the path without them".to_owned(),
        )
    } else if path.contains('*') {
        (
            "has a wildcard",
            "write the prefix alone: it matches everything below it".to_owned(),
        )
    } else if !path.bytes().all(|b| b.is_ascii_graphic() && b != b'\\') {
        (
            "has characters that cannot occur in a request path",
            "write a prefix without them".to_owned(),
        )
    } else if !is_plain(path) {
        (
            "can be read in more than one way, so it never matches (docs/rules.md, \"Paths\")",
            "write a shorter prefix, without ; + // and dots at the end of a segment".to_owned(),
        )
    } else {
        return None;
    })
}

/// Refuses routes between which the choice would be ambiguous.
pub(super) fn refuse_overlapping(reader: &mut Reader<'_>, routes: &[Declaration<resolved::Route>]) {
    for (index, declaration) in routes.iter().enumerate() {
        let Some(route) = &declaration.value else {
            continue;
        };
        let before = routes[..index]
            .iter()
            .find(|other| other.value.as_ref().is_some_and(|r| overlap(r, route)));
        if let Some(other) = before {
            let name = other.name.as_deref().unwrap_or_default();
            let line = reader.line(&other.table);
            let problem = format!(
                "matches the same requests as route {} on line {line}",
                quoted(name)
            );
            reader.error(
                &declaration.table,
                problem,
                "change its host, path or methods, or remove it",
            );
        }
    }
}

/// Whether a request can match both routes with equal precedence.
fn overlap(a: &resolved::Route, b: &resolved::Route) -> bool {
    let methods = match (&a.methods, &b.methods) {
        (None, None) => true,
        (Some(a), Some(b)) => a.iter().any(|method| b.contains(method)),
        _ => false,
    };
    let paths = if a.case_insensitive_path || b.case_insensitive_path {
        a.path.eq_ignore_ascii_case(&b.path)
    } else {
        a.path == b.path
    };
    let no_host = a.hosts.is_empty() && b.hosts.is_empty();
    let hosts = no_host || a.hosts.iter().any(|host| b.hosts.contains(host));
    methods && hosts && paths
}

/// Refuses routes to one upstream that differ in `case_insensitive_path`: a path in other case
/// would bypass the stricter one.
pub(super) fn refuse_mixed_case_sensitivity(
    reader: &mut Reader<'_>,
    routes: &[Declaration<resolved::Route>],
) {
    for declaration in routes {
        let Some(route) = &declaration.value else {
            continue;
        };
        let ignores_case = |other: &&Declaration<resolved::Route>| {
            other.value.as_ref().is_some_and(|other| {
                other.case_insensitive_path && other.upstream.is_same_server(&route.upstream)
            })
        };
        if !route.case_insensitive_path
            && let Some(other) = routes.iter().find(ignores_case)
        {
            let name = quoted(other.name.as_deref().unwrap_or_default());
            let line = reader.line(&other.table);
            let problem = format!(
                "has the upstream of route {name} on line {line}, which has case_insensitive_path"
            );
            reader.error(
                &declaration.table,
                problem,
                "write case_insensitive_path = true here too, or remove it there",
            );
        }
    }
}
