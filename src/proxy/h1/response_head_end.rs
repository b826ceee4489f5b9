//! Finds the end of a response head while it is still arriving. Parsing the head after each read
//! would cost time that grows with the square of its length, if the upstream sends it in small
//! pieces.

use super::head::MAX_HEAD;

/// Decides when a response head is parsed: with its first bytes, once it has doubled, so that what
/// is not HTTP is noticed early, and once its end has arrived.
#[derive(Debug, Default)]
pub(super) struct ResponseHeadEnd {
    /// The number of bytes that were parsed.
    parsed: usize,
    /// The number of bytes that were searched for the end.
    searched: usize,
    /// Whether a line has begun. The empty lines that may precede the first one do not end a head.
    begun: bool,
}

impl ResponseHeadEnd {
    /// Whether the head has to be parsed now. `received` contains all bytes from its beginning.
    pub(super) fn must_parse(&mut self, received: &[u8]) -> bool {
        let due = self.parsed == 0
            || received.len() / 2 >= self.parsed
            || received.len() >= MAX_HEAD
            || self.has_arrived(received);
        if due {
            self.parsed = received.len();
        }
        due
    }

    /// Whether `received` contains an empty line. Searches each byte once.
    fn has_arrived(&mut self, received: &[u8]) -> bool {
        let mut rest = received.get(self.searched..).unwrap_or_default();
        if !self.begun {
            let line = rest.iter().position(|byte| !matches!(byte, b'\r' | b'\n'));
            self.begun = line.is_some();
            rest = rest.get(line.unwrap_or(rest.len())..).unwrap_or_default();
        }
        // The parser accepts lines that end with a bare LF.
        while let Some(found) = memchr::memchr(b'\n', rest) {
            let line = rest.get(found..).unwrap_or_default();
            match line {
                [_, b'\n', ..] | [_, b'\r', b'\n', ..] => {
                    self.searched = received.len() - line.len();
                    return true;
                }
                [_] | [_, b'\r'] => {
                    self.searched = received.len() - line.len();
                    return false;
                }
                _ => rest = line.get(1..).unwrap_or_default(),
            }
        }
        self.searched = received.len();
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::h1::head::parse_response;
    use bytes::BytesMut;
    use http::Method;

    /// Receives `head` byte by byte. Returns after how many bytes it was complete or refused, and
    /// how often it was parsed.
    fn receive(head: &[u8]) -> (usize, usize) {
        let (mut end, mut times) = (ResponseHeadEnd::default(), 0);
        for length in 1..=head.len() {
            if end.must_parse(&head[..length]) {
                times += 1;
                let mut received = BytesMut::from(&head[..length]);
                match parse_response(&mut received, &Method::GET, false) {
                    Ok(None) => {}
                    Ok(Some(_)) | Err(_) => return (length, times),
                }
            }
        }
        panic!("incomplete after {} bytes", head.len());
    }

    #[test]
    fn a_head_is_complete_with_its_last_byte() {
        for head in [
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\r\n\r\n",
            "HTTP/1.1 200 OK\nA: b\n\n",
            "HTTP/1.1 200 OK\r\nA: b\n\r\n",
            "HTTP/1.1 200 OK\nA: b\r\n\n",
            "HTTP/1.1 204\r\nA:\r\nB: c\r\n\r\n",
            "\r\n\n\r\nHTTP/1.1 200 OK\r\nA: b\r\n\r\n",
            "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n",
        ] {
            let (length, _) = receive(format!("{head}HTTP/1.1 200 OK\r\n\r\n").as_bytes());
            assert_eq!(length, head.len(), "{head:?}");
        }
    }

    #[test]
    fn a_head_that_arrives_byte_by_byte_is_parsed_a_few_times() {
        let fields = "A: b\r\n".repeat(200);
        let long = format!("B: {}\r\n", "c".repeat(100_000));
        let lines = "\r\n".repeat(60_000);
        for (before, after) in [("", &*fields), ("", &long), (&lines, &fields)] {
            let head = format!("{before}HTTP/1.1 200 OK\r\n{after}\r\n");
            let (length, times) = receive(head.as_bytes());
            assert_eq!(length, head.len());
            assert!(times <= 20, "{times}");
        }
    }

    #[test]
    fn what_cannot_become_a_head_is_noticed_early() {
        for garbage in [
            "\x16\x03\x01",
            "SSH-2.0-x\r\n",
            "HTTP/1.1 200 OK\r\nA b: c\r\n",
        ] {
            let (length, _) = receive(&garbage.repeat(2).into_bytes());
            assert!(length <= 2 * garbage.len(), "{garbage}");
        }
        let endless = "A: b\r\n".repeat(MAX_HEAD);
        let (length, _) = receive(format!("HTTP/1.1 200 OK\r\n{endless}").as_bytes());
        assert!(length <= MAX_HEAD);
    }
}
