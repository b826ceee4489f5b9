#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| hawkgate::fuzzing::bewit_url(text));
