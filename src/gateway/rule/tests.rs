//! Which rule decides, what it decides, and what is remembered of that.

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::label::Label as _;
use crate::token::{BearerToken, VerifiedToken};

const REQUEST: RequestFacts<'static> = RequestFacts {
    method: "GET",
    host: "tc.example.com",
    path: "/api/queue/v1/task",
    user_agent: "",
    address: None,
    certificate: None,
};

fn rule(name: &str, effect: Effect, when: &str) -> Rule {
    Rule {
        name: name.into(),
        when: Expression::compile(when).unwrap(),
        effect,
        scopes: None,
        headers: vec![],
    }
}

fn allow(name: &str, when: &str) -> Rule {
    rule(name, Effect::Allow, when)
}

fn deny(name: &str, when: &str) -> Rule {
    rule(name, Effect::Deny, when)
}

fn rules(rules: impl IntoIterator<Item = Rule>) -> Rules {
    Rules::new(rules.into_iter().map(Arc::new).collect()).unwrap()
}

fn caller(claims: Value) -> Caller {
    Caller::Verified(VerifiedToken::for_test("auth0", claims))
}

fn dev() -> Caller {
    caller(json!({"sub": "dev", "groups": ["dev"]}))
}

/// The rule that decided and the cause of the refusal, if it is one.
fn judged(rules: &Rules, caller: &Caller, request: RequestFacts<'_>) -> (String, String) {
    let ruling = rules.decide(caller, request);
    let cause = match &ruling.verdict {
        Verdict::Allow { .. } => String::new(),
        Verdict::Deny { reason, cause } => format!("{}: {cause}", reason.label()),
    };
    (ruling.rule.as_deref().unwrap_or_default().to_owned(), cause)
}

#[test]
fn the_first_that_matches_decides() {
    let rules = rules([
        deny("banned", "claims.sub == 'mallory'"),
        allow("devs", "'dev' in claims.groups"),
        deny("ops", "'ops' in claims.groups"),
        allow("all ops", "'ops' in claims.groups"),
    ]);
    for (sub, group, expected) in [
        ("dev", "dev", ("devs", "")),
        (
            "mallory",
            "dev",
            ("banned", "rule_denied: rule banned denies it"),
        ),
        ("dev", "ops", ("ops", "rule_denied: rule ops denies it")),
        ("dev", "qa", ("", "rule_denied: no rule matches")),
    ] {
        let caller = caller(json!({"sub": sub, "groups": [group]}));
        let (rule, cause) = judged(&rules, &caller, REQUEST);
        assert_eq!((rule.as_str(), cause.as_str()), expected, "{sub} {group}");
    }
    assert!(Rules::new(vec![]).is_none());
}

#[test]
fn a_failing_allow_does_not_match_and_a_failing_deny_refuses() {
    for broken in ["claims.missing == 1", "claims.sub", "claims.sub < 1"] {
        let (by, cause) = judged(&rules([allow("a", broken)]), &dev(), REQUEST);
        assert_eq!(by, "", "{broken}");
        assert!(
            cause.starts_with("rule_denied: no rule matches; rule a: "),
            "{cause}"
        );
        let both = rules([allow("a", broken), allow("b", "true")]);
        assert_eq!(judged(&both, &dev(), REQUEST), ("b".into(), String::new()));
        let (by, cause) = judged(
            &rules([deny("d", broken), allow("b", "true")]),
            &dev(),
            REQUEST,
        );
        assert_eq!(by, "d", "{broken}");
        assert!(cause.starts_with("rule_denied: rule d: "), "{cause}");
    }
}

#[test]
fn nobodys_claims_are_empty() {
    let digest = BearerToken::new("opaque").unwrap().digest();
    let opaque = Caller::Delegated {
        issuer: "tc".into(),
        digest,
    };
    let rules = rules([
        allow("claims", "claims.sub != ''"),
        allow("issuer", "token.issuer == 'tc' && !has(claims.sub)"),
        allow("nobody", "token.issuer == '' && token.client == ''"),
    ]);
    assert_eq!(judged(&rules, &opaque, REQUEST).0, "issuer");
    assert_eq!(judged(&rules, &Caller::Anonymous, REQUEST).0, "nobody");
    assert_eq!(judged(&rules, &dev(), REQUEST).0, "claims");
}

#[test]
fn a_claim_that_is_too_large_refuses_only_if_it_is_read() {
    let claims = |n: usize| json!({"sub": "a", "groups": vec!["g"; n], "deep": {"l": vec![1; n]}});
    let reads = rules([allow("a", "'g' in claims.groups")]);
    let deep = rules([allow("a", "claims.deep.l[0] == 1")]);
    let other = rules([allow("a", "claims.sub == 'a'")]);
    let all = rules([allow("a", "claims.exists(c, c == 'sub')")]);
    for (rules, reads) in [(&reads, true), (&deep, true), (&all, true), (&other, false)] {
        assert_eq!(judged(rules, &caller(claims(MAX_MEMBERS)), REQUEST).0, "a");
        let (by, cause) = judged(rules, &caller(claims(MAX_MEMBERS + 1)), REQUEST);
        assert_eq!(by, if reads { "" } else { "a" });
        assert_eq!(cause.contains("more than 256 members"), reads, "{cause}");
    }
}

#[test]
fn headers_and_scopes_come_from_the_rule_that_matched() {
    let header = |name: &str, value: &str| {
        (
            header_name(name).unwrap(),
            Expression::compile(value).unwrap(),
        )
    };
    let mut narrow = allow("narrow", "claims.sub == 'dev'");
    narrow.scopes = Some(Arc::from([]));
    narrow.headers = vec![
        header("x-auth-subject", "claims.sub"),
        header("x-groups", "claims.groups"),
    ];
    let rules = rules([narrow, allow("other", "true")]);
    let ruling = rules.decide(&dev(), REQUEST);
    assert_eq!(ruling.scopes().map(|s| s.len()), Some(0));
    let headers: Vec<_> = ruling
        .headers()
        .iter()
        .map(|(n, v)| (n.as_str(), v.as_bytes()))
        .collect();
    assert_eq!(
        headers,
        [("x-auth-subject", &b"dev"[..]), ("x-groups", b"dev")]
    );
    let ruling = rules.decide(&caller(json!({"sub": "x"})), REQUEST);
    assert_eq!((ruling.scopes(), ruling.headers().len()), (None, 0));
}

#[test]
fn a_header_that_cannot_be_sent_refuses_the_request() {
    for (claims, expected) in [
        (json!({"sub": "a\r\nx-admin: 1"}), "control characters"),
        (json!({"sub": "é"}), "outside of ASCII"),
        (json!({"sub": " a"}), "blank"),
        (json!({"sub": {"a": 1}}), "of type map, not string"),
        (json!({}), "there is no \"sub\""),
    ] {
        let mut tell = allow("tell", "true");
        tell.headers = vec![(
            header_name("x-sub").unwrap(),
            Expression::compile("claims.sub").unwrap(),
        )];
        let (by, cause) = judged(&rules([tell, allow("b", "true")]), &caller(claims), REQUEST);
        assert_eq!(by, "tell");
        assert!(
            cause.starts_with("rule_denied: rule tell, header x-sub: "),
            "{cause}"
        );
        assert!(
            cause.contains(expected) && !cause.contains("x-admin"),
            "{cause}"
        );
    }
}

#[test]
fn a_path_that_two_readers_judge_differently_is_refused() {
    let rules = rules([
        deny("secrets", "request.path.startsWith('/api/secrets/')"),
        allow("api", "request.path.startsWith('/api/')"),
    ]);
    for (path, expected) in [
        ("/api/queue/x", "api"),
        ("/api/queue/a%2Fb", "api"),
        ("/api/secrets/x", "secrets"),
        ("/api/%73ecrets/x", "bad_request"),
        ("/api//secrets/x", "bad_request"),
        ("/api%2Fsecrets%2Fx", "bad_request"),
        ("/%61pi/queue", "bad_request"),
    ] {
        let (by, cause) = judged(&rules, &dev(), RequestFacts { path, ..REQUEST });
        let got = if cause.starts_with("bad_request") {
            "bad_request".into()
        } else {
            by
        };
        assert_eq!(got, expected, "{path}");
    }
}

#[test]
fn a_ruling_is_made_once_for_each_token_unless_it_depends_on_the_request() {
    let once = rules([allow("devs", "'dev' in claims.groups")]);
    let token = dev();
    let first = once.decide(&token, REQUEST);
    assert!(
        Arc::ptr_eq(&first, &once.decide(&token, REQUEST)),
        "remembered"
    );
    assert!(
        !Arc::ptr_eq(&first, &once.decide(&dev(), REQUEST)),
        "by the token itself"
    );
    let others = rules([deny("devs", "'dev' in claims.groups")]);
    assert!(
        others.decide(&token, REQUEST).permits().is_err(),
        "not for other rules"
    );
    assert!(once.decide(&token, REQUEST).permits().is_ok());

    let each = rules([allow("get", "request.method == 'GET'")]);
    assert!(each.decide(&token, REQUEST).permits().is_ok());
    let post = RequestFacts {
        method: "POST",
        ..REQUEST
    };
    assert!(each.decide(&token, post).permits().is_err());
}

#[test]
fn a_fault_of_the_evaluator_lets_nobody_in() {
    let broken = Rule {
        when: expression::tests::panicking(),
        ..allow("broken", "true")
    };
    let rules = rules([broken, allow("all", "true")]);
    let (by, cause) = judged(&rules, &dev(), REQUEST);
    assert_eq!(by, "broken");
    assert_eq!(cause, "internal: rule broken: the evaluator broke down");
}

#[test]
fn who_watches_sees_what_was_asked() {
    let rules = rules([
        allow("a", "false"),
        allow("b", "claims.x == 1"),
        allow("c", "true"),
        allow("d", "true"),
    ]);
    let mut seen = Vec::new();
    rules.judge(&dev(), REQUEST, |rule, held| {
        seen.push((rule.name.to_string(), held.clone().ok()));
    });
    let expected = [("a", Some(false)), ("b", None), ("c", Some(true))];
    assert_eq!(seen, expected.map(|(name, held)| (name.to_owned(), held)));
}
