//! Requests as hyper's server reads them.

use std::cell::RefCell;
use std::convert::Infallible;

use http::{HeaderMap, Method, Version};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;

use crate::memory::{Memory, run};

/// A complete request.
#[derive(Debug)]
pub struct Request {
    pub method: Method,
    pub target: String,
    pub version: Version,
    pub fields: HeaderMap,
    pub content: Vec<u8>,
}

/// The requests of one connection, up to the first that is refused, incomplete or the last one.
pub fn requests(data: &[u8]) -> Vec<Request> {
    let found = RefCell::new(Vec::new());
    let service = service_fn(|request: http::Request<Incoming>| async {
        let (head, body) = request.into_parts();
        if let Ok(body) = body.collect().await {
            found.borrow_mut().push(Request {
                method: head.method,
                target: head.uri.to_string(),
                version: head.version,
                fields: head.headers,
                content: body.to_bytes().to_vec(),
            });
        }
        Ok::<_, Infallible>(http::Response::new(Empty::<Bytes>::new()))
    });
    let connection = http1::Builder::new()
        // Also of the trailers, whose size alone is limited.
        .max_headers(4096)
        .auto_date_header(false)
        .half_close(true)
        .serve_connection(Memory::to_server(data), service);
    let ended = run(connection);
    assert!(ended.is_some(), "hyper's server is stuck");
    found.into_inner()
}
