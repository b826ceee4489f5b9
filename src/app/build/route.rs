//! Builds one route, and its upstream.

use std::path::PathBuf;
use std::sync::Arc;

use http::HeaderValue;
use url::Url;

use crate::app::StartError;
use crate::app::components::UpstreamBasis;
use crate::config::{self, Config, SourceKind};
use crate::credential::CachedSource;
use crate::gateway::cors::Cors;
use crate::gateway::rate_limit::RateLimiters;
use crate::gateway::route::{Isolation, Route, Upstream};
use crate::gateway::upstream_addresses::UpstreamAddresses;
use crate::gateway::upstream_retry::UpstreamRetry;
use crate::gateway::{RefusalLog, UpstreamClock};
use crate::network::{Network, OutgoingProxy};
use crate::pem;
use crate::proxy::settings::Listener;
use crate::remote::dns;
use crate::token::{Issuer, WorkloadToken};

pub(super) fn upstream_basis(
    written: &config::Upstream,
    network: &Network,
) -> Result<UpstreamBasis, StartError> {
    let scheme = if written.tls { "https" } else { "http" };
    let url = format!("{scheme}://{}", authority(written));
    let url = Url::parse(&url).map_err(|e| StartError::Unusable(format!("{url}: {e}")))?;
    let proxy = network.upstream_proxy_for(&url).cloned();
    // CAs of its own replace the additional ones, but not for the proxy.
    let needed = written.ca.is_none() || proxy.is_some();
    Ok((
        written.clone(),
        proxy,
        network.ca.clone().filter(|_| needed),
    ))
}

fn read_cas(file: Option<&PathBuf>) -> Result<Option<Arc<[u8]>>, StartError> {
    let Some(file) = file else { return Ok(None) };
    let cas = pem::read_cas(file).map_err(|e| StartError::Unusable(format!("CA file {e}")))?;
    Ok(Some(cas.pem.as_slice().into()))
}

pub(super) fn upstream(
    (written, proxy, additional_ca): &UpstreamBasis,
) -> Result<Upstream, StartError> {
    let unusable = |e| StartError::Unusable(format!("the password of the outgoing proxy: {e}"));
    let proxy = proxy.as_ref().map(OutgoingProxy::endpoint).transpose();
    let proxy = proxy.map_err(unusable)?;
    let (host, port) = match &proxy {
        Some(proxy) => (&proxy.host, proxy.port),
        None => (&written.host, written.port),
    };
    let addresses = match dns::ip_literal(host, port) {
        Some(address) => UpstreamAddresses::fixed(vec![address]),
        None => UpstreamAddresses::unresolved(),
    };
    let authority = authority(written);
    Ok(Upstream {
        tls: written.tls,
        host: written.host.clone(),
        port: written.port,
        authority: HeaderValue::try_from(&authority).map_err(|_| {
            StartError::Unusable(format!("{authority:?} is not valid in a Host header"))
        })?,
        signed_port: written.signed_port,
        ca: read_cas(written.ca.as_ref())?,
        additional_ca: read_cas(additional_ca.as_ref())?,
        proxy,
        http2: written.http2,
        timeouts: written.timeouts,
        addresses,
        clock: UpstreamClock::default(),
    })
}

/// The value of `Host`: with a port only if it is not the scheme's default, as clients send it.
fn authority(upstream: &config::Upstream) -> String {
    let host = if upstream.host.contains(':') {
        format!("[{}]", upstream.host)
    } else {
        upstream.host.clone()
    };
    match (upstream.tls, upstream.port) {
        (true, 443) | (false, 80) => host,
        (_, port) => format!("{host}:{port}"),
    }
}

pub(super) fn build_route(
    route: &config::Route,
    upstream: Arc<Upstream>,
    isolation: Isolation,
    issuers: &[Arc<Issuer>],
    sources: &[Arc<CachedSource>],
) -> Route {
    let issuers = route.issuers.iter().filter_map(|at| issuers.get(*at));
    let source = route.source.and_then(|at| sources.get(at)).cloned();
    let takes_password = source
        .as_ref()
        .is_some_and(|source| source.takes_password());
    let cors = route
        .cors
        .as_ref()
        .map(|cors| Cors::new(cors, route.methods.as_deref(), takes_password));
    Route {
        name: route.name.clone(),
        hosts: route.hosts.clone(),
        path: route.path.clone(),
        case_insensitive_path: route.case_insensitive_path,
        methods: route.methods.clone(),
        rewrite: route.rewrite.clone(),
        upstream,
        issuers: issuers.cloned().collect(),
        session: None,
        source,
        stripped_headers: route.stripped_headers.clone(),
        request_headers: route.request_headers.clone(),
        response_headers: route.response_headers.clone(),
        require_scopes: route.require_scopes.clone(),
        passes_401: route.passes_401.clone(),
        refused_scopes: RefusalLog::default(),
        anonymous: route.anonymous,
        workload_token: route
            .workload_token
            .clone()
            .map(|file| Arc::new(WorkloadToken::new(file))),
        upgrade_expiry: route.upgrade_expiry,
        isolation,
        cors,
        compat: route.compat,
        rules: None,
        rates: RateLimiters::default(),
        retry: route.retry.clone().map(UpstreamRetry::new),
    }
}

/// The listeners that serve every route. Those of `[[forward_auth]]` serve the routes that they name,
/// which all need a token.
pub(super) fn callers(config: &Config) -> impl Iterator<Item = &Listener> {
    let listeners = config.server.listen.iter();
    listeners.filter(|listener| listener.forward_auth.is_none())
}

/// Which requests to the route are refused if a web page sent them. A route without tokens and
/// without a source may serve other machines, under names that hawkgate does not know.
pub(super) fn isolation(route: &config::Route, config: &Config) -> Isolation {
    let kind = route.source.and_then(|at| config.sources.get(at));
    let takes_password = kind.is_some_and(|s| matches!(s.kind, SourceKind::Password(_)));
    let confined = callers(config).all(Listener::is_confined);
    let public = route.source.is_none() && !confined;
    if takes_password || (route.anonymous && !public) {
        Isolation::Always
    } else if route.workload_token.is_some() {
        Isolation::WithoutAuthorization
    } else {
        Isolation::Off
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn written(tls: bool, host: &str, port: u16) -> config::Upstream {
        let second = Duration::from_secs(1);
        config::Upstream {
            tls,
            host: host.into(),
            port,
            signed_port: port,
            ca: None,
            http2: false,
            timeouts: crate::gateway::route::UpstreamTimeouts {
                connect: second,
                read: second,
                write: second,
                idle: second,
            },
        }
    }

    #[test]
    fn the_host_header_omits_the_default_port() {
        for (tls, host, port, expected) in [
            (true, "tc.example.com", 443, "tc.example.com"),
            (true, "tc.example.com", 80, "tc.example.com:80"),
            (false, "127.0.0.1", 80, "127.0.0.1"),
            (false, "::1", 8080, "[::1]:8080"),
        ] {
            assert_eq!(authority(&written(tls, host, port)), expected);
        }
    }
}
