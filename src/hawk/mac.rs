//! The MAC over one request, and what its parts may consist of.

use std::net::Ipv6Addr;

use aws_lc_rs::hmac;

use super::header::HawkError;

/// What the MAC is computed over, one line each, in this order (taskcluster.md §4).
#[derive(Clone, Copy)]
pub(super) struct MacInput<'a> {
    /// `hawk.1.header` or `hawk.1.bewit`: keeps one kind of MAC from passing as another.
    pub(super) kind: &'static str,
    /// Seconds since the epoch: when, or until when.
    pub(super) seconds: i64,
    pub(super) nonce: &'a str,
    pub(super) method: &'a str,
    pub(super) target: &'a str,
    pub(super) host: &'a str,
    pub(super) port: u16,
    pub(super) hash: &'a str,
    pub(super) ext: &'a str,
}

impl MacInput<'_> {
    /// HMAC-SHA256 under `key`.
    pub(super) fn mac(&self, key: &hmac::Key) -> hmac::Tag {
        let mut text = Gathered::under(key);
        let mut number = itoa::Buffer::new();
        text.line(self.kind);
        text.line(number.format(self.seconds));
        text.line(self.nonce);
        text.mapped(self.method, u8::to_ascii_uppercase);
        text.line("");
        text.line(self.target);
        self.host_line(&mut text);
        text.line(number.format(self.port));
        text.line(self.hash);
        text.secret(self.ext);
        text.line("");
        text.sign()
    }

    /// The service takes the name from a parsed URL, where an IPv6 literal keeps its
    /// brackets.
    fn host_line(&self, text: &mut Gathered) {
        let bare_v6 = self.host.contains(':') && !self.host.starts_with('[');
        if bare_v6 {
            text.part("[");
        }
        text.mapped(self.host, u8::to_ascii_lowercase);
        text.line(if bare_v6 { "]" } else { "" });
    }
}

/// What most requests' parts fit into.
const GATHERED: usize = 512;

/// Text under a MAC. Its parts are gathered first: handing over each of twenty would cost as
/// much again as the MAC.
struct Gathered {
    context: hmac::Context,
    parts: [u8; GATHERED],
    filled: usize,
}

impl Gathered {
    fn under(key: &hmac::Key) -> Self {
        Self {
            context: hmac::Context::with_key(key),
            parts: [0; GATHERED],
            filled: 0,
        }
    }

    fn part(&mut self, part: &str) {
        let part = part.as_bytes();
        if part.len() > GATHERED - self.filled {
            self.hand_over();
        }
        match self.parts.get_mut(self.filled..self.filled + part.len()) {
            Some(room) => {
                room.copy_from_slice(part);
                self.filled += part.len();
            }
            None => self.context.update(part),
        }
    }

    fn line(&mut self, text: &str) {
        self.part(text);
        self.part("\n");
    }

    /// Feeds `text` with each byte mapped; at once when the mapping changes nothing, which is
    /// how methods and hosts nearly always come.
    fn mapped(&mut self, text: &str, map: impl Fn(&u8) -> u8) {
        if text.bytes().all(|byte| map(&byte) == byte) {
            self.part(text);
        } else {
            self.hand_over();
            text.bytes()
                .for_each(|byte| self.context.update(&[map(&byte)]));
        }
    }

    /// Without a copy that nobody would wipe.
    fn secret(&mut self, part: &str) {
        if !part.is_empty() {
            self.hand_over();
            self.context.update(part.as_bytes());
        }
    }

    fn hand_over(&mut self) {
        let gathered = self.parts.get(..self.filled).unwrap_or_default();
        self.context.update(gathered);
        self.filled = 0;
    }

    fn sign(mut self) -> hmac::Tag {
        self.hand_over();
        self.context.sign()
    }
}

/// An attribute's value: what the reference implementation reads between quotes, which is
/// printable ASCII and space without `"` and `\`, at least one character.
pub(super) fn check_attribute(name: &'static str, value: &str) -> Result<(), HawkError> {
    let allowed = |byte: u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    check(name, value, allowed)
}

/// Method, target and host. Anything that a Node server would not see byte for byte as
/// given here would be a wrong MAC there: refused instead.
pub(super) fn check_request(method: &str, target: &str, host: &str) -> Result<(), HawkError> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if !all(method, token) {
        return Err(HawkError::Unsignable("method"));
    }
    // Origin form, visible ASCII only: the reference implementation parses and rewrites a
    // target without a leading slash, and Node reads bytes above ASCII as Latin-1.
    if !target.starts_with('/') || !all(target, |byte| byte.is_ascii_graphic()) {
        return Err(HawkError::Unsignable("target"));
    }
    check_host(host)
}

fn check_host(host: &str) -> Result<(), HawkError> {
    if host.contains(':') {
        let bare = host
            .strip_prefix('[')
            .and_then(|inner| inner.strip_suffix(']'))
            .unwrap_or(host);
        let literal: Result<Ipv6Addr, _> = bare.parse();
        return literal
            .map(|_| ())
            .map_err(|_| HawkError::Unrepresentable("host"));
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    check("host", host, allowed)
}

fn check(name: &'static str, value: &str, allowed: impl Fn(u8) -> bool) -> Result<(), HawkError> {
    if all(value, allowed) {
        Ok(())
    } else {
        Err(HawkError::Unrepresentable(name))
    }
}

/// At least one byte, and every one `allowed`.
fn all(value: &str, allowed: impl Fn(u8) -> bool) -> bool {
    // Without an early end, which a compiler makes many at once of.
    value.bytes().fold(true, |all, byte| all & allowed(byte)) && !value.is_empty()
}
