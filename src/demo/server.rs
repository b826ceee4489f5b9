//! The HTTP server that both of the demo's peers use.

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
    let mut response = http::Response::new(Full::from(body.to_string()));
    *response.status_mut() = status;
    let json = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
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

/// Starts a server on a free loopback port. `make_handler` receives the server's URL.
pub(super) async fn serve<F>(make_handler: impl FnOnce(&Url) -> F) -> Result<Server, DemoError>
where
    F: Fn(&Request) -> Response + Send + Sync + 'static,
{
    let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await?;
    let url = url(listener.local_addr()?)?;
    let handler = Arc::new(make_handler(&url));
    let task = tokio::spawn(async move {
        // An error of accept(2) affects a single connection, not the listener.
        loop {
            if let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve_connection(stream, handler.clone()));
            }
        }
    });
    Ok(Server { url, task })
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
