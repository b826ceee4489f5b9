//! Draining and aborting.

use super::*;

#[tokio::test]
async fn a_drain_finishes_what_was_begun_and_closes_what_is_idle() {
    let rig = Rig::plain().await;
    let mut idle = rig.connect().await;
    idle.write_all(b"GET /idle HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(reply(&mut idle).await.status, 200);
    let mut busy = rig.connect().await;
    busy.write_all(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\nGET /more HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    in_time(rig.entered.notified()).await;

    let address = rig.addresses[0].clone();
    let drained = async {
        rig.serving.drain(Duration::ZERO, PATIENCE).await;
    };
    let seen = async {
        assert!(all_replies(&mut idle).await.is_empty());
        // The listener is closed by now: accepting has ended before connections are told.
        let Address::Tcp(address) = address else {
            panic!("no TCP listener")
        };
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
        rig.release.notify_one();
        let replies = all_replies(&mut busy).await;
        assert_eq!(replies.len(), 1, "{replies:?}");
        assert_eq!(replies[0].status, 200);
        assert_eq!(replies[0].header("connection"), Some("close"));
    };
    in_time(async { tokio::join!(drained, seen) }).await;
    assert_eq!(rig.served(), 2);
    in_time(rig.serving.drain(PATIENCE, PATIENCE)).await;
}

#[tokio::test]
async fn a_drain_breaks_off_what_does_not_end() {
    let rig = Rig::plain().await;
    let mut busy = rig.connect().await;
    busy.write_all(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    in_time(rig.entered.notified()).await;
    in_time(rig.serving.drain(Duration::ZERO, Duration::from_millis(50))).await;
    assert!(in_time(busy.read_u8()).await.is_err());
}

#[tokio::test]
async fn an_abort_cuts_a_drain_short() {
    let rig = Rig::plain().await;
    let mut busy = rig.connect().await;
    busy.write_all(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    in_time(rig.entered.notified()).await;
    let ages = Duration::from_hours(1);
    let drain = rig.serving.drain(ages, ages);
    in_time(async { tokio::join!(drain, async { rig.serving.abort() }) }).await;
    assert!(in_time(busy.read_u8()).await.is_err());
}

#[tokio::test]
async fn until_the_delay_is_over_everything_is_served_and_sent_elsewhere() {
    let rig = Rig::plain().await;
    let ages = Duration::from_hours(1);
    let mut kept = rig.connect().await;
    let get = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    kept.write_all(get).await.unwrap();
    let before = reply(&mut kept).await;
    assert_ne!(before.header("connection"), Some("close"));
    let drain = rig.serving.drain(ages, PATIENCE);
    let use_it = async {
        // A connection that is there, and one that comes now.
        kept.write_all(get).await.unwrap();
        for replies in [all_replies(&mut kept).await, rig.exchange(get).await] {
            assert_eq!((replies.len(), replies[0].status), (1, 200));
            assert_eq!(replies[0].header("connection"), Some("close"));
        }
        let replies = rig
            .exchange(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            .await;
        assert_eq!(replies[0].status, 200);
        rig.serving.abort();
    };
    in_time(async { tokio::join!(drain, use_it) }).await;
}
