//! Templates over claims for the clientIds of minted credentials. Rendering is injective, so
//! that no caller can choose claims that yield another caller's name.

use serde_json::{Map, Value};

use crate::credential::FetchError;
use crate::token::VerifiedToken;

/// The longest rendered name, in characters. The whole `Authorization` header may have 4096.
pub const MAX_NAME_CHARS: usize = 512;

/// A template such as `sso/{sub}` or `ci/{repository}/{sub}`: literal text and, in braces,
/// names of claims exactly as they appear in the token (`{https://claims.example.com/email}`
/// is allowed).
///
/// Values are encoded the way Taskcluster's login encodes identities (`codec.js` of its
/// web-server): letters, digits and `@:.+|_-` are kept, and every other byte of the UTF-8
/// text becomes `!` and two upper-case hex digits (`!` itself becomes `!21`). `/` is encoded
/// too (`!2F`), so a value never leaves its own segment, and two claims in one template must
/// be separated by a `/`, so that neither can extend into the other. Different values
/// therefore render differently, with one exception: a claim with the number 12 and the same
/// claim with the string "12" yield the same name. The issuer, not the caller, chooses which
/// of the two it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameTemplate {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    Claim(String),
}

/// What is wrong with a template, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at byte {offset}: {problem}")]
pub struct TemplateError {
    /// Bytes from the template's start.
    pub offset: usize,
    /// What is wrong there.
    pub problem: TemplateProblem,
}

/// What can be wrong with a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateProblem {
    /// The template is empty.
    #[error("the template is empty")]
    Empty,
    /// The literal text alone exceeds [`MAX_NAME_CHARS`].
    #[error("the template has more than {MAX_NAME_CHARS} characters outside braces")]
    TooLong,
    /// `{` without `}`.
    #[error("`{{` is never closed: write {{claim}}")]
    Unclosed,
    /// `}` without `{`.
    #[error("`}}` without `{{`: write {{claim}}")]
    Unopened,
    /// `{{` or `{a{b}}`.
    #[error("`{{` inside braces: claim names cannot contain braces")]
    Nested,
    /// `{}`, or white space around a name.
    #[error("the braces contain no claim name: write {{sub}}, without spaces")]
    NoName,
    /// Two claims that could extend into each other.
    #[error("two claims need a `/` between them, or one value could imitate the other")]
    Adjacent,
    /// Literal text that a clientId cannot contain, or `!`, which introduces encoded bytes.
    #[error("the text of a clientId may contain only letters, digits and @/:.+|_-")]
    Literal,
}

impl NameTemplate {
    /// # Errors
    /// The first problem in the template.
    pub fn parse(template: &str) -> Result<Self, TemplateError> {
        let mut parser = Parser::default();
        let mut rest = template;
        while !rest.is_empty() {
            let offset = template.len() - rest.len();
            rest = parser.part(rest).map_err(|(at, problem)| TemplateError {
                offset: offset + at,
                problem,
            })?;
        }
        let at_start = |problem| TemplateError { offset: 0, problem };
        if parser.parts.is_empty() {
            return Err(at_start(TemplateProblem::Empty));
        }
        if parser.literal_chars > MAX_NAME_CHARS {
            return Err(at_start(TemplateProblem::TooLong));
        }
        Ok(Self {
            parts: parser.parts,
        })
    }

    /// The shortest name that the template can render.
    pub fn shortest(&self) -> String {
        let parts = self.parts.iter().map(|part| match part {
            Part::Claim(_) => "x",
            Part::Literal(text) => text.as_str(),
        });
        parts.collect()
    }

    /// The claims that the template uses, in order.
    pub fn claims(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Claim(claim) => Some(claim.as_str()),
            Part::Literal(_) => None,
        })
    }

    /// The name for the holder of `token`.
    ///
    /// # Errors
    /// [`FetchError::NotEntitled`] if a claim is missing, empty, or neither a string nor a
    /// whole number, or if the name would exceed [`MAX_NAME_CHARS`]. The message names the
    /// claim, never its value.
    pub fn render(&self, token: &VerifiedToken) -> Result<String, FetchError> {
        self.render_claims(token.claims())
    }

    /// The name for a caller without claims.
    ///
    /// # Errors
    /// [`FetchError::NotEntitled`] if the template uses any claim.
    pub fn render_without_claims(&self) -> Result<String, FetchError> {
        self.render_claims(&Map::new())
    }

    pub(in crate::credential) fn render_claims(
        &self,
        claims: &Map<String, Value>,
    ) -> Result<String, FetchError> {
        let mut name = String::new();
        for part in &self.parts {
            match part {
                Part::Literal(text) => name.push_str(text),
                Part::Claim(claim) => push_value(&mut name, claim, claims.get(claim))?,
            }
        }
        if name.len() > MAX_NAME_CHARS {
            return Err(too_long());
        }
        Ok(name)
    }
}

/// Rejects fractions and integers beyond 64 bits, which have no canonical notation.
fn push_value(name: &mut String, claim: &str, value: Option<&Value>) -> Result<(), FetchError> {
    let refuse = |what: &str| Err(FetchError::NotEntitled(format!("claim {claim:?} {what}")));
    match value {
        Some(Value::String(text)) if text.is_empty() => refuse("is empty"),
        Some(Value::String(text)) if text.len() > MAX_NAME_CHARS => Err(too_long()),
        Some(Value::String(text)) => {
            encode(text, name);
            Ok(())
        }
        Some(Value::Number(number)) if number.is_u64() || number.is_i64() => {
            encode(&number.to_string(), name);
            Ok(())
        }
        Some(_) => refuse("is neither a string nor a whole number"),
        None => refuse("is missing"),
    }
}

fn too_long() -> FetchError {
    FetchError::NotEntitled(format!(
        "the rendered name has more than {MAX_NAME_CHARS} characters"
    ))
}

fn encode(text: &str, out: &mut String) {
    const HEX: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F',
    ];
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"@:.+|_-".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('!');
            out.push(HEX[usize::from(byte >> 4)]);
            out.push(HEX[usize::from(byte & 15)]);
        }
    }
}

/// A problem and its offset in bytes from the start of the part being parsed.
type Problem = (usize, TemplateProblem);

#[derive(Default)]
struct Parser {
    parts: Vec<Part>,
    literal_chars: usize,
    /// Whether there has been a claim and no `/` since.
    open_claim: bool,
}

impl Parser {
    /// Parses one part of `rest` and returns the remainder.
    fn part<'a>(&mut self, rest: &'a str) -> Result<&'a str, Problem> {
        match rest.strip_prefix('{') {
            Some(inner) => self.claim(inner),
            None => self.literal(rest),
        }
    }

    fn claim<'a>(&mut self, inner: &'a str) -> Result<&'a str, Problem> {
        let Some(end) = inner.find(['{', '}']) else {
            return Err((0, TemplateProblem::Unclosed));
        };
        let (name, tail) = inner.split_at(end);
        let Some(tail) = tail.strip_prefix('}') else {
            return Err((end + 1, TemplateProblem::Nested));
        };
        if name.is_empty() || name.trim() != name {
            return Err((0, TemplateProblem::NoName));
        }
        if self.open_claim {
            return Err((0, TemplateProblem::Adjacent));
        }
        self.open_claim = true;
        self.parts.push(Part::Claim(name.to_owned()));
        Ok(tail)
    }

    fn literal<'a>(&mut self, rest: &'a str) -> Result<&'a str, Problem> {
        let end = rest.find('{').unwrap_or(rest.len());
        let (text, tail) = rest.split_at(end);
        let allowed = |c: char| c.is_ascii_alphanumeric() || "@/:.+|_-".contains(c);
        if let Some((at, bad)) = text.char_indices().find(|(_, c)| !allowed(*c)) {
            let problem = match bad {
                '}' => TemplateProblem::Unopened,
                _ => TemplateProblem::Literal,
            };
            return Err((at, problem));
        }
        if text.contains('/') {
            self.open_claim = false;
        }
        self.literal_chars += text.len();
        self.parts.push(Part::Literal(text.to_owned()));
        Ok(tail)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::hawk::certificate::is_client_id;

    fn render(template: &str, claims: Value) -> Result<String, String> {
        let Value::Object(claims) = claims else {
            panic!("an object");
        };
        NameTemplate::parse(template)
            .unwrap()
            .render_claims(&claims)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn templates_render_claims() {
        let table = [
            ("sso/{sub}", json!({"sub": "me"}), "sso/me"),
            (
                "sso/{sub}",
                json!({"sub": "ad|Mozilla-LDAP|d.x_y@z+1:2"}),
                "sso/ad|Mozilla-LDAP|d.x_y@z+1:2",
            ),
            (
                "ci/{repository}/{sub}",
                json!({"repository": "org/app", "sub": "repo:org/app:ref:refs/heads/main"}),
                "ci/org!2Fapp/repo:org!2Fapp:ref:refs!2Fheads!2Fmain",
            ),
            ("{sub}", json!({"sub": "x"}), "x"),
            ("a.{n}-b", json!({"n": 12}), "a.12-b"),
            ("a/{n}", json!({"n": -12}), "a/-12"),
            ("a/{n}", json!({"n": u64::MAX}), "a/18446744073709551615"),
            (
                "a/{https://c.example/x.y}",
                json!({"https://c.example/x.y": "v", "x": {"y": 1}}),
                "a/v",
            ),
            ("a/{b c}", json!({"b c": "v"}), "a/v"),
            ("fixed/name", json!({"sub": "x"}), "fixed/name"),
            ("{a}x/y{b}", json!({"a": "1", "b": "2"}), "1x/y2"),
        ];
        for (template, claims, expected) in table {
            assert_eq!(render(template, claims), Ok(expected.into()), "{template}");
        }
    }

    /// Hostile claim values are encoded, stay within their segment and yield a valid clientId.
    #[test]
    fn no_claim_value_leaves_its_segment() {
        let table = [
            ("a/b", "a!2Fb"),
            ("../root", "..!2Froot"),
            ("!2F", "!212F"),
            ("!", "!21"),
            ("a\"b", "a!22b"),
            ("a\\b", "a!5Cb"),
            ("a\nissuer:root", "a!0Aissuer:root"),
            ("a\r", "a!0D"),
            ("\0", "!00"),
            ("{sub}", "!7Bsub!7D"),
            ("*", "!2A"),
            ("é", "!C3!A9"),
            ("€", "!E2!82!AC"),
            ("😀", "!F0!9F!98!80"),
            (" ", "!20"),
            ("%2F", "!252F"),
            ("a,b", "a!2Cb"),
            ("\u{7f}", "!7F"),
            ("\u{202e}", "!E2!80!AE"),
        ];
        for (value, expected) in table {
            let name = render("sso/{sub}/end", json!({"sub": value})).unwrap();
            assert_eq!(name, format!("sso/{expected}/end"), "{value:?}");
            assert!(is_client_id(&name), "{name}");
            assert_eq!(name.matches('/').count(), 2);
        }
    }

    /// Checks that all pairs of short strings over the relevant characters yield distinct names.
    #[test]
    fn different_values_never_share_a_name() {
        let alphabet = ['a', '2', 'F', '!', '/', '|', 'é', '\u{0}'];
        let mut texts: Vec<String> = alphabet.iter().map(ToString::to_string).collect();
        for a in alphabet {
            for b in alphabet {
                texts.push(format!("{a}{b}"));
                texts.extend(["2F", "21", "!"].map(|c| format!("{a}{b}{c}")));
            }
        }
        texts.sort();
        texts.dedup();
        let template = NameTemplate::parse("{a}x/a{b}").unwrap();
        let mut seen = std::collections::HashSet::new();
        for a in &texts {
            for b in &texts {
                let claims = json!({"a": a, "b": b});
                let name = template.render_claims(claims.as_object().unwrap()).unwrap();
                assert!(seen.insert(name), "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn a_missing_or_invalid_claim_yields_no_name() {
        let table = [
            (json!({}), r#"claim "sub" is missing"#),
            (json!({"SUB": "x"}), r#"claim "sub" is missing"#),
            (json!({"sub": ""}), r#"claim "sub" is empty"#),
            (json!({"sub": null}), "neither a string nor a whole number"),
            (json!({"sub": true}), "neither a string nor a whole number"),
            (json!({"sub": 1.5}), "neither a string nor a whole number"),
            (json!({"sub": 1.0}), "neither a string nor a whole number"),
            (json!({"sub": 1e30}), "neither a string nor a whole number"),
            (json!({"sub": ["x"]}), "neither a string nor a whole number"),
            (
                json!({"sub": {"x": 1}}),
                "neither a string nor a whole number",
            ),
            (
                json!({"sub": "s3cr3t".repeat(2000)}),
                "more than 512 characters",
            ),
            (json!({"sub": "/".repeat(170)}), "more than 512 characters"),
        ];
        for (claims, expected) in table {
            let error = render("sso/{sub}", claims).unwrap_err();
            assert!(error.starts_with("not entitled: "), "{error}");
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains("s3cr3t"), "{error}");
        }
        // 512 characters are the limit, encoding included.
        let fits = render("sso/{sub}", json!({"sub": "x".repeat(508)})).unwrap();
        assert_eq!(fits.len(), MAX_NAME_CHARS);
        assert!(render("sso/{sub}", json!({"sub": "x".repeat(509)})).is_err());
        assert!(render("sso/{sub}", json!({"sub": "/".repeat(169)})).is_ok());
    }

    #[test]
    fn template_errors_state_the_offset() {
        use TemplateProblem as P;
        let long = "x".repeat(MAX_NAME_CHARS + 1);
        let table = [
            ("", 0, P::Empty),
            ("sso/{sub", 4, P::Unclosed),
            ("sso/{", 4, P::Unclosed),
            ("sso/sub}", 7, P::Unopened),
            ("sso/{sub}}", 9, P::Unopened),
            ("sso/{{sub}}", 5, P::Nested),
            ("sso/{a{b}}", 6, P::Nested),
            ("sso/{}", 4, P::NoName),
            ("sso/{ }", 4, P::NoName),
            ("sso/{ sub }", 4, P::NoName),
            ("{a}{b}", 3, P::Adjacent),
            ("{a}|{b}", 4, P::Adjacent),
            ("{a}-{b}", 4, P::Adjacent),
            ("x/{a}/{b}.{c}", 10, P::Adjacent),
            ("sso {sub}", 3, P::Literal),
            ("sso!{sub}", 3, P::Literal),
            ("é/{sub}", 0, P::Literal),
            ("sso/{sub}\n", 9, P::Literal),
            ("sso/*", 4, P::Literal),
            ("${sub}", 0, P::Literal),
            (&long, 0, P::TooLong),
        ];
        for (template, offset, problem) in table {
            assert_eq!(
                NameTemplate::parse(template),
                Err(TemplateError { offset, problem }),
                "{template}"
            );
        }
    }
}
