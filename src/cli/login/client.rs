//! Chooses the OAuth client to sign in with: one from a `hawkgate register` state file, or one
//! described by arguments.

use std::path::PathBuf;

use clap::Args;

use hawkgate::private_file::state::PersistentState as _;
use hawkgate::private_file::{DirectoryPolicy, PrivateFile};
use hawkgate::registration::{AuthMethod, RegistrationState};
use hawkgate::remote::provider_metadata::ProviderMetadata;
use hawkgate::remote::settings::OauthClient;
use hawkgate::signin::{LoopbackRedirect, SessionClient};

use crate::cli::exit::{CommandError, failed, usage};
use crate::cli::issuer;

#[derive(Args, Debug)]
#[command(next_help_heading = "OAuth client")]
pub(super) struct ClientArgs {
    /// State file of `hawkgate register`
    #[arg(long, value_name = "FILE", conflicts_with_all = ["issuer", "client_id"])]
    state: Option<PathBuf>,
    /// Issuer identifier, exactly as in its metadata, including any trailing slash
    #[arg(long, value_name = "URL", requires = "client_id")]
    issuer: Option<String>,
    /// Client identifier
    #[arg(long, value_name = "ID", requires = "issuer")]
    client_id: Option<String>,
    /// File with the client secret, if the client has one
    #[arg(long, value_name = "FILE", conflicts_with = "private_key_file")]
    client_secret_file: Option<PathBuf>,
    /// File with the client's private key (PEM), for private_key_jwt
    #[arg(long, value_name = "FILE")]
    private_key_file: Option<PathBuf>,
    /// How the client authenticates [default: client_secret_basic with a secret,
    /// private_key_jwt with a key, else none]
    #[arg(long, value_name = "METHOD", value_parser = AuthMethod::ALL.map(AuthMethod::name))]
    auth_method: Option<String>,
}

/// The OAuth client to sign in with.
#[derive(Debug)]
pub(super) struct LoginClient {
    pub(super) issuer: String,
    pub(super) id: String,
    method: AuthMethod,
    /// The file with the client secret or private key.
    secret_file: Option<PathBuf>,
    /// The scopes it was registered with, if known.
    pub(super) scope: Option<String>,
    /// Its registered loopback redirect URI, if known.
    pub(super) redirect_uri: Option<String>,
}

impl ClientArgs {
    pub(super) fn resolve(&self) -> Result<LoginClient, CommandError> {
        if let Some(path) = &self.state {
            return self.load_state_file(path);
        }
        let (Some(issuer), Some(id)) = (&self.issuer, &self.client_id) else {
            return usage("no client given: use --state, or --issuer and --client-id");
        };
        let method = self.method()?;
        require_secret(LoginClient {
            issuer: issuer.clone(),
            id: id.clone(),
            method,
            secret_file: self.given_secret_file(),
            scope: None,
            redirect_uri: None,
        })
    }

    fn load_state_file(&self, path: &std::path::Path) -> Result<LoginClient, CommandError> {
        let shown = path.display();
        let file = PrivateFile::new(std::path::absolute(path)?, DirectoryPolicy::OthersMayRead);
        let state = RegistrationState::load(&file)?;
        let Some((issuer, registration)) = state.and_then(|s| Some((s.issuer, s.registration?)))
        else {
            return failed(format!(
                "{shown}: no registered client in this file; run `hawkgate register`"
            ));
        };
        let method = match &self.auth_method {
            Some(_) => self.method()?,
            None => registration.auth_method,
        };
        let uris = registration.metadata.redirect_uris();
        let loopback = uris
            .into_iter()
            .find(|uri| LoopbackRedirect::parse(uri).is_ok());
        require_secret(LoginClient {
            issuer,
            method,
            secret_file: self
                .given_secret_file()
                .or_else(|| registration.secret_file.clone()),
            scope: registration.metadata.scope().map(str::to_owned),
            redirect_uri: loopback.map(str::to_owned),
            id: registration.client_id,
        })
    }

    fn given_secret_file(&self) -> Option<PathBuf> {
        self.client_secret_file
            .clone()
            .or_else(|| self.private_key_file.clone())
    }

    fn method(&self) -> Result<AuthMethod, CommandError> {
        let default = match (&self.client_secret_file, &self.private_key_file) {
            (Some(_), _) => AuthMethod::ClientSecretBasic,
            (None, Some(_)) => AuthMethod::PrivateKeyJwt,
            (None, None) => AuthMethod::None,
        };
        match self.auth_method.as_deref() {
            None => Ok(default),
            Some(name) => match AuthMethod::from_name(name) {
                Some(method) => Ok(method),
                None => usage("--auth-method: unknown method"),
            },
        }
    }
}

impl LoginClient {
    /// How the client authenticates at `provider`'s endpoints.
    pub(super) fn oauth_client(
        &self,
        provider: &ProviderMetadata,
    ) -> Result<OauthClient, CommandError> {
        issuer::oauth_client(&self.session_client()?, &provider.issuer)
    }

    /// The client as saved with the session, for refreshing.
    pub(super) fn session_client(&self) -> Result<SessionClient, CommandError> {
        let file = match self.method {
            AuthMethod::None => None,
            _ => self
                .secret_file
                .as_ref()
                .map(std::path::absolute)
                .transpose()?,
        };
        Ok(SessionClient {
            id: self.id.clone(),
            auth_method: self.method,
            secret_file: file,
        })
    }
}

/// Fails if the client's authentication method needs a secret or key and there is none.
fn require_secret(client: LoginClient) -> Result<LoginClient, CommandError> {
    if client.method != AuthMethod::None && client.secret_file.is_none() {
        let (name, flag) = match client.method {
            AuthMethod::PrivateKeyJwt => ("private_key_jwt", "--private-key-file"),
            method => (method.name(), "--client-secret-file"),
        };
        return usage(format!("the client authenticates with {name}: give {flag}"));
    }
    Ok(client)
}
