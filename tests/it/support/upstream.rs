//! An upstream that answers as a test tells it to, and records what reached it.

mod http1;
mod http2;
mod tests;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::digest;
use bytes::Bytes;
use hawkgate::proxy::settings::Address;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinHandle};
use tokio_rustls::TlsAcceptor;

use super::client::within;
use super::tls::{Identity, TestCa};
use super::wire::{Fields, Stream};

/// The head of a request that arrived.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Among all attempts, from 0.
    pub(crate) index: usize,
    /// Among the attempts with this method and target, from 0.
    pub(crate) repeat: usize,
    /// Which connection, from 0.
    pub(crate) connection: usize,
    /// `HTTP/1.1` or `HTTP/2`.
    pub(crate) protocol: &'static str,
    pub(crate) method: String,
    /// As it came.
    pub(crate) target: String,
    /// `Host` or `:authority`.
    pub(crate) authority: String,
    pub(crate) fields: Fields,
    /// The head to the byte (HTTP/1.1 only).
    pub(crate) raw: Bytes,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.fields.first(name)
    }

    /// Without the query.
    pub(crate) fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }
}

/// One request as it reached the upstream.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) seen: Seen,
    /// Body bytes that arrived.
    pub(crate) received: u64,
    /// SHA-256 of them in hex, once the body ended properly.
    pub(crate) sha256: Option<String>,
    /// The body broke off, or was not read to its end.
    pub(crate) broken: bool,
    /// What was answered; 0 until then.
    pub(crate) status: u16,
}

/// When the answer goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// Before anything of the body is read.
    BeforeBody,
    /// After this many bytes of it, or at its end.
    Amid(u64),
    /// After all of it.
    AfterBody,
}

/// What becomes of the rest of a request's body after an early answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rest {
    /// It is read, as Node does.
    Drain,
    /// The connection (HTTP/2: the stream) is closed.
    Close,
}

/// A body to answer with.
#[derive(Debug)]
pub(crate) enum Payload {
    /// With `Content-Length`.
    Whole(Bytes),
    /// In pieces as they come from a channel; a closed channel ends it.
    Streamed(mpsc::Receiver<Bytes>),
    /// No framing at all: these bytes instead of a head, then the end (HTTP/1.1 only).
    Raw(Bytes),
    /// After a 101, whatever comes is sent back (HTTP/1.1 only).
    Echo,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) when: When,
    pub(crate) rest: Rest,
    /// 1xx to send first.
    pub(crate) interim: Vec<u16>,
    pub(crate) status: u16,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) payload: Payload,
    /// Waits until the gate opens.
    pub(crate) gate: Option<Gate>,
}

impl Reply {
    pub(crate) fn new(status: u16, body: impl Into<Bytes>) -> Self {
        Self {
            when: When::AfterBody,
            rest: Rest::Drain,
            interim: Vec::new(),
            status,
            fields: Vec::new(),
            payload: Payload::Whole(body.into()),
            gate: None,
        }
    }

    pub(crate) fn ok() -> Self {
        Self::new(200, "{}")
    }

    /// As Taskcluster says it.
    pub(crate) fn unauthorized(message: &str) -> Self {
        let body = serde_json::json!({ "code": "AuthenticationFailed", "message": message });
        Self::new(401, body.to_string())
            .header("www-authenticate", "hawk")
            .header("content-type", "application/json; charset=utf-8")
    }

    pub(crate) fn streamed(pieces: mpsc::Receiver<Bytes>) -> Self {
        Self {
            payload: Payload::Streamed(pieces),
            ..Self::ok()
        }
    }

    pub(crate) fn raw(bytes: impl Into<Bytes>) -> Self {
        Self {
            payload: Payload::Raw(bytes.into()),
            ..Self::ok()
        }
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.into(), value.into()));
        self
    }

    pub(crate) fn when(mut self, when: When) -> Self {
        self.when = when;
        self
    }

    pub(crate) fn rest(mut self, rest: Rest) -> Self {
        self.rest = rest;
        self
    }

    pub(crate) fn gate(mut self, gate: &Gate) -> Self {
        self.gate = Some(gate.clone());
        self
    }
}

/// Holds answers back until it is opened, for good.
#[derive(Clone, Debug)]
pub(crate) struct Gate(Arc<watch::Sender<bool>>);

impl Gate {
    pub(crate) fn closed() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    pub(crate) fn open(&self) {
        self.0.send_replace(true);
    }

    async fn pass(&self) {
        let mut state = self.0.subscribe();
        // The sender lives as long as `self`.
        let _ = state.wait_for(|open| *open).await;
    }
}

/// Decides the answer by the head.
pub(crate) type Script = Box<dyn Fn(&Seen) -> Reply + Send + Sync>;

/// What is spoken.
#[derive(Clone)]
pub(crate) enum Speaks {
    Http1,
    /// HTTP/2 by prior knowledge.
    Http2,
    /// TLS; HTTP/2 where ALPN agrees on it.
    Tls(TlsAcceptor),
}

impl Speaks {
    /// TLS as `identity` with `alpn`.
    pub(crate) fn tls(identity: &Identity, alpn: &[&str]) -> Self {
        Self::Tls(TestCa::acceptor(identity, alpn))
    }
}

/// What connections share.
struct Shared {
    script: Mutex<Arc<Script>>,
    attempts: watch::Sender<Vec<Attempt>>,
    repeats: Mutex<HashMap<(String, String), usize>>,
    connections: watch::Sender<usize>,
}

impl Shared {
    /// Notes a new attempt and asks the script for its answer.
    fn arrived(&self, mut seen: Seen) -> (usize, Reply) {
        let key = (seen.method.clone(), seen.target.clone());
        let mut repeats = self.repeats.lock().unwrap();
        let repeat = repeats.entry(key).or_default();
        seen.repeat = *repeat;
        *repeat += 1;
        self.attempts.send_modify(|attempts| {
            seen.index = attempts.len();
            attempts.push(Attempt {
                seen: seen.clone(),
                received: 0,
                sha256: None,
                broken: false,
                status: 0,
            });
        });
        drop(repeats);
        let script = Arc::clone(&self.script.lock().unwrap());
        let reply = script(&seen);
        (seen.index, reply)
    }

    fn update(&self, index: usize, change: impl FnOnce(&mut Attempt)) {
        self.attempts
            .send_modify(|attempts| change(&mut attempts[index]));
    }
}

/// Sums up a body while it is read.
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
        self.shared.update(self.index, |a| a.received = received);
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

/// SHA-256 in hex, as attempts record it.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

/// A running upstream; ends when dropped.
pub(crate) struct Upstream {
    address: SocketAddr,
    speaks: Speaks,
    shared: Arc<Shared>,
    accepting: Mutex<Option<JoinHandle<()>>>,
    open: Arc<Mutex<Vec<AbortHandle>>>,
}

impl Upstream {
    /// Starts on a free loopback port.
    pub(crate) async fn start<S>(speaks: Speaks, script: S) -> Self
    where
        S: Fn(&Seen) -> Reply + Send + Sync + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let script: Script = Box::new(script);
        let upstream = Self {
            address: listener.local_addr().unwrap(),
            speaks,
            shared: Arc::new(Shared {
                script: Mutex::new(Arc::new(script)),
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

    /// HTTP/1.1 with a script.
    pub(crate) async fn http1<S>(script: S) -> Self
    where
        S: Fn(&Seen) -> Reply + Send + Sync + 'static,
    {
        Self::start(Speaks::Http1, script).await
    }

    fn accept(&self, listener: TcpListener) {
        let (shared, speaks, open) = (
            Arc::clone(&self.shared),
            self.speaks.clone(),
            Arc::clone(&self.open),
        );
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let connection = *shared.connections.borrow();
                shared.connections.send_modify(|count| *count += 1);
                let task = serve(stream, speaks.clone(), Arc::clone(&shared), connection);
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
            // Its listener is closed once it has ended.
            let _ = accepting.await;
        }
        self.disconnect();
    }

    /// Closes every connection; new ones are welcome.
    pub(crate) fn disconnect(&self) {
        for connection in self.open.lock().unwrap().drain(..) {
            connection.abort();
        }
    }

    /// Comes back on the same port.
    pub(crate) async fn up(&self) {
        let listener = within("the port to be free", async {
            loop {
                match TcpListener::bind(self.address).await {
                    Ok(listener) => break listener,
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        });
        self.accept(listener.await);
    }

    pub(crate) fn address(&self) -> Address {
        Address::Tcp(self.address)
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// `http://127.0.0.1:PORT`, or https.
    pub(crate) fn url(&self) -> String {
        let scheme = match self.speaks {
            Speaks::Http1 | Speaks::Http2 => "http",
            Speaks::Tls(_) => "https",
        };
        format!("{scheme}://{}", self.address)
    }

    /// From now on answers come from this script.
    pub(crate) fn script<S>(&self, script: S)
    where
        S: Fn(&Seen) -> Reply + Send + Sync + 'static,
    {
        let script: Script = Box::new(script);
        *self.shared.script.lock().unwrap() = Arc::new(script);
    }

    /// Everything that arrived so far.
    pub(crate) fn attempts(&self) -> Vec<Attempt> {
        self.shared.attempts.borrow().clone()
    }

    /// What arrived at this path.
    pub(crate) fn attempts_at(&self, path: &str) -> Vec<Attempt> {
        let all = self.attempts().into_iter();
        all.filter(|a| a.seen.path() == path).collect()
    }

    /// How many connections were opened so far.
    pub(crate) fn connections(&self) -> usize {
        *self.shared.connections.borrow()
    }

    /// Waits until what arrived satisfies `condition`: a barrier.
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

impl Drop for Upstream {
    fn drop(&mut self) {
        if let Some(accepting) = self.accepting.lock().unwrap().take() {
            accepting.abort();
        }
        self.disconnect();
    }
}

async fn serve(stream: TcpStream, speaks: Speaks, shared: Arc<Shared>, connection: usize) {
    // Failures of a connection show in what the caller and the record see.
    let _ = stream.set_nodelay(true);
    match speaks {
        Speaks::Http1 => http1::serve(Box::new(stream), shared, connection).await,
        Speaks::Http2 => http2::serve(Box::new(stream), shared, connection).await,
        Speaks::Tls(acceptor) => {
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
