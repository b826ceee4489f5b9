use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::clock::UnixMillis;
use crate::credential::Credential;
use crate::hawk::SignedRequest;
use crate::token::Caller;

fn file(dir: &TempDir, name: &str, content: &str) -> SecretRef {
    let path = dir.path().join(name);
    std::fs::write(&path, content).unwrap();
    SecretRef::File(path)
}

fn settings(dir: &TempDir) -> FixedSettings {
    FixedSettings {
        client_id: "project/app".into(),
        access_token: file(dir, "token", "fixed key\n"),
        certificate: None,
        authorized_scopes: None,
    }
}

fn swap(scopes: Option<&[&str]>) -> SwapRequest {
    SwapRequest {
        caller: Caller::Anonymous,
        bearer: None,
        scopes: scopes.map(|list| list.iter().map(ToString::to_string).collect()),
        clock_offset: 0,
    }
}

async fn ext(settings: FixedSettings, request: &SwapRequest) -> Option<Value> {
    let issued = FixedSource::new(settings)
        .unwrap()
        .fetch(request)
        .await
        .unwrap();
    let Credential::Taskcluster { client_id, signer } = &issued.credential else {
        panic!("a Taskcluster credential");
    };
    assert_eq!(client_id, "project/app");
    let header = signer
        .authorization(&SignedRequest {
            at: UnixMillis(0),
            nonce: "n",
            method: "GET",
            target: "/",
            host: "tc.example.com",
            port: 443,
            payload_hash: None,
        })
        .unwrap();
    let ext = header.split("ext=\"").nth(1)?;
    let ext = STANDARD.decode(ext.split('"').next().unwrap()).unwrap();
    Some(serde_json::from_slice(&ext).unwrap())
}

/// `None` beside a list is the list; two lists are what they share; nothing shared is `[]`.
#[tokio::test]
async fn narrows_by_both_lists() {
    type List = Option<&'static [&'static str]>;
    let dir = tempfile::tempdir().unwrap();
    let table: [(List, List, List); 8] = [
        (None, None, None),
        (Some(&["a*"]), None, Some(&["a*"])),
        (Some(&[]), None, Some(&[])),
        (None, Some(&["b"]), Some(&["b"])),
        (None, Some(&[]), Some(&[])),
        (Some(&["a*"]), Some(&["ab", "b"]), Some(&["ab"])),
        (Some(&["a*"]), Some(&["b"]), Some(&[])),
        (Some(&[]), Some(&["*"]), Some(&[])),
    ];
    for (own, wanted, expected) in table {
        let settings = FixedSettings {
            authorized_scopes: own.map(|l| l.iter().map(ToString::to_string).collect()),
            ..settings(&dir)
        };
        let found = ext(settings, &swap(wanted)).await;
        let expected = expected.map(|list| json!({ "authorizedScopes": list }));
        assert_eq!(found, expected, "{own:?} {wanted:?}");
    }
}

#[tokio::test]
async fn carries_a_certificate_and_its_expiry() {
    let dir = tempfile::tempdir().unwrap();
    let certificate = "{\n  \"version\": 1,\n  \"expiry\": 5000\n}\n";
    let settings = || FixedSettings {
        certificate: Some(file(&dir, "certificate", certificate)),
        ..settings(&dir)
    };
    let request = SwapRequest {
        clock_offset: 1000,
        ..swap(None)
    };
    let expected = json!({ "certificate": { "version": 1, "expiry": 5000 } });
    assert_eq!(ext(settings(), &request).await, Some(expected));
    let issued = FixedSource::new(settings()).unwrap().fetch(&request).await;
    assert_eq!(issued.unwrap().expires_at, Some(UnixMillis(4000)));
    let permanent = FixedSource::new(super::tests::settings(&dir)).unwrap();
    assert_eq!(permanent.fetch(&request).await.unwrap().expires_at, None);
}

#[tokio::test]
async fn what_cannot_be_used_is_told_without_its_content() {
    let dir = tempfile::tempdir().unwrap();
    let source = |certificate: &str| {
        FixedSource::new(FixedSettings {
            certificate: Some(file(&dir, "certificate", certificate)),
            ..settings(&dir)
        })
        .unwrap()
    };
    for bad in ["hunter2", "[\"hunter2\"]", "{\"hunter2\":1,\"hunter2\":2}"] {
        let error = source(bad).fetch(&swap(None)).await.unwrap_err();
        assert!(matches!(error, FetchError::BadAnswer(_)), "{error}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
    let long = format!("{{\"a\":\"{}\"}}", "x".repeat(4000));
    let error = source(&long).fetch(&swap(None)).await.unwrap_err();
    assert!(matches!(error, FetchError::TooLarge(_)), "{error}");

    let bad_scope = FixedSource::new(settings(&dir)).unwrap();
    let error = bad_scope.fetch(&swap(Some(&["a\nb"]))).await.unwrap_err();
    assert!(matches!(error, FetchError::BadAnswer(_)), "{error}");

    let missing = FixedSource::new(FixedSettings {
        access_token: SecretRef::File(dir.path().join("none")),
        ..settings(&dir)
    });
    let error = missing.unwrap().fetch(&swap(None)).await.unwrap_err();
    assert!(matches!(error, FetchError::Unavailable { .. }), "{error}");
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let client = FixedSettings {
        client_id: "a\"b".into(),
        ..settings(&dir)
    };
    assert_eq!(
        FixedSource::new(client).err(),
        Some(SettingsError::ClientId)
    );
    let scope = FixedSettings {
        authorized_scopes: Some(vec!["é".into()]),
        ..settings(&dir)
    };
    let refused = FixedSource::new(scope).err();
    assert_eq!(refused, Some(SettingsError::Scope("é".into())));
}

#[tokio::test]
async fn nothing_printed_holds_a_secret() {
    let dir = tempfile::tempdir().unwrap();
    let source = FixedSource::new(settings(&dir)).unwrap();
    let issued = source.fetch(&swap(None)).await.unwrap();
    let printed = format!("{source:?} {issued:?}");
    assert!(!printed.contains("fixed key"), "{printed}");
}
