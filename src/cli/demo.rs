//! `hawkgate demo`

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use hawkgate::demo::{self, Paint};

use super::{Demo, process};

pub(super) fn main(args: &Demo) -> ExitCode {
    process::install_crypto();
    let out = io::stdout();
    let paint = Paint::new(out.is_terminal());
    let runtime = match process::runtime() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    let end = runtime.block_on(async {
        let stage = demo::start().await?;
        demo::tour(&stage, paint, &mut io::stdout()).await?;
        if !args.once {
            demo::stay(&stage, paint, &mut io::stdout()).await?;
        }
        stage.strike().await;
        Ok::<(), demo::DemoError>(())
    });
    runtime.shutdown_background();
    match end {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn failed(error: &dyn std::error::Error) -> ExitCode {
    let _ = writeln!(io::stderr(), "hawkgate demo: {error}");
    ExitCode::FAILURE
}
