//! Tokens that must be refused, each with the expected error.

use super::*;
use crate::token::MAX_TOKEN_BYTES;
use crate::token::testing::b64;
use TokenError as E;

pub(super) type Row = (String, String, TokenError);

fn row(what: impl Into<String>, token: String, error: TokenError) -> Row {
    (what.into(), token, error)
}

fn claim(name: &'static str) -> TokenError {
    E::claim(name)
}

fn unsuitable(why: &'static str) -> TokenError {
    E::UnsuitableKey { why }
}

/// A compact JWS with an arbitrary signature.
fn assembled(header: &Value, claims: &Value, signature: &[u8]) -> String {
    let (header, claims) = (b64(header.to_string()), b64(claims.to_string()));
    format!("{header}.{claims}.{}", b64(signature))
}

fn shapes() -> Vec<Row> {
    let good = RSA.token(&at_jwt(), &claims());
    let parts: Vec<&str> = good.split('.').collect();
    let (h, c, s) = (parts[0], parts[1], parts[2]);
    let malformed = [
        ("two segments", format!("{h}.{c}")),
        ("four segments", format!("{good}.x")),
        ("trailing dot", format!("{good}.")),
        ("padded signature", format!("{good}==")),
        ("not base64url", format!("{h}.{c}+/.{s}")),
        (
            "a length that base64 cannot have",
            format!("{h}.{c}.{}", &s[..s.len() - 1]),
        ),
        ("empty claims", format!("{h}..{s}")),
        (
            "claims are a string",
            RSA.token_of("RS256", &header(), "\"x\""),
        ),
        ("claims are null", RSA.token_of("RS256", &header(), "null")),
        (
            "claims twice",
            RSA.token_of("RS256", &header(), &claims().to_string().repeat(2)),
        ),
        (
            "byte order mark",
            RSA.token_of("RS256", &header(), &format!("\u{feff}{}", claims())),
        ),
        ("lone surrogate", {
            let claims = claims().to_string().replace("alice", "\\ud800");
            RSA.token_of("RS256", &header(), &claims)
        }),
        ("too large a number", {
            let claims = claims().to_string().replacen('{', "{\"x\":1e999,", 1);
            RSA.token_of("RS256", &header(), &claims)
        }),
    ];
    let mut rows: Vec<Row> = malformed
        .map(|(what, token)| row(what, token, E::Malformed))
        .into();
    let twice = |text: &str, member: &str| text.replacen('{', &format!("{{{member},"), 1);
    rows.extend([
        row("encrypted", format!("{h}.{c}.{s}.{s}.{s}"), E::Encrypted),
        row(
            "alg twice",
            RSA.token_of(
                "RS256",
                &twice(&header(), "\"alg\":\"none\""),
                &claims().to_string(),
            ),
            E::DuplicateMember,
        ),
        row(
            "two kids",
            RSA.token_of(
                "RS256",
                &twice(&header(), "\"kid\":\"p256\""),
                &claims().to_string(),
            ),
            E::DuplicateMember,
        ),
        row(
            "sub twice",
            RSA.token_of(
                "RS256",
                &header(),
                &twice(&claims().to_string(), "\"sub\":\"bob\""),
            ),
            E::DuplicateMember,
        ),
        row(
            "aud twice, once escaped",
            RSA.token_of(
                "RS256",
                &header(),
                &twice(&claims().to_string(), "\"\\u0061ud\":1"),
            ),
            E::DuplicateMember,
        ),
        row(
            "nested duplicate",
            RSA.token_of(
                "RS256",
                &header(),
                &twice(&claims().to_string(), "\"x\":[{\"y\":1,\"y\":2}]"),
            ),
            E::DuplicateMember,
        ),
    ]);
    rows
}

fn opaque() -> Vec<Row> {
    let good = RSA.token(&at_jwt(), &claims());
    let parts: Vec<&str> = good.split('.').collect();
    let (c, s) = (parts[1], parts[2]);
    [
        ("opaque", "abcdef".to_owned()),
        ("leading dot", format!(".{good}")),
        ("empty header", format!(".{c}.{s}")),
        (
            "header is an array",
            RSA.token_of("RS256", "[]", &claims().to_string()),
        ),
        (
            "header is not JSON",
            RSA.token_of("RS256", "alg", &claims().to_string()),
        ),
    ]
    .map(|(what, token)| row(what, token, E::Opaque))
    .into()
}

fn header() -> String {
    json!({"alg": "RS256", "kid": "rsa", "typ": "at+jwt"}).to_string()
}

fn headers() -> Vec<Row> {
    let mut rows = Vec::new();
    for alg in ["none", "None", "NONE", "nOnE", ""] {
        let header = json!({"alg": alg, "typ": "at+jwt", "kid": "rsa"});
        let what = format!("alg {alg:?}");
        rows.push(row(
            &what,
            assembled(&header, &claims(), b""),
            E::UnacceptableAlgorithm,
        ));
        let signed = RSA.token(&header, &claims());
        rows.push(row(
            format!("{what}, signed"),
            signed,
            E::UnacceptableAlgorithm,
        ));
    }
    for alg in [
        "HS256", "HS384", "HS512", "rs256", "RS256 ", "ES256K", "ES512", "Ed448", "RS1",
    ] {
        let token = RSA.token(&json!({"alg": alg, "typ": "at+jwt"}), &claims());
        rows.push(row(format!("alg {alg}"), token, E::UnacceptableAlgorithm));
    }
    for alg in [json!(["RS256"]), json!(1), json!({"RS256": 1})] {
        let header = json!({"alg": alg, "typ": "at+jwt", "kid": "rsa"});
        let token = RSA.token_of("RS256", &header.to_string(), &claims().to_string());
        rows.push(row(format!("alg {alg}"), token, E::UnacceptableAlgorithm));
    }
    let no_alg = json!({"typ": "at+jwt", "kid": "rsa"}).to_string();
    let no_alg = RSA.token_of("RS256", &no_alg, &claims().to_string());
    rows.push(row("no alg", no_alg, E::UnacceptableAlgorithm));
    rows.push(row(
        "HS256 with the public key as the secret",
        confused(),
        E::UnacceptableAlgorithm,
    ));
    for crit in [
        json!(["exp"]),
        json!([]),
        json!(["b64"]),
        json!("x"),
        json!(false),
    ] {
        let header = json!({"typ": "at+jwt", "crit": crit, "b64": true, "exp": 1});
        rows.push(row(
            format!("crit {crit}"),
            RSA.token(&header, &claims()),
            E::CriticalHeader,
        ));
    }
    for typ in [
        "JWT",
        "",
        "at",
        "at+jwtx",
        " at+jwt",
        "id+jwt",
        "logout+jwt",
        "application/jwt",
    ] {
        let token = RSA.token(&json!({ "typ": typ }), &claims());
        rows.push(row(format!("typ {typ:?}"), token, E::WrongType));
    }
    rows.push(row(
        "no typ",
        RSA.token(&json!({}), &claims()),
        E::WrongType,
    ));
    let array = RSA.token(&json!({"typ": ["at+jwt"]}), &claims());
    rows.push(row("typ is an array", array, E::WrongType));
    rows
}

/// Algorithm confusion (RFC 8725 §2.1): the public key, as text, used as an HMAC secret.
fn confused() -> String {
    let secret = RSA.jwk().to_string();
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret.as_bytes());
    let header = b64(json!({"alg": "HS256", "kid": "rsa", "typ": "at+jwt"}).to_string());
    let signed = format!("{header}.{}", b64(claims().to_string()));
    let tag = aws_lc_rs::hmac::sign(&key, signed.as_bytes());
    format!("{signed}.{}", b64(tag.as_ref()))
}

fn keys() -> Vec<Row> {
    let kid = |kid: Value| json!({"typ": "at+jwt", "kid": kid});
    let without_kid = |alg: &str| json!({"alg": alg, "typ": "at+jwt"}).to_string();
    let embedded =
        json!({"typ": "at+jwt", "kid": "mine", "jwk": OTHER_RSA.jwk_with(&json!({"kid": "mine"}))});
    let ed_with_rsa = json!({"typ": "at+jwt", "alg": "EdDSA", "kid": "rsa"});
    vec![
        row(
            "unknown kid",
            RSA.token(&kid(json!("rsa2")), &claims()),
            E::UnknownKey,
        ),
        row(
            "kid in another case",
            RSA.token(&kid(json!("RSA")), &claims()),
            E::UnknownKey,
        ),
        row(
            "empty kid",
            RSA.token(&kid(json!("")), &claims()),
            E::UnknownKey,
        ),
        row(
            "kid is a path",
            RSA.token(&kid(json!("../../dev/null")), &claims()),
            E::UnknownKey,
        ),
        row(
            "kid of another issuer",
            OTHER_RSA.token(&at_jwt(), &claims()),
            E::UnknownKey,
        ),
        row(
            "kid is a number",
            RSA.token(&kid(json!(1)), &claims()),
            E::Malformed,
        ),
        row(
            "kid is an array",
            RSA.token(&kid(json!(["rsa"])), &claims()),
            E::Malformed,
        ),
        row(
            "kid is too long",
            RSA.token(&kid(json!("k".repeat(513))), &claims()),
            E::Malformed,
        ),
        row(
            "no kid, two suitable keys",
            RSA.token_of("RS512", &without_kid("RS512"), &claims().to_string()),
            E::KeyIdMissing,
        ),
        row(
            "embedded jwk",
            OTHER_RSA.token(&embedded, &claims()),
            E::UnknownKey,
        ),
        row(
            "EdDSA with an RSA key",
            ED25519.token(&ed_with_rsa, &claims()),
            unsuitable("is for another algorithm"),
        ),
        row(
            "RS256 with an EC key",
            RSA.token(&kid(json!("p256")), &claims()),
            unsuitable("is for another algorithm"),
        ),
        row(
            "ES256 with a P-384 key",
            P256.token(&kid(json!("p384")), &claims()),
            unsuitable("is for another algorithm"),
        ),
        row(
            "key for encryption",
            OTHER_RSA.token(&kid(json!("for-encryption")), &claims()),
            unsuitable("is not for verifying signatures, according to its use"),
        ),
        row(
            "key for another algorithm",
            OTHER_RSA.token(&kid(json!("for-rs512")), &claims()),
            unsuitable("is for another algorithm"),
        ),
        row(
            "symmetric key",
            RSA.token(&kid(json!("secret")), &claims()),
            unsuitable("is symmetric: its secret is published, so it proves nothing"),
        ),
    ]
}

fn signatures() -> Vec<Row> {
    let good = RSA.token(&at_jwt(), &claims());
    let stripped = format!("{}.", good.rsplit_once('.').unwrap().0);
    let other = RSA.token(&at_jwt(), &claims_with(&json!({"sub": "bob"})));
    let swapped = format!(
        "{}.{}",
        good.rsplit_once('.').unwrap().0,
        other.rsplit_once('.').unwrap().1
    );
    let es256 = json!({"alg": "ES256", "kid": "p256", "typ": "at+jwt"});
    let signed =
        |header: &Value| format!("{}.{}", b64(header.to_string()), b64(claims().to_string()));
    let fixed = P256.sign("ES256", signed(&es256).as_bytes());
    let flipped = |position: usize| {
        let mut signature = fixed.clone();
        signature[position] ^= 1;
        assembled(&es256, &claims(), &signature)
    };
    let rs256 = json!({"alg": "RS256", "kid": "rsa", "typ": "at+jwt"});
    let as_rs512 = RSA.sign("RS512", signed(&rs256).as_bytes());
    let as_pss = RSA.sign("PS256", signed(&rs256).as_bytes());
    let kid = json!({"typ": "at+jwt", "kid": "rsa"});
    [
        ("stripped", stripped),
        ("of other claims", swapped),
        (
            "by another key with this kid",
            OTHER_RSA.token(&kid, &claims()),
        ),
        (
            "RS512 signature with alg RS256",
            assembled(&rs256, &claims(), &as_rs512),
        ),
        (
            "PS256 signature with alg RS256",
            assembled(&rs256, &claims(), &as_pss),
        ),
        ("one byte", assembled(&rs256, &claims(), &[0])),
        ("all zero", assembled(&rs256, &claims(), &[0; 256])),
        ("ES256 in DER", assembled(&es256, &claims(), &der(&fixed))),
        (
            "ES256 too short",
            assembled(&es256, &claims(), &fixed[..63]),
        ),
        (
            "ES256 too long",
            assembled(&es256, &claims(), &[&fixed[..], &[0]].concat()),
        ),
        ("ES256 with r and s stretched", {
            let stretched = [&[0], &fixed[..32], &[0], &fixed[32..]].concat();
            assembled(&es256, &claims(), &stretched)
        }),
        ("ES256 of zeros", assembled(&es256, &claims(), &[0; 64])),
        ("ES256 with another r", flipped(0)),
        ("ES256 with another s", flipped(63)),
        ("EdDSA of zeros", {
            let header = json!({"alg": "EdDSA", "kid": "ed25519", "typ": "at+jwt"});
            assembled(&header, &claims(), &[0; 64])
        }),
    ]
    .map(|(what, token)| row(format!("signature: {what}"), token, E::BadSignature))
    .into()
}

/// r and s as an ASN.1 SEQUENCE of INTEGERs (what OpenSSL makes).
fn der(fixed: &[u8]) -> Vec<u8> {
    let integer = |bytes: &[u8]| {
        let zeros = bytes.iter().take_while(|b| **b == 0).count();
        let mut value = bytes[zeros..].to_vec();
        if value[0] >= 0x80 {
            value.insert(0, 0);
        }
        [&[2, u8::try_from(value.len()).unwrap()], &value[..]].concat()
    };
    let body = [integer(&fixed[..32]), integer(&fixed[32..])].concat();
    [&[0x30, u8::try_from(body.len()).unwrap()], &body[..]].concat()
}

fn claim_rows() -> Vec<Row> {
    let overlong = "x".repeat(1025);
    let cases = [
        (json!({"iss": null}), claim("iss")),
        (json!({"iss": [MAIN]}), claim("iss")),
        (json!({"iss": [MAIN, OTHER]}), claim("iss")),
        (json!({"iss": {"url": MAIN}}), claim("iss")),
        (json!({"iss": 1}), claim("iss")),
        (json!({"iss": ""}), E::UnknownIssuer),
        (json!({ "iss": OTHER }), E::UnknownIssuer),
        (json!({"iss": format!("{MAIN}/")}), E::UnknownIssuer),
        (json!({"iss": MAIN.to_uppercase()}), E::UnknownIssuer),
        (json!({"iss": format!("{MAIN}\u{200b}")}), E::UnknownIssuer),
        (
            json!({"iss": "https://m\u{430}in.example.com"}),
            E::UnknownIssuer,
        ),
        (json!({"aud": null}), claim("aud")),
        (json!({"aud": 1}), claim("aud")),
        (json!({"aud": [AUDIENCE, 1]}), claim("aud")),
        (json!({"aud": {AUDIENCE: 1}}), claim("aud")),
        (json!({"aud": []}), E::WrongAudience),
        (json!({"aud": ""}), E::WrongAudience),
        (json!({"aud": "https://api.example.com"}), E::WrongAudience),
        (json!({"aud": format!("{AUDIENCE}x")}), E::WrongAudience),
        (
            json!({"aud": ["https://evil.example/", "api"]}),
            E::WrongAudience,
        ),
        (
            json!({"aud": format!("{AUDIENCE} another")}),
            E::WrongAudience,
        ),
        (json!({"exp": null}), claim("exp")),
        (json!({"exp": (NOW + 600).to_string()}), claim("exp")),
        (json!({"exp": -0.5}), claim("exp")),
        (json!({"exp": 1_799_999_969.999}), E::Expired),
        (json!({"exp": 1.79e9}), E::Expired),
        (json!({"exp": 1e12}), claim("exp")),
        (json!({"exp": u64::MAX}), claim("exp")),
        (json!({"exp": 253_402_300_800_u64}), claim("exp")),
        (json!({"exp": -1}), claim("exp")),
        (json!({"exp": true}), claim("exp")),
        (json!({"exp": [NOW + 600]}), claim("exp")),
        (json!({"exp": 0}), E::Expired),
        (json!({"exp": NOW - 30}), E::Expired),
        (json!({"nbf": NOW + 31}), E::NotYetValid),
        (json!({"nbf": 1_800_000_030.25}), E::NotYetValid),
        (json!({"iat": 1.9e9}), E::IssuedInFuture),
        (json!({"nbf": "soon"}), claim("nbf")),
        (json!({"iat": NOW + 31}), E::IssuedInFuture),
        (json!({"iat": -5}), claim("iat")),
        (json!({"sub": null}), claim("sub")),
        (json!({"sub": ""}), claim("sub")),
        (json!({"sub": 7}), claim("sub")),
        (json!({"sub": ["alice"]}), claim("sub")),
        (json!({"sub": "a\u{0}b"}), claim("sub")),
        (json!({"sub": "a\r\nx: y"}), claim("sub")),
        (json!({ "sub": overlong }), claim("sub")),
        (json!({"azp": "other"}), E::ClientMismatch),
        (json!({"client_id": 1}), claim("client_id")),
        (json!({"client_id": ""}), claim("client_id")),
        (json!({"azp": ["cli"]}), claim("azp")),
        (json!({"scope": 1}), claim("scope")),
        (json!({"scope": ["a", 1]}), claim("scope")),
        (json!({"permissions": "a"}), claim("permissions")),
        (json!({"cnf": {"jkt": "x"}}), E::Bound),
        (json!({"cnf": {"x5t#S256": "x"}}), E::Bound),
        (json!({"cnf": {}}), E::Bound),
    ];
    let mut rows: Vec<Row> = cases
        .map(|(changes, error)| {
            let token = RSA.token(&at_jwt(), &claims_with(&changes));
            row(changes.to_string(), token, error)
        })
        .into();
    let null = claims().to_string().replacen('{', "{\"cnf\":null,", 1);
    rows.push(row(
        "cnf null",
        RSA.token_of("RS256", &header(), &null),
        E::Bound,
    ));
    rows
}

fn profiles() -> Vec<Row> {
    let jwt = json!({"typ": "JWT"});
    let auth0 = |changes| OTHER_RSA.token(&jwt, &with(&auth0_claims(), &changes));
    let workload = |changes| {
        let header = json!({"alg": "ES256"}).to_string();
        P256.token_of(
            "ES256",
            &header,
            &with(&workload_claims(), &changes).to_string(),
        )
    };
    let rows: [(&str, String, TokenError); 15] = [
        (
            "ID token with nonce",
            auth0(json!({"nonce": "n"})),
            E::IdToken,
        ),
        (
            "ID token with at_hash",
            auth0(json!({"at_hash": "h"})),
            E::IdToken,
        ),
        (
            "ID token with c_hash",
            auth0(json!({"c_hash": "h"})),
            E::IdToken,
        ),
        (
            "audience is the client",
            auth0(json!({"aud": "spa"})),
            E::IdToken,
        ),
        (
            "Auth0: client not listed",
            auth0(json!({"azp": "foe"})),
            E::ClientNotAllowed,
        ),
        (
            "Auth0: no client",
            auth0(json!({"azp": null})),
            E::ClientNotAllowed,
        ),
        (
            "Auth0: at+jwt",
            OTHER_RSA.token(&at_jwt(), &auth0_claims()),
            E::WrongType,
        ),
        (
            "Auth0: an algorithm that is not on its list",
            OTHER_RSA.token(&json!({"typ": "JWT", "alg": "RS512"}), &auth0_claims()),
            E::UnacceptableAlgorithm,
        ),
        (
            "Auth0: a key of another issuer",
            RSA.token(&jwt, &auth0_claims()),
            E::UnknownKey,
        ),
        (
            "workload: other subject",
            workload(json!({"sub": "repo:org/app2:x"})),
            E::SubjectNotAllowed,
        ),
        (
            "workload: subject inside",
            workload(json!({"sub": "x repo:org/app:x"})),
            E::SubjectNotAllowed,
        ),
        (
            "workload: no subject",
            workload(json!({"sub": null})),
            claim("sub"),
        ),
        (
            "workload: no audience",
            workload(json!({"aud": null})),
            claim("aud"),
        ),
        (
            "workload: other audience",
            workload(json!({"aud": "sts"})),
            E::WrongAudience,
        ),
        (
            "workload: a kid where the key has none",
            P256.token(&json!({}), &workload_claims()),
            E::UnknownKey,
        ),
    ];
    rows.map(|(what, token, error)| row(what, token, error))
        .into()
}

/// Every bad token in this file.
pub(super) fn all() -> Vec<Row> {
    let tables = [
        shapes(),
        opaque(),
        headers(),
        keys(),
        signatures(),
        claim_rows(),
        profiles(),
    ];
    tables.into_iter().flatten().collect()
}

#[tokio::test]
async fn every_bad_token_is_refused() {
    let fixture = Fixture::new();
    let good = RSA.token(&at_jwt(), &claims());
    assert_eq!(fixture.verify(&good).await, "ok");
    let rows = all();
    assert!(rows.len() >= 60, "{}", rows.len());
    for (what, token, error) in rows {
        // Twice, because a refused token must not be cached as valid.
        for _ in 0..2 {
            match fixture.authenticate(&token).await {
                Err(refusal) => assert_eq!(refusal.error, error, "{what}"),
                Ok(_) => panic!("{what}: accepted"),
            }
        }
    }
    assert_eq!(fixture.verify(&good).await, "cached");
}

/// Text that is not a `b64token` is refused before an issuer is chosen.
#[test]
fn text_that_is_not_a_b64token_is_refused() {
    let good = RSA.token(&at_jwt(), &claims());
    for (token, error) in [
        (format!("{good} "), E::InvalidAuthorization),
        (format!(" {good}"), E::InvalidAuthorization),
        (format!("{good}\n"), E::InvalidAuthorization),
        (good.replace('.', " . "), E::InvalidAuthorization),
        (good.replace('.', "\u{ff0e}"), E::InvalidAuthorization),
        (format!("{good},{good}"), E::InvalidAuthorization),
        (format!("\"{good}\""), E::InvalidAuthorization),
        (String::new(), E::InvalidAuthorization),
        ("a".repeat(MAX_TOKEN_BYTES + 1), E::TooLarge),
    ] {
        assert_eq!(BearerToken::new(&token).unwrap_err(), error, "{token}");
    }
}

#[tokio::test]
async fn a_workload_issuer_without_subjects_accepts_no_token() {
    let clock = clock();
    let keys = ScriptedKeys::of(&[P256.jwk()]);
    let issuers = [issuer(
        "w",
        &configured(WORKLOAD, Profile::Workload),
        &keys,
        &clock,
    )];
    let token = BearerToken::new(&P256.token(&json!({}), &workload_claims())).unwrap();
    let refusal = authenticate(&token, &issuers, None).await.unwrap_err();
    assert_eq!(refusal.error, E::SubjectNotAllowed);
}
