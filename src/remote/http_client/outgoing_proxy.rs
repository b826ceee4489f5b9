//! Requests through an outgoing proxy, and what its errors mean.

use reqwest::{ClientBuilder, Proxy};
use url::Url;

use super::{TransportError, causes};
use crate::network::{Network, OutgoingProxy};
use crate::peer_text;

/// Makes clients use the proxies of `network`, and no others.
///
/// # Errors
/// If a proxy's password cannot be read or used.
pub(super) fn configure(
    builder: ClientBuilder,
    network: &Network,
) -> Result<ClientBuilder, TransportError> {
    let mut builder = builder.no_proxy();
    for scheme in ["https", "http"] {
        let configured = match scheme {
            "https" => &network.https,
            _ => &network.http,
        };
        let Some(proxy) = configured else { continue };
        let rules = network.clone();
        let applies = move |url: &Url| {
            let proxy = rules.proxy_for(url)?;
            (url.scheme() == scheme).then(|| proxy.url().clone())
        };
        let mut custom = Proxy::custom(applies);
        let unusable = |cause: String| TransportError::ProxyPassword {
            proxy: proxy.name().to_owned(),
            cause,
        };
        if let Some(authorization) = proxy.authorization().map_err(|e| unusable(e.to_string()))? {
            let mut value = http::HeaderValue::from_str(authorization.expose())
                .map_err(|_| unusable("has invalid characters".into()))?;
            value.set_sensitive(true);
            custom = custom.custom_http_auth(value);
        }
        builder = builder.proxy(custom);
    }
    Ok(builder)
}

/// The error of a request that failed at `proxy`; `None` if it failed beyond it.
pub(super) fn failure(
    error: &reqwest::Error,
    host: &str,
    url: &Url,
    proxy: &OutgoingProxy,
) -> Option<TransportError> {
    // hyper-util's texts, which are constant; its type cannot be named.
    let text = causes(error).find_map(|cause| {
        let text = cause.to_string();
        text.strip_prefix("tunnel error: ").map(str::to_owned)
    });
    let problem = match text.as_deref() {
        Some("proxy authorization required") => AUTHENTICATION_REQUIRED.to_owned(),
        Some("unsuccessful") => {
            "opened no tunnel to it: it cannot reach this host, or does not allow the host, the port or \
             the credentials"
                .into()
        }
        Some("failed to create underlying connection") => unreachable(error),
        Some(_) => "closed the connection instead of answering CONNECT".into(),
        None if error.is_connect() && url.scheme() == "http" => unreachable(error),
        None => return None,
    };
    Some(TransportError::Proxy {
        host: host.to_owned(),
        proxy: proxy.name().to_owned(),
        problem,
    })
}

/// Status 407 of the proxy.
pub(super) const AUTHENTICATION_REQUIRED: &str =
    "requires valid credentials (407): check its user name and password";

fn unreachable(error: &reqwest::Error) -> String {
    if causes(error).any(|cause| cause.to_string() == "dns error") {
        return "cannot be reached: its name cannot be resolved".to_owned();
    }
    match peer_text::connection_cause(error) {
        Some(cause) => format!("cannot be reached: {cause}"),
        None => "cannot be reached".to_owned(),
    }
}
