//! Accepts connections, serves them, and ends them in good order.
//!
//! pingora's own `Server` is not used: it closes its listeners at once on a signal, always
//! sleeps its whole grace period, limits neither heads nor connections, and cannot bind to
//! a port chosen by the system. Its `HttpProxy` is driven from here, request by request.

mod drain;
mod http1;
mod refuse;
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

use super::client::Origin;
use super::connection::Connection;
use super::fast_path::FastPath;
use super::listener::{Access, BindError, Endpoint, Incoming, Inherited, Protocol, Proxies, Tls};
use super::validate::HeadLimits;
use crate::clock::SharedClock;
use crate::gateway::client::ClientCertificate;
use crate::gateway::outcome::Outcome;
use crate::gateway::reason::Reason;
use crate::gateway::rejection::Rejection;
use crate::proxy::settings::{Address, Limits, Listener};
use drain::Control;
pub use drain::Serving;
pub(super) use drain::Signal;
pub use workers::Workers;

/// Concurrent HTTP/2 streams of one connection.
const H2_STREAMS: u32 = 100;
/// Streams reset by the caller before they were accepted, per connection (CVE-2023-44487).
const H2_PENDING_RESETS: usize = 20;
/// Connections over the limit that are told so at once; more are closed without a word.
const TURNED_AWAY: usize = 64;
/// How long to leave a system alone that has no more descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Takes the outcome of each request that is refused before pingora sees it.
pub type Recorder = Arc<dyn Fn(&Outcome) + Send + Sync>;

/// The limits and timeouts of callers' connections.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    head: HeadLimits,
    header_timeout: Duration,
    keepalive_timeout: Duration,
    /// Between two reads of a body, and for a write without progress.
    stall: Duration,
}

/// Listeners bound and not yet served: callers can connect already and wait.
pub struct Bound {
    endpoints: Vec<Endpoint>,
    bounds: Bounds,
    connections: Arc<Semaphore>,
    fast_path: Option<FastPath>,
}

/// What one listener's connections have in common.
#[derive(Clone)]
struct ListenerSettings {
    protocol: Protocol,
    access: Option<Arc<Access>>,
    proxies: Option<Arc<Proxies>>,
}

/// Which worker a connection is served by, and what tells it to end.
struct ConnInfo {
    worker: usize,
    signal: Signal,
}

/// What the connections of one [`Bound`] share.
struct Shared<A> {
    apps: Vec<Arc<A>>,
    bounds: Bounds,
    clock: SharedClock,
    recorder: Recorder,
    workers: Workers,
    /// Asked first about every HTTP/1 request without a body.
    fast_path: Option<FastPath>,
    connections: Arc<Semaphore>,
    turned_away: Arc<Semaphore>,
    control: Control,
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

impl Bound {
    /// Binds every listener, or none.
    ///
    /// # Errors
    /// For the first that cannot be bound, naming its address or file.
    pub async fn bind(listeners: &[Listener], limits: &Limits) -> Result<Self, BindError> {
        Self::bind_or_take(listeners, limits, &mut Inherited::default()).await
    }

    /// As [`Bound::bind`], but takes those sockets that are there already.
    ///
    /// # Errors
    /// As [`Bound::bind`].
    pub async fn bind_or_take(
        listeners: &[Listener],
        limits: &Limits,
        inherited: &mut Inherited,
    ) -> Result<Self, BindError> {
        let mut endpoints = Vec::with_capacity(listeners.len());
        for listener in listeners {
            endpoints.push(Endpoint::bind(listener, inherited).await?);
        }
        Ok(Self {
            endpoints,
            bounds: Bounds {
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
    pub fn through(self, fast_path: FastPath) -> Self {
        Self {
            fast_path: Some(fast_path),
            ..self
        }
    }

    /// Where callers connect, in the order given, with ports as bound.
    pub fn addresses(&self) -> Vec<Address> {
        self.endpoints.iter().map(|e| e.address.clone()).collect()
    }

    /// The TLS of those listeners that have it, for reloading.
    pub fn tls(&self) -> Vec<Arc<Tls>> {
        let tls = |endpoint: &Endpoint| match &endpoint.protocol {
            Protocol::Tls(tls) => Some(tls.clone()),
            Protocol::Plain | Protocol::H2c => None,
        };
        self.endpoints.iter().filter_map(tls).collect()
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
    ) -> Serving
    where
        A: HttpServerApp + Send + Sync + 'static,
    {
        let control = Control::new();
        let shared = Arc::new(Shared {
            apps: apps.clone(),
            bounds: self.bounds,
            clock,
            recorder,
            workers,
            fast_path: self.fast_path,
            connections: self.connections,
            turned_away: Arc::new(Semaphore::new(TURNED_AWAY)),
            control: control.clone(),
        });
        for endpoint in self.endpoints {
            let guard = control.enter();
            let accepting = accept(shared.clone(), endpoint);
            tokio::spawn(async move {
                accepting.await;
                drop(guard);
            });
        }
        let closing = control.clone();
        tokio::spawn(async move {
            closing.closing().await;
            // So that pingora's sessions know: is_process_shutting_down().
            for app in apps {
                app.http_cleanup().await;
            }
        });
        Serving::new(control)
    }
}

/// One listener's loop, until the end is announced.
async fn accept<A>(shared: Arc<Shared<A>>, endpoint: Endpoint)
where
    A: HttpServerApp + Send + Sync + 'static,
{
    loop {
        let accepted = tokio::select! {
            biased;
            () = shared.control.closing() => break,
            accepted = endpoint.accept() => accepted,
        };
        match accepted {
            Ok(incoming) => dispatch(&shared, &endpoint, incoming),
            Err(e) => pause_after(&e).await,
        }
    }
    // Who is in the queue already was promised an answer by the system.
    while let Some(Ok(incoming)) = endpoint.accept().now_or_never() {
        dispatch(&shared, &endpoint, incoming);
    }
}

/// Without descriptors or memory, accepting again at once would only spin. A connection
/// that broke off while it waited is no reason to pause.
async fn pause_after(error: &io::Error) {
    if error.kind() == io::ErrorKind::ConnectionAborted {
        return;
    }
    tracing::warn!(%error, "cannot accept connections for a moment");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

/// Starts serving a connection, or turns it away.
fn dispatch<A>(shared: &Arc<Shared<A>>, endpoint: &Endpoint, incoming: Incoming)
where
    A: HttpServerApp + Send + Sync + 'static,
{
    let protocol = &endpoint.protocol;
    let guard = shared.control.enter();
    let id = guard.id();
    let task = shared.clone();
    let started = if let Ok(permit) = shared.connections.clone().try_acquire_owned() {
        let settings = ListenerSettings {
            protocol: protocol.clone(),
            access: endpoint.access.clone(),
            proxies: endpoint.proxies.clone(),
        };
        shared
            .workers
            .spawn(incoming, move |incoming, worker| async move {
                let signal = guard.signal();
                let _held = (guard, permit);
                if let Some(app) = task.app(worker) {
                    let info = ConnInfo { worker, signal };
                    admitted(&task, app, info, &settings, incoming).await;
                }
            })
    } else if matches!(protocol, Protocol::Plain)
        && let Ok(permit) = shared.turned_away.clone().try_acquire_owned()
    {
        shared.workers.spawn(incoming, |incoming, _| async move {
            let _held = (guard, permit);
            refuse::turn_away(&task, incoming).await;
        })
    } else {
        None
    };
    if let Some(started) = started {
        shared.control.breakable(id, started);
    }
}

impl<A> Shared<A> {
    fn app(&self, worker: usize) -> Option<&Arc<A>> {
        self.apps.get(worker % self.apps.len().max(1))
    }
}

/// Serves a connection if its peer may connect.
async fn admitted<A>(
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
        // After half a header nobody could tell what an answer is for.
        let plain = matches!(settings.protocol, Protocol::Plain)
            && rejection.reason == Reason::PeerNotAllowed;
        return Box::pin(refuse::keep_out(shared, incoming, rejection, plain)).await;
    }
    converse(shared, app, info, settings, incoming).await;
}

/// Finds out who is connected, and whether they may be.
async fn admit<A>(
    shared: &Shared<A>,
    settings: &ListenerSettings,
    incoming: &mut Incoming,
) -> Result<(), Rejection> {
    if let Some(proxies) = &settings.proxies {
        let limit = shared.bounds.header_timeout;
        proxies.announced(incoming, limit).await?;
    }
    let Some(access) = &settings.access else {
        return Ok(());
    };
    let judged = access.admit(incoming).await;
    judged.map_err(|cause| Rejection::from(Reason::PeerNotAllowed).because(cause))
}

/// A connection's whole life.
async fn converse<A>(
    shared: &Shared<A>,
    app: &Arc<A>,
    info: ConnInfo,
    settings: &ListenerSettings,
    incoming: Incoming,
) where
    A: HttpServerApp + Send + Sync + 'static,
{
    let peer = incoming.peer();
    let mut origin = Origin {
        proxies: settings.proxies.as_ref().map(|proxies| proxies.networks()),
        certificate: None,
    };
    let stream = match &settings.protocol {
        Protocol::Plain => incoming.into_plain().ok(),
        Protocol::H2c => incoming.into_stream().ok().map(|s| Box::new(s) as Stream),
        Protocol::Tls(tls) => {
            let limit = shared.bounds.header_timeout;
            let secured = Box::pin(secured(tls, incoming, limit)).await;
            secured.map(|(stream, certificate)| {
                origin.certificate = certificate.map(Arc::new);
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
    let Ok(origin) = origin.digest() else {
        return;
    };
    // The rarer futures are large: boxed, so that a plain connection's task stays small.
    if http2_agreed {
        Box::pin(http2(shared, app, stream, origin)).await;
    } else {
        let ConnInfo { worker, signal } = info;
        let info = http1::ConnInfo {
            worker,
            signal,
            peer,
            origin,
        };
        http1::serve(shared, app, stream, info).await;
    }
}

/// The TLS handshake, within `limit`.
async fn secured(
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
async fn http2<A>(
    shared: &Shared<A>,
    app: &Arc<A>,
    stream: Stream,
    origin: Option<Arc<ProxyDigest>>,
) where
    A: HttpServerApp + Send + Sync + 'static,
{
    let bounds = &shared.bounds;
    let connection = Connection::http2(stream, bounds.stall, bounds.header_timeout).from(origin);
    app.process_new(Box::new(connection), &shared.control.watch())
        .await;
}
