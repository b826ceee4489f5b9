//! The HTTP client for every remote party: bounded in time and size, https except on loopback,
//! without redirects and cookies, through the outgoing proxies of the configuration.

mod content_coding;
mod outgoing_proxy;

use std::error::Error as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::header::ACCEPT_ENCODING;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use url::Url;

use crate::clock::UnixMillis;
use crate::network::Network;
pub use crate::network::is_loopback;
use crate::peer_text;
use crate::pem;
use crate::trace;
use content_coding::DecodeError;

const PROXY_AUTH: StatusCode = StatusCode::PROXY_AUTHENTICATION_REQUIRED;

/// An HTTP client with its own connection pool; cheap to clone.
#[derive(Clone, Debug)]
pub struct HttpClient {
    inner: reqwest::Client,
    timeout: Duration,
    max_bytes: usize,
    allow_plaintext: bool,
    network: Network,
}

/// Limits and trusted CAs of an [`HttpClient`].
#[derive(Clone, Debug)]
pub struct HttpClientOptions {
    /// The timeout of one request, from connecting to the end of the response.
    pub timeout: Duration,
    /// The largest response body accepted, in bytes, as sent and once it is decoded.
    pub max_bytes: usize,
    /// PEM file with the only CAs trusted; the system's and those of [`Network::ca`] when `None`.
    pub ca: Option<PathBuf>,
    /// Outgoing proxies and additional CAs.
    pub network: Network,
}

/// A response whose body has been read completely. `Debug` shows neither headers nor body,
/// because both may contain secrets.
#[derive(Clone)]
pub struct HttpResponse {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, at most [`HttpClientOptions::max_bytes`] long, decoded from gzip or deflate and
    /// without a byte order mark.
    pub body: Bytes,
}

/// Why there is no response. The messages are for operators: they name the host, never a
/// header, query or body.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TransportError {
    /// The CA file or the TLS configuration is unusable.
    #[error("TLS configuration: {0}")]
    Tls(String),
    /// The URL is plain http to another machine.
    #[error("refusing plain http to {0}: use https (http is for loopback only)")]
    Plaintext(String),
    /// The connection failed or broke.
    #[error("{host}: {cause}")]
    Connection {
        /// Host and port.
        host: String,
        /// What kind of error it was.
        cause: String,
    },
    /// The outgoing proxy failed, not the host.
    #[error("{host}: the outgoing proxy {proxy} {problem}")]
    Proxy {
        /// Host and port.
        host: String,
        /// The proxy's URL, without credentials.
        proxy: String,
        /// What it did.
        problem: String,
    },
    /// The password of an outgoing proxy is unusable.
    #[error("the password of the outgoing proxy {proxy}: {cause}")]
    ProxyPassword {
        /// The proxy's URL, without credentials.
        proxy: String,
        /// What is wrong with it.
        cause: String,
    },
    /// The exchange took longer than the timeout.
    #[error("{host}: no complete response within {}ms", .timeout.as_millis())]
    Timeout {
        /// Host and port.
        host: String,
        /// The timeout.
        timeout: Duration,
    },
    /// The response is larger than the limit.
    #[error("{host}: the response is larger than {limit} bytes")]
    TooLarge {
        /// Host and port.
        host: String,
        /// The limit, in bytes.
        limit: usize,
    },
}

/// A request that got no response, for callers that must not repeat a request that may have been
/// processed.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct RequestError {
    /// Why there is no response.
    pub error: TransportError,
    /// Whether the peer may have received and processed the request.
    pub maybe_processed: bool,
}

impl TransportError {
    /// The message without the host, for a host that a peer named.
    pub fn without_host(&self) -> String {
        let text = self.to_string();
        match self {
            Self::Tls(_) | Self::ProxyPassword { .. } => text,
            Self::Plaintext(_) => "refusing plain http".to_owned(),
            Self::Connection { host, .. }
            | Self::Proxy { host, .. }
            | Self::Timeout { host, .. }
            | Self::TooLarge { host, .. } => {
                let text = text.strip_prefix(&**host).unwrap_or_default();
                text.trim_start_matches(": ").to_owned()
            }
        }
    }
}

impl From<TransportError> for RequestError {
    /// For errors that occur before anything is sent.
    fn from(error: TransportError) -> Self {
        Self {
            error,
            maybe_processed: false,
        }
    }
}

impl HttpClient {
    /// Builds a client.
    ///
    /// # Errors
    /// When a CA file cannot be read or contains no certificate, or a proxy's password cannot be read.
    pub fn new(options: &HttpClientOptions) -> Result<Self, TransportError> {
        let mut builder = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .connect_timeout(options.timeout)
            .pool_idle_timeout(Duration::from_secs(4))
            .user_agent(concat!("hawkgate/", env!("CARGO_PKG_VERSION")));
        builder = outgoing_proxy::configure(builder, &options.network)?;
        builder = match (&options.ca, &options.network.ca) {
            (Some(only), _) => builder.tls_certs_only(certificates(only)?),
            (None, Some(additional)) => builder.tls_certs_merge(certificates(additional)?),
            (None, None) => builder,
        };
        let inner = builder
            .build()
            .map_err(|e| TransportError::Tls(error_chain(&e)))?;
        Ok(Self {
            inner,
            timeout: options.timeout,
            max_bytes: options.max_bytes,
            allow_plaintext: false,
            network: options.network.clone(),
        })
    }

    /// The same client, but allowing plain http to other machines. Only for requests without
    /// tokens or secrets.
    #[must_use]
    pub fn allowing_plaintext(self) -> Self {
        Self {
            allow_plaintext: true,
            ..self
        }
    }

    /// Sends a GET request.
    pub async fn get(&self, url: &Url, headers: HeaderMap) -> Result<HttpResponse, TransportError> {
        self.send(Method::GET, url, headers, Bytes::new()).await
    }

    /// Sends a POST request; `headers` should include the content type.
    pub async fn post(
        &self,
        url: &Url,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<HttpResponse, TransportError> {
        self.send(Method::POST, url, headers, body).await
    }

    /// Sends a POST request with an `application/x-www-form-urlencoded` body.
    pub async fn post_form(
        &self,
        url: &Url,
        mut headers: HeaderMap,
        form: &[(&str, &str)],
    ) -> Result<HttpResponse, TransportError> {
        headers.insert(
            http::header::CONTENT_TYPE,
            HeaderValue::from_static("application/x-www-form-urlencoded"),
        );
        let body = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(form)
            .finish();
        self.send(Method::POST, url, headers, Bytes::from(body))
            .await
    }

    /// Sends a request. The error says whether the peer may have processed it.
    pub async fn request(
        &self,
        method: Method,
        url: &Url,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<HttpResponse, RequestError> {
        let host = authority(url);
        if url.scheme() != "https" && !self.allow_plaintext && !is_loopback(url) {
            return Err(TransportError::Plaintext(host).into());
        }
        let exchange = self.exchange(method, url, headers, body, &host);
        match tokio::time::timeout(self.timeout, exchange).await {
            Ok(result) => result,
            Err(_) => Err(RequestError {
                error: TransportError::Timeout {
                    host,
                    timeout: self.timeout,
                },
                maybe_processed: true,
            }),
        }
    }

    async fn send(
        &self,
        method: Method,
        url: &Url,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<HttpResponse, TransportError> {
        let result = self.request(method, url, headers, body).await;
        result.map_err(|error| error.error)
    }

    async fn exchange(
        &self,
        method: Method,
        url: &Url,
        mut headers: HeaderMap,
        body: Bytes,
        host: &str,
    ) -> Result<HttpResponse, RequestError> {
        if let Some(parent) = trace::outgoing_traceparent() {
            headers.insert(trace::TRACEPARENT, parent);
        }
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let proxy = self.network.proxy_for(url);
        let failed = |e: reqwest::Error| {
            let at_proxy = proxy.and_then(|proxy| outgoing_proxy::failure(&e, host, url, proxy));
            RequestError {
                maybe_processed: !(e.is_connect() || e.is_builder()),
                error: at_proxy.unwrap_or_else(|| connection_error(host, cause(&e))),
            }
        };
        let mut response = self
            .inner
            .request(method, url.clone())
            .headers(headers)
            .body(body)
            .send()
            .await
            .map_err(failed)?;
        let too_large = || RequestError {
            maybe_processed: true,
            error: TransportError::TooLarge {
                host: host.to_owned(),
                limit: self.max_bytes,
            },
        };
        let content_length = response.content_length().unwrap_or(0);
        if content_length > self.max_bytes as u64 {
            return Err(too_large());
        }
        let (status, headers) = (response.status(), response.headers().clone());
        // With https, a 407 comes through the tunnel, and so from the host.
        if let Some(proxy) = proxy.filter(|_| url.scheme() == "http" && status == PROXY_AUTH) {
            return Err(RequestError {
                maybe_processed: false,
                error: TransportError::Proxy {
                    host: host.to_owned(),
                    proxy: proxy.name().to_owned(),
                    problem: outgoing_proxy::AUTHENTICATION_REQUIRED.to_owned(),
                },
            });
        }
        let mut body = bytes::BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > self.max_bytes {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
        }
        let decoded = content_coding::decode(&headers, body.freeze(), self.max_bytes);
        let body = decoded.map_err(|error| {
            let cause = match error {
                DecodeError::TooLarge => return too_large(),
                DecodeError::Unsupported => {
                    "the response has a Content-Encoding that was not asked for and is not supported"
                }
                DecodeError::Malformed => "the response is not in its Content-Encoding",
            };
            RequestError {
                maybe_processed: true,
                error: connection_error(host, cause.to_owned()),
            }
        })?;
        Ok(HttpResponse {
            status,
            headers,
            body,
        })
    }
}

fn connection_error(host: &str, cause: String) -> TransportError {
    TransportError::Connection {
        host: host.to_owned(),
        cause,
    }
}

impl std::fmt::Debug for HttpResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "HttpResponse({}, {} bytes)",
            self.status,
            self.body.len()
        )
    }
}

impl HttpResponse {
    /// A header's value, if it is present and visible ASCII.
    pub fn header(&self, name: &HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|v| v.to_str().ok())
    }

    /// Whether `Content-Type` is `application/json` or missing.
    pub fn is_json(&self) -> bool {
        let Some(kind) = self.header(&http::header::CONTENT_TYPE) else {
            return !self.headers.contains_key(http::header::CONTENT_TYPE);
        };
        let kind = kind.split(';').next().unwrap_or_default().trim();
        kind.eq_ignore_ascii_case("application/json")
    }

    /// The `Date` header: the sender's clock.
    pub fn date(&self) -> Option<UnixMillis> {
        UnixMillis::from_http_date(self.header(&http::header::DATE)?)
    }

    /// `Retry-After`, given in seconds or as a date, which is taken relative to `Date`.
    pub fn retry_after(&self) -> Option<Duration> {
        let text = self.header(&http::header::RETRY_AFTER)?.trim();
        if let Ok(secs) = text.parse() {
            return Some(Duration::from_secs(secs));
        }
        Some(self.date()?.until(UnixMillis::from_http_date(text)?))
    }
}

fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port()
        .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn certificates(path: &Path) -> Result<Vec<reqwest::Certificate>, TransportError> {
    let found = pem::read_cas(path).map_err(|e| TransportError::Tls(format!("CA file {e}")))?;
    let certificates = found.certificates.iter();
    certificates
        .map(|der| reqwest::Certificate::from_der(der))
        .collect::<Result<_, _>>()
        .map_err(|e| TransportError::Tls(format!("CA file {}: {e}", path.display())))
}

/// Describes a failed request. Errors of the libraries below quote what the peer sent, so only what
/// kind of error it is gets into the text.
fn cause(error: &reqwest::Error) -> String {
    // hyper-util's text, which is constant.
    if causes(error).any(|error| error.to_string() == "dns error") {
        return "the name cannot be resolved".to_owned();
    }
    if let Some(cause) = peer_text::connection_cause(error) {
        return cause;
    }
    let http = causes(error).find_map(|error| error.downcast_ref::<hyper::Error>());
    let text = match http {
        Some(http) if http.is_parse() => "the response is not valid HTTP",
        Some(http) if http.is_incomplete_message() => {
            "the connection was closed before the response was complete"
        }
        _ if error.is_connect() => "cannot connect",
        _ if error.is_body() || error.is_decode() => {
            "the response's body is incomplete or malformed"
        }
        _ => "the request failed",
    };
    text.to_owned()
}

fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(error.source(), |error| (*error).source())
}

/// An error and its causes on one line.
fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests;
