//! Sources `auth0-identity` and `password`: valid files, and every combination that is refused.

use super::*;
use crate::remote::settings::{ClientProof, Via};
use crate::secret::SecretRef;

const ISSUER: &str = r#"[[issuer]]
name = "tenant"
url = "https://example.auth0.com/"
audiences = ["a"]
profile = "auth0"
"#;

const IDENTITY: &str = r#"[[source]]
name = "google"
kind = "auth0-identity"
tenant = "https://example.auth0.com"
client_id = "c"
client_secret = { file = "s" }
connection = "google-oauth2"
"#;

const PASSWORD: &str = r#"[[source]]
name = "basic"
kind = "password"
token_url = "https://example.auth0.com/oauth/token"
client_id = "c"
client_secret = { file = "s" }
"#;

/// A route that uses `source`, with the additional lines `more`.
fn route(source: &str, more: &str) -> String {
    format!(
        "[[route]]\nname = \"r\"\nupstream = \"https://u.example\"\nsource = \"{source}\"\n{more}\n"
    )
}

fn accepted(text: &str) -> (Config, Vec<Warning>) {
    parse_text(text).unwrap_or_else(|errors| panic!("{errors}\n{text}"))
}

fn refused(text: &str, expected: &[&str]) {
    match parse_text(text) {
        Ok(_) => panic!("accepted:\n{text}"),
        Err(errors) => {
            let expected: Vec<_> = expected.iter().map(|e| format!("t.toml:{e}")).collect();
            assert_eq!(errors.to_string(), expected.join("\n"), "{text}");
        }
    }
}

fn identity(more: &str, issuers: &str) -> String {
    format!("{ISSUER}{IDENTITY}{more}\n{}", route("google", issuers))
}

fn password(more: &str, route_more: &str) -> String {
    format!("{PASSWORD}{more}\n{}", route("basic", route_more))
}

const OWN_ISSUER: &str = "issuers = [\"tenant\"]";

#[test]
fn an_identity_source_is_parsed() {
    let text = identity("provider = \"google-oauth2\"", OWN_ISSUER);
    let (config, warnings) = accepted(&text);
    assert_eq!(warnings, []);
    let SourceKind::Auth0Identity(source) = &config.sources[0].kind else {
        panic!()
    };
    assert_eq!(source.tenant.as_str(), "https://example.auth0.com/");
    assert_eq!(source.client.id, "c");
    let secret = SecretRef::File("/etc/hawkgate/s".into());
    assert_eq!(source.client.proof, ClientProof::SecretPost(secret));
    assert_eq!(source.connection, "google-oauth2");
    let provider = "google-oauth2".to_owned();
    assert_eq!(source.via, Via::Identities { provider });
    assert!(source.custom_domain.is_none());

    let (config, warnings) = accepted(&identity("via = \"vault\"", OWN_ISSUER));
    assert_eq!(warnings, []);
    let SourceKind::Auth0Identity(source) = &config.sources[0].kind else {
        panic!()
    };
    assert_eq!(source.via, Via::Vault);
    let (_, warnings) = accepted(&identity("via = \"vault\"\nprovider = \"x\"", OWN_ISSUER));
    assert!(
        warnings[0]
            .to_string()
            .contains("Token Vault identifies an identity by its connection alone")
    );
}

#[test]
fn an_issuer_may_use_the_tenants_custom_domain() {
    let issuer = ISSUER.replace("example.auth0.com", "login.example.com");
    let source =
        format!("{IDENTITY}provider = \"p\"\ncustom_domain = \"https://login.example.com\"\n");
    let (_, warnings) = accepted(&format!("{issuer}{source}{}", route("google", OWN_ISSUER)));
    assert_eq!(warnings, []);
}

#[test]
fn a_password_source_is_parsed() {
    let (config, warnings) = accepted(&password("", ""));
    assert_eq!(warnings, []);
    let SourceKind::Password(source) = &config.sources[0].kind else {
        panic!()
    };
    assert_eq!(source.scopes, ["openid"]);
    assert_eq!(source.mfa_url.as_str(), "https://example.auth0.com/mfa/");
    assert!(source.realm.is_none() && source.audience.is_none() && !source.forward_client_ip);
    let more = "realm = \"employees\"\naudience = \"https://api.example\"\nscopes = [\"openid\", \"offline_access\"]\n\
                mfa_url = \"https://example.auth0.com/second\"\nforward_client_ip = true";
    let (config, warnings) = accepted(&password(more, ""));
    assert_eq!(warnings, []);
    let SourceKind::Password(source) = &config.sources[0].kind else {
        panic!()
    };
    assert_eq!(source.realm.as_deref(), Some("employees"));
    assert_eq!(source.audience.as_deref(), Some("https://api.example"));
    assert_eq!(source.scopes, ["openid", "offline_access"]);
    assert_eq!(source.mfa_url.as_str(), "https://example.auth0.com/second/");
    assert!(source.forward_client_ip);
    assert!(config.routes[0].issuers.is_empty() && !config.routes[0].anonymous);
    for listen in [
        "[\"[::1]:8080\"]",
        "[\"unix:/run/h.sock\"]",
        "[\"127.0.0.9:1\", \"unix:/run/h.sock\"]",
    ] {
        accepted(&format!(
            "{}[server]\nlisten = {listen}\n",
            password("", "")
        ));
    }
}

#[test]
fn identity_sources_are_refused_if_the_subject_could_be_another_user() {
    let provider = "provider = \"p\"";
    refused(
        &identity("", OWN_ISSUER),
        &[
            "6: source \"google\": key \"provider\": missing: an identity is selected by its provider and connection; add provider = \"…\", as given in the user's identities",
        ],
    );
    refused(
        &identity("via = \"vualt\"", OWN_ISSUER),
        &[
            "13: source \"google\": key \"via\": \"vualt\" is not a valid value; did you mean \"vault\"?",
        ],
    );
    let elsewhere = IDENTITY.replace(
        "https://example.auth0.com",
        "http://example.auth0.com/api/v2/",
    );
    refused(
        &format!(
            "{ISSUER}{elsewhere}{provider}\n{}",
            route("google", OWN_ISSUER)
        ),
        &[
            "9: source \"google\": key \"tenant\": plain http to example.auth0.com: tokens and hawkgate's own secret would be sent in cleartext; write https:// (http is allowed only to this machine)",
            "9: source \"google\": key \"tenant\": has a path, but a tenant URL consists of scheme and host only; write \"http://example.auth0.com\"",
            "18: route \"r\": key \"issuers[0]\": is not the source's tenant, where the same `sub` may be another user; use an issuer of kind oidc whose url is \"http://example.auth0.com/api/v2/\", or set the source's custom_domain to its url",
        ],
    );
    for url in [
        "https://other.auth0.com/",
        "https://example.auth0.com/x",
        "https://example.auth0.com:8443/",
    ] {
        let issuer = ISSUER.replace("https://example.auth0.com/", url);
        refused(
            &format!(
                "{issuer}{IDENTITY}{provider}\n{}",
                route("google", OWN_ISSUER)
            ),
            &[
                "18: route \"r\": key \"issuers[0]\": is not the source's tenant, where the same `sub` may be another user; use an issuer of kind oidc whose url is \"https://example.auth0.com/\", or set the source's custom_domain to its url",
            ],
        );
    }
    let opaque = "[[issuer]]\nname = \"opaque\"\nkind = \"delegated\"\n";
    refused(
        &format!(
            "{opaque}{}",
            identity(provider, "issuers = [\"tenant\", \"opaque\"]")
        ),
        &[
            "21: route \"r\": key \"issuers[1]\": is not the source's tenant, where the same `sub` may be another user; use an issuer of kind oidc whose url is \"https://example.auth0.com/\", or set the source's custom_domain to its url",
        ],
    );
    refused(
        &identity(provider, "anonymous = true"),
        &[
            "17: route \"r\": key \"source\": needs the user of a verified token, but an anonymous route has none; set issuers, or use a source of kind taskcluster-static",
        ],
    );
    refused(
        &identity(provider, ""),
        &[
            "14: route \"r\": key \"issuers\": missing: the credentials of source \"google\" would be available to anyone who can connect; set issuers, or set anonymous = true if every listener is loopback or a Unix socket",
        ],
    );
}

#[test]
fn password_sources_are_refused_on_listeners_that_are_not_local() {
    const OPEN: &str = "accepts passwords, but other machines can connect; make every listener loopback or a Unix socket, without trusted_proxies, or use another source";
    for listen in [
        "[\"0.0.0.0:8080\"]",
        "[\"127.0.0.1:1\", \"192.0.2.1:8080\"]",
        "[\"[::]:8080\"]",
    ] {
        refused(
            &format!("{}[server]\nlisten = {listen}\n", password("", "")),
            &[&format!("11: route \"r\": key \"source\": {OPEN}")],
        );
    }
    let contradicts = "conflicts with the source, which asks callers for a username and password; remove it, or use another source";
    for (more, key) in [
        ("anonymous = true", "anonymous"),
        ("require_scopes = [\"openid\"]", "require_scopes"),
        ("workload_token = { file = \"t\" }", "workload_token"),
    ] {
        refused(
            &password("", more),
            &[&format!("12: route \"r\": key {key:?}: {contradicts}")],
        );
    }
    refused(
        &format!("{ISSUER}{}", password("", OWN_ISSUER)),
        &[&format!("17: route \"r\": key \"issuers\": {contradicts}")],
    );
}

#[test]
fn invalid_keys_of_password_sources_are_refused() {
    refused(
        &password("scopes = []", ""),
        &[
            "7: source \"basic\": key \"scopes\": is empty: without scopes, the server would grant every scope; list the scopes that the token needs, or leave the key out for [\"openid\"]",
        ],
    );
    refused(
        &password("scopes = [\"openid read\"]", ""),
        &[
            "7: source \"basic\": key \"scopes[0]\": \"openid read\" is not an OAuth2 scope; write each scope as a separate string of printable ASCII without spaces, \" or \\",
        ],
    );
    refused(
        &password("mfa_url = \"http://example.auth0.com/mfa\"", ""),
        &[
            "7: source \"basic\": key \"mfa_url\": plain http to example.auth0.com: second-factor codes would be sent in cleartext; write https:// (http is allowed only to this machine)",
        ],
    );
    refused(
        &password("mfa_url = \"https://example.auth0.com/mfa?x\"", ""),
        &[
            "7: source \"basic\": key \"mfa_url\": has a query; write it like \"https://example.auth0.com/mfa/\"",
        ],
    );
    refused(
        &password("relm = \"x\"\nconnection = \"y\"", ""),
        &[
            "7: source \"basic\": key \"relm\": unknown key; did you mean \"realm\"?",
            "8: source \"basic\": key \"connection\": belongs to kind auth0-identity, not to password; remove it, or change kind",
        ],
    );
    let insecure = PASSWORD.replace("https:", "http:");
    refused(
        &format!("{insecure}{}", route("basic", "")),
        &[
            "4: source \"basic\": key \"token_url\": plain http to example.auth0.com: tokens and hawkgate's own secret would be sent in cleartext; write https:// (http is allowed only to this machine)",
        ],
    );
    let without_secret = PASSWORD.replace("client_secret = { file = \"s\" }\n", "");
    refused(
        &format!("{without_secret}{}", route("basic", "")),
        &[
            "1: source \"basic\": key \"client_secret\": missing, and so is private_key: the client could not authenticate; add client_secret = { file = \"…\" } or private_key = { file = \"…\" }",
        ],
    );
}
