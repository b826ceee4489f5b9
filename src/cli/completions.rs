//! `hawkgate completions` and `hawkgate man`: what shells and man(1) need, generated from the
//! definition of the command line.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

use super::Cli;

/// Prints the script that completes hawkgate's command line in `shell`.
pub(super) fn main(shell: Shell) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "hawkgate", &mut script);
    print(&script)
}

/// Prints the manual page hawkgate(1), in roff.
pub(super) fn man() -> ExitCode {
    match page() {
        Ok(page) => print(&page),
        Err(_) => ExitCode::FAILURE,
    }
}

fn print(text: &[u8]) -> ExitCode {
    match io::stdout().write_all(text) {
        Ok(()) => ExitCode::SUCCESS,
        // The reader closed the pipe (`| head`): the output is incomplete.
        Err(_) => ExitCode::FAILURE,
    }
}

/// Sections that the definition of the command line does not contain.
const SECTIONS: &str = r#".SH "EXIT STATUS"
.TP
.B 0
Success. For
.BR "hawkgate check" ,
the configuration is valid; for
.BR "hawkgate explain" ,
the request would be allowed.
.TP
.B 1
Failure, an invalid configuration, or a request that would be refused.
.TP
.B 2
Wrong usage: an unknown command or option, or a missing argument.
.SH SIGNALS
These concern
.B hawkgate run
and
.BR "hawkgate taskcluster\-proxy" .
.TP
.BR SIGTERM ", " SIGINT
Stop gracefully: /readyz turns false, no new connections are accepted, and requests in progress get up to
.I server.drain
to finish. Signals within 250 milliseconds of the first one count as the same, because
.BR timeout (1)
and process groups deliver several; a later one stops hawkgate at once, with exit status 1.
.TP
.B SIGHUP
Reload the configuration. Changes to the configuration file, and to files that it names, are also noticed without a
signal.
.SH ENVIRONMENT
.TP
.B HAWKGATE_CONFIG
The configuration file, if it is not named on the command line.
.TP
.BR TASKCLUSTER_ROOT_URL ", " TASKCLUSTER_CLIENT_ID ", " TASKCLUSTER_ACCESS_TOKEN ", " TASKCLUSTER_CERTIFICATE
The deployment and the credentials of
.BR "hawkgate taskcluster\-proxy" .
.TP
.B NOTIFY_SOCKET
The socket of the service manager, which is told when hawkgate is ready and when it stops
.RB ( sd_notify (3)).
.TP
.BR LISTEN_FDS ", " LISTEN_PID
Sockets that the service manager opened
.RB ( sd_listen_fds (3)).
.TP
.BR XDG_STATE_HOME ", " HOME
Where
.BR "hawkgate login" ,
.B token
and
.B logout
keep tokens.
.PP
A configuration can name further variables from which secrets are read: { env = "NAME" }.
.SH FILES
.TP
.I conf/hawkgate.toml
The configuration file, relative to the working directory, if no other is named.
.B hawkgate schema
prints its JSON Schema, and
.B hawkgate demo \-\-print\-config
an example.
.SH DIAGNOSTICS
Logs go to standard error, one JSON object for each line unless the format is text. The errors of an invalid
configuration are written in the same format, with the members file, line, section and key. Messages about wrong usage
are always text.
"#;

/// One page for all commands.
fn page() -> io::Result<Vec<u8>> {
    let mut cli = Cli::command().disable_help_subcommand(true);
    cli.build();
    let man = Man::new(cli.clone()).source(format!("hawkgate {}", hawkgate::VERSION));
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    // The first paragraph only, because whatis(1) reads this section.
    let about = cli.get_about().map(ToString::to_string).unwrap_or_default();
    let summary = about
        .lines()
        .next()
        .unwrap_or_default()
        .trim_end_matches('.');
    writeln!(page, ".SH NAME\nhawkgate \\- {}", escaped(summary))?;
    page.extend_from_slice(b".SH SYNOPSIS\n\\fBhawkgate\\fR \\fICOMMAND\\fR [\\fIOPTIONS\\fR]\n");
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    page.extend_from_slice(b".SH COMMANDS\n");
    for command in cli.get_subcommands().filter(|c| !c.is_hide_set()) {
        render_command(command, &mut page)?;
    }
    page.extend_from_slice(SECTIONS.as_bytes());
    Ok(page)
}

/// A command as a subsection: what it does, its synopsis, options and examples.
fn render_command(command: &Command, page: &mut Vec<u8>) -> io::Result<()> {
    let name = command.get_bin_name().unwrap_or_else(|| command.get_name());
    let about = command.get_about().map(ToString::to_string);
    let man = Man::new(command.clone());
    writeln!(page, ".SS {}", escaped(name))?;
    writeln!(page, "{}.", escaped(&about.unwrap_or_default()))?;
    let mut body = Vec::new();
    man.render_synopsis_section(&mut body)?;
    man.render_options_section(&mut body)?;
    for line in body.split_inclusive(|b| *b == b'\n') {
        // The headings of sections would end the section of commands.
        page.extend_from_slice(if line.starts_with(b".SH") {
            b".PP\n"
        } else {
            line
        });
    }
    if let Some(examples) = command.get_after_help() {
        page.extend_from_slice(verbatim(&examples.to_string()).as_bytes());
    }
    Ok(())
}

/// `text` with its own line breaks.
fn verbatim(text: &str) -> String {
    let mut out = String::from(".PP\n.nf\n");
    for line in text.lines() {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{}", escaped(line));
    }
    out.push_str(".fi\n");
    out
}

/// `text` for roff (groff(7)): backslashes and hyphens escaped, and no control line.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) {
        format!("\\&{text}")
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn every_shell_has_a_script_that_knows_every_command() {
        let cli = Cli::command();
        for shell in Shell::value_variants() {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "hawkgate", &mut script);
            let script = String::from_utf8(script).unwrap();
            for command in cli.get_subcommands() {
                assert!(
                    script.contains(command.get_name()),
                    "{shell}: {}",
                    command.get_name()
                );
            }
        }
    }

    #[test]
    fn the_page_names_every_command_and_every_option() {
        let page = String::from_utf8(page().unwrap()).unwrap();
        let mut cli = Cli::command();
        cli.build();
        for command in cli.get_subcommands().filter(|c| c.get_name() != "help") {
            let heading = format!(".SS hawkgate {}\n", escaped(command.get_name()));
            assert_eq!(page.matches(&heading).count(), 1, "{heading}");
            for option in command.get_arguments().filter(|a| !a.is_hide_set()) {
                let long = option.get_long().unwrap_or_default();
                assert!(page.contains(&escaped(long)), "{heading}{long}");
            }
        }
        for section in ["EXIT STATUS", "SIGNALS", "ENVIRONMENT", "FILES"] {
            assert!(page.contains(section), "{section}");
        }
    }
}
