//! What an HTTP/1 upstream may send, and what a caller should receive (RFC 9110, RFC 9112).

use std::fmt;

/// The `Date` of answers that have one.
pub(super) const DATE: &str = "Tue, 01 Feb 2022 10:00:00 GMT";

/// What the upstream does after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// It waits for the next request.
    Keep,
    Close,
}

/// An answer of the upstream's.
pub(super) struct Answer {
    pub(super) name: &'static str,
    /// The method of requests without a body.
    pub(super) method: &'static str,
    pub(super) bytes: Vec<u8>,
    pub(super) then: Then,
    /// Whether there are bytes after its end.
    pub(super) is_followed: bool,
    pub(super) wanted: Wanted,
}

/// What the caller should receive.
#[derive(Clone, Debug)]
pub(super) enum Wanted {
    /// hawkgate's 502 `upstream_failed`.
    Refused,
    /// The 502, or, if the answer has already been passed on in part, a visibly truncated body.
    Broken,
    Passed(Passed),
}

/// The length of a body, as the caller learns of it beforehand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    Known(u64),
    /// Chunked in HTTP/1.1, up to the end of the connection in HTTP/1.0, and of the stream in
    /// HTTP/2.
    Unknown,
}

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(length) => write!(f, "length {length}"),
            Self::Unknown => f.write_str("no length"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Date {
    /// The upstream's.
    Kept,
    /// hawkgate's.
    Added,
    Missing,
    Repeated,
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kept => "kept",
            Self::Added => "replaced",
            Self::Missing => "missing",
            Self::Repeated => "kept twice",
        })
    }
}

/// An answer that is passed on.
#[derive(Clone, Debug)]
pub(super) struct Passed {
    pub(super) interim: Vec<super::callers::Interim>,
    pub(super) status: u16,
    /// HTTP/1 only; any if it is `None`.
    pub(super) reason: Option<&'static str>,
    pub(super) length: Length,
    pub(super) body: &'static str,
    pub(super) complete: bool,
    /// All other fields.
    pub(super) fields: Vec<(&'static str, &'static str)>,
    pub(super) date: Date,
}

impl Passed {
    /// Without a body of known length.
    pub(super) fn status(status: u16) -> Self {
        Self {
            interim: Vec::new(),
            status,
            reason: None,
            length: Length::Unknown,
            body: "",
            complete: true,
            fields: Vec::new(),
            date: Date::Added,
        }
    }

    /// `200 OK` with `Content-Length: 2` and the body `ok`.
    fn ok() -> Self {
        Self::status(200).reason("OK").length(2).body("ok")
    }

    /// `200 OK` with the body `ok` of unknown length.
    fn streamed() -> Self {
        Self::status(200).reason("OK").body("ok")
    }

    fn reason(mut self, reason: &'static str) -> Self {
        self.reason = Some(reason);
        self
    }

    pub(super) fn length(mut self, length: u64) -> Self {
        self.length = Length::Known(length);
        self
    }

    pub(super) fn body(mut self, body: &'static str) -> Self {
        self.body = body;
        self
    }

    pub(super) fn field(mut self, name: &'static str, value: &'static str) -> Self {
        self.fields.push((name, value));
        self
    }

    fn interim(mut self, status: u16, fields: &[(&str, &str)]) -> Self {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        self.interim
            .push((status, fields.iter().map(own).collect()));
        self
    }

    fn truncated(mut self) -> Self {
        self.complete = false;
        self
    }

    fn date(mut self, date: Date) -> Self {
        self.date = date;
        self
    }
}

impl From<Passed> for Wanted {
    fn from(passed: Passed) -> Self {
        Self::Passed(passed)
    }
}

/// An answer to requests of every shape, after which the upstream closes the connection.
fn answer(name: &'static str, bytes: impl Into<Vec<u8>>, wanted: impl Into<Wanted>) -> Answer {
    Answer {
        name,
        method: "GET",
        bytes: bytes.into(),
        then: Then::Close,
        is_followed: false,
        wanted: wanted.into(),
    }
}

impl Answer {
    /// The upstream keeps the connection.
    fn kept(mut self) -> Self {
        self.then = Then::Keep;
        self
    }

    /// The upstream keeps the connection, and has sent more than the answer.
    fn followed(mut self) -> Self {
        self.is_followed = true;
        self.kept()
    }

    /// To a HEAD request.
    fn for_head(mut self) -> Self {
        self.method = "HEAD";
        self
    }
}

/// `200 OK` with these fields, and the rest of the answer.
fn ok(fields: &str, rest: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n{rest}")
}

/// A whole answer, to be seen where it must not be.
const LEAK: &str = "HTTP/1.1 299 Leak\r\nContent-Length: 4\r\n\r\nleak";

/// Two bytes in a chunk.
const CHUNKED_OK: &str = "2\r\nok\r\n0\r\n\r\n";

pub(super) fn answers() -> Vec<Answer> {
    let mut all = lengths();
    all.extend(transfer_codings());
    all.extend(chunks());
    all.extend(ends());
    all.extend(without_content());
    all.extend(to_head());
    all.extend(interim());
    all.extend(status_lines());
    all.extend(field_lines());
    all.extend(dates());
    all.extend(hop_by_hop());
    all.extend(not_passed_on());
    all
}

/// `Content-Length` (RFC 9112 §6.3).
fn lengths() -> Vec<Answer> {
    let length = |value: &str| ok(&format!("Content-Length: {value}"), "ok");
    let twice = |one: &str, other: &str| {
        ok(
            &format!("Content-Length: {one}\r\nContent-Length: {other}"),
            "ok",
        )
    };
    vec![
        answer("length", length("2"), Passed::ok()).kept(),
        answer(
            "length-0",
            ok("Content-Length: 0", ""),
            Passed::status(200).length(0),
        )
        .kept(),
        answer("length-with-zeros", length("002"), Passed::ok()).kept(),
        answer("length-list", length("2, 2"), Passed::ok()).kept(),
        answer("length-twice", twice("2", "2"), Passed::ok()).kept(),
        answer("length-list-that-differs", length("2, 3"), Wanted::Refused),
        answer("lengths-that-differ", twice("2", "3"), Wanted::Refused),
        answer("length-list-with-a-gap", length("2,"), Wanted::Refused),
        answer("length-plus", length("+2"), Wanted::Refused),
        answer("length-minus", length("-2"), Wanted::Refused),
        answer("length-hex", length("0x2"), Wanted::Refused),
        answer("length-with-a-space", length("1 2"), Wanted::Refused),
        answer("length-word", length("two"), Wanted::Refused),
        answer("length-empty", length(""), Wanted::Refused),
        answer(
            "length-huge",
            length("99999999999999999999"),
            Wanted::Refused,
        ),
    ]
}

/// `Transfer-Encoding`: `chunked` and nothing else, and only in HTTP/1.1 (RFC 9112 §6.1). hawkgate
/// sends no `TE`, so no other coding is acceptable.
fn transfer_codings() -> Vec<Answer> {
    let coded = |value: &str| ok(&format!("Transfer-Encoding: {value}"), CHUNKED_OK);
    let refused = |name, value: &str| answer(name, coded(value), Wanted::Refused);
    vec![
        answer("chunked", coded("chunked"), Passed::streamed()).kept(),
        answer("chunked-in-capitals", coded("CHUNKED"), Passed::streamed()).kept(),
        answer(
            "chunked-with-length",
            ok(
                "Content-Length: 3\r\nTransfer-Encoding: chunked",
                CHUNKED_OK,
            ),
            Passed::streamed(),
        )
        .kept(),
        answer(
            "length-with-chunked",
            ok(
                "Transfer-Encoding: chunked\r\nContent-Length: 3",
                CHUNKED_OK,
            ),
            Passed::streamed(),
        )
        .kept(),
        refused("te-gzip", "gzip"),
        refused("te-gzip-chunked", "gzip, chunked"),
        refused("te-chunked-identity", "chunked, identity"),
        refused("te-identity", "identity"),
        refused("te-xchunked", "xchunked"),
        refused("te-empty", ""),
        refused("te-vertical-tab", "\x0bchunked"),
        refused("te-parameter", "chunked;q=1"),
        refused("te-list-twice", "chunked, chunked"),
        answer(
            "te-twice",
            ok(
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
                CHUNKED_OK,
            ),
            Wanted::Refused,
        ),
        answer(
            "te-twice-with-identity",
            ok(
                "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
                CHUNKED_OK,
            ),
            Wanted::Refused,
        ),
        answer(
            "te-in-1.0",
            format!("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{CHUNKED_OK}"),
            Wanted::Refused,
        ),
    ]
}

/// Chunked bodies (RFC 9112 §7.1).
fn chunks() -> Vec<Answer> {
    let chunked = |body: &str| ok("Transfer-Encoding: chunked", body);
    let broken = |name, body: &str| answer(name, chunked(body), Wanted::Broken).kept();
    vec![
        answer("chunked-empty", chunked("0\r\n\r\n"), Passed::status(200)).kept(),
        answer(
            "chunk-extension",
            chunked("2;a=b;c\r\nok\r\n0;d\r\n\r\n"),
            Passed::streamed(),
        )
        .kept(),
        answer(
            "chunks",
            chunked("1\r\no\r\n0001\r\nk\r\n0\r\n\r\n"),
            Passed::streamed(),
        )
        .kept(),
        answer(
            "trailers",
            chunked("2\r\nok\r\n0\r\nX-T: 1\r\nContent-Length: 5\r\nAuthorization: x\r\n\r\n"),
            Passed::streamed(),
        )
        .kept(),
        broken("chunk-size-word", "zz\r\nok\r\n0\r\n\r\n"),
        broken("chunk-size-empty", "\r\nok\r\n0\r\n\r\n"),
        broken("chunk-size-plus", "+2\r\nok\r\n0\r\n\r\n"),
        broken("chunk-size-minus", "-2\r\nok\r\n0\r\n\r\n"),
        broken("chunk-size-hex", "0x2\r\nok\r\n0\r\n\r\n"),
        broken("chunk-size-huge", "ffffffffffffffffff\r\nok\r\n0\r\n\r\n"),
        broken("chunk-size-space", "2 2\r\nok\r\n0\r\n\r\n"),
        broken("chunk-too-long", "2\r\nokay\r\n0\r\n\r\n"),
        broken("chunk-line-feed", "2\nok\n0\n\n"),
        broken("second-chunk-size-word", "2\r\nok\r\nzz\r\n"),
    ]
}

/// Where a body ends, and where it should have.
fn ends() -> Vec<Answer> {
    let chunked = |body: &str| ok("Transfer-Encoding: chunked", body);
    vec![
        answer(
            "close",
            ok("X-A: b", "ok"),
            Passed::streamed().field("x-a", "b"),
        ),
        answer(
            "close-empty",
            ok("X-A: b", ""),
            Passed::status(200).field("x-a", "b"),
        ),
        answer("close-1.0", "HTTP/1.0 200 OK\r\n\r\nok", Passed::streamed()),
        answer(
            "length-1.0",
            "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
            Passed::ok(),
        ),
        answer(
            "keep-alive-1.0",
            "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
            Passed::ok(),
        )
        .kept(),
        answer(
            "length-truncated",
            ok("Content-Length: 10", "ok"),
            Passed::ok().length(10).truncated().body("ok"),
        ),
        answer(
            "length-without-body",
            ok("Content-Length: 10", ""),
            Passed::status(200).length(10).truncated(),
        ),
        answer(
            "chunk-truncated",
            chunked("5\r\nok"),
            Passed::streamed().truncated(),
        ),
        answer(
            "no-last-chunk",
            chunked("2\r\nok\r\n"),
            Passed::streamed().truncated(),
        ),
        answer("no-chunk", chunked(""), Wanted::Broken),
        answer(
            "last-chunk-truncated",
            chunked("2\r\nok\r\n0\r\n"),
            Passed::streamed().truncated(),
        ),
        answer(
            "followed-by-an-answer",
            ok("Content-Length: 2", &format!("ok{LEAK}")),
            Passed::ok(),
        )
        .followed(),
        answer(
            "followed-by-a-byte",
            ok("Content-Length: 2", "ok\n"),
            Passed::ok(),
        )
        .followed(),
        answer(
            "chunked-followed-by-an-answer",
            chunked(&format!("{CHUNKED_OK}{LEAK}")),
            Passed::streamed(),
        )
        .followed(),
    ]
}

/// Answers without content, whatever their fields say (RFC 9112 §6.3). `Content-Length` and
/// `Transfer-Encoding` must not be in a 204 (RFC 9110 §8.6, RFC 9112 §6.1).
fn without_content() -> Vec<Answer> {
    let no_content = |fields: &str, rest: &str| {
        format!("HTTP/1.1 204 No Content\r\n{fields}X-A: b\r\n\r\n{rest}")
    };
    let not_modified = |fields: &str, rest: &str| {
        format!("HTTP/1.1 304 Not Modified\r\n{fields}X-A: b\r\n\r\n{rest}")
    };
    let reset =
        |fields: &str, rest: &str| format!("HTTP/1.1 205 Reset Content\r\n{fields}\r\n\r\n{rest}");
    let passed_204 = || Passed::status(204).field("x-a", "b");
    let passed_304 = || Passed::status(304).field("x-a", "b");
    vec![
        answer("204", no_content("", ""), passed_204()).kept(),
        answer(
            "204-length-0",
            no_content("Content-Length: 0\r\n", ""),
            passed_204(),
        )
        .kept(),
        answer(
            "204-length",
            no_content("Content-Length: 5\r\n", ""),
            passed_204(),
        )
        .kept(),
        answer(
            "204-body",
            no_content("Content-Length: 55\r\n", LEAK),
            passed_204(),
        )
        .followed(),
        answer(
            "204-chunked",
            no_content("Transfer-Encoding: chunked\r\n", CHUNKED_OK),
            passed_204(),
        )
        .followed(),
        answer("304", not_modified("", ""), passed_304()).kept(),
        answer(
            "304-length",
            not_modified("Content-Length: 5\r\n", ""),
            passed_304().length(5),
        )
        .kept(),
        answer(
            "304-body",
            not_modified("Content-Length: 49\r\n", LEAK),
            passed_304().length(49),
        )
        .followed(),
        answer(
            "304-chunked",
            not_modified("Transfer-Encoding: chunked\r\n", ""),
            passed_304(),
        )
        .kept(),
        answer(
            "205-length-0",
            reset("Content-Length: 0", ""),
            Passed::status(205).length(0),
        )
        .kept(),
        answer(
            "205-body",
            reset("Content-Length: 2", "ok"),
            Passed::status(205).length(2).body("ok"),
        )
        .kept(),
        answer(
            "205-chunked",
            reset("Transfer-Encoding: chunked", "0\r\n\r\n"),
            Passed::status(205),
        )
        .kept(),
    ]
}

/// Answers to HEAD, whose framing fields describe the answer to a GET (RFC 9110 §9.3.2).
fn to_head() -> Vec<Answer> {
    vec![
        answer(
            "head-length",
            ok("Content-Length: 5", ""),
            Passed::status(200).length(5),
        )
        .kept(),
        answer(
            "head-chunked",
            ok("Transfer-Encoding: chunked", ""),
            Passed::status(200),
        )
        .kept(),
        answer(
            "head-without-framing",
            ok("X-A: b", ""),
            Passed::status(200).field("x-a", "b"),
        )
        .kept(),
        answer(
            "head-length-list",
            ok("Content-Length: 5, 5", ""),
            Passed::status(200).length(5),
        )
        .kept(),
        answer(
            "head-body",
            ok("Content-Length: 49", LEAK),
            Passed::status(200).length(49),
        )
        .followed(),
    ]
    .into_iter()
    .map(Answer::for_head)
    .collect()
}

/// 1xx answers are passed on to callers that can receive them (RFC 9110 §15.2), without framing
/// fields (RFC 9110 §8.6, RFC 9112 §6.1).
fn interim() -> Vec<Answer> {
    let before = |interim: &str| format!("{interim}\r\n\r\n{}", ok("Content-Length: 2", "ok"));
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a>";
    let passed = || Passed::ok().interim(103, &[("link", "</a>")]);
    vec![
        answer("103", before(hints), passed()).kept(),
        answer(
            "102",
            before("HTTP/1.1 102 Processing"),
            Passed::ok().interim(102, &[]),
        )
        .kept(),
        answer(
            "102-length",
            before("HTTP/1.1 102 Processing\r\nContent-Length: 5"),
            Passed::ok().interim(102, &[]),
        )
        .kept(),
        answer(
            "103-length",
            before(&format!("{hints}\r\nContent-Length: 0")),
            passed(),
        )
        .kept(),
        answer(
            "103-chunked",
            before(&format!("{hints}\r\nTransfer-Encoding: chunked")),
            passed(),
        )
        .kept(),
        answer(
            "103-hop-by-hop",
            before(&format!(
                "{hints}\r\nConnection: x-b\r\nX-B: c\r\nKeep-Alive: timeout=5"
            )),
            passed(),
        )
        .kept(),
        answer(
            "103-twice",
            format!("{hints}\r\n\r\n{}", before(hints)),
            passed().interim(103, &[("link", "</a>")]),
        )
        .kept(),
        answer(
            "103-and-the-end",
            format!("{hints}\r\n\r\n"),
            Wanted::Refused,
        ),
        answer(
            "101-unasked",
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nwild",
            Wanted::Refused,
        ),
        answer(
            "101-unasked-without-fields",
            "HTTP/1.1 101 Switching Protocols\r\n\r\n",
            Wanted::Refused,
        )
        .kept(),
    ]
}

/// Status lines (RFC 9112 §4).
fn status_lines() -> Vec<Answer> {
    let line = |line: &str| format!("{line}\r\nContent-Length: 2\r\n\r\nok");
    let refused = |name, text: &str| answer(name, line(text), Wanted::Refused);
    vec![
        answer(
            "reason",
            line("HTTP/1.1 200 Fine, thanks"),
            Passed::ok().reason("Fine, thanks"),
        )
        .kept(),
        answer(
            "reason-empty",
            line("HTTP/1.1 200 "),
            Passed {
                reason: None,
                ..Passed::ok()
            },
        )
        .kept(),
        answer(
            "reason-left-out",
            line("HTTP/1.1 200"),
            Passed {
                reason: None,
                ..Passed::ok()
            },
        )
        .kept(),
        answer(
            "code-without-name",
            line("HTTP/1.1 299 Odd"),
            Passed {
                status: 299,
                ..Passed::ok().reason("Odd")
            },
        )
        .kept(),
        refused("code-99", "HTTP/1.1 99 Low"),
        refused("code-099", "HTTP/1.1 099 Low"),
        refused("code-000", "HTTP/1.1 000 Low"),
        refused("code-1000", "HTTP/1.1 1000 High"),
        refused("code-word", "HTTP/1.1 two OK"),
        refused("code-left-out", "HTTP/1.1 "),
        refused("version-2", "HTTP/2.0 200 OK"),
        refused("version-0.9", "HTTP/0.9 200 OK"),
        refused("version-in-lower-case", "http/1.1 200 OK"),
        refused("icy", "ICY 200 OK"),
        answer("no-head", "hello", Wanted::Refused),
        answer("nothing", "", Wanted::Refused),
        answer(
            "head-truncated",
            "HTTP/1.1 200 OK\r\nContent-Le",
            Wanted::Refused,
        ),
    ]
}

/// Field lines (RFC 9112 §5, RFC 9110 §5.5).
fn field_lines() -> Vec<Answer> {
    let with = |lines: &str| ok(&format!("{lines}\r\nContent-Length: 2"), "ok");
    let refused = |name, lines: &str| answer(name, with(lines), Wanted::Refused);
    let many = |count: usize| {
        (0..count)
            .map(|n| format!("X-{n}: 1\r\n"))
            .collect::<String>()
    };
    vec![
        refused("folded", "X-A: b\r\n c"),
        refused("folded-first", " X-A: b"),
        refused("space-before-colon", "X-A : b"),
        refused("nul", "X-A: b\0c"),
        refused("carriage-return", "X-A: b\rc"),
        refused("delete", "X-A: b\x7fc"),
        refused("space-in-name", "X A: b"),
        refused("name-empty", ": b"),
        refused("no-colon", "X-A"),
        answer("name-not-ascii", with("X-\u{e4}: b"), Wanted::Refused),
        answer(
            "value-not-ascii",
            with("X-A: \u{e4}"),
            Passed::ok().field("x-a", "\u{e4}"),
        )
        .kept(),
        answer("value-empty", with("X-A:"), Passed::ok().field("x-a", "")).kept(),
        answer(
            "value-with-tabs",
            with("X-A:\t b\tc \t"),
            Passed::ok().field("x-a", "b\tc"),
        )
        .kept(),
        answer(
            "names-of-tokens",
            with("X_A.b~!#: b"),
            Passed::ok().field("x_a.b~!#", "b"),
        )
        .kept(),
        answer(
            "cookies",
            with("Set-Cookie: a=b\r\nX-A: b\r\nSet-Cookie: c=d"),
            Passed::ok()
                .field("set-cookie", "a=b")
                .field("set-cookie", "c=d")
                .field("x-a", "b"),
        )
        .kept(),
        answer(
            "head-too-large",
            with(&format!("X-A: {}", "a".repeat(2 << 20))),
            Wanted::Refused,
        ),
        answer(
            "too-many-fields",
            with(many(1000).trim_end()),
            Wanted::Refused,
        ),
    ]
}

/// `Date` is the origin's; a recipient adds one that is missing (RFC 9110 §6.6.1).
fn dates() -> Vec<Answer> {
    let dated = |count: usize| {
        let dates = format!("Date: {DATE}\r\n").repeat(count);
        ok(&format!("{dates}Content-Length: 2"), "ok")
    };
    vec![
        answer("date", dated(1), Passed::ok().date(Date::Kept)).kept(),
        answer("date-twice", dated(2), Passed::ok().date(Date::Repeated)).kept(),
        answer("no-date", dated(0), Passed::ok().date(Date::Added)).kept(),
    ]
}

/// Fields for this connection only (RFC 9110 §7.6.1).
fn hop_by_hop() -> Vec<Answer> {
    let with = |lines: &str| ok(&format!("{lines}\r\nX-A: b\r\nContent-Length: 2"), "ok");
    let passed = || Passed::ok().field("x-a", "b");
    vec![
        answer("connection-close", with("Connection: close"), passed()),
        answer("connection-close-kept", with("Connection: close"), passed()).kept(),
        answer("connection-twice", with("Connection: keep-alive\r\nConnection: close"), passed()).kept(),
        answer("connection-names", with("Connection: x-b, X-C\r\nX-B: 1\r\nX-C: 1"), passed()).kept(),
        answer(
            "connection-names-twice",
            with("Connection: x-b\r\nConnection: ,, x-c\r\nX-B: 1\r\nX-B: 2\r\nX-C: 1"),
            passed(),
        )
        .kept(),
        answer("connection-names-length", with("Connection: content-length"), passed()).kept(),
        answer(
            "hop-by-hop",
            with("Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nTE: trailers\r\nUpgrade: h2c\r\nProxy-Authenticate: Basic"),
            passed(),
        )
        .kept(),
        answer("hop-by-hop-twice", with("Keep-Alive: timeout=5\r\nKeep-Alive: max=3"), passed()).kept(),
    ]
}

/// Fields that hawkgate removes: those of credentials, and its own.
fn not_passed_on() -> Vec<Answer> {
    let fields = "Authorization: x\r\nServer-Authorization: Hawk mac=\"x\"\r\nAlt-Svc: h3=\":443\"\r\n\
         X-Hawkgate-Error: bad_request\r\nX-A: b\r\nContent-Length: 2";
    vec![
        answer(
            "own-fields",
            ok(fields, "ok"),
            Passed::ok().field("x-a", "b"),
        )
        .kept(),
    ]
}
