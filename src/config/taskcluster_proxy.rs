//! The configuration equivalent to taskcluster-proxy's arguments (`docs/design/taskcluster.md`).

use std::net::IpAddr;

use toml::Value;

/// The environment variable with taskcluster-proxy's access token.
pub const ACCESS_TOKEN_VARIABLE: &str = "TASKCLUSTER_ACCESS_TOKEN";
/// The environment variable with its certificate, if its credentials are temporary.
pub const CERTIFICATE_VARIABLE: &str = "TASKCLUSTER_CERTIFICATE";

/// The host name by which docker-worker's tasks reach taskcluster-proxy: `http://taskcluster/`.
const TASK_HOST: &str = "taskcluster";

/// The arguments of taskcluster-proxy that hawkgate supports.
#[derive(Clone, Debug)]
pub struct TaskclusterProxy {
    /// `--root-url`
    pub root_url: String,
    /// `--client-id`
    pub client_id: String,
    /// Whether [`CERTIFICATE_VARIABLE`] is set.
    pub certificate: bool,
    /// `--ip-address`; must be loopback, because the route is anonymous.
    pub ip_address: IpAddr,
    /// `--port`
    pub port: u16,
    /// The address for metrics, health checks and `PUT /credentials`.
    pub admin: String,
    /// Further host names by which programs reach this proxy; see `TASK_HOST`.
    pub local_hosts: Vec<String>,
    /// `--allowed-user`; root is always allowed as well.
    pub allowed_user: Option<String>,
    /// `<scope>…` and the scopes of `--task-id`; `None` for all scopes of the client.
    pub authorized_scopes: Option<Vec<String>>,
}

impl TaskclusterProxy {
    /// Writes the equivalent configuration file, which references secrets and does not contain them.
    pub fn to_toml(&self) -> String {
        let address = std::net::SocketAddr::new(self.ip_address, self.port);
        let mut lines = vec!["[server]".to_owned()];
        lines.push(match &self.allowed_user {
            None => format!("listen = [{}]", text(&address.to_string())),
            Some(user) => {
                let root = (user != "root" && user != "0").then_some("root");
                let users: Vec<_> = root.into_iter().chain([user.as_str()]).collect();
                format!(
                    "listen = [{{ address = {}, allowed_users = {} }}]",
                    text(&address.to_string()),
                    list(&users)
                )
            }
        });
        lines.push(format!("admin = {}", text(&self.admin)));
        lines.push(format!("local_hosts = {}", list(&self.local_hosts())));
        lines.extend(self.source());
        lines.extend(
            [
                "",
                "[[route]]",
                "name = \"taskcluster\"",
                "path = \"/\"",
                &format!("upstream = {}", text(&self.root_url)),
                "source = \"taskcluster\"",
                "anonymous = true",
                "shortcut = true",
                "bewit = true",
                "taskcluster_headers = true",
                "",
            ]
            .map(str::to_owned),
        );
        lines.join("\n")
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
            ip_address: [127, 0, 0, 1].into(),
            port: 8080,
            admin: "127.0.0.1:9090".into(),
            local_hosts: vec![],
            allowed_user: None,
            authorized_scopes: None,
        }
    }

    fn parsed(arguments: &TaskclusterProxy) -> Result<Config, String> {
        let options = ParseOptions {
            read_secrets: false,
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
            ip_address: "::1".parse().unwrap(),
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
    fn unsafe_arguments_are_refused_like_an_unsafe_file() {
        for arguments in [
            TaskclusterProxy {
                ip_address: [0, 0, 0, 0].into(),
                ..arguments()
            },
            TaskclusterProxy {
                admin: "0.0.0.0:9090".into(),
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
