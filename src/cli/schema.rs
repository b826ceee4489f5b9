//! `hawkgate schema`

use std::io::{self, Write};
use std::process::ExitCode;

use hawkgate::config;

pub(super) fn main() -> ExitCode {
    match io::stdout().write_all(config::schema().as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads has gone (`| head`): half a schema is a failure all the same.
        Err(_) => ExitCode::FAILURE,
    }
}
