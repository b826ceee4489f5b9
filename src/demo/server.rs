//! The HTTP server that the demo's peers use.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use url::Url;

use super::DemoError;

/// Maximum size of a request body, in bytes.
pub(super) const MAX_BODY: usize = 1024 * 1024;

/// A request with its whole body.
pub(super) struct Request {
    pub(super) method: Method,
    /// Path and query as sent.
    pub(super) target: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Request {
    /// Returns the value of a header; empty if it is missing or not ASCII.
    pub(super) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).and_then(|v| v.to_str().ok());
        value.unwrap_or_default()
    }

    pub(super) fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }
}

pub(super) type Response = http::Response<Full<Bytes>>;

/// Returns a response with a JSON body.
pub(super) fn json(status: StatusCode, body: &Value) -> Response {
    response(status, "application/json", body.to_string())
}

/// Returns a response that sends the browser to `location` by GET.
pub(super) fn see_other(location: &Url) -> Response {
    let mut response = response(StatusCode::SEE_OTHER, "text/plain; charset=utf-8", "");
    if let Ok(location) = header::HeaderValue::try_from(location.as_str()) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

/// Returns 405, with the methods that are allowed.
pub(super) fn method_not_allowed(allowed: &'static str) -> Response {
    let status = StatusCode::METHOD_NOT_ALLOWED;
    let mut response = response(status, "text/plain; charset=utf-8", "");
    let allowed = header::HeaderValue::from_static(allowed);
    response.headers_mut().insert(header::ALLOW, allowed);
    response
}

/// Returns a page with this content security policy.
pub(super) fn html(status: StatusCode, body: String, policy: &str) -> Response {
    let mut response = response(status, "text/html; charset=utf-8", body);
    // Without the policy the page would be shown unprotected.
    match header::HeaderValue::try_from(policy) {
        Ok(policy) => {
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_SECURITY_POLICY, policy);
            response
        }
        Err(_) => json(StatusCode::INTERNAL_SERVER_ERROR, &Value::Null),
    }
}

/// Returns a response that is not stored, interpreted only as what it is, and not named to other
/// sites.
pub(super) fn response(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response {
    let mut response = http::Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // `no-referrer` would turn the Origin of forms into `null`.
        (header::REFERRER_POLICY, "same-origin"),
    ] {
        headers.insert(name, header::HeaderValue::from_static(value));
    }
    response
}

/// A listening server, which stops when dropped.
pub(super) struct Server {
    pub(super) url: Url,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A port, on which nothing is served yet.
pub(super) struct Listening {
    pub(super) url: Url,
    listener: TcpListener,
}

/// Listens on a free loopback port.
pub(super) async fn listen() -> Result<Listening, DemoError> {
    let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await?;
    let url = url(listener.local_addr()?)?;
    Ok(Listening { url, listener })
}

impl Listening {
    /// Starts the server.
    pub(super) fn serve<F>(self, handler: F) -> Server
    where
        F: Fn(&Request) -> Response + Send + Sync + 'static,
    {
        let Self { url, listener } = self;
        let handler = Arc::new(handler);
        let task = tokio::spawn(async move {
            // An error of accept(2) affects a single connection, not the listener.
            loop {
                if let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(serve_connection(stream, handler.clone()));
                }
            }
        });
        Server { url, task }
    }
}

pub(super) fn url(address: SocketAddr) -> Result<Url, DemoError> {
    Url::parse(&format!("http://{address}/")).map_err(|e| DemoError::Start(e.to_string()))
}

async fn serve_connection<F>(stream: TcpStream, handler: Arc<F>)
where
    F: Fn(&Request) -> Response + Send + Sync + 'static,
{
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let handler = handler.clone();
        async move {
            let (head, body) = request.into_parts();
            let Ok(body) = Limited::new(body, MAX_BODY).collect().await else {
                let error = serde_json::json!({ "code": "InputError" });
                return Ok(json(StatusCode::PAYLOAD_TOO_LARGE, &error));
            };
            let target = head.uri.path_and_query().map_or("/", |t| t.as_str());
            let request = Request {
                target: target.to_owned(),
                method: head.method,
                headers: head.headers,
                body: body.to_bytes(),
            };
            Ok::<_, Infallible>(handler(&request))
        }
    });
    // If the connection fails, the tour reports that its request failed.
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}
