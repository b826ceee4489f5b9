//! `hawkgate schema`: prints the JSON Schema of the configuration file.

use std::io::{self, Write};
use std::process::ExitCode;

use hawkgate::config;

pub(super) fn main() -> ExitCode {
    match io::stdout().write_all(config::schema().as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        // The reader closed the pipe (`| head`): the output is incomplete.
        Err(_) => ExitCode::FAILURE,
    }
}
