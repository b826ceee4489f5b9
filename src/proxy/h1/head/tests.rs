use super::*;
use crate::proxy::validate::{HeadLimits, check_raw};

fn request(text: &str) -> RequestHead {
    let head = Bytes::copy_from_slice(text.as_bytes());
    let limits = HeadLimits {
        header_bytes: 32 * 1024,
        url_bytes: 8 * 1024,
    };
    let framing = check_raw(&head, &limits).unwrap();
    parse_request(&head, framing).unwrap()
}

fn encoded(head: &RequestHead, target: &str) -> String {
    let mut wire = BytesMut::new();
    encode_request(head, target, &mut wire);
    String::from_utf8(wire.to_vec()).unwrap()
}

fn response_to(method: &Method, text: &str) -> Result<Option<Response>, InvalidResponse> {
    parse_response(&mut BytesMut::from(text), method, false)
}

fn framed(method: &Method, text: &str) -> Result<(BodySize, bool, String), InvalidResponse> {
    let response = response_to(method, text)?.unwrap();
    let mut wire = BytesMut::new();
    response.head.fields.encode(&mut wire);
    let fields = String::from_utf8(wire.to_vec()).unwrap();
    Ok((response.head.body, response.persistent, fields))
}

#[test]
fn request_fields_keep_spelling_order_and_bytes() {
    let head = request(
        "GET /a%2Fb?c HTTP/1.1\r\nhOsT: x\r\nX-Two:1\r\nConnection: Keep-Alive\r\nx-TWO: \t2 \r\nX-Odd: \u{e9}\t.\r\nX-Empty:\r\n\r\n",
    );
    assert_eq!(head.target(), "/a%2Fb?c");
    assert_eq!(head.version, Version::HTTP_11);
    assert_eq!(head.body, BodySize::Empty);
    assert_eq!(
        encoded(&head, "/other"),
        "GET /other HTTP/1.1\r\nhOsT: x\r\nX-Two: 1\r\nConnection: Keep-Alive\r\nx-TWO: 2\r\nX-Odd: \u{e9}\t.\r\nX-Empty: \r\n\r\n"
    );
}

#[test]
fn the_authority_of_an_absolute_target_takes_the_place_of_host() {
    for (line, target, host) in [
        ("GET http://b:8/x?y HTTP/1.1", "/x?y", "b:8"),
        ("GET HTTPS://b HTTP/1.1", "/", "b"),
        ("OPTIONS http://b HTTP/1.0", "*", "b"),
        ("GET /x HTTP/1.0", "/x", "a"),
    ] {
        let head = request(&format!("{line}\r\nHost: a\r\n\r\n"));
        assert_eq!((head.target(), head.host()), (target, Some(host)), "{line}");
    }
    let head = request("GET / HTTP/1.0\r\n\r\n");
    assert_eq!((head.version, head.host()), (Version::HTTP_10, Some("")));
}

#[test]
fn requests_are_framed_by_their_body() {
    for (method, fields, size, expected) in [
        ("GET", "", BodySize::Empty, ""),
        ("DELETE", "", BodySize::Empty, ""),
        ("POST", "", BodySize::Empty, "Content-Length: 0\r\n"),
        ("PUT", "", BodySize::Empty, "Content-Length: 0\r\n"),
        ("PATCH", "", BodySize::Empty, "Content-Length: 0\r\n"),
        (
            "GET",
            "content-length: 0\r\n",
            BodySize::Known(0),
            "content-length: 0\r\n",
        ),
        (
            "POST",
            "Content-Length: 07\r\n",
            BodySize::Known(7),
            "Content-Length: 7\r\n",
        ),
        (
            "POST",
            "Transfer-Encoding: Chunked\r\n",
            BodySize::Unknown,
            "Transfer-Encoding: chunked\r\n",
        ),
    ] {
        let head = request(&format!("{method} / HTTP/1.1\r\nHost: x\r\n{fields}\r\n"));
        assert_eq!(head.body, size, "{method} {fields}");
        assert!(!head.fields.contains(&header::TRANSFER_ENCODING));
        assert_eq!(
            encoded(&head, "/"),
            format!("{method} / HTTP/1.1\r\nHost: x\r\n{expected}\r\n")
        );
    }
}

#[test]
fn the_framing_follows_the_body_whatever_the_fields_say() {
    let mut fields = FieldList::with_capacity(3, 64);
    for (name, value) in [
        ("content-length", "5"),
        ("Content-Length", "6"),
        ("transfer-encoding", "chunked"),
    ] {
        fields.push(name.as_bytes(), value.as_bytes());
    }
    let target = (Some(Bytes::from_static(b"h:1")), Bytes::from_static(b"/"));
    let mut head = RequestHead::new(
        Method::GET,
        Version::HTTP_2,
        target,
        fields,
        BodySize::Empty,
    );
    for (size, framing) in [
        (BodySize::Empty, ""),
        (BodySize::Known(3), "content-length: 3\r\n"),
        (BodySize::Unknown, "Transfer-Encoding: chunked\r\n"),
    ] {
        head.body = size;
        assert_eq!(
            encoded(&head, "/t"),
            format!("GET /t HTTP/1.1\r\nHost: h:1\r\n{framing}\r\n")
        );
    }
}

#[test]
fn ambiguous_response_framing_is_rejected_for_every_method_and_status() {
    for fields in [
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5, 6\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: 5,\r\n",
        "Content-Length: \r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: 99999999999999999999\r\n",
        "Content-Length: x\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: \r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    ] {
        for method in [Method::GET, Method::HEAD, Method::POST] {
            for status in ["103 X", "200 OK", "204 X", "304 X", "401 X"] {
                let head = format!("HTTP/1.1 {status}\r\n{fields}\r\n");
                assert!(framed(&method, &head).is_err(), "{method} {head:?}");
            }
        }
    }
    for head in [
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "ICY 200 OK\r\n\r\n",
        "HTTP/1.1 099 X\r\n\r\n",
        "HTTP/1.1 20 X\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "HTTP/1.1 200 OK\r\n folded: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\r\n\tb\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX : a\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n",
    ] {
        assert!(framed(&Method::GET, head).is_err(), "{head:?}");
    }
}

#[test]
fn valid_response_framing_is_understood() {
    let get = &Method::GET;
    let unknown = BodySize::Unknown;
    let five = BodySize::Known(5);
    let normal = "Content-Length: 5\r\n";
    for (method, status, fields, expected) in [
        (get, 200, "", (unknown, false, "")),
        (get, 200, "Content-Length: 5\r\n", (five, true, normal)),
        (get, 200, "Content-Length: 5, 5\r\n", (five, true, normal)),
        (get, 200, "Content-Length: 05\r\n", (five, true, normal)),
        (
            get,
            200,
            "Content-Length: 5\r\nX: y\r\ncontent-length: 5\r\n",
            (five, true, "Content-Length: 5\r\nX: y\r\n"),
        ),
        (
            get,
            200,
            "Transfer-Encoding: Chunked\r\n",
            (unknown, true, ""),
        ),
        (
            get,
            200,
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            (unknown, false, ""),
        ),
        (
            get,
            200,
            "Content-Length: 5\r\nConnection: x, Close, content-length\r\nX: y\r\nKeep-Alive: z\r\n",
            (five, false, normal),
        ),
        (
            get,
            103,
            "Content-Length: 5\r\nLink: z\r\n",
            (BodySize::Empty, false, "Link: z\r\n"),
        ),
        (
            get,
            204,
            "Content-Length: 5\r\n",
            (BodySize::Empty, false, ""),
        ),
        (
            get,
            204,
            "Transfer-Encoding: chunked\r\n",
            (BodySize::Empty, false, ""),
        ),
        (
            get,
            304,
            "Content-Length: 5\r\n",
            (BodySize::Empty, true, normal),
        ),
        (get, 304, "", (BodySize::Empty, true, "")),
        (
            &Method::HEAD,
            200,
            "Content-Length: 5\r\n",
            (BodySize::Empty, true, normal),
        ),
        (
            &Method::HEAD,
            200,
            "Transfer-Encoding: chunked\r\n",
            (BodySize::Empty, true, ""),
        ),
        (&Method::HEAD, 200, "", (BodySize::Empty, true, "")),
    ] {
        let (size, persistent, fields_left) =
            framed(method, &format!("HTTP/1.1 {status} X\r\n{fields}\r\n")).unwrap();
        assert_eq!(
            (size, persistent, &*fields_left),
            expected,
            "{status} {fields:?}"
        );
    }
    let old = |fields| framed(get, &format!("HTTP/1.0 200 OK\r\n{fields}\r\n")).unwrap();
    assert!(!old("Content-Length: 1\r\n").1);
    assert!(old("Content-Length: 1\r\nConnection: Keep-Alive\r\n").1);
    assert!(!old("Connection: Keep-Alive\r\n").1);
}

#[test]
fn parsing_a_response_head_leaves_the_body_in_the_buffer() {
    let mut received = BytesMut::from("HTTP/1.1 200 Fine, Thanks\r\nX-Odd_Name:  v \r\n\r\nrest");
    let response = parse_response(&mut received, &Method::GET, false);
    let head = response.unwrap().unwrap().head;
    assert_eq!(&received[..], b"rest");
    let mut wire = BytesMut::new();
    encode_response(&head, &mut wire);
    assert_eq!(
        &wire[..],
        b"HTTP/1.1 200 Fine, Thanks\r\nX-Odd_Name: v\r\n\r\n"
    );
    let mut partial = BytesMut::from("HTTP/1.1 200 OK\r\nX: ");
    let parsed = parse_response(&mut partial, &Method::GET, false);
    assert!(parsed.unwrap().is_none());
    assert_eq!(partial.len(), 20, "an incomplete head stays in the buffer");
}

#[test]
fn a_switch_that_was_asked_for_keeps_its_fields() {
    let text =
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n";
    let parsed = parse_response(&mut BytesMut::from(text), &Method::GET, true);
    let response = parsed.unwrap().unwrap();
    assert_eq!(response.body, BodyDecoder::UntilClose);
    assert!(!response.persistent);
    let mut wire = BytesMut::new();
    encode_response(&response.head, &mut wire);
    assert_eq!(&wire[..], text.as_bytes());
}

#[test]
fn response_head_size_and_field_count_are_limited() {
    let mut long = BytesMut::from("HTTP/1.1 200 OK\r\nX: ");
    long.resize(MAX_HEAD - 1, b'x');
    assert!(matches!(
        parse_response(&mut long, &Method::GET, false),
        Ok(None)
    ));
    long.extend_from_slice(b"x");
    assert!(parse_response(&mut long, &Method::GET, false).is_err());
    long.extend_from_slice(b"\r\n\r\n");
    assert!(parse_response(&mut long, &Method::GET, false).is_err());
    let many = |count| format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(count));
    assert!(response_to(&Method::GET, &many(MAX_FIELDS)).is_ok());
    assert!(response_to(&Method::GET, &many(MAX_FIELDS + 1)).is_err());
}

#[test]
fn the_number_of_connection_options_is_limited() {
    let listed = |count| {
        let options = "x-a, ,".repeat(count);
        format!("HTTP/1.1 200 OK\r\nConnection: {options}\r\nX-A: b\r\nConnection: close\r\n\r\n")
    };
    let (_, _, fields) = framed(&Method::HEAD, &listed(MAX_CONNECTION_OPTIONS - 1)).unwrap();
    assert_eq!(fields, "");
    assert!(response_to(&Method::HEAD, &listed(MAX_CONNECTION_OPTIONS)).is_err());
}
