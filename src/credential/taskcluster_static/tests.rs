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

fn settings(dir: &TempDir) -> StaticSettings {
    StaticSettings {
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

async fn ext(settings: StaticSettings, request: &SwapRequest) -> Option<Value> {
    let issued = StaticSource::new(settings)
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

/// `None` and a list yield the list; two lists yield their intersection, which may be `[]`.
#[tokio::test]
async fn scopes_are_narrowed_by_the_settings_and_by_the_rules() {
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
        let settings = StaticSettings {
            authorized_scopes: own.map(|l| l.iter().map(ToString::to_string).collect()),
            ..settings(&dir)
        };
        let found = ext(settings, &swap(wanted)).await;
        let expected = expected.map(|list| json!({ "authorizedScopes": list }));
        assert_eq!(found, expected, "{own:?} {wanted:?}");
    }
}

#[tokio::test]
async fn a_certificate_is_sent_in_ext_and_sets_the_expiry() {
    let dir = tempfile::tempdir().unwrap();
    let certificate = "{\n  \"version\": 1,\n  \"expiry\": 5000\n}\n";
    let settings = || StaticSettings {
        certificate: Some(file(&dir, "certificate", certificate)),
        ..settings(&dir)
    };
    let request = SwapRequest {
        clock_offset: 1000,
        ..swap(None)
    };
    let expected = json!({ "certificate": { "version": 1, "expiry": 5000 } });
    assert_eq!(ext(settings(), &request).await, Some(expected));
    let issued = StaticSource::new(settings()).unwrap().fetch(&request).await;
    assert_eq!(issued.unwrap().expires_at, Some(UnixMillis(4000)));
    let permanent = StaticSource::new(super::tests::settings(&dir)).unwrap();
    assert_eq!(permanent.fetch(&request).await.unwrap().expires_at, None);
}

#[tokio::test]
async fn unusable_credentials_are_reported_without_their_content() {
    let dir = tempfile::tempdir().unwrap();
    let source = |certificate: &str| {
        StaticSource::new(StaticSettings {
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

    let bad_scope = StaticSource::new(settings(&dir)).unwrap();
    let error = bad_scope.fetch(&swap(Some(&["a\nb"]))).await.unwrap_err();
    assert!(matches!(error, FetchError::BadAnswer(_)), "{error}");

    let missing = StaticSource::new(StaticSettings {
        access_token: SecretRef::File(dir.path().join("none")),
        ..settings(&dir)
    });
    let error = missing.unwrap().fetch(&swap(None)).await.unwrap_err();
    assert!(matches!(error, FetchError::Unavailable { .. }), "{error}");
}

#[test]
fn unusable_settings_are_rejected() {
    let dir = tempfile::tempdir().unwrap();
    let client = StaticSettings {
        client_id: "a\"b".into(),
        ..settings(&dir)
    };
    assert_eq!(
        StaticSource::new(client).err(),
        Some(SettingsError::ClientId)
    );
    let scope = StaticSettings {
        authorized_scopes: Some(vec!["é".into()]),
        ..settings(&dir)
    };
    let refused = StaticSource::new(scope).err();
    assert_eq!(refused, Some(SettingsError::Scope("é".into())));
}

#[tokio::test]
async fn debug_output_contains_no_secret() {
    let dir = tempfile::tempdir().unwrap();
    let source = StaticSource::new(settings(&dir)).unwrap();
    let issued = source.fetch(&swap(None)).await.unwrap();
    let printed = format!("{source:?} {issued:?}");
    assert!(!printed.contains("fixed key"), "{printed}");
}

const CERTIFICATE: &str = r#"{"version":1,"scopes":["a"],"expiry":5000}"#;

fn body(changes: &Value) -> Vec<u8> {
    let mut body = json!({"clientId": "task/1", "accessToken": "put key"});
    for (name, value) in changes.as_object().unwrap() {
        body[name] = value.clone();
    }
    body.to_string().into_bytes()
}

fn client_of(issued: &Issued) -> &str {
    match &issued.credential {
        Credential::Taskcluster { client_id, .. } => client_id,
        Credential::Bearer(_) | Credential::Basic { .. } => panic!("a Taskcluster credential"),
    }
}

#[tokio::test]
async fn an_update_replaces_the_configured_credentials() {
    let dir = tempfile::tempdir().unwrap();
    let source = StaticSource::new(settings(&dir)).unwrap();
    let key = crate::credential::IdentityKey::random().unwrap();
    let identity = || {
        let mut hasher = key.hasher();
        source.identity(&swap(None), &mut hasher).unwrap();
        hasher.finish()
    };
    let before = identity();
    assert_eq!(
        client_of(&source.fetch(&swap(None)).await.unwrap()),
        "project/app"
    );
    let name = source.update(&body(&json!({"certificate": CERTIFICATE})));
    assert_eq!(name.as_deref(), Ok("task/1"));
    let issued = source.fetch(&swap(None)).await.unwrap();
    assert_eq!(client_of(&issued), "task/1");
    assert_eq!(issued.expires_at, Some(UnixMillis(5000)));
    assert_ne!(
        identity(),
        before,
        "the old cache entries are no longer found"
    );
    // Permanent credentials, as Go clients encode them.
    for permanent in [
        json!({"certificate": ""}),
        json!({"certificate": null}),
        json!({}),
    ] {
        source.update(&body(&permanent)).unwrap();
        let issued = source.fetch(&swap(None)).await.unwrap();
        assert_eq!(issued.expires_at, None);
    }
    assert!(!format!("{source:?}").contains("put key"));
}

#[tokio::test]
async fn the_configured_scopes_narrow_updated_credentials_too() {
    let dir = tempfile::tempdir().unwrap();
    let settings = StaticSettings {
        authorized_scopes: Some(vec!["only:this".into()]),
        ..settings(&dir)
    };
    let source = StaticSource::new(settings).unwrap();
    source.update(&body(&json!({}))).unwrap();
    let issued = source.fetch(&swap(None)).await.unwrap();
    let Credential::Taskcluster { signer, .. } = &issued.credential else {
        panic!("a Taskcluster credential");
    };
    let narrowed = signer.grant().authorized_scopes;
    assert_eq!(narrowed, Some(vec!["only:this".to_owned()]));
}

#[tokio::test]
async fn invalid_updates_are_rejected_and_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let source = StaticSource::new(settings(&dir)).unwrap();
    let scopes: Vec<String> = (0..200)
        .map(|n| format!("queue:create-task:x/{n}"))
        .collect();
    let huge = json!({"version": 1, "scopes": scopes}).to_string();
    for (text, expected) in [
        (b"".to_vec(), UpdateError::Json),
        (b"{}".to_vec(), UpdateError::Json),
        (b"[]".to_vec(), UpdateError::Json),
        (b"null".to_vec(), UpdateError::Json),
        (b"\xff".to_vec(), UpdateError::Json),
        (b"{\"clientId\":\"a\"}".to_vec(), UpdateError::Json),
        (body(&json!({"accessToken": 1})), UpdateError::Json),
        (body(&json!({"accessToken": null})), UpdateError::Json),
        (
            body(&json!({"certificate": {"version": 1}})),
            UpdateError::Json,
        ),
        (
            body(&json!({"authorizedScopes": []})),
            UpdateError::AuthorizedScopes,
        ),
        (
            b"{\"clientId\":\"a\",\"clientId\":\"b\",\"accessToken\":\"c\"}".to_vec(),
            UpdateError::Json,
        ),
        (
            [body(&json!({})), b"x".to_vec()].concat(),
            UpdateError::Json,
        ),
        (body(&json!({"clientId": ""})), UpdateError::ClientId),
        (body(&json!({"clientId": "a b"})), UpdateError::ClientId),
        (
            body(&json!({"clientId": "a\"\r\nX: y"})),
            UpdateError::ClientId,
        ),
        (body(&json!({"accessToken": ""})), UpdateError::NoKey),
        (
            body(&json!({"certificate": "not json"})),
            UpdateError::Certificate(crate::hawk::certificate::CertificateError::NotAnObject),
        ),
        (vec![b' '; MAX_UPDATE_BYTES + 1], UpdateError::TooLarge),
    ] {
        assert_eq!(source.update(&text), Err(expected), "{}", text.len());
    }
    let refused = source.update(&body(&json!({"certificate": huge})));
    assert!(matches!(refused, Err(UpdateError::Unusable(_))));
    assert_eq!(source.replacement.load().count, 0);
    assert_eq!(
        client_of(&source.fetch(&swap(None)).await.unwrap()),
        "project/app"
    );
}

#[test]
fn update_errors_do_not_quote_the_body() {
    let dir = tempfile::tempdir().unwrap();
    let source = StaticSource::new(settings(&dir)).unwrap();
    for text in [
        body(&json!({"accessToken": ["hunter2"]})),
        body(&json!({"authorizedScopes": ["hunter2"]})),
        body(&json!({"clientId": "hunter2 "})),
        body(&json!({"certificate": "hunter2"})),
    ] {
        let error = source.update(&text).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }
}
