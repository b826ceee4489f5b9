//! Rules over verified claims and the request: who may pass, with what scopes, and what
//! the upstream is told about the caller (identity.md §G, seed 004).
//!
//! The first rule of a route that matches decides; where none does, the request is refused.
//! An `allow` rule that fails to evaluate does not match. A `deny` rule that fails to
//! evaluate refuses: what it was meant to keep out may be just what broke it.

mod compile_error;
mod expression;
pub(super) mod facts;
mod functions;
mod header;
mod scope;
mod syntax;

use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use super::path;
use super::rejection::Rejection;
use crate::gateway::reason::Reason;
use crate::token::{Caller, ExtensionKey};
pub use expression::{Expression, ExpressionError, Fault, MAX_SOURCE_BYTES};
pub use header::{HeaderNameError, MAX_VALUE_BYTES, header_name};
pub use scope::{Facts, RequestFacts};
use syntax::Claims;
pub use syntax::{MAX_MEMBERS, MAX_STEPS};

/// What a matching rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Lets the request pass.
    Allow,
    /// Refuses it.
    Deny,
}

/// One rule, compiled.
#[derive(Debug)]
pub struct Rule {
    /// Its configured name.
    pub name: Arc<str>,
    /// Whether it matches.
    pub when: Expression,
    /// What it does then.
    pub effect: Effect,
    /// Narrows what the source would give; `Some([])` is nothing at all.
    pub scopes: Option<Arc<[String]>>,
    /// Set upstream, in order.
    pub headers: Vec<(HeaderName, Expression)>,
}

impl Rule {
    fn expressions(&self) -> impl Iterator<Item = &Expression> {
        std::iter::once(&self.when).chain(self.headers.iter().map(|(_, value)| value))
    }

    fn allow(&self, facts: &Facts<'_>) -> Ruling {
        let mut headers = Vec::with_capacity(self.headers.len());
        for (name, expression) in &self.headers {
            let value = expression.text(facts).and_then(header::value);
            match value {
                Ok(value) => headers.push((name.clone(), value)),
                Err(fault) => return self.refuse(&fault, Some(name)),
            }
        }
        Ruling {
            rule: Some(Arc::clone(&self.name)),
            verdict: Verdict::Allow {
                scopes: self.scopes.clone(),
                headers,
            },
        }
    }

    /// Because of `fault`, in the value of `header` if that is given.
    fn refuse(&self, fault: &Fault, header: Option<&HeaderName>) -> Ruling {
        let place = header.map_or_else(String::new, |name| format!(", header {name}"));
        let reason = match fault {
            Fault::Panicked => Reason::Internal,
            _ => Reason::RuleDenied,
        };
        let cause = format!("rule {}{place}: {fault}", self.name);
        Ruling::deny(Some(self), reason, cause)
    }
}

/// What came of the rules for one request, or for every request with one token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruling {
    /// The rule that decided; `None` where none matched.
    pub rule: Option<Arc<str>>,
    /// What it decided.
    pub verdict: Verdict,
}

/// A decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The request passes.
    Allow {
        /// As [`Rule::scopes`].
        scopes: Option<Arc<[String]>>,
        /// What to set upstream.
        headers: Vec<(HeaderName, HeaderValue)>,
    },
    /// It does not.
    Deny {
        /// What the caller is told.
        reason: Reason,
        /// For operators; no claim's value is in it.
        cause: String,
    },
}

impl Ruling {
    fn deny(rule: Option<&Rule>, reason: Reason, cause: String) -> Self {
        Self {
            rule: rule.map(|rule| Arc::clone(&rule.name)),
            verdict: Verdict::Deny { reason, cause },
        }
    }

    /// Narrowing for the source; see [`Rule::scopes`].
    pub fn scopes(&self) -> Option<&Arc<[String]>> {
        match &self.verdict {
            Verdict::Allow { scopes, .. } => scopes.as_ref(),
            Verdict::Deny { .. } => None,
        }
    }

    /// What to set upstream.
    pub fn headers(&self) -> &[(HeaderName, HeaderValue)] {
        match &self.verdict {
            Verdict::Allow { headers, .. } => headers,
            Verdict::Deny { .. } => &[],
        }
    }

    /// # Errors
    /// With the refusal, unless it allows.
    pub fn permits(&self) -> Result<(), Rejection> {
        match &self.verdict {
            Verdict::Allow { .. } => Ok(()),
            Verdict::Deny { reason, cause } => Err(Rejection::from(*reason).because(cause.clone())),
        }
    }
}

/// Whether a rule matched, as [`Rules::judge`] tells whoever watches.
pub type Held = Result<bool, Fault>;

/// The rules of one route, in order; at least one.
#[derive(Debug)]
pub struct Rules {
    /// So that no ruling outlives the rules that it came from.
    extension_key: ExtensionKey,
    ordered: Vec<Arc<Rule>>,
    claims: Claims,
    reads_request: bool,
    reads_path: bool,
}

impl Rules {
    /// `None` without any: then nothing is asked of anybody.
    pub fn new(rules: Vec<Arc<Rule>>) -> Option<Self> {
        if rules.is_empty() {
            return None;
        }
        let all = || rules.iter().flat_map(|rule| rule.expressions());
        let mut claims = Claims::Named(std::collections::BTreeSet::new());
        all().for_each(|expression| claims.join(expression.claims()));
        let reads_request = all().any(Expression::reads_request);
        let reads_path = all().any(Expression::reads_path);
        Some(Self {
            extension_key: ExtensionKey::new(),
            reads_request,
            reads_path,
            claims,
            ordered: rules,
        })
    }

    /// In order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Rule>> {
        self.ordered.iter()
    }

    /// Whether two requests with one token can be judged differently.
    pub fn reads_request(&self) -> bool {
        self.reads_request
    }

    /// The ruling for this caller's request. Where no rule reads the request, the rules are
    /// evaluated once for each verified token, which keeps the ruling as long as it lives.
    pub fn decide(&self, caller: &Caller, request: RequestFacts<'_>) -> Arc<Ruling> {
        let Caller::Verified(token) = caller else {
            return Arc::new(self.judge(caller, request, |_, _| ()));
        };
        if self.reads_request {
            return Arc::new(self.judge(caller, request, |_, _| ()));
        }
        if let Some(known) = token.extensions().get(self.extension_key) {
            return known;
        }
        let ruling = Arc::new(self.judge(caller, request, |_, _| ()));
        token
            .extensions()
            .insert(self.extension_key, Arc::clone(&ruling));
        ruling
    }

    /// Evaluates the rules; `watch` is told of each that was asked.
    ///
    /// Requests are forwarded byte for byte, and upstreams decode paths: where a rule reads
    /// the path and the decoded one leads to another ruling, the request is refused, so that
    /// no rule can be walked around by writing a path differently.
    pub fn judge(
        &self,
        caller: &Caller,
        request: RequestFacts<'_>,
        watch: impl FnMut(&Rule, &Held),
    ) -> Ruling {
        let ruling = self.first_match(&facts::of(caller, request), watch);
        let decoded = self
            .reads_path
            .then(|| path::decoded(request.path))
            .flatten();
        let Some(decoded) = decoded else {
            return ruling;
        };
        let path = decoded.as_str();
        let other = facts::of(caller, RequestFacts { path, ..request });
        let other = self.first_match(&other, |_, _| ());
        let same = other.rule == ruling.rule && other.permits().is_ok() == ruling.permits().is_ok();
        if same {
            return ruling;
        }
        let cause = "the rules judge the path otherwise once its escapes are decoded";
        Ruling {
            rule: None,
            verdict: Verdict::Deny {
                reason: Reason::BadRequest,
                cause: cause.into(),
            },
        }
    }

    fn first_match(&self, facts: &Facts<'_>, mut watch: impl FnMut(&Rule, &Held)) -> Ruling {
        if let Some(claims) = facts.claims
            && let Err(claim) = scope::check_sizes(claims, &self.claims)
        {
            let cause = format!(
                "claim {claim:?} has more than {MAX_MEMBERS} members, more than rules look at"
            );
            return Ruling::deny(None, Reason::RuleDenied, cause);
        }
        let mut failed = None;
        for rule in &self.ordered {
            let held = rule.when.holds(facts);
            watch(rule, &held);
            match (held, rule.effect) {
                (Ok(false), _) => {}
                (Ok(true), Effect::Allow) => return rule.allow(facts),
                (Ok(true), Effect::Deny) => {
                    let cause = format!("rule {} denies it", rule.name);
                    return Ruling::deny(Some(rule), Reason::RuleDenied, cause);
                }
                (Err(fault @ Fault::Panicked), _) | (Err(fault), Effect::Deny) => {
                    return rule.refuse(&fault, None);
                }
                (Err(fault), Effect::Allow) => {
                    failed.get_or_insert_with(|| format!("; rule {}: {fault}", rule.name));
                }
            }
        }
        let cause = format!("no rule matches{}", failed.unwrap_or_default());
        Ruling::deny(None, Reason::RuleDenied, cause)
    }
}

#[cfg(test)]
mod tests;
