//! Valid files, and the configurations that they parse to.

use super::*;
use crate::credential::Inject;
use crate::gateway::cors::{
    AllowedOrigins, CorsSettings, FieldNames, OriginPattern, PolicySettings,
};
use crate::gateway::rate_limit::{Rate, RateBy};
use crate::gateway::route::UpgradeExpiry;
use crate::gateway::rule::Effect;
use crate::log::settings::LogFormat;
use crate::proxy::settings::{Address, ClientAuth, Listener};
use crate::remote::settings::{AssertionKey, ClientProof};
use crate::token::settings::{Algorithm, KeyLocation, Profile, TokenFormat};
use crate::trace::settings::IncomingTrace;
use std::time::Duration;

const MINIMAL: &str = r#"
[[issuer]]
name = "idp"
url = "https://idp.example.com"
audiences = ["hawkgate"]
[[route]]
name = "all"
upstream = "https://Tc.Example.com"
issuers = ["idp"]
"#;

fn accepted(text: &str) -> (Config, Vec<Warning>) {
    parse_text(text).unwrap_or_else(|errors| panic!("{errors}"))
}

#[test]
fn a_minimal_file_has_every_default() {
    let (config, warnings) = accepted(MINIMAL);
    assert_eq!(warnings, []);
    let secs = Duration::from_secs;
    let Config {
        server,
        limits,
        cache,
        log,
        ..
    } = &config;
    assert_eq!(server.listen.len(), 1);
    assert_eq!(server.listen[0].address.to_string(), "127.0.0.1:8080");
    assert_eq!(
        (server.listen[0].mode, server.listen[0].h2c),
        (0o600, false)
    );
    assert_eq!(server.admin.as_ref().unwrap().to_string(), "127.0.0.1:9090");
    assert_eq!((server.drain, server.drain_delay), (secs(30), secs(0)));
    assert_eq!((server.startup_grace, server.threads), (secs(60), 0));
    assert_eq!(server.local_hosts, [""; 0]);
    assert_eq!(
        (limits.header_bytes, limits.url_bytes),
        (32 << 10, 16 << 10)
    );
    assert_eq!(
        (limits.header_timeout, limits.body_timeout),
        (secs(10), secs(60))
    );
    assert_eq!(
        (limits.keepalive_timeout, limits.connections),
        (secs(60), 10_000)
    );
    assert_eq!(limits.connections_per_address, None);
    assert_eq!(
        (
            limits.requests_in_flight,
            limits.requests_in_flight_per_address
        ),
        (10_000, 5000)
    );
    let rate = limits.min_body_rate;
    assert_eq!((rate.bytes_per_second, rate.grace), (240, secs(5)));
    assert_eq!(config.routes[0].upgrade_expiry, UpgradeExpiry::Token);
    assert_eq!(
        (limits.body, limits.replay_body, limits.replay_memory),
        (None, 10 << 20, 256 << 20)
    );
    assert_eq!((cache.max_entries, cache.max_age), (10_000, secs(900)));
    assert_eq!((cache.refresh_ahead, cache.refusals), (secs(60), secs(10)));
    assert_eq!((log.format, log.level.as_str()), (LogFormat::Json, "info"));

    let IssuerKind::Oidc(issuer) = &config.issuers[0].kind else {
        panic!()
    };
    assert_eq!(issuer.keys, KeyLocation::Discovery);
    assert_eq!(issuer.algorithms, Algorithm::ALL);
    assert_eq!(issuer.profile, Profile::Rfc9068);
    assert_eq!(
        (issuer.leeway, issuer.verified_max_age),
        (secs(30), secs(300))
    );
    assert!(issuer.clients.is_none() && issuer.subjects.is_none());

    let route = &config.routes[0];
    assert_eq!(
        (
            route.path.as_str(),
            route.hosts.as_slice(),
            route.methods.as_ref()
        ),
        ("/", &[][..], None)
    );
    assert!(!route.anonymous && route.workload_token.is_none() && route.require_scopes.is_empty());
    assert_eq!(
        (route.issuers.as_slice(), route.source),
        ([0].as_slice(), None)
    );
    let upstream = &route.upstream;
    assert_eq!(
        (upstream.host.as_str(), upstream.port, upstream.signed_port),
        ("tc.example.com", 443, 443)
    );
    assert!(upstream.tls && !upstream.http2 && upstream.ca.is_none());
    let timeouts = upstream.timeouts;
    assert_eq!((timeouts.connect, timeouts.read), (secs(5), secs(120)));
    assert_eq!((timeouts.write, timeouts.idle), (secs(60), secs(4)));
}

#[test]
fn listeners_may_be_tcp_addresses_unix_sockets_or_tables() {
    let text = format!(
        "{MINIMAL}[server]\nlisten = [\"[::1]:0\", \"unix:run/h.sock\", \
         {{ address = \"unix:/run/g.sock\", mode = \"0660\" }}, {{ address = \"127.0.0.1:0\", h2c = true }}, \
         {{ address = \"0.0.0.0:8443\", tls = {{ cert = \"c.pem\", key = \"/k.pem\" }} }}]\nadmin = \"unix:/run/a.sock\""
    );
    let (config, warnings) = accepted(&text);
    assert_eq!(warnings, []);
    let listen = &config.server.listen;
    assert_eq!(
        listen[1].address,
        Address::Unix("/etc/hawkgate/run/h.sock".into())
    );
    assert_eq!((listen[1].mode, listen[2].mode), (0o600, 0o660));
    assert!(listen[3].h2c);
    let tls = listen[4].tls.as_ref().unwrap();
    assert_eq!(
        (tls.cert.as_path(), tls.key.as_path()),
        (Path::new("/etc/hawkgate/c.pem"), Path::new("/k.pem"))
    );
    let admin = config.server.admin.as_ref().unwrap();
    assert_eq!(admin.to_string(), "unix:/run/a.sock");
}

#[test]
fn a_unix_socket_has_the_same_default_mode_as_string_and_as_table() {
    let text = format!("{MINIMAL}[server]\nlisten = [\"unix:/a\", {{ address = \"unix:/b\" }}]");
    let (config, _) = accepted(&text);
    assert_eq!(config.server.listen[0].mode, config.server.listen[1].mode);
}

#[test]
fn routes_with_the_same_path_may_differ_by_method_or_host() {
    let route = |name: &str, more: &str| {
        format!(
            "[[route]]\nname = \"{name}\"\nupstream = \"http://[::1]:81/\"\nissuers = [\"idp\"]\n{more}\n"
        )
    };
    let text = [
        MINIMAL.to_owned(),
        route("get", "methods = [\"GET\"]"),
        route("put", "methods = [\"PUT\"]"),
        route("host", "host = \"tc.example.com\""),
        route("longer", "path = \"/api/\""),
    ]
    .concat();
    let (config, _) = accepted(&text);
    let upstream = &config.routes[1].upstream;
    assert_eq!(
        (upstream.tls, upstream.host.as_str(), upstream.port),
        (false, "::1", 81)
    );
}

#[test]
fn a_taskcluster_static_source_is_parsed() {
    let text = format!(
        "{MINIMAL}source = \"static\"\n[[source]]\nname = \"static\"\nkind = \"taskcluster-static\"\n\
         client_id = \"project/x\"\naccess_token = {{ file = \"token\" }}\nauthorized_scopes = []\ntimeout = \"1m30s\""
    );
    let (config, _) = accepted(&text);
    let source = &config.sources[config.routes[0].source.unwrap()];
    assert_eq!(source.timeout, Duration::from_secs(90));
    let SourceKind::TaskclusterStatic {
        access_token,
        certificate,
        authorized_scopes,
        ..
    } = &source.kind
    else {
        panic!()
    };
    let expected = crate::secret::SecretRef::File("/etc/hawkgate/token".into());
    assert_eq!(*access_token, expected);
    assert!(certificate.is_none());
    assert_eq!(authorized_scopes.as_deref(), Some(&[][..]));
}

#[test]
fn local_hosts_are_names_or_addresses() {
    let text = format!(
        "{MINIMAL}[server]\nlocal_hosts = [\"taskcluster\", \"a.b_c\", \"10.0.0.1\", \"::2\"]"
    );
    let (config, warnings) = accepted(&text);
    assert_eq!(warnings, []);
    let expected = ["taskcluster", "a.b_c", "10.0.0.1", "::2"];
    assert_eq!(config.server.local_hosts, expected);
}

#[test]
fn an_issuer_without_discovery_need_not_be_a_url() {
    let text = MINIMAL.replace(
        "https://idp.example.com\"",
        "kubernetes/serviceaccount\"\njwks_file = \"jwks.json\"",
    );
    let (config, _) = accepted(&text);
    let IssuerKind::Oidc(issuer) = &config.issuers[0].kind else {
        panic!()
    };
    assert_eq!(issuer.url, "kubernetes/serviceaccount");
    assert_eq!(
        issuer.keys,
        KeyLocation::File("/etc/hawkgate/jwks.json".into())
    );
}

#[test]
fn valid_but_questionable_settings_cause_warnings() {
    let mint = "[[source]]\nname = \"m\"\nkind = \"taskcluster-mint\"\nclient_id = \"i\"\naccess_token = { env = \"T\" }\n\
                scopes = [\"a\"]\n";
    for (text, warning) in [
        (
            format!("{MINIMAL}[server]\nlisten = [\"0.0.0.0:8080\"]"),
            "t.toml:11: warning: [server]: key \"listen[0]\": 0.0.0.0:8080 accepts bearer tokens in cleartext from other \
             machines; set tls, or listen on 127.0.0.1",
        ),
        (
            format!("{MINIMAL}[server]\nlisten = [{{ address = \"unix:/s\", mode = \"0666\" }}]"),
            "t.toml:11: warning: [server]: key \"listen[0].mode\": lets every user of this machine connect; \
             write \"0600\", or \"0660\" for the group",
        ),
        (
            format!("{MINIMAL}[log]\nlevel = \"trace\""),
            "t.toml:11: warning: [log]: key \"level\": \"trace\" makes libraries log the data that they handle; \
             write \"info,hawkgate=trace\"",
        ),
        (
            MINIMAL
                .replace("idp.example.com", "tenant.eu.auth0.com")
                .replace("\naudiences", "\nprofile = \"auth0\"\naudiences"),
            "t.toml:4: warning: issuer \"idp\": key \"url\": Auth0's `iss` ends with a slash, and is compared byte by \
             byte; write \"https://tenant.eu.auth0.com/\"",
        ),
        (
            format!("{MINIMAL}[limits]\ntoken_bytes = \"30KiB\""),
            "t.toml:11: warning: [limits]: key \"token_bytes\": a token of 30KiB and the rest of a request's head do not \
             fit into header_bytes (32KiB); write header_bytes = \"34KiB\" or more",
        ),
        (
            format!("{MINIMAL}[[issuer]]\nname = \"spare\"\nkind = \"delegated\""),
            "t.toml:10: warning: issuer \"spare\": is not used by any route; use it in a route, or remove it",
        ),
        (
            format!("{MINIMAL}source = \"o\"\n[[source]]\nname = \"o\"\nkind = \"taskcluster-oauth\"\nroot_url = \"https://t.example\""),
            "t.toml:9: warning: route \"all\": key \"issuers\": Taskcluster's OAuth2 tokens are opaque: an issuer of \
             kind oidc cannot verify them; use an issuer of kind delegated",
        ),
        (
            format!("{MINIMAL}source = \"m\"\n{mint}client_name = \"everybody\""),
            "t.toml:17: warning: source \"m\": key \"client_name\": contains no claim: every caller would have the same name \
             upstream; write it like \"sso/{sub}\"",
        ),
        (
            format!("{MINIMAL}source = \"m\"\n{mint}client_name = \"x/{{sub}}\"\nlifetime = \"1m\""),
            "t.toml:11: warning: source \"m\": lifetime is not longer than cache.refresh_ahead (1m): credentials would be minted \
             constantly; increase lifetime",
        ),
        (
            format!(
                "{}source = \"m\"\n{mint}client_name = \"x/{{sub}}\"\n[[issuer]]\nname = \"idp2\"\n\
                 url = \"https://b.example\"\naudiences = [\"a\"]",
                MINIMAL.replace("[\"idp\"]", "[\"idp\", \"idp2\"]")
            ),
            "t.toml:11: warning: source \"m\": client_name does not distinguish its issuers: a caller with the same claims \
             at another issuer gets the same name; add {iss} to it, or use a separate source for each issuer",
        ),
        (
            format!("{MINIMAL}source = \"m\"\n{mint}client_name = \"x/{{sub}}\"\nca = \"ca.pem\""),
            "t.toml:18: warning: source \"m\": key \"ca\": has no effect: sources of this kind make no requests; remove it",
        ),
        (
            format!("{MINIMAL}cors = {{ allowed_origins = [\"http://localhost:1\", \"http://a.example\"], allow_credentials = true }}"),
            "t.toml:10: warning: route \"all\": key \"cors.allowed_origins[1]\": is plain http: anyone on the network path \
             can inject scripts into such a page, and act as its users; serve the page with https",
        ),
        (
            "[server]\nlisten = [{ address = \"0.0.0.0:1\", tls = { cert = \"c\", key = \"k\" } }]\n[[route]]\n\
             name = \"r\"\nupstream = \"https://u.example\"\nanonymous = true"
                .to_owned(),
            "t.toml:6: warning: route \"r\": key \"anonymous\": lets other machines reach the upstream without a \
             token; set issuers if this is not intended",
        ),
    ] {
        let warnings: Vec<_> = accepted(&text).1.iter().map(ToString::to_string).collect();
        assert_eq!(warnings, [warning]);
    }
}

#[test]
fn subject_patterns_with_an_owner_are_accepted_at_public_issuers() {
    for (issuer, subject) in [
        ("https://token.actions.githubusercontent.com", "repo:org/*"),
        (
            "https://token.actions.githubusercontent.com",
            "repo:org/app:ref:refs/heads/main",
        ),
        (
            "https://token.actions.githubusercontent.com",
            "job_workflow_ref:org/*",
        ),
        ("https://gitlab.com", "project_path:group/project:*"),
        ("https://idp.example.com", "repo:*"),
    ] {
        let text = MINIMAL.replace("https://idp.example.com", issuer).replace(
            "\naudiences",
            &format!("\nprofile = \"workload\"\nsubjects = [\"{subject}\"]\naudiences"),
        );
        accepted(&text);
    }
}

const RULES: &str = r#"
[[rule]]
name = "devs"
when = """
  "dev" in claims.groups
  && request.method == 'GET'
"""
scopes = []
headers = { "X-Auth-Subject" = "claims.sub" }
[[rule]]
name = "rest"
when = "claims.banned == true"
effect = "deny"
routes = ["all"]
"#;

#[test]
fn rules_keep_their_order_and_apply_to_their_routes() {
    let (config, _) = accepted(&format!("{MINIMAL}{RULES}"));
    let [devs, rest] = config.rules.as_slice() else {
        panic!("{:?}", config.rules)
    };
    assert_eq!((&*devs.name, devs.effect), ("devs", Effect::Allow));
    assert!(devs.when.contains("\n  && request.method"));
    assert_eq!(devs.scopes.as_deref(), Some(&[][..]));
    let headers = [("x-auth-subject".to_owned(), "claims.sub".to_owned())];
    assert_eq!(devs.headers, headers);
    assert_eq!((&devs.routes, rest.effect), (&None, Effect::Deny));
    assert_eq!((&rest.routes, &rest.scopes), (&Some(vec![0]), &None));
    assert!(devs.applies_to(7) && rest.applies_to(0) && !rest.applies_to(1));
}

#[test]
fn ineffective_rules_cause_warnings() {
    let opaque = r#"
[[issuer]]
name = "tc"
kind = "delegated"
[[source]]
name = "oauth"
kind = "taskcluster-oauth"
root_url = "https://tc.example.com"
[[route]]
name = "opaque"
path = "/opaque/"
upstream = "https://tc.example.com"
issuers = ["tc"]
source = "oauth"
"#;
    let rule = |more: &str| format!("{MINIMAL}{opaque}[[rule]]\nname = \"a\"\n{more}");
    for (more, expected) in [
        (
            "when = 'claims.sub == \"a\"'",
            "rule \"a\": key \"when\": reads claims, but requests on route \"opaque\" may have none",
        ),
        ("when = 'claims.sub == \"a\"'\nroutes = [\"all\"]", ""),
        ("when = 'request.method == \"GET\"'", ""),
        (
            "when = 'true'\nheaders = { x-sub = 'claims.sub' }\nroutes = ['opaque']",
            "rule \"a\": key \"when\": reads claims",
        ),
        ("when = 'true'\nscopes = ['a']", ""),
        (
            "when = 'true'\nscopes = ['a']\nroutes = ['all']",
            "rule \"a\": key \"scopes\": has no effect",
        ),
        (
            "when = 'true'\neffect = 'deny'\nroutes = ['all']",
            "route \"all\": has rules but no allow rule: every request is refused",
        ),
    ] {
        let (_, warnings) = accepted(&rule(more));
        let messages: Vec<_> = warnings.iter().map(|w| w.diagnostic.to_string()).collect();
        match expected {
            "" => assert!(messages.is_empty(), "{more}: {messages:?}"),
            _ => assert!(
                messages.len() == 1 && messages[0].starts_with(expected),
                "{more}: {messages:?}"
            ),
        }
    }
}

#[test]
fn the_oauth_client_authentication_method_defaults_by_credential() {
    let source = |keys: &str| {
        let text = format!(
            "{MINIMAL}source = \"s\"\n[[source]]\nname = \"s\"\nkind = \"client-credentials\"\n\
             token_url = \"https://as.example/token\"\nclient_id = \"c\"\n{keys}"
        );
        let (config, warnings) = accepted(&text);
        assert_eq!(warnings, []);
        let source = config.sources[0].clone();
        let SourceKind::ClientCredentials { client, .. } = source.kind else {
            panic!()
        };
        (client.proof, source.inject)
    };
    let secret = crate::secret::SecretRef::File("/etc/hawkgate/t".into());
    let given = "client_secret = { file = \"t\" }\n";
    let (proof, inject) = source(given);
    assert_eq!(proof, ClientProof::SecretBasic(secret.clone()));
    assert_eq!(inject, Inject::default());
    let (proof, inject) = source(&format!(
        "{given}auth_method = \"client_secret_post\"\ninject = {{ header = \"X-Token\" }}"
    ));
    assert_eq!(proof, ClientProof::SecretPost(secret.clone()));
    assert_eq!(inject, Inject::new("x-token", "{token}").unwrap());
    let (proof, inject) =
        source("private_key = { file = \"t\" }\ninject = { format = \"token {token}\" }");
    let key = AssertionKey {
        key: secret,
        key_id: None,
        algorithm: None,
        audience: "https://as.example/token".into(),
    };
    assert_eq!(proof, ClientProof::PrivateKeyJwt(key));
    assert_eq!(
        inject,
        Inject::new("authorization", "token {token}").unwrap()
    );
}

#[test]
fn invalid_private_keys_and_short_secrets_in_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("short"), "hunter2").unwrap();
    let options = ParseOptions {
        read_secrets: true,
        environment: false,
        base_dir: dir.path().to_owned(),
    };
    let source = "[[source]]\nname = \"s\"\nkind = \"client-credentials\"\ntoken_url = \"https://as.example\"\n\
                  client_id = \"c\"\nprivate_key = { file = \"short\" }\n";
    let issuer = "[[issuer]]\nname = \"j\"\nkind = \"shared-secret\"\nurl = \"https://j.example\"\n\
                  secret = { file = \"short\" }\naudiences = [\"a\"]\nalgorithms = [\"HS256\", \"HS512\"]\n";
    let text = format!("{MINIMAL}source = \"s\"\n{source}{issuer}");
    let errors = parse(&text, "t.toml", &options).unwrap_err().to_string();
    assert!(
        errors.contains("\"private_key\": does not contain a PEM private key"),
        "{errors}"
    );
    assert!(
        errors.contains("\"secret\": is shorter than the 32 bytes that HS256 needs"),
        "{errors}"
    );
    assert!(!errors.contains("hunter2"), "{errors}");
    let pair = rcgen::KeyPair::generate().unwrap();
    std::fs::write(dir.path().join("key"), pair.serialize_pem()).unwrap();
    let text = format!("{MINIMAL}source = \"s\"\n{source}").replace("\"short\"", "\"key\"");
    parse(&text, "t.toml", &options).unwrap();
    let wrong = text + "assertion_algorithm = \"RS256\"\n";
    let errors = parse(&wrong, "t.toml", &options).unwrap_err().to_string();
    assert!(errors.contains("cannot be used with RS256"), "{errors}");
}

#[test]
fn cors_is_read_with_its_defaults() {
    let policy = |keys: &str| {
        let (config, warnings) = accepted(&format!("{MINIMAL}cors = {keys}"));
        assert_eq!(warnings, []);
        config.routes[0].cors.clone().unwrap()
    };
    assert_eq!(policy("\"upstream\""), CorsSettings::Upstream);
    let names = |names: &[&str]| FieldNames::Listed(names.iter().map(|n| (*n).into()).collect());
    let origin = |text| OriginPattern::parse(text).unwrap();
    let expected = PolicySettings {
        allowed_origins: AllowedOrigins::Listed(vec![
            origin("http://a.example"),
            origin("https://*.b.example:8443"),
        ]),
        allowed_headers: names(&[
            "Content-Type",
            "If-Match",
            "If-None-Match",
            "X-Request-Id",
            "X-Requested-With",
            "traceparent",
            "tracestate",
        ]),
        exposed_headers: names(&[]),
        allow_credentials: false,
        max_age: Duration::from_mins(10),
    };
    let written =
        policy("{ allowed_origins = [\"http://a.example\", \"https://*.b.example:8443\"] }");
    assert_eq!(written, CorsSettings::Policy(expected));
    let expected = PolicySettings {
        allowed_origins: AllowedOrigins::Any,
        allowed_headers: FieldNames::Any,
        exposed_headers: FieldNames::Any,
        allow_credentials: false,
        max_age: Duration::ZERO,
    };
    let written = policy(
        "{ allowed_origins = [\"*\"], allowed_headers = [\"*\"], exposed_headers = [\"*\"], max_age = \"0s\" }",
    );
    assert_eq!(written, CorsSettings::Policy(expected));
    assert!(accepted(MINIMAL).0.routes[0].cors.is_none());
    // Other machines can connect, so the route is as public as its upstream.
    let public = "[server]\nlisten = [{ address = \"0.0.0.0:1\", tls = { cert = \"c\", key = \"k\" } }]\n[[route]]\n\
                  name = \"r\"\nupstream = \"https://u.example\"\nanonymous = true\n";
    for cors in ["\"upstream\"", "{ allowed_origins = [\"*\"] }"] {
        assert!(
            accepted(&format!("{public}cors = {cors}")).0.routes[0]
                .cors
                .is_some()
        );
    }
}

#[test]
fn login_is_valid_without_routes() {
    let text = "[[issuer]]\nname = \"idp\"\nurl = \"https://idp.example.com\"\naudiences = [\"a\"]\n\
                [[source]]\nname = \"m\"\nkind = \"taskcluster-mint\"\nclient_id = \"i\"\n\
                access_token = { env = \"T\" }\nclient_name = \"sso/{sub}\"\nscopes = [\"a\"]\n\
                [login]\nsource = \"m\"\nissuers = [\"idp\"]";
    let (config, warnings) = accepted(text);
    assert_eq!(warnings, []);
    let login = config.login.unwrap();
    assert_eq!((login.source, login.issuers.as_slice()), (0, &[0][..]));
    assert_eq!(login.require_scopes, ["taskcluster-credentials"]);
    assert_eq!(login.lifetime, Duration::from_mins(15));
    assert!(login.allowed_origins.is_none() && config.routes.is_empty());
    assert!(accepted(MINIMAL).0.login.is_none(), "off by default");
}

#[test]
fn listeners_may_restrict_networks_and_users() {
    let text = format!(
        "{MINIMAL}[server]\nlisten = [{{ address = \"127.0.0.1:1\", allowed_users = [\"builder\", \"0\"], \
         allowed_networks = [\"127.0.0.0/8\", \"fd00::/8\"] }}]"
    );
    let (config, _) = accepted(&text);
    let access = &config.server.listen[0].access;
    assert_eq!(access.users.as_ref().unwrap(), &["builder", "0"]);
    let networks = access.networks.as_ref().unwrap();
    assert!(networks[0].contains(&std::net::IpAddr::from([127, 1, 2, 3])));
    let open = accepted(MINIMAL).0.server.listen[0].access.clone();
    assert!(open.users.is_none() && open.networks.is_none());
}

#[test]
fn log_and_trace_settings_are_parsed() {
    let (config, _) = accepted(MINIMAL);
    assert!(config.trace.is_none() && !config.log.audit);
    assert!((config.log.access_sample - 1.0).abs() < f64::EPSILON);
    let text = format!(
        "{MINIMAL}[log]\nlevel = \"warn,access=info\"\naccess_sample = 0.25\naudit = true\n\
         [trace]\nincoming = \"restart\"\nsample = 0\nendpoint = \"https://otel.example.com/v1/traces\"\n\
         headers = {{ x-key = {{ env = \"KEY\" }} }}\nattributes = {{ \"a.b\" = \"c\" }}\n"
    );
    let (config, warnings) = accepted(&text);
    assert_eq!(warnings, []);
    assert_eq!(config.log.level, "warn,access=info,audit=info");
    assert!((config.log.access_sample - 0.25).abs() < f64::EPSILON && config.log.audit);
    let trace = config.trace.unwrap();
    assert_eq!(trace.incoming, IncomingTrace::Restart);
    assert!(trace.sample.abs() < f64::EPSILON);
    let export = trace.export.unwrap();
    assert_eq!(export.endpoint.path(), "/v1/traces");
    assert_eq!(export.headers[0].0, "x-key");
    assert_eq!(export.attributes, [("a.b".to_owned(), "c".to_owned())]);
    assert_eq!(
        (export.service_name.as_str(), export.timeout),
        ("hawkgate", Duration::from_secs(10))
    );
    let (config, _) = accepted(&format!("{MINIMAL}[trace]\n"));
    assert!(config.trace.unwrap().export.is_none());
    let clear = "[trace]\nendpoint = \"http://otel:4318/v1/traces\"\nallow_plaintext = true\n";
    assert!(
        accepted(&format!("{MINIMAL}{clear}"))
            .0
            .trace
            .unwrap()
            .export
            .unwrap()
            .allow_plaintext
    );
}

#[test]
fn trusted_proxies_client_certificates_and_rate_limits_are_parsed() {
    let text = format!(
        "[server]\nlisten = [\n\
         {{ address = \"127.0.0.1:1\", trusted_proxies = [\"10.0.0.0/8\", \"fd00::/8\"] }},\n\
         {{ address = \"127.0.0.1:2\", trusted_proxies = [\"10.0.0.0/8\"], proxy_protocol = true }},\n\
         {{ address = \"127.0.0.1:3\", tls = {{ cert = \"c\", key = \"k\", client_ca = \"a\" }} }},\n\
         {{ address = \"127.0.0.1:4\", tls = {{ cert = \"c\", key = \"k\", client_ca = \"a\", client_auth = \"optional\" }} }},\n]\n\
         [limits.rate]\nrequests = 50\n{MINIMAL}rate = {{ requests = 5, per = \"1m\", burst = 9, by = \"address\", clients = 7 }}\n"
    );
    let (config, _) = accepted(&text);
    let listen = &config.server.listen;
    let proxies = |index: usize| listen[index].access.proxies.as_ref();
    assert_eq!(proxies(0).map(|p| p.networks.len()), Some(2));
    assert_eq!(proxies(0).map(|p| p.proxy_protocol), Some(false));
    assert_eq!(proxies(1).map(|p| p.proxy_protocol), Some(true));
    assert!(proxies(2).is_none());
    let auth = |index: usize| listen[index].tls.as_ref().unwrap().client_auth;
    assert_eq!(
        (auth(2), auth(3)),
        (ClientAuth::Required, ClientAuth::Optional)
    );
    let local: Vec<_> = listen.iter().map(Listener::is_local).collect();
    assert_eq!(local, [false, false, true, true]);
    let common = Rate {
        requests: 50,
        per: Duration::from_secs(1),
        burst: 50,
        by: RateBy::Client,
        clients: 100_000,
    };
    assert_eq!(config.rate, Some(common));
    let own = Rate {
        requests: 5,
        per: Duration::from_mins(1),
        burst: 9,
        by: RateBy::Address,
        clients: 7,
    };
    assert_eq!(config.routes[0].rate, Some(own));
}

#[test]
fn a_loopback_listener_with_trusted_proxies_is_not_local() {
    let text = "[server]\nlisten = [{ address = \"127.0.0.1:1\", trusted_proxies = [\"127.0.0.1/32\"] }]\n\
                [[source]]\nname = \"s\"\nkind = \"taskcluster-static\"\nclient_id = \"c\"\naccess_token = { file = \"t\" }\n\
                [[route]]\nname = \"r\"\nupstream = \"https://u.example\"\nsource = \"s\"\nanonymous = true\n";
    let errors = parse_text(text).unwrap_err().to_string();
    assert!(errors.contains("key \"anonymous\""), "{errors}");
    parse_text(&text.replace(", trusted_proxies = [\"127.0.0.1/32\"]", "")).unwrap();
}

#[test]
fn rules_apply_to_login_by_its_name_or_by_default() {
    let file = |routes: &str, login: &str| {
        format!(
            r#"
            [[issuer]]
            name = "sso"
            url = "https://sso.example.com/"
            audiences = ["login"]
            [[source]]
            name = "mint"
            kind = "taskcluster-mint"
            client_id = "project/sso"
            access_token = {{ env = "PATH" }}
            client_name = "sso/{{sub}}"
            scopes = ["queue:*"]
            [[route]]
            name = "queue"
            path = "/api/queue/"
            upstream = "https://tc.example.com"
            issuers = ["sso"]
            source = "mint"
            {login}
            [[rule]]
            name = "all"
            when = "true"
            {routes}
            "#
        )
    };
    let login = "[login]\nsource = \"mint\"\nissuers = [\"sso\"]";
    let applies_to = |routes: &str, login: &str| {
        let rule = accepted(&file(routes, login)).0.rules.remove(0);
        (rule.applies_to(0), rule.login)
    };
    assert_eq!(applies_to("", login), (true, true));
    assert_eq!(applies_to("", ""), (true, false));
    assert_eq!(applies_to("routes = [\"login\"]", login), (false, true));
    assert_eq!(applies_to("routes = [\"queue\"]", login), (true, false));
    assert_eq!(
        applies_to("routes = [\"login\", \"queue\"]", login),
        (true, true)
    );
}

#[test]
fn the_limits_of_each_address_can_be_lifted() {
    for (written, expected) in [
        ("requests_in_flight = 7", 4),
        ("requests_in_flight_per_address = 3", 3),
        ("requests_in_flight_per_address = 0", usize::MAX),
    ] {
        let (config, _) = accepted(&format!("{MINIMAL}[limits]\n{written}\n"));
        assert_eq!(config.limits.requests_in_flight_per_address, expected);
    }
}

/// The profile and the format of the only issuer's tokens, in a file without warnings.
fn format_of(keys: &str) -> (Profile, TokenFormat) {
    let text = MINIMAL.replace("\naudiences", &format!("\n{keys}\naudiences"));
    let (config, warnings) = accepted(&text);
    assert_eq!(warnings, [], "{keys}");
    let IssuerKind::Oidc(issuer) = &config.issuers[0].kind else {
        panic!()
    };
    (issuer.profile, issuer.format.clone())
}

#[test]
fn a_profile_stands_for_keys_that_can_also_be_written() {
    for profile in Profile::ALL {
        let subjects = match profile {
            Profile::Workload => "subjects = [\"a\"]",
            _ => "",
        };
        let keys = format!("profile = \"{}\"\n{subjects}", profile.name());
        assert_eq!(format_of(&keys), (*profile, profile.format()));
    }
    let (profile, format) = format_of(
        "profile = \"cognito\"\ntoken_types = [\"\", \"application/AT+JWT\", \"JWT\"]\n\
         scope_claims = [\"https://example.com/scopes\"]\naudience_claims = [\"aud\", \"client_id\"]\n\
         client_claims = [\"cid\"]",
    );
    assert_eq!(profile, Profile::Cognito);
    let owned = |names: &[&str]| {
        names
            .iter()
            .map(|name| (*name).to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        format,
        TokenFormat {
            token_types: Some(owned(&["", "AT+JWT", "JWT"])),
            scope_claims: owned(&["https://example.com/scopes"]),
            audience_claims: owned(&["aud", "client_id"]),
            client_claims: owned(&["cid"]),
        }
    );
}

/// AD FS signs with an `iss` that begins with http://, whose keys come over https.
#[test]
fn an_issuer_without_discovery_may_be_any_name() {
    for (url, keys) in [
        (
            "http://fs.example.com/adfs/services/trust",
            "jwks_url = \"https://fs.example.com/adfs/discovery/keys\"",
        ),
        (
            "http://FS.Example.com/adfs/services/trust",
            "jwks_file = \"jwks.json\"",
        ),
        ("urn:example:issuer", "jwks_file = \"jwks.json\""),
        ("https://sso.example.com", "profile = \"auth0\""),
        ("https://kc.example.com/realms/dev", "profile = \"auth0\""),
    ] {
        let text = MINIMAL
            .replace("https://idp.example.com", url)
            .replace("\naudiences", &format!("\n{keys}\naudiences"));
        let (config, warnings) = accepted(&text);
        assert_eq!(warnings, [], "{url}");
        let IssuerKind::Oidc(issuer) = &config.issuers[0].kind else {
            panic!()
        };
        assert_eq!(issuer.url, url);
    }
}

#[test]
fn the_longest_token_is_configurable() {
    assert_eq!(accepted(MINIMAL).0.max_token_bytes, 8 * 1024);
    let text = format!("{MINIMAL}[limits]\ntoken_bytes = \"32KiB\"\nheader_bytes = \"64KiB\"");
    let (config, warnings) = accepted(&text);
    assert_eq!((config.max_token_bytes, warnings.len()), (32 * 1024, 0));
}

#[test]
fn issuers_of_other_kinds_have_the_keys_that_apply_to_them() {
    let introspection = "[[issuer]]\nname = \"i\"\nkind = \"introspection\"\nurl = \"https://i.example\"\n\
        introspection_url = \"https://i.example/i\"\naudiences = [\"cli\"]\nclient_id = \"c\"\n\
        client_secret = { file = \"t\" }\naudience_claims = [\"client_id\"]\nscope_claims = [\"scp\"]\n";
    let secret = "[[issuer]]\nname = \"s\"\nkind = \"shared-secret\"\nurl = \"https://s.example\"\n\
        secret = { file = \"t\" }\naudiences = [\"a\"]\ntoken_types = [\"JWT\"]\nclient_claims = [\"app\"]\n";
    let (config, _) = accepted(&format!("{introspection}{secret}{MINIMAL}"));
    let IssuerKind::Introspection(introspection) = &config.issuers[0].kind else {
        panic!()
    };
    assert_eq!(introspection.issuer.format.audience_claims, ["client_id"]);
    assert_eq!(introspection.issuer.format.scope_claims, ["scp"]);
    let IssuerKind::SharedSecret(secret) = &config.issuers[1].kind else {
        panic!()
    };
    assert_eq!(secret.format.token_types, Some(vec!["JWT".to_owned()]));
    assert_eq!(secret.format.client_claims, ["app"]);
}
