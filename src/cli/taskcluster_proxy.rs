//! `hawkgate taskcluster-proxy`: accepts taskcluster-proxy's arguments and runs the equivalent
//! configuration.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use url::Url;

use hawkgate::clock::SystemClock;
use hawkgate::config::{
    self, ACCESS_TOKEN_VARIABLE, CERTIFICATE_VARIABLE, Config, ConfigErrors, ParseOptions, Warning,
};
use hawkgate::network::Network;
use hawkgate::remote::http_client::{HttpClient, HttpClientOptions};
use hawkgate::remote::taskcluster_queue::{MAX_TASK_BYTES, task_scopes};

use super::{Format, process, run};

/// The timeout for reading the task from the queue.
const TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Args, Debug)]
pub(super) struct TaskclusterProxy {
    /// Port to listen on
    #[arg(short, long, default_value_t = 8080)]
    port: u16,
    /// Loopback address to listen on
    #[arg(short, long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    ip_address: IpAddr,
    /// Restrict requests to this task's scopes and the SCOPE arguments
    #[arg(short, long, value_name = "ID")]
    task_id: Option<String>,
    /// Root URL of the Taskcluster deployment
    #[arg(
        long,
        value_name = "URL",
        env = "TASKCLUSTER_ROOT_URL",
        hide_env_values = true
    )]
    root_url: String,
    /// Taskcluster client that signs the requests
    #[arg(
        long,
        value_name = "ID",
        env = "TASKCLUSTER_CLIENT_ID",
        hide_env_values = true
    )]
    client_id: String,
    /// Serve only processes of this user and of root
    #[arg(long, value_name = "USER")]
    allowed_user: Option<String>,
    /// Address for metrics, health checks and PUT /credentials: a loopback address or unix:/path
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9090")]
    admin: String,
    /// Host name by which programs reach this proxy, beside localhost and taskcluster (repeatable)
    #[arg(long = "local-host", value_name = "NAME")]
    local_hosts: Vec<String>,
    /// Print the equivalent configuration file and exit
    #[arg(long)]
    print_config: bool,
    /// Log format
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<Format>,
    /// Restrict requests to these scopes [default: no restriction, unless --task-id is given]
    #[arg(value_name = "SCOPE")]
    scopes: Vec<String>,
    #[arg(long, hide = true)]
    access_token: Option<String>,
    #[arg(long, hide = true)]
    certificate: Option<String>,
    #[arg(long, hide = true)]
    allowed_network: Option<String>,
}

pub(super) fn main(args: TaskclusterProxy) -> ExitCode {
    if let Some(reason) = unsupported_argument(&args) {
        return usage(reason);
    }
    process::install_crypto();
    let format = args.log_format;
    let print = args.print_config;
    let text = match authorized_scopes(&args) {
        Ok(scopes) => configuration(args, scopes),
        Err(error) => return failed(&format!("--task-id: {error}")),
    };
    if print {
        // A closed stdout is ignored.
        let _ = io::stdout().write_all(text.as_bytes());
        return ExitCode::SUCCESS;
    }
    match parse(&text) {
        Ok(valid) => {
            let format = format.map(Into::into);
            run::serve_config(valid, None, format, SystemClock::shared())
        }
        Err(errors) => failed(&format!(
            "these arguments give an invalid configuration (--print-config shows it):\n{errors}"
        )),
    }
}

/// Why an argument of taskcluster-proxy is not supported.
fn unsupported_argument(args: &TaskclusterProxy) -> Option<&'static str> {
    if args.access_token.is_some() {
        return Some(
            "--access-token would reveal the secret to every user of this machine; set TASKCLUSTER_ACCESS_TOKEN instead",
        );
    }
    if args.certificate.is_some() {
        return Some(
            "--certificate would reveal a secret to every user of this machine; set TASKCLUSTER_CERTIFICATE instead",
        );
    }
    if args.allowed_network.is_some() {
        return Some(
            "--allowed-network is for callers in other network namespaces, to which hawkgate gives no credentials \
             without a token; docs/migrating-from-taskcluster-proxy.md describes the alternatives",
        );
    }
    None
}

/// The scopes given and those of the task; `None` with neither, which means no restriction.
fn authorized_scopes(
    args: &TaskclusterProxy,
) -> Result<Option<Vec<String>>, Box<dyn std::error::Error>> {
    let mut scopes = args.scopes.clone();
    let Some(task) = &args.task_id else {
        return Ok((!scopes.is_empty()).then_some(scopes));
    };
    let root_url: Url = args.root_url.parse()?;
    let client = HttpClient::new(&HttpClientOptions {
        timeout: TIMEOUT,
        max_bytes: MAX_TASK_BYTES,
        ca: None,
        network: Network::from_env()?,
    })?;
    let runtime = process::runtime()?;
    let task_scopes = runtime.block_on(task_scopes(&client, &root_url, task));
    runtime.shutdown_background();
    scopes.extend(task_scopes?);
    // The configuration rejects duplicates.
    let mut seen = std::collections::HashSet::new();
    scopes.retain(|scope| seen.insert(scope.clone()));
    Ok(Some(scopes))
}

fn configuration(args: TaskclusterProxy, authorized_scopes: Option<Vec<String>>) -> String {
    config::TaskclusterProxy {
        root_url: args.root_url,
        client_id: args.client_id,
        certificate: std::env::var_os(CERTIFICATE_VARIABLE).is_some_and(|c| !c.is_empty()),
        ip_address: args.ip_address,
        port: args.port,
        admin: args.admin,
        local_hosts: args.local_hosts,
        // taskcluster-proxy treats an empty value as no restriction.
        allowed_user: args.allowed_user.filter(|user| !user.is_empty()),
        authorized_scopes,
    }
    .to_toml()
}

fn parse(text: &str) -> Result<(Config, Vec<Warning>), String> {
    if std::env::var_os(ACCESS_TOKEN_VARIABLE).is_none_or(|token| token.is_empty()) {
        return Err(format!(
            "set {ACCESS_TOKEN_VARIABLE} to the client's access token"
        ));
    }
    let options = ParseOptions {
        read_secrets: true,
        base_dir: PathBuf::new(),
    };
    config::parse(text, "taskcluster-proxy", &options).map_err(|errors| describe(&errors))
}

/// The errors, with those about the environment named as in taskcluster-proxy's documentation.
fn describe(errors: &ConfigErrors) -> String {
    let lines = errors
        .errors
        .iter()
        .zip(errors.lines())
        .map(|(error, line)| {
            let variable = match error.key.as_str() {
                "access_token" => ACCESS_TOKEN_VARIABLE,
                "certificate" => CERTIFICATE_VARIABLE,
                "client_id" => "--client-id (TASKCLUSTER_CLIENT_ID)",
                _ => return line,
            };
            format!("{variable}: {}; {}", error.problem, error.remedy)
        });
    lines.collect::<Vec<_>>().join("\n")
}

fn usage(reason: &str) -> ExitCode {
    let _ = writeln!(io::stderr(), "hawkgate taskcluster-proxy: {reason}");
    ExitCode::from(2)
}

fn failed(reason: &str) -> ExitCode {
    let _ = writeln!(io::stderr(), "hawkgate taskcluster-proxy: {reason}");
    ExitCode::FAILURE
}
