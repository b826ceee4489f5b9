use super::*;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// A loopback server that sends a fixed response, byte for byte, for each path.
pub(in crate::remote) struct Server {
    pub(in crate::remote) url: Url,
    responses: Arc<Mutex<HashMap<String, String>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub(in crate::remote) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let server = Self {
            url: Url::parse(&url).unwrap(),
            responses: Arc::default(),
            asked: Arc::default(),
        };
        let (responses, asked) = (Arc::clone(&server.responses), Arc::clone(&server.asked));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") && head.len() < 8192 {
                    let Ok(byte) = stream.read_u8().await else {
                        break;
                    };
                    head.push(byte);
                }
                let head = String::from_utf8(head).unwrap();
                let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
                let response = responses.lock().unwrap().get(&path).cloned();
                asked.lock().unwrap().push(path);
                let missing =
                    "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                let response = response.unwrap_or_else(|| missing.into());
                let _ = stream.write_all(response.as_bytes()).await;
            }
        });
        server
    }

    pub(in crate::remote) fn at(&self, path: &str) -> Url {
        self.url.join(path).unwrap()
    }

    pub(in crate::remote) fn serve(&self, path: &str, headers: &str, body: &str) {
        let length = body.len();
        let response = format!(
            "HTTP/1.1 200 OK\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n{body}"
        );
        self.serve_raw(path, &response);
    }

    pub(in crate::remote) fn serve_raw(&self, path: &str, response: &str) {
        self.responses
            .lock()
            .unwrap()
            .insert(path.into(), response.into());
    }

    pub(in crate::remote) fn stop(&self, path: &str) {
        self.responses.lock().unwrap().remove(path);
    }

    /// The paths requested since the last call.
    pub(in crate::remote) fn requested_paths(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

async fn fetched(server: &Server) -> Result<FetchedKeys, KeyFetchError> {
    JwksUriFetcher::new(
        server.at("/keys"),
        key_client(None, &Network::default()).unwrap(),
    )
    .fetch()
    .await
}

#[tokio::test]
async fn the_content_type_is_ignored() {
    let server = Server::start().await;
    for content_type in ["application/json", "application/jwk-set+json", "text/plain"] {
        let headers = format!("content-type: {content_type}\r\n");
        server.serve("/keys", &headers, "{\"keys\":[]}");
        let keys = fetched(&server).await.unwrap();
        assert_eq!(keys.document, b"{\"keys\":[]}");
        assert_eq!(keys.max_age, None);
    }
}

#[tokio::test]
async fn max_age_follows_cache_control_and_age() {
    let server = Server::start().await;
    for (headers, secs) in [
        ("cache-control: public, max-age=300\r\n", Some(300)),
        ("cache-control: Max-Age=\"300\"\r\n", Some(300)),
        (
            "cache-control: public\r\ncache-control: max-age=7\r\n",
            Some(7),
        ),
        ("cache-control: max-age=300\r\nage: 100\r\n", Some(200)),
        ("cache-control: max-age=300\r\nage: 400\r\n", Some(0)),
        ("cache-control: no-cache, max-age=300\r\n", Some(0)),
        ("cache-control: max-age=300, no-store\r\n", Some(0)),
        ("cache-control: max-age=-1\r\n", None),
        ("cache-control: s-maxage=300, max-age=x\r\n", None),
        ("age: 3\r\n", None),
    ] {
        server.serve("/keys", headers, "{}");
        let max_age = fetched(&server).await.unwrap().max_age;
        assert_eq!(max_age, secs.map(Duration::from_secs), "{headers}");
    }
}

#[tokio::test]
async fn redirects_and_errors_are_rejected() {
    let server = Server::start().await;
    server.serve("/elsewhere", "", "{\"keys\":[]}");
    for status in [
        "302 Found",
        "301 Moved",
        "204 No Content",
        "404 Not Found",
        "500 Oops",
    ] {
        let response = format!(
            "HTTP/1.1 {status}\r\nlocation: /elsewhere\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        );
        server.serve_raw("/keys", &response);
        let error = fetched(&server).await.unwrap_err().to_string();
        assert!(error.contains(&status[..3]), "{error}");
    }
    assert!(server.requested_paths().iter().all(|path| path == "/keys"));
}

#[tokio::test]
async fn documents_over_the_size_limit_are_rejected() {
    let server = Server::start().await;
    server.serve("/keys", "", &" ".repeat(MAX_JWKS_BYTES));
    assert_eq!(
        fetched(&server).await.unwrap().document.len(),
        MAX_JWKS_BYTES
    );
    let over = " ".repeat(MAX_JWKS_BYTES + 1);
    server.serve("/keys", "", &over);
    assert!(
        fetched(&server)
            .await
            .unwrap_err()
            .to_string()
            .contains("larger than")
    );
    // Also without a Content-Length.
    let response = format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{over}");
    server.serve_raw("/keys", &response);
    assert!(
        fetched(&server)
            .await
            .unwrap_err()
            .to_string()
            .contains("larger than")
    );
}

#[tokio::test]
async fn plain_http_is_refused_off_loopback() {
    let url = Url::parse("http://example.com/keys").unwrap();
    let error = JwksUriFetcher::new(url, key_client(None, &Network::default()).unwrap())
        .fetch()
        .await
        .unwrap_err();
    assert!(error.to_string().contains("refusing plain http"), "{error}");
}

#[tokio::test]
async fn a_file_is_read_again_each_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("jwks.json");
    let keys = JwksFileFetcher::new(path.clone());
    assert!(
        keys.fetch()
            .await
            .unwrap_err()
            .to_string()
            .contains("jwks.json")
    );
    for content in ["{\"keys\":[]}", "{}"] {
        std::fs::write(&path, content).unwrap();
        assert_eq!(keys.fetch().await.unwrap().document, content.as_bytes());
    }
    std::fs::write(&path, vec![b' '; MAX_JWKS_BYTES]).unwrap();
    assert!(keys.fetch().await.is_ok());
    std::fs::write(&path, vec![b' '; MAX_JWKS_BYTES + 1]).unwrap();
    assert!(
        keys.fetch()
            .await
            .unwrap_err()
            .to_string()
            .contains("256 KiB")
    );
    assert_eq!(keys.fixed_ttl(), Some(FILE_TTL));
    assert!(
        JwksFileFetcher::new(dir.path().into())
            .fetch()
            .await
            .is_err()
    );
}
