//! The command line. Unknown flags of the standard test harness are accepted, so that
//! `cargo test -- --nocapture` works for all test binaries.

use std::time::Duration;

use crate::scenario::{ALL, Scenario};

const USAGE: &str =
    "usage: cargo test --test chaos -- [NAME...] [--seed N] [--minutes N] [--parallel N] [--list]

  NAME        run only the scenarios whose names contain this text
  --seed      the first seed (default 1); a scenario with the same seed sends the same requests
  --minutes   repeat all scenarios with further seeds for this long (default: once)
  --parallel  scenarios that run at the same time (default 4)
  --list      print the names of the scenarios";

/// What to do.
pub(crate) enum Command {
    /// Run scenarios.
    Run(Arguments),
    /// List the scenarios.
    List,
    /// Be one of the peers; only used by the suite itself.
    Peer(Role),
}

/// Which peer a child process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The identity provider: discovery and keys.
    IdentityProvider,
    /// The exchange: `oidcCredentials`.
    Exchange,
    /// The upstream: checks Hawk.
    Upstream,
}

impl Role {
    /// The argument that selects it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::IdentityProvider => "identity-provider",
            Self::Exchange => "exchange",
            Self::Upstream => "upstream",
        }
    }
}

/// The arguments of a run.
pub(crate) struct Arguments {
    pub(crate) seed: u64,
    pub(crate) duration: Duration,
    pub(crate) parallel: usize,
    names: Vec<String>,
}

impl Arguments {
    /// The selected scenarios.
    pub(crate) fn scenarios(&self) -> impl Iterator<Item = &'static Scenario> + '_ {
        ALL.iter().filter(|scenario| {
            self.names.is_empty() || self.names.iter().any(|name| scenario.name.contains(name))
        })
    }
}

/// Parses the arguments after the program's name.
pub(crate) fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Command, String> {
    let mut run = Arguments {
        seed: 1,
        duration: Duration::ZERO,
        parallel: 4,
        names: Vec::new(),
    };
    while let Some(argument) = arguments.next() {
        let mut number = |least: u64| {
            let value = arguments.next().and_then(|value| value.parse().ok());
            value
                .filter(|value| *value >= least)
                .ok_or_else(|| format!("{argument} needs a number, at least {least}\n\n{USAGE}"))
        };
        match argument.as_str() {
            "peer" => {
                let name = arguments.next().unwrap_or_default();
                let roles = [Role::IdentityProvider, Role::Exchange, Role::Upstream];
                let role = roles.into_iter().find(|role| role.name() == name);
                return role
                    .map(Command::Peer)
                    .ok_or_else(|| format!("there is no peer {name:?}\n\n{USAGE}"));
            }
            "--seed" => run.seed = number(0)?,
            "--minutes" => run.duration = Duration::from_mins(number(0)?),
            "--parallel" => run.parallel = usize::try_from(number(1)?).unwrap_or(usize::MAX),
            "--list" => return Ok(Command::List),
            "--help" | "-h" => return Err(USAGE.to_owned()),
            // Of the standard harness, with a value.
            "--test-threads" | "--format" | "--color" | "--skip" => drop(arguments.next()),
            flag if flag.starts_with('-') => {}
            name => run.names.push(name.to_owned()),
        }
    }
    Ok(Command::Run(run))
}
