use super::*;
use crate::network::Network;

const OPEN: &str = r#"
[[route]]
name = "r"
upstream = "https://u.example"
anonymous = true
"#;

fn network(keys: &str) -> Network {
    let text = format!("{OPEN}[network]\n{keys}");
    let (config, _) = parse_text(&text).unwrap_or_else(|errors| panic!("{errors}"));
    config.network
}

#[test]
fn no_proxy_is_the_default() {
    let (config, _) = parse_text(OPEN).unwrap();
    assert_eq!(config.network, Network::default());
    assert_eq!(network("proxy = \"none\""), Network::default());
    assert_eq!(network("proxy = \"\""), Network::default());
}

#[test]
fn every_key_is_read() {
    let full = network(
        r#"
proxy = "http://proxy.example:3128"
no_proxy = [".svc", "10.0.0.0/8", "::1"]
proxy_username = "alice"
proxy_password = { file = "password" }
proxy_upstreams = true
ca = "ca.pem"
"#,
    );
    assert_eq!(
        full.describe().unwrap(),
        "outgoing proxy: http://proxy.example:3128 ([network] proxy); also for upstreams, not for svc, 10.0.0.0/8, ::1"
    );
    assert_eq!(full.ca, Some("/etc/hawkgate/ca.pem".into()));
    assert_eq!(full.https, full.http);
    let error = full.https.unwrap().endpoint().unwrap_err().to_string();
    assert!(error.contains("/etc/hawkgate/password"), "{error}");
}

#[test]
fn no_proxy_may_be_one_string_as_in_the_variable() {
    let proxy = "proxy = \"http://proxy.example\"\n";
    let array = network(&format!("{proxy}no_proxy = [\"a.example\", \"b.example\"]"));
    for list in [
        "a.example,b.example",
        "a.example b.example",
        ".a.example, b.example.",
    ] {
        assert_eq!(network(&format!("{proxy}no_proxy = \"{list}\"")), array);
    }
}

#[test]
fn files_of_the_network_are_watched_and_keys_tokens_are_not() {
    let text = format!(
        "{OPEN}[network]\nproxy = \"http://p.example\"\nproxy_username = \"a\"\nproxy_password = {{ file = \"password\" }}\nca = \"ca.pem\"\n\
         [[issuer]]\nname = \"k\"\nurl = \"https://k.example\"\naudiences = [\"a\"]\nkeys_token = {{ file = \"token\" }}\n"
    );
    let (config, _) = parse_text(&text).unwrap_or_else(|errors| panic!("{errors}"));
    let files: Vec<_> = config.network_files().collect();
    assert_eq!(
        files,
        ["/etc/hawkgate/password", "/etc/hawkgate/ca.pem"].map(std::path::Path::new)
    );
    assert_eq!(config.files.len(), 2, "{:?}", config.files);
}
