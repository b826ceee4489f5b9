//! Serves the current token over HTTP on a Unix socket, to processes of this user only: the
//! socket has mode 0600 in a private directory, and the peer's user id is checked as well.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use crate::secret::SecretString;

/// The most connections served at a time.
const MAX_CONNECTIONS: usize = 32;
/// Permission bits of group and others.
const GROUP_AND_OTHERS: u32 = 0o077;
/// The timeout for receiving a request head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// A bound socket. Dropping it removes the socket file.
#[derive(Debug)]
pub struct TokenSocket {
    listener: UnixListener,
    path: PathBuf,
}

/// Why a socket could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", .path.display())]
pub struct TokenSocketError {
    path: PathBuf,
    problem: String,
}

impl TokenSocket {
    /// Binds `path`, replacing a stale socket.
    ///
    /// # Errors
    /// When other users have access to the directory, the path is not a socket, or another
    /// process is listening on it.
    pub async fn bind(path: &Path) -> Result<Self, TokenSocketError> {
        let error = |problem: String| TokenSocketError {
            path: path.to_owned(),
            problem,
        };
        check_directory(path).map_err(error)?;
        remove_stale_socket(path).await.map_err(error)?;
        let listener = UnixListener::bind(path).map_err(|e| error(e.to_string()))?;
        // No one can have connected in between, because the directory is private.
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))
            .map_err(|e| error(e.to_string()))?;
        Ok(Self {
            listener,
            path: path.to_owned(),
        })
    }

    /// Serves the token returned by `current`, forever.
    pub async fn serve<C, F>(&self, current: C)
    where
        C: Fn() -> F + Send + Sync + 'static,
        F: Future<Output = Result<SecretString, String>> + Send,
    {
        let current = Arc::new(current);
        let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let Ok(permit) = Arc::clone(&connections).acquire_owned().await else {
                return;
            };
            // Accept errors concern only that connection (accept(2)).
            if let Ok((stream, _)) = self.listener.accept().await
                && is_same_user(&stream)
            {
                let current = Arc::clone(&current);
                tokio::spawn(async move {
                    serve_connection(stream, current).await;
                    drop(permit);
                });
            }
        }
    }
}

impl Drop for TokenSocket {
    fn drop(&mut self) {
        // If this fails, the next bind replaces the file.
        let _ = fs::remove_file(&self.path);
    }
}

fn check_directory(path: &Path) -> Result<(), String> {
    let parent = path.parent().unwrap_or_else(|| Path::new("/"));
    let metadata = fs::metadata(parent).map_err(|e| format!("its directory: {e}"))?;
    let owned = metadata.uid() == rustix::process::geteuid().as_raw();
    let open_to_others = metadata.mode() & GROUP_AND_OTHERS != 0;
    if owned && !open_to_others {
        Ok(())
    } else {
        Err("other users have access to its directory; restrict it (chmod 700) or choose another one".into())
    }
}

async fn remove_stale_socket(path: &Path) -> Result<(), String> {
    let metadata = match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        metadata => metadata.map_err(|e| e.to_string())?,
    };
    if !metadata.file_type().is_socket() {
        return Err("exists and is not a socket; choose another path".into());
    }
    match UnixStream::connect(path).await {
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|e| e.to_string())
        }
        _ => Err("another process is listening on it".into()),
    }
}

fn is_same_user(stream: &UnixStream) -> bool {
    let own = rustix::process::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == own)
}

async fn serve_connection<C, F>(stream: UnixStream, current: Arc<C>)
where
    C: Fn() -> F + Send + Sync + 'static,
    F: Future<Output = Result<SecretString, String>> + Send,
{
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let current = Arc::clone(&current);
        async move { Ok::<_, Infallible>(handle(&request, current.as_ref()).await) }
    });
    // A broken connection needs no handling.
    let _ = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn handle<C, F>(request: &hyper::Request<Incoming>, current: &C) -> Response<Full<Bytes>>
where
    C: Fn() -> F,
    F: Future<Output = Result<SecretString, String>>,
{
    let prefix = match request.uri().path() {
        "/token" => "",
        "/header" => "Authorization: Bearer ",
        _ => return text(StatusCode::NOT_FOUND, "GET /token or /header\n".into()),
    };
    if request.method() != Method::GET {
        return text(StatusCode::METHOD_NOT_ALLOWED, "GET only\n".into());
    }
    match current().await {
        Ok(token) => text(StatusCode::OK, format!("{prefix}{}\n", token.expose())),
        Err(problem) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{problem}\n")),
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    for (name, value) in [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
    }
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn directory() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        dir
    }

    async fn request(path: &Path, line: &str) -> String {
        let mut stream = UnixStream::connect(path).await.unwrap();
        let request = format!("{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        response
    }

    #[tokio::test]
    async fn the_current_token_is_served_at_two_paths_only() {
        let dir = directory();
        let path = dir.path().join("t.sock");
        let socket = TokenSocket::bind(&path).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let served = tokio::spawn(async move {
            socket
                .serve(|| async { Ok(SecretString::from("t0ken")) })
                .await;
        });
        assert!(
            request(&path, "GET /token")
                .await
                .ends_with("\r\n\r\nt0ken\n")
        );
        let header = request(&path, "GET /header").await;
        assert!(
            header.ends_with("\r\n\r\nAuthorization: Bearer t0ken\n"),
            "{header}"
        );
        assert!(header.contains("cache-control: no-store"));
        for (line, status) in [("GET /", 404), ("POST /token", 405)] {
            let response = request(&path, line).await;
            assert!(
                response.starts_with(&format!("HTTP/1.1 {status}")) && !response.contains("t0ken")
            );
        }
        let second = TokenSocket::bind(&path).await.unwrap_err().to_string();
        assert!(second.contains("another process"), "{second}");
        served.abort();
        let _ = served.await;
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn without_a_token_the_response_is_503_with_the_reason() {
        let dir = directory();
        let path = dir.path().join("t.sock");
        // Left behind by a crash.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let socket = TokenSocket::bind(&path).await.unwrap();
        tokio::spawn(async move {
            socket
                .serve(|| async { Err("sign in again".to_owned()) })
                .await;
        });
        let response = request(&path, "GET /token").await;
        assert!(response.starts_with("HTTP/1.1 503") && response.ends_with("sign in again\n"));
    }

    #[tokio::test]
    async fn an_accessible_directory_or_another_file_is_rejected() {
        let dir = directory();
        let path = dir.path().join("t.sock");
        fs::write(&path, "x").unwrap();
        assert!(TokenSocket::bind(&path).await.is_err());
        fs::remove_file(&path).unwrap();
        for mode in [0o755, 0o710, 0o701] {
            fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
            let error = TokenSocket::bind(&path).await.unwrap_err().to_string();
            assert!(error.contains("chmod 700"), "{error}");
        }
    }
}
