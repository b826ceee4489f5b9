//! Finds the end of an HTTP/1 head while it is still arriving, and what cannot become one.

use super::{HeadLimits, bad};
use crate::gateway::reason::Reason;
use crate::gateway::rejection::Rejection;

/// What the longest method, both spaces and the version take beside the target.
const BESIDE_TARGET: usize = super::MAX_METHOD + " HTTP/1.1".len() + 1;

/// How far a head has come.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Progress {
    /// It ends before this offset, and begins at the other: an empty line may precede it
    /// (RFC 9112 §2.2).
    Complete {
        /// Where the request line begins: 0 or 2.
        start: usize,
        /// One past the empty line.
        end: usize,
    },
    /// More is needed.
    Partial,
}

/// An incremental search: each byte is looked at once.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Scan {
    start: usize,
    /// Everything before was searched.
    searched: usize,
    /// Where the line being read began.
    line: usize,
    /// Lines read, the empty one in front not counted.
    lines: usize,
}

impl Scan {
    /// Looks at what came since the last call; `bytes` is everything from the beginning.
    ///
    /// # Errors
    /// When no continuation can make it an acceptable head.
    pub(in crate::proxy) fn advance(
        &mut self,
        bytes: &[u8],
        limits: &HeadLimits,
    ) -> Result<Progress, Rejection> {
        while let Some(found) = bytes
            .get(self.searched..)
            .and_then(|rest| memchr::memchr(b'\n', rest))
        {
            let newline = self.searched + found;
            self.searched = newline + 1;
            let line = bytes.get(self.line..newline).unwrap_or_default();
            let Some(line) = line.strip_suffix(b"\r") else {
                return Err(bad("bare LF in the head"));
            };
            self.line = newline + 1;
            match (line.is_empty(), self.lines) {
                (true, 0) if self.start == 0 => self.start = newline + 1,
                (true, 0) => return Err(bad("empty lines before the request line")),
                (true, _) => return self.complete(limits),
                (false, lines) => self.lines = lines + 1,
            }
            self.check_line(line.len(), limits)?;
        }
        self.searched = bytes.len();
        if self.lines == 0 {
            self.check_line(bytes.len() - self.line, limits)?;
        }
        if bytes.len() - self.start > limits.header_bytes {
            return Err(Reason::HeaderTooLarge.into());
        }
        Ok(Progress::Partial)
    }

    fn complete(&self, limits: &HeadLimits) -> Result<Progress, Rejection> {
        if self.line - self.start > limits.header_bytes {
            return Err(Reason::HeaderTooLarge.into());
        }
        Ok(Progress::Complete {
            start: self.start,
            end: self.line,
        })
    }

    /// Refuses a request line that is too long before its end has come.
    fn check_line(&self, length: usize, limits: &HeadLimits) -> Result<(), Rejection> {
        if self.lines <= 1 && length > limits.url_bytes + BESIDE_TARGET {
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

    /// Byte by byte and at once must agree.
    fn scan(bytes: &[u8]) -> Result<Progress, Reason> {
        let at_once = Scan::default()
            .advance(bytes, &LIMITS)
            .map_err(|r| r.reason);
        let mut scan = Scan::default();
        let mut last = Ok(Progress::Partial);
        for end in 1..=bytes.len() {
            last = scan.advance(&bytes[..end], &LIMITS).map_err(|r| r.reason);
            if last != Ok(Progress::Partial) {
                break;
            }
        }
        assert_eq!(at_once, last);
        last
    }

    #[test]
    fn finds_the_end() {
        let head = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
        let end = head.len();
        assert_eq!(scan(head), Ok(Progress::Complete { start: 0, end }));
        let mut padded = b"\r\n".to_vec();
        padded.extend_from_slice(head);
        assert_eq!(
            scan(&padded),
            Ok(Progress::Complete {
                start: 2,
                end: end + 2
            })
        );
        assert_eq!(scan(&head[..end - 1]), Ok(Progress::Partial));
    }

    #[test]
    fn refuses_what_cannot_become_a_head() {
        let long_line = [b'a'; 50 + BESIDE_TARGET + 1];
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
            assert_eq!(scan(bytes), Err(reason), "{bytes:?}");
        }
    }

    #[test]
    fn a_head_of_exactly_the_limit_passes() {
        let mut head = b"GET / HTTP/1.1\r\nHost: x\r\na: ".to_vec();
        head.resize(LIMITS.header_bytes - 4, b'b');
        head.extend_from_slice(b"\r\n\r\n");
        assert_eq!(scan(&head), Ok(Progress::Complete { start: 0, end: 200 }));
        head.insert(20, b'x');
        assert_eq!(
            Scan::default()
                .advance(&head, &LIMITS)
                .map_err(|r| r.reason),
            Err(Reason::HeaderTooLarge)
        );
    }
}
