//! A request as hawkgate sends it upstream: hyper's server reads what the caller has sent.

#![no_main]

use hawkgate_fuzz::{rfc, server};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((method, target, wire)) = hawkgate::fuzzing::relay_request(data) else {
        return;
    };
    let sent = rfc::head(data);
    let next = b"GET /next HTTP/1.1\r\nHost: next\r\n\r\n";
    let read = server::requests(&[&wire, &next[..]].concat());
    let [first, second] = &read[..] else {
        panic!("hyper reads {} requests", read.len());
    };
    assert_eq!((&first.method, &*first.target), (&method, &*target));
    assert_eq!((&first.method, &first.target), (&sent.method, &sent.target));
    assert_eq!(first.fields, sent.fields);
    assert!(first.content.is_empty());
    assert_eq!(second.target, "/next");
});
