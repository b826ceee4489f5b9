//! The client's metadata as flags, over a file with more of it.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Map, Value, json};

use hawkgate::registration::{AuthMethod, ClientMetadata};
use hawkgate::secret::SecretRef;

use crate::cli::exit::{CommandError, usage};

#[derive(Args, Debug)]
#[command(next_help_heading = "The client's metadata (RFC 7591 §2)")]
pub(super) struct MetadataArgs {
    /// JSON object with metadata; the flags below replace members of it
    #[arg(long, value_name = "FILE")]
    metadata_file: Option<PathBuf>,
    /// What people read when they are asked for consent
    #[arg(long, value_name = "NAME")]
    client_name: Option<String>,
    /// Where people come back to; more than one may be given
    #[arg(long, value_name = "URI")]
    redirect_uri: Vec<String>,
    /// authorization_code, refresh_token, client_credentials, …; more than one may be given
    #[arg(long, value_name = "GRANT")]
    grant_type: Vec<String>,
    /// code; more than one may be given
    #[arg(long, value_name = "TYPE")]
    response_type: Vec<String>,
    /// How the client proves itself: none, client_secret_basic, client_secret_post, private_key_jwt
    #[arg(long, value_name = "METHOD", value_parser = AuthMethod::ALL.map(AuthMethod::name))]
    auth_method: Option<String>,
    /// Scopes that it may ask for, separated by spaces
    #[arg(long, value_name = "SCOPES")]
    scope: Option<String>,
    /// native or web [default: native with a redirect URI on loopback]
    #[arg(long, value_name = "TYPE")]
    application_type: Option<String>,
    /// JWK Set with its public keys
    #[arg(long, value_name = "FILE")]
    jwks_file: Option<PathBuf>,
    /// Where its JWK Set is
    #[arg(long, value_name = "URL")]
    jwks_uri: Option<String>,
    /// Whom to ask about it; more than one may be given
    #[arg(long, value_name = "WHO")]
    contact: Vec<String>,
    /// Its home page
    #[arg(long, value_name = "URL")]
    client_uri: Option<String>,
    /// Its logo
    #[arg(long, value_name = "URL")]
    logo_uri: Option<String>,
    /// Its privacy policy
    #[arg(long, value_name = "URL")]
    policy_uri: Option<String>,
    /// Its terms of service
    #[arg(long, value_name = "URL")]
    tos_uri: Option<String>,
    /// Which software it is
    #[arg(long, value_name = "ID")]
    software_id: Option<String>,
    /// Which version of it
    #[arg(long, value_name = "VERSION")]
    software_version: Option<String>,
    /// A signed statement about the software
    #[arg(long, value_name = "FILE")]
    software_statement_file: Option<PathBuf>,
}

impl MetadataArgs {
    /// All of it, checked.
    pub(super) fn wanted(&self) -> Result<ClientMetadata, CommandError> {
        let mut members = match &self.metadata_file {
            Some(path) => match json_file(path)? {
                Value::Object(members) => members,
                _ => return usage(format!("{}: must be a JSON object", path.display())),
            },
            None => Map::new(),
        };
        self.flags(&mut members)?;
        ClientMetadata::new(members).map_err(|errors| {
            let lines: Vec<_> = errors.iter().map(|e| format!("\n  {e}")).collect();
            CommandError::Usage(format!(
                "the client's metadata is no good:{}",
                lines.concat()
            ))
        })
    }

    fn flags(&self, members: &mut Map<String, Value>) -> Result<(), CommandError> {
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
            let statement = SecretRef::File(path.clone()).read()?;
            members.insert("software_statement".to_owned(), json!(statement.expose()));
        }
        Ok(())
    }
}

fn json_file(path: &Path) -> Result<Value, CommandError> {
    let content = SecretRef::File(path.to_owned()).read()?;
    serde_json::from_str(content.expose()).map_err(|e| {
        let (path, line, column) = (path.display(), e.line(), e.column());
        CommandError::Failed(format!("{path}: not JSON (line {line}, column {column})"))
    })
}
