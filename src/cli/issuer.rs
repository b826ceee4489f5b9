//! What `register`, `login` and `token` have in common: how an issuer is spoken to.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use hawkgate::clock::{SharedClock, SystemClock};
use hawkgate::remote::http_client::{HttpClient, HttpClientOptions};

use super::exit::{CommandError, status};
use super::process;

/// The largest answer of an issuer that is read, in bytes.
const MAX_BYTES: usize = 256 * 1024;
/// For one answer.
const TIMEOUT: Duration = Duration::from_secs(15);

#[derive(Args, Debug)]
pub(super) struct Network {
    /// PEM file with the only CAs to trust [default: the system's]
    #[arg(long = "ca", value_name = "FILE")]
    pub(super) ca: Option<PathBuf>,
}

/// A client for an issuer, which trusts `ca` only, if that is given.
pub(super) fn client(ca: Option<PathBuf>) -> Result<HttpClient, CommandError> {
    Ok(HttpClient::new(&HttpClientOptions {
        timeout: TIMEOUT,
        max_bytes: MAX_BYTES,
        ca,
    })?)
}

/// Runs a command that speaks to an issuer: TLS ready, no core dumps of its secrets.
pub(super) fn run<F>(command: impl FnOnce(SharedClock) -> F) -> Result<(), CommandError>
where
    F: Future<Output = Result<(), CommandError>>,
{
    if let Err(error) = process::forbid_core_dumps() {
        status(&format!(
            "warning: core dumps cannot be switched off: {error}"
        ));
    }
    process::install_crypto();
    let runtime = process::runtime()?;
    let end = runtime.block_on(command(SystemClock::shared()));
    runtime.shutdown_background();
    end
}

/// Told once when another hawkgate has the file.
pub(super) fn waiting() {
    status("another hawkgate is changing the same file; waiting for it to end");
}
