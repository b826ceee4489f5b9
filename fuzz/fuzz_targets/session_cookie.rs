#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hawkgate::fuzzing::session_cookie(data));
