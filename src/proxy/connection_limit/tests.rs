use std::net::{IpAddr, Ipv4Addr};

use super::*;

const NOW: Duration = Duration::from_secs(100);

fn limit(total: usize, per_address: usize) -> Arc<ConnectionLimit> {
    Arc::new(ConnectionLimit {
        table: Mutex::new(Table::new(TableLimits {
            total,
            per_address: (per_address > 0).then_some(per_address),
        })),
        max_closing: total,
        closed: Notify::new(),
        counts: Default::default(),
        log: Mutex::default(),
    })
}

fn address(host: u32) -> Origin {
    Origin::of(Some(IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 | host))))
}

/// An open connection.
struct Open(Permit, Signal);

impl Open {
    fn is_evicted(&self) -> bool {
        self.1.is_evicted()
    }

    /// Serves a request that is refused.
    fn refuse(&self) -> bool {
        let request = self.0.0.begin_request();
        let close = self.0.0.request_refused(Reason::TokenExpired);
        drop(request);
        close
    }

    /// Serves a request that is admitted.
    fn serve(&self) {
        let _request = self.0.0.begin_request();
        self.0.0.request_admitted();
    }
}

fn open(limit: &Arc<ConnectionLimit>, origin: Origin) -> Result<Open, Limit> {
    let signal = Signal::default();
    let permit = limit.admit(origin, signal.clone(), NOW)?;
    Ok(Open(permit, signal))
}

/// Opens a connection on which a request was refused.
fn unadmitted(limit: &Arc<ConnectionLimit>, origin: Origin) -> Open {
    let connection = open(limit, origin).unwrap();
    connection.refuse();
    connection
}

/// Opens a connection on which a request was admitted.
fn admitted(limit: &Arc<ConnectionLimit>, origin: Origin) -> Open {
    let connection = open(limit, origin).unwrap();
    connection.serve();
    connection
}

fn evicted(connections: &[Open]) -> Vec<usize> {
    let all = connections.iter().enumerate();
    all.filter(|(_, connection)| connection.is_evicted())
        .map(|(index, _)| index)
        .collect()
}

fn open_and_closing(limit: &ConnectionLimit) -> (usize, usize) {
    let table = limit.table();
    (table.open(), table.closing())
}

/// Whether nothing is left of any connection.
fn is_empty(limit: &ConnectionLimit) -> bool {
    let table = limit.table();
    table.open() == 0 && table.closing() == 0 && table.is_empty()
}

#[test]
fn the_connections_of_an_address_give_way_to_its_own_only() {
    let limit = limit(10, 3);
    let other = unadmitted(&limit, address(2));
    let [idle, newer] = [(); 2].map(|()| unadmitted(&limit, address(1)));
    let opening = open(&limit, address(1)).unwrap();
    // Idle ones first, the longest idle first.
    let next = open(&limit, address(1)).unwrap();
    assert!(idle.is_evicted() && !newer.is_evicted());
    let another = open(&limit, address(1)).unwrap();
    assert!(newer.is_evicted() && !opening.is_evicted());
    // Then those that have sent nothing.
    let last = admitted(&limit, address(1));
    assert!(opening.is_evicted());
    drop(next);
    drop(another);
    assert!(!last.is_evicted() && !other.is_evicted());
    assert_eq!(
        limit.counts[LimitLabel::PerAddress as usize][1].load(Ordering::Relaxed),
        3
    );
    drop((other, idle, newer, opening, last));
    assert!(is_empty(&limit));
}

#[test]
fn busy_connections_are_not_closed_and_then_the_address_is_refused() {
    let limit = limit(10, 2);
    let [first, second] = [(); 2].map(|()| open(&limit, address(1)).unwrap());
    let served = first.0.0.begin_request();
    second.serve();
    let serving = second.0.0.begin_request();
    assert_eq!(open(&limit, address(1)).err(), Some(Limit::PerAddress));
    assert!(open(&limit, address(2)).is_ok());
    // An idle connection with an admitted request gives way to another of its address.
    drop(serving);
    let third = open(&limit, address(1)).unwrap();
    assert!(second.is_evicted() && !first.is_evicted());
    drop(served);
    drop((first, second, third));
    assert!(is_empty(&limit));
}

#[test]
fn at_the_total_limit_the_address_with_the_most_gives_way() {
    let limit = limit(6, 0);
    let modest: Vec<_> = (0..2).map(|_| unadmitted(&limit, address(1))).collect();
    let greedy: Vec<_> = (0..4).map(|_| unadmitted(&limit, address(2))).collect();
    let newcomer = admitted(&limit, address(3));
    assert_eq!((evicted(&modest), evicted(&greedy)), (vec![], vec![0]));
    // The address with the most connections pays, even if the new connection is its own.
    let greedier = unadmitted(&limit, address(2));
    assert_eq!((evicted(&modest), evicted(&greedy)), (vec![], vec![0, 1]));
    assert!(!newcomer.is_evicted() && !greedier.is_evicted());
}

#[test]
fn connections_without_an_admitted_request_go_first_and_the_oldest_of_them() {
    let limit = limit(5, 0);
    let good: Vec<_> = (0..2).map(|_| admitted(&limit, address(1))).collect();
    let opening = open(&limit, address(2)).unwrap();
    let others: Vec<_> = (3..5)
        .map(|host| unadmitted(&limit, address(host)))
        .collect();
    let mut new = Vec::new();
    for expected in [vec![0], vec![0, 1]] {
        new.push(admitted(&limit, address(9)));
        assert_eq!(evicted(&others), expected);
        assert!(!opening.is_evicted());
    }
    new.push(admitted(&limit, address(9)));
    assert!(opening.is_evicted());
    assert_eq!((evicted(&good), evicted(&new)), (vec![], vec![]));
}

#[test]
fn idle_connections_give_way_only_to_addresses_with_fewer() {
    let limit = limit(4, 0);
    let few = admitted(&limit, address(1));
    let many: Vec<_> = (0..3).map(|_| admitted(&limit, address(2))).collect();
    let newcomer = admitted(&limit, address(3));
    assert_eq!(evicted(&many), [0]);
    let busy = many[1].0.0.begin_request();
    // Nobody has more than one more connection than the newcomer, so its own has to go.
    let second = admitted(&limit, address(3));
    assert!(newcomer.is_evicted());
    let serving = second.0.0.begin_request();
    assert_eq!(open(&limit, address(3)).err(), Some(Limit::Total));
    let another = admitted(&limit, address(4));
    assert_eq!(evicted(&many), [0, 2], "busy ones are skipped");
    drop((busy, serving));
    assert!(!few.is_evicted() && !another.is_evicted());
}

#[test]
fn trusted_proxies_and_unix_sockets_have_no_limit_of_their_own() {
    let limit = limit(6, 1);
    let proxies: Vec<_> = (0..3)
        .map(|_| unadmitted(&limit, Origin::TrustedProxy))
        .collect();
    let unix: Vec<_> = (0..3).map(|_| unadmitted(&limit, Origin::Unix)).collect();
    assert!(
        proxies
            .iter()
            .chain(&unix)
            .all(|open| !open.0.0.closes_early())
    );
    // Only the proxies' connections are never closed for others.
    let newcomers: Vec<_> = (0..3).map(|host| admitted(&limit, address(host))).collect();
    assert_eq!((evicted(&proxies), evicted(&unix)), (vec![], vec![0, 1, 2]));
    assert!(open(&limit, Origin::TrustedProxy).is_err());
    drop((newcomers, proxies, unix));
    assert!(is_empty(&limit));
}

#[test]
fn after_a_proxy_header_the_client_counts() {
    let limit = limit(10, 2);
    let through: Vec<_> = (0..2)
        .map(|_| open(&limit, Origin::TrustedProxy).unwrap())
        .collect();
    for connection in &through {
        connection.0.set_origin(address(1), NOW).unwrap();
        assert!(connection.0.0.closes_early());
        let busy = connection.0.0.begin_request();
        std::mem::forget(busy);
    }
    assert_eq!(evicted(&through), [0; 0]);
    let refused = open(&limit, Origin::TrustedProxy).unwrap();
    assert_eq!(
        refused.0.set_origin(address(1), NOW),
        Err(Limit::PerAddress)
    );
    assert_eq!(refused.0.set_origin(address(2), NOW), Ok(()));
    drop((through, refused));
    assert!(is_empty(&limit));
}

#[test]
fn a_request_that_arrives_at_the_moment_of_an_eviction_is_counted() {
    let limit = limit(1, 0);
    let first = admitted(&limit, address(1));
    first.1.evict();
    limit.table().evict_any();
    assert_eq!(open_and_closing(&limit), (0, 1));
    let request = first.0.0.begin_request();
    assert_eq!(open_and_closing(&limit), (1, 0));
    drop(request);
    drop(first);
    assert!(is_empty(&limit));
}

#[test]
fn without_descriptors_idle_connections_are_closed() {
    let limit = limit(10, 0);
    let held = [admitted(&limit, address(1)), unadmitted(&limit, address(2))];
    let busy = admitted(&limit, address(1));
    let request = busy.0.0.begin_request();
    for expected in [vec![1], vec![0, 1], vec![0, 1]] {
        limit.evict_for_descriptors(NOW);
        assert_eq!(evicted(&held), expected);
    }
    assert!(!busy.is_evicted());
    drop(request);
    let counts = ConnectionCounts::new(&limit);
    assert_eq!(counts.open(), 1);
    let evicted = counts.limited(LimitLabel::Descriptors, LimitAction::Evicted);
    assert_eq!(evicted, 2);
}

#[test]
fn too_many_refusals_in_a_row_close_the_connection() {
    let limit = limit(10, 0);
    let connection = open(&limit, address(1)).unwrap();
    let state = connection.0.state();
    for _ in 0..2 {
        for _ in 1..MAX_REFUSED {
            assert!(!connection.refuse());
        }
        for reason in [Reason::ExchangeUnavailable, Reason::RuleDenied] {
            assert!(!state.request_refused(reason));
        }
        connection.serve();
    }
    assert!(!state.closes_early());
    for left in (0..MAX_REFUSED).rev() {
        assert_eq!(connection.refuse(), left == 0);
    }
    let proxy = open(&limit, Origin::TrustedProxy).unwrap();
    assert!((0..3 * MAX_REFUSED).all(|_| !proxy.refuse()));
}

#[tokio::test]
async fn accepting_waits_while_too_many_evicted_connections_are_closing() {
    let limit = limit(2, 0);
    let closing: Vec<_> = (0..2).map(|_| unadmitted(&limit, address(1))).collect();
    let new: Vec<_> = (0..2).map(|_| unadmitted(&limit, address(2))).collect();
    let mut waiting = Box::pin(limit.wait_for_closing());
    assert!(futures::poll!(&mut waiting).is_pending());
    drop(closing);
    waiting.await;
    drop(new);
    assert!(is_empty(&limit));
}

#[test]
fn many_addresses_are_forgotten_with_their_connections() {
    let limit = limit(1000, 10);
    let mut connections = Vec::new();
    for step in 0..20_000_u32 {
        // A fixed pseudo-random sequence.
        let random = step.wrapping_mul(2_654_435_761).rotate_left(13);
        if let Ok(connection) = open(&limit, address(random % 3000)) {
            match random % 7 {
                0 => connection.serve(),
                1..=4 => {
                    connection.refuse();
                }
                _ => {}
            }
            connections.push(connection);
        }
        connections.retain(|connection| !connection.is_evicted());
        if random.is_multiple_of(5) && !connections.is_empty() {
            connections.swap_remove(random as usize % connections.len());
        }
        let table = limit.table();
        assert_eq!(table.open(), connections.len());
        assert!(table.is_consistent(), "after step {step}");
    }
    assert_eq!(connections.len(), 1000);
    drop(connections);
    assert!(is_empty(&limit));
}
