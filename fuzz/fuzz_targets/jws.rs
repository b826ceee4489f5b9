//! A token as sent, or, if there is a line break, its header and claims before they are encoded.

#![no_main]

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hawkgate::fuzzing::jws;

libfuzzer_sys::fuzz_target!(|text: &str| {
    match text.split_once('\n') {
        None => jws(text),
        Some((header, claims)) => {
            let encoded = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part));
            jws(&format!("{}.AQID", encoded.join(".")));
        }
    }
});
