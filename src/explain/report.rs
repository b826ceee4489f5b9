//! What was found out, step by step, as data and as text.

use std::fmt;

use serde::Serialize;

use super::Question;
use crate::gateway::rejection::Rejection;
use crate::label::Label;

/// Which part of a request's way a step belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// The request line.
    Request,
    /// Which route.
    Route,
    /// Who calls.
    Token,
    /// What the rules say.
    Rules,
    /// What credential.
    Source,
    /// Where to, with what.
    Upstream,
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it must be.
    Ok,
    /// Not as it must be.
    Failed,
    /// Not looked at, or without consequence.
    Skipped,
    /// Only told.
    Note,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Of which part.
    pub stage: Stage,
    /// What was looked at.
    pub what: String,
    /// How that ended.
    pub status: Status,
    /// What was wanted, where that can be said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// What was there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
    /// More about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// What the request would meet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "result")]
pub enum Verdict {
    /// It goes upstream.
    Passes,
    /// hawkgate answers by itself.
    Refused {
        /// The status.
        status: u16,
        /// As in `X-Hawkgate-Error`.
        reason: &'static str,
        /// What the caller is told.
        message: &'static str,
        /// What the operator's log says.
        #[serde(skip_serializing_if = "Option::is_none")]
        cause: Option<String>,
    },
    /// It cannot be known without asking somebody.
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
            message: rejection.reason.message(),
            cause: rejection.cause.clone(),
        }
    }
}

/// The whole answer to one question.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// The method and URL asked about, without its query.
    pub request: String,
    /// Every step, in order.
    pub steps: Vec<Step>,
    /// The end.
    #[serde(flatten)]
    pub verdict: Verdict,
}

impl Explanation {
    /// Whether the request would go upstream.
    pub fn passes(&self) -> bool {
        self.verdict == Verdict::Passes
    }
}

/// Collects steps.
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

    pub(super) fn finish(self, question: &Question, verdict: Verdict) -> Explanation {
        // A query may hold a bewit.
        let path = question.target.split('?').next().unwrap_or_default();
        Explanation {
            request: format!("{} {}{path}", question.method, question.host),
            steps: self.0,
            verdict,
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.request)?;
        let mut stage = None;
        for step in &self.steps {
            if stage.replace(step.stage) != Some(step.stage) {
                writeln!(f, "\n{}", title(step.stage))?;
            }
            writeln!(f, "{step}")?;
        }
        match &self.verdict {
            Verdict::Passes => writeln!(f, "\nIt would pass."),
            Verdict::Unknown { why } => writeln!(f, "\nUnknown: {why}."),
            Verdict::Refused {
                status,
                reason,
                message,
                cause,
            } => {
                writeln!(f, "\nRefused: {status}, X-Hawkgate-Error: {reason}")?;
                writeln!(f, "  the caller is told: {message}")?;
                match cause {
                    Some(cause) => writeln!(f, "  the log says: {cause}"),
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
        Stage::Route => "Route: where the request would go",
        Stage::Token => "Token: who calls",
        Stage::Rules => "Rules: whether they may (the first that matches decides)",
        Stage::Source => "Source: what the token is swapped for",
        Stage::Upstream => "Upstream: what hawkgate itself would send there",
    }
}
