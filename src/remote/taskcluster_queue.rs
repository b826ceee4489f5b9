//! Reads a task's scopes from the Taskcluster queue, for `taskcluster-proxy --task-id`.

use http::header::ACCEPT;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Deserialize;
use url::Url;

use super::http_client::{HttpClient, TransportError};

/// The largest task definition accepted, in bytes: the queue's own limit.
pub const MAX_TASK_BYTES: usize = 10 * 1024 * 1024;

/// Why a task's scopes could not be read.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// The task id is malformed.
    #[error("{0:?} is not a task id (22 characters of A-Z a-z 0-9 _ -)")]
    Id(String),
    /// There was no response.
    #[error("cannot read the task from the queue: {0}")]
    Transport(#[from] TransportError),
    /// The queue returned an error.
    #[error("the queue returned {0} for the task")]
    Status(StatusCode),
    /// The response is not a task definition.
    #[error("the queue's response is not a task definition with scopes")]
    InvalidTask,
}

/// Reads the scopes of a task of the deployment at `root_url`, without credentials. `client` must
/// allow responses of [`MAX_TASK_BYTES`].
///
/// # Errors
/// When the queue cannot be reached or its response has no scopes.
pub async fn task_scopes(
    client: &HttpClient,
    root_url: &Url,
    task_id: &str,
) -> Result<Vec<String>, TaskError> {
    #[derive(Deserialize)]
    struct Task {
        scopes: Vec<String>,
    }
    // A slugid is 16 bytes in base64url, so it cannot change the path.
    let valid = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    if task_id.len() != 22 || !task_id.bytes().all(valid) {
        return Err(TaskError::Id(task_id.to_owned()));
    }
    let mut url = root_url.clone();
    url.set_path(&format!("/api/queue/v1/task/{task_id}"));
    url.set_query(None);
    let mut headers = HeaderMap::with_capacity(1);
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    let response = client.get(&url, headers).await?;
    if response.status != StatusCode::OK {
        return Err(TaskError::Status(response.status));
    }
    let task: Task = serde_json::from_slice(&response.body).map_err(|_| TaskError::InvalidTask)?;
    Ok(task.scopes)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::remote::http_client::HttpClientOptions;
    use crate::remote::testing::{Reply, closed_port, peer};

    const TASK: &str = "KTBKfEgxR5GdfIIREQIvFQ";

    fn client() -> HttpClient {
        HttpClient::new(&HttpClientOptions {
            timeout: Duration::from_secs(20),
            max_bytes: 4096,
            ca: None,
            network: crate::network::Network::default(),
        })
        .unwrap()
    }

    async fn scopes_from(reply: Reply) -> Result<Vec<String>, TaskError> {
        let peer = peer(reply).await;
        task_scopes(&client(), &peer.url, TASK).await
    }

    #[tokio::test]
    async fn a_tasks_scopes_are_read_without_credentials() {
        let body = r#"{"provisionerId":"p","scopes":["a","b:*"],"payload":{}}"#;
        let mut peer = peer(Reply::json(200, body)).await;
        let scopes = task_scopes(&client(), &peer.url, TASK).await.unwrap();
        assert_eq!(scopes, ["a", "b:*"]);
        let request = peer.requests.recv().await.unwrap().to_ascii_lowercase();
        let line = format!(
            "get /api/queue/v1/task/{} http/1.1",
            TASK.to_ascii_lowercase()
        );
        assert!(request.starts_with(&line), "{request}");
        assert!(!request.contains("authorization"));
    }

    #[tokio::test]
    async fn anything_but_a_task_with_scopes_is_an_error() {
        for body in [
            "",
            "[]",
            "{}",
            "{\"scopes\":\"a\"}",
            "{\"scopes\":[1]}",
            "<html>",
        ] {
            let result = scopes_from(Reply::json(200, body)).await;
            assert!(matches!(result, Err(TaskError::InvalidTask)), "{body}");
        }
        for status in [204, 303, 401, 404, 500] {
            let result = scopes_from(Reply::json(status, "{\"scopes\":[\"a\"]}")).await;
            assert!(matches!(result, Err(TaskError::Status(_))), "{status}");
        }
        let huge = format!("{{\"scopes\":[\"{}\"]}}", "x".repeat(5000));
        let result = scopes_from(Reply::json(200, &huge)).await;
        assert!(matches!(result, Err(TaskError::Transport(_))));
        let closed = closed_port().await;
        let result = task_scopes(&client(), &closed, TASK).await;
        assert!(matches!(result, Err(TaskError::Transport(_))));
        for id in [
            "",
            "../../auth/v1/x",
            "KTBKfEgxR5GdfIIREQIvF/",
            "KTBKfEgxR5GdfIIREQIvFQx",
        ] {
            let result = task_scopes(&client(), &closed, id).await;
            assert!(matches!(result, Err(TaskError::Id(_))), "{id}");
        }
    }
}
