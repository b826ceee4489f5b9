//! `hawkgate taskcluster-proxy`: accepts taskcluster-proxy's arguments and runs the equivalent
//! configuration. Also what a link to hawkgate named taskcluster-proxy does, so that workers can start
//! it in place of the original.

use std::convert::Infallible;
use std::ffi::OsString;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::{Args, Parser};
use ipnet::IpNet;
use url::Url;

use hawkgate::clock::SystemClock;
use hawkgate::config::{
    self, ACCESS_TOKEN_VARIABLE, CERTIFICATE_VARIABLE, Config, ConfigErrors, Diagnostic,
    ParseOptions, Warning,
};
use hawkgate::network::Network;
use hawkgate::remote::http_client::{HttpClient, HttpClientOptions};
use hawkgate::remote::taskcluster_queue::{MAX_TASK_BYTES, task_scopes};
use hawkgate::secret::SecretString;

use super::{Format, process, run};

/// The timeout for reading the task from the queue.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The name of the original program, of its files, and of this command.
const NAME: &str = "taskcluster-proxy";

const ROOT_URL_VARIABLE: &str = "TASKCLUSTER_ROOT_URL";
const CLIENT_ID_VARIABLE: &str = "TASKCLUSTER_CLIENT_ID";

pub(super) const EXAMPLES: &str = "Examples:\n  \
    TASKCLUSTER_ROOT_URL=https://tc.example.com TASKCLUSTER_CLIENT_ID=… \\\n      \
    TASKCLUSTER_ACCESS_TOKEN=… hawkgate taskcluster-proxy\n  \
    hawkgate taskcluster-proxy --task-id KTBKfEgxR5GdfIIREQIvFQ 'queue:get-artifact:public/*'\n  \
    hawkgate taskcluster-proxy -i 172.18.0.1 --allowed-network 172.18.0.0/16   # for its containers\n  \
    hawkgate taskcluster-proxy --print-config > hawkgate.toml   # a configuration to start from\n  \
    ln -s /usr/local/bin/hawkgate /usr/local/bin/taskcluster-proxy   # for workers to start it\n\n\
    Needs no configuration file. Secrets belong in the environment variables \
    TASKCLUSTER_ACCESS_TOKEN and TASKCLUSTER_CERTIFICATE: other users can read arguments. \
    docs/migrating-from-taskcluster-proxy.md lists all differences.";

/// The command line of a link named taskcluster-proxy.
#[derive(Parser, Debug)]
#[command(
    name = NAME,
    about = "Drop-in replacement for taskcluster-proxy (hawkgate)",
    after_help = EXAMPLES,
    infer_long_args = true
)]
struct DropIn {
    #[command(flatten)]
    args: TaskclusterProxy,
}

/// Empty values count as not given, as in taskcluster-proxy, except for `--task-id`. Its access tokens may
/// begin with a hyphen.
#[derive(Args, Debug)]
pub(super) struct TaskclusterProxy {
    /// Port to listen on
    #[arg(short, long, default_value_t = 8080, allow_hyphen_values = true)]
    port: u16,
    /// Address to listen on; other than loopback only with --allowed-network [default: 127.0.0.1, or
    /// every interface with --allowed-network]
    #[arg(short, long, value_name = "ADDRESS", value_parser = address, allow_hyphen_values = true)]
    ip_address: Option<Given<IpAddr>>,
    /// Restrict requests to this task's scopes and the SCOPE arguments
    #[arg(short, long, value_name = "ID", allow_hyphen_values = true)]
    task_id: Option<String>,
    /// Root URL of the Taskcluster deployment [env: TASKCLUSTER_ROOT_URL]
    #[arg(long, value_name = "URL", allow_hyphen_values = true)]
    root_url: Option<String>,
    /// Taskcluster client that signs the requests [env: TASKCLUSTER_CLIENT_ID]
    #[arg(long, value_name = "ID", allow_hyphen_values = true)]
    client_id: Option<String>,
    /// Its access token, which other users can read here [env: TASKCLUSTER_ACCESS_TOKEN]
    #[arg(long, value_name = "TOKEN", allow_hyphen_values = true)]
    access_token: Option<SecretString>,
    /// Its certificate, which other users can read here [env: TASKCLUSTER_CERTIFICATE]
    #[arg(long, value_name = "JSON", allow_hyphen_values = true)]
    certificate: Option<SecretString>,
    /// Of the processes on this machine, serve only those of this user and of root
    #[arg(long, value_name = "USER", allow_hyphen_values = true)]
    allowed_user: Option<String>,
    /// Network of the containers that may connect (repeatable)
    #[arg(long, value_name = "CIDR", value_parser = network, allow_hyphen_values = true)]
    allowed_network: Vec<Given<IpNet>>,
    /// Address for metrics and health checks: a loopback address or unix:/path [default: none]
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<String>,
    /// Host name by which programs reach this proxy, beside localhost and taskcluster (repeatable)
    #[arg(long = "local-host", value_name = "NAME")]
    local_hosts: Vec<String>,
    /// Print the equivalent configuration file and exit
    #[arg(long)]
    print_config: bool,
    /// Log format
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<Format>,
    /// Print the version as taskcluster-proxy does and exit
    #[arg(long)]
    version: bool,
    /// Print only the version number and exit
    #[arg(long)]
    short_version: bool,
    /// Restrict requests to these scopes [default: no restriction, unless --task-id is given]
    #[arg(value_name = "SCOPE")]
    scopes: Vec<String>,
    /// Set when the secrets were arguments and have been moved to the environment.
    #[arg(long, hide = true)]
    moved_secrets: bool,
}

/// A value that may be empty, which means that it is not given.
#[derive(Clone, Copy, Debug)]
struct Given<T>(Option<T>);

fn address(text: &str) -> Result<Given<IpAddr>, std::net::AddrParseError> {
    given(text, str::parse)
}

/// A network; bits beyond its prefix are ignored.
fn network(text: &str) -> Result<Given<IpNet>, ipnet::AddrParseError> {
    given(text, |text| Ok(text.parse::<IpNet>()?.trunc()))
}

fn given<T, E>(text: &str, parse: impl FnOnce(&str) -> Result<T, E>) -> Result<Given<T>, E> {
    if text.is_empty() {
        return Ok(Given(None));
    }
    parse(text).map(|value| Given(Some(value)))
}

/// Whether this program was started under the name of taskcluster-proxy, or of one of the files of its
/// releases (`taskcluster-proxy-linux-amd64`).
pub(super) fn is_named_so(program: Option<&OsString>) -> bool {
    let name = program.and_then(|program| Path::new(program).file_name());
    let rest = name
        .and_then(|name| name.to_str())
        .and_then(|name| name.strip_prefix(NAME));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '.']))
}

/// Runs a link named taskcluster-proxy.
pub(super) fn main_as_link() -> ExitCode {
    match DropIn::try_parse() {
        Ok(command) => main(command.args),
        Err(error) => super::usage_error(&error),
    }
}

pub(super) fn main(args: TaskclusterProxy) -> ExitCode {
    if args.short_version || args.version {
        let version = hawkgate::VERSION;
        let text = if args.short_version {
            format!("{version}\n")
        } else {
            format!("{}\n", full_version(version, hawkgate::REVISION))
        };
        // A closed stdout is ignored.
        let _ = io::stdout().write_all(text.as_bytes());
        return ExitCode::SUCCESS;
    }
    if secrets(&args).next().is_some() {
        return match restart_with_secrets_in_environment(&args) {
            Ok(never) => match never {},
            Err(error) => failed(&format!(
                "--access-token and --certificate could not be moved to the environment: {error}; set \
                 {ACCESS_TOKEN_VARIABLE} and {CERTIFICATE_VARIABLE} instead"
            )),
        };
    }
    // Before the task is waited for: this also keeps the environment from other programs of this user.
    // If it fails, the log says so later.
    let _ = process::forbid_core_dumps();
    let (root_url, client_id) = (
        value_or_variable(args.root_url.as_deref(), ROOT_URL_VARIABLE),
        value_or_variable(args.client_id.as_deref(), CLIENT_ID_VARIABLE),
    );
    let (Some(root_url), Some(client_id)) = (root_url, client_id) else {
        return usage(
            "set --root-url (TASKCLUSTER_ROOT_URL) and --client-id (TASKCLUSTER_CLIENT_ID)",
        );
    };
    process::install_crypto();
    let (format, print, moved) = (args.log_format, args.print_config, args.moved_secrets);
    let text = match authorized_scopes(&args, &root_url) {
        Ok(scopes) => configuration(args, root_url, client_id, scopes),
        Err(error) => return failed(&format!("--task-id: {error}")),
    };
    if print {
        // A closed stdout is ignored.
        let _ = io::stdout().write_all(text.as_bytes());
        return ExitCode::SUCCESS;
    }
    match parse(&text) {
        Ok((config, mut warnings)) => {
            warnings.extend(moved.then(secrets_were_arguments));
            let format = format.map(Into::into);
            run::serve_config((config, warnings), None, format, SystemClock::shared())
        }
        Err(errors) => failed(&format!(
            "these arguments give an invalid configuration (--print-config shows it):\n{errors}"
        )),
    }
}

/// The version in taskcluster-proxy's words.
fn full_version(version: &str, revision: &str) -> String {
    match revision {
        "unknown" => format!("Taskcluster proxy {version}"),
        revision => format!("Taskcluster proxy {version} (git revision {revision})"),
    }
}

/// The secrets among the arguments, with the variables in which they belong.
fn secrets(args: &TaskclusterProxy) -> impl Iterator<Item = (&'static str, &str)> {
    let secrets = [
        (ACCESS_TOKEN_VARIABLE, args.access_token.as_ref()),
        (CERTIFICATE_VARIABLE, args.certificate.as_ref()),
    ];
    secrets
        .into_iter()
        .filter_map(|(variable, secret)| Some((variable, secret?.expose())))
        .filter(|(_, secret)| !secret.is_empty())
}

/// The argument, or else the environment variable; neither counts if it is empty.
fn value_or_variable(value: Option<&str>, variable: &str) -> Option<String> {
    let value = value.map(str::to_owned);
    let text = |value: &String| !value.is_empty();
    value
        .filter(text)
        .or_else(|| std::env::var(variable).ok().filter(text))
}

/// Replaces this process by one that has the secrets in its environment, which only this user and root
/// can read, and not in its arguments. docker-worker and older generic-workers pass them as arguments.
/// The process id stays.
///
/// # Errors
/// If that is not possible.
fn restart_with_secrets_in_environment(args: &TaskclusterProxy) -> io::Result<Infallible> {
    let mut own = std::env::args_os();
    let name = own.next().unwrap_or_else(|| NAME.into());
    let program = std::env::current_exe()?;
    let mut command = Command::new(program);
    if !is_named_so(Some(&name)) {
        command.arg(NAME);
    }
    command.arg0(name).args(arguments_without_secrets(args));
    command.envs(secrets(args));
    Err(command.exec())
}

/// The arguments as parsed, except for the secrets.
fn arguments_without_secrets(args: &TaskclusterProxy) -> Vec<String> {
    let mut list = vec![format!("--port={}", args.port), "--moved-secrets".into()];
    let format = args.log_format.map(|format| match format {
        Format::Json => "json".to_owned(),
        Format::Text => "text".to_owned(),
    });
    let ip_address = args.ip_address.and_then(|given| given.0);
    for (name, value) in [
        ("ip-address", &ip_address.map(|ip| ip.to_string())),
        ("task-id", &args.task_id),
        ("root-url", &args.root_url),
        ("client-id", &args.client_id),
        ("allowed-user", &args.allowed_user),
        ("admin", &args.admin),
        ("log-format", &format),
    ] {
        list.extend(value.iter().map(|value| format!("--{name}={value}")));
    }
    let networks = args.allowed_network.iter().filter_map(|given| given.0);
    list.extend(networks.map(|network| format!("--allowed-network={network}")));
    let hosts = args.local_hosts.iter();
    list.extend(hosts.map(|host| format!("--local-host={host}")));
    list.extend(args.print_config.then(|| "--print-config".to_owned()));
    list.push("--".into());
    list.extend(args.scopes.iter().cloned());
    list
}

fn secrets_were_arguments() -> Warning {
    Warning {
        origin: NAME.into(),
        diagnostic: Diagnostic {
            line: 0,
            column: 0,
            place: String::new(),
            key: "--access-token".into(),
            problem: "was readable by every user of this machine until hawkgate removed it from its arguments".into(),
            remedy: format!("set {ACCESS_TOKEN_VARIABLE} and {CERTIFICATE_VARIABLE} instead"),
        },
    }
}

/// The scopes given and those of the task; `None` with neither, which means no restriction. An empty
/// task id is an error: the variable that should hold it is not set, and no restriction was not asked
/// for.
///
/// # Errors
/// If the task cannot be read.
fn authorized_scopes(
    args: &TaskclusterProxy,
    root_url: &str,
) -> Result<Option<Vec<String>>, Box<dyn std::error::Error>> {
    let Some(task) = &args.task_id else {
        let scopes = without_duplicates(args.scopes.clone());
        return Ok((!scopes.is_empty()).then_some(scopes));
    };
    let mut scopes = args.scopes.clone();
    let root_url: Url = root_url.parse()?;
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
    Ok(Some(without_duplicates(scopes)))
}

/// The configuration rejects duplicates.
fn without_duplicates(mut scopes: Vec<String>) -> Vec<String> {
    let mut seen = std::collections::HashSet::new();
    scopes.retain(|scope| seen.insert(scope.clone()));
    scopes
}

fn configuration(
    args: TaskclusterProxy,
    root_url: String,
    client_id: String,
    authorized_scopes: Option<Vec<String>>,
) -> String {
    let networks = args.allowed_network.into_iter();
    config::TaskclusterProxy {
        root_url,
        client_id,
        certificate: std::env::var_os(CERTIFICATE_VARIABLE).is_some_and(|c| !c.is_empty()),
        ip_address: args.ip_address.and_then(|given| given.0),
        port: args.port,
        admin: args.admin.filter(|admin| !admin.is_empty()),
        local_hosts: args.local_hosts,
        allowed_networks: networks.filter_map(|given| given.0).collect(),
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
        environment: true,
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
                "anonymous" | "credentials" => {
                    return format!(
                        "--ip-address: {}; listen on loopback, or name the containers that may connect with \
                         --allowed-network",
                        error.problem
                    );
                }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_moved_and_never_printed() {
        let command = DropIn::try_parse_from([
            NAME,
            "--access-token=s3cret-token",
            "--certificate",
            "s3cret-certificate",
            "--port=1",
            "queue:x",
        ])
        .unwrap();
        let moved: Vec<_> = secrets(&command.args).collect();
        assert_eq!(
            moved,
            [
                (ACCESS_TOKEN_VARIABLE, "s3cret-token"),
                (CERTIFICATE_VARIABLE, "s3cret-certificate")
            ]
        );
        let debug = format!("{command:?}");
        let arguments = arguments_without_secrets(&command.args).join(" ");
        assert!(!format!("{debug}{arguments}").contains("s3cret"), "{debug}");
        let empty = DropIn::try_parse_from([NAME, "--access-token", "", "--certificate="]);
        assert_eq!(secrets(&empty.unwrap().args).count(), 0);
    }
}
