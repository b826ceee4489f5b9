//! HTTP/2 request heads that are malformed (RFC 9113 §8.1.1) or that hawkgate does not accept, as raw
//! frames: an ordinary client cannot send them.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Fixture;
use crate::known_differences::patiently;
use crate::support::client::connect;

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;

/// Fields as HPACK literals without indexing.
fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

fn frame(kind: u8, flags: u8, id: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(&id.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// Sends a request with this head and without content; returns the first frame that concerns it.
async fn outcome(fixture: &Fixture, fields: &[(&str, &str)]) -> io::Result<String> {
    let mut stream = connect(&fixture.gateway.running.listeners[1]).await?;
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &[]));
    bytes.extend(frame(HEADERS, 0b101, 1, &block(fields)));
    stream.write_all(&bytes).await?;
    loop {
        let mut head = [0; 9];
        if stream.read_exact(&mut head).await.is_err() {
            return Ok("closed".into());
        }
        let [a, b, c, kind, ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        stream.read_exact(&mut payload).await?;
        match kind {
            RST_STREAM => return Ok("reset".into()),
            GOAWAY => return Ok("goaway".into()),
            // The first field is the status; 8 and 12 are the indices of 200 and 400.
            HEADERS if payload.first() == Some(&0x88) => return Ok("200".into()),
            HEADERS => return Ok("refused".into()),
            _ => {}
        }
    }
}

#[tokio::test]
async fn malformed_http2_heads_are_not_forwarded() {
    const METHOD: (&str, &str) = (":method", "GET");
    const SCHEME: (&str, &str) = (":scheme", "http");
    const AUTHORITY: (&str, &str) = (":authority", "localhost");
    const PATH: (&str, &str) = (":path", "/x");
    let fixture = Fixture::start().await;
    let good = [METHOD, SCHEME, AUTHORITY, PATH];
    assert_eq!(outcome(&fixture, &good).await.unwrap(), "200");
    let with = |field: (&'static str, &'static str)| [&good[..], &[field]].concat();
    let cases: Vec<(&str, Vec<(&str, &str)>)> = vec![
        ("no method", vec![SCHEME, AUTHORITY, PATH]),
        ("no scheme", vec![METHOD, AUTHORITY, PATH]),
        ("no path", vec![METHOD, SCHEME, AUTHORITY]),
        ("no authority", vec![METHOD, SCHEME, PATH]),
        (
            "an empty path",
            vec![METHOD, SCHEME, AUTHORITY, (":path", "")],
        ),
        ("two methods", with(METHOD)),
        ("two paths", with((":path", "/y"))),
        ("an unknown pseudo-header", with((":new", "x"))),
        ("a status", with((":status", "200"))),
        (
            "a pseudo-header after a field",
            vec![METHOD, SCHEME, AUTHORITY, ("x-a", "b"), PATH],
        ),
        (
            "an authority with a user",
            vec![METHOD, SCHEME, (":authority", "u@localhost"), PATH],
        ),
        ("another host", with(("host", "other"))),
        ("a name in capitals", with(("X-A", "b"))),
        ("a name with a space", with(("x a", "b"))),
        ("a name with a colon", with(("x:a", "b"))),
        ("an empty name", with(("", "b"))),
        ("a line feed in a value", with(("x-a", "b\nc"))),
        ("a carriage return in a value", with(("x-a", "b\rc"))),
        ("a NUL in a value", with(("x-a", "b\0c"))),
        (
            "a request in a value",
            with(("x-a", "b\r\n\r\nGET /smuggled HTTP/1.1\r\n")),
        ),
        (
            "a line feed in the path",
            vec![METHOD, SCHEME, AUTHORITY, (":path", "/x\n")],
        ),
        (
            "a space in the path",
            vec![METHOD, SCHEME, AUTHORITY, (":path", "/x y")],
        ),
        (
            "a space in the method",
            vec![(":method", "GET /y"), SCHEME, AUTHORITY, PATH],
        ),
        ("connection", with(("connection", "close"))),
        ("keep-alive", with(("keep-alive", "timeout=5"))),
        ("proxy-connection", with(("proxy-connection", "close"))),
        ("transfer-encoding", with(("transfer-encoding", "chunked"))),
        ("upgrade", with(("upgrade", "websocket"))),
        ("te other than trailers", with(("te", "gzip"))),
        ("a length without content", with(("content-length", "5"))),
        ("CONNECT", vec![(":method", "CONNECT"), AUTHORITY]),
        (
            "extended CONNECT",
            vec![
                (":method", "CONNECT"),
                (":protocol", "websocket"),
                SCHEME,
                AUTHORITY,
                PATH,
            ],
        ),
    ];
    let mut accepted = Vec::new();
    for (case, fields) in cases {
        let seen = patiently(outcome(&fixture, &fields)).await;
        match seen {
            Ok(Ok(seen)) if seen != "200" => {}
            other => accepted.push(format!("{case}: {other:?}")),
        }
    }
    let forwarded = fixture.upstream.attempts().len() - 1;
    assert!(
        accepted.is_empty() && forwarded == 0,
        "{forwarded} forwarded, {accepted:#?}"
    );
}
