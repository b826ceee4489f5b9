//! What must be served, and how connections are kept.

use super::*;
use crate::gateway::reason::Reason;
use crate::proxy::listener::BindError;

#[tokio::test]
async fn good_heads_are_served_byte_for_byte() {
    let rig = Rig::plain().await;
    for (head, target) in [
        ("GET / HTTP/1.1\r\nHost: a", "/"),
        ("\r\nGET /x HTTP/1.1\r\nHost: a:80", "/x"),
        ("GET /x HTTP/1.0\r\nHost: a", "/x"),
        ("OPTIONS * HTTP/1.1\r\nHost: a", "*"),
        ("GET /a//b/...?../ HTTP/1.1\r\nHost: a", "/a//b/...?../"),
        (
            "GET /a%2Fb/.c?q={1}|^'../x HTTP/1.1\r\nHost: [::1]:8",
            "/a%2Fb/.c?q={1}|^'../x",
        ),
        (
            "GET /%zz HTTP/1.1\r\nhOsT: a_b.c\r\nX-Empty:\r\nX:\t\u{e9} \t",
            "/%zz",
        ),
        ("POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 0", "/p"),
        (
            "GET /u HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: upgrade, close",
            "/u",
        ),
        (
            "GET /w HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade, close",
            "/w",
        ),
    ] {
        let end = "Connection: close\r\n\r\n";
        let replies = rig.exchange(format!("{head}\r\n{end}").as_bytes()).await;
        assert_eq!(replies.len(), 1, "{head}");
        assert_eq!(replies[0].status, 200, "{head}: {replies:?}");
        let echoed = replies[0].body.split(' ').nth(1);
        assert_eq!(echoed, Some(target), "{head}");
    }
    assert!(rig.outcomes().is_empty());
}

/// What the guard lets through, pingora's parser must neither refuse nor change.
#[tokio::test]
async fn every_allowed_byte_gets_through_unchanged() {
    let rig = Rig::plain().await;
    let mut stream = rig.connect().await;
    for byte in (b'!'..=b'~').filter(|b| !b"#\"<>\\`".contains(b)) {
        let byte = char::from(byte);
        let target = format!("/a{byte}b?c{byte}d");
        let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let reply = reply(&mut stream).await;
        assert_eq!(reply.body.split(' ').nth(1), Some(target.as_str()));
    }
    for byte in (b'\t'..=b'\xff').filter(|b| *b == b'\t' || (*b >= b' ' && *b != 0x7f)) {
        let field = [b"X: a".as_slice(), &[byte], b"b\r\n"].concat();
        let request = [b"GET / HTTP/1.1\r\nHost: a\r\n", field.as_slice(), b"\r\n"].concat();
        stream.write_all(&request).await.unwrap();
        assert_eq!(reply(&mut stream).await.status, 200, "{byte}");
    }
    for byte in "!#$%&'*+-.^_`|~09azAZ".chars() {
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\nX{byte}{byte}: y\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        assert_eq!(reply(&mut stream).await.status, 200, "{byte}");
    }
    let fields = "x: y\r\n".repeat(crate::proxy::validate::MAX_FIELDS - 1);
    let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    assert_eq!(reply(&mut stream).await.status, 200);
}

#[tokio::test]
async fn a_connection_serves_one_request_after_the_other() {
    let rig = Rig::plain().await;
    let mut stream = rig.connect().await;
    for body in ["", "x", "hello"] {
        let request = format!(
            "POST /n HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let reply = reply(&mut stream).await;
        assert_eq!(
            reply.body,
            format!("POST /n {} Some(127.0.0.1) false", body.len())
        );
    }
}

#[tokio::test]
async fn pipelined_requests_are_served_in_order_and_each_is_checked() {
    let rig = Rig::plain().await;
    let pipeline = [
        "GET /1 HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        "POST /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        "3;x\r\nabc\r\n10\r\n0123456789abcdef\r\n0\r\nT: v\r\n\r\n",
        "GET /u HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
        "HEAD /4 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET /../5 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /6 HTTP/1.1\r\nHost: a\r\n\r\n",
    ]
    .concat();
    let mut stream = rig.connect().await;
    stream.write_all(pipeline.as_bytes()).await.unwrap();
    for expected in ["GET /1 0", "POST /2 5", "POST /3 19", "GET /u 0"] {
        let reply = reply(&mut stream).await;
        assert!(reply.body.starts_with(expected), "{expected}: {reply:?}");
    }
    let mut rest = Vec::new();
    in_time(stream.read_to_end(&mut rest)).await.unwrap();
    let rest = String::from_utf8(rest).unwrap();
    assert!(rest.starts_with("HTTP/1.1 200"));
    assert_eq!(rest.matches("HTTP/1.1 400").count(), 1);
    assert_eq!(rig.served(), 5);
    assert_eq!(rig.outcomes().len(), 1);
}

#[tokio::test]
async fn a_request_that_comes_byte_by_byte_is_the_same() {
    let rig = Rig::plain().await;
    let mut stream = rig.connect().await;
    stream.set_nodelay(true).unwrap();
    let request = "\r\nPOST /slow HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
                   2\r\nab\r\n0\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n";
    for byte in request.bytes() {
        stream.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert!(reply(&mut stream).await.body.starts_with("POST /slow 2"));
    assert!(reply(&mut stream).await.body.starts_with("GET /next 0"));
}

#[tokio::test]
async fn many_pipelined_requests_need_no_memory_of_their_own() {
    let rig = Rig::plain().await;
    let (mut reader, mut writer) = rig.connect().await.into_split();
    let sending = tokio::spawn(async move {
        for n in 0..2000 {
            let request = format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n");
            writer.write_all(request.as_bytes()).await.unwrap();
        }
        writer
    });
    for n in 0..2000 {
        let reply = reply(&mut reader).await;
        assert!(reply.body.starts_with(&format!("GET /{n} 0")), "{reply:?}");
    }
    sending.await.unwrap();
}

#[tokio::test]
async fn an_early_answer_reaches_a_caller_that_is_still_sending() {
    let rig = Rig::plain().await;
    let mut stream = rig.connect().await;
    let length = 4 * 1024 * 1024;
    let head = format!("POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    in_time(stream.write_all(&vec![b'x'; length]))
        .await
        .unwrap();
    let replies = all_replies(&mut stream).await;
    assert_eq!(replies[0].status, 200);
    assert_eq!(replies[0].header("connection"), Some("close"));
}

#[tokio::test]
async fn a_refusal_reaches_a_caller_that_is_still_sending() {
    let rig = Rig::plain().await;
    let mut stream = rig.connect().await;
    let length = 4 * 1024 * 1024;
    let head = format!("POST /../x HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    in_time(stream.write_all(&vec![b'x'; length]))
        .await
        .unwrap();
    assert_eq!(all_replies(&mut stream).await[0].status, 400);
}

#[tokio::test]
async fn who_reads_nothing_is_given_up() {
    let limits = Limits {
        body_timeout: Duration::from_millis(100),
        ..limits()
    };
    let mut rig = Rig::start(&[tcp()], &limits).await;
    let mut stream = rig.connect().await;
    stream
        .write_all(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(in_time(rig.ended.recv()).await, Some(true));
}

#[tokio::test]
async fn who_sends_no_body_is_given_up() {
    let limits = Limits {
        body_timeout: Duration::from_millis(100),
        ..limits()
    };
    let mut rig = Rig::start(&[tcp()], &limits).await;
    let mut stream = rig.connect().await;
    stream
        .write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel")
        .await
        .unwrap();
    assert_eq!(in_time(rig.ended.recv()).await, Some(true));
}

#[tokio::test]
async fn over_the_limit_of_connections_callers_are_told_so() {
    let limits = Limits {
        connections: 1,
        ..limits()
    };
    let rig = Rig::start(&[tcp()], &limits).await;
    let mut first = rig.connect().await;
    first
        .write_all(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(reply(&mut first).await.status, 200);

    let replies = rig.exchange(b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(replies[0].status, 503);
    assert_eq!(replies[0].header("x-hawkgate-error"), Some("overloaded"));
    assert!(replies[0].header("retry-after").is_some());
    assert_eq!(rig.served(), 1);
    assert_eq!(rig.outcomes().len(), 1);

    drop(first);
    // The place is free as soon as the server has noticed.
    in_time(async {
        loop {
            let mut next = rig.connect().await;
            next.write_all(b"GET /3 HTTP/1.1\r\nHost: a\r\n\r\n")
                .await
                .unwrap();
            if reply(&mut next).await.status == 200 {
                break;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_unix_socket_is_served_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("h.sock");
    let listener = Listener {
        address: Address::Unix(path.clone()),
        ..tcp()
    };
    let rig = Rig::start(&[listener], &limits()).await;
    let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
    stream
        .write_all(b"GET /u HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(reply(&mut stream).await.body, "GET /u 0 None false");
    in_time(rig.serving.drain(Duration::ZERO, PATIENCE)).await;
    assert!(!path.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn pinned_workers_serve_too() {
    let workers = Workers::pinned(2).unwrap();
    let rig = Rig::start_on(&[tcp()], &limits(), workers).await;
    for _ in 0..4 {
        let replies = rig
            .exchange(b"GET /p HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            .await;
        assert_eq!(replies[0].status, 200);
    }
    in_time(rig.serving.drain(Duration::ZERO, PATIENCE)).await;
    assert_eq!(rig.served(), 4);
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let rig = Rig::plain().await;
    let listener = Listener {
        address: rig.addresses[0].clone(),
        ..tcp()
    };
    let Err(BindError::Listen { address, .. }) = Bound::bind(&[listener], &limits()).await else {
        panic!("bound twice");
    };
    assert!(address.starts_with("127.0.0.1:"));
}

#[tokio::test]
async fn peers_that_are_not_allowed_are_told_so_before_anything_is_read() {
    let keeping_out = |address: Address, h2c: bool| Listener {
        address,
        access: crate::proxy::settings::ListenerAccess {
            users: Some(vec!["4000000000".into()]),
            ..crate::proxy::settings::ListenerAccess::default()
        },
        h2c,
        ..tcp()
    };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("h.sock");
    let any = tcp().address;
    let listeners = [
        keeping_out(any.clone(), false),
        keeping_out(Address::Unix(path.clone()), false),
        keeping_out(any, true),
    ];
    let rig = Rig::start(&listeners, &limits()).await;
    // Nothing was sent yet.
    let mut stream = rig.connect().await;
    let replies = all_replies(&mut stream).await;
    assert_eq!(replies[0].status, 403);
    assert_eq!(
        replies[0].header("x-hawkgate-error"),
        Some("peer_not_allowed")
    );
    drop(stream);
    let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
    assert_eq!(all_replies(&mut stream).await[0].status, 403);
    drop(stream);
    let Address::Tcp(h2c) = rig.addresses[2] else {
        panic!("no TCP listener")
    };
    let mut stream = TcpStream::connect(h2c).await.unwrap();
    let mut bytes = Vec::new();
    in_time(stream.read_to_end(&mut bytes)).await.unwrap();
    assert!(bytes.is_empty(), "HTTP/1 is not spoken there");
    drop(stream);
    in_time(rig.serving.drain(Duration::ZERO, PATIENCE)).await;
    assert_eq!(rig.served(), 0);
    let outcomes = rig.outcomes();
    assert_eq!(outcomes.len(), 3);
    for outcome in &outcomes {
        assert_eq!(outcome.rejection, Some(Reason::PeerNotAllowed));
        assert!(outcome.cause.as_ref().unwrap().contains("allowed_users"));
    }
}
