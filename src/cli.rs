//! Command-line arguments and dispatch. Exit codes: 0 success, 1 failure or invalid
//! configuration, 2 usage error.

mod check;
mod completions;
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
mod signals;
mod taskcluster_proxy;
mod token;
mod token_file;

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::LazyLock;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use hawkgate::log::settings::LogFormat;

/// The same text for `-h` and `--help`. As a doc comment it would become a separate long help, and
/// clap would then lay out the options of `--help` differently from those of the subcommands.
const ABOUT: &str = "A reverse proxy that swaps OIDC bearer tokens for the upstream API's own credentials.\n\n\
    Callers send a bearer token from your identity provider. hawkgate verifies it, obtains \
    credentials for Taskcluster (or any other API), signs the request and forwards it. When the \
    API rejects the credentials as stale, hawkgate fetches fresh ones and replays the request, \
    without the caller noticing.";

#[derive(Parser, Debug)]
#[command(
    name = "hawkgate",
    about = ABOUT,
    version = version(),
    arg_required_else_help = true,
    after_help = "Run `hawkgate <COMMAND> --help` for a command's options and examples, or \
        `hawkgate demo` for a guided tour that needs no setup.\n\n\
        Exit codes: 0 success, 1 failure or invalid configuration, 2 usage error."
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
        Signals:\n  \
        SIGTERM, SIGINT  Stop gracefully: requests in progress get up to server.drain to finish.\n                   \
        A second signal, a quarter of a second or more later, stops immediately.\n  \
        SIGHUP           Reload the configuration. Changes to the configuration file, and to files\n                   \
        that it refers to, are also picked up automatically.\n\n\
        Logs go to stderr. Metrics and health checks are served on the admin address \
        (server.admin).")]
    Run(Run),
    /// Check a configuration file and report every error
    #[command(after_help = "Examples:\n  \
        hawkgate check --config conf/hawkgate.toml\n  \
        hawkgate check conf/hawkgate.toml --skip-secrets   # on a machine without the secrets\n  \
        helm template … | yq … | hawkgate check -          # from standard input\n  \
        hawkgate check conf/hawkgate.toml --format json    # for programs\n\n\
        Each error is printed with its line, key and remedy.\n\n\
        Exit codes: 0 valid, 1 invalid, 2 usage error.")]
    Check(Check),
    /// Explain step by step why a request would be allowed or refused
    #[command(after_help = "Examples:\n  \
        hawkgate explain --config my.toml --url /api/queue/v1/ping --token-file token.txt\n  \
        hawkgate token | hawkgate explain --url https://tc.example.com/api/x --token-file -\n  \
        hawkgate explain --url /api/x --token-file token.txt --exchange --format json\n  \
        hawkgate explain --token-file token.txt   # without a configuration: what the token is, and the\n                                            \
        # [[issuer]] to start from\n\n\
        Nothing is sent upstream. The issuer's keys are fetched, unless --offline is given; \
        credentials are obtained only with --exchange. Secrets are never printed.\n\n\
        Exit codes: 0 allowed, 1 refused or undetermined, 2 usage error. Without a configuration: \
        0 a token, 1 something else.")]
    Explain(Explain),
    /// Print the JSON Schema of the configuration file
    #[command(after_help = "Example:\n  \
        hawkgate schema > hawkgate.schema.json\n\n\
        The schema (draft 2020-12) is for editors and validators. `hawkgate check` reports more: \
        references between tables, secrets and files.")]
    Schema,
    /// Print the script that completes commands and options in a shell
    #[command(after_help = "Examples:\n  \
        hawkgate completions bash > ~/.local/share/bash-completion/completions/hawkgate\n  \
        hawkgate completions zsh > \"${fpath[1]}/_hawkgate\"\n  \
        hawkgate completions fish > ~/.config/fish/completions/hawkgate.fish")]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the manual page
    #[command(after_help = "Examples:\n  \
        hawkgate man | man -l -\n  \
        hawkgate man > /usr/local/share/man/man1/hawkgate.1")]
    Man,
    /// Take a guided tour of hawkgate with a built-in identity provider and API
    #[command(after_help = "Examples:\n  \
        hawkgate demo                                  # take the tour, then try it in a browser\n  \
        hawkgate demo --once                           # exit after the tour; 1 if a step failed\n  \
        hawkgate demo --print-config > hawkgate.toml   # a configuration to start from\n\n\
        Everything runs in one process and listens on free loopback ports, with keys generated for \
        this run.")]
    Demo(Demo),
    /// Register, update or delete an OAuth client at an issuer (RFC 7591, RFC 7592)
    #[command(after_help = register::EXAMPLES, next_line_help = true)]
    Register(Box<register::Register>),
    /// Sign in from the terminal and store the tokens
    #[command(after_help = login::EXAMPLES)]
    Login(Box<login::Login>),
    /// Print the stored access token, refreshing it first if necessary
    #[command(after_help = token::EXAMPLES)]
    Token(token::Token),
    /// Sign out: revoke the stored tokens and delete them
    #[command(after_help = logout::EXAMPLES)]
    Logout(logout::Logout),
    /// Run as a drop-in replacement for taskcluster-proxy
    #[command(after_help = taskcluster_proxy::EXAMPLES, infer_long_args = true)]
    TaskclusterProxy(Box<taskcluster_proxy::TaskclusterProxy>),
}

/// The configuration file that is used if none is named.
const DEFAULT_CONFIG: &str = "conf/hawkgate.toml";

#[derive(Args, Debug)]
struct ConfigFile {
    /// Configuration file
    #[arg(
        long = "config",
        value_name = "FILE",
        env = "HAWKGATE_CONFIG",
        hide_env_values = true,
        default_value = DEFAULT_CONFIG
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
    /// Do not watch files for changes; reload only on SIGHUP
    #[arg(long)]
    no_watch: bool,
    /// Print the configuration with all defaults filled in and without secrets, and exit
    #[arg(long)]
    print_config: bool,
}

#[derive(Args, Debug)]
struct Check {
    /// Configuration file, or - for standard input [default: conf/hawkgate.toml] [env: HAWKGATE_CONFIG]
    #[arg(value_name = "FILE", conflicts_with = "config")]
    file: Option<PathBuf>,
    /// The same as an option
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Do not check that secrets and other referenced files exist
    #[arg(long)]
    skip_secrets: bool,
    /// Output format
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: OutputFormat,
}

#[derive(Args, Debug)]
struct Demo {
    /// Exit after the tour instead of keeping everything running
    #[arg(long)]
    once: bool,
    /// Print the demo's configuration, with comments, and exit
    #[arg(long, conflicts_with = "once")]
    print_config: bool,
}

#[derive(Args, Debug)]
struct Explain {
    /// Configuration file [default: conf/hawkgate.toml]. Without one, --token-file alone is explained
    #[arg(
        long = "config",
        value_name = "FILE",
        env = "HAWKGATE_CONFIG",
        hide_env_values = true
    )]
    config: Option<PathBuf>,
    /// Request method
    #[arg(long, value_name = "METHOD", default_value = "GET")]
    method: String,
    /// Request URL, or just its path
    #[arg(long, value_name = "URL", default_value = "/")]
    url: String,
    /// File with the bearer token, or - for standard input
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// File with a browser's Cookie field, or the value of the session's cookie, or - for standard input
    #[arg(long, value_name = "FILE", conflicts_with = "token_file")]
    cookie_file: Option<PathBuf>,
    /// File with username:password, or - for standard input, for routes that use passwords
    #[arg(long, value_name = "FILE", conflicts_with_all = ["token_file", "cookie_file"])]
    user_file: Option<PathBuf>,
    /// IP address that the request comes from
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    client: IpAddr,
    /// Origin of the web page that sends the request, such as https://app.example.com
    #[arg(long, value_name = "ORIGIN")]
    origin: Option<String>,
    /// User-Agent of the request
    #[arg(long, value_name = "TEXT")]
    user_agent: Option<String>,
    /// Make no network requests, not even for the issuer's keys
    #[arg(long, conflicts_with = "exchange")]
    offline: bool,
    /// Obtain the credentials, and show their name, scopes and expiry
    #[arg(long)]
    exchange: bool,
    /// Output format
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: OutputFormat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum OutputFormat {
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Json,
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
    if taskcluster_proxy::is_named_so(std::env::args_os().next().as_ref()) {
        return taskcluster_proxy::main_as_link();
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage_error(&error),
    };
    match cli.command {
        Command::Run(run) => run::main(&run),
        Command::Check(check) => check::main(&check),
        Command::Demo(demo) => demo::main(&demo),
        Command::Explain(explain) => explain::main(&explain),
        Command::Schema => schema::main(),
        Command::Completions { shell } => completions::main(shell),
        Command::Man => completions::man(),
        Command::Register(register) => register::main(&register),
        Command::Login(login) => login::main(&login),
        Command::Token(token) => token::main(&token),
        Command::Logout(logout) => logout::main(&logout),
        Command::TaskclusterProxy(args) => taskcluster_proxy::main(*args),
    }
}

/// Prints help, the version or an error, with clap's exit codes: 0 for help and version, 2 for errors.
fn usage_error(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
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
    fn a_missing_subcommand_or_unknown_option_is_a_usage_error() {
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
    fn run_takes_config_and_log_format_options() {
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
