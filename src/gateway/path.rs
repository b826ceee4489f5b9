//! Paths as upstreams may read them. Requests are forwarded byte for byte, and servers disagree
//! about what a path means: how often escapes are decoded, whether `;parameters` belong to a
//! segment, what a backslash is. So everything that a path decides, routes as well as rules, must
//! come out the same for every reading (`docs/rules.md`, "Paths").

mod decoding;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

/// The most readings of one path besides the raw one.
const MAX_READINGS: usize = 64;
/// The most bytes of all readings of one path together, which bounds the work for long paths.
const MAX_READING_BYTES: usize = 64 * 1024;

/// The path of a request target.
pub(super) fn without_query(target: &str) -> &str {
    let end = memchr::memchr(b'?', target.as_bytes());
    end.and_then(|end| target.get(..end)).unwrap_or(target)
}

/// Why a path is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ambiguity {
    /// Some servers end the path there, or the line.
    #[error("the path contains an encoded control character")]
    ControlCharacter,
    /// Some servers remove dot segments after decoding.
    #[error("the path has a dot segment once it is decoded")]
    DotSegment,
    /// A network-path reference (RFC 3986 §4.2) names a host.
    #[error("the path begins with two slashes once it is decoded")]
    NetworkPath,
    /// More readings than hawkgate compares.
    #[error("the path can be read in too many ways")]
    TooManyReadings,
    /// A reading belongs to another route.
    #[error("the path would match another route if it were decoded or normalized")]
    OtherRoute,
    /// A reading gets another decision of the rules.
    #[error("the rules would decide differently if the path were decoded or normalized")]
    OtherDecision,
}

/// Every reading of `path` other than `path` itself. Empty for ordinary paths, for which nothing is
/// allocated.
///
/// # Errors
/// If a reading is refused whatever the routes and rules are.
pub(super) fn readings(path: &str) -> Result<Vec<String>, Ambiguity> {
    let mut found: Vec<String> = Vec::new();
    if is_plain(path) {
        return Ok(found);
    }
    check(path)?;
    let mut bytes = 0;
    let mut next = Vec::new();
    expand(path, &mut next);
    let mut expanded = 0;
    loop {
        for reading in next.drain(..) {
            if reading == path || found.contains(&reading) {
                continue;
            }
            check(&reading)?;
            bytes += reading.len();
            if found.len() >= MAX_READINGS || bytes > MAX_READING_BYTES {
                return Err(Ambiguity::TooManyReadings);
            }
            found.push(reading);
        }
        let Some(reading) = found.get(expanded) else {
            return Ok(found);
        };
        expand(reading, &mut next);
        expanded += 1;
    }
}

/// Whether a segment is `.` or `..` (RFC 3986 §3.3).
pub(super) fn has_dot_segments(path: &str) -> bool {
    path.split('/').any(|segment| matches!(segment, "." | ".."))
}

/// `path` in lower case, as upstreams that ignore case compare it.
pub(super) fn lower_case(path: &str) -> Cow<'_, str> {
    let lower = |c: char| c.is_ascii() && !c.is_ascii_uppercase();
    if path.chars().all(lower) {
        Cow::Borrowed(path)
    } else {
        Cow::Owned(path.to_lowercase())
    }
}

/// Whether every server reads the path in the same way: none of `TRANSFORMATIONS` would change
/// it.
pub fn is_plain(path: &str) -> bool {
    let mut previous = b' ';
    for byte in path.as_bytes() {
        let plain = match byte {
            b'%' | b';' | b'\\' | b'+' | b' ' | b'#' | b'?' | 0..=0x1f | 0x7f.. => false,
            b'/' => !matches!(previous, b'/' | b'.'),
            b'$' => previous != b':',
            _ => true,
        };
        if !plain {
            return false;
        }
        previous = *byte;
    }
    previous != b'.'
}

fn check(reading: &str) -> Result<(), Ambiguity> {
    if reading.bytes().any(|b| b < b' ' || b == 0x7f) {
        Err(Ambiguity::ControlCharacter)
    } else if has_dot_segments(reading) {
        Err(Ambiguity::DotSegment)
    } else if reading.starts_with("//") {
        Err(Ambiguity::NetworkPath)
    } else {
        Ok(())
    }
}

/// What servers do to a path, each step by itself; `None` if it changes nothing. [`readings`]
/// applies them in every order and any number of times.
const TRANSFORMATIONS: [fn(&str) -> Option<String>; 9] = [
    merge_slashes,
    backslashes_to_slashes,
    remove_parameters,
    |path| cut_at(path, ';'),
    |path| cut_at(path, '?'),
    |path| cut_at(path, '#'),
    plus_to_space,
    trim_segments,
    decoding::fold,
];

/// Appends the results of each single transformation of `path`.
fn expand(path: &str, into: &mut Vec<String>) {
    decoding::percent_decode(path, into);
    into.extend(TRANSFORMATIONS.iter().filter_map(|change| change(path)));
}

/// nginx (`merge_slashes`), Go's `ServeMux`, Tomcat, WSGI servers.
fn merge_slashes(path: &str) -> Option<String> {
    path.contains("//").then(|| {
        let mut merged = String::with_capacity(path.len());
        for c in path.chars() {
            if c != '/' || !merged.ends_with('/') {
                merged.push(c);
            }
        }
        merged
    })
}

/// IIS, Tomcat with `ALLOW_BACKSLASH`, every server that maps paths to files on Windows.
fn backslashes_to_slashes(path: &str) -> Option<String> {
    path.contains('\\').then(|| path.replace('\\', "/"))
}

/// Servlet containers and Spring remove `;parameters` from each segment.
fn remove_parameters(path: &str) -> Option<String> {
    let name = |segment: &str| {
        segment
            .split_once(';')
            .map_or(segment.len(), |(n, _)| n.len())
    };
    path.contains(';').then(|| shorten_segments(path, name))
}

/// A server that decodes before it splits the target takes an encoded `?` or `#` for the end of the
/// path; old servlet containers end it at the first `;`.
fn cut_at(path: &str, delimiter: char) -> Option<String> {
    path.split_once(delimiter).map(|(kept, _)| kept.to_owned())
}

/// Form decoding applied to a path, as `URLDecoder` and `unquote_plus` do.
fn plus_to_space(path: &str) -> Option<String> {
    path.contains('+').then(|| path.replace('+', " "))
}

/// Windows ignores trailing dots and spaces of a name, and `name::$DATA` is `name`.
fn trim_segments(path: &str) -> Option<String> {
    let kept = |segment: &str| {
        let name = segment.find(":$").map_or(segment, |at| {
            segment.get(..at).unwrap_or_default().trim_end_matches(':')
        });
        // `.` and `..` are names of their own; see `Ambiguity::DotSegment`.
        let trimmed = name.trim_end_matches(['.', ' ']);
        if trimmed.is_empty() && matches!(name.trim_end_matches(' '), "." | "..") {
            name.trim_end_matches(' ').len()
        } else {
            trimmed.len()
        }
    };
    let trimmed = shorten_segments(path, kept);
    (trimmed.len() < path.len()).then_some(trimmed)
}

/// `path` with each segment cut to the length that `kept` returns.
fn shorten_segments(path: &str, kept: impl Fn(&str) -> usize) -> String {
    let mut shortened = String::with_capacity(path.len());
    for (index, segment) in path.split('/').enumerate() {
        if index > 0 {
            shortened.push('/');
        }
        shortened.push_str(segment.get(..kept(segment)).unwrap_or(segment));
    }
    shortened
}
