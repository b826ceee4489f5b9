//! `hawkgate demo`

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use hawkgate::clock::SystemClock;
use hawkgate::demo::{self, DemoError, Style};

use super::signals::Signals;
use super::{Demo, process};

pub(super) fn main(args: &Demo) -> ExitCode {
    let result = if args.print_config {
        print_config()
    } else {
        run(args)
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "hawkgate demo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn print_config() -> Result<(), DemoError> {
    Ok(io::stdout().write_all(demo::CONFIG.as_bytes())?)
}

fn run(args: &Demo) -> Result<(), DemoError> {
    // The demo needs few descriptors and works with the limit as it is.
    let _ = process::raise_descriptor_limit();
    process::install_crypto();
    let mut out = io::stdout();
    let style = Style::new(out.is_terminal());
    let runtime = process::runtime()?;
    let result = runtime.block_on(async {
        let demo = demo::start().await?;
        demo::tour(&demo, style, &mut out).await?;
        demo::next_steps(&program(), style, &mut out)?;
        if args.once {
            demo.shutdown().await;
            return Ok(());
        }
        let mut signals = Signals::new(SystemClock::shared())?;
        demo::keeps_running(style, &mut out)?;
        signals.stop().await;
        writeln!(out)?;
        tokio::select! {
            () = demo.shutdown() => {}
            _ = signals.stop() => {}
        }
        Ok(())
    });
    runtime.shutdown_background();
    result
}

/// How this program was called, for commands to paste.
fn program() -> String {
    std::env::args().next().unwrap_or_else(|| "hawkgate".into())
}
