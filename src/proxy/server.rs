//! The server: accepts connections, serves them, and shuts them down gracefully.
//!
//! pingora's own `Server` is not used, because it closes its listeners immediately on a signal,
//! always sleeps for its whole grace period, limits neither the size of heads nor the number of
//! connections, and cannot bind to a port chosen by the system. This module calls pingora's
//! `HttpProxy` for each request instead.

mod http1;
mod lingering_close;
mod reject;
#[cfg(test)]
mod tests;
mod workers;

use std::future::poll_fn;
use std::io;
use std::pin::pin;
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
use tokio::sync::{Semaphore, watch};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::client::ConnMetadata;
use super::connection::Connection;
use super::connection_limit::{ConnectionCounts, ConnectionLimit, Limit, Origin, Permit};
pub use super::drain::ServerHandle;
use super::drain::{self, Signal, TaskGuard};
use super::failure;
use super::fast_path::FastPath;
use super::listener::{
    AccessControl, BindError, BoundListener, Incoming, InheritedSockets, Protocol, ProxyTrust, Tls,
};
use super::record::Recorder;
use super::validate::HeadLimits;
use crate::clock::SharedClock;
use crate::gateway::client_certificate::ClientCertificate;
use crate::gateway::reason::Reason;
use crate::gateway::rejection::Rejection;
use crate::proxy::settings::{Address, Limits, Listener};
pub use workers::Workers;

/// Maximum number of concurrent HTTP/2 streams per connection.
const H2_STREAMS: u32 = 100;
/// Maximum number of bytes of an HTTP/2 response that wait for the caller to read, besides the
/// pieces on their way through pingora. The default of `h2` is 400 KB.
const H2_SEND_BUFFER: usize = 128 * 1024;
/// Maximum number of streams per connection that the caller has reset before they were accepted
/// (CVE-2023-44487).
const H2_PENDING_RESETS: usize = 20;
/// Maximum number of connections over the limit that receive a 503 at the same time. Others are
/// closed without a response.
const MAX_REJECTING: usize = 64;
/// Maximum time for an HTTP/2 connection that serves no request to close after its GOAWAY frame
/// (RFC 9113 §6.8).
const GOAWAY_TIMEOUT: Duration = Duration::from_millis(250);
/// Number of connections evicted at once when the process has run out of descriptors.
const EVICTED_FOR_DESCRIPTORS: usize = 8;
/// Pause after accept(2) has failed, usually because the system has run out of descriptors or
/// memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The limits and timeouts of downstream connections.
#[derive(Clone, Copy, Debug)]
struct ConnLimits {
    head: HeadLimits,
    header_timeout: Duration,
    keepalive_timeout: Duration,
    /// The same for a connection on which no request was admitted yet.
    unadmitted_keepalive: Duration,
    /// Timeout for each read of a body, and for a write that makes no progress.
    stall: Duration,
    /// Maximum time for closing a connection whose caller is still sending.
    linger: Duration,
}

/// Bound listeners that are not served yet. Callers can already connect, but have to wait.
pub struct BoundServer {
    listeners: Vec<BoundListener>,
    limits: ConnLimits,
    connections: Arc<ConnectionLimit>,
    fast_path: Option<FastPath>,
}

/// The settings shared by all connections of one listener.
#[derive(Clone)]
struct ListenerSettings {
    protocol: Protocol,
    access: Option<Arc<AccessControl>>,
    proxies: Option<Arc<ProxyTrust>>,
}

/// The worker that serves a connection, the signal that closes it, and its place in the limits.
struct ConnInfo {
    worker: usize,
    signal: Signal,
    permit: Permit,
}

/// The state shared by all connections of one [`BoundServer`].
struct Shared<A> {
    apps: Vec<Arc<A>>,
    limits: ConnLimits,
    clock: SharedClock,
    recorder: Recorder,
    workers: Workers,
    /// Tried first for HTTP/1 requests without a body.
    fast_path: Option<FastPath>,
    connections: Arc<ConnectionLimit>,
    rejecting: Arc<Semaphore>,
    drain: drain::Controller,
}

/// Creates pingora's proxy with `hooks`, and with the HTTP/2 limits that follow from `limits`.
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
        .max_pending_accept_reset_streams(H2_PENDING_RESETS)
        .max_send_buffer_size(H2_SEND_BUFFER);
    proxy.h2_options = Some(h2);
    let mut options = HttpServerOptions::default();
    options.h2_idle_timeout = Some(limits.keepalive_timeout);
    proxy.server_options = Some(options);
    Arc::new(proxy)
}

impl BoundServer {
    /// Binds all listeners.
    ///
    /// # Errors
    /// Returns an error for the first listener that cannot be bound, with its address or file.
    pub async fn bind(listeners: &[Listener], limits: &Limits) -> Result<Self, BindError> {
        Self::bind_with_inherited(listeners, limits, &mut InheritedSockets::default()).await
    }

    /// Like [`BoundServer::bind`], but uses the sockets that this process has inherited.
    ///
    /// # Errors
    /// The same as for [`BoundServer::bind`].
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
                unadmitted_keepalive: limits.unadmitted_keepalive.min(limits.keepalive_timeout),
                stall: limits.body_timeout,
                linger: limits.linger,
            },
            connections: ConnectionLimit::new(limits),
            fast_path: None,
        })
    }

    /// Serves requests through `fast_path`, if it supports them.
    #[must_use]
    pub fn with_fast_path(self, fast_path: FastPath) -> Self {
        Self {
            fast_path: Some(fast_path),
            ..self
        }
    }

    /// Returns the listeners' addresses in configured order, with the ports actually bound.
    pub fn addresses(&self) -> Vec<Address> {
        self.listeners
            .iter()
            .map(|listener| listener.address.clone())
            .collect()
    }

    /// Returns the TLS configurations of the listeners that use TLS, for reloading.
    pub fn tls(&self) -> Vec<Arc<Tls>> {
        let tls = |listener: &BoundListener| match &listener.protocol {
            Protocol::Tls(tls) => Some(tls.clone()),
            Protocol::Plain | Protocol::H2c => None,
        };
        self.listeners.iter().filter_map(tls).collect()
    }

    /// Returns the numbers of connections, for metrics.
    pub fn connection_counts(&self) -> ConnectionCounts {
        ConnectionCounts::new(&self.connections)
    }

    /// Serves all listeners with `apps`, which are distributed over the workers; a connection
    /// stays on its worker. Must be called in a runtime. That runtime accepts all connections,
    /// even if `workers` serve them in others.
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
        let on_close = drain.clone();
        tokio::spawn(async move {
            on_close.closing().await;
            // Sets `is_process_shutting_down()` on pingora's sessions.
            for app in apps {
                app.http_cleanup().await;
            }
        });
        ServerHandle::new(drain)
    }
}

/// The accept loop of one listener, which ends when the server closes.
async fn accept<A>(shared: Arc<Shared<A>>, listener: BoundListener)
where
    A: HttpServerApp + Send + Sync + 'static,
{
    loop {
        let accepted = tokio::select! {
            biased;
            () = shared.drain.closing() => break,
            accepted = async {
                shared.connections.wait_for_closing().await;
                listener.accept().await
            } => accepted,
        };
        match accepted {
            Ok(incoming) => spawn_connection(&shared, &listener, incoming),
            Err(e) => {
                make_room_for_descriptors(&shared, &e);
                pause_accepting(&e).await;
            }
        }
    }
    // Connections in the backlog have already completed their TCP handshake, so they are served
    // too.
    while let Some(Ok(incoming)) = listener.accept().now_or_never() {
        spawn_connection(&shared, &listener, incoming);
    }
}

/// Evicts connections if accept(2) has failed because the process or the system has run out of
/// descriptors. Otherwise idle connections could keep everybody else out.
fn make_room_for_descriptors<A>(shared: &Shared<A>, error: &io::Error) {
    let error = error
        .raw_os_error()
        .map(rustix::io::Errno::from_raw_os_error);
    if matches!(
        error,
        Some(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE)
    ) {
        for _ in 0..EVICTED_FOR_DESCRIPTORS {
            shared
                .connections
                .evict_for_descriptors(shared.clock.monotonic());
        }
    }
}

/// Pauses after a failed accept(2), so that the loop does not spin while the system is out of
/// descriptors or memory. Does not pause if a connection was merely aborted while it was queued.
async fn pause_accepting(error: &io::Error) {
    if error.kind() == io::ErrorKind::ConnectionAborted {
        return;
    }
    tracing::warn!(%error, "cannot accept connections; retrying shortly");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

/// Starts serving a connection, or rejects it.
fn spawn_connection<A>(shared: &Arc<Shared<A>>, listener: &BoundListener, incoming: Incoming)
where
    A: HttpServerApp + Send + Sync + 'static,
{
    let protocol = &listener.protocol;
    let guard = shared.drain.register();
    let id = guard.id();
    let signal = guard.signal();
    let task = shared.clone();
    let origin = origin(listener.proxies.as_deref(), &incoming);
    let now = shared.clock.monotonic();
    let admitted = shared.connections.admit(origin, signal.clone(), now);
    let started = match admitted {
        Ok(permit) => {
            let settings = ListenerSettings {
                protocol: protocol.clone(),
                access: listener.access.clone(),
                proxies: listener.proxies.clone(),
            };
            shared
                .workers
                .spawn(incoming, move |incoming, worker| async move {
                    // Dropped last.
                    let _guard = guard;
                    if let Some(app) = task.app(worker) {
                        let info = ConnInfo {
                            worker,
                            signal,
                            permit,
                        };
                        admit_and_serve(&task, app, info, &settings, incoming).await;
                    }
                })
        }
        Err(limit) => refuse(shared, protocol, incoming, limit, guard),
    };
    if let Some(started) = started {
        shared.drain.set_abort_handle(id, started);
    }
}

/// Refuses a connection. On an HTTP/1 listener without TLS it gets a 503, and otherwise it is
/// closed.
fn refuse<A>(
    shared: &Arc<Shared<A>>,
    protocol: &Protocol,
    incoming: Incoming,
    limit: Limit,
    guard: TaskGuard,
) -> Option<AbortHandle>
where
    A: Send + Sync + 'static,
{
    if !matches!(protocol, Protocol::Plain) {
        return None;
    }
    let permit = shared.rejecting.clone().try_acquire_owned().ok()?;
    let task = shared.clone();
    shared
        .workers
        .spawn(incoming, move |incoming, _| async move {
            let _guards = (guard, permit);
            reject::reject_overload(&task, incoming, limit).await;
        })
}

/// Returns by what the limits count a connection. After its PROXY header, that is the client.
fn origin(proxies: Option<&ProxyTrust>, incoming: &Incoming) -> Origin {
    let peer = incoming.peer();
    match (proxies, peer) {
        (Some(proxies), Some(ip)) if proxies.trusts(ip) => Origin::TrustedProxy,
        _ => Origin::of(peer),
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
    let has_rules = settings.access.is_some() || settings.proxies.is_some();
    // Boxed, so that the task of a plain connection stays small.
    if has_rules {
        let admitted = Box::pin(admit(shared, settings, &info.permit, &mut incoming));
        match info.signal.unless_evicted(admitted).await {
            Some(Ok(())) => {}
            Some(Err(rejection)) => {
                // After an incomplete PROXY header, the proxy could misinterpret an HTTP response.
                let plain = matches!(settings.protocol, Protocol::Plain)
                    && matches!(
                        rejection.reason,
                        Reason::PeerNotAllowed | Reason::Overloaded
                    );
                return Box::pin(reject::reject_peer(shared, incoming, rejection, plain)).await;
            }
            None => return,
        }
    }
    serve_connection(shared, app, info, settings, incoming).await;
}

/// Reads the PROXY header, if the listener expects one, and checks whether the peer may
/// connect.
async fn admit<A>(
    shared: &Shared<A>,
    settings: &ListenerSettings,
    permit: &Permit,
    incoming: &mut Incoming,
) -> Result<(), Rejection> {
    if let Some(proxies) = &settings.proxies {
        let limit = shared.limits.header_timeout;
        proxies.read_proxy_header(incoming, limit).await?;
        let (origin, now) = (origin(Some(proxies), incoming), shared.clock.monotonic());
        permit
            .set_origin(origin, now)
            .map_err(|limit| Rejection::from(Reason::Overloaded).with_cause(limit.cause()))?;
    }
    let Some(access) = &settings.access else {
        return Ok(());
    };
    let admitted = access.admit(incoming).await;
    admitted.map_err(|cause| Rejection::from(Reason::PeerNotAllowed).with_cause(cause))
}

/// Serves a connection until it closes.
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
        trusted_proxies: settings.proxies.as_ref().map(|proxies| proxies.networks()),
        certificate: None,
        state: Some(info.permit.state()),
    };
    let stream = match &settings.protocol {
        Protocol::Plain => incoming.into_transport().ok(),
        Protocol::H2c => incoming.into_stream().ok().map(|s| Box::new(s) as Stream),
        Protocol::Tls(tls) => {
            let limit = shared.limits.header_timeout;
            let handshake = Box::pin(tls_handshake(tls, incoming, limit));
            let handshake = info.signal.unless_evicted(handshake).await;
            handshake.flatten().map(|(stream, certificate)| {
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
    // Without its metadata, a request could not be attributed to its client.
    let Ok(proxy_digest) = metadata.into_digest() else {
        return;
    };
    let proxy_digest = Some(proxy_digest);
    // The less common futures are large, and are boxed so that the task of a plain connection
    // stays small.
    if http2_agreed {
        Box::pin(serve_http2(shared, app, &info, stream, proxy_digest)).await;
    } else {
        let ConnInfo {
            worker,
            signal,
            permit,
        } = info;
        let info = http1::ConnInfo {
            worker,
            signal,
            state: permit.state(),
            peer,
            proxy_digest,
        };
        http1::serve(shared, app, stream, info).await;
    }
}

/// Performs the TLS handshake within `limit`.
async fn tls_handshake(
    tls: &Tls,
    incoming: Incoming,
    limit: Duration,
) -> Option<(Stream, Option<ClientCertificate>)> {
    let stream = incoming.into_stream().ok()?;
    match tokio::time::timeout(limit, tls.handshake(stream)).await {
        Ok(Ok((stream, certificate))) => return Some((Box::new(stream), certificate)),
        Ok(Err(error)) => tracing::debug!(cause = failure::cause(&error), "TLS handshake failed"),
        Err(_) => tracing::debug!("TLS handshake timed out"),
    }
    None
}

/// Serves an HTTP/2 connection through pingora, with one task per stream and the limits set by
/// [`http_proxy`].
async fn serve_http2<A>(
    shared: &Shared<A>,
    app: &Arc<A>,
    info: &ConnInfo,
    stream: Stream,
    proxy_digest: Option<Arc<ProxyDigest>>,
) where
    A: HttpServerApp + Send + Sync + 'static,
{
    let limits = &shared.limits;
    let connection = Connection::http2(stream, limits.stall, limits.header_timeout)
        .with_proxy_digest(proxy_digest);
    let (state, signal) = (info.permit.state(), &info.signal);
    let (closing, on_close) = watch::channel(false);
    let mut serving = pin!(app.process_new(Box::new(connection), &on_close));
    tokio::select! {
        biased;
        _ = &mut serving => return,
        () = poll_fn(|cx| signal.poll_closing(cx)) => {}
        () = state.unadmitted_idle(limits.unadmitted_keepalive) => signal.evict(),
    }
    // pingora sends GOAWAY, and then waits for the caller.
    closing.send_replace(true);
    if signal.unless_evicted(&mut serving).await.is_some() {
        return;
    }
    while timeout(GOAWAY_TIMEOUT, &mut serving).await.is_err() && state.is_busy() {}
}
