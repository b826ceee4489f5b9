//! TLS, ACL users and passwords.

use std::path::Path;

use hawkgate::network::Network;
use hawkgate::remote::shared_store::RedisStore;
use hawkgate::remote::shared_store::settings::SharedStoreSettings;
use hawkgate::secret::SecretRef;
use hawkgate::shared_store::{Quota, SharedStore, StoreError};

use super::connections::until_up;
use super::{KEY, fleet_keys, id, settings, store, store_with};
use crate::support::redis::RedisServer;
use crate::support::tls::TestCa;
use crate::support::wait::until;

/// What the documentation says that the user needs.
const RULES: &[&str] = &[
    "~hawkgate:*",
    "&hawkgate:*",
    "+ping",
    "+subscribe",
    "+publish",
    "+eval",
    "+evalsha",
    "+time",
    "+hmget",
    "+hset",
    "+hdel",
    "+pexpireat",
    "+del",
    "+get",
    "+set",
];

async fn tls_server(ca: &TestCa) -> RedisServer {
    let identity = ca.issue(&["localhost", "127.0.0.1"]);
    let path = |path: &Path| path.display().to_string();
    let (cert, key) = (path(&identity.cert), path(&identity.key));
    let files = [
        "--tls-cert-file",
        &cert,
        "--tls-key-file",
        &key,
        "--tls-auth-clients",
        "no",
    ];
    RedisServer::start_tls(&files).await
}

fn tls_settings(server: &RedisServer, ca: Option<&TestCa>) -> SharedStoreSettings {
    let mut settings = settings(&format!("rediss://{}", server.address()));
    settings.ca = ca.map(TestCa::file);
    settings
}

async fn failure(store: &dyn SharedStore) -> String {
    let error = store.probe().await.unwrap_err();
    assert!(matches!(error, StoreError::Unreachable(_)), "{error:?}");
    error.to_string()
}

#[tokio::test]
async fn tls_with_the_right_ca() {
    let ca = TestCa::new();
    let server = tls_server(&ca).await;
    let by_ca = store_with(&tls_settings(&server, Some(&ca)));
    by_ca
        .write(KEY, id(1), vec![1], std::time::Duration::from_mins(1))
        .await
        .unwrap();
    let network = Network {
        ca: Some(ca.file()),
        ..Network::default()
    };
    let by_network = RedisStore::new(&tls_settings(&server, None), &network, &fleet_keys(1));
    let read = by_network.unwrap().read(KEY).await.unwrap();
    assert_eq!(read.unwrap().generation, id(1));
}

#[tokio::test]
async fn tls_with_another_ca_name_or_none_is_refused() {
    let (ca, other) = (TestCa::new(), TestCa::new());
    let server = tls_server(&ca).await;
    // The two CAs have one name, so that the signature of the other one is what fails.
    let issuer = "the peer's certificate ";
    for wrong in [Some(&other), None] {
        let error = failure(&*store_with(&tls_settings(&server, wrong))).await;
        assert!(error.contains(issuer), "{error}");
    }
    // Its own `ca` is the only one that counts.
    let network = Network {
        ca: Some(ca.file()),
        ..Network::default()
    };
    let store = RedisStore::new(
        &tls_settings(&server, Some(&other)),
        &network,
        &fleet_keys(1),
    );
    let error = failure(&store.unwrap()).await;
    assert!(error.contains(issuer), "{error}");

    let identity = ca.issue(&["elsewhere.example"]);
    let path = |path: &Path| path.display().to_string();
    let (cert, key) = (path(&identity.cert), path(&identity.key));
    let server = RedisServer::start_tls(&[
        "--tls-cert-file",
        &cert,
        "--tls-key-file",
        &key,
        "--tls-auth-clients",
        "no",
    ])
    .await;
    let error = failure(&*store_with(&tls_settings(&server, Some(&ca)))).await;
    assert!(error.contains("for another name"), "{error}");
}

#[tokio::test]
async fn tls_on_one_side_only_fails() {
    let ca = TestCa::new();
    let tls = tls_server(&ca).await;
    failure(&*store(&tls.url())).await;
    let clear = RedisServer::start(&[]).await;
    failure(&*store_with(&tls_settings(&clear, Some(&ca)))).await;
}

#[tokio::test]
async fn an_unusable_ca_file_is_an_error_of_the_settings() {
    let mut settings = settings("rediss://127.0.0.1:1");
    settings.ca = Some("/nonexistent/ca.pem".into());
    let error = RedisStore::new(&settings, &Network::default(), &fleet_keys(1)).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("CA file /nonexistent/ca.pem "),
        "{error}"
    );
}

/// Writes a password to a file and returns settings that name it.
fn with_password(
    server: &RedisServer,
    user: Option<&str>,
    file: &Path,
    password: &str,
) -> SharedStoreSettings {
    std::fs::write(file, password).unwrap();
    SharedStoreSettings {
        username: user.map(str::to_owned),
        password: Some(SecretRef::File(file.to_owned())),
        ..settings(&server.url())
    }
}

async fn set_user(server: &RedisServer, rules: &[&str]) {
    let start = ["ACL", "SETUSER", "gate", "reset", "on", ">hunter2"];
    server.command(&[&start, rules].concat()).await;
}

/// Uses every operation.
async fn use_all(store: &dyn SharedStore) -> Result<(), StoreError> {
    let minute = std::time::Duration::from_mins(1);
    store.probe().await?;
    store.acquire(KEY, id(1), None).await?;
    store.renew(KEY, id(1)).await?;
    store.complete(KEY, id(1), vec![1], minute).await?;
    store.read(KEY).await?;
    store.reject(KEY, id(1)).await?;
    store.acquire(KEY, id(2), None).await?;
    store.release(KEY, id(2)).await?;
    store.write(KEY, id(3), vec![1], minute).await?;
    store.remove(KEY).await?;
    let quota = Quota {
        interval: minute,
        burst: 1,
    };
    store.take(KEY, quota, 1).await.map(|_| ())
}

#[tokio::test]
async fn a_user_with_the_documented_rules_can_do_everything_and_with_fewer_is_refused() {
    let server = RedisServer::start(&[]).await;
    let folder = tempfile::tempdir().unwrap();
    let settings = with_password(
        &server,
        Some("gate"),
        &folder.path().join("password"),
        "hunter2\n",
    );
    set_user(&server, RULES).await;
    use_all(&*store_with(&settings)).await.unwrap();

    for without in RULES {
        let fewer: Vec<_> = RULES
            .iter()
            .copied()
            .filter(|rule| rule != without)
            .collect();
        set_user(&server, &fewer).await;
        let done = use_all(&*store_with(&settings)).await;
        if *without == "+ping" {
            // The heartbeat takes the refusal for an answer.
            done.unwrap();
            continue;
        }
        // `+eval` is needed for scripts that the server has not cached.
        if *without == "+eval" {
            done.unwrap();
            server.command(&["SCRIPT", "FLUSH"]).await;
            let error = use_all(&*store_with(&settings))
                .await
                .unwrap_err()
                .to_string();
            assert!(error.contains("(NOPERM)"), "{error}");
            continue;
        }
        let error = done.unwrap_err().to_string();
        assert!(error.contains("(NOPERM)"), "without {without}: {error}");
        let rules = RULES.join(" ");
        assert!(error.contains(&rules), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[tokio::test]
async fn a_wrong_or_missing_password_is_named() {
    let server = RedisServer::start(&[]).await;
    set_user(&server, RULES).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    let settings = with_password(&server, Some("gate"), &file, "hunter3");
    let error = failure(&*store_with(&settings)).await;
    let address = server.address();
    assert_eq!(
        error,
        format!(
            "{address} refuses the user or the password (WRONGPASS): correct `username` and `password` in [shared]"
        )
    );
    std::fs::remove_file(&file).unwrap();
    let error = failure(&*store_with(&settings)).await;
    assert!(
        error.starts_with("[shared] password: secret file "),
        "{error}"
    );

    server
        .command(&["CONFIG", "SET", "requirepass", "hunter2"])
        .await;
    let error = failure(&*store(&server.url())).await;
    assert!(
        error.contains("asks for a password (NOAUTH): set `password`"),
        "{error}"
    );
    let settings = with_password(&server, None, &file, "hunter2");
    use_all(&*store_with(&settings)).await.unwrap();
}

#[tokio::test]
async fn a_rotated_password_is_read_for_the_next_connection() {
    let server = RedisServer::start(&[]).await;
    set_user(&server, RULES).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    let store = store_with(&with_password(&server, Some("gate"), &file, "hunter2"));
    use_all(&*store).await.unwrap();
    // The old password is revoked before the file is changed.
    server
        .command(&["ACL", "SETUSER", "gate", "resetpass", ">hunter3"])
        .await;
    server.command(&["CLIENT", "KILL", "USER", "gate"]).await;
    until("the old password to be refused", async || {
        store
            .probe()
            .await
            .is_err_and(|error| error.to_string().contains("WRONGPASS"))
    })
    .await;
    std::fs::write(&file, "hunter3").unwrap();
    until_up(&*store).await;
    use_all(&*store).await.unwrap();
}
