use std::sync::Arc;

use super::*;
use crate::remote::testing::{Reply, closed_port, peer};

fn options() -> HttpClientOptions {
    HttpClientOptions {
        timeout: Duration::from_secs(30),
        max_bytes: 1000,
        ca: None,
        network: crate::network::Network::default(),
    }
}

fn client() -> HttpClient {
    HttpClient::new(&options()).unwrap()
}

async fn get(reply: Reply) -> Result<HttpResponse, TransportError> {
    let peer = peer(reply).await;
    client().get(&peer.url, HeaderMap::new()).await
}

fn chunked(body: &[u8]) -> Reply {
    let mut bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for chunk in body.chunks(100) {
        bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    Reply::Bytes(bytes)
}

#[tokio::test]
async fn the_whole_response_is_read() {
    let answer = get(Reply::new(207, &[("X-Word", "yes")], "body"))
        .await
        .unwrap();
    assert_eq!(answer.status.as_u16(), 207);
    assert_eq!(
        answer.header(&HeaderName::from_static("x-word")),
        Some("yes")
    );
    assert_eq!(answer.body, "body");
}

#[tokio::test]
async fn the_user_agent_and_given_headers_are_sent() {
    let mut peer = peer(Reply::new(200, &[], "")).await;
    let url = peer.url.join("/a%2Fb?c=d").unwrap();
    let mut headers = HeaderMap::new();
    headers.insert("x-one", HeaderValue::from_static("1"));
    client().get(&url, headers).await.unwrap();
    let request = peer.requests.recv().await.unwrap();
    assert!(
        request.starts_with("GET /a%2Fb?c=d HTTP/1.1\r\n"),
        "{request}"
    );
    let request = request.to_lowercase();
    assert!(request.contains("\r\nx-one: 1\r\n"), "{request}");
    assert!(request.contains("\r\nuser-agent: hawkgate/"), "{request}");
    for absent in ["cookie", "referer"] {
        assert!(!request.contains(absent), "{request}");
    }
}

#[tokio::test]
async fn post_form_sends_a_urlencoded_body() {
    let mut peer = peer(Reply::new(200, &[], "")).await;
    let form = [("grant_type", "a b"), ("x&y", "=ä")];
    client()
        .post_form(&peer.url, HeaderMap::new(), &form)
        .await
        .unwrap();
    let request = peer.requests.recv().await.unwrap();
    assert!(request.starts_with("POST / HTTP/1.1\r\n"), "{request}");
    assert!(
        request.ends_with("\r\n\r\ngrant_type=a+b&x%26y=%3D%C3%A4"),
        "{request}"
    );
    assert!(
        request
            .to_lowercase()
            .contains("\r\ncontent-type: application/x-www-form-urlencoded\r\n"),
        "{request}"
    );
}

#[tokio::test]
async fn the_size_limit_is_exact_with_and_without_a_content_length() {
    for (length, fits) in [(999, true), (1000, true), (1001, false), (100_000, false)] {
        let body = vec![b'x'; length];
        let until_close = [b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", &body[..]].concat();
        for reply in [
            Reply::new(200, &[], &body),
            chunked(&body),
            Reply::Bytes(until_close),
        ] {
            match get(reply.clone()).await {
                Ok(answer) => assert!(fits && answer.body.len() == length, "{length}"),
                Err(TransportError::TooLarge { limit, .. }) => assert!(!fits && limit == 1000),
                Err(other) => panic!("{length}: {other}"),
            }
        }
    }
}

#[tokio::test]
async fn a_content_length_over_the_limit_is_rejected_at_once() {
    let reply = Reply::Stall(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n".to_vec());
    let error = get(reply).await.unwrap_err();
    assert!(matches!(error, TransportError::TooLarge { .. }), "{error}");
}

#[tokio::test]
async fn redirects_are_returned_not_followed() {
    let target = peer(Reply::new(200, &[], "never")).await;
    for status in [301, 302, 303, 307, 308] {
        let location = target.url.to_string();
        let answer = get(Reply::new(status, &[("Location", &location)], ""))
            .await
            .unwrap();
        assert_eq!(answer.status.as_u16(), status);
    }
    let mut requests = target.requests;
    assert!(requests.try_recv().is_err(), "a redirect was followed");
}

#[tokio::test]
async fn the_timeout_covers_head_and_body() {
    let client = HttpClient::new(&HttpClientOptions {
        timeout: Duration::from_millis(50),
        ..options()
    })
    .unwrap();
    for start in [
        &b""[..],
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
    ] {
        let peer = peer(Reply::Stall(start.to_vec())).await;
        let error = client.get(&peer.url, HeaderMap::new()).await.unwrap_err();
        assert!(matches!(error, TransportError::Timeout { .. }), "{error}");
        assert!(error.to_string().contains("50ms"), "{error}");
    }
}

#[tokio::test]
async fn malformed_responses_are_connection_errors() {
    for bytes in [
        &b""[..],
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ] {
        let error = get(Reply::Bytes(bytes.to_vec())).await.unwrap_err();
        assert!(
            matches!(error, TransportError::Connection { .. }),
            "{error}"
        );
    }
}

#[tokio::test]
async fn errors_name_the_host_and_neither_query_nor_header() {
    let mut url = closed_port().await;
    url.set_path("/secret-path");
    url.set_query(Some("code=hunter2"));
    url.set_username("hunter2").unwrap();
    let mut headers = HeaderMap::new();
    headers.insert("authorization", HeaderValue::from_static("Bearer hunter2"));
    let error = client().get(&url, headers).await.unwrap_err();
    assert!(
        matches!(error, TransportError::Connection { .. }),
        "{error}"
    );
    let text = format!("{error} {error:?}");
    let port = url.port().unwrap().to_string();
    assert!(text.contains("127.0.0.1") && text.contains(&port), "{text}");
    assert!(
        !text.contains("hunter2") && !text.contains("secret-path"),
        "{text}"
    );
}

#[tokio::test]
async fn plain_http_is_refused_off_loopback() {
    for url in [
        "http://example.com/",
        "http://localhost.example.com/",
        "http://127.0.0.1.example.com/",
        "http://10.0.0.1/",
        "http://[2001:db8::1]/",
        "http://0.0.0.0/",
        "ftp://example.com/",
    ] {
        let error = client()
            .get(&url.parse().unwrap(), HeaderMap::new())
            .await
            .unwrap_err();
        assert!(
            matches!(error, TransportError::Plaintext(_)),
            "{url}: {error}"
        );
    }
    for url in [
        "http://localhost/",
        "http://127.0.0.1/",
        "http://127.9.9.9:80/",
        "http://[::1]/",
    ] {
        assert!(is_loopback(&url.parse().unwrap()), "{url}");
    }
}

#[test]
fn a_ca_file_without_certificates_is_rejected() {
    let dir = tempfile::tempdir().unwrap();
    let with = |ca: PathBuf| {
        HttpClient::new(&HttpClientOptions {
            ca: Some(ca),
            ..options()
        })
    };
    let path = dir.path().join("ca.pem");
    let error = with(path.clone()).unwrap_err().to_string();
    assert!(
        error.contains("ca.pem") && error.contains("cannot be read"),
        "{error}"
    );
    for content in [
        "",
        "no PEM at all",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        "-----BEGIN CERTIFICATE-----\n%%%%\n-----END CERTIFICATE-----\n",
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
    ] {
        std::fs::write(&path, content).unwrap();
        let error = with(path.clone()).unwrap_err();
        assert!(
            matches!(error, TransportError::Tls(_)),
            "{content:?}: {error}"
        );
    }
    let ca = rcgen::generate_simple_self_signed(["ca.example".to_owned()]).unwrap();
    std::fs::write(&path, ca.cert.pem()).unwrap();
    with(path).unwrap();
}

#[tokio::test]
async fn only_the_given_ca_is_trusted() {
    let made = |name: &str| rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let (ours, other) = (made("localhost"), made("localhost"));
    let key = rustls::pki_types::PrivateKeyDer::try_from(ours.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![ours.cert.der().clone()], key)
        .unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url: Url = format!(
        "https://localhost:{}/",
        listener.local_addr().unwrap().port()
    )
    .parse()
    .unwrap();
    std::thread::spawn(move || serve_tls(&listener, &Arc::new(config)));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ca.pem");
    for (trusted, good) in [(&ours, true), (&other, false)] {
        std::fs::write(&path, trusted.cert.pem()).unwrap();
        let client = HttpClient::new(&HttpClientOptions {
            ca: Some(path.clone()),
            ..options()
        })
        .unwrap();
        let result = client.get(&url, HeaderMap::new()).await;
        assert_eq!(result.is_ok(), good, "{result:?}");
    }
    // The system's roots do not trust it.
    let result = client().get(&url, HeaderMap::new()).await;
    assert!(
        matches!(result, Err(TransportError::Connection { .. })),
        "{result:?}"
    );
}

fn serve_tls(listener: &std::net::TcpListener, config: &Arc<rustls::ServerConfig>) {
    use std::io::{Read, Write};
    for stream in listener.incoming() {
        let (Ok(mut stream), Ok(mut tls)) = (stream, rustls::ServerConnection::new(config.clone()))
        else {
            return;
        };
        let mut tls = rustls::Stream::new(&mut tls, &mut stream);
        let mut buffer = [0; 4096];
        if tls.read(&mut buffer).is_ok() {
            let _ = tls.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
    }
}

fn response(headers: &[(&str, &str)]) -> HttpResponse {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let name: HeaderName = name.parse().unwrap();
        map.insert(name, value.parse().unwrap());
    }
    HttpResponse {
        status: StatusCode::OK,
        headers: map,
        body: Bytes::from_static(b"hunter2"),
    }
}

#[test]
fn retry_after_is_read_as_seconds_or_a_date() {
    let date = ("date", "Fri, 20 Nov 2026 19:10:09 GMT");
    for (headers, secs) in [
        (vec![("retry-after", "120")], Some(120)),
        (vec![("retry-after", " 0 ")], Some(0)),
        (
            vec![("retry-after", "Fri, 20 Nov 2026 19:11:09 GMT"), date],
            Some(60),
        ),
        // A date in the past.
        (
            vec![("retry-after", "Fri, 20 Nov 2026 19:00:00 GMT"), date],
            Some(0),
        ),
        // A date without `Date`.
        (vec![("retry-after", "Fri, 20 Nov 2026 19:11:09 GMT")], None),
        (vec![("retry-after", "-1"), date], None),
        (vec![("retry-after", "soon"), date], None),
        (vec![], None),
    ] {
        let read = response(&headers).retry_after();
        assert_eq!(read, secs.map(Duration::from_secs), "{headers:?}");
    }
    let endless = response(&[("retry-after", "18446744073709551615")]).retry_after();
    assert_eq!(endless, Some(Duration::from_secs(u64::MAX)));
}

#[test]
fn date_headers_are_parsed() {
    let read = |text: &str| response(&[("date", text)]).date();
    let expected = Some(UnixMillis::from_secs(1_795_201_809));
    assert_eq!(read("Fri, 20 Nov 2026 19:10:09 GMT"), expected);
    assert_eq!(read("Friday, 20-Nov-26 19:10:09 GMT"), expected);
    assert_eq!(read("Fri Nov 20 19:10:09 2026"), expected);
    for text in [
        "",
        "now",
        "2026-11-20T19:10:09Z",
        "Fri, 31 Feb 2026 19:10:09 GMT",
    ] {
        assert_eq!(read(text), None, "{text}");
    }
}

#[test]
fn debug_shows_no_body_and_no_header() {
    let shown = format!("{:?}", response(&[("set-cookie", "hunter2")]));
    assert_eq!(shown, "HttpResponse(200 OK, 7 bytes)");
}

/// A client whose requests go through a proxy at `proxy`, with credentials.
fn through(proxy: &Url) -> HttpClient {
    let value = proxy.as_str().replace("//", "//alice:hunter2@");
    let variable = |name: &str| (name == "ALL_PROXY").then(|| value.clone());
    let network = Network::from_variables(variable).unwrap();
    HttpClient::new(&HttpClientOptions {
        network,
        ..options()
    })
    .unwrap()
}

#[tokio::test]
async fn requests_go_through_the_proxy_with_its_credentials() {
    const CREDENTIALS: &str = "proxy-authorization: basic yWxpY2U6aHVudGVyMg==";
    let mut proxy = peer(Reply::json(200, "{}")).await;
    let plain: Url = "http://127.0.0.1:9/x?y".parse().unwrap();
    let response = through(&proxy.url).get(&plain, HeaderMap::new()).await;
    assert_eq!(response.unwrap().status, 200);
    let request = proxy.requests.recv().await.unwrap();
    assert!(
        request.starts_with("GET http://127.0.0.1:9/x?y HTTP/1.1\r\n"),
        "{request}"
    );
    let lower = |text: &str| text.to_ascii_lowercase();
    assert!(lower(&request).contains(&lower(CREDENTIALS)), "{request}");

    let target: Url = "https://idp.test:8443/x".parse().unwrap();
    let error = through(&proxy.url).get(&target, HeaderMap::new()).await;
    // The proxy opens a tunnel, in which nobody speaks TLS.
    let error = error.unwrap_err().to_string();
    assert!(error.starts_with("idp.test:8443: "), "{error}");
    assert!(!error.contains("the outgoing proxy"), "{error}");
    let request = proxy.requests.recv().await.unwrap();
    assert!(
        request.starts_with("CONNECT idp.test:8443 HTTP/1.1\r\n"),
        "{request}"
    );
    assert!(lower(&request).contains(&lower(CREDENTIALS)), "{request}");
}

#[tokio::test]
async fn a_proxy_that_fails_is_named_without_its_credentials() {
    let plain: Url = "http://127.0.0.1:9/".parse().unwrap();
    let tunnelled: Url = "https://idp.test/".parse().unwrap();
    let other = Reply::new(502, &[], "hunter2");
    let denied = Reply::new(407, &[], "hunter2");
    for (reply, target, problem) in [
        (
            Some(denied.clone()),
            &plain,
            "requires valid credentials (407)",
        ),
        (Some(denied), &tunnelled, "requires valid credentials (407)"),
        (Some(other), &tunnelled, "opened no tunnel to it"),
        (
            Some(Reply::Bytes(Vec::new())),
            &tunnelled,
            "closed the connection",
        ),
        (None, &plain, "cannot be reached: connection refused"),
        (None, &tunnelled, "cannot be reached: connection refused"),
    ] {
        let proxy = match reply {
            Some(reply) => peer(reply).await.url,
            None => closed_port().await,
        };
        let client = through(&proxy);
        let sent = client.request(Method::GET, target, HeaderMap::new(), Bytes::new());
        let failed = sent.await.unwrap_err();
        assert!(!failed.maybe_processed, "{failed:?}");
        let error = failed.error.to_string();
        let name = format!(
            "the outgoing proxy {} {problem}",
            proxy.as_str().trim_end_matches('/')
        );
        assert!(error.contains(&name), "{error}");
        assert!(!format!("{error} {failed:?} {client:?}").contains("hunter2"));
        let without_host = failed.error.without_host();
        assert!(!without_host.contains("idp.test"), "{without_host}");
        assert!(
            without_host.starts_with("the outgoing proxy"),
            "{without_host}"
        );
    }
}

#[tokio::test]
async fn responses_are_decoded_within_the_limit() {
    let gzip = |text: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        std::io::Write::write_all(&mut encoder, text).unwrap();
        encoder.finish().unwrap()
    };
    let encoded = [("Content-Encoding", "gzip")];
    let client = HttpClient::new(&options()).unwrap();
    let mut server = peer(Reply::new(200, &encoded, gzip(b"\xef\xbb\xbf{}"))).await;
    let response = client.get(&server.url, HeaderMap::new()).await.unwrap();
    assert_eq!(response.body, "{}");
    let request = server.requests.recv().await.unwrap();
    assert!(
        request.contains("accept-encoding: identity\r\n"),
        "{request}"
    );

    let bomb = peer(Reply::new(200, &encoded, gzip(&[b' '; 1001]))).await;
    let error = client.get(&bomb.url, HeaderMap::new()).await.unwrap_err();
    assert!(
        matches!(error, TransportError::TooLarge { limit: 1000, .. }),
        "{error}"
    );

    let brotli = peer(Reply::new(200, &[("Content-Encoding", "br")], "x")).await;
    let error = client.get(&brotli.url, HeaderMap::new()).await.unwrap_err();
    assert!(error.to_string().contains("Content-Encoding"), "{error}");
}
