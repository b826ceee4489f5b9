//! A real Redis server, in a folder of its own on free loopback ports.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Stdio;

use redis::{Cmd, ConnectionAddr, IntoConnectionInfo as _, Value};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::wait::{until, within};

const SET_UP: &str = "install the Debian package redis-server, or run `./test` once";

/// A running server; killed when dropped.
pub(crate) struct RedisServer {
    port: u16,
    arguments: Vec<String>,
    folder: TempDir,
    child: Option<Child>,
}

/// A port that is free now: neither Redis nor Sentinel takes port 0.
pub(crate) fn free_port() -> u16 {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    free.local_addr().unwrap().port()
}

impl RedisServer {
    /// A server with further `arguments`, such as `["--maxmemory", "1mb"]`.
    pub(crate) async fn start(arguments: &[&str]) -> Self {
        let port = free_port();
        Self::start_on(port, "--port", &[], arguments).await
    }

    /// A server that speaks only TLS.
    pub(crate) async fn start_tls(arguments: &[&str]) -> Self {
        Self::start_on(free_port(), "--tls-port", &["--port", "0"], arguments).await
    }

    /// A node of a Cluster, which has no other nodes yet.
    pub(crate) async fn start_cluster_node(arguments: &[&str]) -> Self {
        let bus = free_port().to_string();
        let cluster = ["--cluster-enabled", "yes", "--cluster-port", &bus];
        Self::start_on(free_port(), "--port", &cluster, arguments).await
    }

    /// A Sentinel that watches `master` under the name `main`.
    pub(crate) async fn start_sentinel(master: &Self) -> Self {
        let sentinel = Self {
            port: free_port(),
            arguments: Vec::new(),
            folder: tempfile::tempdir().unwrap(),
            child: None,
        };
        let folder = sentinel.folder.path();
        let config = format!(
            "port {}\nbind 127.0.0.1\ndir {}\nunixsocket {}\nlogfile {}\nsentinel monitor main 127.0.0.1 {} 1\n\
             sentinel down-after-milliseconds main 300\nsentinel failover-timeout main 3000\n",
            sentinel.port,
            folder.display(),
            sentinel.socket().display(),
            folder.join("log").display(),
            master.port,
        );
        let path = folder.join("sentinel.conf");
        std::fs::write(&path, config).unwrap();
        let arguments = vec![path.display().to_string(), "--sentinel".to_owned()];
        sentinel.spawned(arguments).await
    }

    async fn start_on(port: u16, option: &str, fixed: &[&str], more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = Self {
            port,
            arguments: Vec::new(),
            folder,
            child: None,
        };
        let mut arguments: Vec<String> = Vec::new();
        let mut add = |list: &[&str]| arguments.extend(list.iter().map(|&text| text.to_owned()));
        let path = server.folder.path().display().to_string();
        let log = server.folder.path().join("log").display().to_string();
        let socket = server.socket().display().to_string();
        add(&[option, &port.to_string(), "--bind", "127.0.0.1"]);
        add(&["--unixsocket", &socket, "--dir", &path, "--logfile", &log]);
        add(&["--save", "", "--appendonly", "no"]);
        add(fixed);
        add(more);
        server.spawned(arguments).await
    }

    async fn spawned(mut self, arguments: Vec<String>) -> Self {
        self.arguments = arguments;
        self.restart().await;
        self
    }

    /// Starts the server again, after [`Self::kill`], on the same port.
    pub(crate) async fn restart(&mut self) {
        let child = Command::new("redis-server")
            .args(&self.arguments)
            .kill_on_drop(true)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run redis-server ({error}): {SET_UP}"));
        self.child = Some(child);
        until("the Redis server to answer", async || {
            self.try_command(&["PING"]).await.is_ok()
        })
        .await;
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The port of the bus of a Cluster's node.
    pub(crate) fn cluster_port(&self) -> u16 {
        let mut arguments = self.arguments.iter();
        arguments.find(|argument| *argument == "--cluster-port");
        arguments.next().unwrap().parse().unwrap()
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// Runs a command as the server's user `default`, past the network.
    pub(crate) async fn command(&self, command: &[&str]) -> Value {
        let done = within("the Redis server", self.try_command(command)).await;
        done.unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    /// As [`Self::command`], with bytes.
    pub(crate) async fn command_bytes(&self, command: &[&[u8]]) -> Value {
        let done = within("the Redis server", self.try_command(command)).await;
        done.unwrap_or_else(|error| panic!("{error}"))
    }

    async fn try_command<A: redis::ToRedisArgs>(&self, command: &[A]) -> redis::RedisResult<Value> {
        let address = ConnectionAddr::Unix(self.socket()).into_connection_info()?;
        let client = redis::Client::open(address)?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        let mut all = Cmd::new();
        for argument in command {
            all.arg(argument);
        }
        all.query_async(&mut connection).await
    }

    /// The entry `field` of `INFO`.
    pub(crate) async fn info(&self, field: &str) -> String {
        let info: String = redis::from_redis_value(self.command(&["INFO"]).await).unwrap();
        let start = format!("{field}:");
        let line = info.lines().find_map(|line| line.strip_prefix(&start));
        line.unwrap_or_default().to_owned()
    }

    /// Kills the process: connections are closed, nothing is saved.
    pub(crate) async fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().await.unwrap();
    }

    /// Stops the process without closing connections.
    pub(crate) fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Ends [`Self::pause`].
    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let id = self.child.as_ref().and_then(Child::id).unwrap();
        let pid = Pid::from_raw(i32::try_from(id).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }
}

/// A master and its replica, watched by a Sentinel, which calls the master `main`.
pub(crate) struct Replicated {
    pub(crate) master: RedisServer,
    pub(crate) replica: RedisServer,
    sentinel: RedisServer,
}

impl Replicated {
    pub(crate) async fn start() -> Self {
        let master = RedisServer::start(&["--repl-diskless-sync-delay", "0"]).await;
        let port = master.port().to_string();
        let replica = RedisServer::start(&["--replicaof", "127.0.0.1", &port]).await;
        until("the replica to be in step", async || {
            replica.info("master_link_status").await == "up"
        })
        .await;
        let sentinel = RedisServer::start_sentinel(&master).await;
        let known = format!("127.0.0.1:{}", replica.port());
        until("the Sentinel to know the replica", async || {
            let replicas = sentinel.command(&["SENTINEL", "REPLICAS", "main"]).await;
            format!("{replicas:?}").contains(&known)
        })
        .await;
        Self {
            master,
            replica,
            sentinel,
        }
    }

    /// The URL of the master `name`; the first of its Sentinels is not there.
    pub(crate) fn url(&self, name: &str) -> String {
        let dead = free_port();
        let sentinel = self.sentinel.port();
        format!("redis-sentinel://127.0.0.1:{dead},127.0.0.1:{sentinel}?sentinelServiceName={name}")
    }
}
