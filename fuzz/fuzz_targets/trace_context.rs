#![no_main]

use hawkgate::trace::{RemoteParent, TRACEPARENT, TraceId, traceparent};
use http::{HeaderMap, HeaderValue};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut headers = HeaderMap::new();
    for line in data.split(|b| *b == b'\n').take(2) {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(TRACEPARENT, value);
        }
    }
    if let Some(parent) = RemoteParent::from_headers(&headers) {
        // Written again, it is read back.
        let value = traceparent(parent.trace, parent.span, parent.sampled);
        let again = HeaderMap::from_iter(value.map(|value| (TRACEPARENT, value)));
        assert_eq!(RemoteParent::from_headers(&again), Some(parent));
    }
    if let Some(id) = std::str::from_utf8(data).ok().and_then(TraceId::parse) {
        assert_eq!(TraceId::parse(&id.to_string()), Some(id));
    }
});
