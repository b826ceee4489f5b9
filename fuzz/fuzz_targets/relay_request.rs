//! A request as hawkgate sends it upstream: hyper's server, and httparse with the framing rules of RFC
//! 9112 §6.3, read what the caller has sent, with the target in origin-form.

#![no_main]

use hawkgate_fuzz::{rfc, server};
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((relayed, message)) = hawkgate::fuzzing::relay_request(data) else {
        return;
    };
    let sent = rfc::head(message.head);
    assert_eq!(relayed.method, sent.method);
    assert_eq!(relayed.target, rfc::origin_form(&sent));
    assert_eq!(relayed.host, Some(rfc::host(&sent)));

    let end = relayed.wire.windows(4).position(|four| four == b"\r\n\r\n");
    let (head, body) = relayed.wire.split_at(end.expect("no end of the head") + 4);
    let head = rfc::head(head);
    let framed = rfc::content(&head, body).expect("httparse cannot find the end of the body");
    assert_eq!(framed, (message.content.clone(), &b""[..]));

    let next = b"GET /next HTTP/1.1\r\nHost: next\r\n\r\n";
    let mut read = server::requests(&[&relayed.wire, &next[..]].concat()).into_iter();
    let first = read.next().expect("hyper refuses it");
    assert_eq!(
        (&first.method, &first.target),
        (&sent.method, &relayed.target)
    );
    assert!(first.fields.contains_key(HOST));
    assert_eq!(unframed(&first.fields), unframed(&sent.fields));
    if relayed.tunnel || !head.is_persistent() {
        return;
    }
    assert_eq!(first.content, message.content);
    let second = read.next().expect("hyper does not find the next request");
    assert_eq!(second.target, "/next");
    assert!(read.next().is_none());
});

/// The fields that do not frame the body. `Host` is added if there was none.
fn unframed(fields: &HeaderMap) -> HeaderMap {
    let mut fields = fields.clone();
    for name in [CONTENT_LENGTH, TRANSFER_ENCODING, HOST] {
        fields.remove(name);
    }
    fields
}
