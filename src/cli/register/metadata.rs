//! Client metadata from `--metadata-file` and the flags that override it.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Map, Value, json};

use hawkgate::registration::{AuthMethod, ClientMetadata};
use hawkgate::secret::SecretString;

use crate::cli::exit::{CommandError, usage};

#[derive(Args, Debug)]
#[command(next_help_heading = "Client metadata (RFC 7591 §2)")]
pub(super) struct MetadataArgs {
    /// JSON object with client metadata; the flags below override its members
    #[arg(long, value_name = "FILE")]
    metadata_file: Option<PathBuf>,
    /// Name shown to users, for example on the consent page
    #[arg(long, value_name = "NAME")]
    client_name: Option<String>,
    /// Redirect URI; repeatable
    #[arg(long, value_name = "URI")]
    redirect_uri: Vec<String>,
    /// Grant type: authorization_code, refresh_token, client_credentials, …; repeatable
    #[arg(long, value_name = "GRANT")]
    grant_type: Vec<String>,
    /// Response type, usually code; repeatable
    #[arg(long, value_name = "TYPE")]
    response_type: Vec<String>,
    /// How the client authenticates at the token endpoint
    #[arg(long, value_name = "METHOD", value_parser = AuthMethod::ALL.map(AuthMethod::name))]
    auth_method: Option<String>,
    /// Scopes that the client may request, separated by spaces
    #[arg(long, value_name = "SCOPES")]
    scope: Option<String>,
    /// native or web [default: native if a redirect URI is not https]
    #[arg(long, value_name = "TYPE")]
    application_type: Option<String>,
    /// File with the client's public keys as a JWK Set
    #[arg(long, value_name = "FILE")]
    jwks_file: Option<PathBuf>,
    /// URL of the client's JWK Set
    #[arg(long, value_name = "URL")]
    jwks_uri: Option<String>,
    /// Contact for this client, usually an e-mail address; repeatable
    #[arg(long, value_name = "CONTACT")]
    contact: Vec<String>,
    /// URL of the client's home page
    #[arg(long, value_name = "URL")]
    client_uri: Option<String>,
    /// URL of the client's logo
    #[arg(long, value_name = "URL")]
    logo_uri: Option<String>,
    /// URL of the client's privacy policy
    #[arg(long, value_name = "URL")]
    policy_uri: Option<String>,
    /// URL of the client's terms of service
    #[arg(long, value_name = "URL")]
    tos_uri: Option<String>,
    /// Identifier of the client software
    #[arg(long, value_name = "ID")]
    software_id: Option<String>,
    /// Version of the client software
    #[arg(long, value_name = "VERSION")]
    software_version: Option<String>,
    /// File with a software statement (a signed JWT, RFC 7591 §2.3)
    #[arg(long, value_name = "FILE")]
    software_statement_file: Option<PathBuf>,
}

impl MetadataArgs {
    /// The file's members and the flags, combined and validated.
    pub(super) fn client_metadata(&self) -> Result<ClientMetadata, CommandError> {
        let mut members = match &self.metadata_file {
            Some(path) => match json_file(path)? {
                Value::Object(members) => members,
                _ => return usage(format!("{}: must be a JSON object", path.display())),
            },
            None => Map::new(),
        };
        self.insert_flags(&mut members)?;
        ClientMetadata::new(members).map_err(|errors| {
            let lines: Vec<_> = errors.iter().map(|e| format!("\n  {e}")).collect();
            CommandError::Usage(format!("invalid client metadata:{}", lines.concat()))
        })
    }

    fn insert_flags(&self, members: &mut Map<String, Value>) -> Result<(), CommandError> {
        for (name, text) in [
            ("client_name", &self.client_name),
            ("token_endpoint_auth_method", &self.auth_method),
            ("scope", &self.scope),
            ("application_type", &self.application_type),
            ("jwks_uri", &self.jwks_uri),
            ("client_uri", &self.client_uri),
            ("logo_uri", &self.logo_uri),
            ("policy_uri", &self.policy_uri),
            ("tos_uri", &self.tos_uri),
            ("software_id", &self.software_id),
            ("software_version", &self.software_version),
        ] {
            if let Some(text) = text {
                members.insert(name.to_owned(), json!(text));
            }
        }
        for (name, list) in [
            ("redirect_uris", &self.redirect_uri),
            ("grant_types", &self.grant_type),
            ("response_types", &self.response_type),
            ("contacts", &self.contact),
        ] {
            if !list.is_empty() {
                members.insert(name.to_owned(), json!(list));
            }
        }
        if let Some(path) = &self.jwks_file {
            members.insert("jwks".to_owned(), json_file(path)?);
        }
        if let Some(path) = &self.software_statement_file {
            let statement = SecretString::read_once(path)?;
            members.insert("software_statement".to_owned(), json!(statement.expose()));
        }
        Ok(())
    }
}

fn json_file(path: &Path) -> Result<Value, CommandError> {
    let content = SecretString::read_once(path)?;
    serde_json::from_str(content.expose()).map_err(|e| {
        let (path, line, column) = (path.display(), e.line(), e.column());
        CommandError::Failed(format!("{path}: not JSON (line {line}, column {column})"))
    })
}
