//! Accepts connections, serves them, and ends them in good order.
//!
//! pingora's own `Server` is not used: it closes its listeners at once on a signal, always
//! sleeps its whole grace period, limits neither heads nor connections, and cannot bind to
//! a port chosen by the system. Its `HttpProxy` is driven from here, request by request.

mod http1;
mod reject;
#[cfg(test)]
mod tests;
mod workers;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use pingora::apps::{HttpServerApp, HttpServerOptions, ServerApp};
use pingora::protocols::Stream;
use pingora::protocols::http::v2::server::default_h2_options;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::tls::ALPN;
use pingora::proxy::{HttpProxy, ProxyHttp};
use pingora::server::configuration::ServerConf;
use tokio::sync::Semaphore;

use super::client::ConnMetadata;
use super::connection::Connection;
pub use super::drain::ServerHandle;
use super::drain::{self, Signal};
use super::fast_path::FastPath;
use super::listener::{
    AccessControl, BindError, BoundListener, Incoming, InheritedSockets, Protocol, ProxyTrust, Tls,
};
use super::validate::HeadLimits;
use crate::clock::SharedClock;
use crate::config::{Address, Limits, Listener};
use crate::gateway::client::ClientCertificate;
use crate::gateway::outcome::Outcome;
use crate::gateway::rejection::{Reason, Rejection};
pub use workers::Workers;

/// Concurrent HTTP/2 streams of one connection.
const H2_STREAMS: u32 = 100;
/// Streams reset by the caller before they were accepted, per connection (CVE-2023-44487).
const H2_PENDING_RESETS: usize = 20;
/// Connections over the limit that are told so at once; more are closed without a word.
const MAX_REJECTING: usize = 64;
/// How long to leave a system alone that has no more descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Takes the outcome of each request that is refused before pingora sees it.
pub type Recorder = Arc<dyn Fn(&Outcome) + Send + Sync>;

/// The limits and timeouts of callers' connections.
#[derive(Clone, Copy, Debug)]
struct ConnLimits {
    head: HeadLimits,
    header_timeout: Duration,
    keepalive_timeout: Duration,
    /// Between two reads of a body, and for a write without progress.
    stall: Duration,
}

/// Listeners bound and not yet served: callers can connect already and wait.
pub struct BoundServer {
    listeners: Vec<BoundListener>,
    limits: ConnLimits,
    connections: Arc<Semaphore>,
    fast_path: Option<FastPath>,
}

/// What one listener's connections have in common.
#[derive(Clone)]
struct ListenerSettings {
    protocol: Protocol,
    access: Option<Arc<AccessControl>>,
    proxies: Option<Arc<ProxyTrust>>,
}

/// Which worker a connection is served by, and what tells it to end.
struct ConnInfo {
    worker: usize,
    signal: Signal,
}

/// What the connections of one [`BoundServer`] share.
struct Shared<A> {
    apps: Vec<Arc<A>>,
    limits: ConnLimits,
    clock: SharedClock,
    recorder: Recorder,
    workers: Workers,
    /// Asked first about every HTTP/1 request without a body.
    fast_path: Option<FastPath>,
    connections: Arc<Semaphore>,
    rejecting: Arc<Semaphore>,
    drain: drain::Controller,
}

/// pingora's proxy around `hooks`, with the HTTP/2 limits that belong to `limits`.
pub fn http_proxy<P>(hooks: P, limits: &Limits, conf: Arc<ServerConf>) -> Arc<HttpProxy<P>>
where
    P: ProxyHttp + Send + Sync + 'static,
    P::CTX: Send + Sync,
{
    let mut proxy = HttpProxy::new(hooks, conf);
    proxy.handle_init_modules();
    let mut h2 = default_h2_options();
    h2.max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .max_concurrent_streams(H2_STREAMS)
        .max_pending_accept_reset_streams(H2_PENDING_RESETS);
    proxy.h2_options = Some(h2);
    let mut options = HttpServerOptions::default();
    options.h2_idle_timeout = Some(limits.keepalive_timeout);
    proxy.server_options = Some(options);
    Arc::new(proxy)
}

impl BoundServer {
    /// Binds every listener, or none.
    ///
    /// # Errors
    /// For the first that cannot be bound, naming its address or file.
    pub async fn bind(listeners: &[Listener], limits: &Limits) -> Result<Self, BindError> {
        Self::bind_with_inherited(listeners, limits, &mut InheritedSockets::default()).await
    }

    /// As [`BoundServer::bind`], but takes those sockets that are there already.
    ///
    /// # Errors
    /// As [`BoundServer::bind`].
    pub async fn bind_with_inherited(
        listeners: &[Listener],
        limits: &Limits,
        inherited: &mut InheritedSockets,
    ) -> Result<Self, BindError> {
        let mut bound = Vec::with_capacity(listeners.len());
        for listener in listeners {
            bound.push(BoundListener::bind(listener, inherited).await?);
        }
        Ok(Self {
            listeners: bound,
            limits: ConnLimits {
                head: limits.into(),
                header_timeout: limits.header_timeout,
                keepalive_timeout: limits.keepalive_timeout,
                stall: limits.body_timeout,
            },
            connections: Arc::new(Semaphore::new(
                limits.connections.min(Semaphore::MAX_PERMITS),
            )),
            fast_path: None,
        })
    }

    /// With `fast_path` for the requests that it takes.
    #[must_use]
    pub fn with_fast_path(self, fast_path: FastPath) -> Self {
        Self {
            fast_path: Some(fast_path),
            ..self
        }
    }

    /// Where callers connect, in the order given, with ports as bound.
    pub fn addresses(&self) -> Vec<Address> {
        self.listeners
            .iter()
            .map(|listener| listener.address.clone())
            .collect()
    }

    /// The TLS of those listeners that have it, for reloading.
    pub fn tls(&self) -> Vec<Arc<Tls>> {
        let tls = |listener: &BoundListener| match &listener.protocol {
            Protocol::Tls(tls) => Some(tls.clone()),
            Protocol::Plain | Protocol::H2c => None,
        };
        self.listeners.iter().filter_map(tls).collect()
    }

    /// Serves every listener with `apps`, which the workers share out: each connection
    /// stays with one. Must be called in a runtime, which keeps accepting even if
    /// `workers` serve elsewhere.
    pub fn serve<A>(
        self,
        apps: Vec<Arc<A>>,
        clock: SharedClock,
        recorder: Recorder,
        workers: Workers,
    ) -> ServerHandle
    where
        A: HttpServerApp + Send + Sync + 'static,
    {
        let drain = drain::Controller::new();
        let shared = Arc::new(Shared {
            apps: apps.clone(),
            limits: self.limits,
            clock,
            recorder,
            workers,
            fast_path: self.fast_path,
            connections: self.connections,
            rejecting: Arc::new(Semaphore::new(MAX_REJECTING)),
            drain: drain.clone(),
        });
        for listener in self.listeners {
            let guard = drain.register();
            let accepting = accept(shared.clone(), listener);
            tokio::spawn(async move {
                accepting.await;
                drop(guard);
            });
        }
        let closing = drain.clone();
        tokio::spawn(async move {
            closing.closing().await;
            // So that pingora's sessions know: is_process_shutting_down().
            for app in apps {
                app.http_cleanup().await;
            }
        });
        ServerHandle::new(drain)
    }
}

/// One listener's loop, until the end is announced.
async fn accept<A>(shared: Arc<Shared<A>>, listener: BoundListener)
where
    A: HttpServerApp + Send + Sync + 'static,
{
    loop {
        let accepted = tokio::select! {
            biased;
            () = shared.drain.closing() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(incoming) => spawn_connection(&shared, &listener, incoming),
            Err(e) => pause_accepting(&e).await,
        }
    }
    // Who is in the queue already was promised an answer by the system.
    while let Some(Ok(incoming)) = listener.accept().now_or_never() {
        spawn_connection(&shared, &listener, incoming);
    }
}

/// Without descriptors or memory, accepting again at once would only spin. A connection
/// that broke off while it waited is no reason to pause.
async fn pause_accepting(error: &io::Error) {
    if error.kind() == io::ErrorKind::ConnectionAborted {
        return;
    }
    tracing::warn!(%error, "cannot accept connections for a moment");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

/// Starts serving a connection, or turns it away.
fn spawn_connection<A>(shared: &Arc<Shared<A>>, listener: &BoundListener, incoming: Incoming)
where
    A: HttpServerApp + Send + Sync + 'static,
{
    let protocol = &listener.protocol;
    let guard = shared.drain.register();
    let id = guard.id();
    let task = shared.clone();
    let started = if let Ok(permit) = shared.connections.clone().try_acquire_owned() {
        let settings = ListenerSettings {
            protocol: protocol.clone(),
            access: listener.access.clone(),
            proxies: listener.proxies.clone(),
        };
        shared
            .workers
            .spawn(incoming, move |incoming, worker| async move {
                let signal = guard.signal();
                let _held = (guard, permit);
                if let Some(app) = task.app(worker) {
                    let info = ConnInfo { worker, signal };
                    admit_and_serve(&task, app, info, &settings, incoming).await;
                }
            })
    } else if matches!(protocol, Protocol::Plain)
        && let Ok(permit) = shared.rejecting.clone().try_acquire_owned()
    {
        shared.workers.spawn(incoming, |incoming, _| async move {
            let _held = (guard, permit);
            reject::reject_overload(&task, incoming).await;
        })
    } else {
        None
    };
    if let Some(started) = started {
        shared.drain.set_abort_handle(id, started);
    }
}

impl<A> Shared<A> {
    fn app(&self, worker: usize) -> Option<&Arc<A>> {
        self.apps.get(worker % self.apps.len().max(1))
    }
}

/// Serves a connection if its peer may connect.
async fn admit_and_serve<A>(
    shared: &Shared<A>,
    app: &Arc<A>,
    info: ConnInfo,
    settings: &ListenerSettings,
    mut incoming: Incoming,
) where
    A: HttpServerApp + Send + Sync + 'static,
{
    let guarded = settings.access.is_some() || settings.proxies.is_some();
    // Boxed, so that a plain connection's task stays small.
    if guarded && let Err(rejection) = Box::pin(admit(shared, settings, &mut incoming)).await {
        // After half a header nobody could write_rejection what an answer is for.
        let plain = matches!(settings.protocol, Protocol::Plain)
            && rejection.reason == Reason::PeerNotAllowed;
        return Box::pin(reject::reject_peer(shared, incoming, rejection, plain)).await;
    }
    serve_connection(shared, app, info, settings, incoming).await;
}

/// Finds out who is connected, and whether they may be.
async fn admit<A>(
    shared: &Shared<A>,
    settings: &ListenerSettings,
    incoming: &mut Incoming,
) -> Result<(), Rejection> {
    if let Some(proxies) = &settings.proxies {
        let limit = shared.limits.header_timeout;
        proxies.read_proxy_header(incoming, limit).await?;
    }
    let Some(access) = &settings.access else {
        return Ok(());
    };
    let admitted = access.admit(incoming).await;
    admitted.map_err(|cause| Rejection::from(Reason::PeerNotAllowed).because(cause))
}

/// A connection's whole life.
async fn serve_connection<A>(
    shared: &Shared<A>,
    app: &Arc<A>,
    info: ConnInfo,
    settings: &ListenerSettings,
    incoming: Incoming,
) where
    A: HttpServerApp + Send + Sync + 'static,
{
    let peer = incoming.peer();
    let mut metadata = ConnMetadata {
        proxies: settings.proxies.as_ref().map(|proxies| proxies.networks()),
        certificate: None,
    };
    let stream = match &settings.protocol {
        Protocol::Plain => incoming.into_transport().ok(),
        Protocol::H2c => incoming.into_stream().ok().map(|s| Box::new(s) as Stream),
        Protocol::Tls(tls) => {
            let limit = shared.limits.header_timeout;
            let handshake = Box::pin(tls_handshake(tls, incoming, limit)).await;
            handshake.map(|(stream, certificate)| {
                metadata.certificate = certificate.map(Arc::new);
                stream
            })
        }
    };
    let Some(stream) = stream else { return };
    let http2_agreed = match settings.protocol {
        Protocol::Plain => false,
        Protocol::H2c => true,
        Protocol::Tls(_) => stream.selected_alpn_proto() == Some(ALPN::H2),
    };
    // Without it nobody would know any more whom the connection is of.
    let Ok(proxy_digest) = metadata.into_digest() else {
        return;
    };
    // The rarer futures are large: boxed, so that a plain connection's task stays small.
    if http2_agreed {
        Box::pin(serve_http2(shared, app, stream, proxy_digest)).await;
    } else {
        let ConnInfo { worker, signal } = info;
        let info = http1::ConnInfo {
            worker,
            signal,
            peer,
            proxy_digest,
        };
        http1::serve(shared, app, stream, info).await;
    }
}

/// The TLS handshake, within `limit`.
async fn tls_handshake(
    tls: &Tls,
    incoming: Incoming,
    limit: Duration,
) -> Option<(Stream, Option<ClientCertificate>)> {
    let stream = incoming.into_stream().ok()?;
    match tokio::time::timeout(limit, tls.handshake(stream)).await {
        Ok(Ok((stream, certificate))) => return Some((Box::new(stream), certificate)),
        Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
        Err(_) => tracing::debug!("TLS handshake took too long"),
    }
    None
}

/// pingora drives HTTP/2: one task a stream, the limits those of [`http_proxy`].
async fn serve_http2<A>(
    shared: &Shared<A>,
    app: &Arc<A>,
    stream: Stream,
    proxy_digest: Option<Arc<ProxyDigest>>,
) where
    A: HttpServerApp + Send + Sync + 'static,
{
    let limits = &shared.limits;
    let connection = Connection::http2(stream, limits.stall, limits.header_timeout)
        .with_proxy_digest(proxy_digest);
    app.process_new(Box::new(connection), &shared.drain.closing_watch())
        .await;
}
