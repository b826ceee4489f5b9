//! Lingering close: reads what a caller is still sending, so that it receives the last response.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

/// Maximum time to wait for each read.
const MAX_IDLE: Duration = Duration::from_secs(2);
/// Maximum number of bytes read and discarded.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// Reads and discards data until the caller closes its write side, pauses for too long or has
/// sent too much.
pub(in crate::proxy) async fn discard(stream: &mut (impl AsyncRead + Unpin)) {
    let mut scratch = vec![0_u8; 8 * 1024];
    let mut left = MAX_BYTES;
    while left > 0 {
        match timeout(MAX_IDLE, stream.read(&mut scratch)).await {
            Ok(Ok(read)) if read > 0 => left = left.saturating_sub(read),
            _ => return,
        }
    }
}
