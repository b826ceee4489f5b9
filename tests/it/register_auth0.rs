//! `hawkgate register --auth0-tenant` against an imitation of a tenant.

use serde_json::{Value, json};

use crate::support::peers::Peer;
use crate::support::program::{Exited, HomeDir};

struct Tenant {
    peer: Peer,
    home: HomeDir,
}

impl Tenant {
    async fn start(options: Value) -> Self {
        let peer = Peer::start("auth0-tenant", &options).await;
        let home = HomeDir::new();
        home.write("token", peer.fact("token"));
        Self { peer, home }
    }

    async fn register(&self, more: &[&str]) -> Exited {
        let mut args = vec![
            "register",
            "--issuer",
            self.peer.fact("issuer"),
            "--state",
            "client.json",
            "--client-name",
            "My Dynamic Client",
            "--redirect-uri",
            "https://client.example.com/callback",
            "--redirect-uri",
            "https://client.example.com/callback2",
            "--auth0-tenant",
            "--management-token-file",
            "token",
        ];
        args.extend(more);
        let ended = self.home.run(&args).await;
        ended.assert_secrets_absent(&[self.peer.fact("token"), "tenant-client-secret-1"])
    }

    async fn facts(&self) -> Value {
        self.peer.control("facts", json!({})).await
    }
}

const PREPARED: [&str; 8] = [
    "--domain-connection",
    "users",
    "--domain-connection",
    "github",
    "--third-party-grant",
    "https://api.test/=read:items",
    "--allow-open-registration",
    "--close-after",
];

#[tokio::test]
async fn only_the_differing_settings_of_an_auth0_tenant_are_changed_and_it_is_closed_again() {
    let tenant = Tenant::start(json!({ "limit": 2 })).await;
    let planned = tenant
        .register(&[&PREPARED[..], &["--plan"]].concat())
        .await
        .success();
    for line in [
        "\"users\"",
        "read:items",
        "enable dynamic client registration",
        "register a new client",
        "disable dynamic client registration",
    ] {
        assert!(planned.stdout.contains(line), "{line}: {planned:?}");
    }
    assert!(
        !planned.stdout.contains("github"),
        "it is a domain connection already"
    );
    assert_eq!(
        tenant.facts().await["changes"],
        json!([]),
        "a plan changes nothing"
    );

    let made = tenant.register(&PREPARED).await.success();
    assert!(
        made.stdout.contains("registered: client_id client-1"),
        "{made:?}"
    );
    assert!(
        made.stdout.contains("no registration access token"),
        "{made:?}"
    );
    let facts = tenant.facts().await;
    assert_eq!(
        facts["changes"],
        json!([
            "PATCH /connections/con_1 {\"is_domain_connection\":true}",
            "POST /client-grants {\"audience\":\"https://api.test/\",\"default_for\":\"third_party_clients\",\"scope\":[\"read:items\"],\"subject_type\":\"user\"}",
            "PATCH /tenants/settings {\"flags\":{\"enable_dynamic_client_registration\":true}}",
            "POST /oidc/register",
            "PATCH /tenants/settings {\"flags\":{\"enable_dynamic_client_registration\":false}}",
        ])
    );
    assert_eq!(facts["open"], false);
    assert_eq!(
        tenant.home.read("client.json.secret"),
        "tenant-client-secret-1"
    );

    let again = tenant.register(&PREPARED).await.success();
    assert!(again.stdout.contains("nothing to do"), "{again:?}");
    assert_eq!(tenant.facts().await["changes"], json!([]));

    let wider = ["--third-party-grant", "https://api.test/=write:items"];
    tenant.register(&wider).await.success();
    let changes = tenant.facts().await["changes"].clone();
    assert_eq!(
        changes,
        json!(["PATCH /client-grants/cgr_1 {\"scope\":[\"read:items\",\"write:items\"]}"])
    );
}

#[tokio::test]
async fn opening_registration_requires_a_flag() {
    let tenant = Tenant::start(json!({})).await;
    tenant
        .register(&[])
        .await
        .fails_with(1, "--allow-open-registration");
    let facts = tenant.facts().await;
    assert_eq!(
        (&facts["changes"], &facts["open"]),
        (&json!([]), &json!(false))
    );
    tenant
        .register(&["--plan"])
        .await
        .fails_with(1, "--allow-open-registration");
}

#[tokio::test]
async fn registration_is_closed_again_after_a_failure() {
    let tenant = Tenant::start(json!({})).await;
    tenant.peer.control("refuse", json!({ "on": true })).await;
    let refused = tenant
        .register(&["--allow-open-registration", "--close-after"])
        .await;
    refused.fails_with(1, "does not accept the client metadata");
    assert_eq!(tenant.facts().await["open"], false);

    // `--close-after` closes a tenant that was open before, even if there is nothing to register.
    let open = Tenant::start(json!({ "open": true })).await;
    open.register(&[]).await.success();
    assert_eq!(open.facts().await["open"], true);
    open.register(&["--close-after"]).await.success();
    assert_eq!(open.facts().await["open"], false);
}

#[tokio::test]
async fn a_tenant_that_cannot_be_closed_is_reported() {
    let tenant = Tenant::start(json!({})).await;
    tenant
        .peer
        .control("fail", json!({ "what": ":false" }))
        .await;
    let ended = tenant
        .register(&["--allow-open-registration", "--close-after"])
        .await;
    ended.fails_with(1, "is still OPEN to anyone");
    assert_eq!(tenant.facts().await["open"], true);
    tenant.peer.control("fail", json!({})).await;
    tenant.register(&["--close-after"]).await.success();
    assert_eq!(tenant.facts().await["open"], false);
}

#[tokio::test]
async fn a_client_that_cannot_be_updated_is_replaced_only_on_request() {
    let tenant = Tenant::start(json!({ "open": true })).await;
    tenant.register(&[]).await.success();
    tenant
        .register(&["--scope", "openid"])
        .await
        .fails_with(1, "--replace");
    let replaced = tenant
        .register(&["--scope", "openid", "--replace"])
        .await
        .success();
    assert!(
        replaced.stderr.contains("client-1 was replaced"),
        "{replaced:?}"
    );
    let delete = ["register", "--state", "client.json", "--delete"];
    tenant.home.run(&delete).await.fails_with(1, "--forget");
    tenant
        .home
        .run(&[&delete[..], &["--forget"]].concat())
        .await
        .success();
    assert!(!tenant.home.path("client.json").exists());
}

#[tokio::test]
async fn the_management_token_is_obtained_with_client_credentials_or_reported_missing() {
    let tenant = Tenant::start(json!({ "open": true })).await;
    let (issuer, home) = (tenant.peer.fact("issuer"), &tenant.home);
    home.write("secret", tenant.peer.fact("secret"));
    let url = format!("--auth0-tenant={issuer}");
    let manager = tenant.peer.fact("manager");
    let args = |secret| {
        [
            "register",
            "--issuer",
            issuer,
            "--state",
            "client.json",
            "--redirect-uri",
            "https://client.example.com/callback",
            url.as_str(),
            "--domain-connection",
            "users",
            "--management-client-id",
            manager,
            "--management-client-secret-file",
            secret,
        ]
    };
    home.run(&args("secret"))
        .await
        .success()
        .assert_secrets_absent(&[tenant.peer.fact("secret")]);
    home.write("wrong", "another-secret-than-that");
    home.run(&args("wrong"))
        .await
        .fails_with(1, "no management token")
        .assert_secrets_absent(&["another-secret-than-that"]);
    home.write("token", "another-token-than-that");
    tenant
        .register(&["--domain-connection", "github"])
        .await
        .fails_with(1, "management token is not valid");
    home.write("token", tenant.peer.fact("token"));
    tenant
        .register(&["--domain-connection", "ldap"])
        .await
        .fails_with(1, "no connection named \"ldap\"");
    let neither = [
        "register",
        "--issuer",
        issuer,
        "--state",
        "s",
        "--redirect-uri",
        "https://a.example/",
        "--auth0-tenant",
    ];
    home.run(&neither)
        .await
        .fails_with(2, "--management-token-file");
}
