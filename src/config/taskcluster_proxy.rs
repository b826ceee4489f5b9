//! The configuration equivalent to taskcluster-proxy's arguments (`docs/design/taskcluster.md`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use toml::Value;

/// The environment variable with taskcluster-proxy's access token.
pub const ACCESS_TOKEN_VARIABLE: &str = "TASKCLUSTER_ACCESS_TOKEN";
/// The environment variable with its certificate, if its credentials are temporary.
pub const CERTIFICATE_VARIABLE: &str = "TASKCLUSTER_CERTIFICATE";

/// The host name by which docker-worker's tasks reach taskcluster-proxy: `http://taskcluster/`.
const TASK_HOST: &str = "taskcluster";

/// The arguments of taskcluster-proxy.
#[derive(Clone, Debug)]
pub struct TaskclusterProxy {
    /// `--root-url`
    pub root_url: String,
    /// `--client-id`
    pub client_id: String,
    /// Whether [`CERTIFICATE_VARIABLE`] is set.
    pub certificate: bool,
    /// `--ip-address`. `None` if it is empty: loopback, or every interface with `allowed_networks`.
    pub ip_address: Option<IpAddr>,
    /// `--port`
    pub port: u16,
    /// The address for metrics and health checks; `None` for none.
    pub admin: Option<String>,
    /// Further host names by which programs reach this proxy; see `TASK_HOST`.
    pub local_hosts: Vec<String>,
    /// `--allowed-user`; root is always allowed as well.
    pub allowed_user: Option<String>,
    /// `--allowed-network`: those of the containers that may connect.
    pub allowed_networks: Vec<IpNet>,
    /// `<scope>…` and the scopes of `--task-id`; `None` for all scopes of the client.
    pub authorized_scopes: Option<Vec<String>>,
}

impl TaskclusterProxy {
    /// Writes the equivalent configuration file, which references secrets and does not contain them.
    pub fn to_toml(&self) -> String {
        let admin = self.admin.as_deref().unwrap_or("none");
        let mut lines = vec![
            "[server]".to_owned(),
            format!("listen = [{}]", self.listeners().join(", ")),
            format!("admin = {}", text(admin)),
            format!("local_hosts = {}", list(&self.local_hosts())),
        ];
        lines.extend(self.source());
        lines.extend(
            [
                "",
                "[[route]]",
                "name = \"taskcluster\"",
                "path = \"/api/\"",
                &format!("upstream = {}", text(&self.root_url)),
                "source = \"taskcluster\"",
                "anonymous = true",
                "shortcut = true",
                "bewit = true",
                "credentials = true",
                "taskcluster_headers = true",
                "retry = { max_elapsed = \"15m\" }",
                "",
            ]
            .map(str::to_owned),
        );
        lines.join("\n")
    }

    /// The listeners. With `allowed_networks` there is always one at 127.0.0.1, where generic-worker waits
    /// for the port and sends new credentials (`workers/generic-worker/tcproxy/tcproxy.go`).
    fn listeners(&self) -> Vec<String> {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        if self.allowed_networks.is_empty() {
            return vec![self.listener(self.ip_address.unwrap_or(loopback), false)];
        }
        // An IPv6 socket accepts IPv4 as well.
        let wide = self.allowed_networks.iter().any(|n| n.addr().is_ipv6());
        let every = if wide {
            IpAddr::V6(Ipv6Addr::UNSPECIFIED)
        } else {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED)
        };
        let address = self.ip_address.filter(|address| !address.is_unspecified());
        match address {
            None => vec![self.listener(every, true)],
            Some(address) if address == loopback => vec![self.listener(address, false)],
            Some(address) => vec![
                self.listener(address, !address.is_loopback()),
                self.listener(loopback, false),
            ],
        }
    }

    /// A listener at this address, for containers or not.
    fn listener(&self, address: IpAddr, containers: bool) -> String {
        let address = text(&SocketAddr::new(address, self.port).to_string());
        let mut keys = Vec::new();
        if containers {
            let networks: Vec<_> = self.allowed_networks.iter().map(IpNet::to_string).collect();
            keys.push(format!("local_networks = {}", list(&networks)));
        }
        if let Some(user) = &self.allowed_user {
            let root = (user != "root" && user != "0").then_some("root");
            let users: Vec<_> = root.into_iter().chain([user.as_str()]).collect();
            keys.push(format!("allowed_users = {}", list(&users)));
        }
        if keys.is_empty() {
            return address;
        }
        format!("{{ address = {address}, {} }}", keys.join(", "))
    }

    fn local_hosts(&self) -> Vec<&str> {
        let mut hosts = vec![TASK_HOST];
        hosts.extend(self.local_hosts.iter().map(String::as_str));
        // The configuration rejects duplicates.
        let mut seen = std::collections::HashSet::new();
        hosts.retain(|host| seen.insert(*host));
        hosts
    }

    fn source(&self) -> Vec<String> {
        let mut lines = vec![
            String::new(),
            "[[source]]".to_owned(),
            "name = \"taskcluster\"".to_owned(),
            "kind = \"taskcluster-static\"".to_owned(),
            format!("client_id = {}", text(&self.client_id)),
            format!("access_token = {{ env = \"{ACCESS_TOKEN_VARIABLE}\" }}"),
        ];
        if self.certificate {
            lines.push(format!(
                "certificate = {{ env = \"{CERTIFICATE_VARIABLE}\" }}"
            ));
        }
        if let Some(scopes) = &self.authorized_scopes {
            lines.push(format!("authorized_scopes = {}", list(scopes)));
        }
        lines.push("credentials_update = true".to_owned());
        lines
    }
}

/// Formats a TOML string.
fn text(value: &str) -> String {
    Value::from(value).to_string()
}

/// Formats a TOML array of strings.
fn list(values: &[impl AsRef<str>]) -> String {
    let values: Vec<_> = values.iter().map(|v| text(v.as_ref())).collect();
    format!("[{}]", values.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Config, ParseOptions, SourceKind};

    fn arguments() -> TaskclusterProxy {
        TaskclusterProxy {
            root_url: "https://tc.example.com".into(),
            client_id: "project/x".into(),
            certificate: false,
            ip_address: None,
            port: 8080,
            admin: None,
            local_hosts: vec![],
            allowed_user: None,
            allowed_networks: vec![],
            authorized_scopes: None,
        }
    }

    fn parsed(arguments: &TaskclusterProxy) -> Result<Config, String> {
        let options = ParseOptions {
            read_secrets: false,
            environment: false,
            base_dir: "/".into(),
        };
        let (config, warnings) =
            config::parse(&arguments.to_toml(), "t", &options).map_err(|e| e.to_string())?;
        assert_eq!(warnings, []);
        Ok(config)
    }

    #[test]
    fn default_arguments_produce_the_example_configuration() {
        let example = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/taskcluster-proxy.toml");
        let example: toml::Table = std::fs::read_to_string(example).unwrap().parse().unwrap();
        let generated: toml::Table = arguments().to_toml().parse().unwrap();
        assert_eq!(generated["route"], example["route"]);
        assert_eq!(generated["server"], example["server"]);
        let config = parsed(&arguments()).unwrap();
        assert!(config.routes[0].anonymous && config.routes[0].compat.shortcut);
        let SourceKind::TaskclusterStatic {
            authorized_scopes,
            credentials_update,
            ..
        } = &config.sources[0].kind
        else {
            panic!("static");
        };
        assert_eq!(
            (authorized_scopes.as_ref(), *credentials_update),
            (None, true)
        );
    }

    #[test]
    fn every_argument_is_translated_to_its_key() {
        let config = parsed(&TaskclusterProxy {
            certificate: true,
            ip_address: Some("::1".parse().unwrap()),
            admin: Some("127.0.0.1:9090".into()),
            allowed_user: Some("worker".into()),
            local_hosts: vec!["proxy.internal".into(), "taskcluster".into()],
            authorized_scopes: Some(vec!["a\"]b".into(), "queue:*".into()]),
            ..arguments()
        })
        .unwrap();
        assert_eq!(config.server.local_hosts, ["taskcluster", "proxy.internal"]);
        let listener = &config.server.listen[0];
        assert_eq!(listener.address.to_string(), "[::1]:8080");
        assert_eq!(listener.access.users.as_ref().unwrap(), &["root", "worker"]);
        let admin = config.server.admin.as_ref().unwrap();
        assert_eq!(admin.to_string(), "127.0.0.1:9090");
        let SourceKind::TaskclusterStatic {
            certificate,
            authorized_scopes,
            ..
        } = &config.sources[0].kind
        else {
            panic!("static");
        };
        assert!(certificate.is_some());
        assert_eq!(authorized_scopes.as_ref().unwrap(), &["a\"]b", "queue:*"]);
    }

    #[test]
    fn containers_reach_the_bridge_address_and_the_worker_loopback() {
        let networks = |networks: &[&str]| -> Vec<IpNet> {
            networks.iter().map(|n| n.parse().unwrap()).collect()
        };
        let bridge = &["172.18.0.0/16"][..];
        for (ip_address, allowed, expected) in [
            (
                Some("172.18.0.1"),
                bridge,
                &[("172.18.0.1:8080", true), ("127.0.0.1:8080", false)][..],
            ),
            (
                Some("fd00::1"),
                &["fd00::/64"],
                &[("[fd00::1]:8080", true), ("127.0.0.1:8080", false)],
            ),
            (Some("127.0.0.1"), bridge, &[("127.0.0.1:8080", false)]),
            (
                Some("::1"),
                bridge,
                &[("[::1]:8080", false), ("127.0.0.1:8080", false)],
            ),
            (
                Some("127.0.0.2"),
                bridge,
                &[("127.0.0.2:8080", false), ("127.0.0.1:8080", false)],
            ),
            (Some("0.0.0.0"), bridge, &[("0.0.0.0:8080", true)]),
            (None, bridge, &[("0.0.0.0:8080", true)]),
            (
                None,
                &["172.18.0.0/16", "fd00::/64"],
                &[("[::]:8080", true)],
            ),
            (None, &[], &[("127.0.0.1:8080", false)]),
        ] {
            let config = parsed(&TaskclusterProxy {
                ip_address: ip_address.map(|ip| ip.parse().unwrap()),
                allowed_networks: networks(allowed),
                allowed_user: Some("root".into()),
                ..arguments()
            })
            .unwrap();
            let found: Vec<_> = config
                .server
                .listen
                .iter()
                .map(|l| (l.address.to_string(), l.access.local_networks.is_some()))
                .collect();
            let found: Vec<_> = found.iter().map(|(a, n)| (a.as_str(), *n)).collect();
            assert_eq!(found, expected);
            let users = |l: &crate::proxy::settings::Listener| l.access.users.is_some();
            assert!(config.server.listen.iter().all(users));
        }
    }

    #[test]
    fn unsafe_arguments_are_refused_like_an_unsafe_file() {
        for arguments in [
            TaskclusterProxy {
                ip_address: Some([0, 0, 0, 0].into()),
                ..arguments()
            },
            TaskclusterProxy {
                ip_address: Some([172, 18, 0, 1].into()),
                ..arguments()
            },
            TaskclusterProxy {
                allowed_networks: vec!["0.0.0.0/0".parse().unwrap()],
                ..arguments()
            },
            TaskclusterProxy {
                allowed_networks: vec!["::/0".parse().unwrap()],
                ..arguments()
            },
            TaskclusterProxy {
                admin: Some("0.0.0.0:9090".into()),
                ..arguments()
            },
            TaskclusterProxy {
                root_url: "http://tc.example.com".into(),
                ..arguments()
            },
            TaskclusterProxy {
                client_id: "x\"\nanonymous = true #".into(),
                ..arguments()
            },
        ] {
            parsed(&arguments).unwrap_err();
        }
    }
}
