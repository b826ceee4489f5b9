//! An upstream whose replies a test chooses, and which records the requests that reach it.

mod http1;
mod http2;
mod tests;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use aws_lc_rs::digest;
use bytes::Bytes;
use hawkgate::proxy::settings::Address;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinHandle};
use tokio_rustls::TlsAcceptor;

use super::tls::{Identity, TestCa};
use super::wait::{until_some, within};
use super::wire::{Fields, Stream};

/// The head of a request that arrived.
#[derive(Clone, Debug)]
pub(crate) struct ReceivedRequest {
    /// The index among all attempts, from 0.
    pub(crate) index: usize,
    /// The index among the attempts with this method and target, from 0.
    pub(crate) repeat: usize,
    /// The index of the connection, from 0.
    pub(crate) connection: usize,
    /// `HTTP/1.1` or `HTTP/2`.
    pub(crate) protocol: &'static str,
    pub(crate) method: String,
    /// The raw request target.
    pub(crate) target: String,
    /// `Host` or `:authority`.
    pub(crate) authority: String,
    pub(crate) fields: Fields,
    /// The exact bytes of the head (HTTP/1.1 only).
    pub(crate) raw: Bytes,
}

impl ReceivedRequest {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.fields.first(name)
    }

    /// The target without its query.
    pub(crate) fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }
}

/// One request as it reached the upstream.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) request: ReceivedRequest,
    /// Body bytes that arrived.
    pub(crate) body_bytes: u64,
    /// SHA-256 of the body in hex, once it is complete.
    pub(crate) sha256: Option<String>,
    /// Whether the body was truncated or not read to its end.
    pub(crate) broken: bool,
    /// Status of the reply; 0 before it is sent.
    pub(crate) status: u16,
}

/// When the reply is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReplyAt {
    /// Before any of the body is read.
    BeforeBody,
    /// After this many bytes of the body, or at its end.
    AfterBytes(u64),
    /// After the whole body.
    AfterBody,
}

/// What happens to the rest of the request body after an early reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AfterReply {
    /// It is read, as Node does.
    Drain,
    /// The connection (HTTP/2: the stream) is closed.
    Close,
}

/// The body of a reply.
#[derive(Debug)]
pub(crate) enum ReplyBody {
    /// With `Content-Length`.
    Whole(Bytes),
    /// In pieces from a channel; it ends when the channel closes.
    Streamed(mpsc::Receiver<Bytes>),
    /// These bytes instead of a head and body, then the end of the connection (HTTP/1.1 only).
    Raw(Bytes),
    /// After a 101, everything received is sent back (HTTP/1.1 only).
    Echo,
}

/// A reply to one request.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) when: ReplyAt,
    pub(crate) rest: AfterReply,
    /// 1xx responses to send first.
    pub(crate) interim: Vec<u16>,
    pub(crate) status: u16,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) payload: ReplyBody,
    /// The reply waits until the latch opens.
    pub(crate) latch: Option<Latch>,
}

impl Reply {
    pub(crate) fn new(status: u16, body: impl Into<Bytes>) -> Self {
        Self {
            when: ReplyAt::AfterBody,
            rest: AfterReply::Drain,
            interim: Vec::new(),
            status,
            fields: Vec::new(),
            payload: ReplyBody::Whole(body.into()),
            latch: None,
        }
    }

    pub(crate) fn ok() -> Self {
        Self::new(200, "{}")
    }

    /// A 401 as Taskcluster sends it.
    pub(crate) fn unauthorized(message: &str) -> Self {
        let body = serde_json::json!({ "code": "AuthenticationFailed", "message": message });
        Self::new(401, body.to_string())
            .header("www-authenticate", "hawk")
            .header("content-type", "application/json; charset=utf-8")
    }

    pub(crate) fn streamed(pieces: mpsc::Receiver<Bytes>) -> Self {
        Self {
            payload: ReplyBody::Streamed(pieces),
            ..Self::ok()
        }
    }

    pub(crate) fn raw(bytes: impl Into<Bytes>) -> Self {
        Self {
            payload: ReplyBody::Raw(bytes.into()),
            ..Self::ok()
        }
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.into(), value.into()));
        self
    }

    pub(crate) fn when(mut self, when: ReplyAt) -> Self {
        self.when = when;
        self
    }

    pub(crate) fn rest(mut self, rest: AfterReply) -> Self {
        self.rest = rest;
        self
    }

    pub(crate) fn after(mut self, latch: &Latch) -> Self {
        self.latch = Some(latch.clone());
        self
    }
}

/// Holds replies back until it is opened; it cannot be closed again.
#[derive(Clone, Debug)]
pub(crate) struct Latch(Arc<watch::Sender<bool>>);

impl Latch {
    pub(crate) fn closed() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    pub(crate) fn open(&self) {
        self.0.send_replace(true);
    }

    async fn wait(&self) {
        let mut state = self.0.subscribe();
        // The sender lives as long as `self`.
        let _ = state.wait_for(|open| *open).await;
    }
}

/// Chooses the reply to a request by its head.
pub(crate) type Handler = Box<dyn Fn(&ReceivedRequest) -> Reply + Send + Sync>;

/// The protocol of an upstream.
#[derive(Clone)]
pub(crate) enum Protocol {
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// TLS, with HTTP/2 if ALPN negotiates it.
    Tls(TlsAcceptor),
}

impl Protocol {
    /// TLS as `identity` with `alpn`.
    pub(crate) fn tls(identity: &Identity, alpn: &[&str]) -> Self {
        Self::Tls(TestCa::acceptor(identity, alpn))
    }
}

/// State shared by the connections.
struct Shared {
    handler: Mutex<Arc<Handler>>,
    attempts: watch::Sender<Vec<Attempt>>,
    repeats: Mutex<HashMap<(String, String), usize>>,
    connections: watch::Sender<usize>,
}

impl Shared {
    /// Records a new attempt and returns the reply to it.
    fn arrived(&self, mut received: ReceivedRequest) -> (usize, Reply) {
        let key = (received.method.clone(), received.target.clone());
        let mut repeats = self.repeats.lock().unwrap();
        let repeat = repeats.entry(key).or_default();
        received.repeat = *repeat;
        *repeat += 1;
        self.attempts.send_modify(|attempts| {
            received.index = attempts.len();
            attempts.push(Attempt {
                request: received.clone(),
                body_bytes: 0,
                sha256: None,
                broken: false,
                status: 0,
            });
        });
        drop(repeats);
        let handler = Arc::clone(&self.handler.lock().unwrap());
        let reply = handler(&received);
        (received.index, reply)
    }

    fn update(&self, index: usize, change: impl FnOnce(&mut Attempt)) {
        self.attempts
            .send_modify(|attempts| change(&mut attempts[index]));
    }
}

/// Hashes a body while it is read.
struct BodySum {
    shared: Arc<Shared>,
    index: usize,
    received: u64,
    digest: digest::Context,
    ended: bool,
}

impl BodySum {
    fn new(shared: &Arc<Shared>, index: usize) -> Self {
        Self {
            shared: Arc::clone(shared),
            index,
            received: 0,
            digest: digest::Context::new(&digest::SHA256),
            ended: false,
        }
    }

    fn add(&mut self, piece: &[u8]) {
        self.digest.update(piece);
        self.received += piece.len() as u64;
        let received = self.received;
        self.shared.update(self.index, |a| a.body_bytes = received);
    }

    fn end(&mut self) {
        self.ended = true;
        let sum = hex(self.digest.clone().finish().as_ref());
        self.shared.update(self.index, |a| a.sha256 = Some(sum));
    }
}

impl Drop for BodySum {
    fn drop(&mut self) {
        if !self.ended {
            self.shared.update(self.index, |a| a.broken = true);
        }
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256 in hex, as in [`Attempt::sha256`].
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

/// A running upstream; stopped when dropped.
pub(crate) struct FakeUpstream {
    address: SocketAddr,
    protocol: Protocol,
    shared: Arc<Shared>,
    accepting: Mutex<Option<JoinHandle<()>>>,
    open: Arc<Mutex<Vec<AbortHandle>>>,
}

impl FakeUpstream {
    /// Starts on a free loopback port.
    pub(crate) async fn start<S>(protocol: Protocol, handler: S) -> Self
    where
        S: Fn(&ReceivedRequest) -> Reply + Send + Sync + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let handler: Handler = Box::new(handler);
        let upstream = Self {
            address: listener.local_addr().unwrap(),
            protocol,
            shared: Arc::new(Shared {
                handler: Mutex::new(Arc::new(handler)),
                attempts: watch::Sender::new(Vec::new()),
                repeats: Mutex::default(),
                connections: watch::Sender::new(0),
            }),
            accepting: Mutex::default(),
            open: Arc::default(),
        };
        upstream.accept(listener);
        upstream
    }

    /// Starts an HTTP/1.1 upstream.
    pub(crate) async fn http1<S>(handler: S) -> Self
    where
        S: Fn(&ReceivedRequest) -> Reply + Send + Sync + 'static,
    {
        Self::start(Protocol::Http1, handler).await
    }

    fn accept(&self, listener: TcpListener) {
        let (shared, protocol, open) = (
            Arc::clone(&self.shared),
            self.protocol.clone(),
            Arc::clone(&self.open),
        );
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let connection = *shared.connections.borrow();
                shared.connections.send_modify(|count| *count += 1);
                let task = serve(stream, protocol.clone(), Arc::clone(&shared), connection);
                open.lock().unwrap().push(tokio::spawn(task).abort_handle());
            }
        });
        *self.accepting.lock().unwrap() = Some(accepting);
    }

    /// Closes every connection and refuses new ones.
    pub(crate) async fn down(&self) {
        let accepting = self.accepting.lock().unwrap().take();
        if let Some(accepting) = accepting {
            accepting.abort();
            // The listener is closed once the task has ended.
            let _ = accepting.await;
        }
        self.disconnect();
    }

    /// Closes every connection; new ones are accepted.
    pub(crate) fn disconnect(&self) {
        for connection in self.open.lock().unwrap().drain(..) {
            connection.abort();
        }
    }

    /// Listens again on the same port.
    pub(crate) async fn up(&self) {
        let bind = async || TcpListener::bind(self.address).await.ok();
        self.accept(until_some("the port to be free", bind).await);
    }

    pub(crate) fn address(&self) -> Address {
        Address::Tcp(self.address)
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// `http://127.0.0.1:PORT`, or https.
    pub(crate) fn url(&self) -> String {
        let scheme = match self.protocol {
            Protocol::Http1 | Protocol::Http2 => "http",
            Protocol::Tls(_) => "https",
        };
        format!("{scheme}://{}", self.address)
    }

    /// Replaces the handler.
    pub(crate) fn set_handler<S>(&self, handler: S)
    where
        S: Fn(&ReceivedRequest) -> Reply + Send + Sync + 'static,
    {
        let handler: Handler = Box::new(handler);
        *self.shared.handler.lock().unwrap() = Arc::new(handler);
    }

    /// Every request received so far.
    pub(crate) fn attempts(&self) -> Vec<Attempt> {
        self.shared.attempts.borrow().clone()
    }

    /// The requests received for this path.
    pub(crate) fn attempts_at(&self, path: &str) -> Vec<Attempt> {
        let all = self.attempts().into_iter();
        all.filter(|a| a.request.path() == path).collect()
    }

    /// Connections accepted so far.
    pub(crate) fn connections(&self) -> usize {
        *self.shared.connections.borrow()
    }

    /// Waits until the requests received so far satisfy `condition`, and returns them.
    pub(crate) async fn until(
        &self,
        what: &str,
        condition: impl Fn(&[Attempt]) -> bool,
    ) -> Vec<Attempt> {
        let mut attempts = self.shared.attempts.subscribe();
        let wait = attempts.wait_for(|attempts| condition(attempts));
        within(what, wait).await.unwrap().clone()
    }
}

impl Drop for FakeUpstream {
    fn drop(&mut self) {
        if let Some(accepting) = self.accepting.lock().unwrap().take() {
            accepting.abort();
        }
        self.disconnect();
    }
}

async fn serve(stream: TcpStream, protocol: Protocol, shared: Arc<Shared>, connection: usize) {
    // Connection errors surface at the client and in the recorded attempts.
    let _ = stream.set_nodelay(true);
    match protocol {
        Protocol::Http1 => http1::serve(Box::new(stream), shared, connection).await,
        Protocol::Http2 => http2::serve(Box::new(stream), shared, connection).await,
        Protocol::Tls(acceptor) => {
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            let stream: Stream = Box::new(stream);
            if h2 {
                http2::serve(stream, shared, connection).await;
            } else {
                http1::serve(stream, shared, connection).await;
            }
        }
    }
}
