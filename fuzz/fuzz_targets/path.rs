#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| hawkgate::fuzzing::path_readings(text));
