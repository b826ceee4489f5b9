//! Hands the current token out at a Unix socket, to processes of this user only: mode 0600,
//! in a directory that nobody else may enter, and the peer's user id is looked at too.

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

/// Peers at a time.
const MAX_CONNECTIONS: usize = 32;
/// Permission bits of anybody but the owner.
const OTHERS: u32 = 0o077;
/// For a peer to say what it wants.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// A bound socket; its file goes when this is dropped.
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
    /// Binds `path`. A socket that nobody listens at any more is replaced.
    ///
    /// # Errors
    /// When the directory is open to others, something else is there, or somebody listens.
    pub async fn bind(path: &Path) -> Result<Self, TokenSocketError> {
        let wrong = |problem: String| TokenSocketError {
            path: path.to_owned(),
            problem,
        };
        check_directory(path).map_err(wrong)?;
        make_room(path).await.map_err(wrong)?;
        let listener = UnixListener::bind(path).map_err(|e| wrong(e.to_string()))?;
        // Nobody else can have come in: the directory is ours alone.
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))
            .map_err(|e| wrong(e.to_string()))?;
        Ok(Self {
            listener,
            path: path.to_owned(),
        })
    }

    /// Answers with what `current` gives, for ever.
    pub async fn serve<C, F>(&self, current: C)
    where
        C: Fn() -> F + Send + Sync + 'static,
        F: Future<Output = Result<SecretString, String>> + Send,
    {
        let current = Arc::new(current);
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
                return;
            };
            // An error to accept is of that connection alone (accept(2)).
            if let Ok((stream, _)) = self.listener.accept().await
                && is_ours(&stream)
            {
                let current = Arc::clone(&current);
                tokio::spawn(async move {
                    connection(stream, current).await;
                    drop(permit);
                });
            }
        }
    }
}

impl Drop for TokenSocket {
    fn drop(&mut self) {
        // The next one replaces a file left behind.
        let _ = fs::remove_file(&self.path);
    }
}

fn check_directory(path: &Path) -> Result<(), String> {
    let parent = path.parent().unwrap_or_else(|| Path::new("/"));
    let found = fs::metadata(parent).map_err(|e| format!("its directory: {e}"))?;
    let ours = found.uid() == rustix::process::geteuid().as_raw();
    let open_to_others = found.mode() & OTHERS != 0;
    if ours && !open_to_others {
        Ok(())
    } else {
        Err("its directory is open to other users; close it (chmod 700) or choose another".into())
    }
}

async fn make_room(path: &Path) -> Result<(), String> {
    let found = match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found.map_err(|e| e.to_string())?,
    };
    if !found.file_type().is_socket() {
        return Err("there is a file that is no socket; choose another path".into());
    }
    match UnixStream::connect(path).await {
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|e| e.to_string())
        }
        _ => Err("another process listens there".into()),
    }
}

fn is_ours(stream: &UnixStream) -> bool {
    let own = rustix::process::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == own)
}

async fn connection<C, F>(stream: UnixStream, current: Arc<C>)
where
    C: Fn() -> F + Send + Sync + 'static,
    F: Future<Output = Result<SecretString, String>> + Send,
{
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let current = Arc::clone(&current);
        async move { Ok::<_, Infallible>(answer(&request, current.as_ref()).await) }
    });
    // Nobody here can do anything about a broken connection.
    let _ = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn answer<C, F>(request: &hyper::Request<Incoming>, current: &C) -> Response<Full<Bytes>>
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

    async fn ask(path: &Path, line: &str) -> String {
        let mut stream = UnixStream::connect(path).await.unwrap();
        let request = format!("{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn the_current_token_and_nothing_else() {
        let dir = directory();
        let path = dir.path().join("t.sock");
        let socket = TokenSocket::bind(&path).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let served = tokio::spawn(async move {
            socket
                .serve(|| async { Ok(SecretString::from("t0ken")) })
                .await;
        });
        assert!(ask(&path, "GET /token").await.ends_with("\r\n\r\nt0ken\n"));
        let header = ask(&path, "GET /header").await;
        assert!(
            header.ends_with("\r\n\r\nAuthorization: Bearer t0ken\n"),
            "{header}"
        );
        assert!(header.contains("cache-control: no-store"));
        for (line, status) in [("GET /", 404), ("POST /token", 405)] {
            let answer = ask(&path, line).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")) && !answer.contains("t0ken"));
        }
        let second = TokenSocket::bind(&path).await.unwrap_err().to_string();
        assert!(second.contains("another process"), "{second}");
        served.abort();
        let _ = served.await;
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn without_a_token_it_says_why() {
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
        let answer = ask(&path, "GET /token").await;
        assert!(answer.starts_with("HTTP/1.1 503") && answer.ends_with("sign in again\n"));
    }

    #[tokio::test]
    async fn an_open_directory_or_another_file_is_refused() {
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
