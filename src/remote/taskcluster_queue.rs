//! What the queue says of a task to anybody (taskcluster.md §7, `--task-id`).

use http::header::ACCEPT;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Deserialize;
use url::Url;

use super::http_client::{HttpClient, TransportError};

/// The largest task definition that is read, in bytes: the queue takes no more itself.
pub const MAX_TASK_BYTES: usize = 10 * 1024 * 1024;

/// Why a task's scopes are not known.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// Not what a task is called.
    #[error("{0:?} is no task's id: 22 of A-Z a-z 0-9 _ -")]
    Id(String),
    /// The queue cannot be spoken to.
    #[error("the queue cannot be asked for the task: {0}")]
    Transport(#[from] TransportError),
    /// The queue has no such task, or another problem.
    #[error("the queue answered {0} when asked for the task")]
    Status(StatusCode),
    /// The answer is no task.
    #[error("the queue's answer is no task with scopes")]
    HttpResponse,
}

/// The scopes of the task `task_id` of the deployment at `root_url`, asked for without
/// credentials. `client` reads at least [`MAX_TASK_BYTES`].
///
/// # Errors
/// When the queue does not tell; nothing is guessed then.
pub async fn task_scopes(
    client: &HttpClient,
    root_url: &Url,
    task_id: &str,
) -> Result<Vec<String>, TaskError> {
    #[derive(Deserialize)]
    struct Task {
        scopes: Vec<String>,
    }
    // A slugid (RFC 4648 §5 over 16 bytes): nothing in it could lead elsewhere.
    let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    if task_id.len() != 22 || !task_id.bytes().all(fits) {
        return Err(TaskError::Id(task_id.to_owned()));
    }
    let mut url = root_url.clone();
    url.set_path(&format!("/api/queue/v1/task/{task_id}"));
    url.set_query(None);
    let mut headers = HeaderMap::with_capacity(1);
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    let answer = client.get(&url, headers).await?;
    if answer.status != StatusCode::OK {
        return Err(TaskError::Status(answer.status));
    }
    let task: Task = serde_json::from_slice(&answer.body).map_err(|_| TaskError::HttpResponse)?;
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
        })
        .unwrap()
    }

    async fn ask(reply: Reply) -> Result<Vec<String>, TaskError> {
        let peer = peer(reply).await;
        task_scopes(&client(), &peer.url, TASK).await
    }

    #[tokio::test]
    async fn a_tasks_scopes_are_asked_for_without_credentials() {
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
    async fn nothing_is_guessed() {
        for body in [
            "",
            "[]",
            "{}",
            "{\"scopes\":\"a\"}",
            "{\"scopes\":[1]}",
            "<html>",
        ] {
            let said = ask(Reply::json(200, body)).await;
            assert!(matches!(said, Err(TaskError::HttpResponse)), "{body}");
        }
        for status in [204, 303, 401, 404, 500] {
            let said = ask(Reply::json(status, "{\"scopes\":[\"a\"]}")).await;
            assert!(matches!(said, Err(TaskError::Status(_))), "{status}");
        }
        let huge = format!("{{\"scopes\":[\"{}\"]}}", "x".repeat(5000));
        let said = ask(Reply::json(200, &huge)).await;
        assert!(matches!(said, Err(TaskError::Transport(_))));
        let nobody = closed_port().await;
        let said = task_scopes(&client(), &nobody, TASK).await;
        assert!(matches!(said, Err(TaskError::Transport(_))));
        for id in [
            "",
            "../../auth/v1/x",
            "KTBKfEgxR5GdfIIREQIvF/",
            "KTBKfEgxR5GdfIIREQIvFQx",
        ] {
            let said = task_scopes(&client(), &nobody, id).await;
            assert!(matches!(said, Err(TaskError::Id(_))), "{id}");
        }
    }
}
