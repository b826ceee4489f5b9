//! Lingering close: closes a connection so that the last response reaches a caller that is still
//! sending.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::proxy::connection::ClosedConn;

/// Maximum time to wait for each read.
const MAX_IDLE: Duration = Duration::from_secs(2);
/// Maximum number of bytes read and discarded.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// Sends the unsent bytes and closes the write side, cleanly if the response is complete. Keeps
/// reading while the caller may still be sending, because data that arrives at a closed socket
/// makes the kernel reset the connection, and the caller might never receive the response (RFC
/// 9112 §9.6). Closes the connection after `limit` in any case.
pub(super) async fn lingering_close(closed: ClosedConn, limit: Duration) {
    let ClosedConn {
        mut stream,
        unsent,
        response_complete,
        unread_input,
    } = closed;
    let closing = async {
        if !unsent.is_empty() && stream.write_all(&unsent).await.is_err() {
            return;
        }
        if stream.flush().await.is_err() {
            return;
        }
        // Without TLS, a clean close and a truncation look the same.
        if response_complete || stream.get_ssl_digest().is_none() {
            let _ = AsyncWriteExt::shutdown(&mut stream).await;
        }
        if unread_input {
            discard(&mut stream).await;
        }
    };
    // On timeout or too much data, the connection is reset.
    let _ = timeout(limit, closing).await;
}

/// Reads and discards data until the caller closes its write side, pauses for too long or has
/// sent too much.
pub(super) async fn discard(stream: &mut (impl tokio::io::AsyncRead + Unpin)) {
    let mut scratch = vec![0_u8; 8 * 1024];
    let mut left = MAX_BYTES;
    while left > 0 {
        match timeout(MAX_IDLE, stream.read(&mut scratch)).await {
            Ok(Ok(read)) if read > 0 => left = left.saturating_sub(read),
            _ => return,
        }
    }
}
