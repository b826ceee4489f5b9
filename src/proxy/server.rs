//! The server: accepts connections, serves them, and shuts them down gracefully.
//!
//! pingora's own `Server` is not used, because it closes its listeners immediately on a signal,
//! always sleeps for its whole grace period, limits neither the size of heads nor the number of
//! connections, and cannot bind to a port chosen by the system.

mod reject;
#[cfg(test)]
mod tests;
mod workers;

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use pingora::protocols::Stream;
use pingora::protocols::tls::ALPN;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use super::client::ConnMetadata;
use super::connection_limit::{ConnectionCounts, ConnectionLimit, Limit, Origin, Permit};
pub use super::drain::ServerHandle;
use super::drain::{self, Signal, TaskGuard};
use super::listener::peer_process::PeerProcess;
use super::listener::{
    AccessControl, BindError, BoundListener, Incoming, InheritedSockets, Protocol, ProxyTrust, Tls,
};
use super::record::Recorder;
use super::service::{ConnInfo, Service};
use super::validate::HeadLimits;
use super::{h1, h2};
use crate::clock::SharedClock;
use crate::gateway::client_certificate::ClientCertificate;
use crate::gateway::reason::Reason;
use crate::gateway::rejection::Rejection;
use crate::peer_text;
use crate::proxy::settings::{Address, Limits, Listener};
pub use workers::Workers;

/// Maximum number of connections over the limit that receive a 503 at the same time. Others are
/// closed without a response.
const MAX_REJECTING: usize = 64;
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
}

/// The settings shared by all connections of one listener.
#[derive(Clone)]
struct ListenerSettings {
    protocol: Protocol,
    access: Option<Arc<AccessControl>>,
    proxies: Option<Arc<ProxyTrust>>,
    forward_auth: Option<Arc<str>>,
}

/// The worker that serves a connection, the signal that closes it, and its place in the limits.
struct Accepted {
    worker: usize,
    signal: Signal,
    permit: Permit,
}

/// The state shared by all connections of one [`BoundServer`].
struct Shared<A> {
    service: Arc<A>,
    limits: ConnLimits,
    clock: SharedClock,
    recorder: Recorder,
    workers: Workers,
    connections: Arc<ConnectionLimit>,
    rejecting: Arc<Semaphore>,
    drain: drain::Controller,
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
        })
    }

    /// Returns the listeners' addresses in configured order, with the ports actually bound.
    pub fn addresses(&self) -> Vec<Address> {
        self.listeners
            .iter()
            .map(|listener| listener.address.clone())
            .collect()
    }

    /// Returns the listeners that use TLS, by address, for reloading and metrics.
    pub fn tls(&self) -> Vec<(Address, Arc<Tls>)> {
        let tls = |listener: &BoundListener| match &listener.protocol {
            Protocol::Tls(tls) => Some((listener.address.clone(), tls.clone())),
            Protocol::Plain | Protocol::H2c => None,
        };
        self.listeners.iter().filter_map(tls).collect()
    }

    /// Returns the numbers of connections, for metrics.
    pub fn connection_counts(&self) -> ConnectionCounts {
        ConnectionCounts::new(&self.connections)
    }

    /// Serves all listeners with `service`; a connection stays on its worker. Must be called in a
    /// runtime. That runtime accepts all connections, even if `workers` serve them in others.
    #[expect(private_bounds, reason = "services are internal to this module")]
    pub fn serve<A>(
        self,
        service: Arc<A>,
        clock: SharedClock,
        recorder: Recorder,
        workers: Workers,
    ) -> ServerHandle
    where
        A: Service,
    {
        let drain = drain::Controller::new();
        let shared = Arc::new(Shared {
            service,
            limits: self.limits,
            clock,
            recorder,
            workers,
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
        ServerHandle::new(drain)
    }
}

/// The accept loop of one listener, which ends when the server closes.
async fn accept<A>(shared: Arc<Shared<A>>, listener: BoundListener)
where
    A: Service,
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
    A: Service,
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
                forward_auth: listener.forward_auth.clone(),
            };
            shared
                .workers
                .spawn(incoming, move |incoming, worker| async move {
                    // Dropped last.
                    let _guard = guard;
                    let accepted = Accepted {
                        worker,
                        signal,
                        permit,
                    };
                    admit_and_serve(&task, accepted, &settings, incoming).await;
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

/// Serves a connection if its peer may connect.
async fn admit_and_serve<A>(
    shared: &Shared<A>,
    info: Accepted,
    settings: &ListenerSettings,
    mut incoming: Incoming,
) where
    A: Service,
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
    serve_connection(shared, info, settings, incoming).await;
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
    info: Accepted,
    settings: &ListenerSettings,
    incoming: Incoming,
) where
    A: Service,
{
    let peer = incoming.peer();
    let mut metadata = ConnMetadata {
        trusted_proxies: settings.proxies.as_ref().map(|proxies| proxies.networks()),
        certificate: None,
        forward_auth: settings.forward_auth.clone(),
        process: PeerProcess::of(&incoming).ok(),
        trusts_networks: settings
            .access
            .as_ref()
            .is_some_and(|access| access.trusts_networks()),
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
    let Accepted {
        worker,
        signal,
        permit,
    } = info;
    let limits = &shared.limits;
    let conn = ConnInfo {
        worker,
        signal,
        state: permit.state(),
        peer,
        tls: stream.get_ssl_digest().is_some(),
        address: shared.service.peer_address(peer, &metadata),
        metadata,
        write_timeout: limits.stall,
        memo: Mutex::default(),
    };
    if http2_agreed {
        let settings = h2::server::Settings {
            head: limits.head,
            header_timeout: limits.header_timeout,
            keepalive_timeout: limits.keepalive_timeout,
            unadmitted_keepalive: limits.unadmitted_keepalive,
            clock: &shared.clock,
            recorder: &shared.recorder,
        };
        // The less common future is large, and is boxed so that the task of an HTTP/1 connection
        // stays small.
        Box::pin(h2::server::serve(
            &*shared.service,
            &conn,
            stream,
            &settings,
        ))
        .await;
    } else {
        let settings = h1::server::Settings {
            head: limits.head,
            header_timeout: limits.header_timeout,
            keepalive_timeout: limits.keepalive_timeout,
            unadmitted_keepalive: limits.unadmitted_keepalive,
            linger: limits.linger,
            clock: &shared.clock,
            recorder: &shared.recorder,
        };
        h1::server::serve(&*shared.service, &conn, stream, &settings).await;
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
        Ok(Err(error)) => {
            let cause = tls_failure(&error);
            tracing::debug!(cause, "TLS handshake failed");
        }
        Err(_) => tracing::debug!("TLS handshake timed out"),
    }
    None
}

/// Describes a failed handshake for the operator's log, without quoting the peer.
fn tls_failure(error: &pingora::Error) -> String {
    let kind = error.etype().as_str();
    match peer_text::connection_cause(error.root_cause()) {
        Some(cause) => format!("{kind}: {cause}"),
        None => kind.to_owned(),
    }
}
