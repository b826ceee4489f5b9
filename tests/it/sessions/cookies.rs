//! The session cookie: its attributes, forgeries, keys, and where it must not appear.

use serde_json::json;

use super::assert_sign_in_refused;
use crate::support::client::{Http2Client, Request, Response};
use crate::support::secrets::Secrets;
use crate::support::sessions::{CLIENT_SECRET, COOKIE, HOST, Site, cookie_key, own_fetch};

/// Browsers keep cookies of at most this many bytes: name, value and attributes (RFC 6265bis §5.7).
const MAX_COOKIE: usize = 4096;

#[track_caller]
fn assert_signed_out(response: &Response, case: &str) {
    assert_eq!(
        response.status_and_reason(),
        (401, Some("sign_in_required")),
        "{case}: {response:?}"
    );
}

/// The `Set-Cookie` field that sets the session cookie.
#[track_caller]
fn session_cookie(response: &Response) -> &str {
    let mut fields = response.fields.all("set-cookie");
    let found = fields.find(|field| field.starts_with(&format!("{COOKIE}=")));
    found.unwrap_or_else(|| panic!("{response:?}"))
}

#[tokio::test]
async fn the_cookies_have_every_protective_attribute() {
    let site = Site::usual().await;
    let mut visitor = site.visitor();
    let begun = visitor.navigate("/oauth2/login?return_to=/").await;
    let callback = {
        let authorization = begun.header("location").unwrap();
        site.provider.sign_in(authorization, "ada").await
    };
    let completed = visitor.arrive(&callback).await;
    let all = begun
        .fields
        .all("set-cookie")
        .chain(completed.fields.all("set-cookie"));
    let mut count = 0;
    for field in all {
        count += 1;
        let attributes: Vec<String> = field
            .split(';')
            .skip(1)
            .map(|part| part.trim().to_ascii_lowercase())
            .collect();
        for wanted in ["secure", "httponly", "samesite=lax", "path=/"] {
            assert!(
                attributes.iter().any(|own| own == wanted),
                "{wanted}: {field}"
            );
        }
        assert!(
            !attributes.iter().any(|own| own.starts_with("domain")),
            "{field}"
        );
        assert!(field.starts_with("__Host-hawkgate-web"), "{field}");
        assert!(field.len() <= MAX_COOKIE, "{} bytes", field.len());
    }
    // The attempt, the session, the attempt's removal.
    assert!(count >= 3, "{count}");
}

#[tokio::test]
async fn a_changed_cookie_is_no_session_and_is_removed() {
    let site = Site::usual().await;
    let visitor = site.signed_in("ada").await;
    let session = visitor.session().to_owned();
    let mut forgeries = vec![
        ("empty".to_owned(), String::new()),
        ("extended".to_owned(), format!("{session}A")),
        ("padded".to_owned(), format!("{session}=")),
        ("doubled".to_owned(), format!("{session}{session}")),
        ("not base64".to_owned(), format!("{}!", &session[1..])),
        ("words".to_owned(), "signed-in".to_owned()),
        ("huge".to_owned(), "A".repeat(20_000)),
    ];
    // Every character near both ends, and every seventeenth between.
    let flipped = |at: usize| {
        let mut bytes = session.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        String::from_utf8(bytes).unwrap()
    };
    for at in 0..session.len() {
        if at < 40 || at % 17 == 0 || at + 24 > session.len() {
            forgeries.push((format!("character {at}"), flipped(at)));
        }
    }
    for length in (0..session.len()).step_by(61).chain([session.len() - 1]) {
        forgeries.push((format!("the first {length}"), session[..length].to_owned()));
    }
    let mut client = site.gateway.client().await;
    for (case, value) in forgeries {
        // The last character of base64 may have bits that mean nothing: decoders must refuse those
        // that are not zero, or the cookie has two spellings.
        let request = own_fetch("GET", "/x").header("Cookie", &format!("{COOKIE}={value}"));
        let response = client.request(&at(request)).await.unwrap();
        assert_signed_out(&response, &case);
        let removal = session_cookie(&response);
        assert!(removal.contains("Max-Age=0"), "{case}: {removal}");
        assert!(removal.contains("Secure"), "{case}: {removal}");
    }
    let body = at(own_fetch("GET", "/x").header("Cookie", &format!("{COOKIE}={session}")));
    assert_eq!(client.request(&body).await.unwrap().status, 200);
}

/// Requests go to the site.
fn at(mut request: Request) -> Request {
    HOST.clone_into(&mut request.authority);
    request
}

/// A sibling domain, or an attacker on the network before `Secure`, can add a cookie of the same name
/// in browsers that do not know the prefix; which one comes first is theirs to choose.
#[tokio::test]
async fn two_session_cookies_are_no_session() {
    let site = Site::usual().await;
    let (ada, grace) = (site.signed_in("ada").await, site.signed_in("grace").await);
    let (own, other) = (ada.session(), grace.session());
    for (case, field) in [
        ("two sessions", format!("{COOKIE}={own}; {COOKIE}={other}")),
        ("the same twice", format!("{COOKIE}={own}; {COOKIE}={own}")),
        ("junk first", format!("{COOKIE}=x; {COOKIE}={own}")),
        ("junk last", format!("{COOKIE}={own}; {COOKIE}=x")),
        ("empty last", format!("{COOKIE}={own}; {COOKIE}=")),
        (
            "others between",
            format!("a=1; {COOKIE}={own}; b=2; {COOKIE}={other}; c=3"),
        ),
        ("no space", format!("{COOKIE}={own};{COOKIE}={other}")),
    ] {
        let response = site
            .gateway
            .send(&at(own_fetch("GET", "/x").header("Cookie", &field)))
            .await;
        assert_signed_out(&response, case);
    }
    // In two fields, as HTTP/2 allows and HTTP/1.1 does not.
    let split = at(own_fetch("GET", "/x")
        .header("Cookie", &format!("{COOKIE}={own}"))
        .header("Cookie", &format!("{COOKIE}={other}")));
    let response = site.gateway.http2(1).await.request(&split).await.unwrap();
    assert_signed_out(&response, "two fields");
}

/// Names that differ in the case, or in what surrounds them, are other cookies.
#[tokio::test]
async fn only_the_exact_name_is_the_session_cookie() {
    let site = Site::usual().await;
    let visitor = site.signed_in("ada").await;
    let session = visitor.session();
    for name in [
        "__host-hawkgate-web",
        "__Secure-hawkgate-web",
        "hawkgate-web",
        "__Host-hawkgate-web2",
        "x__Host-hawkgate-web",
        "__Host-hawkgate-we",
    ] {
        let request = own_fetch("GET", "/x").header("Cookie", &format!("{name}={session}"));
        assert_signed_out(&site.gateway.send(&at(request)).await, name);
    }
}

/// RFC 9113 §8.2.3: Chromium sends each cookie in a field of its own.
#[tokio::test]
async fn cookies_may_be_split_over_fields_in_http2() {
    let site = Site::usual().await;
    let visitor = site.signed_in("ada").await;
    let request = at(own_fetch("GET", "/split")
        .header("Cookie", "a=1")
        .header("Cookie", &format!("{COOKIE}={}", visitor.session()))
        .header("Cookie", "b=2; c=3"));
    let client: Http2Client = site.gateway.http2(1).await;
    assert_eq!(client.request(&request).await.unwrap().status, 200);
    let requests = site.application.requests().await;
    let seen = requests.last().unwrap()["headers"]["cookie"].as_str();
    assert_eq!(seen, Some("a=1; b=2; c=3"));
}

#[tokio::test]
async fn hawkgates_cookies_do_not_reach_the_application() {
    let site = Site::usual().await;
    let visitor = site.signed_in("ada").await;
    let session = visitor.session();
    for (field, forwarded) in [
        (format!("{COOKIE}={session}"), None),
        (
            format!("{COOKIE}={session}; theme=dark"),
            Some("theme=dark"),
        ),
        (
            format!("theme=dark; {COOKIE}={session}"),
            Some("theme=dark"),
        ),
        (
            format!("a=1; {COOKIE}={session}; __Host-hawkgate-web-signin-abcdefgh=x; b=\"2\""),
            Some("a=1; b=\"2\""),
        ),
        (
            format!("__Host-hawkgate-other=x; {COOKIE}={session}; hawkgateish=1"),
            Some("hawkgateish=1"),
        ),
        (format!("a=1;{COOKIE}={session};b=2"), Some("a=1; b=2")),
    ] {
        let request = at(own_fetch("GET", "/strip").header("Cookie", &field));
        let response = site.gateway.send(&request).await;
        assert_eq!(response.status, 200, "{field}");
        let seen = response.json()["headers"]["cookie"].clone();
        let seen = seen.as_str().map(|cookie| cookie.replace(";b", "; b"));
        assert_eq!(seen.as_deref(), forwarded, "{field}");
    }
    // With a bearer token, too: it wins, and the cookie is still hawkgate's.
    let requests = site.application.requests().await;
    assert!(!json!(requests).to_string().contains(session));
}

/// The application, or anyone who can make it set cookies, must not sign users in or out.
#[tokio::test]
async fn the_application_cannot_set_hawkgates_cookies() {
    let site = Site::usual().await;
    let mut visitor = site.signed_in("ada").await;
    let session = visitor.session().to_owned();
    let fields = json!([
        format!("{COOKIE}=x; Path=/; Secure"),
        format!("{COOKIE}=; Max-Age=0; Path=/; Secure"),
        format!(" {COOKIE} = x; Path=/"),
        "__Host-hawkgate-web-signin-abcdefgh=x; Path=/; Secure",
        "theme=dark; Path=/",
        "second=2",
    ]);
    site.application
        .control("cookies", json!({ "fields": fields }))
        .await;
    let response = visitor.fetch("GET", "/set-cookie").await;
    let set: Vec<&str> = response.fields.all("set-cookie").collect();
    assert_eq!(set, ["theme=dark; Path=/", "second=2"], "{response:?}");
    assert_eq!(visitor.session(), session);
    assert_eq!(visitor.who().await.as_deref(), Some("ada"));
}

#[tokio::test]
async fn a_session_that_fits_no_cookie_is_refused_with_a_reason() {
    let site = Site::usual().await;
    // Does not compress.
    let groups: Vec<String> = (0..200_u64)
        .map(|n| format!("{:016x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
        .collect();
    let user = json!({ "sub": "ada", "tokenClaims": { "groups": groups } });
    site.provider.control("user", user).await;
    let mut visitor = site.visitor();
    let response = visitor.sign_in(&site.provider, "ada", "/").await;
    assert_sign_in_refused(&response, "too large");
    assert_eq!(visitor.who().await, None);
    site.gateway
        .wait_for_metric(
            "hawkgate_sign_ins_total",
            &[("session", "web"), ("result", "too_large")],
            1,
        )
        .await;
}

/// Sessions of both keys stay open, those of a removed key do not.
#[tokio::test]
async fn keys_are_rotated_by_a_reload() {
    let site = Site::usual().await;
    let mut old = site.signed_in("ada").await;
    // Keeps the cookie of the first key, whatever cookies the browser itself is sent.
    let mut copy = old.thief();
    let files = &site.gateway.files;
    files.write("new-key", cookie_key(2));
    let key = "cookie_key = { file = \"cookie-key\" }";
    let rotating =
        "cookie_key = { file = \"new-key\" }\nprevious_cookie_key = { file = \"cookie-key\" }";
    site.reload(&site.text.replace(key, rotating)).await;
    assert_eq!(old.who().await.as_deref(), Some("ada"));
    let mut new = site.signed_in("grace").await;
    assert_eq!(new.who().await.as_deref(), Some("grace"));

    let finished = "cookie_key = { file = \"new-key\" }";
    site.reload(&site.text.replace(key, finished)).await;
    assert_eq!(new.who().await.as_deref(), Some("grace"));
    assert_signed_out(&copy.fetch("GET", "/x").await, "a removed key");

    // The old key alone: the sessions of the new one are foreign.
    site.reload(&site.text).await;
    assert_signed_out(&new.fetch("GET", "/x").await, "another key");
}

#[tokio::test]
async fn the_log_and_the_metrics_have_no_secret_of_a_session() {
    let site = Site::usual().await;
    let secrets = Secrets::default();
    secrets.add("client secret", CLIENT_SECRET);
    secrets.add("cookie key", &cookie_key(1));
    let mut visitor = site.visitor();
    let authorization = visitor.begin("/deep").await;
    let callback = site.provider.sign_in(&authorization, "ada").await;
    let parameters = url::Url::parse(&callback).unwrap();
    for (name, value) in parameters.query_pairs() {
        if name != "iss" {
            secrets.add(&format!("callback: {name}"), &value);
        }
    }
    for (name, value) in url::Url::parse(&authorization).unwrap().query_pairs() {
        if matches!(&*name, "state" | "nonce" | "code_challenge") {
            secrets.add(&format!("authorization request: {name}"), &value);
        }
    }
    for (name, value) in visitor.cookies() {
        secrets.add(name, value);
    }
    visitor.arrive(&callback).await;
    secrets.add("session cookie", visitor.session());
    let issued = site.provider.control("issued", json!({})).await;
    for token in issued["tokens"].as_array().unwrap() {
        secrets.token("token", token.as_str().unwrap());
    }
    visitor.fetch("GET", "/x").await;
    // Refused, too.
    let mut broken = visitor.thief();
    broken.set_cookie(COOKIE, &format!("{}x", visitor.session()));
    broken.fetch("GET", "/x").await;
    visitor.thief().arrive(&callback).await;
    visitor.fetch("POST", "/oauth2/logout").await;
    visitor.navigate("/oauth2/callback?code=x&state=y").await;

    secrets.assert_absent("the log", &site.gateway.log());
    secrets.assert_absent("the metrics", &site.gateway.metrics().await.0);
    for request in site.application.requests().await {
        let without_bearer = {
            let mut request = request.clone();
            request["headers"]["authorization"] = json!(null);
            request["rawHeaders"] = json!(null);
            request
        };
        secrets.assert_absent("a request", &without_bearer.to_string());
    }
}
