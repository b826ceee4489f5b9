//! Which rule decides, its effect, and how decisions are cached.

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::label::Label as _;
use crate::token::{BearerToken, VerifiedToken};

const REQUEST: RequestAttributes<'static> = RequestAttributes {
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
fn decided(rules: &Rules, caller: &Caller, request: RequestAttributes<'_>) -> (String, String) {
    let decision = rules.decide(caller, request);
    let cause = match &decision.verdict {
        Verdict::Allow { .. } => String::new(),
        Verdict::Deny { reason, cause } => format!("{}: {cause}", reason.label()),
    };
    (
        decision.rule.as_deref().unwrap_or_default().to_owned(),
        cause,
    )
}

#[test]
fn the_first_matching_rule_decides() {
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
            ("banned", "rule_denied: rule banned denies the request"),
        ),
        (
            "dev",
            "ops",
            ("ops", "rule_denied: rule ops denies the request"),
        ),
        ("dev", "qa", ("", "rule_denied: no rule matches")),
    ] {
        let caller = caller(json!({"sub": sub, "groups": [group]}));
        let (rule, cause) = decided(&rules, &caller, REQUEST);
        assert_eq!((rule.as_str(), cause.as_str()), expected, "{sub} {group}");
    }
    assert!(Rules::new(vec![]).is_none());
}

#[test]
fn an_allow_rule_that_fails_does_not_match_and_a_deny_rule_that_fails_denies() {
    for broken in ["claims.missing == 1", "claims.sub", "claims.sub < 1"] {
        let (by, cause) = decided(&rules([allow("a", broken)]), &dev(), REQUEST);
        assert_eq!(by, "", "{broken}");
        assert!(
            cause.starts_with("rule_denied: no rule matches; rule a: "),
            "{cause}"
        );
        let both = rules([allow("a", broken), allow("b", "true")]);
        assert_eq!(decided(&both, &dev(), REQUEST), ("b".into(), String::new()));
        let (by, cause) = decided(
            &rules([deny("d", broken), allow("b", "true")]),
            &dev(),
            REQUEST,
        );
        assert_eq!(by, "d", "{broken}");
        assert!(cause.starts_with("rule_denied: rule d: "), "{cause}");
    }
}

#[test]
fn opaque_and_anonymous_callers_have_no_claims() {
    let digest = BearerToken::new("opaque").unwrap().digest();
    let opaque = Caller::Delegated {
        issuer: "tc".into(),
        digest,
        peer: None,
    };
    let rules = rules([
        allow("claims", "claims.sub != ''"),
        allow("issuer", "token.issuer == 'tc' && !has(claims.sub)"),
        allow("anonymous", "token.issuer == '' && token.client == ''"),
    ]);
    assert_eq!(decided(&rules, &opaque, REQUEST).0, "issuer");
    assert_eq!(decided(&rules, &Caller::Anonymous, REQUEST).0, "anonymous");
    assert_eq!(decided(&rules, &dev(), REQUEST).0, "claims");
}

#[test]
fn an_oversized_claim_denies_the_request_only_if_a_rule_reads_it() {
    let claims = |n: usize| json!({"sub": "a", "groups": vec!["g"; n], "deep": {"l": vec![1; n]}});
    let reads = rules([allow("a", "'g' in claims.groups")]);
    let deep = rules([allow("a", "claims.deep.l[0] == 1")]);
    let other = rules([allow("a", "claims.sub == 'a'")]);
    let all = rules([allow("a", "claims.exists(c, c == 'sub')")]);
    for (rules, reads) in [(&reads, true), (&deep, true), (&all, true), (&other, false)] {
        assert_eq!(decided(rules, &caller(claims(MAX_MEMBERS)), REQUEST).0, "a");
        let (by, cause) = decided(rules, &caller(claims(MAX_MEMBERS + 1)), REQUEST);
        assert_eq!(by, if reads { "" } else { "a" });
        assert_eq!(cause.contains("more than 256 members"), reads, "{cause}");
    }
}

#[test]
fn headers_and_scopes_come_from_the_matching_rule() {
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
    let decision = rules.decide(&dev(), REQUEST);
    assert_eq!(decision.scopes().map(|s| s.len()), Some(0));
    let headers: Vec<_> = decision
        .headers()
        .iter()
        .map(|(n, v)| (n.as_str(), v.as_bytes()))
        .collect();
    assert_eq!(
        headers,
        [("x-auth-subject", &b"dev"[..]), ("x-groups", b"dev")]
    );
    let decision = rules.decide(&caller(json!({"sub": "x"})), REQUEST);
    assert_eq!((decision.scopes(), decision.headers().len()), (None, 0));
}

#[test]
fn an_invalid_header_value_denies_the_request() {
    for (claims, expected) in [
        (json!({"sub": "a\r\nx-admin: 1"}), "control or non-ASCII"),
        (json!({"sub": "é"}), "non-ASCII characters"),
        (json!({"sub": " a"}), "space"),
        (json!({"sub": {"a": 1}}), "of type map, not string"),
        (json!({}), "there is no \"sub\""),
    ] {
        let mut rule = allow("subject", "true");
        rule.headers = vec![(
            header_name("x-sub").unwrap(),
            Expression::compile("claims.sub").unwrap(),
        )];
        let (by, cause) = decided(&rules([rule, allow("b", "true")]), &caller(claims), REQUEST);
        assert_eq!(by, "subject");
        assert!(
            cause.starts_with("rule_denied: rule subject, header x-sub: "),
            "{cause}"
        );
        assert!(
            cause.contains(expected) && !cause.contains("x-admin"),
            "{cause}"
        );
    }
}

#[test]
fn a_path_that_gets_another_decision_when_decoded_is_refused() {
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
        let (by, cause) = decided(&rules, &dev(), RequestAttributes { path, ..REQUEST });
        let got = if cause.starts_with("bad_request") {
            "bad_request".into()
        } else {
            by
        };
        assert_eq!(got, expected, "{path}");
    }
}

#[test]
fn a_decision_is_cached_per_token_unless_rules_read_the_request() {
    let once = rules([allow("devs", "'dev' in claims.groups")]);
    let token = dev();
    let first = once.decide(&token, REQUEST);
    assert!(
        Arc::ptr_eq(&first, &once.decide(&token, REQUEST)),
        "cached with the token"
    );
    assert!(
        !Arc::ptr_eq(&first, &once.decide(&dev(), REQUEST)),
        "not for another token with the same claims"
    );
    let others = rules([deny("devs", "'dev' in claims.groups")]);
    assert!(
        others.decide(&token, REQUEST).to_result().is_err(),
        "not for other rules"
    );
    assert!(once.decide(&token, REQUEST).to_result().is_ok());

    let each = rules([allow("get", "request.method == 'GET'")]);
    assert!(each.decide(&token, REQUEST).to_result().is_ok());
    let post = RequestAttributes {
        method: "POST",
        ..REQUEST
    };
    assert!(each.decide(&token, post).to_result().is_err());
}

#[test]
fn a_panicking_interpreter_denies_the_request() {
    let broken = Rule {
        when: expression::tests::panicking(),
        ..allow("broken", "true")
    };
    let rules = rules([broken, allow("all", "true")]);
    let (by, cause) = decided(&rules, &dev(), REQUEST);
    assert_eq!(by, "broken");
    assert_eq!(cause, "internal: rule broken: the interpreter panicked");
}

#[test]
fn the_observer_is_called_for_each_rule_evaluated() {
    let rules = rules([
        allow("a", "false"),
        allow("b", "claims.x == 1"),
        allow("c", "true"),
        allow("d", "true"),
    ]);
    let mut evaluated = Vec::new();
    rules.evaluate(&dev(), REQUEST, |rule, matched| {
        evaluated.push((rule.name.to_string(), matched.clone().ok()));
    });
    let expected = [("a", Some(false)), ("b", None), ("c", Some(true))];
    assert_eq!(
        evaluated,
        expected.map(|(name, matched)| (name.to_owned(), matched))
    );
}
