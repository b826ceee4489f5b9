//! Finds the end of an HTTP/1 head while it is still arriving, and rejects bytes early that
//! cannot become a valid head.

use super::{HeadLimits, bad_request};
use crate::gateway::reason::Reason;
use crate::gateway::rejection::Rejection;

/// Maximum length of a request line without its target: method, two spaces and version.
const MAX_REQUEST_LINE_OVERHEAD: usize = super::MAX_METHOD + " HTTP/1.1".len() + 1;

/// How much of a head has arrived.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::proxy) enum HeadStatus {
    /// The head is complete. It may be preceded by one empty line (RFC 9112 §2.2).
    Complete {
        /// Offset of the request line: 0 or 2.
        start: usize,
        /// Offset after the empty line that ends the head.
        end: usize,
    },
    /// More bytes are needed.
    Partial,
}

/// An incremental search that examines each byte once.
#[derive(Debug, Default)]
pub(in crate::proxy) struct HeadEndFinder {
    start: usize,
    /// Everything before this offset has been searched.
    searched: usize,
    /// The offset of the current line.
    line: usize,
    /// The number of lines read, not counting an empty line before the request line.
    lines: usize,
}

impl HeadEndFinder {
    /// Searches the bytes that have arrived since the last call. `bytes` contains all bytes from
    /// the beginning.
    ///
    /// # Errors
    /// Returns a rejection if no continuation could make `bytes` a valid head.
    pub(in crate::proxy) fn advance(
        &mut self,
        bytes: &[u8],
        limits: &HeadLimits,
    ) -> Result<HeadStatus, Rejection> {
        while let Some(found) = bytes
            .get(self.searched..)
            .and_then(|rest| memchr::memchr(b'\n', rest))
        {
            let newline = self.searched + found;
            self.searched = newline + 1;
            let line = bytes.get(self.line..newline).unwrap_or_default();
            let Some(line) = line.strip_suffix(b"\r") else {
                return Err(bad_request("bare LF in the head"));
            };
            self.line = newline + 1;
            match (line.is_empty(), self.lines) {
                (true, 0) if self.start == 0 => self.start = newline + 1,
                (true, 0) => return Err(bad_request("empty lines before the request line")),
                (true, _) => return self.complete(limits),
                (false, lines) => self.lines = lines + 1,
            }
            self.check_line(line.len(), limits)?;
        }
        self.searched = bytes.len();
        if self.lines == 0 {
            let line = bytes.get(self.line..).unwrap_or_default();
            // A CR may be a part of the line's end.
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            self.check_line(line.len(), limits)?;
        }
        if bytes.len() - self.start > limits.header_bytes {
            return Err(Reason::HeaderTooLarge.into());
        }
        Ok(HeadStatus::Partial)
    }

    fn complete(&self, limits: &HeadLimits) -> Result<HeadStatus, Rejection> {
        if self.line - self.start > limits.header_bytes {
            return Err(Reason::HeaderTooLarge.into());
        }
        Ok(HeadStatus::Complete {
            start: self.start,
            end: self.line,
        })
    }

    /// Rejects a request line that is too long before its end has arrived.
    fn check_line(&self, length: usize, limits: &HeadLimits) -> Result<(), Rejection> {
        if self.lines <= 1 && length > limits.url_bytes + MAX_REQUEST_LINE_OVERHEAD {
            return Err(Reason::UrlTooLong.into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits {
        header_bytes: 200,
        url_bytes: 50,
    };

    /// Searches both at once and byte by byte, asserting equal results.
    fn find(bytes: &[u8]) -> Result<HeadStatus, Reason> {
        let at_once = HeadEndFinder::default()
            .advance(bytes, &LIMITS)
            .map_err(|r| r.reason);
        let mut finder = HeadEndFinder::default();
        let mut last = Ok(HeadStatus::Partial);
        for end in 1..=bytes.len() {
            last = finder.advance(&bytes[..end], &LIMITS).map_err(|r| r.reason);
            if last != Ok(HeadStatus::Partial) {
                break;
            }
        }
        assert_eq!(at_once, last);
        last
    }

    #[test]
    fn finds_the_end_of_a_head() {
        let head = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
        let end = head.len();
        assert_eq!(find(head), Ok(HeadStatus::Complete { start: 0, end }));
        let mut padded = b"\r\n".to_vec();
        padded.extend_from_slice(head);
        assert_eq!(
            find(&padded),
            Ok(HeadStatus::Complete {
                start: 2,
                end: end + 2
            })
        );
        assert_eq!(find(&head[..end - 1]), Ok(HeadStatus::Partial));
    }

    #[test]
    fn rejects_bytes_that_cannot_become_a_head() {
        let long_line = [b'a'; 50 + MAX_REQUEST_LINE_OVERHEAD + 1];
        let many = [
            b"GET / HTTP/1.1\r\n".as_slice(),
            b"a: b\r\n".repeat(40).as_slice(),
        ]
        .concat();
        for (bytes, reason) in [
            (b"GET / HTTP/1.1\n".as_slice(), Reason::BadRequest),
            (b"\n", Reason::BadRequest),
            (b"\r\n\r\n", Reason::BadRequest),
            (b"GET / HTTP/1.1\r\nA: b\n", Reason::BadRequest),
            (long_line.as_slice(), Reason::UrlTooLong),
            (many.as_slice(), Reason::HeaderTooLarge),
        ] {
            assert_eq!(find(bytes), Err(reason), "{bytes:?}");
        }
    }

    /// Found by fuzzing: the CR counted as a part of the line until the LF had arrived.
    #[test]
    fn a_request_line_of_exactly_the_limit_passes_however_it_arrives() {
        let mut head = vec![b'a'; LIMITS.url_bytes + MAX_REQUEST_LINE_OVERHEAD];
        head.extend_from_slice(b"\r\n\r\n");
        let end = head.len();
        assert_eq!(find(&head), Ok(HeadStatus::Complete { start: 0, end }));
        head.insert(0, b'a');
        assert_eq!(find(&head), Err(Reason::UrlTooLong));
    }

    #[test]
    fn a_head_of_exactly_the_limit_passes() {
        let mut head = b"GET / HTTP/1.1\r\nHost: x\r\na: ".to_vec();
        head.resize(LIMITS.header_bytes - 4, b'b');
        head.extend_from_slice(b"\r\n\r\n");
        assert_eq!(find(&head), Ok(HeadStatus::Complete { start: 0, end: 200 }));
        head.insert(20, b'x');
        assert_eq!(
            HeadEndFinder::default()
                .advance(&head, &LIMITS)
                .map_err(|r| r.reason),
            Err(Reason::HeaderTooLarge)
        );
    }
}
