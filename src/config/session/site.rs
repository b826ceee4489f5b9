//! Where a session's endpoints are: `prefix` and `origin`.

use toml::de::DeValue;
use url::Url;

use crate::config::diagnostic::{Location, quoted};
use crate::config::http_url::is_loopback;
use crate::config::reader::{Field, Reader, Shape, Value};
use crate::config::references::Declaration;
use crate::config::resolved;
use crate::config::value::text;
use crate::gateway::is_plain;
use crate::gateway::login::PREFIXES;
use crate::gateway::session::LABEL;

/// The origin at which browsers reach hawkgate: https, or http on loopback.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::config) struct Origin(pub(super) String);

impl Value for Origin {
    const SHAPE: Shape = Shape::Text;

    fn read(reader: &mut Reader<'_>, at: &Location, value: &DeValue<'_>) -> Option<Self> {
        let text = text(reader, at, value, "\"https://app.example.com\"")?;
        let url = Url::parse(text)
            .ok()
            .filter(|url| ["http", "https"].contains(&url.scheme()) && url.has_host());
        let Some(url) = url else {
            let problem = format!("{} is not an origin", quoted(text));
            reader.error(at, problem, "write it like \"https://app.example.com\"");
            return None;
        };
        let origin = url.origin().ascii_serialization();
        if origin != text {
            let problem = "is not in the form that browsers send: scheme, host, and the port unless it is the scheme's default";
            reader.error(at, problem, format!("write {}", quoted(&origin)));
            return None;
        }
        if url.scheme() == "http" && !is_loopback(&url) {
            let problem = "is plain http: browsers would keep no session cookie, and it could be read on the way";
            reader.error(
                at,
                problem,
                "write https:// (http is allowed only on loopback)",
            );
            return None;
        }
        Some(Self(origin))
    }
}

/// The prefix, unless the endpoints below it could not be reached, or would hide every route.
pub(super) fn resolve_prefix(reader: &mut Reader<'_>, field: Field<String>) -> Option<String> {
    let prefix = field.value?;
    let missing = !prefix.starts_with('/') || !prefix.ends_with('/');
    let (problem, remedy) = if missing {
        let whole = format!("/{}/", prefix.trim_matches('/'));
        (
            "does not begin and end with /",
            format!("write {}", quoted(&whole)),
        )
    } else if prefix == "/" {
        (
            "would put the endpoints before every route",
            "write a prefix of its own, like \"/oauth2/\"".to_owned(),
        )
    } else if !prefix.bytes().all(|b| b.is_ascii_graphic())
        || prefix.contains(['*', '"', '<', '>'])
        || prefix
            .split('/')
            .any(|segment| [".", ".."].contains(&segment))
        || !is_plain(&prefix)
    {
        (
            "is not a plain path",
            "write it with letters, digits and hyphens, like \"/oauth2/\"".to_owned(),
        )
    } else {
        return Some(prefix);
    };
    reader.error(&field.at, problem, remedy);
    None
}

/// Refuses sessions whose endpoints overlap, and routes and `[login]` that they would hide.
pub(in crate::config) fn refuse_collisions(
    reader: &mut Reader<'_>,
    sessions: &[Declaration<resolved::Session>],
    routes: &[Declaration<resolved::Route>],
) {
    let reserved = |route: &&Declaration<resolved::Route>| route.name.as_deref() == Some(LABEL);
    if let Some(route) = routes
        .iter()
        .find(reserved)
        .filter(|_| !sessions.is_empty())
    {
        let problem = "is reserved for the endpoints of sessions in metrics and logs";
        reader.error(&route.at, problem, "give the route another name");
    }
    for (index, declaration) in sessions.iter().enumerate() {
        let Some(prefix) = prefix(declaration) else {
            continue;
        };
        let overlaps = |other: &&Declaration<resolved::Session>| {
            let other = self::prefix(other);
            other.is_some_and(|other| other.starts_with(prefix) || prefix.starts_with(other))
        };
        if let Some(other) = sessions[..index].iter().find(overlaps) {
            let name = quoted(other.name.as_deref().unwrap_or_default());
            let line = reader.line(&other.table);
            let problem = format!("has its endpoints where session {name} on line {line} has them");
            reader.error(&declaration.table, problem, "give it another prefix");
        }
        let hides_login = |login: &&str| login.starts_with(prefix) || prefix.starts_with(*login);
        if PREFIXES.iter().any(hides_login) {
            let problem = format!("prefix {} is the path of [login]", quoted(prefix));
            reader.error(&declaration.table, problem, "give it another prefix");
        }
        for route in routes {
            refuse_hidden(reader, route, prefix);
        }
    }
}

fn prefix(declaration: &Declaration<resolved::Session>) -> Option<&str> {
    let session = declaration.value.as_ref()?;
    Some(&session.settings.prefix)
}

/// Refuses a route that would get no requests.
fn refuse_hidden(reader: &mut Reader<'_>, route: &Declaration<resolved::Route>, prefix: &str) {
    let Some(path) = route.value.as_ref().map(|route| &route.path) else {
        return;
    };
    if format!("{}/", path.trim_end_matches('/')).starts_with(prefix) {
        let problem = format!(
            "{} is below {prefix}, the path of a session's endpoints: this route would get no requests",
            quoted(path)
        );
        let remedy = "change the route's path, or the session's prefix";
        reader.error(&route.table, problem, remedy);
    }
}
