//! The upstream of a route.

use std::net::IpAddr;
use std::time::Duration;

use url::{Host, Url};

use super::{Context, Route};
use crate::config::diagnostic::quoted;
use crate::config::http_url::{is_loopback, require_origin_only};
use crate::config::reader::Reader;
use crate::config::resolved::Upstream;
use crate::config::units::show_duration;
use crate::gateway::route::UpstreamTimeouts;
use crate::proxy::settings::Address;

impl Route {
    pub(super) fn resolve_upstream(
        &self,
        reader: &mut Reader<'_>,
        context: Context<'_>,
    ) -> Option<Upstream> {
        let timeouts = self.resolve_timeouts(reader);
        reader.check_range(&self.signed_port, 1, 65_535, |n| n.to_string());
        if let Some(ca) = &self.ca.value {
            reader.check_cas(&self.ca.at, ca);
        }
        let url = self.upstream.value.as_ref()?;
        self.check_upstream(reader, url, context);
        let port = url.port_or_known_default()?;
        Some(Upstream {
            tls: url.scheme() == "https",
            host: host(url)?,
            port,
            signed_port: match self.signed_port.value {
                Some(port) => u16::try_from(port).ok()?,
                None => port,
            },
            ca: self.ca.value.clone(),
            http2: self.http2.value?,
            timeouts: timeouts?,
        })
    }

    fn resolve_timeouts(&self, reader: &mut Reader<'_>) -> Option<UpstreamTimeouts> {
        const SHORTEST: Duration = Duration::from_millis(10);
        const HOUR: Duration = Duration::from_hours(1);
        let (five_minutes, day) = (Duration::from_mins(5), Duration::from_hours(24));
        reader.check_range(&self.connect_timeout, SHORTEST, five_minutes, show_duration);
        reader.check_range(&self.read_timeout, SHORTEST, day, show_duration);
        reader.check_range(&self.write_timeout, SHORTEST, HOUR, show_duration);
        reader.check_range(&self.idle_timeout, Duration::ZERO, HOUR, show_duration);
        Some(UpstreamTimeouts {
            connect: self.connect_timeout.value?,
            read: self.read_timeout.value?,
            write: self.write_timeout.value?,
            idle: self.idle_timeout.value?,
        })
    }

    fn check_upstream(&self, reader: &mut Reader<'_>, url: &Url, context: Context<'_>) {
        let at = &self.upstream.at;
        if url.path() == "/" || url.query().is_some() {
            require_origin_only(reader, at, url, "the request's own path is forwarded");
        } else {
            let problem = "has a path, but the request's own path is forwarded";
            let remedy = format!(
                "write {}, and add_prefix = {} to put that before the request's path",
                quoted(&url.origin().ascii_serialization()),
                quoted(url.path().trim_end_matches('/'))
            );
            reader.error(at, problem, remedy);
        }
        let plain = url.scheme() == "http";
        if plain && !is_loopback(url) && self.allow_plaintext.value == Some(false) {
            let host = url.host_str().unwrap_or_default();
            let problem = format!("plain http to {host} sends requests and responses in cleartext");
            reader.error(at, problem, "write https://, or add allow_plaintext = true");
        }
        if plain && self.ca.given {
            reader.error(
                &self.ca.at,
                "has no effect on an http upstream",
                "write https://, or remove ca",
            );
        }
        if let Some(listener) = own_listener(url, context) {
            let problem = format!("is hawkgate's own listener at {listener}: requests would loop");
            reader.error(at, problem, "write the upstream's address");
        }
    }
}

/// The host in lower case, without brackets.
fn host(url: &Url) -> Option<String> {
    Some(match url.host()? {
        Host::Domain(name) => name.trim_end_matches('.').to_ascii_lowercase(),
        Host::Ipv4(ip) => ip.to_string(),
        Host::Ipv6(ip) => ip.to_string(),
    })
}

/// The listener that `url` refers to, as far as this can be determined without DNS.
fn own_listener<'a>(url: &Url, context: Context<'a>) -> Option<&'a Address> {
    let port = url.port_or_known_default()?;
    let ip = match url.host()? {
        Host::Ipv4(ip) => Some(IpAddr::V4(ip)),
        Host::Ipv6(ip) => Some(IpAddr::V6(ip)),
        Host::Domain(_) => None,
    };
    context.listen?.iter().map(|l| &l.address).find(|address| {
        let Address::Tcp(own) = address else {
            return false;
        };
        let here = match ip {
            Some(ip) => own.ip() == ip || (own.ip().is_unspecified() && ip.is_loopback()),
            None => is_loopback(url) && (own.ip().is_loopback() || own.ip().is_unspecified()),
        };
        here && own.port() == port
    })
}
