//! Envoy with its defaults for everything that is not named here.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::{Place, WORKERS};
use crate::support::identity::{AUDIENCE, ISSUER};
use crate::support::process::Process;

pub(super) fn start(envoy: &Path, place: &Place<'_>) -> Process {
    let conf = place.dir.join("envoy.json");
    fs::write(&conf, configuration(place).to_string()).expect("a configuration");
    let (conf, workers) = (conf.display().to_string(), WORKERS.to_string());
    Process::start(
        envoy,
        &[
            "--config-path",
            &conf,
            "--concurrency",
            &workers,
            "--disable-hot-restart",
            "--log-level",
            "off",
        ],
        true,
    )
}

const TYPE: &str = "type.googleapis.com/envoy.extensions";

fn configuration(place: &Place<'_>) -> Value {
    json!({ "static_resources": {
        "listeners": [
            { "name": "http", "address": address(place.ports.http), "filter_chains": [chain(place, None)] },
            { "name": "tls", "address": address(place.ports.tls), "filter_chains": [chain(place, Some(tls(place)))] },
        ],
        "clusters": [{
            "name": "upstream",
            "type": "STATIC",
            "connect_timeout": "5s",
            "load_assignment": {
                "cluster_name": "upstream",
                "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": address(place.ports.upstream) } }] }],
            },
        }],
    } })
}

fn address(port: u16) -> Value {
    json!({ "socket_address": { "address": "127.0.0.1", "port_value": port } })
}

fn tls(place: &Place<'_>) -> Value {
    json!({
        "name": "tls",
        "typed_config": {
            "@type": format!("{TYPE}.transport_sockets.tls.v3.DownstreamTlsContext"),
            "common_tls_context": {
                "alpn_protocols": ["h2", "http/1.1"],
                "tls_params": { "tls_minimum_protocol_version": "TLSv1_3" },
                "tls_certificates": [{
                    "certificate_chain": { "filename": place.identity.certificate },
                    "private_key": { "filename": place.identity.private_key },
                }],
            },
        },
    })
}

fn chain(place: &Place<'_>, transport: Option<Value>) -> Value {
    let mut chain = json!({ "filters": [{
        "name": "http",
        "typed_config": {
            "@type": format!("{TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager"),
            "stat_prefix": "callers",
            "access_log": [{
                "name": "file",
                "typed_config": {
                    "@type": format!("{TYPE}.access_loggers.file.v3.FileAccessLog"),
                    "path": "/dev/null",
                },
            }],
            "route_config": { "virtual_hosts": [{
                "name": "all",
                "domains": ["*"],
                "routes": [{ "match": { "prefix": "/" }, "route": { "cluster": "upstream" } }],
            }] },
            "http_filters": [
                jwt_authn(place),
                { "name": "router", "typed_config": { "@type": format!("{TYPE}.filters.http.router.v3.Router") } },
            ],
        },
    }] });
    if let Some(transport) = transport {
        chain["transport_socket"] = transport;
    }
    chain
}

fn jwt_authn(place: &Place<'_>) -> Value {
    json!({
        "name": "jwt_authn",
        "typed_config": {
            "@type": format!("{TYPE}.filters.http.jwt_authn.v3.JwtAuthentication"),
            "providers": { "bench": {
                "issuer": ISSUER,
                "audiences": [AUDIENCE],
                "local_jwks": { "filename": place.identity.jwks },
                "jwt_cache_config": { "jwt_cache_size": 100 },
            } },
            "rules": [{ "match": { "prefix": "/" }, "requires": { "provider_name": "bench" } }],
        },
    })
}
