//! `hawkgate register` against the certified provider: made, changed, deleted, and what
//! happens when it is cut off.

use serde_json::{Value, json};

use crate::support::peers::Peer;
use crate::support::program::{Home, mode};

async fn provider(options: Value) -> Peer {
    Peer::start("sign-in.js", &options).await
}

/// The arguments of a client of the sidecar's own.
fn machine<'a>(issuer: &'a str, name: &'a str) -> Vec<&'a str> {
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

fn state(home: &Home) -> Value {
    serde_json::from_str(&home.read("client.json")).unwrap()
}

async fn count(provider: &Peer, what: &str) -> u64 {
    let counts = provider.control("counts", json!({})).await;
    counts[what].as_u64().unwrap_or(0)
}

#[tokio::test]
async fn a_client_is_made_once_changed_in_place_and_deleted() {
    let provider = provider(json!({})).await;
    let issuer = provider.fact("issuer");
    let home = Home::new();

    let planned = home
        .run(&with(machine(issuer, "one"), &["--plan"]))
        .await
        .good();
    assert!(
        planned.stdout.contains("register a new client"),
        "{planned:?}"
    );
    assert_eq!(
        std::fs::read_dir(home.path(".")).unwrap().count(),
        0,
        "a plan changes nothing"
    );

    let made = home.run(&machine(issuer, "one")).await.good();
    let first = state(&home);
    let registration = &first["registration"];
    let secret = registration["client_secret"].as_str().unwrap();
    let token = registration["registration_access_token"].as_str().unwrap();
    assert!(first.get("intent").is_none());
    let made = made.silent_about(&[secret, token]);
    let id = registration["client_id"].as_str().unwrap();
    assert!(
        made.stdout.contains(&format!("registered: client_id {id}")),
        "{made:?}"
    );
    assert_eq!(home.read("client.json.secret"), secret);
    assert_eq!(mode(&home.path("client.json")), 0o600);
    assert_eq!(mode(&home.path("client.json.secret")), 0o600);
    let snippet: toml::Value = toml::from_str(made.stdout.split_once("\n\n").unwrap().1).unwrap();
    let file = snippet["source"][0]["client_secret"]["file"]
        .as_str()
        .unwrap();
    assert_eq!(std::fs::read_to_string(file).unwrap(), secret);

    let again = home.run(&machine(issuer, "one")).await.good();
    assert!(again.stdout.contains("nothing to do"), "{again:?}");
    assert_eq!(state(&home), first);
    assert_eq!(count(&provider, "POST /reg").await, 1);

    std::fs::remove_file(home.path("client.json.secret")).unwrap();
    home.run(&machine(issuer, "one")).await.good();
    assert_eq!(
        home.read("client.json.secret"),
        secret,
        "it comes back from the state"
    );

    let changed = home.run(&machine(issuer, "two")).await.good();
    assert!(changed.stdout.contains("updated: client_id"), "{changed:?}");
    let second = state(&home);
    let rotated = second["registration"]["registration_access_token"]
        .as_str()
        .unwrap();
    assert_ne!(
        rotated, token,
        "the provider rotates it, and the new one was saved"
    );
    let changed = changed.silent_about(&[secret, rotated]);
    drop(changed);
    let there = provider.control("client", json!({ "id": id })).await;
    assert_eq!(there["client"]["client_name"], "two");
    // The rotated token is the one that works.
    home.run(&machine(issuer, "three")).await.good();

    let gone = home
        .run(&["register", "--state", "client.json", "--delete"])
        .await
        .good();
    assert!(gone.stdout.contains("deleted the client"), "{gone:?}");
    assert!(!home.path("client.json").exists() && !home.path("client.json.secret").exists());
    let there = provider.control("client", json!({ "id": id })).await;
    assert_eq!(there["client"], Value::Null);
    let nothing = home
        .run(&["register", "--state", "client.json", "--delete"])
        .await
        .good();
    assert!(nothing.stdout.contains("nothing to do"), "{nothing:?}");
}

#[tokio::test]
async fn an_initial_access_token_comes_from_a_file() {
    let token = "initial-access-token-1";
    let provider = provider(json!({ "initialAccessToken": token })).await;
    let issuer = provider.fact("issuer");
    let home = Home::new();
    let without = home.run(&machine(issuer, "n")).await;
    without.says(1, "--initial-access-token-file");
    assert!(
        !home.path("client.json").exists(),
        "nothing was done, nothing is noted"
    );
    home.write("wrong", "another-token-than-that");
    let wrong = with(
        machine(issuer, "n"),
        &["--initial-access-token-file", "wrong"],
    );
    home.run(&wrong)
        .await
        .says(1, "does not accept the token")
        .silent_about(&["another-token-than-that"]);
    home.write("iat", &format!("{token}\n"));
    let right = with(
        machine(issuer, "n"),
        &["--initial-access-token-file", "iat"],
    );
    home.run(&right).await.good().silent_about(&[token]);
}

#[tokio::test]
async fn a_lost_answer_is_never_asked_for_again_by_itself() {
    let provider = provider(json!({})).await;
    let issuer = provider.fact("issuer");
    let home = Home::new();
    provider
        .control("registration", json!({ "mode": "lost" }))
        .await;
    home.run(&machine(issuer, "lost one"))
        .await
        .says(1, "may have processed it anyway");
    provider
        .control("registration", json!({ "mode": "ok" }))
        .await;
    let posts = count(&provider, "POST /reg").await;
    assert_eq!(posts, 1);
    let explained = home.run(&machine(issuer, "lost one")).await;
    let explained = explained
        .says(1, "\"lost one\"")
        .says(1, "--forget")
        .says(1, issuer);
    drop(explained);
    home.run(&with(machine(issuer, "lost one"), &["--plan"]))
        .await
        .says(1, "--forget");
    home.run(&with(machine(issuer, "lost one"), &["--replace"]))
        .await
        .says(1, "--forget");
    assert_eq!(count(&provider, "POST /reg").await, 1, "not sent again");
    home.run(&with(machine(issuer, "lost one"), &["--forget"]))
        .await
        .good();
    assert_eq!(count(&provider, "POST /reg").await, 2);
}

#[tokio::test]
async fn a_crash_between_intent_and_answer_is_explained_by_the_next_run() {
    let provider = provider(json!({})).await;
    let issuer = provider.fact("issuer");
    let home = Home::new();
    provider
        .control("registration", json!({ "mode": "stall" }))
        .await;
    let cut_off = home.start(&machine(issuer, "cut off"));
    provider
        .control("untilWaiting", json!({ "count": 1 }))
        .await;
    assert_eq!(state(&home)["intent"]["action"], "register");
    cut_off.killed().await;
    provider
        .control("registration", json!({ "mode": "ok" }))
        .await;
    home.run(&machine(issuer, "cut off"))
        .await
        .says(1, "was started at");
    assert_eq!(count(&provider, "POST /reg").await, 1);
}

#[tokio::test]
async fn of_two_at_once_one_registers_and_the_other_finds_it_done() {
    let provider = provider(json!({})).await;
    let issuer = provider.fact("issuer");
    let home = Home::new();
    provider
        .control("registration", json!({ "mode": "stall" }))
        .await;
    let first = home.start(&machine(issuer, "n"));
    provider
        .control("untilWaiting", json!({ "count": 1 }))
        .await;
    let mut second = home.start(&machine(issuer, "n"));
    second.hears("waiting for it to end").await;
    // The first is cut off by its user; the second then sees what was begun.
    first.signal(rustix::process::Signal::INT);
    first.ended().await.says(1, "interrupted");
    second.ended().await.says(1, "was started at");
    provider
        .control("registration", json!({ "mode": "ok" }))
        .await;
    let args = with(machine(issuer, "n"), &["--forget"]);
    let (one, other) = tokio::join!(home.run(&args), home.run(&args));
    let done = [one.good().stdout, other.good().stdout].concat();
    assert!(
        done.contains("registered:") && done.contains("nothing to do"),
        "{done}"
    );
    assert_eq!(count(&provider, "POST /reg").await, 2);
}

#[tokio::test]
async fn a_lost_answer_to_a_change_is_asked_for_again() {
    let provider = provider(json!({})).await;
    let issuer = provider.fact("issuer");
    let home = Home::new();
    home.run(&machine(issuer, "one")).await.good();
    provider
        .control("registration", json!({ "mode": "error" }))
        .await;
    home.run(&machine(issuer, "two"))
        .await
        .says(1, "run the same command again");
    assert_eq!(state(&home)["intent"]["action"], "update");
    provider
        .control("registration", json!({ "mode": "ok" }))
        .await;
    // Even what was there before is not taken as still there.
    let back = home.run(&machine(issuer, "one")).await.good();
    assert!(back.stdout.contains("updated:"), "{back:?}");

    // Now the provider makes the change, rotates the token, and the answer is lost.
    provider
        .control("registration", json!({ "mode": "lost" }))
        .await;
    home.run(&machine(issuer, "two"))
        .await
        .says(1, "run the same command again");
    provider
        .control("registration", json!({ "mode": "ok" }))
        .await;
    home.run(&machine(issuer, "two"))
        .await
        .says(1, "no longer accepted");
    let replaced = home
        .run(&with(machine(issuer, "two"), &["--replace"]))
        .await
        .good();
    assert!(replaced.stderr.contains("was replaced"), "{replaced:?}");
}

#[tokio::test]
async fn deleting_twice_after_a_lost_answer_is_done() {
    let provider = provider(json!({})).await;
    let issuer = provider.fact("issuer");
    let home = Home::new();
    home.run(&machine(issuer, "n")).await.good();
    provider
        .control("registration", json!({ "mode": "lost" }))
        .await;
    let delete = ["register", "--state", "client.json", "--delete"];
    home.run(&delete)
        .await
        .says(1, "run the same command again");
    provider
        .control("registration", json!({ "mode": "ok" }))
        .await;
    home.run(&machine(issuer, "n")).await.says(1, "--delete");
    let gone = home.run(&delete).await.good();
    assert!(gone.stdout.contains("already deleted"), "{gone:?}");
    assert!(!home.path("client.json").exists());
}

#[tokio::test]
async fn what_the_provider_refuses_is_told_in_clear_words() {
    let provider = provider(json!({})).await;
    let issuer = provider.fact("issuer");
    let home = Home::new();
    let refused = [
        "register",
        "--issuer",
        issuer,
        "--state",
        "client.json",
        // The provider lets native clients claim only https URIs of their own.
        "--redirect-uri",
        "https://localhost/cb",
        "--application-type",
        "native",
    ];
    home.run(&refused)
        .await
        .says(1, "it mentions redirect_uris");
    assert!(!home.path("client.json").exists());
    for (issuer, said) in [
        (format!("{issuer}/"), "trailing slash"),
        ("http://issuer.example/".into(), "must be https"),
        ("issuer.example".into(), "not a URL"),
        ("http://127.0.0.1:9/".into(), "cannot fetch"),
    ] {
        home.run(&machine(&issuer, "n")).await.says(1, said);
    }
    provider
        .control(
            "metadata",
            json!({ "registration_endpoint": "http://evil.example/reg" }),
        )
        .await;
    home.run(&machine(issuer, "n"))
        .await
        .says(1, "registration_endpoint");
    provider
        .control("metadata", json!({ "registration_endpoint": null }))
        .await;
    home.run(&machine(issuer, "n"))
        .await
        .says(1, "does not allow clients to register");
    assert_eq!(count(&provider, "POST /reg").await, 1);
}

#[tokio::test]
async fn a_state_that_cannot_be_used_stops_everything() {
    let provider = provider(json!({})).await;
    let issuer = provider.fact("issuer");
    let home = Home::new();
    for broken in ["", "{\"version\": 1", "{\"version\": 9}", "[]"] {
        home.write("client.json", broken);
        let ended = home.run(&machine(issuer, "n")).await;
        assert!(
            ended.code == 1 && ended.stderr.contains("client.json"),
            "{ended:?}"
        );
        assert_eq!(home.read("client.json"), broken, "it stays as it was");
    }
    std::fs::remove_file(home.path("client.json")).unwrap();
    home.write("file", "");
    let below = with(machine(issuer, "n"), &[]);
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
    home.run(&below).await.says(1, "file");
    let secret = with(machine(issuer, "n"), &["--secret-file", "file/secret"]);
    home.run(&secret).await.says(1, "file");
    home.write("client.json", "{}");
    std::fs::set_permissions(
        home.path("client.json"),
        std::os::unix::fs::PermissionsExt::from_mode(0o644),
    )
    .unwrap();
    home.run(&machine(issuer, "n")).await.says(1, "chmod 600");
    assert_eq!(count(&provider, "POST /reg").await, 0, "nothing was sent");
}

#[tokio::test]
async fn arguments_that_make_no_sense_are_wrong_usage() {
    let home = Home::new();
    let issuer = "https://issuer.example/";
    for (args, said) in [
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
        home.run(&args).await.says(2, said);
    }
    let help = home.run(&["register", "--help"]).await.good();
    assert!(help.stdout.contains("Examples:") && help.stdout.contains("--plan"));
}
