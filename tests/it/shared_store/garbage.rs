//! What others wrote to the store, and servers that are none: operations fail, and nothing else happens.

use std::time::Duration;

use hawkgate::shared_store::{Acquired, Quota, SharedStore, StoreError, StoreEvent};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{BUCKET, ENTRY, KEY, id, store};
use crate::support::redis::RedisServer;
use crate::support::wait::within;

const QUOTA: Quota = Quota {
    interval: Duration::from_secs(1),
    burst: 5,
};

#[tokio::test]
async fn keys_of_another_type_are_errors() {
    let server = RedisServer::start(&[]).await;
    let store = store(&server.url());
    server.command(&["LPUSH", ENTRY, "x"]).await;
    server.command(&["LPUSH", BUCKET, "x"]).await;
    let expected = format!(
        "{} has an entry of another type (WRONGTYPE): something else writes to keys that begin with hawkgate:",
        server.address()
    );
    let expected = StoreError::Answer(expected);
    assert_eq!(store.read(KEY).await.unwrap_err(), expected);
    let acquired = store.acquire(KEY, id(1), None).await;
    assert_eq!(acquired.unwrap_err(), expected);
    let taken = store.take(KEY, QUOTA, 1).await;
    assert_eq!(taken.unwrap_err(), expected);
    // Removing needs no certain type, but looks at the value first.
    assert_eq!(store.remove(KEY).await.unwrap_err(), expected);
}

#[tokio::test]
async fn entries_that_are_none_count_as_absent() {
    let server = RedisServer::start(&[]).await;
    let store = store(&server.url());
    let later = "9007199254740000";
    let id16 = "0123456789abcdef";
    for fields in [
        &["g", id16][..],
        &["g", id16, "v", "value"],
        &["g", id16, "e", later],
        &["v", "value", "e", later],
        &["g", "0123456789abcde", "v", "value", "e", later],
        &["g", "0123456789abcdef0", "v", "value", "e", later],
        &["g", "", "v", "", "e", later],
        &["g", id16, "v", "value", "e", ""],
        &["g", id16, "v", "value", "e", "x"],
        &["g", id16, "v", "value", "e", "nan"],
        &["g", id16, "v", "value", "e", "-1"],
        &["g", id16, "v", "value", "e", "inf"],
        &["g", id16, "v", "value", "e", "1e300"],
        &["h", id16],
        &["h", id16, "l", "nan"],
        &["h", id16, "l", "inf"],
        &["h", "x", "l", later],
        // The server's clock was set back.
        &["h", id16, "l", later],
        &["x", "y"],
    ] {
        server.command(&["DEL", ENTRY]).await;
        server.command(&[&["HSET", ENTRY], fields].concat()).await;
        assert!(store.read(KEY).await.unwrap().is_none(), "{fields:?}");
        let acquired = store.acquire(KEY, id(1), None).await.unwrap();
        assert!(matches!(acquired, Acquired::Granted), "{fields:?}");
        let done = store
            .complete(KEY, id(1), vec![1], Duration::from_mins(1))
            .await;
        assert!(done.unwrap(), "{fields:?}");
        let value = store.read(KEY).await.unwrap().unwrap();
        assert_eq!(value.generation, id(1), "{fields:?}");
        let left: i64 = redis::from_redis_value(server.command(&["PTTL", ENTRY]).await).unwrap();
        assert!((1..=60_000).contains(&left), "{fields:?}: {left}");
    }
}

#[tokio::test]
async fn buckets_that_are_none_are_full_or_fill_in_time() {
    let server = RedisServer::start(&[]).await;
    let store = store(&server.url());
    for (content, granted) in [
        ("", 5),
        ("x", 5),
        ("nan", 5),
        ("-1", 5),
        ("0x10", 5),
        ("inf", 0),
        ("1e300", 0),
        ("9007199254740000", 0),
    ] {
        server.command(&["SET", BUCKET, content]).await;
        let taken = store.take(KEY, QUOTA, 9).await.unwrap();
        assert_eq!(taken.granted, granted, "{content}");
        assert!(taken.retry_after <= QUOTA.interval, "{content}");
    }
}

/// A server that completes connections as Redis does, and answers every script with `answer`.
async fn impostor(answer: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, answer));
        }
    });
    format!("redis://{address}")
}

async fn serve(mut stream: TcpStream, answer: &'static [u8]) {
    let mut buffer = vec![0; 65536];
    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        let reply: &[u8] = if text.contains("HELLO") {
            b"%1\r\n+server\r\n+redis\r\n"
        } else if text.contains("SUBSCRIBE") {
            b">3\r\n$9\r\nsubscribe\r\n$15\r\nhawkgate:events\r\n:1\r\n"
        } else if text.contains("PING") {
            b"+PONG\r\n"
        } else {
            answer
        };
        if stream.write_all(reply).await.is_err() {
            return;
        }
    }
}

static NESTED: [[u8; 4]; 200] = [*b"*1\r\n"; 200];

#[tokio::test]
async fn answers_that_are_none_are_errors_and_are_not_repeated() {
    let mut running = tokio::task::JoinSet::new();
    for answer in [
        &b"+hunter2\r\n"[..],
        b":-1\r\n",
        b":99999999999999999999\r\n",
        b"*0\r\n",
        b"*-1\r\n",
        b"*1\r\n:7\r\n",
        b"*1\r\n$7\r\nhunter2\r\n",
        b"*2\r\n:-1\r\n:-1\r\n",
        b"*2\r\n:1\r\n:-9223372036854775808\r\n",
        b"*4\r\n:2\r\n$1\r\nx\r\n$7\r\nhunter2\r\n:1\r\n",
        b"*9223372036854775807\r\n:1\r\n",
        b"*4294967295\r\n:1\r\n",
        b"$9223372036854775807\r\nhunter2",
        b"%9223372036854775807\r\n",
        b"%-1\r\n",
        b"|-1\r\n",
        b"|1\r\n+a\r\n+b\r\n:1\r\n",
        b"~1\r\n:1\r\n",
        b"!-1\r\n",
        b"=-1\r\n",
        b"=3\r\nabc\r\n",
        b",nan\r\n",
        b"#t\r\n",
        b"#x\r\n",
        b"(3492890328409238509324850943850943825024385\r\n",
        b"-ERR hunter2 unknown command, with args beginning with: 'hunter2'\r\n",
        b"-hunter2\r\n",
        b"-\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\nhunter2",
        b"\xff\xfe\r\n",
        NESTED.as_flattened(),
    ] {
        running.spawn(async move {
            let store = store(&impostor(answer).await);
            let text = String::from_utf8_lossy(answer);
            let taken = store.take(KEY, QUOTA, 1);
            let error = within("an answer", taken)
                .await
                .expect_err(&text)
                .to_string();
            assert!(!error.contains("hunter2"), "{error}");
            assert!(error.len() < 300, "{error}");
        });
    }
    while let Some(done) = running.join_next().await {
        done.unwrap();
    }
}

#[tokio::test]
async fn pushes_that_are_no_events_are_ignored() {
    let answer = b">1\r\n+message\r\n>2\r\n+message\r\n:1\r\n>3\r\n+message\r\n$15\r\nhawkgate:events\r\n$0\r\n\r\n\
        >3\r\n+message\r\n$1\r\nx\r\n$1\r\nx\r\n>2\r\n+invalidate\r\n*1\r\n$1\r\nx\r\n>0\r\n\
        *2\r\n:1\r\n:0\r\n";
    let store = store(&impostor(answer).await);
    let mut events = store.events();
    for _ in 0..3 {
        assert_eq!(store.take(KEY, QUOTA, 1).await.unwrap().granted, 1);
    }
    assert_eq!(events.try_recv().ok(), None::<StoreEvent>);
}
