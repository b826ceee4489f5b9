//! Requests as httparse reads them, with the framing rules of RFC 9112 §6.3.

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, TRANSFER_ENCODING};
use http::{HeaderValue, Method, Version};
use httparse::Status::Complete;

/// More trailer lines than hawkgate accepts bytes for.
const MAX_TRAILERS: usize = 4096;

/// The head of a request.
#[derive(Debug)]
pub struct Head {
    pub method: Method,
    pub target: String,
    pub version: Version,
    pub fields: HeaderMap,
}

impl Head {
    /// Whether the target is in absolute-form.
    fn has_scheme(&self) -> bool {
        !self.target.starts_with(['/', '*'])
    }

    /// Whether another request may follow on the connection (RFC 9112 §9.3).
    pub fn is_persistent(&self) -> bool {
        let values = self.fields.get_all(CONNECTION).iter();
        let mut options = values.flat_map(|value| value.as_bytes().split(|b| *b == b','));
        let close = options.any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"));
        self.version == Version::HTTP_11 && !close
    }
}

/// Parses a complete head that hawkgate has accepted.
pub fn head(bytes: &[u8]) -> Head {
    let mut fields = [httparse::EMPTY_HEADER; 128];
    let mut parsed = httparse::Request::new(&mut fields);
    assert_eq!(parsed.parse(bytes), Ok(Complete(bytes.len())));
    let name = |name: &str| HeaderName::from_bytes(name.as_bytes()).expect("a token");
    let value = |value: &[u8]| HeaderValue::from_bytes(value).expect("no control character");
    Head {
        method: parsed.method.unwrap_or_default().parse().expect("a token"),
        target: parsed.path.unwrap_or_default().to_owned(),
        version: match parsed.version {
            Some(1) => Version::HTTP_11,
            _ => Version::HTTP_10,
        },
        fields: parsed
            .headers
            .iter()
            .map(|f| (name(f.name), value(f.value)))
            .collect(),
    }
}

/// The content of a request at the beginning of `data`, and what follows it; `None` if it is
/// incomplete or ambiguous.
pub fn content<'d>(head: &Head, data: &'d [u8]) -> Option<(Vec<u8>, &'d [u8])> {
    let values = |name| head.fields.get_all(name).iter().collect::<Vec<_>>();
    match (&values(TRANSFER_ENCODING)[..], &values(CONTENT_LENGTH)[..]) {
        ([], []) => Some((Vec::new(), data)),
        ([], [length]) => {
            let length = length.to_str().ok()?.parse().ok()?;
            let (content, rest) = data.split_at_checked(length)?;
            Some((content.to_vec(), rest))
        }
        ([coding], []) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => {
            let (content, trailers) = chunks(data)?;
            Some((content, &trailers[end_of_trailers(trailers)?..]))
        }
        _ => None,
    }
}

/// The content of the chunks, and what follows the last one: the trailer section.
fn chunks(mut data: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut content = Vec::new();
    loop {
        let Ok(Complete((start, length))) = httparse::parse_chunk_size(data) else {
            return None;
        };
        if length == 0 {
            return Some((content, &data[start..]));
        }
        let (chunk, rest) = data[start..].split_at_checked(usize::try_from(length).ok()?)?;
        content.extend_from_slice(chunk);
        data = rest.strip_prefix(b"\r\n")?;
    }
}

/// The length of a trailer section.
fn end_of_trailers(data: &[u8]) -> Option<usize> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_TRAILERS];
    match httparse::parse_headers(data, &mut fields) {
        Ok(Complete((length, _))) => Some(length),
        _ => None,
    }
}

/// Path and query of a target, or `*` (RFC 9112 §3.2).
pub fn origin_form(head: &Head) -> String {
    let Some((_, rest)) = head.target.split_once("://").filter(|_| head.has_scheme()) else {
        return head.target.clone();
    };
    match rest.find(['/', '?']).map(|at| rest.split_at(at).1) {
        None if head.method == Method::OPTIONS => "*".to_owned(),
        None => "/".to_owned(),
        Some(query) if query.starts_with('?') => format!("/{query}"),
        Some(path) => path.to_owned(),
    }
}

/// The authority of a target in absolute-form, or else `Host`, which HTTP/1.0 does not require.
pub fn host(head: &Head) -> String {
    match head.target.split_once("://").filter(|_| head.has_scheme()) {
        Some((_, rest)) => rest.split(['/', '?']).next().unwrap_or_default().to_owned(),
        None => head.fields.get(HOST).map_or_else(String::new, |host| {
            String::from_utf8_lossy(host.as_bytes()).into_owned()
        }),
    }
}
