//! Responses as hyper's client reads them.

use http::{HeaderMap, Method, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};

use crate::memory::{Memory, run};

/// A complete response.
#[derive(Debug)]
pub struct Response {
    pub status: StatusCode,
    pub fields: HeaderMap,
    pub content: Vec<u8>,
}

/// The first response on a connection on which `data` arrives and which is then closed; `None` if it
/// is malformed or incomplete.
pub fn exchange(method: &Method, data: &[u8]) -> Option<Response> {
    connected(&[data], async |mut sender| send(&mut sender, method).await)
}

/// Like [`exchange`], and whether the response ends where `data` ends: hyper closes a connection on which
/// it finds more, and otherwise reads another response.
pub fn exact_exchange(method: &Method, data: &[u8]) -> Option<(Response, bool)> {
    let next = b"HTTP/1.1 299 Next\r\nContent-Length: 0\r\n\r\n";
    connected(&[data, next], async |mut sender| {
        let response = send(&mut sender, method).await?;
        let next = match sender.ready().await {
            Ok(()) => send(&mut sender, &Method::GET).await,
            Err(_) => None,
        };
        Some((response, next.is_some_and(|next| next.status == 299)))
    })
}

async fn send(sender: &mut SendRequest<Empty<Bytes>>, method: &Method) -> Option<Response> {
    let mut request = http::Request::new(Empty::new());
    *request.method_mut() = method.clone();
    let (head, body) = sender.send_request(request).await.ok()?.into_parts();
    Some(Response {
        status: head.status,
        fields: head.headers,
        content: body.collect().await.ok()?.to_bytes().to_vec(),
    })
}

fn connected<T>(
    responses: &[&[u8]],
    exchange: impl AsyncFnOnce(SendRequest<Empty<Bytes>>) -> Option<T>,
) -> Option<T> {
    let both = async {
        let mut builder = http1::Builder::new();
        builder.max_headers(300).max_buf_size(256 * 1024);
        let (sender, connection) = builder.handshake(Memory::to_client(responses)).await.ok()?;
        let connection = async {
            // Its errors are those of the exchange.
            let _ = connection.await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            biased;
            outcome = exchange(sender) => outcome,
            () = connection => None,
        }
    };
    run(both).expect("hyper's client is stuck")
}
