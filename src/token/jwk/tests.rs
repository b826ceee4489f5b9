use super::*;
use crate::token::testing::{ED25519, OTHER_RSA, P256, P384, RSA, b64, jwks};
use serde_json::json;

/// Whatever the reason is.
const UNSUITABLE: KeySelectionError = KeySelectionError::Unsuitable("");

fn parse(keys: &[Value]) -> KeySet {
    KeySet::parse(&jwks(keys), Algorithm::ALL).unwrap()
}

fn selected(
    set: &KeySet,
    algorithm: Algorithm,
    kid: Option<&str>,
) -> Result<usize, KeySelectionError> {
    let selected = set.select(algorithm, kid);
    selected
        .map(|verifiers| verifiers.len())
        .map_err(|error| match error {
            KeySelectionError::Unsuitable(_) => UNSUITABLE,
            error => error,
        })
}

#[test]
fn kty_and_crv_must_match_the_algorithm() {
    use Algorithm::*;
    let set = parse(&[RSA.jwk(), P256.jwk(), P384.jwk(), ED25519.jwk()]);
    let suiting: &[(&str, &[Algorithm])] = &[
        ("rsa", &[RS256, RS384, RS512, PS256, PS384, PS512]),
        ("p256", &[ES256]),
        ("p384", &[ES384]),
        ("ed25519", &[EdDSA, Ed25519]),
    ];
    for (kid, algorithms) in suiting {
        for algorithm in Algorithm::ALL {
            let expected = if algorithms.contains(algorithm) {
                Ok(1)
            } else {
                Err(UNSUITABLE)
            };
            assert_eq!(
                selected(&set, *algorithm, Some(kid)),
                expected,
                "{kid} {algorithm:?}"
            );
        }
    }
}

#[test]
fn use_key_ops_and_alg_are_honoured() {
    for (changes, expected) in [
        (json!({}), Ok(1)),
        (json!({"use": "sig"}), Ok(1)),
        (json!({"use": "jwt-svid"}), Ok(1)),
        (json!({"use": "x509-svid"}), Err(UNSUITABLE)),
        (json!({"use": "enc"}), Err(UNSUITABLE)),
        (json!({"use": ["sig"]}), Err(UNSUITABLE)),
        (json!({"key_ops": ["verify"]}), Ok(1)),
        (json!({"key_ops": ["sign", "verify"]}), Ok(1)),
        (json!({"key_ops": ["encrypt"]}), Err(UNSUITABLE)),
        (json!({"key_ops": []}), Err(UNSUITABLE)),
        (json!({"key_ops": "verify"}), Err(UNSUITABLE)),
        (json!({"alg": "RS256"}), Ok(1)),
        (json!({"alg": "RS512"}), Err(UNSUITABLE)),
        (json!({"alg": "RSA-OAEP"}), Err(UNSUITABLE)),
        (json!({"alg": 1}), Err(UNSUITABLE)),
        (json!({"d": "AQAB"}), Err(UNSUITABLE)),
        (json!({"kty": "rsa"}), Err(UNSUITABLE)),
        (json!({"x5c": ["junk"], "x5t": "junk", "ext": true}), Ok(1)),
    ] {
        let set = parse(&[RSA.jwk_with(&changes)]);
        assert_eq!(
            selected(&set, Algorithm::RS256, Some("rsa")),
            expected,
            "{changes}"
        );
    }
    let named = parse(&[ED25519.jwk_with(&json!({"alg": "EdDSA"}))]);
    assert_eq!(selected(&named, Algorithm::Ed25519, Some("ed25519")), Ok(1));
}

#[test]
fn weak_and_malformed_keys_are_never_selected() {
    let modulus = |bytes: usize, first: u8| {
        let mut n = vec![0xff; bytes];
        n[0] = first;
        json!({"n": b64(n)})
    };
    for (key, changes) in [
        (&*RSA, modulus(128, 0xff)),
        (&*RSA, modulus(256, 0x7f)),
        (&*RSA, modulus(1025, 0xff)),
        (&*RSA, json!({"n": ""})),
        (&*RSA, json!({"n": "!"})),
        (&*RSA, json!({"n": null})),
        (&*RSA, json!({"e": b64([1])})),
        (&*RSA, json!({"e": b64([1, 0, 0])})),
        (&*RSA, json!({"e": b64([1, 0, 0, 0, 1])})),
        (&*RSA, json!({"e": ""})),
        (&*P256, json!({"x": b64([1; 32])})),
        (&*P256, json!({"x": b64([0; 33])})),
        (&*P256, json!({"y": null})),
        (&*P256, json!({"crv": "P-384"})),
        (&*P256, json!({"crv": "secp256k1"})),
        (&*ED25519, json!({"x": b64([0; 31])})),
        (&*ED25519, json!({"crv": "X25519"})),
        (&*ED25519, json!({"crv": "Ed448"})),
    ] {
        let set = parse(&[key.jwk_with(&changes)]);
        assert!(set.is_empty(), "{changes}");
        assert_eq!(
            selected(&set, Algorithm::RS256, Some(key.kid)),
            Err(UNSUITABLE)
        );
    }
    // A 2048-bit modulus with a leading sign byte is accepted.
    let n = RSA.jwk()["n"].as_str().unwrap().to_owned();
    let padded = b64([vec![0], decode(&n)].concat());
    let set = parse(&[RSA.jwk_with(&json!({ "n": padded }))]);
    assert_eq!(set, parse(&[RSA.jwk()]));
}

#[test]
fn unknown_keys_in_a_jwk_set_are_tolerated() {
    let set = parse(&[
        json!({"kty": "oct", "kid": "secret", "k": "c2VjcmV0", "alg": "HS256"}),
        json!({"kty": "AKP", "kid": "pq", "alg": "ML-DSA-44", "pub": "AA"}),
        json!({"kty": "EC", "crv": "P-521", "kid": "p521", "x": "AA", "y": "AA"}),
        json!({"kty": 7}),
        json!({"kid": {"no": "string"}}),
        json!({}),
        json!("no object"),
        json!(null),
        RSA.jwk(),
    ]);
    assert_eq!(selected(&set, Algorithm::RS256, Some("rsa")), Ok(1));
    for kid in ["secret", "pq", "p521"] {
        let none = selected(&set, Algorithm::ES256, Some(kid));
        assert_eq!(none, Err(UNSUITABLE), "{kid}");
    }
    assert_eq!(selected(&set, Algorithm::RS256, None), Ok(1));
}

#[test]
fn a_token_without_a_kid_requires_exactly_one_key_for_its_algorithm() {
    let set = parse(&[RSA.jwk(), P256.jwk()]);
    assert_eq!(selected(&set, Algorithm::RS256, None), Ok(1));
    assert_eq!(selected(&set, Algorithm::ES256, None), Ok(1));
    assert_eq!(
        selected(&set, Algorithm::EdDSA, None),
        Err(KeySelectionError::Missing)
    );
    let two = parse(&[RSA.jwk(), OTHER_RSA.jwk()]);
    assert_eq!(
        selected(&two, Algorithm::RS256, None),
        Err(KeySelectionError::Ambiguous)
    );
    // A key without a `kid` is never used for a token that has one.
    let nameless = parse(&[RSA.jwk_with(&json!({"kid": null}))]);
    assert_eq!(
        selected(&nameless, Algorithm::RS256, Some("rsa")),
        Err(KeySelectionError::Missing)
    );
    assert_eq!(selected(&nameless, Algorithm::RS256, None), Ok(1));
}

#[test]
fn keys_with_the_same_kid_are_all_tried() {
    // If they are of different kinds, the algorithm decides.
    let set = parse(&[RSA.jwk(), P256.jwk_with(&json!({"kid": "rsa"}))]);
    assert_eq!(selected(&set, Algorithm::RS256, Some("rsa")), Ok(1));
    assert_eq!(selected(&set, Algorithm::ES256, Some("rsa")), Ok(1));
    // Identical keys count once.
    let twice = parse(&[RSA.jwk(), RSA.jwk()]);
    assert_eq!(selected(&twice, Algorithm::RS256, None), Ok(1));
    // Different keys are all tried, up to a limit.
    let rotated = parse(&[RSA.jwk(), OTHER_RSA.jwk_with(&json!({"kid": "rsa"}))]);
    assert_eq!(selected(&rotated, Algorithm::RS256, Some("rsa")), Ok(2));
    let many: Vec<_> = (0..10)
        .map(|_| crate::token::testing::TestKey::ed25519("same").jwk())
        .collect();
    assert_eq!(
        selected(&parse(&many), Algorithm::EdDSA, Some("same")),
        Ok(MAX_SAME_KID)
    );
}

#[test]
fn jwk_set_size_key_count_and_kid_length_are_limited() {
    let numbered = |n: usize| -> Vec<Value> {
        (0..n)
            .map(|i| ED25519.jwk_with(&json!({"kid": i.to_string()})))
            .collect()
    };
    assert!(KeySet::parse(&jwks(&numbered(MAX_KEYS)), Algorithm::ALL).is_ok());
    assert!(KeySet::parse(&jwks(&numbered(MAX_KEYS + 1)), Algorithm::ALL).is_err());
    let mut document = jwks(&[RSA.jwk()]);
    document.resize(MAX_DOCUMENT_BYTES, b' ');
    assert!(KeySet::parse(&document, Algorithm::ALL).is_ok());
    document.push(b' ');
    assert!(KeySet::parse(&document, Algorithm::ALL).is_err());
    for no_jwks in [
        &b""[..],
        b"[]",
        b"{}",
        b"{\"keys\":{}}",
        b"<html>",
        b"{\"keys\":[]",
    ] {
        assert!(KeySet::parse(no_jwks, Algorithm::ALL).is_err());
    }
    let overlong = "k".repeat(MAX_KID_BYTES + 1);
    let set = parse(&[RSA.jwk_with(&json!({ "kid": overlong }))]);
    assert_eq!(
        selected(&set, Algorithm::RS256, Some(&overlong)),
        Err(KeySelectionError::Missing)
    );
}

#[test]
fn jwk_sets_are_equal_if_they_verify_the_same_signatures() {
    let set = parse(&[RSA.jwk(), P256.jwk()]);
    assert_eq!(
        set,
        parse(&[P256.jwk_with(&json!({"x5t": "new"})), RSA.jwk()])
    );
    assert_ne!(set, parse(&[RSA.jwk()]));
    assert_ne!(
        set,
        parse(&[RSA.jwk_with(&json!({"alg": "RS256"})), P256.jwk()])
    );
    assert_ne!(
        set,
        parse(&[OTHER_RSA.jwk_with(&json!({"kid": "rsa"})), P256.jwk()])
    );
}

/// RFC 7515 appendix A.3 and RFC 8037 appendix A.4.
#[test]
fn signatures_published_in_rfcs_verify() {
    let p256 = json!({"kty": "EC", "crv": "P-256",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"});
    let ed25519 = json!({"kty": "OKP", "crv": "Ed25519",
        "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
    for (jwk, algorithm, signed, signature) in [
        (
            p256,
            Algorithm::ES256,
            "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFt\
             cGxlLmNvbS9pc19yb290Ijp0cnVlfQ",
            "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
        ),
        (
            ed25519,
            Algorithm::Ed25519,
            "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc",
            "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
        ),
    ] {
        let verifier = parse(&[jwk]).select(algorithm, None).unwrap().remove(0);
        assert!(verifier.verify(signed.as_bytes(), signature));
        assert!(!verifier.verify(&signed.as_bytes()[1..], signature));
    }
}

/// Some issuers write null for what they leave out.
#[test]
fn a_member_that_is_null_counts_as_left_out() {
    let with_null = |members: &[&str]| {
        let mut jwk = RSA.jwk();
        for member in members {
            jwk[member] = Value::Null;
        }
        jwk
    };
    for members in [
        &["alg"][..],
        &["use"],
        &["key_ops"],
        &["d"],
        &["alg", "use", "key_ops", "x5c", "x5t"],
    ] {
        let set = parse(&[with_null(members)]);
        assert_eq!(set, parse(&[RSA.jwk()]), "{members:?}");
        assert_eq!(selected(&set, Algorithm::RS256, Some("rsa")), Ok(1));
    }
    let set = parse(&[with_null(&["kid"])]);
    assert_eq!(selected(&set, Algorithm::RS256, None), Ok(1));
}

#[test]
fn each_key_that_cannot_be_used_is_named_with_the_reason() {
    let of = |changes: Value| RSA.jwk_with(&changes);
    for (jwk, reason) in [
        (of(json!({"d": "AQAB"})), "is a private key"),
        (
            of(json!({"use": "enc"})),
            "is not for verifying signatures, according to its use",
        ),
        (
            of(json!({"use": 1})),
            "is not for verifying signatures, according to its use",
        ),
        (
            of(json!({"key_ops": ["encrypt"]})),
            "is not for verifying signatures, according to its key_ops",
        ),
        (
            of(json!({"alg": "RSA-OAEP"})),
            "has an alg that is not among the issuer's algorithms",
        ),
        (of(json!({"n": "AQAB"})), "or is too weak"),
        (
            json!({"kty": "oct", "kid": "rsa", "k": "AA"}),
            "is symmetric",
        ),
        (
            json!({"kty": "EC", "crv": "P-256", "kid": "rsa", "x": b64([1; 32]), "y": b64([1; 32])}),
            "has invalid parameters",
        ),
    ] {
        let expected = "key \"rsa\" ";
        let found = no_usable_key(&jwks(std::slice::from_ref(&jwk)), Algorithm::ALL);
        assert!(
            found.contains(expected) && found.contains(reason),
            "{jwk}: {found}"
        );
        let KeySelectionError::Unsuitable(why) = parse(&[jwk])
            .select(Algorithm::RS256, Some("rsa"))
            .unwrap_err()
        else {
            panic!("{reason}")
        };
        assert!(why.contains(reason), "{why}");
    }
    let p256 = no_usable_key(&jwks(&[P256.jwk()]), &[Algorithm::RS256]);
    assert_eq!(
        p256,
        "has no usable key: key \"p256\" is of a kind that none of the issuer's algorithms uses"
    );
    let junk = no_usable_key(&jwks(&[json!(1), json!({})]), Algorithm::ALL);
    assert!(
        junk.contains("key number 1 is not a JSON object; key number 2 has a kty"),
        "{junk}"
    );
    assert_eq!(no_usable_key(&jwks(&[]), Algorithm::ALL), "has no keys");
}

/// Providers publish keys for encryption beside those for signatures.
#[test]
fn keys_for_encryption_are_not_worth_a_message() {
    let enc = OTHER_RSA.jwk_with(&json!({"use": "enc"}));
    let set = [RSA.jwk(), enc.clone()];
    assert_eq!(unusable_for_signatures(&jwks(&set), Algorithm::ALL), "");
    let set = [RSA.jwk(), enc, P256.jwk_with(&json!({"crv": "P-521"}))];
    let found = unusable_for_signatures(&jwks(&set), Algorithm::ALL);
    assert!(
        found.starts_with("key \"p256\" has a kty") && !found.contains(';'),
        "{found}"
    );
}
