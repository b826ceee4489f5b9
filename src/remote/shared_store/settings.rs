//! Where the shared store is (`[shared]`): its URL and how hawkgate authenticates to it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use url::{Host, form_urlencoded};

use crate::secret::SecretRef;

/// The port of Valkey and Redis servers.
const SERVER_PORT: u16 = 6379;
/// The port of Sentinels.
const SENTINEL_PORT: u16 = 26379;
/// The query parameter that names the master that Sentinels watch.
const MASTER_NAME: &str = "sentinelServiceName";
/// The most addresses of one URL.
const MAX_NODES: usize = 64;

/// Where the shared store is, and how hawkgate authenticates to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedStoreSettings {
    /// The servers.
    pub url: StoreUrl,
    /// The ACL user; the server's user `default` when `None`.
    pub username: Option<String>,
    /// The user's password, which is read again for each connection.
    pub password: Option<SecretRef>,
    /// PEM file with the only CAs trusted; the system's and those of `[network] ca` when `None`.
    pub ca: Option<PathBuf>,
}

/// A parsed `[shared] url`, which contains no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreUrl {
    /// Whether connections are encrypted.
    pub tls: bool,
    /// The servers.
    pub servers: Servers,
}

/// The ways to run Valkey or Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Servers {
    /// One server, or one address that always leads to the current master.
    Single {
        /// The server.
        node: Node,
        /// The number of the database.
        database: u16,
    },
    /// A master and its replicas, watched by Sentinels, which are asked for the master.
    Sentinel {
        /// The Sentinels; at least one.
        sentinels: Vec<Node>,
        /// The name by which the Sentinels know the master.
        master: String,
        /// The number of the database.
        database: u16,
    },
    /// A Cluster, whose nodes name each other.
    Cluster {
        /// The nodes that are asked for the others; at least one.
        nodes: Vec<Node>,
    },
}

/// The address of one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// A domain name or an IP address.
    pub host: Host,
    /// The TCP port.
    pub port: u16,
}

/// Why a text is no [`StoreUrl`]. The message completes a sentence that begins with the value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StoreUrlError(String);

impl StoreUrl {
    /// Whether every configured server is on this machine. The nodes of a Cluster and the master that
    /// Sentinels name may be elsewhere.
    pub fn is_loopback(&self) -> bool {
        let nodes = match &self.servers {
            Servers::Single { node, .. } => std::slice::from_ref(node),
            Servers::Sentinel { sentinels, .. } => sentinels,
            Servers::Cluster { nodes } => nodes,
        };
        nodes.iter().all(Node::is_loopback)
    }
}

impl Node {
    fn is_loopback(&self) -> bool {
        match &self.host {
            Host::Domain(name) => {
                let name = name.trim_end_matches('.');
                name.eq_ignore_ascii_case("localhost")
                    || name.to_ascii_lowercase().ends_with(".localhost")
            }
            Host::Ipv4(address) => address.is_loopback(),
            Host::Ipv6(address) => address.is_loopback(),
        }
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

enum Kind {
    Single,
    Sentinel,
    Cluster,
}

impl FromStr for StoreUrl {
    type Err = StoreUrlError;

    /// Parses the URL by hand, because those of Sentinels and Clusters name several hosts, which RFC 3986
    /// has no syntax for. Messages quote no part of it that could be a password.
    fn from_str(text: &str) -> Result<Self, StoreUrlError> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return refused("is no URL: write redis://HOST:PORT, or rediss:// for TLS");
        };
        let (kind, tls) = kind(scheme)?;
        if let Some((_, fragment)) = rest.split_once('#') {
            return match (&kind, fragment) {
                (Kind::Sentinel, _) => refused(
                    "has a fragment: the master's name goes into the query, as ?sentinelServiceName=NAME",
                ),
                _ => refused("has a fragment, which means nothing here"),
            };
        }
        let (rest, query) = match rest.split_once('?') {
            Some((rest, query)) => (rest, Some(query)),
            None => (rest, None),
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if rest.contains('@') {
            return refused(
                "has user info: use `username` and `password`, so that no secret is in the configuration",
            );
        }
        let master = parse_query(&kind, query)?;
        let default_port = match kind {
            Kind::Sentinel => SENTINEL_PORT,
            Kind::Single | Kind::Cluster => SERVER_PORT,
        };
        let nodes = parse_nodes(authority, default_port)?;
        let database = parse_database(path)?;
        let servers = match kind {
            Kind::Single => {
                let Ok([node]) = <[Node; 1]>::try_from(nodes) else {
                    return refused(
                        "names several hosts: use redis-sentinel:// or redis-cluster:// (rediss-… for TLS)",
                    );
                };
                Servers::Single { node, database }
            }
            Kind::Sentinel => Servers::Sentinel {
                sentinels: nodes,
                master: master.ok_or_else(|| {
                    StoreUrlError(format!(
                        "does not name the master: add ?{MASTER_NAME}=NAME, the name in the Sentinels' \
                         configuration"
                    ))
                })?,
                database,
            },
            Kind::Cluster if database != 0 => {
                return refused("names a database, but a Cluster has only number 0");
            }
            Kind::Cluster => Servers::Cluster { nodes },
        };
        Ok(Self { tls, servers })
    }
}

fn refused<T>(problem: &str) -> Result<T, StoreUrlError> {
    Err(StoreUrlError(problem.to_owned()))
}

fn kind(scheme: &str) -> Result<(Kind, bool), StoreUrlError> {
    Ok(match &*scheme.to_ascii_lowercase() {
        "redis" | "valkey" => (Kind::Single, false),
        "rediss" | "valkeys" => (Kind::Single, true),
        "redis-sentinel" | "valkey-sentinel" => (Kind::Sentinel, false),
        "rediss-sentinel" | "valkeys-sentinel" => (Kind::Sentinel, true),
        "redis-cluster" | "valkey-cluster" => (Kind::Cluster, false),
        "rediss-cluster" | "valkeys-cluster" => (Kind::Cluster, true),
        _ => {
            return refused(
                "has an unknown scheme: use redis, redis-sentinel or redis-cluster, or for TLS rediss, \
                 rediss-sentinel or rediss-cluster",
            );
        }
    })
}

/// The name of the master, if the URL is of a kind that has one.
fn parse_query(kind: &Kind, query: Option<&str>) -> Result<Option<String>, StoreUrlError> {
    let mut master = None;
    for (key, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        if key != MASTER_NAME {
            return refused(&match kind {
                Kind::Sentinel => {
                    format!("has an unknown query parameter: the only one is {MASTER_NAME}")
                }
                Kind::Single | Kind::Cluster => "has query parameters, but there are none".into(),
            });
        }
        if !matches!(kind, Kind::Sentinel) {
            return Err(StoreUrlError(format!(
                "has {MASTER_NAME}, which only redis-sentinel:// has"
            )));
        }
        if value.is_empty() || value.chars().any(char::is_control) {
            return Err(StoreUrlError(format!("has an unusable {MASTER_NAME}")));
        }
        if master.replace(value.into_owned()).is_some() {
            return Err(StoreUrlError(format!("has {MASTER_NAME} twice")));
        }
    }
    Ok(master)
}

fn parse_nodes(authority: &str, default_port: u16) -> Result<Vec<Node>, StoreUrlError> {
    let nodes: Vec<_> = authority
        .split(',')
        .take(MAX_NODES + 1)
        .map(|text| parse_node(text, default_port))
        .collect::<Result<_, _>>()?;
    if nodes.len() > MAX_NODES {
        return Err(StoreUrlError(format!("names more than {MAX_NODES} hosts")));
    }
    Ok(nodes)
}

fn parse_node(text: &str, default_port: u16) -> Result<Node, StoreUrlError> {
    let port_at = match text.rfind(']') {
        Some(end) => text
            .get(end..)
            .and_then(|rest| rest.find(':').map(|at| end + at)),
        None => text.find(':'),
    };
    let (host, port) = match port_at.and_then(|at| text.split_at_checked(at)) {
        Some((host, port)) => (host, port.get(1..)),
        None => (text, None),
    };
    if host.is_empty() {
        return refused("has no host");
    }
    let host = Host::parse(host).or_else(|_| {
        if text.matches(':').count() > 1 && !text.contains('[') {
            return refused("has an IPv6 address without brackets: write [::1]:6379");
        }
        refused("has a host that is neither a name nor an address")
    })?;
    let port = match port {
        None => default_port,
        Some(port) => match port.parse() {
            Ok(port) if port != 0 => port,
            _ => return refused("has a port that is not a number from 1 to 65535"),
        },
    };
    Ok(Node { host, port })
}

fn parse_database(path: &str) -> Result<u16, StoreUrlError> {
    if path.is_empty() {
        return Ok(0);
    }
    match path.parse() {
        Ok(number) if path.bytes().all(|byte| byte.is_ascii_digit()) => Ok(number),
        _ => refused("has a path that is not the number of a database, such as /0"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<StoreUrl, String> {
        text.parse()
            .map_err(|error: StoreUrlError| error.to_string())
    }

    fn nodes(list: &[&str]) -> Vec<Node> {
        list.iter()
            .map(|text| parse_node(text, 1).unwrap())
            .collect()
    }

    #[test]
    fn urls_of_one_server() {
        for (text, tls, node, database) in [
            (
                "redis://valkey.example.com",
                false,
                "valkey.example.com:6379",
                0,
            ),
            (
                "rediss://valkey.example.com:7000/3",
                true,
                "valkey.example.com:7000",
                3,
            ),
            ("VALKEY://127.0.0.1/", false, "127.0.0.1:6379", 0),
            ("valkeys://[::1]/0", true, "[::1]:6379", 0),
            ("redis://[::1]:6380", false, "[::1]:6380", 0),
        ] {
            let node = nodes(&[node]).remove(0);
            let servers = Servers::Single { node, database };
            assert_eq!(parse(text), Ok(StoreUrl { tls, servers }), "{text}");
        }
    }

    #[test]
    fn urls_of_sentinels_and_clusters() {
        let sentinel = "rediss-sentinel://a:1,b,[::1]:3/2?sentinelServiceName=my%20master";
        let expected = Servers::Sentinel {
            sentinels: nodes(&["a:1", "b:26379", "[::1]:3"]),
            master: "my master".into(),
            database: 2,
        };
        let tls = true;
        assert_eq!(
            parse(sentinel),
            Ok(StoreUrl {
                tls,
                servers: expected
            })
        );
        for text in [
            "redis-cluster://a:1,b",
            "valkey-cluster://a:1,b/",
            "redis-cluster://a:1,b/0",
        ] {
            let servers = Servers::Cluster {
                nodes: nodes(&["a:1", "b:6379"]),
            };
            assert_eq!(
                parse(text),
                Ok(StoreUrl {
                    tls: false,
                    servers
                }),
                "{text}"
            );
        }
    }

    #[test]
    fn other_urls_are_refused_without_quoting_them() {
        for (text, problem) in [
            ("", "is no URL"),
            ("valkey.example.com:6379", "is no URL"),
            ("http://a", "unknown scheme"),
            ("redis+unix:///run/redis.sock", "unknown scheme"),
            ("redis://", "has no host"),
            ("redis://:6379", "has no host"),
            ("redis:///0", "has no host"),
            ("redis://user:hunter2@a", "has user info"),
            ("redis://:hunter2@a:6379/0", "has user info"),
            ("redis://a:/hunter2@b", "has user info"),
            ("redis://a#0", "has a fragment"),
            ("redis-sentinel://a#mymaster", "?sentinelServiceName=NAME"),
            ("redis://a?password=hunter2", "has query parameters"),
            ("redis://a?sentinelServiceName=m", "only redis-sentinel://"),
            ("redis-cluster://a?x", "has query parameters"),
            ("redis-sentinel://a", "does not name the master"),
            (
                "redis-sentinel://a?sentinelServiceName=",
                "unusable sentinelServiceName",
            ),
            (
                "redis-sentinel://a?sentinelServiceName=m&password=hunter2",
                "unknown query parameter",
            ),
            (
                "redis-sentinel://a?sentinelServiceName=m&sentinelServiceName=n",
                "twice",
            ),
            ("redis-sentinel://a,?sentinelServiceName=m", "has no host"),
            ("redis://a,b", "names several hosts"),
            ("redis-cluster://a/1", "only number 0"),
            ("redis://a/x", "has a path"),
            ("redis://a/+1", "has a path"),
            ("redis://a/0/", "has a path"),
            ("redis://a/99999", "has a path"),
            ("redis://a:0", "has a port"),
            ("redis://a:65536", "has a port"),
            ("redis://a:x", "has a port"),
            ("redis://a:", "has a port"),
            ("redis://a b", "neither a name nor an address"),
            ("redis://[::1", "neither a name nor an address"),
            ("redis://[::1]x", "neither a name nor an address"),
            ("redis://::1", "has no host"),
            ("redis://fe80::1", "has a port"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(problem), "{text}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        let many = format!("redis-cluster://{}", vec!["a"; MAX_NODES + 1].join(","));
        assert_eq!(parse(&many).unwrap_err(), "names more than 64 hosts");
    }

    #[test]
    fn only_loopback_is_local() {
        for local in [
            "redis://127.0.0.2",
            "redis://[::1]:1",
            "redis://LocalHost.",
            "redis://a.localhost",
        ] {
            assert!(parse(local).unwrap().is_loopback(), "{local}");
        }
        for other in [
            "redis://10.0.0.1",
            "redis-cluster://127.0.0.1,b",
            "redis://localhost.example.com",
        ] {
            assert!(!parse(other).unwrap().is_loopback(), "{other}");
        }
    }
}
