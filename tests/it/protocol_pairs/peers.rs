//! Callers and an upstream that stream bodies in both directions at once.

use std::convert::Infallible;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::Stream;
use hawkgate::proxy::settings::Address;
use http::{HeaderMap, Request, Response, Version};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{Pair, gateway};
use crate::known_differences::patiently;
use crate::support::client::connect;
use crate::support::gateway::TestGateway;
use crate::support::tls::TestCa;
use crate::support::wire;

pub(super) type Body = BoxBody<Bytes, Infallible>;

pub(super) const MIB: usize = 1024 * 1024;

/// A body that ends when the sender is dropped.
pub(super) fn channel() -> (mpsc::Sender<Frame<Bytes>>, Body) {
    let (sender, receiver) = mpsc::channel(1);
    (sender, stream(receiver))
}

fn stream(receiver: mpsc::Receiver<Frame<Bytes>>) -> Body {
    let frames = futures::stream::unfold(receiver, async |mut receiver| {
        let frame = receiver.recv().await?;
        Some((Ok(frame), receiver))
    });
    boxed(frames)
}

fn boxed(
    frames: impl Stream<Item = Result<Frame<Bytes>, Infallible>> + Send + Sync + 'static,
) -> Body {
    StreamBody::new(frames).boxed()
}

pub(super) fn full(body: impl Into<Bytes>) -> Body {
    Full::new(body.into()).boxed()
}

/// A connection of a caller.
pub(super) enum Caller {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

impl Caller {
    pub(super) async fn connect(listener: &Address, http2: bool) -> Self {
        let io = TokioIo::new(connect(listener).await.unwrap());
        // Errors of the connection also surface at its requests.
        if http2 {
            let executor = TokioExecutor::new();
            let (sender, connection) = http2::handshake(executor, io).await.unwrap();
            tokio::spawn(connection);
            Self::Http2(sender)
        } else {
            let (sender, connection) = http1::handshake(io).await.unwrap();
            tokio::spawn(connection);
            Self::Http1(sender)
        }
    }

    /// Returns the answer's head, which may arrive before the body has been sent.
    pub(super) async fn send(
        &mut self,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, String> {
        let send = async {
            match self {
                Self::Http1(sender) => {
                    sender.ready().await?;
                    sender.send_request(request).await
                }
                Self::Http2(sender) => {
                    sender.ready().await?;
                    sender.send_request(request).await
                }
            }
        };
        let answered: Result<_, hyper::Error> = patiently(send).await?;
        answered.map_err(|_| "no answer".into())
    }
}

/// A request to the route of `pair`.
pub(super) fn request(pair: Pair, method: &str, path: &str, body: Body) -> Request<Body> {
    let request = Request::builder().method(method);
    let request = if pair.http2_caller {
        request.uri(format!("http://{}{path}", pair.host()))
    } else {
        request.uri(path).header("host", pair.host())
    };
    request.body(body).unwrap()
}

/// The content and the trailers of a body; fails if it is truncated.
pub(super) async fn read(body: Incoming) -> Result<(Bytes, HeaderMap), String> {
    let collected = patiently(body.collect()).await?;
    let collected = collected.map_err(|_| "a truncated body")?;
    let trailers = collected.trailers().cloned().unwrap_or_default();
    Ok((collected.to_bytes(), trailers))
}

/// What has arrived at the upstream.
#[derive(Default)]
pub(super) struct Arrived {
    /// The path of each request, with its protocol and fields.
    pub(super) requests: Mutex<Vec<(String, Version, HeaderMap)>>,
    /// The trailers of requests to `/trailers`.
    pub(super) trailers: Mutex<Vec<HeaderMap>>,
    /// Bytes that the answer to `/download` has consisted of so far.
    pub(super) downloaded: AtomicUsize,
    /// Bodies that nobody reads.
    held: Mutex<Vec<Incoming>>,
}

impl Arrived {
    pub(super) fn count(&self, path: &str) -> usize {
        let requests = self.requests.lock().unwrap();
        requests.iter().filter(|(at, ..)| at == path).count()
    }
}

/// Upstreams of both protocols, and a gateway with routes to them.
pub(super) struct Peers {
    pub(super) arrived: Arc<Arrived>,
    pub(super) gateway: TestGateway,
    _ca: TestCa,
    _upstreams: JoinSet<()>,
}

impl Peers {
    pub(super) async fn start() -> Self {
        let ca = TestCa::new();
        let acceptor = TestCa::acceptor(&ca.issue(&["127.0.0.1"]), &["h2"]);
        let arrived = Arc::new(Arrived::default());
        let mut upstreams = JoinSet::new();
        let mut urls = Vec::new();
        for tls in [false, true] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let scheme = if tls { "https" } else { "http" };
            urls.push(format!("{scheme}://{}", listener.local_addr().unwrap()));
            let acceptor = tls.then(|| acceptor.clone());
            let arrived = Arc::clone(&arrived);
            upstreams.spawn(async move {
                let mut connections = JoinSet::new();
                while let Ok((tcp, _)) = listener.accept().await {
                    tcp.set_nodelay(true).unwrap();
                    let (acceptor, arrived) = (acceptor.clone(), Arc::clone(&arrived));
                    connections.spawn(async move {
                        let stream: wire::Stream = match &acceptor {
                            None => Box::new(tcp),
                            Some(acceptor) => Box::new(acceptor.accept(tcp).await.unwrap()),
                        };
                        serve(stream, acceptor.is_some(), arrived).await;
                    });
                }
            });
        }
        let gateway = gateway(&urls[0], &urls[1], &ca.file()).await;
        Self {
            arrived,
            gateway,
            _ca: ca,
            _upstreams: upstreams,
        }
    }
}

async fn serve(stream: wire::Stream, http2: bool, arrived: Arc<Arrived>) {
    let io = TokioIo::new(stream);
    let service = service_fn(move |request| {
        let answer = answer(request, &arrived);
        async move { answer.await.map_err(io::Error::other) }
    });
    // An error ends the connection, which the caller notices.
    let _ = if http2 {
        let mut server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        // A body that is not read holds up its own stream, not the connection.
        server.initial_stream_window_size(Some(256 * 1024));
        server.initial_connection_window_size(Some(512 * 1024 * 1024));
        server.serve_connection(io, service).await
    } else {
        let server = hyper::server::conn::http1::Builder::new();
        server.serve_connection(io, service).await
    };
}

type Answer = Response<BoxBody<Bytes, hyper::Error>>;

/// Answers as the path says: `/echo`, `/download/BYTES`, `/trailers`, `/early/STATUS/REST`, and
/// otherwise with `ok` after the body.
fn answer(
    request: Request<Incoming>,
    arrived: &Arc<Arrived>,
) -> impl Future<Output = Result<Answer, hyper::Error>> + use<> {
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    let seen = (path.clone(), head.version, head.headers);
    arrived.requests.lock().unwrap().push(seen);
    let arrived = Arc::clone(arrived);
    async move {
        let mut words = path.trim_start_matches('/').split('/');
        match words.next() {
            Some("echo") => Ok(Response::new(body.boxed())),
            Some("download") => {
                let size = words.next().unwrap().parse().unwrap();
                Ok(Response::new(never_fails(download(size, arrived))))
            }
            Some("trailers") => with_trailers(body, &arrived).await,
            Some("early") => {
                let status = words.next().unwrap().parse::<u16>().unwrap();
                match words.next().unwrap() {
                    "drain" => {
                        tokio::spawn(body.collect());
                    }
                    "hold" => arrived.held.lock().unwrap().push(body),
                    _ => drop(body),
                }
                let answer = Response::builder().status(status);
                Ok(answer.body(never_fails(full("early"))).unwrap())
            }
            _ => {
                body.collect().await?;
                Ok(Response::new(never_fails(full("ok"))))
            }
        }
    }
}

fn never_fails(body: Body) -> BoxBody<Bytes, hyper::Error> {
    body.map_err(|never| match never {}).boxed()
}

/// As many zeros as this, made when they can be sent.
fn download(size: usize, arrived: Arc<Arrived>) -> Body {
    let piece = Bytes::from(vec![0; 16 * 1024]);
    let pieces = (0..size / piece.len()).map(move |_| {
        arrived.downloaded.fetch_add(piece.len(), Ordering::SeqCst);
        Ok(Frame::data(piece.clone()))
    });
    boxed(futures::stream::iter(pieces))
}

/// Notes the request's trailers, and answers as a gRPC server does.
async fn with_trailers(body: Incoming, arrived: &Arrived) -> Result<Answer, hyper::Error> {
    let collected = body.collect().await?;
    let trailers = collected.trailers().cloned().unwrap_or_default();
    arrived.trailers.lock().unwrap().push(trailers);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    trailers.insert("grpc-message", "fine".parse().unwrap());
    let frames = [Frame::data("message".into()), Frame::trailers(trailers)];
    let body = boxed(futures::stream::iter(frames.map(Ok)));
    let answer = Response::builder().header("trailer", "grpc-status");
    Ok(answer.body(never_fails(body)).unwrap())
}
