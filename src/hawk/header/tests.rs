use super::*;

const KEY: &str = "werxhqb98rpaxn39848xrunpaw3489ruxnpa98w4rxn";

/// The worked example in Hawk's documentation.
fn published() -> (Signer, SignedRequest<'static>) {
    let ext = SecretString::from("some-app-ext-data");
    let signer = Signer::with_ext("dh37fgj492je", &SecretString::from(KEY), ext).unwrap();
    let request = SignedRequest {
        at: UnixMillis(1_353_832_234_999),
        nonce: "j4h3g2",
        method: "GET",
        target: "/resource/1?b=1&a=2",
        host: "example.com",
        port: 8000,
        payload_hash: None,
    };
    (signer, request)
}

fn plain(certificate: Option<&str>, scopes: Option<&[&str]>) -> Credentials {
    Credentials {
        client_id: "client".into(),
        access_token: SecretString::from(KEY),
        certificate: certificate.map(|text| Certificate::parse(text).unwrap()),
        authorized_scopes: scopes.map(|s| s.iter().map(ToString::to_string).collect()),
    }
}

#[test]
fn headers_match_the_published_vectors() {
    let (signer, request) = published();
    assert_eq!(
        signer.authorization(&request).unwrap(),
        "Hawk id=\"dh37fgj492je\", ts=\"1353832234\", nonce=\"j4h3g2\", ext=\"some-app-ext-data\", mac=\"6R4rV5iE+NPoym+WwjeHzjAGXUtLNIxmo1vpMofpLAE=\""
    );
    let with_payload = SignedRequest {
        method: "POST",
        payload_hash: Some("Yi9LfIIFRtBEPt74PVmbTF/xVAwPn7ub15ePICfgnuY="),
        ..request
    };
    assert_eq!(
        signer.authorization(&with_payload).unwrap(),
        "Hawk id=\"dh37fgj492je\", ts=\"1353832234\", nonce=\"j4h3g2\", hash=\"Yi9LfIIFRtBEPt74PVmbTF/xVAwPn7ub15ePICfgnuY=\", ext=\"some-app-ext-data\", mac=\"aSe1DERmZuRl3pI36/9BdZmnErTw3sNzOOAUlfeKjVw=\""
    );
}

/// The MAC computed piecewise equals that of the published normalized string.
#[test]
fn the_mac_is_over_the_published_normalized_string() {
    let (signer, request) = published();
    let normalized = "hawk.1.header\n1353832234\nj4h3g2\nGET\n/resource/1?b=1&a=2\nexample.com\n8000\n\nsome-app-ext-data\n";
    let expected = STANDARD.encode(hmac::sign(&signer.key, normalized.as_bytes()));
    assert!(signer.authorization(&request).unwrap().contains(&expected));
}

#[test]
fn the_case_of_method_and_host_is_ignored() {
    let (signer, request) = published();
    let mixed_case = SignedRequest {
        method: "gEt",
        host: "EXAMPLE.Com",
        ..request
    };
    assert_eq!(
        signer.authorization(&request),
        signer.authorization(&mixed_case)
    );
    let (bare, bracketed) = ("2001:DB8::1", "[2001:db8::1]");
    let [bare, bracketed] = [bare, bracketed].map(|host| SignedRequest { host, ..request });
    assert_eq!(
        signer.authorization(&bare),
        signer.authorization(&bracketed)
    );
}

/// Compares with a MAC over a plain concatenation, for targets that a URL normalizer would
/// change.
#[test]
fn unusual_targets_are_signed_unchanged() {
    let (signer, request) = published();
    let targets = [
        "/",
        "//",
        "/?",
        "/a?",
        "/a??",
        "/a?b=c?d",
        "/a/../b",
        "/a/./b/",
        "/a//b",
        "/%2F",
        "/%2f",
        "/a%2Fb%00",
        "/a%20b+c",
        "/%E2%82%AC",
        "/%u20AC",
        "/a;b=c",
        "/a?%3F&%26",
        "/a?b=%22%5C",
        "/a'b\"c\\d",
        "/a|b^c`d{e}",
        "/a?=&&=",
        "/a#b",
        "/a@b:c",
        "/[::1]/",
        "/~!$&'()*+,;=:@",
    ];
    let mut macs = std::collections::HashSet::new();
    for target in targets {
        let header = signer
            .authorization(&SignedRequest { target, ..request })
            .unwrap();
        let input = format!(
            "hawk.1.header\n1353832234\nj4h3g2\nGET\n{target}\nexample.com\n8000\n\nsome-app-ext-data\n"
        );
        let mac = STANDARD.encode(hmac::sign(&signer.key, input.as_bytes()));
        assert!(header.ends_with(&format!("mac=\"{mac}\"")), "{target}");
        assert!(macs.insert(mac), "{target}");
    }
}

#[test]
fn rejects_what_a_header_cannot_represent() {
    use HawkError::{Unrepresentable, Unsignable};
    let (signer, request) = published();
    let mut table = Vec::new();
    for target in [
        "",
        "a",
        "*",
        "http://a/",
        "/a b",
        "/a\n",
        "/a\r",
        "/\0",
        "/é",
        "/\u{7f}",
    ] {
        table.push((Unsignable("target"), SignedRequest { target, ..request }));
    }
    for method in ["", "GE T", "GET\n", "GÉT", "G\"T"] {
        table.push((Unsignable("method"), SignedRequest { method, ..request }));
    }
    for host in [
        "", "a b", "a/b", "a\nb", "a\"b", "a@b", "é", "a:80", "[::1]\n", "::1%lo",
    ] {
        table.push((Unrepresentable("host"), SignedRequest { host, ..request }));
    }
    for nonce in ["", "a\"b", "a\\b", "a\nb", "é", "\u{7f}"] {
        table.push((Unrepresentable("nonce"), SignedRequest { nonce, ..request }));
    }
    for hash in ["", "a\"", "a\n"] {
        let payload_hash = Some(hash);
        table.push((
            Unrepresentable("payload hash"),
            SignedRequest {
                payload_hash,
                ..request
            },
        ));
    }
    for (error, request) in table {
        assert_eq!(signer.authorization(&request), Err(error), "{request:?}");
    }
    for id in ["", "a\"b", "a\\b", "a\nb", "é", "a\0"] {
        let credentials = Credentials {
            client_id: id.into(),
            ..plain(None, None)
        };
        let refused = Signer::new(&credentials).unwrap_err();
        assert_eq!(refused, Unrepresentable("client id"), "{id:?}");
    }
    let keyless = Credentials {
        access_token: SecretString::from(""),
        ..plain(None, None)
    };
    assert!(Signer::new(&keyless).is_err());
}

#[test]
fn ext_contains_only_the_members_that_are_set() {
    let table = [
        (plain(None, None), None),
        (plain(None, Some(&[])), Some(r#"{"authorizedScopes":[]}"#)),
        (
            plain(None, Some(&["a\"b", "c*"])),
            Some(r#"{"authorizedScopes":["a\"b","c*"]}"#),
        ),
        (
            plain(Some("{ \"version\": 1 }"), None),
            Some(r#"{"certificate":{"version":1}}"#),
        ),
        (
            plain(Some("{}"), Some(&["a"])),
            Some(r#"{"certificate":{},"authorizedScopes":["a"]}"#),
        ),
    ];
    let (_, request) = published();
    for (credentials, expected) in table {
        let header = Signer::new(&credentials)
            .unwrap()
            .authorization(&request)
            .unwrap();
        let ext = header.split("ext=\"").nth(1).map(|rest| {
            let encoded = rest.split('"').next().unwrap();
            String::from_utf8(STANDARD.decode(encoded).unwrap()).unwrap()
        });
        assert_eq!(ext.as_deref(), expected, "{header}");
    }
}

/// 4096 characters are accepted and 4097 are not, both in `new` and in `authorization`.
#[test]
fn headers_up_to_exactly_the_length_limit_are_accepted() {
    let (_, request) = published();
    let nonce = nonce();
    let request = SignedRequest {
        nonce: &nonce,
        ..request
    };
    let signer = |id: usize| {
        let ext = SecretString::from("e".repeat(1000).as_str());
        Signer::with_ext(&"i".repeat(id), &SecretString::from(KEY), ext)
    };
    let frame = signer(1).unwrap().authorization(&request).unwrap().len() - 1;
    let widest = MAX_AUTHORIZATION_CHARS - frame;
    let header = signer(widest).unwrap().authorization(&request).unwrap();
    assert_eq!(header.len(), MAX_AUTHORIZATION_CHARS);
    assert_eq!(
        signer(widest + 1).unwrap_err(),
        HawkError::TooLong { length: 4097 }
    );
    let longer = format!("{nonce}x");
    let refused = SignedRequest {
        nonce: &longer,
        ..request
    };
    assert_eq!(
        signer(widest).unwrap().authorization(&refused),
        Err(HawkError::TooLong { length: 4097 })
    );
    let hashed = SignedRequest {
        payload_hash: Some("h"),
        ..request
    };
    assert_eq!(
        signer(widest).unwrap().authorization(&hashed),
        Err(HawkError::TooLong { length: 4096 + 10 })
    );
}

/// The reserved capacity equals the final length, so the string never grows.
#[test]
fn a_header_is_allocated_once() {
    let (signer, request) = published();
    for payload_hash in [None, Some("Yi9LfIIFRtBEPt74PVmbTF/xVAwPn7ub15ePICfgnuY=")] {
        let request = SignedRequest {
            payload_hash,
            ..request
        };
        let header = signer.authorization(&request).unwrap();
        assert_eq!(header.len(), header.capacity());
    }
}

#[test]
fn nonces_are_unique_and_header_safe() {
    let threads: Vec<_> = (0..4)
        .map(|_| std::thread::spawn(|| (0..500).map(|_| nonce()).collect::<Vec<_>>()))
        .collect();
    let mut seen = std::collections::HashSet::new();
    for thread in threads {
        for nonce in thread.join().unwrap() {
            assert_eq!(nonce.len(), NONCE_CHARS);
            assert!(check_attribute("nonce", &nonce).is_ok());
            assert!(seen.insert(nonce));
        }
    }
}

#[test]
fn debug_shows_no_secret() {
    let credentials = plain(Some(r#"{"signature":"s3cr3t"}"#), Some(&["scope"]));
    let signer = Signer::new(&credentials).unwrap();
    let text = format!("{signer:?} {signer:#?} {credentials:?}");
    let ext = signer.ext.expose();
    for secret in [KEY, "s3cr3t", ext] {
        assert!(!text.contains(secret), "{text}");
    }
    assert!(text.contains("client"), "{text}");
}
