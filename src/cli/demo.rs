//! `hawkgate demo`

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use hawkgate::demo::{self, DemoError, Style};

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
        if !args.once {
            demo::wait_for_ctrl_c(style, &mut out).await?;
        }
        demo.shutdown().await;
        Ok(())
    });
    runtime.shutdown_background();
    result
}

/// How this program was called, for commands to paste.
fn program() -> String {
    std::env::args().next().unwrap_or_else(|| "hawkgate".into())
}
