//! Command-line arguments and dispatch. Exit codes: 0 success, 1 failure or invalid
//! configuration, 2 wrong usage.

mod check;
mod demo;
mod exit;
mod explain;
mod issuer;
mod login;
mod logout;
mod notify;
mod process;
mod register;
mod run;
mod schema;
mod taskcluster_proxy;
mod token;
mod token_file;

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::LazyLock;

use clap::{Args, Parser, Subcommand, ValueEnum};

use hawkgate::log::settings::LogFormat;

/// A reverse proxy that swaps OIDC bearer tokens for the upstream API's own credentials.
///
/// Callers send a bearer token from your identity provider. hawkgate verifies it, obtains
/// credentials for Taskcluster (or any other API), signs the request and forwards it. When the
/// API rejects the credentials as stale, hawkgate fetches fresh ones and retries the request
/// before the caller notices.
#[derive(Parser, Debug)]
#[command(
    name = "hawkgate",
    version = version(),
    arg_required_else_help = true,
    after_help = "New here? Run `hawkgate demo` for a guided tour that needs no set-up.\n\n\
        Exit codes: 0 success, 1 failure or invalid configuration, 2 wrong usage."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

fn version() -> &'static str {
    static TEXT: LazyLock<String> =
        LazyLock::new(|| format!("{} (revision {})", hawkgate::VERSION, hawkgate::REVISION));
    &TEXT
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run the proxy
    #[command(after_help = "Examples:\n  \
        hawkgate run --config /etc/hawkgate/hawkgate.toml\n  \
        HAWKGATE_CONFIG=my.toml hawkgate run --log-format text\n\n\
        Signals: SIGTERM and SIGINT stop hawkgate gracefully, giving requests in progress up to \
        server.drain to finish; a second signal stops it immediately. SIGHUP reloads the \
        configuration, as does a change to the configuration file or a file that it refers to.\n\n\
        Logs go to stderr. Metrics and health checks are served on the admin address \
        (server.admin).")]
    Run(Run),
    /// Check a configuration file and report every error
    #[command(after_help = "Examples:\n  \
        hawkgate check --config conf/hawkgate.toml\n  \
        hawkgate check --config conf/hawkgate.toml --skip-secrets   # on a machine without the secrets\n\n\
        Each error is printed with its line, key and remedy.\n\n\
        Exit codes: 0 valid, 1 invalid, 2 wrong usage.")]
    Check(Check),
    /// Explain step by step whether a request would be let through, and why
    #[command(after_help = "Examples:\n  \
        hawkgate explain --config my.toml --url /api/queue/v1/ping --token-file token.txt\n  \
        get-token | hawkgate explain --url https://tc.example.com/api/x --token-file -\n  \
        hawkgate explain --url /api/x --token-file token.txt --exchange --format json\n\n\
        Nothing is sent upstream. The issuer's keys are fetched, unless --offline is given; \
        credentials are obtained only with --exchange. Secrets are never printed.\n\n\
        Exit codes: 0 the request would pass, 1 it would not or that cannot be determined, 2 wrong \
        usage.")]
    Explain(Explain),
    /// Print the JSON Schema of the configuration file
    #[command(after_help = "Example:\n  \
        hawkgate schema > hawkgate.schema.json\n\n\
        For editors and other validators (draft 2020-12). `hawkgate check` reports more: value \
        ranges, and rules that involve several keys.")]
    Schema,
    /// Take a guided tour: an identity provider, an API and hawkgate in one process
    #[command(after_help = "Examples:\n  \
        hawkgate demo                  # runs the tour, then keeps running for you to try\n  \
        hawkgate demo --once           # exits after the tour, with code 1 if any step failed\n  \
        hawkgate demo --print-config > hawkgate.toml   # a configuration to start from\n\n\
        Everything listens on free loopback ports, with keys generated for this run.")]
    Demo(Demo),
    /// Register, update or delete an OAuth client at an issuer (RFC 7591, RFC 7592)
    #[command(after_help = register::EXAMPLES)]
    Register(Box<register::Register>),
    /// Sign in from the terminal
    #[command(after_help = login::EXAMPLES)]
    Login(Box<login::Login>),
    /// Print an access token from the last login, refreshed if necessary
    #[command(after_help = token::EXAMPLES)]
    Token(token::Token),
    /// Sign out: revoke the tokens from the last login
    #[command(after_help = logout::EXAMPLES)]
    Logout(logout::Logout),
    /// Run as a drop-in replacement for taskcluster-proxy, without a configuration file
    #[command(after_help = "Examples:\n  \
        TASKCLUSTER_ROOT_URL=https://tc.example.com TASKCLUSTER_CLIENT_ID=… \\\n      \
        TASKCLUSTER_ACCESS_TOKEN=… hawkgate taskcluster-proxy\n  \
        hawkgate taskcluster-proxy --task-id KTBKfEgxR5GdfIIREQIvFQ 'queue:get-artifact:public/*'\n  \
        hawkgate taskcluster-proxy --print-config > hawkgate.toml   # as a starting point\n\n\
        Secrets are read only from TASKCLUSTER_ACCESS_TOKEN and TASKCLUSTER_CERTIFICATE. Listens \
        on loopback only. docs/migrating-from-taskcluster-proxy.md lists the differences.")]
    TaskclusterProxy(Box<taskcluster_proxy::TaskclusterProxy>),
}

#[derive(Args, Debug)]
struct ConfigFile {
    /// Configuration file
    #[arg(
        long = "config",
        value_name = "FILE",
        env = "HAWKGATE_CONFIG",
        default_value = "conf/hawkgate.toml"
    )]
    path: PathBuf,
}

#[derive(Args, Debug)]
struct Run {
    #[command(flatten)]
    config: ConfigFile,
    /// Log format [default: as in the configuration file, else json]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<Format>,
    /// Reload only on SIGHUP, not when files change
    #[arg(long)]
    no_watch: bool,
    /// Print the complete configuration with all defaults, without secrets, and exit
    #[arg(long)]
    print_config: bool,
}

#[derive(Args, Debug)]
struct Check {
    #[command(flatten)]
    config: ConfigFile,
    /// Do not check that secrets and other referenced files exist
    #[arg(long)]
    skip_secrets: bool,
}

#[derive(Args, Debug)]
struct Demo {
    /// Exit after the tour instead of staying up
    #[arg(long)]
    once: bool,
    /// Print the configuration that the demo runs, with comments, and exit
    #[arg(long, conflicts_with = "once")]
    print_config: bool,
}

#[derive(Args, Debug)]
struct Explain {
    #[command(flatten)]
    config: ConfigFile,
    /// Request method
    #[arg(long, value_name = "METHOD", default_value = "GET")]
    method: String,
    /// Request URL, or just its path
    #[arg(long, value_name = "URL", default_value = "/")]
    url: String,
    /// File with the bearer token, or - for standard input
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// File with username:password, or - for standard input, for routes that use passwords
    #[arg(long, value_name = "FILE", conflicts_with = "token_file")]
    user_file: Option<PathBuf>,
    /// Client address of the request
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    client: IpAddr,
    /// User-Agent of the request
    #[arg(long, value_name = "TEXT")]
    user_agent: Option<String>,
    /// Make no network requests, not even for the issuer's keys
    #[arg(long, conflicts_with = "exchange")]
    offline: bool,
    /// Obtain the credential and show its name, scopes and expiry
    #[arg(long)]
    exchange: bool,
    /// Output format
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: ExplainFormat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ExplainFormat {
    /// Human-readable text
    Text,
    /// A JSON object
    Json,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// One JSON object per line
    Json,
    /// Human-readable text
    Text,
}

impl From<Format> for LogFormat {
    fn from(format: Format) -> Self {
        match format {
            Format::Json => Self::Json,
            Format::Text => Self::Text,
        }
    }
}

/// Parses the arguments and runs the command.
pub(crate) fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // clap's exit codes: 0 for help and version, 2 for errors.
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match cli.command {
        Command::Run(run) => run::main(&run),
        Command::Check(check) => check::main(&check),
        Command::Demo(demo) => demo::main(&demo),
        Command::Explain(explain) => explain::main(&explain),
        Command::Schema => schema::main(),
        Command::Register(register) => register::main(&register),
        Command::Login(login) => login::main(&login),
        Command::Token(token) => token::main(&token),
        Command::Logout(logout) => logout::main(&logout),
        Command::TaskclusterProxy(args) => taskcluster_proxy::main(*args),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_definition_is_valid() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_subcommand_is_wrong_usage() {
        let error = Cli::try_parse_from(["hawkgate"]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        let error = Cli::try_parse_from(["hawkgate", "run", "--confg", "x"]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        let help = Cli::try_parse_from(["hawkgate", "--help"]).unwrap_err();
        assert_eq!(help.exit_code(), 0);
        assert!(help.to_string().contains("hawkgate demo"));
        let version = Cli::try_parse_from(["hawkgate", "--version"]).unwrap_err();
        assert!(version.to_string().contains(env!("CARGO_PKG_VERSION")));
    }

    #[test]
    fn the_configuration_file_is_an_option() {
        let parse = |args: &[&str]| match Cli::try_parse_from(args).unwrap().command {
            Command::Run(run) => run,
            other => panic!("{other:?}"),
        };
        let run = parse(&[
            "hawkgate",
            "run",
            "--config",
            "a.toml",
            "--log-format",
            "text",
        ]);
        assert_eq!(run.config.path, PathBuf::from("a.toml"));
        assert!(matches!(run.log_format, Some(Format::Text)));
    }
}
