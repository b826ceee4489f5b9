//! What the targets in `fuzz/` call. Compiled with `--cfg fuzzing` only.
//!
//! Functions that need access to private items are in the modules that own these: one file for each
//! area. A function returns nothing if no panic is all that is expected of the code; otherwise it
//! asserts what must hold, or returns what the target compares with other software.

#![allow(missing_docs, clippy::missing_panics_doc)]

use std::path::PathBuf;

use crate::config::{self, ParseOptions};
pub use crate::credential::fuzzing::{credentials_update, name_template};
pub use crate::gateway::fuzzing::{bewit_url, path_readings, rule, unauthorized_body};
pub use crate::proxy::fuzzing::{
    Message, RelayedRequest, RelayedResponse, chunked, proxy_header, raw_head, relay_request,
    relay_response, requests, x_forwarded_for,
};
pub use crate::remote::fuzzing::{oauth_response, provider_metadata, retry_after};
pub use crate::session::fuzzing::{return_to, session_cookie};
pub use crate::token::fuzzing::{basic, bearer, json_object, jwk_set, jws};

/// Reads a configuration as `hawkgate check --no-secrets` does: nothing but `text` is read.
pub fn config(text: &str) {
    let options = ParseOptions {
        read_secrets: false,
        environment: false,
        base_dir: PathBuf::from("/nonexistent"),
    };
    if let Err(errors) = config::parse(text, "fuzz.toml", &options) {
        assert!(!errors.errors.is_empty(), "an error without a reason");
        let _ = errors.to_string();
    }
}

/// Detects a secret in a peer's text. Whatever surrounds a secret, it is found as it is.
pub fn echo(data: &[u8]) {
    use crate::peer_text::{error_code, is_echoed, taskcluster_error_code};
    const SECRET: &[u8] = b"4f2b7c1e9d8a6350-4f2b7c1e9d8a6350-key";
    let secrets = || std::iter::once(SECRET);
    let _ = is_echoed(data, secrets);
    let middle = data.len() / 2;
    let text = [&data[..middle], SECRET, &data[middle..]].concat();
    assert!(is_echoed(&text, secrets), "the secret was not found");
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = (error_code(text), taskcluster_error_code(text));
    }
}
