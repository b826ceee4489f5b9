use super::*;

const ISSUER: &str = "def/ghi@XXX";
const NAME: &str = "abc/def/ghi";
const SEED: &str = "JYR4wzMCTG6XeDS2cDUCMwH0RFUXGfQjK7LgqD-e6lSQ";
const START: UnixMillis = UnixMillis(1_438_964_811_744);
const EXPIRY: UnixMillis = UnixMillis(1_439_051_211_744);

fn with<R>(change: impl FnOnce(&mut Mint<'_>), then: impl FnOnce(Mint<'_>) -> R) -> R {
    let token = SecretString::from("tokenABCDEFGH");
    let scopes = ["scope/asd:fhjdf/X", "scope/asd:fhjdf/XYZ*"].map(String::from);
    let mut mint = Mint {
        issuer: ISSUER,
        issuer_token: &token,
        client_id: NAME,
        scopes: &scopes,
        start: START,
        expiry: EXPIRY,
    };
    change(&mut mint);
    then(mint)
}

/// The four cases in Taskcluster's client-go. Authorized scopes do not change the certificate.
#[test]
fn minted_credentials_match_the_published_vectors() {
    let start = concat!(
        r#"{"version":1,"scopes":["scope/asd:fhjdf/X","scope/asd:fhjdf/XYZ*"],"#,
        r#""start":1438964811744,"expiry":1439051211744,"#,
        r#""seed":"JYR4wzMCTG6XeDS2cDUCMwH0RFUXGfQjK7LgqD-e6lSQ","signature":"#
    );
    let unnamed = r#""45AlB/hKZZZz4Tf3NaidutasfgBnr4t2AxwBiGDQF9Q="}"#;
    let named = r#""nNEaLtZMiw627NuDbF5Z8HDFc57MGWCptXBQSYNFgBk=","issuer":"def/ghi@XXX"}"#;
    for authorized in [None, Some(vec![String::from("scope/asd:fhjdf/X")])] {
        for (name, client_id, end) in [(None, ISSUER, unnamed), (Some(NAME), NAME, named)] {
            let mut made = with(|_| (), |mint| mint.sign_as(name, SEED)).unwrap();
            made.authorized_scopes.clone_from(&authorized);
            assert_eq!(made.client_id, client_id);
            assert_eq!(
                made.access_token.expose(),
                "R4OVHWpIvy6KsqS4AWE51QwbvgLvsstS6e6UW8IfHUY"
            );
            let certificate = made.certificate.as_ref().unwrap();
            assert_eq!(certificate.as_json(), format!("{start}{end}"));
            assert_eq!(certificate.expiry(), Some(EXPIRY));
            assert!(crate::hawk::Signer::new(&made).is_ok());
        }
    }
}

#[test]
fn seeds_are_two_fresh_slugids() {
    let seed = || {
        let made = with(|_| (), |mint| mint.sign()).unwrap();
        let json: serde_json::Value =
            serde_json::from_str(made.certificate.unwrap().as_json()).unwrap();
        json["seed"].as_str().unwrap().to_owned()
    };
    let (one, two) = (seed(), seed());
    assert_ne!(one, two);
    for seed in [&one, &two] {
        assert_eq!(seed.len(), 44);
        assert_ne!(seed[..22], seed[22..]);
        for slug in [&seed[..22], &seed[22..]] {
            let bytes = URL_SAFE_NO_PAD.decode(slug).unwrap();
            assert_eq!((bytes[6] >> 4, bytes[8] >> 6), (4, 2), "{slug}");
        }
    }
}

#[test]
fn credentials_that_the_service_would_reject_are_not_minted() {
    let month = 31 * 24 * 3600 * 1000;
    let empty = SecretString::from("");
    let broken = ["a\nissuer:root".to_owned()];
    let double_star = ["a**".to_owned()];
    let refused = |change: &dyn Fn(&mut Mint<'_>)| {
        // Only for static values: others would not live long enough.
        with(|mint| change(mint), |mint| mint.sign().map(|_| ()))
    };
    let name = CertificateError::InvalidClientId("new name");
    assert_eq!(
        refused(&|m| m.client_id = ISSUER),
        Err(CertificateError::SameName)
    );
    for bad in ["", "a b", "a\nb", "é", "a*", "a\"b", "a\\b", "a{b"] {
        with(
            |_| (),
            |mint| {
                let mint = Mint {
                    client_id: bad,
                    ..mint
                };
                assert_eq!(mint.sign().map(|_| ()), Err(name.clone()), "{bad:?}");
            },
        );
    }
    assert_eq!(
        refused(&|m| m.issuer = "a\nb"),
        Err(CertificateError::InvalidClientId("issuing client's id"))
    );
    for (start, expiry) in [(5, 5), (6, 5), (0, month + 1), (i64::MIN, i64::MAX)] {
        let outcome = refused(&|m| {
            m.start = UnixMillis(start);
            m.expiry = UnixMillis(expiry);
        });
        assert_eq!(outcome, Err(CertificateError::Validity), "{start} {expiry}");
    }
    assert_eq!(
        refused(&|m| {
            m.start = UnixMillis(0);
            m.expiry = UnixMillis(month);
        }),
        Ok(())
    );
    with(
        |_| (),
        |mint| {
            let without_key = Mint {
                issuer_token: &empty,
                ..mint
            };
            assert_eq!(without_key.sign().map(|_| ()), Err(CertificateError::NoKey));
            for scopes in [&broken, &double_star] {
                let bad = Mint { scopes, ..mint };
                assert_eq!(bad.sign().map(|_| ()), Err(CertificateError::InvalidScope));
            }
            let none = Mint {
                scopes: &[],
                ..mint
            };
            assert!(none.sign().is_ok(), "no scopes at all is a valid grant");
        },
    );
}
