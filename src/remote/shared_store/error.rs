//! Says why the store failed, and what to do. No text of the server is repeated: its errors quote the
//! arguments of commands.

use std::error::Error;
use std::sync::Arc;

use redis::{ErrorKind, RedisError};

use super::script::ACL_RULES;
use crate::peer_text;
use crate::shared_store::StoreError;

/// Codes of errors and what they mean for the operator. The text follows the server's name.
const CODES: &[(&str, &str)] = &[
    (
        "WRONGPASS",
        "refuses the user or the password (WRONGPASS): correct `username` and `password` in [shared]",
    ),
    (
        "NOAUTH",
        "asks for a password (NOAUTH): set `password` in [shared], and `username` unless the user is \
         `default`",
    ),
    (
        "MOVED",
        "is a node of a Cluster (MOVED): use redis-cluster://, or rediss-cluster://, in [shared] url",
    ),
    (
        "READONLY",
        "is a replica and accepts no writes (READONLY): name the master in [shared] url, or its Sentinels \
         (redis-sentinel://)",
    ),
    (
        "OOM",
        "is full (OOM): raise its maxmemory, or set its maxmemory-policy to volatile-ttl",
    ),
    (
        "MISCONF",
        "accepts no writes because it cannot save its data to disk (MISCONF): see its log",
    ),
    (
        "NOREPLICAS",
        "accepts no writes because it has too few replicas (NOREPLICAS): see its min-replicas-to-write",
    ),
    (
        "DENIED",
        "is in protected mode (DENIED): set a password for it, or its option protected-mode",
    ),
    (
        "WRONGTYPE",
        "has an entry of another type (WRONGTYPE): something else writes to keys that begin with hawkgate:",
    ),
    ("LOADING", "is loading its data (LOADING)"),
    ("BUSY", "is busy with a script (BUSY)"),
    (
        "CLUSTERDOWN",
        "is a node of a Cluster that is down (CLUSTERDOWN)",
    ),
    ("MASTERDOWN", "is a replica without its master (MASTERDOWN)"),
    ("TRYAGAIN", "is moving the entry to another node (TRYAGAIN)"),
    ("ASK", "is moving the entry to another node (ASK)"),
];

const UNKNOWN: &str = "answers with an error that hawkgate does not know: see the server's log";

/// The error that stands for `error`, with `server` as the name of who is to blame.
pub(super) fn store_error(server: &str, error: &RedisError) -> StoreError {
    match error.kind() {
        ErrorKind::Io | ErrorKind::ClusterConnectionNotFound => unreachable(server, &cause(error)),
        _ => StoreError::Answer(format!("{server} {}", problem(error))),
    }
}

/// As [`store_error`], for a connection that could not be set up.
pub(super) fn connect_error(server: &str, error: &RedisError) -> StoreError {
    match store_error(server, error) {
        StoreError::Answer(text) => StoreError::Unreachable(text),
        other => other,
    }
}

pub(super) fn unreachable(server: &str, cause: &str) -> StoreError {
    StoreError::Unreachable(format!("{server}: {cause}"))
}

/// Something that is no answer to what was asked.
pub(super) fn no_answer(server: &str) -> StoreError {
    StoreError::Answer(format!(
        "{server} gives an answer that means nothing: is it Valkey, or Redis 6.2 or later?"
    ))
}

/// Whether another connection may do better: to the new master after a failover, or with a new password.
pub(super) fn calls_for_reconnection(error: &RedisError) -> bool {
    error.is_unrecoverable_error()
        || error.is_io_error()
        || error.kind() == ErrorKind::AuthenticationFailed
        || matches!(
            code(error),
            Some("READONLY" | "NOAUTH" | "WRONGPASS" | "MASTERDOWN")
        )
}

fn cause(error: &RedisError) -> String {
    if error.kind() == ErrorKind::ClusterConnectionNotFound {
        return "no node can be reached".to_owned();
    }
    let source = error.source().map(|source| {
        let shared = source.downcast_ref::<Arc<dyn Error + Send + Sync>>();
        shared.map_or(source, |error| &**error as &(dyn Error + 'static))
    });
    match source.and_then(peer_text::connection_cause) {
        Some(cause) if cause.contains("uncategorized") => {
            "the name cannot be resolved, or there is no route".to_owned()
        }
        Some(cause) => cause,
        None => "the connection failed".to_owned(),
    }
}

fn problem(error: &RedisError) -> String {
    match error.kind() {
        ErrorKind::AuthenticationFailed => return meaning("WRONGPASS").to_owned(),
        ErrorKind::RESP3NotSupported => {
            return "does not know HELLO: Redis 6.2 or later, or Valkey, is needed".to_owned();
        }
        ErrorKind::Parse | ErrorKind::UnexpectedReturnType => {
            return "does not answer in the protocol of Valkey and Redis: is TLS (rediss://) on one side only?"
                .to_owned();
        }
        _ => {}
    }
    if error
        .detail()
        .is_some_and(|detail| detail.starts_with("DB index is out of range"))
    {
        return "has no database of that number: see its option databases".to_owned();
    }
    match code(error) {
        Some("NOPERM") => {
            format!("refuses the user something (NOPERM): the ACL user needs the rules {ACL_RULES}")
        }
        Some(code) => meaning(code).to_owned(),
        None => UNKNOWN.to_owned(),
    }
}

fn meaning(code: &str) -> &'static str {
    let known = CODES.iter().find(|(known, _)| *known == code);
    known.map_or(UNKNOWN, |(_, meaning)| meaning)
}

/// The code of an error of the server, if it is a known one. Errors of commands within a script are of the
/// code `ERR` and quote the command's error: `… -READONLY You can't write …` before Redis 7, `ACL failure in
/// script: …`.
fn code(error: &RedisError) -> Option<&'static str> {
    let code = error.code()?;
    let known = |code: &str| {
        CODES
            .iter()
            .map(|(known, _)| *known)
            .find(|known| *known == code)
    };
    if code == "NOPERM" {
        return Some("NOPERM");
    }
    if let Some(known) = known(code) {
        return Some(known);
    }
    let detail = error.detail()?;
    if detail.contains("ACL failure in script")
        || detail.contains("The user executing the script can't")
    {
        return Some("NOPERM");
    }
    let mut words = detail.split_ascii_whitespace();
    words.find_map(|word| known(word.strip_prefix('-')?))
}
