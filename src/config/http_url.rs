//! The http and https URLs in the file.

use std::path::Path;

use toml::de::DeValue;
use url::Url;

use super::diagnostic::{Location, quoted};
use super::reader::{Reader, Shape, Value};
use super::value::text;
pub(super) use crate::network::is_loopback;

impl Value for Url {
    const SHAPE: Shape = Shape::Url;

    /// Refuses userinfo and anything that the `url` crate would silently correct. Messages never
    /// repeat the whole URL, which may contain a password.
    fn read(reader: &mut Reader<'_>, at: &Location, value: &DeValue<'_>) -> Option<Self> {
        let text = text(reader, at, value, "\"https://…\"")?;
        match parse(text) {
            Ok(url) => Some(url),
            Err((problem, remedy)) => {
                reader.error(at, problem, remedy);
                None
            }
        }
    }
}

/// A problem and its remedy.
type Refusal = (String, String);

/// Parses an http or https URL with a host and without userinfo or fragment.
pub(super) fn parse(text: &str) -> Result<Url, Refusal> {
    let refused = |problem: &str, remedy: &str| Err((problem.to_owned(), remedy.to_owned()));
    if is_socket_path(text) {
        return refused(
            "is a Unix socket, and hawkgate connects only over TCP",
            "let the other side listen on a loopback address, and write \"http://127.0.0.1:PORT\"",
        );
    }
    if !text.bytes().all(|b| b.is_ascii_graphic() && b != b'\\') {
        return refused(
            "is not a URL: it contains spaces, backslashes or non-ASCII characters",
            "percent-encode them",
        );
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(without_scheme(text));
    };
    if !["http", "https"].contains(&scheme.to_ascii_lowercase().as_str()) {
        let problem = format!("has the scheme {}", quoted(scheme));
        return Err((problem, scheme_remedy(scheme).into()));
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        return refused(
            "contains a user name or password",
            "remove everything up to the @: credentials come from the source",
        );
    }
    if authority.is_empty() || authority.starts_with(':') {
        return refused("has no host", "write \"https://host\"");
    }
    if rest.contains('#') {
        return refused("has a fragment", "remove the # and everything after it");
    }
    match Url::parse(text) {
        Ok(url) if url.port() == Some(0) => refused("has port 0", "write a port from 1 to 65535"),
        Ok(url) => Ok(url),
        Err(cause) => Err((
            format!("is not a URL: {cause}"),
            "write \"https://host\"".into(),
        )),
    }
}

/// `unix:/run/x.sock`, `http+unix://…`, `/run/x.sock`
fn is_socket_path(text: &str) -> bool {
    let scheme = text.split_once(':').map_or("", |(scheme, _)| scheme);
    let scheme = scheme.to_ascii_lowercase();
    scheme == "unix"
        || scheme.ends_with("+unix")
        || (text.starts_with('/') && Path::new(text).extension().is_some_and(|e| e == "sock"))
}

fn scheme_remedy(scheme: &str) -> &'static str {
    match scheme.to_ascii_lowercase().as_str() {
        "ws" | "h2c" | "grpc" => "write http://: WebSockets and HTTP/2 need no scheme of their own",
        "wss" | "h2" | "grpcs" => {
            "write https://: WebSockets and HTTP/2 need no scheme of their own"
        }
        "tcp" | "udp" | "tls" | "ssl" => "write http:// or https://: hawkgate forwards only HTTP",
        _ => "write https://",
    }
}

/// The refusal of a text without `://`.
fn without_scheme(text: &str) -> Refusal {
    ("is not an http or https URL".into(), url_remedy(text))
}

/// The URL that a text without `://` may be meant as.
fn url_remedy(text: &str) -> String {
    let write =
        |scheme: &str, rest: &str| format!("write {}", quoted(&format!("{scheme}://{rest}")));
    let (scheme, rest) = text.split_once(':').unwrap_or(("", text));
    let scheme = scheme.to_ascii_lowercase();
    let after_scheme = rest.trim_start_matches('/');
    if ["http", "https"].contains(&scheme.as_str()) && is_authority(after_scheme) {
        return write(&scheme, after_scheme);
    }
    let port = text.strip_prefix(':').unwrap_or(text);
    if port.parse::<u16>().is_ok() {
        return write("http", &format!("127.0.0.1:{port}"));
    }
    let address = text.trim_start_matches('/');
    if !is_authority(address) {
        return "write \"https://host\"".into();
    }
    if Url::parse(&format!("http://{address}")).is_ok_and(|url| is_loopback(&url)) {
        return write("http", address) + ", or https:// if it has a certificate";
    }
    write("https", address)
}

/// Whether `text` may be a host, with a port and path or without.
fn is_authority(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-.:/_".contains(&b);
    text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.bytes().all(plain)
}

/// Refuses plain http to other machines; `risk` tells the user why.
pub(super) fn require_https(reader: &mut Reader<'_>, at: &Location, url: &Url, risk: &str) {
    if url.scheme() == "http" && !is_loopback(url) {
        let host = url.host_str().unwrap_or_default();
        let problem = format!("plain http to {host}: {risk}");
        reader.error(
            at,
            problem,
            "write https:// (http is allowed only to this machine)",
        );
    }
}

/// Refuses a path (other than `/`) or query in a URL that must be an origin. `reason` completes
/// the message "has a path, but …".
pub(super) fn require_origin_only(reader: &mut Reader<'_>, at: &Location, url: &Url, reason: &str) {
    if url.path() == "/" && url.query().is_none() {
        return;
    }
    let what = if url.path() == "/" {
        "a query"
    } else {
        "a path"
    };
    let origin = url.origin().ascii_serialization();
    reader.error(
        at,
        format!("has {what}, but {reason}"),
        format!("write {}", quoted(&origin)),
    );
}
