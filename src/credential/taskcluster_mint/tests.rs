use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::*;
use crate::clock::{ManualClock, UnixMillis};
use crate::credential::Credential;
use crate::hawk::SignedRequest;
use crate::token::{TokenDigest, VerifiedToken};

const NOW: UnixMillis = UnixMillis(1_795_201_809_000);
const DAY: Duration = Duration::from_hours(24);

fn settings(secret: &tempfile::NamedTempFile) -> MintSettings {
    MintSettings {
        client_id: "project/issuer".into(),
        access_token: SecretRef::File(secret.path().to_owned()),
        client_name: NameTemplate::parse("sso/{sub}").unwrap(),
        scopes: vec!["queue:*".into(), "assume:dev".into()],
        lifetime: DAY,
    }
}

fn secret() -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "issuing key\n").unwrap();
    file
}

fn swap(caller: Caller) -> SwapRequest {
    SwapRequest {
        caller,
        bearer: None,
        scopes: None,
        clock_offset: 0,
    }
}

fn request_by(sub: &str) -> SwapRequest {
    let token = VerifiedToken::for_test("auth0", json!({ "sub": sub }));
    swap(Caller::Verified(token))
}

fn source(settings: MintSettings) -> MintSource {
    MintSource::new(settings, ManualClock::at(NOW)).unwrap()
}

/// The clientId and the certificate in a header signed with `issued`.
fn decoded(issued: &Issued) -> (String, Value) {
    let Credential::Taskcluster { client_id, signer } = &issued.credential else {
        panic!("a Taskcluster credential");
    };
    let header = signer
        .authorization(&SignedRequest {
            at: NOW,
            nonce: "n",
            method: "GET",
            target: "/",
            host: "tc.example.com",
            port: 443,
            payload_hash: None,
        })
        .unwrap();
    assert!(header.contains(&format!("id=\"{client_id}\"")));
    let ext = header.split("ext=\"").nth(1).unwrap();
    let ext = STANDARD.decode(ext.split('"').next().unwrap()).unwrap();
    let mut ext: Value = serde_json::from_slice(&ext).unwrap();
    assert_eq!(ext.as_object().unwrap().len(), 1, "only a certificate");
    (client_id.clone(), ext["certificate"].take())
}

#[tokio::test]
async fn mints_a_certificate_for_the_caller() {
    let secret = secret();
    let issued = source(settings(&secret))
        .fetch(&request_by("ad|me/you"))
        .await
        .unwrap();
    let (name, certificate) = decoded(&issued);
    assert_eq!(name, "sso/ad|me!2Fyou");
    assert_eq!(certificate["issuer"], "project/issuer");
    assert_eq!(certificate["scopes"], json!(["queue:*", "assume:dev"]));
    assert_eq!(certificate["start"], NOW.minus(BACKDATED).0);
    assert_eq!(certificate["expiry"], NOW.plus(DAY).0);
    assert_eq!(issued.expires_at, Some(NOW.plus(DAY)));
}

/// The certificate states the service's time; `expires_at`, for the cache, states ours.
#[tokio::test]
async fn the_clock_offset_applies_only_to_the_certificate() {
    let secret = secret();
    for clock_offset in [3_600_000, -3_600_000] {
        let request = SwapRequest {
            clock_offset,
            ..request_by("me")
        };
        let issued = source(settings(&secret)).fetch(&request).await.unwrap();
        let (_, certificate) = decoded(&issued);
        let theirs = NOW.offset_by(clock_offset);
        assert_eq!(certificate["start"], theirs.minus(BACKDATED).0);
        assert_eq!(certificate["expiry"], theirs.plus(DAY).0);
        assert_eq!(issued.expires_at, Some(NOW.plus(DAY)));
    }
}

#[tokio::test]
async fn the_validity_of_a_certificate_never_exceeds_31_days() {
    let secret = secret();
    let minute = Duration::from_mins(1);
    let table = [
        (MAX_LIFETIME, Duration::ZERO),
        (MAX_LIFETIME.saturating_sub(minute), minute),
        (MAX_LIFETIME.saturating_sub(DAY), BACKDATED),
        (Duration::from_millis(1), BACKDATED),
    ];
    for (lifetime, backdated) in table {
        let settings = MintSettings {
            lifetime,
            ..settings(&secret)
        };
        let issued = source(settings).fetch(&request_by("me")).await.unwrap();
        let (_, certificate) = decoded(&issued);
        assert_eq!(certificate["start"], NOW.minus(backdated).0, "{lifetime:?}");
        assert_eq!(certificate["expiry"], NOW.plus(lifetime).0, "{lifetime:?}");
    }
}

#[tokio::test]
async fn rules_narrow_scopes_and_never_widen_them() {
    let secret = secret();
    let table: [(&[&str], &[&str]); 5] = [
        (&["queue:create:*", "hooks:x"], &["queue:create:*"]),
        (&["*"], &["assume:dev", "queue:*"]),
        (&["hooks:x"], &[]),
        (&[], &[]),
        (&["assume:*"], &["assume:dev"]),
    ];
    for (wanted, granted) in table {
        let request = SwapRequest {
            scopes: Some(wanted.iter().map(ToString::to_string).collect()),
            ..request_by("me")
        };
        let issued = source(settings(&secret)).fetch(&request).await.unwrap();
        assert_eq!(decoded(&issued).1["scopes"], json!(granted), "{wanted:?}");
    }
}

#[tokio::test]
async fn callers_without_the_claims_are_not_entitled() {
    let secret = secret();
    let nameless = VerifiedToken::for_test("auth0", json!({ "sub": "", "name": "x" }));
    let callers = [
        Caller::Anonymous,
        Caller::Delegated {
            issuer: Arc::from("tc"),
            digest: TokenDigest([1; 32]),
            peer: None,
        },
        Caller::Verified(nameless),
    ];
    let minting = source(settings(&secret));
    for caller in callers {
        let error = minting.fetch(&swap(caller)).await.unwrap_err();
        assert!(matches!(error, FetchError::NotEntitled(_)), "{error}");
        assert!(error.to_string().contains("\"sub\""), "{error}");
    }
    let fixed = source(MintSettings {
        client_name: NameTemplate::parse("sidecar/jobs").unwrap(),
        ..settings(&secret)
    });
    let issued = fixed.fetch(&swap(Caller::Anonymous)).await.unwrap();
    assert_eq!(decoded(&issued).0, "sidecar/jobs");
}

#[tokio::test]
async fn a_name_equal_to_the_issuing_clients_is_rejected() {
    let secret = secret();
    let minting = source(MintSettings {
        client_name: NameTemplate::parse("project/{sub}").unwrap(),
        ..settings(&secret)
    });
    let error = minting.fetch(&request_by("issuer")).await.unwrap_err();
    assert!(matches!(error, FetchError::NotEntitled(_)), "{error}");
    assert!(minting.fetch(&request_by("issuer2")).await.is_ok());
}

#[tokio::test]
async fn a_rotated_key_is_used_at_the_next_fetch_and_a_missing_one_is_unavailable() {
    let secret = secret();
    let minting = source(settings(&secret));
    let signature = async || {
        let issued = minting.fetch(&request_by("me")).await.unwrap();
        let certificate = decoded(&issued).1;
        let (seed, signature) = (
            certificate["seed"].clone(),
            certificate["signature"].clone(),
        );
        (seed.as_str().unwrap().to_owned(), signature)
    };
    // The seed is random, so the expected signature is computed from it.
    for key in ["issuing key", "rotated key"] {
        std::fs::write(secret.path(), key).unwrap();
        let (seed, actual) = signature().await;
        let text = format!(
            "version:1\nclientId:sso/me\nissuer:project/issuer\nseed:{seed}\nstart:{}\nexpiry:{}\nscopes:\nqueue:*\nassume:dev",
            NOW.minus(BACKDATED).0,
            NOW.plus(DAY).0
        );
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, key.as_bytes());
        let expected = STANDARD.encode(aws_lc_rs::hmac::sign(&key, text.as_bytes()));
        assert_eq!(actual, json!(expected));
    }
    std::fs::remove_file(secret.path()).unwrap();
    let error = minting.fetch(&request_by("me")).await.unwrap_err();
    assert!(matches!(error, FetchError::Unavailable { .. }), "{error}");
}

#[tokio::test]
async fn too_many_scopes_are_reported_as_too_large() {
    let secret = secret();
    let scopes = |count: usize| (0..count).map(|i| format!("queue:scope:{i:040}")).collect();
    let with = |count: usize| MintSettings {
        scopes: scopes(count),
        ..settings(&secret)
    };
    assert!(source(with(40)).fetch(&request_by("me")).await.is_ok());
    for count in [60, 2000] {
        let error = source(with(count))
            .fetch(&request_by("me"))
            .await
            .unwrap_err();
        assert!(matches!(error, FetchError::TooLarge(_)), "{error}");
        assert!(error.to_string().contains("4096"), "{error}");
    }
}

#[test]
fn unusable_settings_are_rejected() {
    let secret = secret();
    let refused = |change: &dyn Fn(&mut MintSettings)| {
        let mut settings = settings(&secret);
        change(&mut settings);
        MintSource::new(settings, ManualClock::at(NOW))
            .map(|_| ())
            .err()
    };
    assert_eq!(refused(&|_| ()), None);
    assert_eq!(
        refused(&|s| s.client_id = "a b".into()),
        Some(SettingsError::ClientId)
    );
    assert_eq!(
        refused(&|s| s.client_id.clear()),
        Some(SettingsError::ClientId)
    );
    assert_eq!(
        refused(&|s| s.lifetime = Duration::ZERO),
        Some(SettingsError::Lifetime)
    );
    assert_eq!(
        refused(&|s| s.lifetime = MAX_LIFETIME + Duration::from_millis(1)),
        Some(SettingsError::Lifetime)
    );
    assert_eq!(
        refused(&|s| s.scopes.push("a\nb".into())),
        Some(SettingsError::Scope("a\nb".into()))
    );
}

#[tokio::test]
async fn debug_output_contains_no_secret() {
    let secret = secret();
    let minting = source(settings(&secret));
    let issued = minting.fetch(&request_by("me")).await.unwrap();
    let (_, certificate) = decoded(&issued);
    let printed = format!("{minting:?} {issued:?}");
    for hidden in [
        "issuing key",
        certificate["signature"].as_str().unwrap(),
        certificate["seed"].as_str().unwrap(),
    ] {
        assert!(!printed.contains(hidden), "{printed}");
    }
}

#[tokio::test]
async fn issue_returns_readable_credentials() {
    let secret = secret();
    let source = source(settings(&secret));
    let caller = request_by("alice").caller;
    let (start, expiry) = (
        NOW.minus(Duration::from_mins(15)),
        NOW.plus(Duration::from_mins(1)),
    );
    let issued = source.issue(&caller, None, start, expiry).await.unwrap();
    assert_eq!(issued.client_id, "sso/alice");
    let certificate: Value = serde_json::from_str(issued.certificate.unwrap().as_json()).unwrap();
    assert_eq!(certificate["start"], start.0);
    assert_eq!(certificate["expiry"], expiry.0);
    let shown = format!(
        "{:?}",
        source.issue(&caller, None, start, expiry).await.unwrap()
    );
    assert!(!shown.contains(issued.access_token.expose()));
    assert!(source.issue(&caller, None, expiry, start).await.is_err());
    std::fs::remove_file(secret.path()).unwrap();
    let error = source
        .issue(&caller, None, start, expiry)
        .await
        .unwrap_err();
    assert!(matches!(error, FetchError::Unavailable { .. }));
}
