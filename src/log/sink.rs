//! A bounded buffer of log lines and the thread that writes it out.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Maximum number of bytes waiting to be written; a line that would exceed it is dropped and
/// counted. The batch being written may be as large again.
pub(super) const MAX_PENDING: usize = 1024 * 1024;

/// How long lines are collected into one write: at 20,000 lines per second, one write per
/// line would cost more than the requests themselves.
const BATCH_INTERVAL: Duration = Duration::from_millis(5);

/// The sending half. Cheap to clone; the writer thread exits when the last clone is dropped.
#[derive(Clone, Debug)]
pub(super) struct Sink(Arc<Handle>);

#[derive(Debug)]
struct Handle(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    written: Condvar,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    pending: Vec<u8>,
    dropped_since_write: u64,
    writing: bool,
    flush_requested: bool,
    closed: bool,
}

impl Sink {
    /// Starts the thread that writes to `out`.
    pub(super) fn start(out: Box<dyn Write + Send>) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let writer = shared.clone();
        std::thread::Builder::new()
            .name("log".into())
            .spawn(move || writer.write_to(out))?;
        Ok(Self(Arc::new(Handle(shared))))
    }

    /// Queues whole lines. Never waits for stderr.
    pub(super) fn push(&self, lines: &[u8]) {
        let shared = &self.0.0;
        let mut state = shared.lock();
        if state.pending.len() + lines.len() > MAX_PENDING {
            state.dropped_since_write += 1;
            shared.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let first = state.pending.is_empty();
        state.pending.extend_from_slice(lines);
        drop(state);
        if first {
            shared.wake.notify_one();
        }
    }

    pub(super) fn dropped(&self) -> u64 {
        self.0.0.dropped.load(Ordering::Relaxed)
    }

    /// Waits, for at most `limit`, until everything pushed so far has been written.
    pub(super) fn flush(&self, limit: Duration) {
        let shared = &self.0.0;
        let mut state = shared.lock();
        state.flush_requested = true;
        shared.wake.notify_one();
        let unwritten = |s: &mut State| !s.pending.is_empty() || s.writing;
        let waited = shared.written.wait_timeout_while(state, limit, unwritten);
        drop(waited);
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.wake.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_to(&self, mut out: Box<dyn Write + Send>) {
        let mut batch = Vec::new();
        while let Some(dropped_since_write) = self.next(&mut batch) {
            // A failure to write the log cannot be reported anywhere.
            let _ = out.write_all(&batch);
            if dropped_since_write > 0 {
                let _ = writeln!(
                    out,
                    "{{\"level\":\"warn\",\"target\":\"hawkgate::log\",\"message\":\"stderr is too slow\",\"lines_dropped\":{dropped_since_write}}}"
                );
            }
            let _ = out.flush();
            batch.clear();
            let mut state = self.lock();
            state.writing = false;
            state.flush_requested &= !state.pending.is_empty();
            drop(state);
            self.written.notify_all();
        }
    }

    /// Waits for lines, collects them for [`BATCH_INTERVAL`] and moves them into `batch`. Returns
    /// the number of lines dropped since the last batch; `None` once closed and empty.
    fn next(&self, batch: &mut Vec<u8>) -> Option<u64> {
        let idle = |s: &mut State| s.pending.is_empty() && !s.closed;
        let state = self.wake.wait_while(self.lock(), idle);
        let state = state.unwrap_or_else(PoisonError::into_inner);
        let collecting = |s: &mut State| !s.flush_requested && !s.closed;
        let collected = self
            .wake
            .wait_timeout_while(state, BATCH_INTERVAL, collecting);
        let (mut state, _) = collected.unwrap_or_else(PoisonError::into_inner);
        if state.pending.is_empty() {
            return None;
        }
        std::mem::swap(&mut state.pending, batch);
        state.writing = true;
        Some(std::mem::take(&mut state.dropped_since_write))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::sync::mpsc;

    /// A writer whose output can be read while the sink is alive.
    #[derive(Clone, Default)]
    pub(in crate::log) struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Captured {
        pub(in crate::log) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// A writer that blocks until released and reports each attempt to write.
    struct BlockedWriter {
        attempted: mpsc::Sender<()>,
        release: mpsc::Receiver<()>,
        out: Captured,
    }

    impl Write for BlockedWriter {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let _ = self.attempted.send(());
            let _ = self.release.recv();
            self.out.write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn lines_are_written_whole_and_in_order() {
        let out = Captured::default();
        let sink = Sink::start(Box::new(out.clone())).unwrap();
        for i in 0..1000 {
            sink.push(format!("{i}\n").as_bytes());
        }
        sink.flush(LONG);
        let text = out.text();
        let written: Vec<usize> = text.lines().map(|l| l.parse().unwrap()).collect();
        assert_eq!(written, (0..1000).collect::<Vec<_>>());
    }

    #[test]
    fn a_blocked_stderr_drops_lines_without_blocking_callers() {
        let (attempted, attempts) = mpsc::channel();
        let (release, released) = mpsc::channel();
        let out = Captured::default();
        let sink = Sink::start(Box::new(BlockedWriter {
            attempted,
            release: released,
            out: out.clone(),
        }))
        .unwrap();
        sink.push(b"first\n");
        attempts.recv().unwrap();
        let line = vec![b'x'; 1024];
        for _ in 0..MAX_PENDING / line.len() {
            sink.push(&line);
        }
        assert_eq!(sink.dropped(), 0);
        sink.push(b"one too many\n");
        sink.push(b"and another\n");
        assert_eq!(sink.dropped(), 2);
        sink.flush(Duration::from_millis(1));
        drop(release);
        sink.flush(LONG);
        let text = out.text();
        assert!(text.starts_with("first\nxxx"));
        assert!(
            text.contains("\"lines_dropped\":2"),
            "the number of dropped lines is logged"
        );
        sink.push(b"again\n");
        sink.flush(LONG);
        assert!(out.text().ends_with("again\n"));
    }
}
