#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(
    init: hawkgate_fuzz::allow_panics_of_dependencies(),
    |text: &str| hawkgate::fuzzing::rule(text)
);
