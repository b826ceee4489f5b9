//! A response as hawkgate relays it: hyper's client reads what the upstream has sent, no more and no
//! less. The first byte selects the method and in which pieces the response arrives.

#![no_main]

use hawkgate_fuzz::client::{self, Response};
use http::{HeaderMap, Method, header};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((first, response)) = data.split_first() else {
        return;
    };
    let method = if first & 1 == 1 {
        Method::HEAD
    } else {
        Method::GET
    };
    let piece = [usize::MAX, 1, 7, 64][usize::from(first >> 1 & 3)];
    let Some(relayed) = hawkgate::fuzzing::relay_response(&method, response, piece) else {
        return;
    };
    if !relayed.complete {
        let received = client::exchange(&method, &relayed.wire);
        assert!(received.is_none(), "a truncated response looks complete");
        return;
    }
    let received = client::exact_exchange(&method, &relayed.wire);
    let (received, ends) = received.expect("hyper cannot read the relayed response");
    assert!(ends, "the response does not end with its body");
    assert_eq!(received.content.len() as u64, relayed.content);
    if let Some(sent) = client::exchange(&method, response) {
        assert_same(&sent, &received);
    }
});

fn assert_same(sent: &Response, received: &Response) {
    assert_eq!(received.status, sent.status);
    assert_eq!(received.content, sent.content);
    for name in received.fields.keys() {
        if name == header::TRANSFER_ENCODING || name == header::CONTENT_LENGTH {
            continue;
        }
        assert_eq!(
            values(&received.fields, name),
            values(&sent.fields, name),
            "{name}"
        );
    }
}

fn values<'f>(fields: &'f HeaderMap, name: &header::HeaderName) -> Vec<&'f [u8]> {
    fields
        .get_all(name)
        .iter()
        .map(|value| value.as_bytes())
        .collect()
}
