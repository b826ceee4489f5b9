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
    /// HMAC-SHA256 under `key`, fed piece by piece: nothing is concatenated.
    pub(super) fn mac(&self, key: &hmac::Key) -> hmac::Tag {
        let mut context = hmac::Context::with_key(key);
        let mut number = itoa::Buffer::new();
        line(&mut context, self.kind);
        line(&mut context, number.format(self.seconds));
        line(&mut context, self.nonce);
        mapped(&mut context, self.method, u8::to_ascii_uppercase);
        context.update(b"\n");
        line(&mut context, self.target);
        self.host_line(&mut context);
        line(&mut context, number.format(self.port));
        line(&mut context, self.hash);
        line(&mut context, self.ext);
        context.sign()
    }

    /// The service takes the name from a parsed URL, where an IPv6 literal keeps its
    /// brackets.
    fn host_line(&self, context: &mut hmac::Context) {
        let bare_v6 = self.host.contains(':') && !self.host.starts_with('[');
        if bare_v6 {
            context.update(b"[");
        }
        mapped(context, self.host, u8::to_ascii_lowercase);
        context.update(if bare_v6 { b"]\n" } else { b"\n" });
    }
}

fn line(context: &mut hmac::Context, text: &str) {
    context.update(text.as_bytes());
    context.update(b"\n");
}

/// Feeds `text` with each byte mapped; at once when the mapping changes nothing, which is
/// how methods and hosts nearly always come.
fn mapped(context: &mut hmac::Context, text: &str, map: impl Fn(&u8) -> u8) {
    if text.bytes().all(|byte| map(&byte) == byte) {
        context.update(text.as_bytes());
    } else {
        text.bytes().for_each(|byte| context.update(&[map(&byte)]));
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
    !value.is_empty() && value.bytes().all(allowed)
}
