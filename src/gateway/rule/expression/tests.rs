//! Which expressions are accepted, which are refused and why, and hostile input.

use serde_json::{Map, Value as Json, json};

use super::*;
use crate::gateway::client_certificate::ClientCertificate;
use crate::gateway::rule::attributes::RequestAttributes;
use crate::gateway::rule::{MAX_MEMBERS, MAX_STEPS};

const REQUEST: RequestAttributes<'static> = RequestAttributes {
    method: "POST",
    host: "tc.example.com",
    path: "/api/queue/v1/task",
    user_agent: "curl/8",
    address: Some(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST)),
    certificate: None,
};

fn claims() -> Map<String, Json> {
    let Json::Object(claims) = json!({
        "sub": "ad|Mozilla|dev", "level": 3, "ratio": 0.5, "huge": u64::MAX, "staff": true, "none": null,
        "https://claims.example.com/groups": ["dev", "ops"],
        "nested": {"a": {"b": [1, 2]}}, "text": "naïve", "empty": [],
    }) else {
        unreachable!()
    };
    claims
}

fn attributes<'a>(claims: &'a Map<String, Json>, scopes: &'a [String]) -> Attributes<'a> {
    Attributes {
        claims: Some(claims),
        issuer: "auth0",
        subject: "ad|Mozilla|dev",
        client: "spa",
        scopes,
        request: REQUEST,
    }
}

fn compiled(source: &str) -> Expression {
    Expression::compile(source).unwrap_or_else(|e| panic!("{source}: {e}"))
}

fn is_true(source: &str) -> Result<bool, EvaluationError> {
    let scopes = ["openid".to_owned()];
    compiled(source).is_true(&attributes(&claims(), &scopes))
}

fn text(source: &str) -> Result<String, EvaluationError> {
    compiled(source).text(&attributes(&claims(), &[]))
}

fn refusal(source: &str) -> String {
    match Expression::compile(source) {
        Ok(_) => panic!("accepted: {source}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn documented_expressions_are_true() {
    for source in [
        "true",
        "claims.sub == 'ad|Mozilla|dev'",
        "claims['https://claims.example.com/groups'].exists(g, g == 'dev')",
        "claims['https://claims.example.com/groups'].all(g, g in ['dev', 'ops', 'qa'])",
        "claims['https://claims.example.com/groups'].exists_one(g, g.startsWith('d'))",
        "size(claims['https://claims.example.com/groups'].filter(g, g != 'dev')) == 1",
        "'dev' in claims['https://claims.example.com/groups']",
        "'https://claims.example.com/groups' in claims && !('x' in claims)",
        "has(claims.sub) && !has(claims.missing)",
        "claims.level >= 3 && claims.level + 1 == 4 && claims.ratio < 1.0",
        "claims.huge == 18446744073709551615u",
        "claims.staff && claims.none == null && type(claims.sub) == string",
        "claims.nested.a.b[1] == 2 && size(claims.nested.a.b) == 2",
        "claims.text == 'na\\u00efve' && claims.text.size() == 5",
        "claims.exists(name, name == 'sub') && size(claims) == 10",
        "token.issuer == 'auth0' && token.client == 'spa' && 'openid' in token.scopes",
        "token.subject.matches('^ad[|]Mozilla[|]')",
        "matches(claims.sub, 'dev$')",
        "request.method == 'POST' && request.host == 'tc.example.com'",
        "request.path.startsWith('/api/queue/')",
        "client.address == '127.0.0.1' && request.user_agent.contains('curl')",
        "client.certificate.common_name == '' && client.certificate.fingerprint == ''",
        "size(client.certificate.uris) == 0 && !('x' in client.certificate.dns_names)",
        "!client.certificate.emails.exists(e, true)",
        "claims.empty.all(x, false)",
        "claims.level == 3 ? true : claims.missing",
        "true || claims.missing",
        "claims.missing || true",
        "// a comment\ntrue",
    ] {
        assert_eq!(is_true(source), Ok(true), "{source}");
    }
}

#[test]
fn an_expression_matches_only_if_its_value_is_the_boolean_true() {
    for (source, expected) in [
        ("false", Ok(false)),
        ("1", Err("the result is of type int, not bool")),
        ("'true'", Err("the result is of type string, not bool")),
        ("null", Err("the result is of type null_type, not bool")),
        ("[true]", Err("the result is of type list, not bool")),
        ("claims.missing", Err("there is no \"missing\"")),
        ("claims['missing'] == 1", Err("there is no \"missing\"")),
        ("claims[claims.sub] == 1", Err("there is no such key")),
        (
            "claims.missing.exists(g, g == 1)",
            Err("there is no \"missing\""),
        ),
        (
            "claims.sub.exists(g, g == 'a')",
            Err("a value is not of type iterable"),
        ),
        ("claims.sub < 1", Err("_<_ does not work on (string, int)")),
        (
            "claims.sub && true",
            Err("_&&_ does not work on (string, bool)"),
        ),
        (
            "claims.sub.startsWith(1)",
            Err("startsWith does not work on (string, int)"),
        ),
        ("claims.level / 0 == 1", Err("division by zero")),
        ("claims.level % 0 == 1", Err("division by zero")),
        (
            "claims.level + 9223372036854775807 > 0",
            Err("integer overflow"),
        ),
        (
            "claims.level * 9223372036854775807 > 0",
            Err("integer overflow"),
        ),
        (
            "-9223372036854775808 / (claims.level - 4) > 0",
            Err("integer overflow"),
        ),
        ("claims.empty[0] == 1", Err("an index is out of bounds")),
        (
            "claims.nested.a.b[-1] == 1",
            Err("an index is out of bounds"),
        ),
        ("int(claims.sub) == 1", Err("int(…) failed")),
        ("claims.level.matches('3')", Err("a value is not of type")),
        ("{'a': 1, 'a': 2} == {}", Err("a map has a duplicate key")),
        ("{1.5: 1} == {}", Err("a value cannot be a map's key")),
    ] {
        let got = is_true(source).map_err(|error| error.to_string());
        match (&got, expected) {
            (Err(error), Err(expected)) => {
                assert!(error.starts_with(expected), "{source}: {error}");
            }
            _ => assert_eq!(got, expected.map_err(str::to_owned), "{source}"),
        }
        if let Err(error) = got {
            assert!(
                !error.contains("Mozilla"),
                "{source}: quotes a claim: {error}"
            );
        }
    }
}

#[test]
fn without_claims_the_claims_object_is_empty() {
    let empty = Map::new();
    let attributes = Attributes {
        claims: None,
        ..attributes(&empty, &[])
    };
    assert!(compiled("claims.sub != 'x'").is_true(&attributes).is_err());
    assert_eq!(compiled("has(claims.sub)").is_true(&attributes), Ok(false));
    assert_eq!(compiled("size(claims) == 0").is_true(&attributes), Ok(true));
}

#[test]
fn header_values_are_strings_integers_booleans_and_flat_lists() {
    for (source, expected) in [
        ("claims.sub", Some("ad|Mozilla|dev")),
        ("'user ' + claims.sub", Some("user ad|Mozilla|dev")),
        ("claims.level", Some("3")),
        ("claims.huge", Some("18446744073709551615")),
        ("claims.staff", Some("true")),
        (
            "claims['https://claims.example.com/groups']",
            Some("dev,ops"),
        ),
        ("claims.empty", Some("")),
        ("claims.ratio", None),
        ("claims.none", None),
        ("claims.nested", None),
        ("['a,b']", None),
        ("[['a']]", None),
        ("claims.missing", None),
    ] {
        assert_eq!(text(source).ok().as_deref(), expected, "{source}");
    }
}

/// Sources and the complete error message of each.
const REFUSED: &[(&str, &str)] = &[
    (
        "",
        "is not valid CEL: near character 1: mismatched input '<EOF>'; write an expression like claims.sub == \"me\"",
    ),
    (
        "claims.sub ==",
        "is not valid CEL: near character 14: mismatched input '<EOF>'; write an expression like claims.sub == \"me\"",
    ),
    (
        "claim.sub == 'a'",
        "near character 1: there is no variable \"claim\"; did you mean claims?",
    ),
    (
        "user == 'a'",
        "near character 1: there is no variable \"user\"; the variables are claims, token, request, client",
    ),
    (
        "request.pth == 'a'",
        "near character 8: there is no request.pth; did you mean request.path?",
    ),
    (
        "request.headers['a'] == 'a'",
        "near character 8: there is no request.headers; the attributes are request.method, request.host, request.path, request.user_agent",
    ),
    (
        "request == 'a'",
        "near character 1: request is not a value itself; write one of request.method, request.host, request.path, request.user_agent",
    ),
    (
        "has(token.client)",
        "near character 4: token.client is always present; compare it: token.client != \"\"",
    ),
    (
        "claims.sub.startWith('a')",
        "near character 21: there is no function x.startWith(…); did you mean x.startsWith(…)?",
    ),
    (
        "claims.sub.startsWith('a', 'b')",
        "near character 22: x.startsWith(…) takes 1 argument(s); 2 were given",
    ),
    (
        "startsWith(claims.sub, 'a')",
        "near character 11: there is no function startsWith(…); did you mean startsWith, with the right arguments?",
    ),
    (
        "claims.g.exist(x, x == 'a')",
        "near character 15: there is no function x.exist(…); did you mean exists, with the right arguments?",
    ),
    (
        "claims.g.exists(x, y == 'a')",
        "near character 20: there is no variable \"y\"; the variables are claims, token, request, client",
    ),
    (
        "claims.g.exists(claims, claims == 'a')",
        "near character 16: claims is already defined; choose another name for the variable",
    ),
    (
        "claims.g.map(x, x + x) == []",
        "near character 13: map is not available, because it can create lists of any size; use exists, all, exists_one or filter",
    ),
    (
        "claims.g.map(x, x > 1, x + x) == []",
        "near character 13: map is not available, because it can create lists of any size; use exists, all, exists_one or filter",
    ),
    (
        "claims.g.exists(x, claims.h.exists(y, x == y))",
        "near character 35: nests one comprehension in another; split it into several rules, or use `in`",
    ),
    (
        "claims.g.filter(x, x > 1).exists(y, y == 2)",
        "near character 16: nests one comprehension in another; split it into several rules, or use `in`",
    ),
    (
        "claims.sub.matches(claims.pattern)",
        "near character 19: the pattern of matches is not a literal; write it as a quoted string",
    ),
    (
        "claims.sub.matches('(')",
        "near character 19: the pattern of matches is not a regular expression; write a regular expression in the syntax of the Rust crate regex",
    ),
    (
        "claims.sub.matches('\\\\w{9}{9}{99}')",
        "near character 19: the pattern of matches is too large; write a regular expression in the syntax of the Rust crate regex",
    ),
    (
        "A{a: 1} == 1",
        "near character 2: constructs a message \"A\"; message types are not supported; write a map in braces, with quoted keys",
    ),
    (
        ".claims == 1",
        "near character 2: there is no variable \".claims\"; did you mean claims?",
    ),
    (
        "optional.of(1) == 1",
        "near character 12: there is no function x.of(…); the functions are contains, endsWith, matches, size, startsWith, all, exists, exists_one, filter, has",
    ),
    (
        "timestamp('x') == 1",
        "near character 10: there is no function timestamp(…); the functions are bool, bytes, double, dyn, int, matches, size, string, type, uint, all, exists, exists_one, filter, has",
    ),
    (
        "claims.?sub == 1",
        "is not valid CEL: near character 7: unsupported syntax '.?'; write an expression like claims.sub == \"me\"",
    ),
];

#[test]
fn compile_errors_name_the_problem_its_position_and_the_fix() {
    for (source, expected) in REFUSED {
        assert_eq!(refusal(source), *expected, "{source}");
    }
}

/// Sources of the maximum length that could exhaust stack, time or memory.
fn long_sources() -> Vec<String> {
    let fill = |unit: &str, last: &str| {
        let times = (MAX_SOURCE_BYTES - last.len()) / unit.len();
        format!("{}{last}", unit.repeat(times))
    };
    let wrap = |open: &str, middle: &str, close: &str| {
        let times = (MAX_SOURCE_BYTES - middle.len()) / (open.len() + close.len());
        format!("{}{middle}{}", open.repeat(times), close.repeat(times))
    };
    vec![
        wrap("(", "1", ")"),
        wrap("[", "1", "]"),
        wrap("{1:", "1", "}"),
        wrap("!(", "true", ")"),
        wrap("claims[", "1", "]"),
        wrap("true?(", "1", "):1"),
        wrap("size(", "claims", ")"),
        wrap("claims.exists(x,", "true", ")"),
        fill("!", "true"),
        fill("-", "1"),
        fill("- ", "1"),
        fill("claims.a?1:", "1"),
        fill("true?1:", "1"),
        format!("claims{}", fill(".a", ""))
            .chars()
            .take(MAX_SOURCE_BYTES)
            .collect(),
        format!("claims{}", "[0]".repeat(330)),
        format!("claims.a{}", ".size()".repeat(140)),
        format!("claims.a{}", ".filter(x,x==1)".repeat(65)),
        fill("1+", "1"),
        fill("true&&", "true"),
        fill("claims.sub+", "claims.sub"),
        fill("claims==claims&&", "true"),
        format!(
            "claims.g.exists(x,{})",
            "claims==claims||".repeat(60) + "true"
        ),
        fill("(", ""),
        fill("[", ""),
        fill("{", ""),
        fill(")", ""),
        fill("'", ""),
        fill("\"\"\"", ""),
        fill("\\", ""),
        fill("a b ", ""),
        fill("+*", ""),
        fill("?:", ""),
        fill("é", ""),
        fill("\u{0}", ""),
        fill("@", ""),
        fill("`a`.", "a"),
        format!("claims.sub.matches('{}')", "(a*)*".repeat(190)),
        format!("claims.sub.matches('{}')", "(".repeat(900)),
        format!("claims.sub.matches('{}')", "a{1000}".repeat(9)),
    ]
}

/// Short sources with unusual values that a parser or interpreter could mishandle.
const UNUSUAL: &[&str] = &[
    "'\\ud800'",
    "'\\U00110000'",
    "'\\'",
    "b'\\777'",
    "b'\\xff' == 'ÿ'",
    "0x1ffffffffffffffff",
    "99999999999999999999",
    "1e99999",
    "has(1)",
    "has(a.b.c)",
    "a.exists(1, true)",
    "__result__",
    "@result",
    "a.`b`",
    "dyn(1) == 1",
    "type(type) == type",
    "string(b'\\xff') == ''",
    "int(double('NaN')) == 1",
    "int(1e300) == 1",
    "uint(-1) == 1u",
    "-(-9223372036854775808) == 1",
    "[1][9223372036854775807] == 1",
    "[1][18446744073709551615u] == 1",
    "double('NaN') < 1.0",
    "[1] < [2]",
    "null < 1",
    "1 in 1",
    "'a' in 'abc'",
    "{[1]: 2} == {}",
    "claims == claims",
    "type(claims)",
    "[claims, claims] == [claims]",
    "claims in [claims]",
    "size(claims.text) == 5",
];

#[test]
fn hostile_sources_cause_no_panic() {
    let unusual = UNUSUAL.iter().map(|source| (*source).to_owned());
    let claims = claims();
    for source in long_sources().into_iter().chain(unusual) {
        // A panic would surface as `Panicked` or as this error.
        match Expression::compile(&source) {
            Ok(expression) => {
                let matched = expression.is_true(&attributes(&claims, &[]));
                assert_ne!(matched, Err(EvaluationError::Panicked), "{source}");
                assert_ne!(
                    expression.text(&attributes(&claims, &[])),
                    Err(EvaluationError::Panicked)
                );
            }
            Err(error) => assert!(!error.problem.contains("panic"), "{source}"),
        }
    }
    assert!(refusal(&" ".repeat(MAX_SOURCE_BYTES + 1)).contains("more than 1024"));
}

/// Expressions are evaluated on the stack of a worker thread.
#[test]
fn the_deepest_expression_fits_a_small_stack() {
    let deepest = (1..MAX_SOURCE_BYTES)
        .map(|n| format!("claims{} == 1", "[0]".repeat(n)))
        .take_while(|source| source.len() <= MAX_SOURCE_BYTES)
        .filter_map(|source| Expression::compile(&source).ok())
        .last()
        .unwrap();
    let thread = std::thread::Builder::new().stack_size(1 << 20);
    let ran = thread.spawn(move || deepest.is_true(&attributes(&claims(), &[])).is_err());
    assert!(ran.unwrap().join().unwrap());
}

#[test]
fn the_number_of_steps_is_limited_at_compile_time() {
    let wide = |n: usize| format!("claims.g.exists(x, x in [{}])", vec!["1"; n].join(","));
    assert!(Expression::compile(&wide(40)).is_ok());
    let refused = refusal(&wide(100));
    assert!(
        refused.contains(&format!("more than {MAX_STEPS} steps")),
        "{refused}"
    );
    assert!(refused.contains(&MAX_MEMBERS.to_string()), "{refused}");
}

#[test]
fn compilation_determines_the_attributes_that_an_expression_reads() {
    for (source, request, path, named) in [
        (
            "claims.sub == 'a' && claims['b c'] == 1 && 'd' in claims",
            false,
            false,
            Some("b c,d,sub"),
        ),
        ("has(claims.a.b)", false, false, Some("a")),
        ("claims[token.client] == 1", false, false, None),
        ("claims.all(c, c != 'x')", false, false, None),
        ("token.issuer == 'a'", false, false, Some("")),
        ("request.method == 'GET'", true, false, Some("")),
        ("client.address == ''", true, false, Some("")),
        (
            "claims.g.exists(x, request.path.endsWith(x))",
            true,
            true,
            Some("g"),
        ),
    ] {
        let expression = compiled(source);
        assert_eq!(expression.reads_request(), request, "{source}");
        assert_eq!(expression.reads_path(), path, "{source}");
        let claims = match expression.claims() {
            ClaimsRead::Named(names) => Some(names.iter().cloned().collect::<Vec<_>>().join(",")),
            ClaimsRead::All => None,
        };
        assert_eq!(claims.as_deref(), named, "{source}");
    }
}

#[test]
fn an_ipv4_mapped_client_address_is_an_ipv4_address() {
    let mapped: std::net::IpAddr = "::ffff:10.1.2.3".parse().unwrap();
    for (address, expected) in [(Some(mapped), "10.1.2.3"), (None, "")] {
        let claims = Map::new();
        let mut attributes = attributes(&claims, &[]);
        attributes.request.address = address;
        assert_eq!(
            compiled("client.address").text(&attributes).unwrap(),
            expected
        );
    }
}

/// An expression whose evaluation panics. No source is known to cause that.
pub(in crate::gateway::rule) fn panicking() -> Expression {
    let mut expression = compiled("claims.sub.matches('x')");
    let mut functions = Context::with_env(Arc::clone(&LIBRARY));
    let panics = |_: Arc<String>| -> bool { panic!("raised by the test") };
    functions
        .add_function(&analysis::matcher(0), panics)
        .unwrap();
    expression.functions = functions;
    expression
}

#[test]
fn a_panic_of_the_interpreter_is_caught() {
    let claims = claims();
    let attributes = attributes(&claims, &[]);
    assert_eq!(
        panicking().is_true(&attributes),
        Err(EvaluationError::Panicked)
    );
    assert_eq!(
        panicking().text(&attributes),
        Err(EvaluationError::Panicked)
    );
}

#[test]
fn expressions_can_read_the_client_certificate() {
    let certificate = ClientCertificate {
        dns_names: vec!["worker.example.org".into()],
        emails: vec!["worker@example.org".into()],
        ..ClientCertificate::for_test("worker-1", &["spiffe://example.org/worker"])
    };
    let request = RequestAttributes {
        certificate: Some(&certificate),
        ..REQUEST
    };
    let claims = claims();
    let known = Attributes {
        request,
        ..attributes(&claims, &[])
    };
    for source in [
        "client.certificate.common_name == 'worker-1'",
        "client.certificate.common_name.startsWith('worker-')",
        "client.certificate.common_name.matches('^worker-[0-9]+$')",
        "'spiffe://example.org/worker' in client.certificate.uris",
        "client.certificate.uris[0].startsWith('spiffe://example.org/')",
        "client.certificate.uris.exists(u, u.endsWith('/worker'))",
        "client.certificate.dns_names == ['worker.example.org']",
        "client.certificate.emails.all(e, e.endsWith('@example.org'))",
        "client.certificate.fingerprint.matches('^[0-9a-f]{64}$')",
        "type(client.certificate.uris) == list && type(client.certificate.common_name) == string",
    ] {
        let compiled = compiled(source);
        assert_eq!(compiled.is_true(&known), Ok(true), "{source}");
        assert!(compiled.reads_request(), "{source}");
        // Without a certificate, none of these is true except those that are true of any list.
        let without = attributes(&claims, &[]);
        let matched = compiled.is_true(&without);
        let vacuous = source.contains(".all(") || source.starts_with("type(");
        assert_eq!(matched == Ok(true), vacuous, "{source}");
    }
}

#[test]
fn an_unknown_certificate_attribute_is_a_compile_error() {
    for (source, expected) in [
        (
            "client.certificate == 'x'",
            "client.certificate is not a value itself; write one of client.certificate.common_name",
        ),
        (
            "client.certificate.uri == 'x'",
            "there is no client.certificate.uri; did you mean client.certificate.uris?",
        ),
        (
            "client.certificate.serial == 'x'",
            "there is no client.certificate.serial; ",
        ),
        (
            "has(client.certificate.uris)",
            "client.certificate.uris is always present",
        ),
        (
            "has(client.certificate)",
            "client.certificate is not a value itself",
        ),
        (
            "client.certificates.uris == []",
            "there is no client.certificates",
        ),
        (
            "client == 'x'",
            "client is not a value itself; write one of client.address, client.certificate.common_name",
        ),
    ] {
        let message = refusal(source);
        assert!(message.contains(expected), "{source}: {message}");
    }
    // A map with the same member names is an ordinary value.
    assert_eq!(
        is_true("[{'certificate': {'uris': ['x']}}].exists(c, c.certificate.uris[0] == 'x')"),
        Ok(true)
    );
    assert_eq!(is_true("{'uris': 1}.uris == 1"), Ok(true));
}
