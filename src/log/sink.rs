//! A bounded buffer of lines and the thread that writes it out.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Bytes waiting to be written; a line that would go past it is dropped and counted.
/// While these wait, as many again may be under way to stderr.
pub(super) const MAX_PENDING: usize = 1024 * 1024;

/// How long lines are gathered for one write: at 20,000 lines a second a write each
/// would cost more than the requests.
const GATHER: Duration = Duration::from_millis(5);

/// Where lines go. Cheap to clone; the thread ends with the last clone.
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
    lost: u64,
    writing: bool,
    hurry: bool,
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

    /// Hands over whole lines. Never waits for stderr.
    pub(super) fn push(&self, lines: &[u8]) {
        let shared = &self.0.0;
        let mut state = shared.lock();
        if state.pending.len() + lines.len() > MAX_PENDING {
            state.lost += 1;
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

    /// Waits, at most `limit`, until everything pushed so far is written.
    pub(super) fn flush(&self, limit: Duration) {
        let shared = &self.0.0;
        let mut state = shared.lock();
        state.hurry = true;
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
        while let Some(lost) = self.next(&mut batch) {
            // A log that cannot be written has nowhere to complain.
            let _ = out.write_all(&batch);
            if lost > 0 {
                let _ = writeln!(
                    out,
                    "{{\"level\":\"warn\",\"target\":\"hawkgate::log\",\"message\":\"stderr is too slow\",\"lines_dropped\":{lost}}}"
                );
            }
            let _ = out.flush();
            batch.clear();
            let mut state = self.lock();
            state.writing = false;
            state.hurry &= !state.pending.is_empty();
            drop(state);
            self.written.notify_all();
        }
    }

    /// Waits for lines, gathers for a moment, takes them all. `None`: closed and empty.
    fn next(&self, batch: &mut Vec<u8>) -> Option<u64> {
        let idle = |s: &mut State| s.pending.is_empty() && !s.closed;
        let state = self.wake.wait_while(self.lock(), idle);
        let state = state.unwrap_or_else(PoisonError::into_inner);
        let gathering = |s: &mut State| !s.hurry && !s.closed;
        let gathered = self.wake.wait_timeout_while(state, GATHER, gathering);
        let (mut state, _) = gathered.unwrap_or_else(PoisonError::into_inner);
        if state.pending.is_empty() {
            return None;
        }
        std::mem::swap(&mut state.pending, batch);
        state.writing = true;
        Some(std::mem::take(&mut state.lost))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::sync::mpsc;

    /// What was written, readable while the sink lives.
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

    /// Writes nothing until it is let go; reports each attempt.
    struct Stuck {
        attempted: mpsc::Sender<()>,
        release: mpsc::Receiver<()>,
        out: Captured,
    }

    impl Write for Stuck {
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
    fn lines_arrive_whole_and_in_order() {
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
    fn a_stuck_stderr_costs_lines_and_nothing_else() {
        let (attempted, attempts) = mpsc::channel();
        let (release, released) = mpsc::channel();
        let out = Captured::default();
        let sink = Sink::start(Box::new(Stuck {
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
        assert!(text.contains("\"lines_dropped\":2"), "the loss is said");
        sink.push(b"again\n");
        sink.flush(LONG);
        assert!(out.text().ends_with("again\n"));
    }
}
