//! Opens connections: to the server, to the master that Sentinels name, or to a Cluster.

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use redis::aio::{AsyncPushSender, MultiplexedConnection};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo,
    ProtocolVersion, RedisConnectionInfo, RedisError, TlsCertificates,
};
use url::Host;

use super::error::{connect_error, no_answer, unreachable};
use super::reply;
use super::settings::{Node, Servers, SharedStoreSettings};
use crate::network::Network;
use crate::pem::{self, PemError};
use crate::secret::{SecretRef, SecretString};
use crate::shared_store::StoreError;

/// The channel of events.
pub(super) const CHANNEL: &str = "hawkgate:events";

/// The limit for one connection: looking up the name, TCP, TLS and authentication.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// The limit for one answer. Operations that serve requests have a shorter one
/// ([`Guard`](crate::shared_store::Guard)).
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The requests that wait to be written before further ones wait for that.
const BUFFERED_REQUESTS: usize = 1024;

/// How often the client of a Cluster repeats a command that met an error of a single node.
const CLUSTER_RETRIES: u32 = 2;

/// Opens connections with what `[shared]` says.
pub(super) struct Connector {
    settings: SharedStoreSettings,
    /// The trusted CAs, for TLS.
    certificates: Option<TlsCertificates>,
}

/// Where scripts run.
#[derive(Clone)]
pub(super) enum Connection {
    Server(MultiplexedConnection),
    Cluster(ClusterConnection),
}

/// Open connections to one store.
#[derive(Clone)]
pub(super) struct Connected {
    /// Names the store in messages.
    pub name: String,
    /// Where scripts run.
    pub scripts: Connection,
    /// Where events come from; the same connection, unless it is a Cluster.
    pub events: MultiplexedConnection,
}

/// The user and the password, as they are now.
#[derive(Default)]
struct Credentials {
    username: Option<String>,
    password: Option<SecretString>,
}

impl Connector {
    /// Reads the CAs.
    pub(super) fn new(settings: &SharedStoreSettings, network: &Network) -> Result<Self, PemError> {
        let certificates = if settings.url.tls {
            // The crate takes the process's provider. An error means that there is one.
            let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
            Some(trusted(settings.ca.as_deref(), network)?)
        } else {
            None
        };
        Ok(Self {
            settings: settings.clone(),
            certificates,
        })
    }

    /// Connects and subscribes to events, which `pushes` receives.
    pub(super) async fn connect(
        &self,
        pushes: impl AsyncPushSender + Clone,
    ) -> Result<Connected, StoreError> {
        let credentials = self.credentials()?;
        match &self.settings.url.servers {
            Servers::Single { node, database } => {
                let events = self
                    .subscribed(node, *database, &credentials, pushes)
                    .await?;
                Ok(Connected::to_server(node.to_string(), events))
            }
            Servers::Sentinel {
                sentinels,
                master,
                database,
            } => {
                let node = self.master(sentinels, master, &credentials).await?;
                let events = self
                    .subscribed(&node, *database, &credentials, pushes)
                    .await?;
                Ok(Connected::to_server(node.to_string(), events))
            }
            Servers::Cluster { nodes } => self.cluster(nodes, &credentials, pushes).await,
        }
    }

    fn credentials(&self) -> Result<Credentials, StoreError> {
        let password = self.settings.password.as_ref().map(SecretRef::read);
        let unreadable = |error| StoreError::Unreachable(format!("[shared] password: {error}"));
        Ok(Credentials {
            username: self.settings.username.clone(),
            password: password.transpose().map_err(unreadable)?,
        })
    }

    /// A connection to `node` on which events arrive. Those of a Cluster arrive on any of its nodes.
    async fn subscribed(
        &self,
        node: &Node,
        database: u16,
        credentials: &Credentials,
        pushes: impl AsyncPushSender,
    ) -> Result<MultiplexedConnection, StoreError> {
        let failed = |error: RedisError| connect_error(&node.to_string(), &error);
        let protocol = ProtocolVersion::RESP3;
        let client = self
            .client(node, protocol, database, credentials)
            .map_err(failed)?;
        let config = config().set_push_sender(pushes);
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        let mut connection = connecting.await.map_err(failed)?;
        connection.subscribe(CHANNEL).await.map_err(failed)?;
        Ok(connection)
    }

    async fn cluster(
        &self,
        nodes: &[Node],
        credentials: &Credentials,
        pushes: impl AsyncPushSender + Clone,
    ) -> Result<Connected, StoreError> {
        let mut last = unreachable("the Cluster", "no node is configured");
        let mut events = None;
        for node in nodes {
            match self.subscribed(node, 0, credentials, pushes.clone()).await {
                Ok(connection) => {
                    events = Some(connection);
                    break;
                }
                Err(error) => last = error,
            }
        }
        let events = events.ok_or(last)?;
        let failed = |error: RedisError| connect_error("the Cluster", &error);
        let client = self.cluster_client(nodes, credentials).map_err(failed)?;
        let connection = client.get_async_connection().await.map_err(failed)?;
        Ok(Connected {
            name: "the Cluster".to_owned(),
            scripts: Connection::Cluster(connection),
            events,
        })
    }

    fn cluster_client(
        &self,
        nodes: &[Node],
        credentials: &Credentials,
    ) -> Result<ClusterClient, RedisError> {
        let protocol = ProtocolVersion::RESP3;
        let all = nodes.iter().map(|node| {
            let client = self.client(node, protocol, 0, credentials)?;
            Ok(client.get_connection_info().clone())
        });
        let all: Vec<ConnectionInfo> = all.collect::<Result<_, RedisError>>()?;
        let mut builder = ClusterClient::builder(all)
            .connection_timeout(CONNECT_TIMEOUT)
            .response_timeout(RESPONSE_TIMEOUT)
            .retries(CLUSTER_RETRIES)
            .tcp_settings(TcpSettings::default().set_nodelay(true));
        if let Some(certificates) = &self.certificates {
            builder = builder.certs(certificates.clone());
        }
        builder.build()
    }

    /// The master, according to the first Sentinel that knows it.
    async fn master(
        &self,
        sentinels: &[Node],
        name: &str,
        credentials: &Credentials,
    ) -> Result<Node, StoreError> {
        let mut last = unreachable("the Sentinels", "none is configured");
        for sentinel in sentinels {
            match self.ask_sentinel(sentinel, name, credentials).await {
                Ok(node) => return Ok(node),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Sentinels often have no password though the servers have, so the first attempt is without.
    async fn ask_sentinel(
        &self,
        sentinel: &Node,
        name: &str,
        credentials: &Credentials,
    ) -> Result<Node, StoreError> {
        let server = format!("the Sentinel {sentinel}");
        let reply = match self.ask(sentinel, name, &Credentials::default()).await {
            Err(error) if credentials.password.is_some() && !error.is_io_error() => {
                self.ask(sentinel, name, credentials).await
            }
            done => done,
        };
        let reply = reply.map_err(|error| connect_error(&server, &error))?;
        let (host, port) = reply::master(reply)
            .map_err(|_| no_answer(&server))?
            .ok_or_else(|| {
                unreachable(
                    &server,
                    "it knows no master of that name (sentinelServiceName)",
                )
            })?;
        // An IPv6 address is without brackets here.
        let host = match host.parse() {
            Ok(address) => Host::Ipv6(address),
            Err(_) => Host::parse(&host).map_err(|_| no_answer(&server))?,
        };
        Ok(Node { host, port })
    }

    async fn ask(
        &self,
        sentinel: &Node,
        name: &str,
        credentials: &Credentials,
    ) -> Result<redis::Value, RedisError> {
        let client = self.client(sentinel, ProtocolVersion::RESP2, 0, credentials)?;
        let config = config();
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        let mut connection = connecting.await?;
        let mut question = Cmd::new();
        question
            .arg("SENTINEL")
            .arg("GET-MASTER-ADDR-BY-NAME")
            .arg(name);
        question.query_async(&mut connection).await
    }

    fn client(
        &self,
        node: &Node,
        protocol: ProtocolVersion,
        database: u16,
        credentials: &Credentials,
    ) -> Result<Client, RedisError> {
        let mut settings = RedisConnectionInfo::default()
            .set_protocol(protocol)
            .set_db(database.into())
            .set_skip_set_lib_name();
        if let Some(username) = &credentials.username {
            settings = settings.set_username(username);
        }
        if let Some(password) = &credentials.password {
            settings = settings.set_password(password.expose());
        }
        let (host, port) = (host_name(&node.host), node.port);
        let address = match self.certificates {
            None => ConnectionAddr::Tcp(host, port),
            Some(_) => ConnectionAddr::TcpTls {
                host,
                port,
                insecure: false,
                tls_params: None,
            },
        };
        let info = address
            .into_connection_info()?
            .set_redis_settings(settings)
            .set_tcp_settings(TcpSettings::default().set_nodelay(true));
        match &self.certificates {
            None => Client::open(info),
            Some(certificates) => Client::build_with_tls(info, certificates.clone()),
        }
    }
}

impl Connected {
    fn to_server(name: String, connection: MultiplexedConnection) -> Self {
        Self {
            name,
            scripts: Connection::Server(connection.clone()),
            events: connection,
        }
    }
}

fn config() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(RESPONSE_TIMEOUT))
        .set_pipeline_buffer_size(BUFFERED_REQUESTS)
}

/// The host as names are looked up: an IPv6 address without brackets.
fn host_name(host: &Host) -> String {
    match host {
        Host::Ipv6(address) => address.to_string(),
        other => other.to_string(),
    }
}

/// The CAs in `ca`, or else the system's and those of `[network] ca`. The crate takes them in PEM form.
fn trusted(ca: Option<&Path>, network: &Network) -> Result<TlsCertificates, PemError> {
    let certificates = match (ca, &network.ca) {
        (Some(only), _) => pem::read_cas(only)?.certificates,
        (None, Some(additional)) => {
            let mut all = pem::platform_cas();
            all.extend(pem::read_cas(additional)?.certificates);
            all
        }
        (None, None) => pem::platform_cas(),
    };
    let mut text = String::new();
    for der in certificates {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        text.push_str(&STANDARD.encode(der));
        text.push_str("\n-----END CERTIFICATE-----\n");
    }
    Ok(TlsCertificates {
        client_tls: None,
        root_cert: Some(text.into_bytes()),
    })
}
