use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::join_all;

use super::*;
use crate::clock::{Clock, ManualClock, UnixMillis};

fn address(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, last], 443))
}

/// Lets virtual time pass.
async fn wait(duration: Duration) {
    let _ = tokio::time::timeout(duration, std::future::pending::<()>()).await;
}

/// A name service with one address, which counts look-ups. A look-up takes `delay`.
#[derive(Debug)]
struct Names {
    current: ArcSwap<Option<SocketAddr>>,
    lookups: AtomicUsize,
    delay: Duration,
}

struct Resolved {
    addresses: Arc<UpstreamAddresses>,
    names: Arc<Names>,
    clock: Arc<ManualClock>,
    task: tokio::task::AbortHandle,
}

impl Drop for Resolved {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Resolved {
    fn start(current: Option<SocketAddr>, delay: Duration) -> Self {
        let addresses = Arc::new(UpstreamAddresses::unresolved());
        let names = Arc::new(Names {
            current: ArcSwap::from_pointee(current),
            lookups: AtomicUsize::new(0),
            delay,
        });
        let clock = ManualClock::at(UnixMillis(0));
        let (own, service) = (Arc::clone(&addresses), Arc::clone(&names));
        let shared: SharedClock = clock.clone();
        let task = tokio::spawn(async move {
            let look_up = || async {
                service.lookups.fetch_add(1, Ordering::Relaxed);
                wait(service.delay).await;
                let current = **service.current.load();
                current
                    .map(|address| vec![address])
                    .ok_or_else(|| io::ErrorKind::NotFound.into())
            };
            own.keep_resolved("tc.example.com", &shared, look_up).await;
        });
        Self {
            addresses,
            names,
            clock,
            task: task.abort_handle(),
        }
    }

    async fn look_up_again(&self) -> Vec<SocketAddr> {
        self.addresses.look_up_again(self.clock.monotonic()).await;
        self.addresses.load().to_vec()
    }

    fn lookups(&self) -> usize {
        self.names.lookups.load(Ordering::Relaxed)
    }
}

#[tokio::test(start_paused = true)]
async fn requests_wait_for_the_first_look_up_and_share_it() {
    let resolved = Resolved::start(Some(address(1)), Duration::from_secs(2));
    let all = join_all((0..50).map(|_| resolved.look_up_again())).await;
    assert!(all.iter().all(|found| *found == [address(1)]));
    assert_eq!(resolved.lookups(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_for_a_limited_time() {
    let resolved = Resolved::start(Some(address(1)), Duration::from_mins(1));
    let waited = tokio::time::timeout(MAX_WAIT * 2, resolved.look_up_again()).await;
    assert!(waited.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_moved_upstream_is_found_at_once() {
    let resolved = Resolved::start(Some(address(1)), Duration::ZERO);
    assert_eq!(resolved.look_up_again().await, [address(1)]);
    resolved.names.current.store(Arc::new(Some(address(2))));
    assert_eq!(resolved.look_up_again().await, [address(2)]);
    assert_eq!(resolved.lookups(), 2);
}

#[tokio::test(start_paused = true)]
async fn requests_for_a_dead_name_cause_one_look_up_a_second() {
    let resolved = Resolved::start(None, Duration::ZERO);
    assert!(resolved.look_up_again().await.is_empty());
    for _ in 0..1000 {
        assert!(resolved.look_up_again().await.is_empty());
    }
    assert_eq!(resolved.lookups(), 1);
    resolved.clock.advance(RESULT_STANDS);
    resolved.names.current.store(Arc::new(Some(address(1))));
    let all = join_all((0..50).map(|_| resolved.look_up_again())).await;
    assert!(all.iter().all(|found| *found == [address(1)]));
    assert_eq!(resolved.lookups(), 2);
}

#[tokio::test(start_paused = true)]
async fn requests_to_an_address_that_refuses_cause_one_look_up_a_second() {
    let resolved = Resolved::start(Some(address(1)), Duration::ZERO);
    resolved.look_up_again().await;
    for _ in 0..1000 {
        resolved.look_up_again().await;
    }
    assert_eq!(resolved.lookups(), 2);
}

#[tokio::test(start_paused = true)]
async fn known_addresses_stay_in_use_while_look_ups_fail() {
    let resolved = Resolved::start(Some(address(1)), Duration::ZERO);
    assert_eq!(resolved.look_up_again().await, [address(1)]);
    resolved.names.current.store(Arc::new(None));
    assert_eq!(resolved.look_up_again().await, [address(1)]);
    assert_eq!(resolved.lookups(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_name_that_was_never_resolved_is_retried_every_few_seconds() {
    let resolved = Resolved::start(None, Duration::ZERO);
    assert!(resolved.look_up_again().await.is_empty());
    wait(Duration::from_mins(1)).await;
    // After 1, 2 and 4 s, then every 5 s.
    assert_eq!(resolved.lookups(), 1 + 3 + 10);
}

#[tokio::test(start_paused = true)]
async fn fixed_addresses_are_not_looked_up() {
    let fixed = UpstreamAddresses::fixed(vec![address(1)]);
    assert!(!fixed.request_lookup(Duration::from_secs(100)));
    fixed.look_up_again(Duration::from_secs(100)).await;
    assert_eq!(**fixed.load(), [address(1)]);
}
