//! Requests in HTTP/1.0, which old programs and health checks send.

use hawkgate::proxy::settings::Address;

use crate::support::client::{Client, Response};
use crate::support::gateway::TestGateway;

const OPEN: &str = r#"
[[route]]
name = "open"
path = "/"
upstream = "http://127.0.0.1:9"
anonymous = true
"#;

/// Sends these bytes and reads the response, after which the connection must end.
async fn exchange(address: &Address, request: &str) -> Response {
    let mut client = Client::connect(address).await;
    client.send(request.as_bytes()).await.unwrap();
    let method = request.split(' ').next().unwrap();
    let response = client.response(method).await.unwrap();
    assert!(client.rest().await.unwrap().is_empty(), "{request}");
    response
}

#[tokio::test]
async fn health_checks_need_no_host() {
    let gateway = TestGateway::start(OPEN).await;
    let admin = &gateway.running.admin;
    for (request, status) in [
        ("GET /readyz HTTP/1.0", 200),
        ("GET /healthz HTTP/1.0", 200),
        ("HEAD /readyz HTTP/1.0", 200),
        ("GET /metrics HTTP/1.0", 200),
        ("GET /readyz HTTP/1.0\r\nHost: localhost", 200),
        ("OPTIONS / HTTP/1.0", 404),
        // Web pages, and a page that a forged name leads here.
        ("GET /readyz HTTP/1.0\r\nOrigin: http://evil.example", 403),
        ("GET /readyz HTTP/1.0\r\nHost: evil.example", 403),
        // In HTTP/1.1, Host is required.
        ("GET /readyz HTTP/1.1", 400),
    ] {
        let response = exchange(admin, &format!("{request}\r\n\r\n")).await;
        assert_eq!(response.status, status, "{request}");
    }
}
