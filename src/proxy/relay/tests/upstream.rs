//! An upstream that verifies the Hawk header and responds with a digest of the body.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use aws_lc_rs::digest::{Context as Digest, SHA256};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::clock::UnixMillis;
use crate::hawk::{SignedRequest, Signer};
use crate::proxy::relay::tests::support::credentials;

/// At which point of the request body a 401 is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RejectAt {
    Start,
    Middle,
    End,
}

/// A request as received.
#[derive(Clone, Debug)]
pub(super) struct ReceivedRequest {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) headers: HeaderMap,
    pub(super) status: u16,
}

type RespondWith = dyn Fn(&Request<Incoming>) -> Option<Response<Full<Bytes>>> + Send + Sync;

pub(super) struct Upstream {
    pub(super) address: SocketAddr,
    /// Clients with a lower number have been revoked.
    pub(super) valid_from: AtomicUsize,
    pub(super) reject_at: Mutex<RejectAt>,
    pub(super) received: Mutex<Vec<ReceivedRequest>>,
    pub(super) connections: AtomicUsize,
    /// Overrides the response to requests with a valid signature.
    pub(super) respond_with: Mutex<Option<Box<RespondWith>>>,
    tasks: Mutex<JoinSet<()>>,
}

impl Upstream {
    pub(super) async fn start(http2: bool) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = Arc::new(Self {
            address: listener.local_addr().unwrap(),
            valid_from: AtomicUsize::new(0),
            reject_at: Mutex::new(RejectAt::End),
            received: Mutex::default(),
            connections: AtomicUsize::new(0),
            respond_with: Mutex::default(),
            tasks: Mutex::default(),
        });
        let handle = Arc::downgrade(&upstream);
        upstream.tasks.lock().unwrap().spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                let Some(upstream) = handle.upgrade() else {
                    return;
                };
                upstream.connections.fetch_add(1, Ordering::SeqCst);
                tcp.set_nodelay(true).unwrap();
                let service = service_fn(move |request| {
                    let upstream = Arc::clone(&upstream);
                    async move { Ok::<_, Infallible>(upstream.serve(request).await) }
                });
                let io = TokioIo::new(tcp);
                connections.spawn(async move {
                    let _ = if http2 {
                        hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                            .serve_connection(io, service)
                            .await
                    } else {
                        hyper::server::conn::http1::Builder::new()
                            .serve_connection(io, service)
                            .with_upgrades()
                            .await
                    };
                });
            }
        });
        upstream
    }

    pub(super) fn take_received(&self) -> Vec<ReceivedRequest> {
        std::mem::take(&mut self.received.lock().unwrap())
    }

    async fn serve(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let number = client_number(&request);
        let good = number.is_some_and(|n| n >= self.valid_from.load(Ordering::SeqCst));
        let respond_with = match &*self.respond_with.lock().unwrap() {
            Some(answer) if good => answer(&request),
            _ => None,
        };
        let index = self.record(&request);
        let response = match respond_with {
            Some(response) => response,
            None if good => digest_of(request.into_body()).await,
            None => self.refuse(request).await,
        };
        self.received.lock().unwrap()[index].status = response.status().as_u16();
        response
    }

    fn record(&self, request: &Request<Incoming>) -> usize {
        let mut received = self.received.lock().unwrap();
        received.push(ReceivedRequest {
            method: request.method().to_string(),
            target: target(request),
            headers: request.headers().clone(),
            status: 0,
        });
        received.len() - 1
    }

    async fn refuse(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let when = *self.reject_at.lock().unwrap();
        let expects_continue = request.headers().contains_key("expect");
        let total: usize = request
            .headers()
            .get("x-length")
            .map_or(0, |v| v.to_str().unwrap().parse().unwrap());
        let mut body = request.into_body();
        let read_until = match when {
            // Without a 100 Continue the body will not be sent.
            RejectAt::Start if expects_continue => return unauthorized(),
            RejectAt::Start => 0,
            RejectAt::Middle => total / 2,
            RejectAt::End => usize::MAX,
        };
        let mut read = 0;
        while read < read_until {
            match body.frame().await {
                Some(Ok(frame)) => read += frame.data_ref().map_or(0, Bytes::len),
                _ => break,
            }
        }
        // Like other servers, keep reading, so that the response is not lost in a reset.
        tokio::spawn(async move { while let Some(Ok(_)) = body.frame().await {} });
        unauthorized()
    }
}

fn target(request: &Request<Incoming>) -> String {
    let uri = request.uri();
    uri.path_and_query().unwrap().as_str().to_owned()
}

fn unauthorized() -> Response<Full<Bytes>> {
    Response::builder()
        .status(StatusCode::UNAUTHORIZED)
        .header("www-authenticate", "hawk")
        .body(Full::from("no"))
        .unwrap()
}

async fn digest_of(mut body: Incoming) -> Response<Full<Bytes>> {
    let (mut digest, mut length) = (Digest::new(&SHA256), 0);
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { break };
        if let Some(data) = frame.data_ref() {
            digest.update(data);
            length += data.len();
        }
    }
    Response::new(Full::from(format!("{length} {:?}", digest.finish())))
}

/// The response of [`digest_of`] for `body`.
pub(super) fn expected(body: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&SHA256, body);
    format!("{} {digest:?}", body.len())
}

/// The number of the client that signed the request, if the signature is valid.
fn client_number(request: &Request<Incoming>) -> Option<usize> {
    let header = request.headers().get("authorization")?.to_str().ok()?;
    let part = |name: &str| {
        let start = header.find(&format!("{name}=\""))? + name.len() + 2;
        header[start..].split('"').next()
    };
    let number: usize = part("id")?.strip_prefix("client-")?.parse().ok()?;
    let authority = match request.headers().get("host") {
        Some(host) => host.to_str().ok()?.to_owned(),
        None => request.uri().authority()?.to_string(),
    };
    let forwarded = request.headers().get("x-forwarded-port")?;
    let expected = Signer::new(&credentials(number))
        .unwrap()
        .authorization(&SignedRequest {
            at: UnixMillis::from_secs(part("ts")?.parse().ok()?),
            nonce: part("nonce")?,
            method: request.method().as_str(),
            target: &target(request),
            host: authority.split(':').next()?,
            port: forwarded.to_str().ok()?.parse().ok()?,
            payload_hash: None,
        })
        .unwrap();
    (expected == header).then_some(number)
}
