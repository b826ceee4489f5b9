//! What a file that is meant to hold a token really holds: decodes it without verifying it, names it
//! and its provider, lists the facts that matter, and says what to do and what to write.

mod advice;
mod facts;
mod kind;
mod opaque;
mod pasted;
mod section;

use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value};

use self::pasted::{Content, NotToken, Pasted};
use crate::clock::UnixMillis;
use crate::token::{self, DEFAULT_TOKEN_BYTES, Provider, TokenError};

pub use facts::Fact;
pub use kind::Kind;

/// What a file holds. Contains neither the token nor its signature.
#[derive(Clone, Debug, Serialize)]
pub struct Identification {
    /// Always false: nothing was verified.
    pub verified: bool,
    /// What kind of token it is.
    pub kind: Kind,
    /// The name of its provider, judging by its shape.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<&'static str>,
    /// The `profile` of issuers whose access tokens look like it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<&'static str>,
    /// What it is, in words.
    pub what: String,
    /// What it contains.
    pub facts: Vec<Fact>,
    /// What to do.
    pub advice: Vec<String>,
    /// An `[[issuer]]` section to start from, in TOML.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer_section: Option<String>,
    /// The `iss` of a JWT.
    #[serde(skip)]
    pub(super) iss: Option<String>,
}

/// A decoded, unverified token.
struct Decoded {
    provider: Option<Provider>,
    kind: Kind,
    header: Map<String, Value>,
    claims: Map<String, Value>,
    /// In bytes, as sent.
    size: usize,
}

impl Decoded {
    fn claim(&self, name: &str) -> Option<&Value> {
        self.claims.get(name)
    }

    /// The claim, or an empty string if it is none.
    fn claim_text(&self, name: &str) -> &str {
        self.claim(name).and_then(Value::as_str).unwrap_or_default()
    }

    fn header_text(&self, name: &str) -> &str {
        self.header
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// `aud`, which is one value or a list (RFC 7519 §4.1.3).
    fn audiences(&self) -> Vec<&Value> {
        match self.claim("aud") {
            Some(Value::Array(list)) => list.iter().collect(),
            Some(one) => vec![one],
            None => Vec::new(),
        }
    }
}

/// Identifies the content of a file. `now` is for expiry.
pub fn identify(bytes: &[u8], now: UnixMillis) -> Identification {
    let Pasted { content, remarks } = Pasted::read(bytes);
    let mut found = match content {
        Content::Word(word) => identify_word(&word, now),
        Content::Other(what) => not_a_token(what),
    };
    found.advice.extend(remarks.into_iter().map(str::to_owned));
    found
}

impl Identification {
    /// Whether it is a token of some kind.
    pub fn is_token(&self) -> bool {
        !matches!(self.kind, Kind::NotAToken | Kind::Malformed)
    }

    fn new(kind: Kind, what: impl Into<String>) -> Self {
        Self {
            verified: false,
            kind,
            provider: None,
            profile: None,
            what: what.into(),
            facts: Vec::new(),
            advice: Vec::new(),
            issuer_section: None,
            iss: None,
        }
    }
}

fn not_a_token(what: NotToken) -> Identification {
    let mut found = Identification::new(Kind::NotAToken, what.what());
    found.advice.push(what.advice().to_owned());
    found
}

fn identify_word(word: &str, now: UnixMillis) -> Identification {
    match token::inspect_text(word) {
        Ok(parsed) => jwt(parsed.header, parsed.claims, word.len(), now),
        Err(TokenError::Encrypted) => encrypted(word, now),
        Err(error) if token::inspect_header(word).is_some() || word.starts_with("eyJ") => {
            let mut found = Identification::new(
                Kind::Malformed,
                "a text that begins like a JWT but is not a well-formed one",
            );
            found.advice.push(match error {
                TokenError::DuplicateMember => {
                    "a member occurs twice in its header or claims, so that two readers could see different tokens; \
                     hawkgate refuses it"
                        .to_owned()
                }
                _ => advice::for_malformed(word),
            });
            found
        }
        Err(_) => opaque(word),
    }
}

fn jwt(
    header: Map<String, Value>,
    claims: Map<String, Value>,
    size: usize,
    now: UnixMillis,
) -> Identification {
    let provider = token::recognise(&header, &claims);
    let kind = kind::of(provider, &header, &claims);
    let decoded = Decoded {
        provider,
        kind,
        header,
        claims,
        size,
    };
    let mut found = Identification::new(kind, what(&decoded));
    found.provider = named(provider).map(Provider::name);
    found.profile = kind.is_for_apis().then(|| section::profile(&decoded));
    found.iss = decoded
        .claim("iss")
        .and_then(Value::as_str)
        .map(str::to_owned);
    found.facts = facts::of(&decoded, now);
    if size > DEFAULT_TOKEN_BYTES {
        found.advice.push(too_large(size));
    }
    found.advice.extend(advice::of(&decoded, now));
    let fits = !matches!(
        kind,
        Kind::LogoutToken | Kind::DpopProof | Kind::ClientAssertion
    );
    found.issuer_section = section::for_token(&decoded).filter(|_| fits);
    found
}

/// Rfc9068 is a format, not a provider.
fn named(provider: Option<Provider>) -> Option<Provider> {
    provider.filter(|provider| *provider != Provider::Rfc9068)
}

fn what(token: &Decoded) -> String {
    let kind = match token.kind {
        Kind::Jwt => "JWT".to_owned(),
        kind => format!("{} (JWT)", kind.name()),
    };
    let unknown = if token.kind == Kind::Jwt {
        ", with no sign of what it is for"
    } else {
        ""
    };
    match (named(token.provider), token.provider) {
        (Some(Provider::Dex), _) => {
            "a Dex token (JWT): an access token or an ID token, which look the same".to_owned()
        }
        (Some(provider), _) => format!("{} {kind}{unknown}", with_article(provider.name())),
        (None, Some(_)) => "an access token (JWT) in the format of RFC 9068".to_owned(),
        (None, None) => format!(
            "{}{unknown}, from a provider that is not recognised",
            with_article(&kind)
        ),
    }
}

fn with_article(text: &str) -> String {
    let vowel = text.starts_with(['A', 'E', 'I', 'O', 'a', 'e', 'i', 'o', 'u']);
    format!("{} {text}", if vowel { "an" } else { "a" })
}

fn too_large(size: usize) -> String {
    format!(
        "it is too large: {size} bytes, and {DEFAULT_TOKEN_BYTES} are accepted by default. Have the provider leave out groups \
         and roles, or raise limits.token_bytes"
    )
}

fn encrypted(word: &str, now: UnixMillis) -> Identification {
    let header = token::inspect_header(word).unwrap_or_default();
    // Auth0 puts `iss` into the header; Cognito's refresh tokens have exactly these members.
    let provider = token::recognise(&header, &header).or_else(|| {
        let is_cognito = header.get("cty").is_some_and(|cty| cty == "JWT")
            && header.get("alg").is_some_and(|alg| alg == "RSA-OAEP");
        is_cognito.then_some(Provider::Cognito)
    });
    let iss = header.get("iss").cloned();
    let decoded = Decoded {
        provider: named(provider),
        kind: Kind::Encrypted,
        header,
        claims: Map::new(),
        size: word.len(),
    };
    let what = match decoded.provider {
        Some(Provider::Cognito) => {
            "a refresh token (JWE) of Amazon Cognito, judging by its header".to_owned()
        }
        Some(provider) => format!("{} encrypted token (JWE)", with_article(provider.name())),
        None => "an encrypted token (JWE): only its recipient can read it".to_owned(),
    };
    let mut found = Identification::new(Kind::Encrypted, what);
    found.provider = decoded.provider.map(Provider::name);
    found.facts = facts::of(&decoded, now);
    found.advice = advice::for_encrypted(&decoded);
    found.issuer_section = section::for_introspection(iss.as_ref());
    found
}

fn opaque(word: &str) -> Identification {
    let known = opaque::recognise(word);
    let mut found = Identification::new(known.kind, known.what);
    found.facts.push(Fact {
        name: "size",
        label: "size",
        value: format!("{} bytes", word.len()),
    });
    if word.len() > DEFAULT_TOKEN_BYTES {
        found.advice.push(too_large(word.len()));
    }
    if known.advice.is_empty() {
        found.advice.extend(advice::for_opaque());
        found.issuer_section = section::for_introspection(None);
    } else {
        found.advice.push(known.advice.to_owned());
    }
    found
}

impl fmt::Display for Identification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "This is {}", self.what)?;
        if let (Some(_), Some(profile)) = (self.provider, self.profile) {
            write!(f, "; `profile = {profile:?}` takes it")?;
        }
        writeln!(f, ".")?;
        match self.kind {
            Kind::NotAToken | Kind::Malformed | Kind::Opaque | Kind::Encrypted => {
                writeln!(f, "Nothing was verified.\n")?;
            }
            _ => writeln!(
                f,
                "It was decoded, not verified: anybody could have written it.\n"
            )?,
        }
        let width = self
            .facts
            .iter()
            .map(|fact| fact.title().chars().count())
            .max()
            .unwrap_or(0);
        for fact in &self.facts {
            writeln!(f, "  {:width$}  {}", fact.title(), fact.value)?;
        }
        if !self.advice.is_empty() {
            let gap = if self.facts.is_empty() { "" } else { "\n" };
            writeln!(f, "{gap}What to do")?;
            for line in &self.advice {
                writeln!(f, "  - {line}")?;
            }
        }
        if let Some(section) = &self.issuer_section {
            let for_what = match self.kind {
                kind if kind.is_for_apis() => "for such tokens",
                Kind::Opaque | Kind::Encrypted => "for opaque tokens",
                _ => "for the provider's access tokens",
            };
            writeln!(
                f,
                "\nAn issuer {for_what}, to start from. Nothing vouches for values that come from the token: compare them \
                 with\nwhat you know. Name the issuer in the issuers of a route, and run hawkgate check.\n"
            )?;
            f.write_str(section)?;
        }
        Ok(())
    }
}

impl Fact {
    fn title(&self) -> String {
        if self.label == self.name {
            self.name.to_owned()
        } else {
            format!("{} ({})", self.label, self.name)
        }
    }
}

#[cfg(test)]
mod tests;
