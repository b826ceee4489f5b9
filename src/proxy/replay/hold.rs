//! Holds back a response until its body has been looked at.

use std::time::Duration;

use pingora::protocols::http::HttpTask;
use pingora::{Error, ErrorType};
use tokio::time::Instant;

/// The response that is held back, if any.
#[derive(Default)]
pub(super) struct Hold {
    /// Until when; `None` if responses are sent as they arrive.
    deadline: Option<Instant>,
    tasks: Vec<HttpTask>,
    abandoned: bool,
}

impl Hold {
    /// Holds back what arrives from now on, for at most `limit`.
    pub(super) fn begin(&mut self, limit: Duration) {
        *self = Self {
            // Tokio's own time, which tests can pause.
            deadline: Some(tokio::time::sleep(limit).deadline()),
            ..Self::default()
        };
    }

    /// Lets through what was held back, with what arrives next.
    pub(super) fn release(&mut self) {
        self.deadline = None;
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Whether the response was given up, because its end or the deadline came first.
    pub(super) fn is_abandoned(&self) -> bool {
        self.abandoned
    }

    /// Adds what arrived, and returns what is to be sent: nothing while the response is held back.
    ///
    /// # Errors
    /// At the end of a response that is held back.
    pub(super) fn filter(&mut self, tasks: Vec<HttpTask>) -> Result<Vec<HttpTask>, Box<Error>> {
        if self.deadline.is_none() && self.tasks.is_empty() {
            return Ok(tasks);
        }
        self.tasks.extend(tasks);
        if self.deadline.is_none() {
            return Ok(std::mem::take(&mut self.tasks));
        }
        if self.tasks.last().is_some_and(HttpTask::is_end) {
            return Err(self.abandon());
        }
        Ok(Vec::new())
    }

    /// Gives the response up. The error ends the attempt.
    pub(super) fn abandon(&mut self) -> Box<Error> {
        self.abandoned = true;
        Error::explain(ErrorType::HTTPStatus(401), "the body of the 401 is missing")
    }
}
