//! What describes a source to the other replicas: those that agree on it share its credentials.

use crate::config::{Source, SourceKind};
use crate::remote::settings::{Auth0Identity, OauthClient, Via};

/// The parts of the configuration of `source` on which its credentials depend, without secrets; `None` if
/// it does not share them.
///
/// Secrets are left out, so that credentials outlive a rotation. So is whatever makes no difference to a
/// credential, like timeouts: replicas with the new and with the old configuration share while a change
/// is rolled out.
pub(in crate::app) fn section(source: &Source) -> Option<Vec<u8>> {
    let Source {
        name,
        kind_name,
        kind,
        timeout: _,
        concurrency: _,
        ca: _,
        inject: _,
    } = source;
    let mut section = Section::default();
    section.text(name);
    section.text(kind_name);
    match kind {
        SourceKind::TaskclusterLogin { url } => section.text(url.as_str()),
        SourceKind::TaskclusterOauth { root_url } => section.text(root_url.as_str()),
        SourceKind::ClientCredentials {
            token_url,
            client,
            audience,
            resource,
            scopes,
            organization,
        } => {
            section.text(token_url.as_str());
            section.client(client);
            section.optional(audience.as_deref());
            section.optional(resource.as_deref());
            section.list(scopes);
            section.optional(organization.as_deref());
        }
        SourceKind::TokenExchange {
            token_url,
            client,
            audience,
            resource,
            scopes,
            requested_token_type,
            subject_token_type,
        } => {
            section.text(token_url.as_str());
            section.client(client);
            section.optional(audience.as_deref());
            section.optional(resource.as_deref());
            section.list(scopes);
            section.optional(requested_token_type.as_deref());
            section.text(subject_token_type);
        }
        SourceKind::Auth0Identity(identity) => section.identity(identity),
        // Most of these ask nobody, so that there is nothing to spare. And the name of an entry depends on
        // what the caller presents: by one made of a password, an attacker with both the store and the fleet's
        // key could try passwords without asking the provider.
        SourceKind::TaskclusterMint { .. }
        | SourceKind::TaskclusterStatic { .. }
        | SourceKind::Static(_)
        | SourceKind::Password(_) => return None,
    }
    Some(section.0)
}

/// Parts, each after its length.
#[derive(Default)]
struct Section(Vec<u8>);

impl Section {
    fn text(&mut self, text: &str) {
        self.0.extend_from_slice(&(text.len() as u64).to_be_bytes());
        self.0.extend_from_slice(text.as_bytes());
    }

    /// Absent differs from empty.
    fn optional(&mut self, text: Option<&str>) {
        self.0.push(u8::from(text.is_some()));
        self.text(text.unwrap_or_default());
    }

    fn list(&mut self, texts: &[String]) {
        self.0
            .extend_from_slice(&(texts.len() as u64).to_be_bytes());
        for text in texts {
            self.text(text);
        }
    }

    fn client(&mut self, client: &OauthClient) {
        let OauthClient { id, proof: _ } = client;
        self.text(id);
    }

    fn identity(&mut self, identity: &Auth0Identity) {
        let Auth0Identity {
            tenant,
            client,
            connection,
            via,
            custom_domain,
        } = identity;
        self.text(tenant.as_str());
        self.client(client);
        self.text(connection);
        self.optional(match via {
            Via::Identities { provider } => Some(provider),
            Via::Vault => None,
        });
        self.optional(custom_domain.as_ref().map(url::Url::as_str));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ParseOptions, parse};

    fn sections(sources: &str) -> Vec<Option<Vec<u8>>> {
        let text = format!(
            "[[route]]\nname = \"r\"\nupstream = \"https://u.example\"\nanonymous = true\n{sources}"
        );
        let options = ParseOptions {
            read_secrets: false,
            environment: false,
            base_dir: "/etc/hawkgate".into(),
        };
        let parsed = parse(&text, "t.toml", &options);
        let (config, _) = parsed.unwrap_or_else(|errors| panic!("{errors}"));
        config.sources.iter().map(section).collect()
    }

    fn one(keys: &str) -> Option<Vec<u8>> {
        sections(&format!("[[source]]\nname = \"s\"\n{keys}")).remove(0)
    }

    const CLIENT: &str = "kind = \"client-credentials\"\ntoken_url = \"https://as.example/token\"\n\
                          client_id = \"c\"\nclient_secret = { file = \"a\" }\n";

    #[test]
    fn what_makes_no_difference_to_a_credential_is_left_out() {
        let plain = one(CLIENT).unwrap();
        let secret = CLIENT.replace("{ file = \"a\" }", "{ env = \"B\" }");
        let other = format!("{secret}timeout = \"9s\"\nconcurrency = 3\nca = \"ca.pem\"\n");
        assert_eq!(one(&other).unwrap(), plain);
    }

    #[test]
    fn what_makes_a_difference_is_not() {
        let plain = one(CLIENT).unwrap();
        for (from, to) in [
            ("as.example", "bs.example"),
            ("\"c\"", "\"d\""),
            ("client_id", "audience = \"a\"\nclient_id"),
            ("client_id", "resource = \"urn:a\"\nclient_id"),
            ("client_id", "organization = \"a\"\nclient_id"),
            ("client_id", "scopes = [\"a\"]\nclient_id"),
            ("client-credentials", "token-exchange"),
        ] {
            assert_ne!(one(&CLIENT.replace(from, to)).unwrap(), plain, "{to}");
        }
        let named = format!("[[source]]\nname = \"t\"\n{CLIENT}");
        assert_ne!(sections(&named).remove(0).unwrap(), plain);
        let scopes = |list| one(&format!("{CLIENT}scopes = {list}")).unwrap();
        assert_ne!(scopes("[\"ab\", \"c\"]"), scopes("[\"a\", \"bc\"]"));
    }

    #[test]
    fn sources_without_an_exchange_and_passwords_are_not_shared() {
        let mint = "kind = \"taskcluster-mint\"\nclient_id = \"c\"\naccess_token = { file = \"t\" }\n\
                    client_name = \"{sub}\"\nscopes = [\"a\"]\n";
        let fixed = "kind = \"static\"\nsecret = { file = \"t\" }\n";
        let password = CLIENT.replace("client-credentials", "password") + "scopes = [\"a\"]\n";
        for keys in [mint, fixed, &password] {
            assert_eq!(one(keys), None, "{keys}");
        }
    }
}
