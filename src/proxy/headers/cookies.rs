//! Keeps the cookies of sessions between browsers and hawkgate: no upstream sees one, and none can
//! set one.

use http::header::{CACHE_CONTROL, COOKIE, HeaderValue, SET_COOKIE};

use super::{HeaderFieldsMut, Result, value};
use crate::header_fields::{all, only};
use crate::session::{SetCookie, is_own_cookie};

/// Leaves one `Cookie` field at most, without the cookies of sessions. HTTP/2 may split cookies into
/// several field lines, but HTTP/1.1 servers expect one (RFC 9113 §8.2.3).
pub(super) fn forward_cookies(head: &mut impl HeaderFieldsMut) -> Result<()> {
    match only(head, &COOKIE) {
        Ok(None) => return Ok(()),
        Ok(Some(field)) if !pairs(field).any(is_own_pair) => return Ok(()),
        Ok(Some(_)) | Err(_) => {}
    }
    let mut joined = Vec::new();
    let kept = all(head, &COOKIE)
        .flat_map(pairs)
        .filter(|pair| !pair.is_empty() && !is_own_pair(pair));
    for pair in kept {
        if !joined.is_empty() {
            joined.extend_from_slice(b"; ");
        }
        joined.extend_from_slice(pair);
    }
    if joined.is_empty() {
        return head.retain(|name, _| name != COOKIE.as_str());
    }
    let joined = value(joined)?;
    head.insert(COOKIE, joined)
}

/// The pairs of a `Cookie` field (RFC 6265 §4.2.1), without surrounding white space.
fn pairs(field: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(field);
    std::iter::from_fn(move || {
        let field = rest?;
        // Cookies are long, and `memchr` is fast.
        let (pair, after) = match memchr::memchr(b';', field) {
            Some(at) => (field.get(..at)?, field.get(at + 1..)),
            None => (field, None),
        };
        rest = after;
        Some(pair.trim_ascii())
    })
}

/// Whether a pair is the cookie of a session. A pair without `=` may be read as a name or as a value.
fn is_own_pair(pair: &[u8]) -> bool {
    let end = memchr::memchr(b'=', pair).unwrap_or(pair.len());
    is_own_cookie(pair.get(..end).unwrap_or_default().trim_ascii())
}

/// Removes the fields of an upstream's response that set a cookie of a session. Browsers ignore white
/// space around its name, and read a cookie without a name as one named by its value's beginning.
pub(super) fn remove_own_set_cookies(head: &mut impl HeaderFieldsMut) -> Result<()> {
    if head.first(&SET_COOKIE).is_none() {
        return Ok(());
    }
    head.retain(|name, value| name != SET_COOKIE.as_str() || !sets_own_cookie(value))
}

fn sets_own_cookie(value: &[u8]) -> bool {
    let pair = value.split(|byte| *byte == b';').next().unwrap_or_default();
    let mut parts = pair.splitn(2, |byte| *byte == b'=').map(<[u8]>::trim_ascii);
    let name = parts.next().unwrap_or_default();
    let nameless = name.is_empty() && parts.next().is_some_and(is_own_pair);
    is_own_cookie(name) || nameless
}

/// Adds `cookies` to the response to a request with a session. A shared cache must not store it: what
/// RFC 9111 §3.5 says of requests with `Authorization` applies to those with the cookie, and an answer
/// that sets the cookie is for this browser alone.
pub(super) fn add_session_cookies(
    head: &mut impl HeaderFieldsMut,
    cookies: &[SetCookie],
) -> Result<()> {
    for cookie in cookies {
        let mut cookie = value(cookie.as_str())?;
        cookie.set_sensitive(true);
        head.append(SET_COOKIE, cookie)?;
    }
    if is_stored_privately(head) {
        return Ok(());
    }
    let private = HeaderValue::from_static("private");
    if !cookies.is_empty() || head.first(&CACHE_CONTROL).is_none() {
        head.insert(CACHE_CONTROL, private)
    } else if is_stored_publicly(head) {
        Ok(())
    } else {
        head.append(CACHE_CONTROL, private)
    }
}

/// Whether `Cache-Control` keeps shared caches from storing the response.
fn is_stored_privately(head: &impl HeaderFieldsMut) -> bool {
    // `private="field"` and `no-cache="field"` concern a field only.
    directives(head).any(|directive| {
        [&b"private"[..], b"no-store"]
            .iter()
            .any(|own| directive.eq_ignore_ascii_case(own))
    })
}

/// Whether `Cache-Control` allows shared caches to store a response to a request with
/// `Authorization` (RFC 9111 §3.5).
fn is_stored_publicly(head: &impl HeaderFieldsMut) -> bool {
    directives(head).any(|directive| {
        let name = directive.split(|b| *b == b'=').next().unwrap_or_default();
        [&b"public"[..], b"s-maxage", b"must-revalidate"]
            .iter()
            .any(|own| name.trim_ascii().eq_ignore_ascii_case(own))
    })
}

fn directives<H: HeaderFieldsMut>(head: &H) -> impl Iterator<Item = &[u8]> + use<'_, H> {
    all(head, &CACHE_CONTROL)
        .flat_map(|value| value.split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::head::FieldList;
    use crate::session::SetCookie;
    use http::HeaderName;

    fn list(name: &str, values: &[&str]) -> FieldList {
        let fields = values.iter().map(|v| (name.as_bytes(), v.as_bytes()));
        FieldList::of(fields, 0)
    }

    fn values(list: &FieldList, name: &HeaderName) -> Vec<String> {
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        all(list, name).map(text).collect()
    }

    #[test]
    fn the_cookies_of_sessions_are_not_forwarded() {
        for (sent, forwarded) in [
            (&["a=1"][..], &["a=1"][..]),
            (&["a=1;b=2"], &["a=1;b=2"]),
            (&["__Host-hawkgate-web=x"], &[]),
            (&["a=1; __Host-hawkgate-web=x; b=2"], &["a=1; b=2"]),
            (&["__Host-hawkgate-web=x;a=1"], &["a=1"]),
            (&["a=1;__Host-hawkgate-web-signin-abcdefgh=x"], &["a=1"]),
            (&["a=1; hawkgate-web=x"], &["a=1"]),
            (&["a=1; __Host-hawkgate-other=x;;"], &["a=1"]),
            (&["\t__Host-hawkgate-web = x ; a=1"], &["a=1"]),
            (&["a=1; __Host-hawkgate-web"], &["a=1"]),
            // As HTTP/2 may split them.
            (&["a=1", "__Host-hawkgate-web=x", "b=2"], &["a=1; b=2"]),
            (&["__Host-hawkgate-web=x", "__Host-hawkgate-web=y"], &[]),
            (&["a=1", "b=2"], &["a=1; b=2"]),
            (&["note=__Host-hawkgate-web"], &["note=__Host-hawkgate-web"]),
            (&[""], &[""]),
        ] {
            let mut head = list("Cookie", sent);
            forward_cookies(&mut head).unwrap();
            assert_eq!(values(&head, &COOKIE), forwarded, "{sent:?}");
        }
    }

    #[test]
    fn upstreams_set_no_cookies_of_sessions() {
        for own in [
            "__Host-hawkgate-web=x; Path=/",
            "__Host-hawkgate-web=; Max-Age=0",
            " __Host-hawkgate-web =x",
            "__Host-hawkgate-web",
            "=__Host-hawkgate-web=x",
            "hawkgate-web=x",
            "__Host-hawkgate-web-signin-abcdefgh=x",
        ] {
            let mut head = list("Set-Cookie", &["a=1", own, "b=__Host-hawkgate-web"]);
            remove_own_set_cookies(&mut head).unwrap();
            let expected = ["a=1", "b=__Host-hawkgate-web"];
            assert_eq!(values(&head, &SET_COOKIE), expected, "{own}");
        }
    }

    #[test]
    fn shared_caches_do_not_store_what_a_session_gets() {
        let cookie = SetCookie("__Host-hawkgate-web=x".into());
        for (sent, without, with) in [
            (&[][..], &["private"][..], &["private"][..]),
            (&["max-age=60"], &["max-age=60", "private"], &["private"]),
            (&["no-cache"], &["no-cache", "private"], &["private"]),
            (
                &["private, max-age=60"],
                &["private, max-age=60"],
                &["private, max-age=60"],
            ),
            (&["No-Store"], &["No-Store"], &["No-Store"]),
            // What the upstream wants to be shared is, unless it comes with a cookie.
            (
                &["public, max-age=60"],
                &["public, max-age=60"],
                &["private"],
            ),
            (
                &["max-age=60", "s-maxage = 5"],
                &["max-age=60", "s-maxage = 5"],
                &["private"],
            ),
            (&["must-revalidate"], &["must-revalidate"], &["private"]),
            // Concerns one field only.
            (
                &["private=\"x\""],
                &["private=\"x\"", "private"],
                &["private"],
            ),
        ] {
            for (cookies, expected) in [(&[][..], without), (std::slice::from_ref(&cookie), with)] {
                let mut head = list("Cache-Control", sent);
                head.push(b"Set-Cookie", b"theirs=1");
                add_session_cookies(&mut head, cookies).unwrap();
                assert_eq!(values(&head, &CACHE_CONTROL), expected, "{sent:?}");
                let set = values(&head, &SET_COOKIE);
                assert_eq!(set.len(), 1 + cookies.len(), "{set:?}");
            }
        }
    }
}
