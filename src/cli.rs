//! The command line (see `hawkgate --help`) and what each exit code means:
//! 0 done, 1 invalid configuration or failure, 2 wrong usage.

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

use hawkgate::config::LogFormat;

/// Puts Taskcluster (or any API) behind your sign-in: callers send an OIDC bearer token,
/// hawkgate checks it, swaps it for the API's own credentials, signs the request and,
/// when the API says those credentials have gone stale, fetches fresh ones and sends the
/// request again before the caller notices.
#[derive(Parser, Debug)]
#[command(
    name = "hawkgate",
    version = version(),
    arg_required_else_help = true,
    after_help = "Never seen it before? Run `hawkgate demo`: it needs nothing and explains itself.\n\n\
        Exit codes: 0 done, 1 invalid configuration or failure, 2 wrong usage."
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
    /// Serve until SIGTERM or SIGINT
    #[command(after_help = "Examples:\n  \
        hawkgate run --config /etc/hawkgate/hawkgate.toml\n  \
        HAWKGATE_CONFIG=my.toml hawkgate run --log-format text\n\n\
        Signals: SIGTERM and SIGINT let requests under way finish (server.drain), a second one \
        ends at once. SIGHUP reloads, and so does a change of the file or of one that it names.\n\
        Logs go to stderr; metrics and health are on the admin address (server.admin).")]
    Run(Run),
    /// Say everything that is wrong with a configuration file
    #[command(after_help = "Examples:\n  \
        hawkgate check --config conf/hawkgate.toml\n  \
        hawkgate check --config conf/hawkgate.toml --skip-secrets   # on a machine without the secrets\n\n\
        Exit code 0: valid. 1: not; each error is printed with its line, key and remedy.")]
    Check(Check),
    /// Say why a request would pass or not, step by step
    #[command(after_help = "Examples:\n  \
        hawkgate explain --config my.toml --url /api/queue/v1/ping --token-file token.txt\n  \
        get-token | hawkgate explain --url https://tc.example.com/api/x --token-file -\n  \
        hawkgate explain --url /api/x --token-file token.txt --exchange --format json\n\n\
        Nothing is sent upstream. The issuer's keys are fetched, but not with --offline; the \
        credential is only asked for with --exchange. Secrets are never printed.\n\n\
        Exit code 0: it would pass. 1: it would not, or it cannot be known. 2: wrong usage.")]
    Explain(Explain),
    /// Print the JSON Schema of the configuration file, for editors and other checkers
    #[command(after_help = "Example:\n  \
        hawkgate schema > hawkgate.schema.json\n\n\
        JSON Schema draft 2020-12. `hawkgate check` says more: bounds, and what concerns several keys.")]
    Schema,
    /// See it work: an identity provider, an API and hawkgate, all in this process
    #[command(after_help = "Examples:\n  \
        hawkgate demo          # explains itself, then stays up for you to try\n  \
        hawkgate demo --once   # ends after the tour; exit code 1 if any step went wrong\n\n\
        Everything listens on loopback only, on free ports, with throw-away keys.")]
    Demo(Demo),
    /// Become a client of an issuer (RFC 7591), stay one, or cease to be one (RFC 7592)
    #[command(after_help = register::EXAMPLES)]
    Register(Box<register::Register>),
    /// Sign in from this shell, to try a gateway
    #[command(after_help = login::EXAMPLES)]
    Login(Box<login::Login>),
    /// Print the token of the last `hawkgate login`, fresh
    #[command(after_help = token::EXAMPLES)]
    Token(token::Token),
    /// End the tokens of the last `hawkgate login`
    #[command(after_help = logout::EXAMPLES)]
    Logout(logout::Logout),
    /// Stand in for taskcluster-proxy: its arguments and variables, no configuration file
    #[command(after_help = "Examples:\n  \
        TASKCLUSTER_ROOT_URL=https://tc.example.com TASKCLUSTER_CLIENT_ID=… TASKCLUSTER_ACCESS_TOKEN=… \
        hawkgate taskcluster-proxy\n  \
        hawkgate taskcluster-proxy --task-id KTBKfEgxR5GdfIIREQIvFQ 'queue:get-artifact:public/*'\n  \
        hawkgate taskcluster-proxy --print-config > hawkgate.toml   # to go on from there\n\n\
        Secrets come from TASKCLUSTER_ACCESS_TOKEN and TASKCLUSTER_CERTIFICATE only. Listens on loopback only. \
        What differs: docs/migrating-from-taskcluster-proxy.md.")]
    TaskclusterProxy(Box<taskcluster_proxy::TaskclusterProxy>),
}

#[derive(Args, Debug)]
struct ConfigFile {
    /// The configuration file
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
    /// How log lines look [default: what the file says, else json]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<Format>,
    /// Reload on SIGHUP only, not when the file or one that it names changes
    #[arg(long)]
    no_watch: bool,
    /// Print the whole configuration, every default filled in, without secrets, and end
    #[arg(long)]
    print_config: bool,
}

#[derive(Args, Debug)]
struct Check {
    #[command(flatten)]
    config: ConfigFile,
    /// Do not ask whether secrets and the other files that are named exist
    #[arg(long)]
    skip_secrets: bool,
}

#[derive(Args, Debug)]
struct Demo {
    /// End after the tour instead of staying up
    #[arg(long)]
    once: bool,
}

#[derive(Args, Debug)]
struct Explain {
    #[command(flatten)]
    config: ConfigFile,
    /// The request's method
    #[arg(long, value_name = "METHOD", default_value = "GET")]
    method: String,
    /// The request's URL, or its path alone
    #[arg(long, value_name = "URL", default_value = "/")]
    url: String,
    /// Where the bearer token is: a file, or - for standard input
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Where username:password is, for a route that asks for these: a file, or - for standard input
    #[arg(long, value_name = "FILE", conflicts_with = "token_file")]
    user_file: Option<PathBuf>,
    /// The address that the request comes from
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    client: IpAddr,
    /// The request's User-Agent
    #[arg(long, value_name = "TEXT")]
    user_agent: Option<String>,
    /// Ask nobody, not even for the issuer's keys
    #[arg(long, conflicts_with = "exchange")]
    offline: bool,
    /// Really get the credential, and tell its name, scopes and end
    #[arg(long)]
    exchange: bool,
    /// How the answer looks
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: ExplainFormat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ExplainFormat {
    /// For people
    Text,
    /// One JSON object
    Json,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// One JSON object a line
    Json,
    /// For people
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

/// Everything, from the arguments to the exit code.
pub(crate) fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Help and version are not errors to clap, a missing subcommand is one: 0 and 2.
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
    fn the_command_line_is_consistent() {
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
    fn the_file_is_named_by_option_or_default() {
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
