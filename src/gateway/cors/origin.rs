//! The origins that a configuration allows, as exact origins or patterns.

use url::{Host, Url};

/// Longest host name, in bytes (RFC 1035 §2.3.4).
const MAX_HOST: usize = 253;
/// Longest label of a host name, in bytes.
const MAX_LABEL: usize = 63;

/// The hosts of this machine for which a pattern may leave the port open.
const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// Which origins a configuration allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedOrigins {
    /// Every origin, `null` included.
    Any,
    /// Those that match one of these.
    Listed(Vec<OriginPattern>),
}

impl AllowedOrigins {
    /// The exact origin at this place in the list.
    pub(super) fn get(&self, at: usize) -> Option<&str> {
        match self {
            Self::Any => None,
            Self::Listed(list) => list.get(at)?.as_origin(),
        }
    }
}

/// An origin, or a pattern for several. Browsers serialise an origin in one way only (lower case,
/// without the scheme's default port; HTML, "serialization of an origin"), so it is compared byte
/// for byte, without parsing what was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginPattern(Kind);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    /// This origin.
    Exact(String),
    /// Every name below a domain, but not the domain itself.
    Subdomains {
        /// Ends with `://`.
        scheme: String,
        /// Begins with a dot and may end with a port.
        suffix: String,
    },
    /// A scheme and a host of this machine, with any port or none.
    AnyPort(String),
}

/// Why a text is neither an origin nor a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InvalidOrigin {
    /// It is no http or https origin at all.
    NotAnOrigin,
    /// It is `null`, the origin of every sandboxed frame and local file.
    Null,
    /// Browsers write it like this.
    OtherForm(String),
    /// It allows every host.
    EveryHost,
    /// It allows every name below a top-level domain.
    TopLevelDomain,
    /// `*` stands before an address, which has no subdomains.
    AddressBelowWildcard,
    /// It leaves the port of another machine open.
    AnyPort,
    /// `*` is at another place than before `.domain`, or there is more than one.
    Wildcard,
}

impl OriginPattern {
    /// Parses `https://app.example.com`, `https://*.example.com` or `http://localhost:*`.
    ///
    /// # Errors
    /// If it is none of these.
    pub fn parse(text: &str) -> Result<Self, InvalidOrigin> {
        if text == "null" {
            return Err(InvalidOrigin::Null);
        }
        let kind = match text.matches('*').count() {
            0 => exact(text).map(|(origin, _)| Kind::Exact(origin)),
            1 => match text.strip_suffix(":*") {
                Some(base) => any_port(base),
                None => subdomains(text),
            },
            _ => Err(InvalidOrigin::Wildcard),
        };
        kind.map(Self)
    }

    /// Whether pages of the origin come in cleartext from another machine, so that anyone on the
    /// network path can inject scripts into them.
    pub fn is_cleartext(&self) -> bool {
        let is_loopback = |authority: &str| {
            let own = |host: &&str| authority.strip_prefix(*host).is_some_and(is_port_or_none);
            LOOPBACK.iter().any(own)
        };
        match &self.0 {
            Kind::Exact(origin) => origin
                .strip_prefix("http://")
                .is_some_and(|authority| !is_loopback(authority)),
            Kind::Subdomains { scheme, .. } => scheme == "http://",
            Kind::AnyPort(_) => false,
        }
    }

    /// The origin, if it is no pattern for several.
    pub(super) fn as_origin(&self) -> Option<&str> {
        match &self.0 {
            Kind::Exact(origin) => Some(origin),
            Kind::Subdomains { .. } | Kind::AnyPort(_) => None,
        }
    }

    /// Whether `origin`, the value of an `Origin` field, matches.
    pub fn matches(&self, origin: &[u8]) -> bool {
        match &self.0 {
            Kind::Exact(own) => own.as_bytes() == origin,
            Kind::Subdomains { scheme, suffix } => origin
                .strip_prefix(scheme.as_bytes())
                .and_then(|rest| rest.strip_suffix(suffix.as_bytes()))
                .is_some_and(|labels| are_labels(labels, MAX_HOST.saturating_sub(suffix.len()))),
            Kind::AnyPort(base) => std::str::from_utf8(origin)
                .ok()
                .and_then(|origin| origin.strip_prefix(base.as_str()))
                .is_some_and(is_port_or_none),
        }
    }
}

/// Whether `text` is one or more labels of a host name, of at most `max` bytes in all.
fn are_labels(text: &[u8], max: usize) -> bool {
    let fits = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
    let mut labels = text.split(|b| *b == b'.');
    text.len() <= max
        && labels.all(|label| (1..=MAX_LABEL).contains(&label.len()) && label.iter().all(fits))
}

/// Whether `text` is empty, or a colon and a port as browsers write it.
fn is_port_or_none(text: &str) -> bool {
    let Some(digits) = text.strip_prefix(':') else {
        return text.is_empty();
    };
    digits.bytes().all(|b| b.is_ascii_digit())
        && !digits.starts_with('0')
        && digits.parse::<u16>().is_ok()
}

/// The origin that `text` is, with its host.
fn exact(text: &str) -> Result<(String, Host<String>), InvalidOrigin> {
    let url = Url::parse(text)
        .ok()
        .filter(|url| ["http", "https"].contains(&url.scheme()));
    let (url, host) = url
        .and_then(|url| {
            let host = url.host()?.to_owned();
            Some((url, host))
        })
        .ok_or(InvalidOrigin::NotAnOrigin)?;
    let mut origin = url.origin().ascii_serialization();
    if let Host::Domain(name) = &host
        && let Some(undotted) = name.strip_suffix('.')
    {
        // The root's dot makes another origin, which nobody means.
        origin = origin.replacen(name, undotted, 1);
    }
    if origin == text {
        Ok((origin, host))
    } else {
        Err(InvalidOrigin::OtherForm(origin))
    }
}

/// The pattern `base:*`.
fn any_port(base: &str) -> Result<Kind, InvalidOrigin> {
    let (origin, _) = exact(base).map_err(|error| match error {
        InvalidOrigin::OtherForm(right) => InvalidOrigin::OtherForm(format!("{right}:*")),
        other => other,
    })?;
    let (scheme, authority) = origin.split_once("://").ok_or(InvalidOrigin::NotAnOrigin)?;
    let same = |host: &&&str| authority.strip_prefix(**host).is_some_and(is_port_or_none);
    match LOOPBACK.iter().find(same) {
        Some(host) if *host == authority => Ok(Kind::AnyPort(origin)),
        Some(host) => Err(InvalidOrigin::OtherForm(format!("{scheme}://{host}:*"))),
        None => Err(InvalidOrigin::AnyPort),
    }
}

/// The pattern `scheme://*.domain`, perhaps with a port.
fn subdomains(text: &str) -> Result<Kind, InvalidOrigin> {
    let (scheme, rest) = text.split_once("://").ok_or(InvalidOrigin::NotAnOrigin)?;
    if rest == "*" || rest.starts_with("*:") || rest.starts_with("*/") {
        return Err(InvalidOrigin::EveryHost);
    }
    let domain = rest.strip_prefix("*.").ok_or(InvalidOrigin::Wildcard)?;
    let (origin, host) = exact(&format!("{scheme}://{domain}")).map_err(|error| match error {
        InvalidOrigin::OtherForm(right) => {
            InvalidOrigin::OtherForm(right.replacen("://", "://*.", 1))
        }
        other => other,
    })?;
    let Host::Domain(name) = host else {
        return Err(InvalidOrigin::AddressBelowWildcard);
    };
    if !name.contains('.') {
        return Err(InvalidOrigin::TopLevelDomain);
    }
    match origin.split_once("://") {
        Some((scheme, authority)) => Ok(Kind::Subdomains {
            scheme: format!("{scheme}://"),
            suffix: format!(".{authority}"),
        }),
        None => Err(InvalidOrigin::NotAnOrigin),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, origin: &str) -> bool {
        OriginPattern::parse(pattern)
            .unwrap()
            .matches(origin.as_bytes())
    }

    #[test]
    fn an_exact_origin_matches_itself_only() {
        for own in [
            "https://app.example.com",
            "http://app.example.com:8080",
            "https://[2001:db8::1]:8443",
            "https://xn--bcher-kva.example",
        ] {
            assert!(matches(own, own), "{own}");
        }
        for foreign in FOREIGN {
            assert!(!matches("https://app.example.com", foreign), "{foreign}");
        }
    }

    /// What others may send in the hope to be taken for `https://app.example.com`.
    const FOREIGN: &[&str] = &[
        "",
        " ",
        "null",
        "*",
        "https://app.example.com.evil.com",
        "https://evilapp.example.com",
        "https://evilexample.com",
        "https://example.com",
        "https://app.example.com.",
        "https://app.example.com/",
        "https://app.example.com:443",
        "https://app.example.com:8443",
        "https://app.example.com:",
        "https://app.example.com ",
        " https://app.example.com",
        "https://app.example.com, https://evil.com",
        "https://app.example.com https://evil.com",
        "https://app.example.com%60.evil.com",
        "https://app.example.com`.evil.com",
        "https://app.example.com@evil.com",
        "https://evil.com@app.example.com",
        "https://evil.com#app.example.com",
        "https://APP.example.com",
        "HTTPS://app.example.com",
        "http://app.example.com",
        "app.example.com",
        "//app.example.com",
        "https://app.example.com\0",
        "https://app.examp\u{2113}e.com",
        "https://\u{430}pp.example.com",
        "https://app.example\u{3002}com",
        "https://app\u{ad}.example.com",
    ];

    #[test]
    fn a_wildcard_stands_for_whole_labels_below_the_domain() {
        let pattern = "https://*.example.com";
        for own in [
            "https://app.example.com",
            "https://a.b.example.com",
            "https://xn--bcher-kva.example.com",
            "https://my_app-1.example.com",
        ] {
            assert!(matches(pattern, own), "{own}");
        }
        let long = format!("https://{}.example.com", "a".repeat(64));
        let deep = format!("https://{}a.example.com", "a.".repeat(125));
        for foreign in [
            "https://example.com",
            "https://.example.com",
            "https://..example.com",
            "https://a..example.com",
            "https://.a.example.com",
            "https://evilexample.com",
            "https://evil.com/.example.com",
            "https://evil.com?.example.com",
            "https://evil.com#.example.com",
            "https://evil.com\\.example.com",
            "https://evil.com:443.example.com",
            "https://evil.com%2f.example.com",
            "https://u@a.example.com",
            "https://a.example.com:8443",
            "https://a.example.com:443",
            "https://a.example.com.",
            "https://A.example.com",
            "https://*.example.com",
            "https://a b.example.com",
            "https://\u{e4}.example.com",
            "https://a.example.com.evil.com",
            "http://a.example.com",
            &long,
            &deep,
        ] {
            assert!(!matches(pattern, foreign), "{foreign}");
        }
        for foreign in FOREIGN.iter().filter(|o| !o.starts_with("https://evilapp")) {
            assert!(!matches(pattern, foreign), "{foreign}");
        }
        assert!(matches(
            "https://*.example.com:8443",
            "https://a.example.com:8443"
        ));
        assert!(!matches(
            "https://*.example.com:8443",
            "https://a.example.com"
        ));
    }

    #[test]
    fn pages_in_cleartext_are_known() {
        for (text, cleartext) in [
            ("http://app.example.com", true),
            ("http://*.example.com", true),
            ("http://localhost.example.com", true),
            ("http://127.0.0.1.example.com", true),
            ("https://app.example.com", false),
            ("https://*.example.com", false),
            ("http://localhost", false),
            ("http://localhost:3000", false),
            ("http://localhost:*", false),
            ("http://[::1]:3000", false),
        ] {
            let parsed = OriginPattern::parse(text).unwrap();
            assert_eq!(parsed.is_cleartext(), cleartext, "{text}");
        }
    }

    /// Whatever one changed byte makes of an allowed origin, what still matches is an origin of the same
    /// domain for a URL parser too.
    #[test]
    fn a_changed_byte_never_leads_to_another_domain() {
        for (pattern, own) in [
            ("https://*.example.com", "https://a.b.example.com"),
            ("https://app.example.com", "https://app.example.com"),
            ("http://localhost:*", "http://localhost:3000"),
        ] {
            let parsed = OriginPattern::parse(pattern).unwrap();
            let domain = pattern.trim_start_matches("https://*").split("//").last();
            let domain = domain.unwrap().trim_end_matches(":*");
            for (at, byte) in (0..=own.len()).flat_map(|at| (0..=u8::MAX).map(move |b| (at, b))) {
                let (start, end) = own.as_bytes().split_at(at);
                let inserted = [start, &[byte], end].concat();
                let replaced = [start, &[byte], end.get(1..).unwrap_or_default()].concat();
                for sent in [inserted, replaced]
                    .iter()
                    .filter(|sent| parsed.matches(sent))
                {
                    let text = std::str::from_utf8(sent).unwrap();
                    let url = Url::parse(text).unwrap();
                    assert!(url.host_str().unwrap().ends_with(domain), "{text}");
                    assert_eq!(url.scheme(), pattern.split(':').next().unwrap(), "{text}");
                    assert_eq!(url.origin().ascii_serialization(), text);
                }
            }
        }
    }

    #[test]
    fn the_port_may_be_left_open_for_this_machine_only() {
        for base in ["http://localhost", "https://127.0.0.1", "http://[::1]"] {
            let pattern = format!("{base}:*");
            for port in ["", ":1", ":3000", ":65535"] {
                assert!(matches(&pattern, &format!("{base}{port}")), "{base}{port}");
            }
            for rest in [
                ":",
                ":0",
                ":080",
                ":65536",
                ":+80",
                ":80:90",
                ":80/",
                ":3000.evil.com",
                ".evil.com",
                ".evil.com:80",
                "@evil.com",
                ":80@evil.com",
            ] {
                assert!(!matches(&pattern, &format!("{base}{rest}")), "{base}{rest}");
            }
        }
        assert!(!matches("http://localhost:*", "https://localhost:3000"));
        for text in ["https://app.example.com:*", "http://192.168.0.1:*"] {
            let parsed = OriginPattern::parse(text);
            assert_eq!(parsed, Err(InvalidOrigin::AnyPort), "{text}");
        }
    }

    #[test]
    fn other_texts_are_refused_with_the_spelling_that_browsers_use() {
        use InvalidOrigin as I;
        for (text, right) in [
            ("https://app.example.com/", "https://app.example.com"),
            ("https://app.example.com/x?y", "https://app.example.com"),
            ("HTTPS://APP.example.com", "https://app.example.com"),
            ("https://app.example.com:443", "https://app.example.com"),
            ("http://app.example.com:80", "http://app.example.com"),
            ("https://app.example.com.", "https://app.example.com"),
            ("https://app.example.com.:81", "https://app.example.com:81"),
            ("https://u@app.example.com", "https://app.example.com"),
            ("https:app.example.com", "https://app.example.com"),
            (" https://app.example.com", "https://app.example.com"),
            (
                "https://b\u{fc}cher.example",
                "https://xn--bcher-kva.example",
            ),
            ("https://*.Example.com/", "https://*.example.com"),
            ("https://*.example.com:443", "https://*.example.com"),
            ("HTTP://LOCALHOST:*", "http://localhost:*"),
            ("http://[0:0::1]:*", "http://[::1]:*"),
            ("http://localhost:3000:*", "http://localhost:*"),
            ("http://[::1]:3000:*", "http://[::1]:*"),
        ] {
            let expected = Err(InvalidOrigin::OtherForm(right.into()));
            assert_eq!(OriginPattern::parse(text), expected, "{text}");
            assert!(OriginPattern::parse(right).is_ok(), "{right}");
        }
        for (text, expected) in [
            ("", I::NotAnOrigin),
            ("null", I::Null),
            ("app.example.com", I::NotAnOrigin),
            ("ftp://app.example.com", I::NotAnOrigin),
            ("file:///x", I::NotAnOrigin),
            ("https://", I::NotAnOrigin),
            ("https://*", I::EveryHost),
            ("https://*:8443", I::EveryHost),
            ("https://*/", I::EveryHost),
            ("https://*.com", I::TopLevelDomain),
            ("https://*.localhost", I::TopLevelDomain),
            ("https://*.10.0.0.1", I::AddressBelowWildcard),
            ("https://*.", I::NotAnOrigin),
            ("https://app.*.com", I::Wildcard),
            ("https://app*.example.com", I::Wildcard),
            ("https://*app.example.com", I::Wildcard),
            ("https://*.*.example.com", I::Wildcard),
            ("https://app.example.*", I::Wildcard),
            ("*://app.example.com", I::Wildcard),
            ("*.example.com", I::NotAnOrigin),
            ("https://app.example.com:80*", I::Wildcard),
        ] {
            assert_eq!(OriginPattern::parse(text), Err(expected), "{text}");
        }
    }
}
