//! The scripts (`lua/`). Each is one atomic step on one key, and runs on Redis 6.2 and later and on Valkey.

use std::fmt::Write as _;
use std::sync::LazyLock;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use redis::aio::ConnectionLike;
use redis::{Cmd, ErrorKind, RedisResult, ServerErrorKind, Value};

/// A script, and the digest under which the server caches it.
pub(super) struct Script {
    source: &'static str,
    sha1: LazyLock<String>,
}

macro_rules! scripts {
    ($($name:ident = $($file:literal)+;)+) => {
        $(pub(super) static $name: Script = Script {
            source: concat!($(include_str!(concat!("lua/", $file, ".lua"))),+),
            sha1: LazyLock::new(|| hex_sha1($name.source)),
        };)+
        #[cfg(test)]
        pub(super) const ALL: &[&Script] = &[$(&$name),+];
    };
}

scripts! {
    ACQUIRE = "entry" "acquire";
    RENEW = "entry" "renew";
    COMPLETE = "entry" "complete";
    RELEASE = "entry" "release";
    REJECT = "entry" "reject";
    READ = "entry" "read";
    WRITE = "entry" "write";
    REMOVE = "entry" "remove";
    TAKE = "take";
    PROBE = "probe";
}

/// The rules of an ACL user that may do what hawkgate does, and nothing else.
pub(super) const ACL_RULES: &str = "~hawkgate:* &hawkgate:* +ping +subscribe +publish +eval +evalsha +time \
     +hmget +hset +hdel +pexpireat +del +get +set (in a Cluster also +cluster|slots)";

impl Script {
    /// Runs the script on `key`. A server that does not have it cached gets it with the same command.
    pub(super) async fn run(
        &self,
        connection: &mut impl ConnectionLike,
        key: &str,
        arguments: &[&[u8]],
    ) -> RedisResult<Value> {
        let command = |name: &str, script: &str| {
            let mut command = Cmd::new();
            command.arg(name).arg(script).arg(1).arg(key);
            for argument in arguments {
                command.arg(*argument);
            }
            command
        };
        let cached = command("EVALSHA", &self.sha1);
        match cached.query_async(connection).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                command("EVAL", self.source).query_async(connection).await
            }
            done => done,
        }
    }
}

fn hex_sha1(text: &str) -> String {
    let mut hex = String::with_capacity(40);
    for byte in digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()).as_ref() {
        // Writing to a string cannot fail.
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The commands that a script calls, in lower case.
    fn commands(script: &Script) -> BTreeSet<String> {
        let calls = script.source.split("redis.call('").skip(1);
        calls
            .map(|call| call.split('\'').next().unwrap().to_ascii_lowercase())
            .collect()
    }

    #[test]
    fn the_probe_uses_every_command_and_the_documented_acl_allows_them() {
        let all: BTreeSet<_> = ALL.iter().flat_map(|script| commands(script)).collect();
        assert_eq!(commands(&PROBE), all);
        for command in all {
            let rule = format!("+{command} ");
            assert!(ACL_RULES.contains(&rule), "{command}");
        }
    }

    #[test]
    fn scripts_touch_one_key_and_are_named_by_their_digest() {
        for script in ALL {
            assert!(!script.source.contains("KEYS[2]"));
            assert!(!script.source.contains("KEYS,"));
        }
        // As in `printf 'return 1' | sha1sum`.
        assert_eq!(
            hex_sha1("return 1"),
            "e0e1f9fabfc9d4800c877a703b823ac0578ff8db"
        );
    }
}
