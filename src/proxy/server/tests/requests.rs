//! Valid requests, keep-alive and connection limits.

use super::*;
use crate::gateway::reason::Reason;
use crate::proxy::listener::BindError;

#[tokio::test]
async fn valid_targets_reach_the_application_byte_for_byte() {
    let server = TestServer::start_plain().await;
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
        let responses = server.exchange(format!("{head}\r\n{end}").as_bytes()).await;
        assert_eq!(responses.len(), 1, "{head}");
        assert_eq!(responses[0].status, 200, "{head}: {responses:?}");
        let echoed = responses[0].body.split(' ').nth(1);
        assert_eq!(echoed, Some(target), "{head}");
    }
    assert!(server.outcomes().is_empty());
}

/// The parser must neither reject nor change what passes validation.
#[tokio::test]
async fn every_allowed_byte_passes_the_parser_unchanged() {
    let server = TestServer::start_plain().await;
    let mut stream = server.connect().await;
    for byte in (b'!'..=b'~').filter(|b| !b"#\"<>\\`".contains(b)) {
        let byte = char::from(byte);
        let target = format!("/a{byte}b?c{byte}d");
        let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let response = read_response(&mut stream).await;
        assert_eq!(response.body.split(' ').nth(1), Some(target.as_str()));
    }
    for byte in (b'\t'..=b'\xff').filter(|b| *b == b'\t' || (*b >= b' ' && *b != 0x7f)) {
        let field = [b"X: a".as_slice(), &[byte], b"b\r\n"].concat();
        let request = [b"GET / HTTP/1.1\r\nHost: a\r\n", field.as_slice(), b"\r\n"].concat();
        stream.write_all(&request).await.unwrap();
        assert_eq!(read_response(&mut stream).await.status, 200, "{byte}");
    }
    for byte in "!#$%&'*+-.^_`|~09azAZ".chars() {
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\nX{byte}{byte}: y\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        assert_eq!(read_response(&mut stream).await.status, 200, "{byte}");
    }
    let fields = "x: y\r\n".repeat(crate::proxy::validate::MAX_FIELDS - 1);
    let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    assert_eq!(read_response(&mut stream).await.status, 200);
}

#[tokio::test]
async fn a_keep_alive_connection_serves_several_requests() {
    let server = TestServer::start_plain().await;
    let mut stream = server.connect().await;
    for body in ["", "x", "hello"] {
        let request = format!(
            "POST /n HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let response = read_response(&mut stream).await;
        assert_eq!(
            response.body,
            format!("POST /n {} Some(127.0.0.1) false", body.len())
        );
    }
}

#[tokio::test]
async fn pipelined_requests_are_served_in_order_and_each_is_checked() {
    let server = TestServer::start_plain().await;
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
    let mut stream = server.connect().await;
    stream.write_all(pipeline.as_bytes()).await.unwrap();
    for expected in ["GET /1 0", "POST /2 5", "POST /3 19", "GET /u 0"] {
        let response = read_response(&mut stream).await;
        assert!(
            response.body.starts_with(expected),
            "{expected}: {response:?}"
        );
    }
    let mut rest = Vec::new();
    within_timeout(stream.read_to_end(&mut rest)).await.unwrap();
    let rest = String::from_utf8(rest).unwrap();
    assert!(rest.starts_with("HTTP/1.1 200"));
    assert_eq!(rest.matches("HTTP/1.1 400").count(), 1);
    assert_eq!(server.served(), 5);
    assert_eq!(server.outcomes().len(), 1);
}

#[tokio::test]
async fn a_request_received_byte_by_byte_is_served() {
    let server = TestServer::start_plain().await;
    let mut stream = server.connect().await;
    stream.set_nodelay(true).unwrap();
    let request = "\r\nPOST /slow HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
                   2\r\nab\r\n0\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n";
    for byte in request.bytes() {
        stream.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert!(
        read_response(&mut stream)
            .await
            .body
            .starts_with("POST /slow 2")
    );
    assert!(
        read_response(&mut stream)
            .await
            .body
            .starts_with("GET /next 0")
    );
}

#[tokio::test]
async fn many_pipelined_requests_are_served_in_order() {
    let server = TestServer::start_plain().await;
    let (mut reader, mut writer) = server.connect().await.into_split();
    let sending = tokio::spawn(async move {
        for n in 0..2000 {
            let request = format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n");
            writer.write_all(request.as_bytes()).await.unwrap();
        }
        writer
    });
    for n in 0..2000 {
        let response = read_response(&mut reader).await;
        assert!(
            response.body.starts_with(&format!("GET /{n} 0")),
            "{response:?}"
        );
    }
    sending.await.unwrap();
}

#[tokio::test]
async fn an_early_response_reaches_a_caller_that_is_still_uploading() {
    let server = TestServer::start_plain().await;
    let mut stream = server.connect().await;
    let length = 4 * 1024 * 1024;
    let head = format!("POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    within_timeout(stream.write_all(&vec![b'x'; length]))
        .await
        .unwrap();
    let responses = read_responses(&mut stream).await;
    assert_eq!(responses[0].status, 200);
    assert_eq!(responses[0].header("connection"), Some("close"));
}

#[tokio::test]
async fn a_rejection_reaches_a_caller_that_is_still_uploading() {
    let server = TestServer::start_plain().await;
    let mut stream = server.connect().await;
    let length = 4 * 1024 * 1024;
    let head = format!("POST /../x HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    within_timeout(stream.write_all(&vec![b'x'; length]))
        .await
        .unwrap();
    assert_eq!(read_responses(&mut stream).await[0].status, 400);
}

#[tokio::test]
async fn a_caller_that_reads_nothing_hits_the_write_timeout() {
    let limits = Limits {
        body_timeout: Duration::from_millis(100),
        ..limits()
    };
    let mut server = TestServer::start(&[tcp()], &limits).await;
    let mut stream = server.connect().await;
    stream
        .write_all(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(within_timeout(server.ended.recv()).await, Some(true));
}

#[tokio::test]
async fn a_caller_that_stops_sending_its_body_hits_the_read_timeout() {
    let limits = Limits {
        body_timeout: Duration::from_millis(100),
        ..limits()
    };
    let mut server = TestServer::start(&[tcp()], &limits).await;
    let mut stream = server.connect().await;
    stream
        .write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel")
        .await
        .unwrap();
    assert_eq!(within_timeout(server.ended.recv()).await, Some(true));
}

#[tokio::test]
async fn connections_over_the_limit_get_a_503() {
    let limits = Limits {
        connections: 1,
        ..limits()
    };
    let server = TestServer::start(&[tcp()], &limits).await;
    let mut first = server.connect().await;
    first
        .write_all(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    within_timeout(server.entered.notified()).await;

    let responses = server.exchange(b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(responses[0].status, 503);
    assert_eq!(responses[0].header("x-hawkgate-error"), Some("overloaded"));
    assert!(responses[0].header("retry-after").is_some());
    assert_eq!(server.served(), 1);
    assert_eq!(server.outcomes().len(), 1);

    server.release.notify_one();
    drop(first);
    // A connection is accepted again once the server has noticed.
    within_timeout(async {
        loop {
            let mut next = server.connect().await;
            next.write_all(b"GET /3 HTTP/1.1\r\nHost: a\r\n\r\n")
                .await
                .unwrap();
            if read_response(&mut next).await.status == 200 {
                break;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_unix_socket_is_served_and_removed_on_shutdown() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("h.sock");
    let listener = Listener {
        address: Address::Unix(path.clone()),
        ..tcp()
    };
    let server = TestServer::start(&[listener], &limits()).await;
    let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
    stream
        .write_all(b"GET /u HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(read_response(&mut stream).await.body, "GET /u 0 None false");
    within_timeout(server.handle.drain(Duration::ZERO, TEST_TIMEOUT)).await;
    assert!(!path.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn pinned_workers_serve_connections() {
    let workers = Workers::pinned(2).unwrap();
    let server = TestServer::start_on(&[tcp()], &limits(), workers).await;
    for _ in 0..4 {
        let responses = server
            .exchange(b"GET /p HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            .await;
        assert_eq!(responses[0].status, 200);
    }
    within_timeout(server.handle.drain(Duration::ZERO, TEST_TIMEOUT)).await;
    assert_eq!(server.served(), 4);
}

#[tokio::test]
async fn a_bind_error_names_the_address_in_use() {
    let server = TestServer::start_plain().await;
    let listener = Listener {
        address: server.addresses[0].clone(),
        ..tcp()
    };
    let Err(BindError::Listen { address, .. }) = BoundServer::bind(&[listener], &limits()).await
    else {
        panic!("bound twice");
    };
    assert!(address.starts_with("127.0.0.1:"));
}

#[tokio::test]
async fn peers_that_are_not_allowed_get_a_403_before_anything_is_read() {
    let restricted = |address: Address, h2c: bool| Listener {
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
        restricted(any.clone(), false),
        restricted(Address::Unix(path.clone()), false),
        restricted(any, true),
    ];
    let server = TestServer::start(&listeners, &limits()).await;
    // Nothing has been sent yet.
    let mut stream = server.connect().await;
    let responses = read_responses(&mut stream).await;
    assert_eq!(responses[0].status, 403);
    assert_eq!(
        responses[0].header("x-hawkgate-error"),
        Some("peer_not_allowed")
    );
    drop(stream);
    let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
    assert_eq!(read_responses(&mut stream).await[0].status, 403);
    drop(stream);
    let Address::Tcp(h2c) = server.addresses[2] else {
        panic!("no TCP listener")
    };
    let mut stream = TcpStream::connect(h2c).await.unwrap();
    let mut bytes = Vec::new();
    within_timeout(stream.read_to_end(&mut bytes))
        .await
        .unwrap();
    assert!(bytes.is_empty(), "HTTP/1 is not spoken there");
    drop(stream);
    within_timeout(server.handle.drain(Duration::ZERO, TEST_TIMEOUT)).await;
    assert_eq!(server.served(), 0);
    let outcomes = server.outcomes();
    assert_eq!(outcomes.len(), 3);
    for outcome in &outcomes {
        assert_eq!(outcome.rejection, Some(Reason::PeerNotAllowed));
        assert!(outcome.cause.as_ref().unwrap().contains("allowed_users"));
    }
}
