//! The report of an explanation, as data and as text.

use std::fmt;

use serde::Serialize;

use super::Question;
use super::hints::Hints;
use crate::gateway::rejection::Rejection;
use crate::label::Label;

/// The stage of processing that a step belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// The request line.
    Request,
    /// Choosing the route.
    Route,
    /// Authenticating the caller.
    Token,
    /// Evaluating the rules.
    Rules,
    /// Obtaining a credential.
    Source,
    /// Forwarding the request.
    Upstream,
}

/// The result of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// The check passed.
    Ok,
    /// The check failed.
    Failed,
    /// Not reached, or without effect.
    Skipped,
    /// For information only.
    Note,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// The stage it belongs to.
    pub stage: Stage,
    /// What was checked.
    pub what: String,
    /// The result.
    pub status: Status,
    /// The expected value, if there is one to show.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// The value found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
    /// Further details.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// What would happen to the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "result")]
pub enum Verdict {
    /// It would be forwarded.
    Passes,
    /// hawkgate would refuse it.
    Refused {
        /// The status code.
        status: u16,
        /// The value of `X-Hawkgate-Error`.
        reason: &'static str,
        /// The message in the response.
        message: String,
        /// The cause in the operator's log.
        #[serde(skip_serializing_if = "Option::is_none")]
        cause: Option<String>,
    },
    /// It cannot be determined without the network.
    Unknown {
        /// Why.
        why: String,
    },
}

impl Verdict {
    pub(super) fn passes() -> Self {
        Self::Passes
    }

    pub(super) fn refused(rejection: &Rejection) -> Self {
        Self::Refused {
            status: rejection.reason.status().as_u16(),
            reason: rejection.reason.label(),
            message: rejection.message().to_owned(),
            cause: rejection.cause.clone(),
        }
    }
}

/// The complete explanation of one request.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// The method and URL, without the query.
    pub request: String,
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// The result.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// What the token looks like, and what to do about it, if it was not accepted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub advice: Vec<String>,
    /// An `[[issuer]]` section to add, in TOML, if no issuer has the token's `iss`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer_section: Option<String>,
}

impl Explanation {
    /// Whether the request would be forwarded.
    pub fn passes(&self) -> bool {
        self.verdict == Verdict::Passes
    }
}

/// Collects the steps.
#[derive(Debug, Default)]
pub(super) struct Report(Vec<Step>);

impl Report {
    pub(super) fn ok(&mut self, stage: Stage, what: impl Into<String>) {
        self.step(stage, what, Status::Ok, None);
    }

    pub(super) fn failed(
        &mut self,
        stage: Stage,
        what: impl Into<String>,
        detail: impl Into<String>,
    ) {
        self.step(stage, what, Status::Failed, Some(detail.into()));
    }

    pub(super) fn note(
        &mut self,
        stage: Stage,
        what: impl Into<String>,
        detail: impl Into<String>,
    ) {
        self.step(stage, what, Status::Note, Some(detail.into()));
    }

    pub(super) fn step(
        &mut self,
        stage: Stage,
        what: impl Into<String>,
        status: Status,
        detail: Option<String>,
    ) {
        self.push(Step {
            stage,
            what: what.into(),
            status,
            expected: None,
            found: None,
            detail,
        });
    }

    pub(super) fn push(&mut self, step: Step) {
        self.0.push(step);
    }

    pub(super) fn finish(self, question: &Question, verdict: Verdict, hints: Hints) -> Explanation {
        // A query may contain a bewit.
        let path = question.target.split('?').next().unwrap_or_default();
        Explanation {
            request: format!("{} {}{path}", question.method, question.host),
            steps: self.0,
            verdict,
            advice: hints.advice,
            issuer_section: hints.issuer_section,
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.request_and_verdict(f)?;
        if !self.advice.is_empty() {
            writeln!(f, "\nThe token, judging by its shape (it was not verified)")?;
            for line in &self.advice {
                writeln!(f, "  - {line}")?;
            }
        }
        match &self.issuer_section {
            Some(section) => write!(
                f,
                "\nAn issuer to start from, made from the token. Check its values, and name it in the route's \
                 issuers.\n\n{section}"
            ),
            None => Ok(()),
        }
    }
}

impl Explanation {
    fn request_and_verdict(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.request)?;
        let mut stage = None;
        for step in &self.steps {
            if stage.replace(step.stage) != Some(step.stage) {
                writeln!(f, "\n{}", title(step.stage))?;
            }
            writeln!(f, "{step}")?;
        }
        match &self.verdict {
            Verdict::Passes => writeln!(f, "\nThe request would pass."),
            Verdict::Unknown { why } => writeln!(f, "\nUnknown: {why}."),
            Verdict::Refused {
                status,
                reason,
                message,
                cause,
            } => {
                writeln!(f, "\nRefused: {status}, X-Hawkgate-Error: {reason}")?;
                writeln!(f, "  to the caller: {message}")?;
                match cause {
                    Some(cause) => writeln!(f, "  in the log:    {cause}"),
                    None => Ok(()),
                }
            }
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.status {
            Status::Ok => "ok    ",
            Status::Failed => "FAILED",
            Status::Skipped => "-     ",
            Status::Note => "      ",
        };
        write!(f, "  {mark}  {}", self.what)?;
        if let Some(detail) = &self.detail {
            write!(f, ": {detail}")?;
        }
        for (word, text) in [("expected", &self.expected), ("found", &self.found)] {
            if let Some(text) = text {
                write!(f, "\n            {word:8} {text}")?;
            }
        }
        Ok(())
    }
}

fn title(stage: Stage) -> &'static str {
    match stage {
        Stage::Request => "Request",
        Stage::Route => "Route: the route that matches",
        Stage::Token => "Token: the caller's identity",
        Stage::Rules => "Rules: whether the request is allowed (the first match decides)",
        Stage::Source => "Source: the credential that replaces the token",
        Stage::Upstream => "Upstream: the address, and the headers that hawkgate sets",
    }
}
