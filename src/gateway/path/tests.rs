//! Thousands of spellings of one protected path against models of the servers that might be
//! upstream. The models are written independently of the code under test.

use std::sync::Arc;

use http::HeaderMap;
use http::Method;

use super::*;
use crate::gateway::Head;
use crate::gateway::route::{RouteTable, tests::route};
use crate::gateway::rule::{Effect, Expression, Rule, Rules};
use crate::token::Caller;

/// A path as a server reads it; `None` if the server refuses it.
type Reading = Option<String>;

/// A server's name, and how it reads a path.
type Server = (&'static str, fn(&str) -> Reading);

const SERVERS: [Server; 13] = [
    ("raw", |path| Some(path.to_owned())),
    ("nginx", |path| Some(clean(&utf8(decode(path, false)?)?))),
    ("Go ServeMux", |path| {
        Some(clean(&utf8(decode(path, false)?)?))
    }),
    ("Tomcat", |path| {
        let path = without_parameters(path);
        Some(clean(&utf8(decode(&path, false)?)?.replace('\\', "/")))
    }),
    ("Spring, after decoding", |path| {
        Some(clean(&without_parameters(&utf8(decode(path, false)?)?)))
    }),
    ("Express", |path| utf8(decode(path, false)?)),
    ("WSGI, ISO 8859-1", |path| {
        let bytes = decode(path, true)?;
        Some(clean(
            &bytes.into_iter().map(char::from).collect::<String>(),
        ))
    }),
    ("a C string", |path| {
        let bytes = decode(path, true)?;
        let end = bytes
            .iter()
            .position(|b| matches!(b, 0 | b'\n' | b'\r' | b'?' | b'#'));
        let kept = &bytes[..end.unwrap_or(bytes.len())];
        Some(clean(&String::from_utf8_lossy(kept)))
    }),
    ("decoded twice", |path| {
        let once = utf8(decode(path, true)?)?;
        Some(clean(&utf8(decode(&once, true)?)?))
    }),
    ("decoded three times", |path| {
        let once = utf8(decode(path, true)?)?;
        let twice = utf8(decode(&once, true)?)?;
        Some(clean(&without_parameters(&utf8(decode(&twice, true)?)?)))
    }),
    ("IIS, double escaping", |path| {
        let once = utf8(decode(&unicode_escapes(path), true)?)?;
        let twice = utf8(decode(&unicode_escapes(&once), true)?)?;
        Some(windows_file(&best_fit(&twice)))
    }),
    ("overlong UTF-8 accepted", |path| {
        Some(clean(&unchecked_utf8(&decode(path, true)?)))
    }),
    ("a form decoder on Windows", |path| {
        let decoded = decode(&path.replace('+', " "), true)?;
        Some(windows_file(&String::from_utf8_lossy(&decoded)))
    }),
];

fn decode(path: &str, lenient: bool) -> Option<Vec<u8>> {
    let mut decoded = Vec::new();
    let mut bytes = path.bytes().peekable();
    while let Some(byte) = bytes.next() {
        let rest: Vec<u8> = bytes.clone().take(2).collect();
        let escape = std::str::from_utf8(&rest)
            .ok()
            .filter(|digits| digits.len() == 2 && !digits.starts_with('+'))
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match escape {
            Some(value) if byte == b'%' => {
                decoded.push(value);
                bytes.nth(1);
            }
            None if byte == b'%' && !lenient => return None,
            _ => decoded.push(byte),
        }
    }
    Some(decoded)
}

/// Refuses NUL, as every server in the list does that checks UTF-8.
fn utf8(bytes: Vec<u8>) -> Option<String> {
    String::from_utf8(bytes)
        .ok()
        .filter(|text| !text.contains('\0'))
}

fn unchecked_utf8(bytes: &[u8]) -> String {
    let mut text = String::new();
    let mut at = 0;
    while at < bytes.len() {
        let length = match bytes[at] {
            0xc0..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf7 => 4,
            _ => 1,
        };
        let mask = [0x7f, 0x1f, 0x0f, 0x07][length - 1];
        let first = u32::from(bytes[at] & mask);
        let value = bytes[at + 1..bytes.len().min(at + length)]
            .iter()
            .fold(first, |value, byte| value << 6 | u32::from(byte & 0x3f));
        text.extend(char::from_u32(value));
        at += length;
    }
    text
}

fn unicode_escapes(path: &str) -> String {
    let mut parts = path.split("%u");
    let mut text = parts.next().unwrap().to_owned();
    for part in parts {
        let value = part
            .get(..4)
            .and_then(|hex| u32::from_str_radix(hex, 16).ok());
        match value.and_then(char::from_u32) {
            Some(c) => text.extend([c.to_string().as_str(), &part[4..]]),
            None => text.extend(["%u", part]),
        }
    }
    text
}

fn best_fit(path: &str) -> String {
    path.chars()
        .map(|c| match c {
            '\u{ff01}'..='\u{ff5e}' => char::from_u32(c as u32 - 0xfee0).unwrap(),
            '\u{2215}' | '\u{2044}' => '/',
            '\u{17f}' | '\u{15f}' => 's',
            'é' | '\u{117}' => 'e',
            other => other,
        })
        .collect()
}

fn without_parameters(path: &str) -> String {
    let segments = path.split('/').map(|s| s.split(';').next().unwrap());
    segments.collect::<Vec<_>>().join("/")
}

fn clean(path: &str) -> String {
    let mut kept = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(kept.pop()),
            other => kept.push(other),
        }
    }
    format!("/{}", kept.join("/"))
}

fn windows_file(path: &str) -> String {
    let path = path.replace('\\', "/");
    let segments = path.split('/').map(|segment| match segment {
        "." | ".." => segment,
        other => other
            .split("::$")
            .next()
            .unwrap()
            .trim_end_matches([' ', '.']),
    });
    clean(&segments.collect::<Vec<_>>().join("/"))
}

const SEPARATORS: [&str; 30] = [
    "/",
    "//",
    "/;/",
    "/;a=b/",
    ";/",
    ";x/",
    "/%3b/",
    "/%3Bx/",
    "%2f",
    "%2F",
    "/%2f",
    "%2f/",
    "%5c",
    "%5C/",
    "%252f",
    "%25252f",
    "%255c",
    "%c0%af",
    "/%c0%af/",
    "%e0%80%af",
    "%f0%80%80%af",
    "%c0%2f",
    "%u002f",
    "%u2215",
    "%ef%bc%8f",
    "%e2%88%95",
    "/x/..;/",
    "/x%2f..%2f",
    "/x/%252e%252e/",
    "/%2e/",
];
const NAMES: [&str; 20] = [
    "secrets",
    "%73ecrets",
    "s%65crets",
    "secret%73",
    "%2573ecrets",
    "%252573ecrets",
    "%u0073ecrets",
    "%25u0073ecrets",
    "%ef%bd%93ecrets",
    "%c1%b3ecrets",
    "%c1%33ecrets",
    "%e0%81%b3ecrets",
    "%c5%bfecrets",
    "%c5%9fecrets",
    "s%c4%97crets",
    "s%e9crets",
    "%73%65%63%72%65%74%73",
    "%7%33ecrets",
    "SECRETS",
    "secretz",
];
const SUFFIXES: [&str; 25] = [
    "",
    "/",
    ";",
    ";a=b",
    ";a/b",
    "%3b",
    "%3bx",
    ".",
    "..",
    "%2e",
    "%20",
    "%20.",
    "+",
    "::$DATA",
    "::$INDEX_ALLOCATION",
    "%00",
    "%00.html",
    "%2500",
    "%c0%80",
    "%3f",
    "%23a",
    "%253f",
    "%0a",
    "%09",
    "%7f",
];
const ENDS: [&str; 4] = ["", "/x", "%2fx", "/a%252Fb?query=/../%00"];
const BEGINNINGS: [&str; 5] = ["/api", "/%61pi", "/;/api", "/api;v=1", "/x/..%2fapi"];

/// At least two of the parts in every spelling, in all combinations.
fn spellings() -> Vec<String> {
    let mut all = Vec::new();
    for separator in SEPARATORS {
        for name in NAMES {
            for suffix in SUFFIXES {
                all.push(format!("/api{separator}{name}{suffix}/x"));
            }
            for end in ENDS {
                all.push(format!("/api{separator}{name}{end}"));
            }
        }
        for beginning in BEGINNINGS {
            for suffix in SUFFIXES {
                all.push(format!("{beginning}{separator}secrets{suffix}"));
            }
        }
    }
    all
}

fn is_protected(path: &str) -> bool {
    path == "/api/secrets" || path.starts_with("/api/secrets/")
}

fn rule(name: &str, when: &str, effect: Effect) -> Arc<Rule> {
    Arc::new(Rule {
        name: name.into(),
        when: Expression::compile(when).unwrap(),
        effect,
        scopes: None,
        headers: vec![],
    })
}

fn deny_secrets() -> Rules {
    let when = "request.path == '/api/secrets' || request.path.startsWith('/api/secrets/')";
    let rules = vec![
        rule("secrets", when, Effect::Deny),
        rule("all", "true", Effect::Allow),
    ];
    Rules::new(rules).unwrap()
}

fn allows(rules: &Rules, path: &str) -> bool {
    let headers = HeaderMap::new();
    let head = Head::for_test(path, &headers);
    let decision = rules.decide(&Caller::Anonymous, head.attributes("x"));
    decision.to_result().is_ok()
}

#[test]
fn no_spelling_that_any_server_reads_as_protected_passes_a_laxer_route_or_rule() {
    let all = [
        route("api", None, "/api", None),
        route("secrets", None, "/api/secrets", None),
    ];
    let table = RouteTable::new(all.map(Arc::new).to_vec());
    let rules = deny_secrets();
    let (mut attacks, mut passed) = (0, 0);
    for target in spellings() {
        let path = without_query(&target);
        let readers = SERVERS
            .iter()
            .filter(|(_, read)| read(path).is_some_and(|reading| is_protected(&reading)))
            .map(|(server, _)| *server)
            .collect::<Vec<_>>();
        let lax = table
            .find("x", &target, &Method::GET)
            .is_ok_and(|found| &*found.name == "api");
        if readers.is_empty() {
            passed += usize::from(lax && allows(&rules, &target));
            continue;
        }
        attacks += 1;
        assert!(!lax, "{target} is protected for {readers:?}");
        assert!(
            !allows(&rules, &target),
            "{target} is denied for {readers:?}"
        );
    }
    // Most of the spellings are attacks, and other paths are not refused wholesale.
    assert!(attacks > 4_000 && passed > 300, "{attacks} {passed}");
}

#[test]
fn encoded_names_of_taskcluster_pass() {
    let all = [
        route("root", None, "/", None),
        route("api", None, "/api/", None),
        route("secrets", None, "/api/secrets/", None),
        route("index", None, "/api/index/v1/", None),
    ];
    let table = RouteTable::new(all.map(Arc::new).to_vec());
    let rules = deny_secrets();
    for (target, expected) in [
        (
            "/api/secrets/v1/secret/project%2Ftaskcluster%2Ftesting",
            "secrets",
        ),
        (
            "/api/secrets/v1/secret/project%2Fa%252Fb%3A%3Bc%20d",
            "secrets",
        ),
        (
            "/api/index/v1/task/gecko.v2.mozilla-central.latest.100%25",
            "index",
        ),
        ("/api/index/v1/task/a%2525b.c%C3%A9", "index"),
        (
            "/api/queue/v1/task/x/runs/0/artifacts/public%2Flogs%2F.hidden",
            "api",
        ),
        (
            "/api/queue/v1/task/x/artifacts/public/c++ (1).txt%20",
            "api",
        ),
        (
            "/api/queue/v1/task/x/artifacts/public%5Cwindows%5C..%20x.log",
            "api",
        ),
        (
            "/api/auth/v1/clients/github%2F123%7Cuser%40example.com",
            "api",
        ),
        (
            "/api/auth/v1/clients/mozilla-auth0%2Fad%7CMozilla-LDAP%7Cdev%2F",
            "api",
        ),
        ("/api/auth/v1/roles/hook-id%3Aproject%2F*", "api"),
        ("/api/purge-cache/v1/x;a=1/y,z", "api"),
        ("/api/x/%e4%f6/%FF", "api"),
        ("/api/x/%C0A%c1", "api"),
        ("/api/x/100%/%zz", "api"),
        ("/api/x//a///b/", "api"),
        ("/api/x/...", "api"),
        (
            "/api/queue/v1/task/x/runs/0/artifacts/public/logs/live.log",
            "api",
        ),
        ("/api/queue/v1/task/x/artifacts/public/build/a..b", "api"),
        (
            "/api/queue/v1/task/x/artifacts/public/%E2%82%AC%20(1)+2;v=1.txt",
            "api",
        ),
        (
            "/api/queue/v1/task/x/artifacts/public%2Fc%2B%2B%20%23%3F%20%E2%82%AC;.txt",
            "api",
        ),
        (
            "/api/queue/v1/task/x/artifacts/public//build%2F%2Fa%26b%3Dc",
            "api",
        ),
        (
            "/login/oauth/authorize?redirect_uri=https%3A%2F%2Fx%2F..%2F%00",
            "root",
        ),
    ] {
        let found = table.find("x", target, &Method::GET);
        let found = found.map(|route| &*route.name);
        assert_eq!(found, Ok(expected), "{target}");
        assert_eq!(allows(&rules, target), expected != "secrets", "{target}");
    }
}

#[test]
fn ordinary_paths_have_no_other_readings() {
    for path in [
        "/",
        "/api/queue/v1/task/a.b-c_d~e",
        "/a.b/c:d@e!f'(g)*,h=i&j$k",
        "/.well-known/x",
    ] {
        assert!(is_plain(path), "{path}");
        assert_eq!(readings(path), Ok(vec![]), "{path}");
    }
    assert_eq!(without_query("/a?b?c"), "/a");
    assert_eq!(without_query("/a?"), "/a");
    assert!(has_dot_segments("/a/../b") && has_dot_segments("/."));
    assert!(!has_dot_segments("/a..b/..."));
}

#[test]
fn every_path_that_a_transformation_changes_is_examined() {
    for path in spellings() {
        let mut changed = Vec::new();
        expand(&path, &mut changed);
        assert!(changed.is_empty() || !is_plain(&path), "{path}");
    }
    for byte in 1..=u8::MAX {
        for path in [
            format!("/a{}/b", char::from(byte)),
            format!("/a/b{}", char::from(byte)),
        ] {
            let mut changed = Vec::new();
            expand(&path, &mut changed);
            assert!(changed.is_empty() || !is_plain(&path), "{path}");
        }
    }
}

#[test]
fn some_paths_are_refused_whatever_the_routes() {
    for (path, expected) in [
        ("/a%00", Ambiguity::ControlCharacter),
        ("/a%2500", Ambiguity::ControlCharacter),
        ("/a%c0%80b", Ambiguity::ControlCharacter),
        ("/a%0d%0Ab", Ambiguity::ControlCharacter),
        ("/a%7F", Ambiguity::ControlCharacter),
        ("/a/%252e%252e/b", Ambiguity::DotSegment),
        ("/a/..%3b/b", Ambiguity::DotSegment),
        ("/a/%u002e%u002e/b", Ambiguity::DotSegment),
        ("/a/%ef%bc%8e%ef%bc%8e/b", Ambiguity::DotSegment),
        ("/a/..%20/b", Ambiguity::DotSegment),
        ("/%2fexample.com/a", Ambiguity::NetworkPath),
        ("/;/example.com/a", Ambiguity::NetworkPath),
    ] {
        assert_eq!(readings(path), Err(expected), "{path}");
    }
}

#[test]
fn the_work_for_one_path_is_bounded() {
    let deep = format!("/{}41", "%25".repeat(200));
    let wide = format!("/{}", "a%2541;b+c./".repeat(8));
    let long = format!("/{}", "%41;b+c".repeat(2_000));
    for path in [deep, wide, long] {
        match readings(&path) {
            Ok(found) => assert!(found.len() <= MAX_READINGS, "{}", found.len()),
            Err(error) => assert_eq!(error, Ambiguity::TooManyReadings),
        }
    }
}

#[test]
fn without_case_sensitivity_every_case_has_the_same_route_and_decision() {
    let mut all = [
        route("api", None, "/api", None),
        route("secrets", None, "/api/secrets", None),
    ];
    for route in &mut all {
        route.case_insensitive_path = true;
    }
    let table = RouteTable::new(all.map(Arc::new).to_vec());
    let rules = deny_secrets().with_case_insensitive_path(true);
    for path in [
        "/api/SECRETS/x",
        "/API/Secrets",
        "/Api/secretS/",
        "/api/secrets/X",
    ] {
        let found = table.find("x", path, &Method::GET).unwrap();
        assert_eq!(&*found.name, "secrets", "{path}");
        assert!(!allows(&rules, path), "{path}");
    }
    // U+017F is `S` in upper case, and U+212A is `k` in lower case.
    for path in ["/api/%C5%BFECRETS", "/api/%53ecrets", "/api/SECRET%53%2f"] {
        assert!(table.find("x", path, &Method::GET).is_err(), "{path}");
        assert!(!allows(&rules, path), "{path}");
    }
    let found = table.find("x", "/API/Queue/x", &Method::GET).unwrap();
    assert_eq!(&*found.name, "api");
    assert!(allows(&rules, "/API/Queue/x"));
}
