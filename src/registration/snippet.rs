//! The configuration snippet and the commands for using a registered client. They name the file
//! with the secret and never contain the secret itself.

use std::fmt::Write as _;
use std::path::Path;

use super::metadata::AuthMethod;
use super::state::Registration;

/// A `client-credentials` source, the command to sign in, or both, depending on the client's
/// grant types.
pub fn snippet(registration: &Registration, state_file: &Path) -> String {
    let mut text = String::new();
    if registration.metadata.has_grant("client_credentials") {
        let _ = write!(text, "\n{}", source(registration));
    }
    let sign_in_grants = [
        "authorization_code",
        "urn:ietf:params:oauth:grant-type:device_code",
    ];
    if sign_in_grants
        .iter()
        .any(|grant| registration.metadata.has_grant(grant))
    {
        let _ = write!(
            text,
            "\n# to sign in from a shell:\n#   hawkgate login --state {}\n",
            state_file.display()
        );
    }
    text
}

fn source(registration: &Registration) -> String {
    let token_url = registration.token_endpoint.as_ref();
    let mut text = String::from(
        "# add to hawkgate.toml:\n[[source]]\nname = \"own-client\"\nkind = \"client-credentials\"\n",
    );
    let mut line = |key: &str, value: &str| {
        let _ = writeln!(text, "{key} = {value}");
    };
    if let Some(url) = token_url {
        line("token_url", &quoted(url.as_str()));
    }
    line("client_id", &quoted(&registration.client_id));
    line("auth_method", &quoted(registration.auth_method.name()));
    if registration.auth_method == AuthMethod::PrivateKeyJwt {
        line(
            "private_key",
            "{ file = \"client-key.pem\" }   # the key whose public half was registered",
        );
    }
    if let Some(file) = &registration.secret_file {
        let file = quoted(&file.display().to_string());
        line("client_secret", &format!("{{ file = {file} }}"));
    }
    if let Some(scope) = registration.metadata.scope() {
        let scopes: Vec<_> = scope.split_whitespace().map(quoted).collect();
        line("scopes", &format!("[{}]", scopes.join(", ")));
    }
    text
}

/// A TOML string.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::metadata::ClientMetadata;
    use super::super::state::tests::registration;
    use super::*;

    #[test]
    fn the_snippet_names_the_secret_file_and_never_the_secret() {
        let mut client = registration("n");
        let members = json!({"grant_types": ["client_credentials"], "scope": "read write"});
        client.metadata = ClientMetadata::new(members.as_object().unwrap().clone()).unwrap();
        client.token_endpoint = Some("https://a.example/token".parse().unwrap());
        client.secret_file = Some("/etc/x \"y\".secret".into());
        let text = snippet(&client, Path::new("state.json"));
        assert!(!text.contains("a-client-secret") && !text.contains("hawkgate login"));
        let toml: toml::Value = toml::from_str(&text).unwrap();
        let source = &toml["source"][0];
        assert_eq!(
            source["client_secret"]["file"].as_str(),
            Some("/etc/x \"y\".secret")
        );
        assert_eq!(
            source["token_url"].as_str(),
            Some("https://a.example/token")
        );
        assert_eq!(source["scopes"][1].as_str(), Some("write"));
    }

    #[test]
    fn a_client_with_the_code_grant_gets_the_login_command() {
        let text = snippet(&registration("n"), Path::new("/s/state.json"));
        assert!(text.contains("hawkgate login --state /s/state.json"));
        assert!(
            toml::from_str::<toml::Value>(&text)
                .unwrap()
                .get("source")
                .is_none()
        );
    }
}
