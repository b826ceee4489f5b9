//! What browsers say about a request: whether it is a navigation, and which page caused it (Fetch
//! Metadata, <https://www.w3.org/TR/fetch-metadata/>).

use http::{HeaderName, Method, header};

use crate::gateway::Head;
use crate::header_fields::{all, only};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// Whether the browser would show the answer as a page, so that a redirect leads its user to the
/// sign-in. Without `Sec-Fetch-Mode`, a GET that asks for HTML by name counts as one.
pub(super) fn navigates(head: Head<'_>) -> bool {
    match only(head.headers, &SEC_FETCH_MODE) {
        Ok(Some(mode)) => {
            let document = only(head.headers, &SEC_FETCH_DEST);
            mode == b"navigate" && matches!(document, Ok(None | Some(b"document")))
        }
        Ok(None) => matches!(*head.method, Method::GET | Method::HEAD) && accepts_html(head),
        Err(_) => false,
    }
}

/// Whether a script sent the request, which cannot follow a redirect to another origin.
pub(super) fn is_from_script(head: Head<'_>) -> bool {
    let mode = head.headers.first(&SEC_FETCH_MODE);
    mode.is_some_and(|mode| mode != b"navigate")
}

fn accepts_html(head: Head<'_>) -> bool {
    all(head.headers, &header::ACCEPT)
        .flat_map(|value| value.split(|byte| *byte == b','))
        .any(|range| {
            let mut parts = range.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
            let html = parts
                .next()
                .is_some_and(|media| media.eq_ignore_ascii_case(b"text/html"));
            // RFC 9110 §12.5.1: a weight of 0 means "not acceptable".
            let refused = |part: &[u8]| {
                let weight = part.strip_prefix(b"q=").or(part.strip_prefix(b"Q="));
                weight.is_some_and(|weight| weight.iter().all(|b| matches!(b, b'0' | b'.')))
            };
            html && !parts.any(refused)
        })
}

/// Whether requests with this method may change something (RFC 9110 §9.2.1).
pub(super) fn is_unsafe(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// Why a request that is authenticated by a cookie is refused as one of another site's page; `None`
/// if it is not. `is_own` tells whether an origin is the site's own, and `allows` whether pages of
/// another one may send requests with the cookie.
pub(super) fn cross_site(
    head: Head<'_>,
    is_own: impl Fn(&[u8]) -> bool,
    allows: impl Fn(&[u8]) -> bool,
) -> Option<&'static str> {
    let (Ok(site), Ok(sender)) = (
        only(head.headers, &SEC_FETCH_SITE),
        only(head.headers, &header::ORIGIN),
    ) else {
        return Some("Origin or Sec-Fetch-Site is repeated");
    };
    if sender.is_some_and(|sender| !is_own(sender) && allows(sender)) {
        return None;
    }
    if is_unsafe(head.method) || head.headers.first(&header::UPGRADE).is_some() {
        return initiated_elsewhere(site, sender, is_own);
    }
    let foreign = !matches!(site, None | Some(b"same-origin" | b"same-site" | b"none"));
    let navigates = head.headers.first(&SEC_FETCH_MODE) == Some(b"navigate");
    (foreign && !navigates).then_some("Sec-Fetch-Site is cross-site, and this is no navigation")
}

/// Why a request is not one of this origin's own pages; `None` if it is. At least one of the two
/// fields has to say so, and neither may say otherwise. `Origin: null` says nothing: forms of pages
/// with the referrer policy `no-referrer` send it (Fetch standard, "append a request `Origin`
/// header").
pub(super) fn initiated_elsewhere(
    site: Option<&[u8]>,
    sender: Option<&[u8]>,
    is_own: impl Fn(&[u8]) -> bool,
) -> Option<&'static str> {
    match (site, sender) {
        (None, None) => Some("neither Origin nor Sec-Fetch-Site was sent"),
        (Some(site), _) if site != b"same-origin" => Some("Sec-Fetch-Site is not same-origin"),
        (Some(_), Some(b"null")) => None,
        (_, Some(sender)) if !is_own(sender) => Some("Origin is not this site's"),
        _ => None,
    }
}

/// Whether the request shows that a page of another origin caused it.
pub(super) fn is_foreign(head: Head<'_>, is_own: impl Fn(&[u8]) -> bool) -> bool {
    match (
        only(head.headers, &SEC_FETCH_SITE),
        only(head.headers, &header::ORIGIN),
    ) {
        (Ok(None), Ok(None)) => false,
        (Ok(site), Ok(sender)) => initiated_elsewhere(site, sender, is_own).is_some(),
        _ => true,
    }
}
