//! Reads the beginning of the body of a 401 before anything of the response is forwarded. What was
//! read stays in the connection's buffer, so the body is forwarded byte for byte.

use pingora::{ErrorSource, Result};

use super::Caller;
use super::attempt::{READ_CAPACITY, UpstreamConn};
use super::response::{ResponseBody, ResponseHead};
use crate::gateway::{LOOK_TIMEOUT, ScopesVerdict, UnauthorizedBody};

/// Maximum number of framed bytes read ahead.
const MAX_READ_AHEAD: usize = 32 * 1024;

impl UpstreamConn {
    /// Whether the body says that the client does not hold the `authorizedScopes`. Takes at most
    /// [`LOOK_TIMEOUT`]. Fails if the caller disconnects.
    pub(super) async fn is_scopes_refusal(
        &mut self,
        caller: &mut Caller<'_>,
        head: &ResponseHead,
        body: &ResponseBody,
    ) -> Result<bool> {
        let Some(look) = UnauthorizedBody::new(&head.fields) else {
            return Ok(false);
        };
        let looking = self.look(caller, look, body);
        match tokio::time::timeout(LOOK_TIMEOUT, looking).await {
            Ok(Err(error)) if *error.esource() == ErrorSource::Downstream => Err(error),
            // A body that is broken or late says nothing.
            Ok(Err(_)) | Err(_) => Ok(false),
            Ok(Ok(verdict)) => Ok(verdict == ScopesVerdict::Refused),
        }
    }

    async fn look(
        &mut self,
        caller: &mut Caller<'_>,
        mut look: UnauthorizedBody,
        body: &ResponseBody,
    ) -> Result<ScopesVerdict> {
        let mut seen = 0;
        loop {
            let (content, complete) = body.preview(&self.received);
            let verdict = look.add(content.get(seen..).unwrap_or_default());
            seen = content.len();
            if verdict != ScopesVerdict::Undecided
                || complete
                || self.received.len() >= MAX_READ_AHEAD
                || self.read(caller, READ_CAPACITY).await? == 0
            {
                return Ok(verdict);
            }
        }
    }
}
