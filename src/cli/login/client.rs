//! With which client a person signs in: the one that `hawkgate register` made, or one that
//! was made by hand.

use std::path::PathBuf;

use clap::Args;

use hawkgate::config::{AssertionKey, ClientProof, OauthClient};
use hawkgate::private_file::{DirectoryPolicy, PrivateFile};
use hawkgate::registration::{AuthMethod, RegistrationState};
use hawkgate::remote::provider_metadata::ProviderMetadata;
use hawkgate::secret::SecretRef;
use hawkgate::signin::{LoopbackRedirect, SessionClient};

use crate::cli::exit::{CommandError, failed, usage};

#[derive(Args, Debug)]
#[command(next_help_heading = "The client")]
pub(super) struct ClientArgs {
    /// The state file of `hawkgate register`
    #[arg(long, value_name = "FILE", conflicts_with_all = ["issuer", "client_id"])]
    state: Option<PathBuf>,
    /// The issuer's identifier, to the slash
    #[arg(long, value_name = "URL", requires = "client_id")]
    issuer: Option<String>,
    /// The client's identifier
    #[arg(long, value_name = "ID", requires = "issuer")]
    client_id: Option<String>,
    /// Its secret, if it has one
    #[arg(long, value_name = "FILE", conflicts_with = "private_key_file")]
    client_secret_file: Option<PathBuf>,
    /// Its private key (PEM), if it proves itself with one
    #[arg(long, value_name = "FILE")]
    private_key_file: Option<PathBuf>,
    /// How it proves itself [default: none, client_secret_basic or private_key_jwt, by the
    /// files given]
    #[arg(long, value_name = "METHOD", value_parser = AuthMethod::ALL.map(AuthMethod::name))]
    auth_method: Option<String>,
}

/// A client, wherever it came from.
#[derive(Debug)]
pub(super) struct LoginClient {
    pub(super) issuer: String,
    pub(super) id: String,
    method: AuthMethod,
    /// With its secret or its private key.
    file: Option<PathBuf>,
    /// What it was registered for.
    pub(super) scope: Option<String>,
    /// Its redirect URI on loopback.
    pub(super) redirect_uri: Option<String>,
}

impl ClientArgs {
    pub(super) fn who(&self) -> Result<LoginClient, CommandError> {
        if let Some(path) = &self.state {
            return self.from_state_file(path);
        }
        let (Some(issuer), Some(id)) = (&self.issuer, &self.client_id) else {
            return usage("say with which client: --state, or --issuer and --client-id");
        };
        let method = self.method()?;
        checked(LoginClient {
            issuer: issuer.clone(),
            id: id.clone(),
            method,
            file: self.proof_file(),
            scope: None,
            redirect_uri: None,
        })
    }

    fn from_state_file(&self, path: &std::path::Path) -> Result<LoginClient, CommandError> {
        let shown = path.display();
        let file = PrivateFile::new(std::path::absolute(path)?, DirectoryPolicy::OthersMayRead);
        let state = RegistrationState::read(&file)?;
        let Some((issuer, registration)) = state.and_then(|s| Some((s.issuer, s.registration?)))
        else {
            return failed(format!(
                "{shown}: no client is registered there; run `hawkgate register`"
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
        checked(LoginClient {
            issuer,
            method,
            file: self
                .proof_file()
                .or_else(|| registration.secret_file.clone()),
            scope: registration.metadata.scope().map(str::to_owned),
            redirect_uri: loopback.map(str::to_owned),
            id: registration.client_id,
        })
    }

    fn proof_file(&self) -> Option<PathBuf> {
        self.client_secret_file
            .clone()
            .or_else(|| self.private_key_file.clone())
    }

    fn method(&self) -> Result<AuthMethod, CommandError> {
        let by_files = match (&self.client_secret_file, &self.private_key_file) {
            (Some(_), _) => AuthMethod::ClientSecretBasic,
            (None, Some(_)) => AuthMethod::PrivateKeyJwt,
            (None, None) => AuthMethod::None,
        };
        match self.auth_method.as_deref() {
            None => Ok(by_files),
            Some(name) => match AuthMethod::from_name(name) {
                Some(method) => Ok(method),
                None => usage("--auth-method is none that hawkgate knows"),
            },
        }
    }
}

impl LoginClient {
    /// LoginClient we are at `provider`'s endpoints.
    pub(super) fn at(&self, provider: &ProviderMetadata) -> Result<OauthClient, CommandError> {
        own(&self.client()?, &provider.issuer)
    }

    /// As it is kept for refreshing.
    pub(super) fn client(&self) -> Result<SessionClient, CommandError> {
        let file = match self.method {
            AuthMethod::None => None,
            _ => self.file.as_ref().map(std::path::absolute).transpose()?,
        };
        Ok(SessionClient {
            id: self.id.clone(),
            auth_method: self.method,
            secret_file: file,
        })
    }
}

/// A client that has to prove itself has something to do it with.
fn checked(who: LoginClient) -> Result<LoginClient, CommandError> {
    if who.method != AuthMethod::None && who.file.is_none() {
        let (name, flag) = match who.method {
            AuthMethod::PrivateKeyJwt => ("private_key_jwt", "--private-key-file"),
            method => (method.name(), "--client-secret-file"),
        };
        return usage(format!("the client proves itself by {name}: give {flag}"));
    }
    Ok(who)
}

/// A client as the token endpoint of `issuer` wants it proved; its secret stays in its file.
pub(in crate::cli) fn own(
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
                "no file is known with what {} needs",
                method.name()
            ));
        }
    };
    Ok(OauthClient {
        id: client.id.clone(),
        proof,
    })
}
