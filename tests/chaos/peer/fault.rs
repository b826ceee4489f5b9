//! How a peer misbehaves.

use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;

use super::infallible;

/// The body of an answer.
pub(super) type Body = BoxBody<Bytes, Reset>;

/// Ends the connection.
#[derive(Debug, thiserror::Error)]
#[error("the fault closes the connection")]
pub(crate) struct Reset;

/// A way to misbehave. In commands: `none`, `hang`, `slow MILLISECONDS`, `status CODE`,
/// `status CODE RETRY-AFTER`, `junk`, `reset`, `cut`, `sometimes PERCENT`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Fault {
    #[default]
    None,
    /// Never answers.
    Hang,
    /// Answers after this time.
    Slow(Duration),
    /// Answers with this status and `Retry-After` in seconds.
    Status(StatusCode, Option<u64>),
    /// Answers 200 with something unintelligible.
    Junk,
    /// Closes the connection instead of answering.
    Reset,
    /// Closes the connection in the middle of each answer's body.
    Cut,
    /// Answers 500 to this percentage of requests.
    Sometimes(u8),
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split(' ').collect();
        let number = |index: usize| words.get(index)?.parse::<u64>().ok();
        Ok(match (words[0], number(1)) {
            ("none", _) => Self::None,
            ("hang", _) => Self::Hang,
            ("slow", Some(millis)) => Self::Slow(Duration::from_millis(millis)),
            ("status", Some(code)) => {
                let code = u16::try_from(code)
                    .ok()
                    .and_then(|c| StatusCode::from_u16(c).ok());
                Self::Status(code.ok_or(text)?, number(2))
            }
            ("junk", _) => Self::Junk,
            ("reset", _) => Self::Reset,
            ("cut", _) => Self::Cut,
            ("sometimes", Some(percent)) => Self::Sometimes(u8::try_from(percent).unwrap_or(100)),
            _ => return Err(format!("there is no fault {text:?}")),
        })
    }
}

impl Fault {
    /// The answer that the fault puts in place of the peer's own; `None` if there is none.
    pub(super) async fn instead_of_answering(&self) -> Result<Option<Response<Body>>, Reset> {
        match self {
            Self::Hang => std::future::pending().await,
            Self::Slow(delay) => tokio::time::sleep(*delay).await,
            Self::Reset => return Err(Reset),
            Self::Status(status, retry_after) => return Ok(Some(failure(*status, *retry_after))),
            Self::Sometimes(percent) if unlucky(*percent) => {
                return Ok(Some(failure(StatusCode::INTERNAL_SERVER_ERROR, None)));
            }
            Self::Junk => {
                let junk = Full::new(Bytes::from_static(b"\xff\xfe<html>{\"keys\":[{]"));
                return Ok(Some(Response::new(junk.map_err(infallible).boxed())));
            }
            Self::None | Self::Cut | Self::Sometimes(_) => {}
        }
        Ok(None)
    }

    /// The peer's own answer, as far as the fault lets it through.
    pub(super) fn applied_to(&self, response: Response<Full<Bytes>>) -> Response<Body> {
        if *self != Self::Cut {
            return response.map(|body| body.map_err(infallible).boxed());
        }
        // The pause lets the first half reach its reader.
        let halves = stream::unfold(false, |sent| async move {
            if !sent {
                let half = Frame::data(Bytes::from_static(b"{\"half\":"));
                return Some((Ok(half), true));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            Some((Err(Reset), true))
        });
        response.map(|_| BoxBody::new(StreamBody::new(halves)))
    }
}

fn failure(status: StatusCode, retry_after: Option<u64>) -> Response<Body> {
    let text = Full::new(Bytes::from_static(b"{\"code\":\"InternalServerError\"}"));
    let mut response = Response::new(text.map_err(infallible).boxed());
    *response.status_mut() = status;
    if let Some(seconds) = retry_after {
        let seconds = HeaderValue::from(seconds);
        response.headers_mut().insert(header::RETRY_AFTER, seconds);
    }
    response
}

/// True for this percentage of calls.
fn unlucky(percent: u8) -> bool {
    let mut byte = [0];
    aws_lc_rs::rand::fill(&mut byte).unwrap();
    u16::from(byte[0]) * 100 < u16::from(percent) * 256
}
