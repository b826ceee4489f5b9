//! What a request was sent with, to keep it out of the answer.

use crate::gateway::CredentialHeader;
use crate::peer_text::{is_echoed, shortest_echo};

/// The credentials that were sent with one request: one for each attempt.
#[derive(Debug, Default)]
pub(in crate::proxy) struct SentCredentials {
    last: Option<CredentialHeader>,
    /// Empty unless the request was sent more than once.
    earlier: Vec<CredentialHeader>,
}

impl SentCredentials {
    /// Records what is sent in the next attempt.
    pub(in crate::proxy) fn record(&mut self, credential: CredentialHeader) {
        self.earlier.extend(self.last.replace(credential));
    }

    /// Whether any were sent.
    pub(in crate::proxy) fn is_empty(&self) -> bool {
        self.last.is_none()
    }

    /// Whether `text`, which is part of an answer, contains a secret that was sent.
    pub(in crate::proxy) fn are_echoed_in(&self, text: &[u8]) -> bool {
        is_echoed(text, || self.secrets())
    }

    /// Returns the length of the shortest text for which [`Self::are_echoed_in`] can be true. Most
    /// names and values of a head are shorter.
    pub(in crate::proxy) fn shortest_echo(&self) -> usize {
        shortest_echo(self.secrets())
    }

    fn secrets(&self) -> impl Iterator<Item = &[u8]> {
        let sent = self.last.iter().chain(&self.earlier);
        sent.flat_map(CredentialHeader::secrets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_every_attempt_are_found() {
        let mut sent = SentCredentials::default();
        assert!(sent.is_empty() && !sent.are_echoed_in(b"anything"));
        let secrets = ["a-token-of-this-test", "another-token-of-this-test"];
        for secret in secrets {
            sent.record(CredentialHeader::for_test(secret, 0..secret.len()));
        }
        for secret in secrets {
            assert!(sent.are_echoed_in(format!("Bearer {secret}").as_bytes()));
        }
    }
}
