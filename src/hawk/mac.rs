//! The MAC of one request, and which characters its parts may contain.

use std::net::Ipv6Addr;

use aws_lc_rs::hmac;

use super::error::HawkError;

/// The input of the MAC: one line for each field, in this order (Hawk 1.0, "Request
/// Authentication").
#[derive(Clone, Copy)]
pub(super) struct MacInput<'a> {
    /// `hawk.1.header` or `hawk.1.bewit`, so that one kind of MAC cannot pass as the other.
    pub(super) kind: &'static str,
    /// Seconds since the epoch: the time of the request, or the expiry of a bewit.
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
        let mut text = MacBuffer::new(key);
        let mut number = itoa::Buffer::new();
        text.push_line(self.kind);
        text.push_line(number.format(self.seconds));
        text.push_line(self.nonce);
        text.push_mapped(self.method, u8::to_ascii_uppercase);
        text.push_line("");
        text.push_line(self.target);
        self.push_host(&mut text);
        text.push_line(number.format(self.port));
        text.push_line(self.hash);
        text.push_secret(self.ext);
        text.push_line("");
        text.sign()
    }

    /// The service takes the host from a parsed URL, in which an IPv6 literal keeps its
    /// brackets.
    fn push_host(&self, text: &mut MacBuffer<'_>) {
        let bare_v6 = self.host.contains(':') && !self.host.starts_with('[');
        if bare_v6 {
            text.push("[");
        }
        text.push_mapped(self.host, u8::to_ascii_lowercase);
        text.push_line(if bare_v6 { "]" } else { "" });
    }
}

/// Large enough for the parts of most requests.
const BUFFER_BYTES: usize = 512;

/// Buffers the input of a MAC: updating the HMAC separately with each of about twenty parts
/// would double the cost of the MAC.
struct MacBuffer<'k> {
    key: &'k hmac::Key,
    /// What was flushed; `None` while everything fits into `parts`.
    context: Option<Box<hmac::Context>>,
    parts: [u8; BUFFER_BYTES],
    filled: usize,
}

impl<'k> MacBuffer<'k> {
    fn new(key: &'k hmac::Key) -> Self {
        Self {
            key,
            context: None,
            parts: [0; BUFFER_BYTES],
            filled: 0,
        }
    }

    fn context(&mut self) -> &mut hmac::Context {
        let key = self.key;
        self.context
            .get_or_insert_with(|| Box::new(hmac::Context::with_key(key)))
    }

    fn push(&mut self, part: &str) {
        let part = part.as_bytes();
        if part.len() > BUFFER_BYTES - self.filled {
            self.flush();
        }
        match self.parts.get_mut(self.filled..self.filled + part.len()) {
            Some(room) => {
                room.copy_from_slice(part);
                self.filled += part.len();
            }
            None => self.context().update(part),
        }
    }

    fn push_line(&mut self, text: &str) {
        let end = self.filled + text.len();
        if let Some([line @ .., end]) = self.parts.get_mut(self.filled..=end) {
            line.copy_from_slice(text.as_bytes());
            *end = b'\n';
            self.filled += text.len() + 1;
        } else {
            self.push(text);
            self.push("\n");
        }
    }

    /// Adds `text` with each byte mapped. Takes the fast path if nothing changes, as for nearly
    /// every method and host.
    fn push_mapped(&mut self, text: &str, map: impl Fn(&u8) -> u8) {
        if text.bytes().all(|byte| map(&byte) == byte) {
            self.push(text);
        } else {
            self.flush();
            let context = self.context();
            text.bytes().for_each(|byte| context.update(&[map(&byte)]));
        }
    }

    /// Adds `part` without copying it into the buffer, which is not zeroized.
    fn push_secret(&mut self, part: &str) {
        if !part.is_empty() {
            self.flush();
            self.context().update(part.as_bytes());
        }
    }

    fn flush(&mut self) {
        let Self {
            key,
            context,
            parts,
            filled,
        } = self;
        let buffered = parts.get(..*filled).unwrap_or_default();
        let context = context.get_or_insert_with(|| Box::new(hmac::Context::with_key(key)));
        context.update(buffered);
        *filled = 0;
    }

    fn sign(&mut self) -> hmac::Tag {
        if self.context.is_some() {
            self.flush();
        }
        match self.context.take() {
            Some(context) => context.sign(),
            None => hmac::sign(self.key, self.parts.get(..self.filled).unwrap_or_default()),
        }
    }
}

/// Checks an attribute's value against what the reference implementation accepts between
/// quotes: one or more printable ASCII characters or spaces, except `"` and `\`.
pub(super) fn check_attribute(name: &'static str, value: &str) -> Result<(), HawkError> {
    let allowed = |byte: u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    check(name, value, allowed)
}

/// Checks the method, target and host. Anything that a Node server would not see byte for byte
/// as given here would yield a different MAC there, so it is rejected instead.
pub(super) fn check_request(method: &str, target: &str, host: &str) -> Result<(), HawkError> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if !all(method, token) {
        return Err(HawkError::Unsignable("method"));
    }
    // Origin form and visible ASCII only: the reference implementation rewrites a target
    // without a leading slash, and Node reads non-ASCII bytes as Latin-1.
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

/// Whether `value` is not empty and every byte is `allowed`.
fn all(value: &str, allowed: impl Fn(u8) -> bool) -> bool {
    // Not short-circuiting, so that the compiler can vectorize it.
    value.bytes().fold(true, |all, byte| all & allowed(byte)) && !value.is_empty()
}
