#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hawkgate::fuzzing::return_to(data));
