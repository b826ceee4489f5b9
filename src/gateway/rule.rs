//! Authorization rules over verified claims and the request: which requests are allowed, with which
//! scopes, and which headers describe the caller to the upstream (`docs/rules.md`).
//!
//! The first matching rule of a route decides; if none matches, the request is denied. An
//! `allow` rule whose evaluation fails does not match. A `deny` rule whose evaluation fails
//! denies, because the very request it is meant to deny may have made it fail.

mod activation;
mod analysis;
pub(super) mod attributes;
mod compile_error;
mod expression;
mod functions;
mod header;
mod variables;

use std::borrow::Cow;
use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use super::path::{self, Ambiguity};
use super::rejection::Rejection;
use crate::bounded_cache::heap_size;
use crate::gateway::reason::Reason;
use crate::token::{Caller, ExtensionKey};
use analysis::ClaimsRead;
pub use analysis::{MAX_MEMBERS, MAX_STEPS};
pub use attributes::{Attributes, RequestAttributes};
pub use expression::{EvaluationError, Expression, ExpressionError, MAX_SOURCE_BYTES};
pub use header::{HeaderNameError, MAX_VALUE_BYTES, header_name};

/// The effect of a matching rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Allow the request.
    Allow,
    /// Deny the request.
    Deny,
}

/// A compiled rule.
#[derive(Debug)]
pub struct Rule {
    /// The configured name.
    pub name: Arc<str>,
    /// The condition.
    pub when: Expression,
    /// The effect if the condition is true.
    pub effect: Effect,
    /// Limits the scopes of the credential; `Some([])` allows none.
    pub scopes: Option<Arc<[String]>>,
    /// Headers set on the upstream request, in order.
    pub headers: Vec<(HeaderName, Expression)>,
}

impl Rule {
    fn expressions(&self) -> impl Iterator<Item = &Expression> {
        std::iter::once(&self.when).chain(self.headers.iter().map(|(_, value)| value))
    }

    fn allow(&self, attributes: &Attributes<'_>) -> Decision {
        let mut headers = Vec::with_capacity(self.headers.len());
        for (name, expression) in &self.headers {
            let value = expression.text(attributes).and_then(header::value);
            match value {
                Ok(value) => headers.push((name.clone(), value)),
                Err(error) => return self.fail(&error, Some(name)),
            }
        }
        Decision {
            rule: Some(Arc::clone(&self.name)),
            verdict: Verdict::Allow {
                scopes: self.scopes.clone(),
                headers,
            },
        }
    }

    /// Denies because of `error`, which occurred in the value of `header` if given.
    fn fail(&self, error: &EvaluationError, header: Option<&HeaderName>) -> Decision {
        let location = header.map_or_else(String::new, |name| format!(", header {name}"));
        let reason = match error {
            EvaluationError::Panicked => Reason::Internal,
            _ => Reason::RuleDenied,
        };
        let cause = format!("rule {}{location}: {error}", self.name);
        Decision::deny(Some(self), reason, cause)
    }
}

/// The outcome of the rules for one request, or for all requests with the same token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The rule that decided; `None` if none matched.
    pub rule: Option<Arc<str>>,
    /// Whether the request is allowed.
    pub verdict: Verdict,
}

/// Whether a request is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The request is allowed.
    Allow {
        /// As [`Rule::scopes`].
        scopes: Option<Arc<[String]>>,
        /// Headers to set on the upstream request.
        headers: Vec<(HeaderName, HeaderValue)>,
    },
    /// The request is denied.
    Deny {
        /// The reason given to the caller.
        reason: Reason,
        /// For operators; contains no claim values.
        cause: String,
    },
}

impl Decision {
    fn deny(rule: Option<&Rule>, reason: Reason, cause: String) -> Self {
        Self {
            rule: rule.map(|rule| Arc::clone(&rule.name)),
            verdict: Verdict::Deny { reason, cause },
        }
    }

    fn ambiguous(ambiguity: Ambiguity) -> Self {
        Self::deny(None, Reason::BadRequest, ambiguity.to_string())
    }

    /// The limit on scopes; see [`Rule::scopes`].
    pub fn scopes(&self) -> Option<&Arc<[String]>> {
        match &self.verdict {
            Verdict::Allow { scopes, .. } => scopes.as_ref(),
            Verdict::Deny { .. } => None,
        }
    }

    /// The heap memory that belongs to the decision alone, in bytes.
    fn heap_size(&self) -> usize {
        match &self.verdict {
            Verdict::Allow { headers, .. } => {
                let values = headers.iter().map(|(_, value)| value.len());
                heap_size::allocation(size_of_val(headers.as_slice())) + values.sum::<usize>()
            }
            Verdict::Deny { cause, .. } => heap_size::string(cause),
        }
    }

    /// Headers to set on the upstream request.
    pub fn headers(&self) -> &[(HeaderName, HeaderValue)] {
        match &self.verdict {
            Verdict::Allow { headers, .. } => headers,
            Verdict::Deny { .. } => &[],
        }
    }

    /// Converts a denial to a rejection.
    ///
    /// # Errors
    /// If the request is denied.
    pub fn to_result(&self) -> Result<(), Rejection> {
        match &self.verdict {
            Verdict::Allow { .. } => Ok(()),
            Verdict::Deny { reason, cause } => {
                Err(Rejection::from(*reason).with_cause(cause.clone()))
            }
        }
    }
}

/// Whether a rule matched, as passed to the observer of [`Rules::evaluate`].
pub type MatchResult = Result<bool, EvaluationError>;

/// The rules of a route, in order; at least one.
#[derive(Debug)]
pub struct Rules {
    /// The key of the decisions that are cached with tokens; unique to these rules.
    extension_key: ExtensionKey,
    ordered: Vec<Arc<Rule>>,
    claims: ClaimsRead,
    reads_request: bool,
    reads_path: bool,
    case_insensitive_path: bool,
}

impl Rules {
    /// `None` if there are no rules, in which case every request is allowed.
    pub fn new(rules: Vec<Arc<Rule>>) -> Option<Self> {
        if rules.is_empty() {
            return None;
        }
        let all = || rules.iter().flat_map(|rule| rule.expressions());
        let mut claims = ClaimsRead::Named(std::collections::BTreeSet::new());
        all().for_each(|expression| claims.join(expression.claims()));
        let reads_request = all().any(Expression::reads_request);
        let reads_path = all().any(Expression::reads_path);
        Some(Self {
            extension_key: ExtensionKey::new(),
            reads_request,
            reads_path,
            case_insensitive_path: false,
            claims,
            ordered: rules,
        })
    }

    /// Sets whether the rules see paths in lower case, for an upstream that ignores case.
    #[must_use]
    pub fn with_case_insensitive_path(self, case_insensitive_path: bool) -> Self {
        Self {
            case_insensitive_path,
            ..self
        }
    }

    /// The rules in order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Rule>> {
        self.ordered.iter()
    }

    /// Whether any rule reads the request, so that two requests with the same token can get
    /// different decisions.
    pub fn reads_request(&self) -> bool {
        self.reads_request
    }

    /// The decision for this caller and request. If no rule reads the request, the rules are
    /// evaluated once per verified token and the decision is cached with the token.
    pub fn decide(&self, caller: &Caller, request: RequestAttributes<'_>) -> Arc<Decision> {
        let Caller::Verified(token) = caller else {
            return Arc::new(self.evaluate(caller, request, |_, _| ()));
        };
        if self.reads_request {
            return Arc::new(self.evaluate(caller, request, |_, _| ()));
        }
        if let Some(known) = token.extensions().get(self.extension_key) {
            return known;
        }
        let decision = Arc::new(self.evaluate(caller, request, |_, _| ()));
        let size = decision.heap_size();
        token
            .extensions()
            .insert(self.extension_key, Arc::clone(&decision), size);
        decision
    }

    /// Evaluates the rules in order and calls `observe` with each rule evaluated and its result.
    ///
    /// Requests are forwarded byte for byte, and upstreams read paths in different ways. If a rule
    /// reads the path and any reading leads to another decision, the request is refused, so that
    /// no rule can be bypassed by spelling a path differently.
    pub fn evaluate(
        &self,
        caller: &Caller,
        request: RequestAttributes<'_>,
        observe: impl FnMut(&Rule, &MatchResult),
    ) -> Decision {
        if !self.reads_path {
            return self.first_match(&Attributes::of(caller, request), observe);
        }
        let decision = self.decide_for_path(caller, request, request.path, observe);
        let readings = match path::readings(request.path) {
            Ok(readings) => readings,
            Err(ambiguity) => return Decision::ambiguous(ambiguity),
        };
        let differs = |reading: &String| {
            let other = self.decide_for_path(caller, request, reading, |_, _| ());
            other.rule != decision.rule || other.to_result().is_ok() != decision.to_result().is_ok()
        };
        if readings.iter().any(differs) {
            return Decision::ambiguous(Ambiguity::OtherDecision);
        }
        decision
    }

    fn decide_for_path(
        &self,
        caller: &Caller,
        request: RequestAttributes<'_>,
        path: &str,
        observe: impl FnMut(&Rule, &MatchResult),
    ) -> Decision {
        let path = if self.case_insensitive_path {
            path::lower_case(path)
        } else {
            Cow::Borrowed(path)
        };
        let request = RequestAttributes {
            path: &path,
            ..request
        };
        self.first_match(&Attributes::of(caller, request), observe)
    }

    fn first_match(
        &self,
        attributes: &Attributes<'_>,
        mut observe: impl FnMut(&Rule, &MatchResult),
    ) -> Decision {
        if let Some(claims) = attributes.claims
            && let Err(claim) = activation::check_sizes(claims, &self.claims)
        {
            let cause =
                format!("claim {claim:?} has more than {MAX_MEMBERS} members, the limit for rules");
            return Decision::deny(None, Reason::RuleDenied, cause);
        }
        let mut failed = None;
        for rule in &self.ordered {
            let matched = rule.when.is_true(attributes);
            observe(rule, &matched);
            match (matched, rule.effect) {
                (Ok(false), _) => {}
                (Ok(true), Effect::Allow) => return rule.allow(attributes),
                (Ok(true), Effect::Deny) => {
                    let cause = format!("rule {} denies the request", rule.name);
                    return Decision::deny(Some(rule), Reason::RuleDenied, cause);
                }
                (Err(error @ EvaluationError::Panicked), _) | (Err(error), Effect::Deny) => {
                    return rule.fail(&error, None);
                }
                (Err(error), Effect::Allow) => {
                    failed.get_or_insert_with(|| format!("; rule {}: {error}", rule.name));
                }
            }
        }
        let cause = format!("no rule matches{}", failed.unwrap_or_default());
        Decision::deny(None, Reason::RuleDenied, cause)
    }
}

#[cfg(test)]
mod tests;
