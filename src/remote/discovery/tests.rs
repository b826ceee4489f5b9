use super::super::jwks::key_client;
use super::super::jwks::tests::Server;
use super::*;
use serde_json::json;

const OIDC: &str = "/.well-known/openid-configuration";
const OAUTH: &str = "/.well-known/oauth-authorization-server";
const KEYS: &str = "{\"keys\":[]}";

/// A fetcher for the server as the issuer, with `path` in its identifier.
fn discovered(server: &Server, path: &str) -> DiscoveryFetcher {
    DiscoveryFetcher::new(
        &issuer(server, path),
        key_client(None, &crate::network::Network::default()).unwrap(),
    )
}

fn issuer(server: &Server, path: &str) -> String {
    format!("{}{path}", server.url.as_str().trim_end_matches('/'))
}

fn metadata(issuer: &str, jwks_uri: &str) -> String {
    json!({"issuer": issuer, "jwks_uri": jwks_uri, "x": [1]}).to_string()
}

#[test]
fn well_known_locations() {
    for (issuer, oidc, oauth) in [
        (
            "https://a.example",
            "https://a.example/.well-known/openid-configuration",
            "https://a.example/.well-known/oauth-authorization-server",
        ),
        (
            "https://a.example/",
            "https://a.example/.well-known/openid-configuration",
            "https://a.example/.well-known/oauth-authorization-server",
        ),
        (
            "https://a.example:8443/realms/x",
            "https://a.example:8443/realms/x/.well-known/openid-configuration",
            "https://a.example:8443/.well-known/oauth-authorization-server/realms/x",
        ),
        (
            "https://a.example/realms/x/",
            "https://a.example/realms/x/.well-known/openid-configuration",
            "https://a.example/.well-known/oauth-authorization-server/realms/x",
        ),
    ] {
        let url = Url::parse(issuer).unwrap();
        assert_eq!(openid_configuration(&url).as_str(), oidc);
        assert_eq!(oauth_authorization_server(&url).as_str(), oauth);
    }
}

#[tokio::test]
async fn keys_are_found_through_either_metadata_document() {
    for (path, location) in [
        ("/", OIDC.to_owned()),
        ("", OIDC.to_owned()),
        ("/t", format!("/t{OIDC}")),
        ("/t/", format!("{OAUTH}/t")),
        ("", OAUTH.to_owned()),
    ] {
        let server = Server::start().await;
        server.serve("/keys", "cache-control: max-age=99\r\n", KEYS);
        let jwks_uri = server.at("/keys");
        server.serve(
            &location,
            "",
            &metadata(&issuer(&server, path), jwks_uri.as_str()),
        );
        let keys = discovered(&server, path).fetch().await.unwrap();
        assert_eq!(keys.document, KEYS.as_bytes(), "{location}");
        assert_eq!(keys.max_age, Some(std::time::Duration::from_secs(99)));
    }
}

#[tokio::test]
async fn metadata_with_another_issuer_is_rejected() {
    let server = Server::start().await;
    server.serve("/keys", "", KEYS);
    let jwks_uri = server.at("/keys");
    let own = issuer(&server, "");
    for foreign in [
        format!("{own}/"),
        own.to_uppercase(),
        "https://evil.example".into(),
        String::new(),
    ] {
        for location in [OIDC, OAUTH] {
            server.serve(location, "", &metadata(&foreign, jwks_uri.as_str()));
        }
        let error = discovered(&server, "")
            .fetch()
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains("another issuer"), "{error}");
    }
    for unreadable in [
        "<html>".to_owned(),
        json!({ "issuer": own }).to_string(),
        json!({"issuer": [own], "jwks_uri": jwks_uri.as_str()}).to_string(),
        format!("{{\"issuer\":\"{own}\",\"issuer\":\"x\",\"jwks_uri\":\"{jwks_uri}\"}}"),
    ] {
        server.serve(OIDC, "", &unreadable);
        assert!(
            discovered(&server, "").fetch().await.is_err(),
            "{unreadable}"
        );
    }
    assert!(!server.requested_paths().contains(&"/keys".to_owned()));
}

#[test]
fn a_jwks_uri_must_be_https_unless_both_are_on_loopback() {
    let found = |issuer: &str, jwks_uri: &str| {
        let keys = DiscoveryFetcher::new(
            issuer,
            key_client(None, &crate::network::Network::default()).unwrap(),
        );
        let url = Url::parse(issuer).unwrap();
        keys.jwks_uri(&url, metadata(issuer, jwks_uri).as_bytes())
            .is_ok()
    };
    for (issuer, jwks_uri, expected) in [
        ("https://a.example", "https://a.example/keys", true),
        ("https://a.example", "https://keys.example/", true),
        ("https://a.example", "http://a.example/keys", false),
        ("https://a.example", "http://127.0.0.1/keys", false),
        ("https://a.example", "https://localhost/keys", false),
        ("https://a.example", "file:///etc/passwd", false),
        ("https://a.example", "/keys", false),
        ("http://localhost:1", "http://127.0.0.1:2/keys", true),
        ("http://localhost:1", "http://[::1]:2/keys", true),
        ("http://localhost:1", "http://a.example/keys", false),
    ] {
        assert_eq!(found(issuer, jwks_uri), expected, "{issuer} {jwks_uri}");
    }
}

#[tokio::test]
async fn the_jwks_uri_is_cached_until_it_fails_or_is_used_up() {
    let server = Server::start().await;
    let own = issuer(&server, "");
    server.serve("/old", "", KEYS);
    server.serve("/new", "", "{\"keys\":[1]}");
    server.serve(OIDC, "", &metadata(&own, server.at("/old").as_str()));
    let keys = discovered(&server, "");
    for _ in 0..MAX_USES {
        keys.fetch().await.unwrap();
    }
    let expected = [vec![OIDC], vec!["/old"; MAX_USES as usize]].concat();
    assert_eq!(server.requested_paths(), expected);
    keys.fetch().await.unwrap();
    assert_eq!(server.requested_paths(), [OIDC, "/old"], "once in a while");
    server.stop("/old");
    server.serve(OIDC, "", &metadata(&own, server.at("/new").as_str()));
    assert_eq!(keys.fetch().await.unwrap().document, b"{\"keys\":[1]}");
    assert_eq!(server.requested_paths(), ["/old", OIDC, "/new"]);
}

#[tokio::test]
async fn a_stale_jwks_uri_is_used_while_the_metadata_is_unavailable() {
    let server = Server::start().await;
    server.serve("/keys", "", KEYS);
    server.serve(
        OIDC,
        "",
        &metadata(&issuer(&server, ""), server.at("/keys").as_str()),
    );
    let keys = discovered(&server, "");
    keys.fetch().await.unwrap();
    server.stop(OIDC);
    for _ in 0..2 * MAX_USES {
        keys.fetch().await.unwrap();
    }
    server.stop("/keys");
    let error = keys.fetch().await.unwrap_err().to_string();
    assert!(error.starts_with("discovery failed"), "{error}");
}

#[tokio::test]
async fn a_jwks_uri_is_not_quoted() {
    let server = Server::start().await;
    let own = issuer(&server, "");
    let gone = server.at("/text-of-the-issuer");
    let closed = "http://text-of-the-issuer.localhost:1/text-of-the-issuer";
    for jwks_uri in [gone.as_str(), closed] {
        server.serve(OIDC, "", &metadata(&own, jwks_uri));
        let error = discovered(&server, "").fetch().await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains("the metadata's jwks_uri"), "{text}");
        assert!(!text.contains("text-of-the-issuer"), "{text}");
    }
}

#[tokio::test]
async fn an_issuer_that_does_not_respond_is_not_asked_for_another_document() {
    use crate::remote::testing::{Reply, peer};
    let mut peer = peer(Reply::Bytes(Vec::new())).await;
    let issuer = peer.url.as_str().trim_end_matches('/');
    let client = key_client(None, &crate::network::Network::default()).unwrap();
    let error = DiscoveryFetcher::new(issuer, client).fetch().await;
    let error = error.unwrap_err().to_string();
    assert!(error.starts_with("discovery failed: 127.0.0.1"), "{error}");
    let request = peer.requests.recv().await.unwrap();
    assert!(request.starts_with("GET /.well-known/openid-configuration "));
    assert!(peer.requests.try_recv().is_err(), "another request");
}

#[test]
fn a_cause_that_both_documents_share_is_named_once() {
    let error = |text: &str| KeyFetchError(text.to_owned());
    let failed = |oidc, oauth| discovery_failed(&error(oidc), &error(oauth)).to_string();
    assert_eq!(failed("no name", "no name"), "discovery failed: no name");
    assert_eq!(
        failed("no name", "404"),
        "discovery failed: no name; as an OAuth authorization server: 404"
    );
}
