//! Wakes a task, but not itself. The requests of a connection hand it frames in the same turn of
//! the task in which they are sent; waking the task for that would cost a second turn for nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Wake, Waker};

use futures::task::AtomicWaker;

/// The task is not running.
const WAITING: u8 = 0;
/// The task is running.
const RUNNING: u8 = 1;
/// The task is running, and was woken.
const WOKEN: u8 = 2;

/// Maximum number of rounds in a turn, after which other tasks get theirs.
const MAX_ROUNDS: u32 = 8;

/// See the module documentation.
#[derive(Default)]
pub(super) struct TurnWaker {
    state: AtomicU8,
    task: AtomicWaker,
}

impl TurnWaker {
    /// Begins a turn of the task that `task` wakes.
    pub(super) fn begin(&self, task: &Waker) {
        self.task.register(task);
        self.begin_round();
    }

    /// Forgets that the task was woken, because it is about to look for work.
    pub(super) fn begin_round(&self) {
        self.state.store(RUNNING, Ordering::SeqCst);
    }

    /// Ends the turn unless the task was woken in its last round, which was number `round`, from
    /// 1.
    pub(super) fn end(&self, round: u32) -> bool {
        let before = self.state.swap(WAITING, Ordering::SeqCst);
        let again = before == WOKEN;
        if again && round >= MAX_ROUNDS {
            self.task.wake();
            return true;
        }
        if again {
            self.begin_round();
        }
        !again
    }
}

impl Wake for TurnWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let state = &self.state;
        let noted = state.compare_exchange(RUNNING, WOKEN, Ordering::SeqCst, Ordering::SeqCst);
        if noted == Err(WAITING) {
            self.task.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    #[derive(Default)]
    struct Count(AtomicU32);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_running_task_is_not_woken_but_goes_around_again() {
        let count = Arc::new(Count::default());
        let woken = || count.0.load(Ordering::SeqCst);
        let task = Waker::from(count.clone());
        let turn = Arc::new(TurnWaker::default());
        turn.begin(&task);
        assert!(turn.end(1), "not woken");
        turn.wake_by_ref();
        assert_eq!(woken(), 1, "waiting");
        turn.begin(&task);
        turn.wake_by_ref();
        turn.begin_round();
        assert!(turn.end(1), "woken before the round");
        turn.begin(&task);
        turn.wake_by_ref();
        assert!(!turn.end(1), "woken in the round");
        assert_eq!(woken(), 1, "running");
        assert!(turn.end(2));
        turn.begin(&task);
        turn.wake_by_ref();
        assert!(turn.end(MAX_ROUNDS));
        assert_eq!(woken(), 2, "other tasks run first");
    }
}
