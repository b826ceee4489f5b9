//! Shared by the commands that talk to an issuer: `--ca`, the HTTP client, client authentication
//! and the runtime.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use hawkgate::clock::{SharedClock, SystemClock};
use hawkgate::network::Network as Proxies;
use hawkgate::registration::AuthMethod;
use hawkgate::remote::http_client::{HttpClient, HttpClientOptions};
use hawkgate::remote::settings::{AssertionKey, ClientProof, OauthClient};
use hawkgate::secret::SecretRef;
use hawkgate::signin::SessionClient;

use super::exit::{CommandError, failed, status};
use super::process;

/// The largest response accepted from an issuer, in bytes.
const MAX_RESPONSE_BYTES: usize = 256 * 1024;
/// The timeout of one request, including connecting.
const TIMEOUT: Duration = Duration::from_secs(15);

#[derive(Args, Debug)]
pub(super) struct Network {
    /// Trust only the CA certificates in this PEM file [default: the system's]
    #[arg(long = "ca", value_name = "FILE")]
    pub(super) ca: Option<PathBuf>,
}

/// An HTTP client for an issuer. It trusts only the CAs in the PEM file `ca`, if given.
pub(super) fn client(ca: Option<PathBuf>) -> Result<HttpClient, CommandError> {
    Ok(HttpClient::new(&HttpClientOptions {
        timeout: TIMEOUT,
        max_bytes: MAX_RESPONSE_BYTES,
        ca,
        network: Proxies::from_env()?,
    })?)
}

/// How `client` authenticates at the endpoints of `issuer`. The secret is read from its file
/// for each request.
pub(super) fn oauth_client(
    client: &SessionClient,
    issuer: &str,
) -> Result<OauthClient, CommandError> {
    let secret = client.secret_file.clone().map(SecretRef::File);
    let proof = match (client.auth_method, secret) {
        (AuthMethod::None, _) => ClientProof::Public,
        (AuthMethod::ClientSecretBasic, Some(secret)) => ClientProof::SecretBasic(secret),
        (AuthMethod::ClientSecretPost, Some(secret)) => ClientProof::SecretPost(secret),
        (AuthMethod::PrivateKeyJwt, Some(key)) => ClientProof::PrivateKeyJwt(AssertionKey {
            key,
            key_id: None,
            algorithm: None,
            audience: issuer.to_owned(),
        }),
        (method, None) => {
            return failed(format!(
                "authentication method {} needs a secret or key file, but none is known",
                method.name()
            ));
        }
    };
    Ok(OauthClient {
        id: client.id.clone(),
        proof,
    })
}

/// Runs a command that talks to an issuer, with TLS set up and core dumps disabled.
pub(super) fn run<F>(command: impl FnOnce(SharedClock) -> F) -> Result<(), CommandError>
where
    F: Future<Output = Result<(), CommandError>>,
{
    if let Err(error) = process::forbid_core_dumps() {
        status(&format!("warning: cannot disable core dumps: {error}"));
    }
    process::install_crypto();
    let runtime = process::runtime()?;
    let result = runtime.block_on(command(SystemClock::shared()));
    runtime.shutdown_background();
    result
}

/// Tells the user that another process holds the lock on a private file.
pub(super) fn on_lock_wait() {
    status("waiting for another hawkgate process to finish changing the same file");
}
