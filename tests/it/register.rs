//! `hawkgate register` against the certified provider: creating, updating and deleting a client, and
//! interruptions.

use serde_json::{Value, json};

use crate::support::peers::Peer;
use crate::support::program::{HomeDir, mode};

async fn provider(options: Value) -> Peer {
    Peer::start("sign-in", &options).await
}

/// The arguments that register a confidential client for client credentials.
fn confidential_client<'a>(issuer: &'a str, name: &'a str) -> Vec<&'a str> {
    vec![
        "register",
        "--issuer",
        issuer,
        "--state",
        "client.json",
        "--client-name",
        name,
        "--grant-type",
        "client_credentials",
        "--auth-method",
        "client_secret_basic",
    ]
}

fn with<'a>(mut args: Vec<&'a str>, more: &[&'a str]) -> Vec<&'a str> {
    args.extend(more);
    args
}

fn state(home: &HomeDir) -> Value {
    serde_json::from_str(&home.read("client.json")).unwrap()
}

/// Sets how the registration endpoint behaves: ok, error, stall, or lost (it acts but does not respond).
async fn set_registration_mode(provider: &Peer, mode: &str) {
    let arguments = json!({ "mode": mode });
    provider.control("registration", arguments).await;
}

async fn count(provider: &Peer, what: &str) -> u64 {
    let counts = provider.control("counts", json!({})).await;
    counts[what].as_u64().unwrap_or(0)
}

#[tokio::test]
async fn register_creates_updates_and_deletes_a_client() {
    let provider = provider(json!({})).await;
    let issuer = provider.fact("issuer");
    let home = HomeDir::new();

    let planned = home
        .run(&with(confidential_client(issuer, "one"), &["--plan"]))
        .await
        .success();
    assert!(
        planned.stdout.contains("register a new client"),
        "{planned:?}"
    );
    assert_eq!(
        std::fs::read_dir(home.path(".")).unwrap().count(),
        0,
        "a plan changes nothing"
    );

    let created = home
        .run(&confidential_client(issuer, "one"))
        .await
        .success();
    let first = state(&home);
    let registration = &first["registration"];
    let secret = registration["client_secret"].as_str().unwrap();
    let token = registration["registration_access_token"].as_str().unwrap();
    assert!(first.get("intent").is_none());
    let created = created.assert_secrets_absent(&[secret, token]);
    let id = registration["client_id"].as_str().unwrap();
    assert!(
        created
            .stdout
            .contains(&format!("registered: client_id {id}")),
        "{created:?}"
    );
    assert_eq!(home.read("client.json.secret"), secret);
    assert_eq!(mode(&home.path("client.json")), 0o600);
    assert_eq!(mode(&home.path("client.json.secret")), 0o600);
    let snippet: toml::Value =
        toml::from_str(created.stdout.split_once("\n\n").unwrap().1).unwrap();
    let file = snippet["source"][0]["client_secret"]["file"]
        .as_str()
        .unwrap();
    assert_eq!(std::fs::read_to_string(file).unwrap(), secret);

    let again = home
        .run(&confidential_client(issuer, "one"))
        .await
        .success();
    assert!(again.stdout.contains("nothing to do"), "{again:?}");
    assert_eq!(state(&home), first);
    assert_eq!(count(&provider, "POST /reg").await, 1);

    std::fs::remove_file(home.path("client.json.secret")).unwrap();
    home.run(&confidential_client(issuer, "one"))
        .await
        .success();
    assert_eq!(
        home.read("client.json.secret"),
        secret,
        "it is restored from the state file"
    );

    let changed = home
        .run(&confidential_client(issuer, "two"))
        .await
        .success();
    assert!(changed.stdout.contains("updated: client_id"), "{changed:?}");
    let second = state(&home);
    let rotated = second["registration"]["registration_access_token"]
        .as_str()
        .unwrap();
    assert_ne!(
        rotated, token,
        "the provider rotates it, and the new one was saved"
    );
    let changed = changed.assert_secrets_absent(&[secret, rotated]);
    drop(changed);
    let registered = provider.control("client", json!({ "id": id })).await;
    assert_eq!(registered["client"]["client_name"], "two");
    // The rotated token works.
    home.run(&confidential_client(issuer, "three"))
        .await
        .success();

    let deleted = home
        .run(&["register", "--state", "client.json", "--delete"])
        .await
        .success();
    assert!(deleted.stdout.contains("deleted the client"), "{deleted:?}");
    assert!(!home.path("client.json").exists() && !home.path("client.json.secret").exists());
    let registered = provider.control("client", json!({ "id": id })).await;
    assert_eq!(registered["client"], Value::Null);
    let repeated = home
        .run(&["register", "--state", "client.json", "--delete"])
        .await
        .success();
    assert!(repeated.stdout.contains("nothing to do"), "{repeated:?}");
}

#[tokio::test]
async fn an_initial_access_token_comes_from_a_file() {
    let token = "initial-access-token-1";
    let provider = provider(json!({ "initialAccessToken": token })).await;
    let issuer = provider.fact("issuer");
    let home = HomeDir::new();
    let without = home.run(&confidential_client(issuer, "n")).await;
    without.fails_with(1, "--initial-access-token-file");
    assert!(
        !home.path("client.json").exists(),
        "nothing was sent, so there is no state"
    );
    home.write("wrong", "another-token-than-that");
    let wrong = with(
        confidential_client(issuer, "n"),
        &["--initial-access-token-file", "wrong"],
    );
    home.run(&wrong)
        .await
        .fails_with(1, "does not accept the access token")
        .assert_secrets_absent(&["another-token-than-that"]);
    home.write("iat", &format!("{token}\n"));
    let right = with(
        confidential_client(issuer, "n"),
        &["--initial-access-token-file", "iat"],
    );
    home.run(&right)
        .await
        .success()
        .assert_secrets_absent(&[token]);
}

#[tokio::test]
async fn a_registration_whose_response_was_lost_is_not_repeated() {
    let provider = provider(json!({})).await;
    let issuer = provider.fact("issuer");
    let home = HomeDir::new();
    set_registration_mode(&provider, "lost").await;
    home.run(&confidential_client(issuer, "lost one"))
        .await
        .fails_with(1, "may have processed it anyway");
    set_registration_mode(&provider, "ok").await;
    let posts = count(&provider, "POST /reg").await;
    assert_eq!(posts, 1);
    let explained = home.run(&confidential_client(issuer, "lost one")).await;
    let explained = explained
        .fails_with(1, "\"lost one\"")
        .fails_with(1, "--forget")
        .fails_with(1, issuer);
    drop(explained);
    home.run(&with(confidential_client(issuer, "lost one"), &["--plan"]))
        .await
        .fails_with(1, "--forget");
    home.run(&with(
        confidential_client(issuer, "lost one"),
        &["--replace"],
    ))
    .await
    .fails_with(1, "--forget");
    assert_eq!(count(&provider, "POST /reg").await, 1, "not sent again");
    home.run(&with(
        confidential_client(issuer, "lost one"),
        &["--forget"],
    ))
    .await
    .success();
    assert_eq!(count(&provider, "POST /reg").await, 2);
}

#[tokio::test]
async fn a_crash_during_registration_is_reported_by_the_next_run() {
    let provider = provider(json!({})).await;
    let issuer = provider.fact("issuer");
    let home = HomeDir::new();
    set_registration_mode(&provider, "stall").await;
    let interrupted = home.start(&confidential_client(issuer, "cut off"));
    provider
        .control("untilWaiting", json!({ "count": 1 }))
        .await;
    assert_eq!(state(&home)["intent"]["action"], "register");
    interrupted.kill_now().await;
    set_registration_mode(&provider, "ok").await;
    home.run(&confidential_client(issuer, "cut off"))
        .await
        .fails_with(1, "was started at");
    assert_eq!(count(&provider, "POST /reg").await, 1);
}

#[tokio::test]
async fn concurrent_runs_register_one_client() {
    let provider = provider(json!({})).await;
    let issuer = provider.fact("issuer");
    let home = HomeDir::new();
    set_registration_mode(&provider, "stall").await;
    let first = home.start(&confidential_client(issuer, "n"));
    provider
        .control("untilWaiting", json!({ "count": 1 }))
        .await;
    let mut second = home.start(&confidential_client(issuer, "n"));
    second
        .wait_for_line("waiting for another hawkgate process")
        .await;
    // The user interrupts the first; the second then finds the recorded intent.
    first.signal(rustix::process::Signal::INT);
    first.wait().await.fails_with(1, "interrupted");
    second.wait().await.fails_with(1, "was started at");
    set_registration_mode(&provider, "ok").await;
    let args = with(confidential_client(issuer, "n"), &["--forget"]);
    let (one, other) = tokio::join!(home.run(&args), home.run(&args));
    let done = [one.success().stdout, other.success().stdout].concat();
    assert!(
        done.contains("registered:") && done.contains("nothing to do"),
        "{done}"
    );
    assert_eq!(count(&provider, "POST /reg").await, 2);
}

#[tokio::test]
async fn an_update_whose_response_was_lost_is_retried() {
    let provider = provider(json!({})).await;
    let issuer = provider.fact("issuer");
    let home = HomeDir::new();
    home.run(&confidential_client(issuer, "one"))
        .await
        .success();
    set_registration_mode(&provider, "error").await;
    home.run(&confidential_client(issuer, "two"))
        .await
        .fails_with(1, "run the same command again");
    assert_eq!(state(&home)["intent"]["action"], "update");
    set_registration_mode(&provider, "ok").await;
    // After an unfinished update even the previous metadata is sent again.
    let resent = home
        .run(&confidential_client(issuer, "one"))
        .await
        .success();
    assert!(resent.stdout.contains("updated:"), "{resent:?}");

    // Now the provider makes the update and rotates the token, but the response is lost.
    set_registration_mode(&provider, "lost").await;
    home.run(&confidential_client(issuer, "two"))
        .await
        .fails_with(1, "run the same command again");
    set_registration_mode(&provider, "ok").await;
    home.run(&confidential_client(issuer, "two"))
        .await
        .fails_with(1, "no longer accepted");
    let replaced = home
        .run(&with(confidential_client(issuer, "two"), &["--replace"]))
        .await
        .success();
    assert!(replaced.stderr.contains("was replaced"), "{replaced:?}");
}

#[tokio::test]
async fn a_delete_whose_response_was_lost_can_be_repeated() {
    let provider = provider(json!({})).await;
    let issuer = provider.fact("issuer");
    let home = HomeDir::new();
    home.run(&confidential_client(issuer, "n")).await.success();
    set_registration_mode(&provider, "lost").await;
    let delete = ["register", "--state", "client.json", "--delete"];
    home.run(&delete)
        .await
        .fails_with(1, "run the same command again");
    set_registration_mode(&provider, "ok").await;
    home.run(&confidential_client(issuer, "n"))
        .await
        .fails_with(1, "--delete");
    let deleted = home.run(&delete).await.success();
    assert!(deleted.stdout.contains("already deleted"), "{deleted:?}");
    assert!(!home.path("client.json").exists());
}

#[tokio::test]
async fn provider_errors_are_reported_in_plain_words() {
    let provider = provider(json!({})).await;
    let issuer = provider.fact("issuer");
    let home = HomeDir::new();
    let refused = [
        "register",
        "--issuer",
        issuer,
        "--state",
        "client.json",
        // The provider refuses this redirect URI for native clients.
        "--redirect-uri",
        "https://localhost/cb",
        "--application-type",
        "native",
    ];
    home.run(&refused)
        .await
        .fails_with(1, "it mentions redirect_uris");
    assert!(!home.path("client.json").exists());
    for (issuer, expected) in [
        (format!("{issuer}/"), "trailing slash"),
        ("http://issuer.example/".into(), "must be https"),
        ("issuer.example".into(), "not a URL"),
        ("http://127.0.0.1:9/".into(), "cannot fetch"),
    ] {
        home.run(&confidential_client(&issuer, "n"))
            .await
            .fails_with(1, expected);
    }
    provider
        .control(
            "metadata",
            json!({ "registration_endpoint": "http://evil.example/reg" }),
        )
        .await;
    home.run(&confidential_client(issuer, "n"))
        .await
        .fails_with(1, "registration_endpoint");
    provider
        .control("metadata", json!({ "registration_endpoint": null }))
        .await;
    home.run(&confidential_client(issuer, "n"))
        .await
        .fails_with(1, "does not support dynamic client registration");
    assert_eq!(count(&provider, "POST /reg").await, 1);
}

#[tokio::test]
async fn an_unusable_state_file_stops_before_any_request() {
    let provider = provider(json!({})).await;
    let issuer = provider.fact("issuer");
    let home = HomeDir::new();
    for broken in ["", "{\"version\": 1", "{\"version\": 9}", "[]"] {
        home.write("client.json", broken);
        let ended = home.run(&confidential_client(issuer, "n")).await;
        assert!(
            ended.code == 1 && ended.stderr.contains("client.json"),
            "{ended:?}"
        );
        assert_eq!(home.read("client.json"), broken, "the file is unchanged");
    }
    std::fs::remove_file(home.path("client.json")).unwrap();
    home.write("file", "");
    let below = with(confidential_client(issuer, "n"), &[]);
    let below: Vec<_> = below
        .iter()
        .map(|a| {
            if *a == "client.json" {
                "file/client.json"
            } else {
                *a
            }
        })
        .collect();
    home.run(&below).await.fails_with(1, "file");
    let secret = with(
        confidential_client(issuer, "n"),
        &["--secret-file", "file/secret"],
    );
    home.run(&secret).await.fails_with(1, "file");
    home.write("client.json", "{}");
    std::fs::set_permissions(
        home.path("client.json"),
        std::os::unix::fs::PermissionsExt::from_mode(0o644),
    )
    .unwrap();
    home.run(&confidential_client(issuer, "n"))
        .await
        .fails_with(1, "chmod 600");
    assert_eq!(count(&provider, "POST /reg").await, 0, "nothing was sent");
}

#[tokio::test]
async fn inconsistent_arguments_are_usage_errors() {
    let home = HomeDir::new();
    let issuer = "https://issuer.example/";
    for (args, expected) in [
        (vec!["register", "--state", "s"], "--issuer"),
        (vec!["register", "--issuer", issuer], "--state"),
        (
            vec!["register", "--issuer", issuer, "--state", "s"],
            "--redirect-uri",
        ),
        (
            vec![
                "register",
                "--issuer",
                issuer,
                "--state",
                "s",
                "--grant-type",
                "implicit",
            ],
            "RFC 9700",
        ),
        (
            vec![
                "register",
                "--issuer",
                issuer,
                "--state",
                "s",
                "--close-after",
            ],
            "--auth0-tenant",
        ),
        (
            vec![
                "register",
                "--issuer",
                issuer,
                "--state",
                "s",
                "--auth-method",
                "magic",
            ],
            "possible values",
        ),
    ] {
        home.run(&args).await.fails_with(2, expected);
    }
    let help = home.run(&["register", "--help"]).await.success();
    assert!(help.stdout.contains("Examples:") && help.stdout.contains("--plan"));
}
