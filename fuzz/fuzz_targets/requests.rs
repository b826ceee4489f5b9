//! Requests on one connection: what hawkgate accepts, hyper's server reads in the same way, and so
//! does httparse with the framing rules of RFC 9112 §6.3.

#![no_main]

use hawkgate_fuzz::{rfc, server};
use http::Uri;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let accepted = hawkgate::fuzzing::requests(data);
    if accepted.is_empty() {
        return;
    }
    let mut read = server::requests(data).into_iter();
    for request in &accepted {
        let head = rfc::head(request.head);
        if !request.tunnel {
            let framed = rfc::content(&head, request.after_head);
            let (content, rest) = framed.expect("httparse cannot find the end of the body");
            assert_eq!(content, request.content);
            assert_eq!(rest, request.rest);
        }
        let read = read.next().expect("hyper refuses it");
        assert_eq!(read.method, head.method);
        assert!(same_target(&read.target, &head.target), "{}", read.target);
        assert_eq!(read.version, head.version);
        assert_eq!(read.fields, head.fields);
        if request.tunnel || !head.is_persistent() {
            return;
        }
        assert_eq!(read.content, request.content);
    }
});

/// The same origin-form to the byte; of other forms, hyper normalizes scheme and authority.
fn same_target(read: &str, sent: &str) -> bool {
    read == sent || !sent.starts_with('/') && read.parse::<Uri>().ok() == sent.parse().ok()
}
