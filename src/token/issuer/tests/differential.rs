//! Every token that hawkgate accepts is also accepted by `jsonwebtoken::decode`: hawkgate is never
//! more lenient. Tested with the tokens of the other tests and with mutations of good tokens by a
//! seeded generator.

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{DecodingKey, Validation, crypto};

use super::*;
use crate::secret::SecretRef;
use crate::token::settings::{SecretEncoding, SharedSecretIssuer};
use crate::token::signature::jsonwebtoken_algorithm;
use crate::token::testing::b64;

const SECRET: &str = "tests-only-0123456789-0123456789-0123456789-0123456789-0123456789";
const SHARED: &str = "https://legacy.example.com/";

/// Number of mutations of each good token.
const ROUNDS: usize = 120;

/// SplitMix64: the same mutations in every run.
struct Generator(u64);

impl Generator {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }

    fn choose<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }
}

enum Signer {
    Key(&'static TestKey),
    Secret,
}

impl Signer {
    fn token(&self, alg: &str, header: &str, claims: &str) -> String {
        match self {
            Self::Key(key) => key.token_of(alg, header, claims),
            Self::Secret => {
                let signing_input = format!("{}.{}", b64(header), b64(claims));
                let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
                let algorithm = alg.parse().unwrap_or_default();
                let signature = crypto::sign(signing_input.as_bytes(), &key, algorithm).unwrap();
                format!("{signing_input}.{signature}")
            }
        }
    }
}

/// A good token: how it is signed, its algorithm, header and claims.
struct Good {
    signer: Signer,
    alg: &'static str,
    header: Value,
    claims: Value,
}

impl Good {
    fn new(signer: Signer, alg: &'static str, header: &Value, claims: Value) -> Self {
        let mut header = with(&json!({ "alg": alg }), header);
        if let Signer::Key(key) = &signer
            && header.get("typ").is_some()
        {
            header["kid"] = key.kid.into();
        }
        Self {
            signer,
            alg,
            header,
            claims,
        }
    }

    fn token(&self) -> String {
        let (header, claims) = (self.header.to_string(), self.claims.to_string());
        self.signer.token(self.alg, &header, &claims)
    }
}

/// One of every algorithm and profile.
fn good_tokens() -> Vec<Good> {
    let mut good = Vec::new();
    let keys: [(&'static TestKey, &[&'static str]); 4] = [
        (
            &RSA,
            &["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"],
        ),
        (&P256, &["ES256"]),
        (&P384, &["ES384"]),
        (&ED25519, &["EdDSA", "Ed25519"]),
    ];
    for (key, algorithms) in keys {
        for alg in algorithms {
            good.push(Good::new(Signer::Key(key), alg, &at_jwt(), claims()));
        }
    }
    let jwt = json!({ "typ": "JWT" });
    let auth0 = Signer::Key(&OTHER_RSA);
    good.push(Good::new(auth0, "RS256", &jwt, auth0_claims()));
    // Without `typ` and without `kid`; the issuer's only key has no `kid`.
    let workload = Signer::Key(&P256);
    good.push(Good::new(workload, "ES256", &json!({}), workload_claims()));
    for alg in ["HS256", "HS384", "HS512"] {
        let claims = claims_with(&json!({ "iss": SHARED }));
        good.push(Good::new(Signer::Secret, alg, &at_jwt(), claims));
    }
    good
}

/// `members` with one change, harmless or not.
fn mutated_members(generator: &mut Generator, members: &Value) -> String {
    let names = [
        "alg",
        "kid",
        "typ",
        "crit",
        "jwk",
        "jku",
        "iss",
        "sub",
        "aud",
        "exp",
        "nbf",
        "iat",
        "scope",
        "client_id",
        "azp",
        "cnf",
        "nonce",
        "at_hash",
        "permissions",
        "jti",
        "x",
    ];
    let values = [
        json!(null),
        json!(true),
        json!(0),
        json!(-1),
        json!(1.5),
        json!(NOW),
        json!(NOW + 60),
        json!(NOW - 3600),
        json!(""),
        json!("x"),
        json!("cli"),
        json!("alice"),
        json!(MAIN),
        json!(AUDIENCE),
        json!([AUDIENCE, "x"]),
        json!([MAIN]),
        json!(["exp"]),
        json!({}),
        json!({ "jkt": "x" }),
        json!("none"),
        json!("HS256"),
        json!("RS256"),
        json!("at+jwt"),
        json!("JWT"),
        json!("rsa"),
        json!("p256"),
        json!("b64"),
        json!("openid email"),
    ];
    let mut members = members.clone();
    let object = members.as_object_mut().unwrap();
    let present: Vec<String> = object.keys().cloned().collect();
    match generator.below(5) {
        0 => {
            object.remove(generator.choose(&present));
        }
        1 => {
            let name = generator.choose(&present).clone();
            object.insert(name, generator.choose(&values).clone());
        }
        2 => {
            // A second member of the same name.
            let text = members.to_string();
            let (name, value) = (generator.choose(&present), generator.choose(&values));
            return text.replacen('{', &format!("{{\"{name}\":{value},"), 1);
        }
        3 => {
            // The same JSON, formatted differently.
            return serde_json::to_string_pretty(&members).unwrap();
        }
        _ => {
            let name = (*generator.choose(&names)).to_owned();
            object.insert(name, generator.choose(&values).clone());
        }
    }
    members.to_string()
}

fn mutated(generator: &mut Generator, good: &Good, other: &str) -> String {
    let (header, claims) = (good.header.to_string(), good.claims.to_string());
    let mut token = good.token();
    match generator.below(8) {
        0 | 1 => {
            let header = mutated_members(generator, &good.header);
            return good.signer.token(good.alg, &header, &claims);
        }
        2..=4 => {
            let claims = mutated_members(generator, &good.claims);
            return good.signer.token(good.alg, &header, &claims);
        }
        5 => {
            // One bit, in any segment.
            let mut bytes = token.into_bytes();
            let at = generator.below(bytes.len());
            bytes[at] ^= 1 << generator.below(7);
            return String::from_utf8(bytes).unwrap();
        }
        6 => {
            // A segment of another token.
            let at = generator.below(3);
            let foreign = other.split('.').nth(at).unwrap();
            let mut segments: Vec<&str> = token.split('.').collect();
            segments[at] = foreign;
            return segments.join(".");
        }
        _ => {}
    }
    match generator.below(4) {
        0 => token.truncate(generator.below(token.len())),
        1 => token += *generator.choose(&[".", "A", "=", ".e30", "AAAA"]),
        2 => {
            // Another key of the same or another kind.
            let key = *generator.choose(&[&*RSA, &*OTHER_RSA, &*P256, &*ED25519]);
            token = key.token_of(good.alg, &header, &claims);
        }
        _ => {
            let alg = generator.choose(&["RS256", "RS512", "PS256", "ES256", "EdDSA", "none"]);
            let header = with(&good.header, &json!({ "alg": alg })).to_string();
            token = good.signer.token(good.alg, &header, &claims);
        }
    }
    token
}

/// Whether `jsonwebtoken::decode` accepts a token with any of the keys, with its strictest settings
/// except for time, because it reads the system's clock and the tests use a manual one.
fn decodes(token: &str, algorithm: Algorithm, keys: &[DecodingKey]) -> bool {
    let mut validation = Validation::new(jsonwebtoken_algorithm(algorithm));
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    validation.set_issuer(&[MAIN, AUTH0, WORKLOAD, SHARED]);
    validation.set_audience(&[AUDIENCE, "another"]);
    validation.validate_exp = false;
    keys.iter()
        .any(|key| jsonwebtoken::decode::<Value>(token, key, &validation).is_ok())
}

/// How `jsonwebtoken` accepts a token that hawkgate has accepted.
#[derive(Debug, PartialEq, Eq)]
enum Agreement {
    Decoded,
    /// `jsonwebtoken` cannot parse `alg: Ed25519` (RFC 9864 §2.2), nor header parameters that
    /// hawkgate ignores (`jwk`, `jku`, `x5u`, `x5c`) if their type is not that of RFC 7515 §4.1.
    /// It accepts the signature, and the claims under a header without such parameters.
    InParts,
}

fn agreement(token: &str, keys: &[DecodingKey]) -> Option<Agreement> {
    let read = crate::token::inspect(&BearerToken::new(token).unwrap()).unwrap();
    let mut known = Algorithm::ALL.iter().chain(Algorithm::HMAC).copied();
    let algorithm = known.find(|a| read.header["alg"] == a.name()).unwrap();
    if decodes(token, algorithm, keys) {
        return Some(Agreement::Decoded);
    }
    assert!(jsonwebtoken::decode_header(token).is_err(), "{token}");
    let (signing_input, signature) = token.rsplit_once('.').unwrap();
    let algorithm = jsonwebtoken_algorithm(algorithm);
    let signed = keys.iter().any(|key| {
        crypto::verify(signature, signing_input.as_bytes(), key, algorithm).unwrap_or(false)
    });
    let mut header = read.header;
    header.retain(|name, _| ["kid", "typ"].contains(&name.as_str()));
    header.insert("alg".into(), "RS256".into());
    let claims = Value::Object(read.claims).to_string();
    let plain = RSA.token_of("RS256", &Value::Object(header).to_string(), &claims);
    (signed && decodes(&plain, Algorithm::RS256, keys)).then_some(Agreement::InParts)
}

#[tokio::test]
async fn every_token_that_hawkgate_accepts_is_decoded_by_jsonwebtoken() {
    let mut fixture = Fixture::new();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    std::fs::write(&path, SECRET).unwrap();
    fixture.issuers.push(Arc::new(Issuer::shared_secret(
        "legacy".into(),
        &shared_secret(path),
        fixture.clock.clone(),
        crate::bounded_cache::CacheBounds::of_entries(100),
    )));
    let keys: Vec<DecodingKey> = [&*RSA, &*OTHER_RSA, &*P256, &*P384, &*ED25519]
        .into_iter()
        .map(|key| serde_json::from_value::<Jwk>(key.jwk()).unwrap())
        .map(|jwk| DecodingKey::from_jwk(&jwk).unwrap())
        .chain([DecodingKey::from_secret(SECRET.as_bytes())])
        .collect();
    let good = good_tokens();
    let mut tokens: Vec<String> = good.iter().map(Good::token).collect();
    let other = RSA.token(&at_jwt(), &claims_with(&json!({ "sub": "bob" })));
    let mut generator = Generator(10);
    for token in &good {
        for _ in 0..ROUNDS {
            tokens.push(mutated(&mut generator, token, &other));
        }
    }
    tokens.extend(bad_tokens::all().into_iter().map(|(_, token, _)| token));
    let (mut decoded, mut in_parts, mut refused, mut stricter) = (0, 0, 0, 0);
    for token in &tokens {
        let found = match BearerToken::new(token) {
            Ok(token) => authenticate(&token, &fixture.issuers, None).await.is_ok(),
            Err(_) => false,
        };
        if found {
            match agreement(token, &keys) {
                Some(Agreement::Decoded) => decoded += 1,
                Some(Agreement::InParts) => in_parts += 1,
                None => panic!("only hawkgate accepts {token}"),
            }
        } else {
            refused += 1;
            let all = || Algorithm::ALL.iter().chain(Algorithm::HMAC);
            stricter += usize::from(all().any(|algorithm| decodes(token, *algorithm, &keys)));
        }
    }
    println!(
        "differential: {decoded} accepted by both, {in_parts} more in parts, {refused} refused, \
         {stricter} of which jsonwebtoken accepts when it ignores time"
    );
    assert!(decoded >= 400, "{decoded}");
    assert!(in_parts >= 20, "{in_parts}");
    assert!(refused >= 800, "{refused}");
    assert!(stricter >= 100, "{stricter}");
}

fn shared_secret(path: std::path::PathBuf) -> SharedSecretIssuer {
    SharedSecretIssuer {
        url: SHARED.into(),
        secret: SecretRef::File(path),
        encoding: SecretEncoding::Text,
        audiences: vec![AUDIENCE.into()],
        algorithms: Algorithm::HMAC.to_vec(),
        profile: Profile::Rfc9068,
        format: Profile::Rfc9068.format(),
        leeway: Duration::from_secs(30),
        clients: None,
        subjects: None,
        verified_max_age: Duration::from_mins(5),
    }
}
