//! Limits the number of requests in flight, over all callers and for each client address.
//!
//! A request counts from its admission until its response has been sent; a WebSocket counts until
//! it closes, and each HTTP/2 stream counts on its own. The limit for each address keeps one
//! client from taking all places, however many connections and streams it has.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::settings::Limits;
use crate::gateway::rate_limit::client_network;
use crate::gateway::reason::Reason;
use crate::gateway::rejection::Rejection;

/// Number of independently locked parts of the table of addresses; a power of two.
const SHARDS: usize = 64;

/// The requests in flight. Clones share all state.
#[derive(Clone, Debug)]
pub struct InFlight(Arc<State>);

#[derive(Debug)]
struct State {
    requests: AtomicUsize,
    /// `limits.requests_in_flight`
    limit: AtomicUsize,
    /// `limits.requests_in_flight_per_address`
    address_limit: AtomicUsize,
    addresses: Table,
}

/// The addresses that have a connection or a request, so the table is bounded by the limits on
/// both.
type Table = Arc<[Mutex<HashMap<IpAddr, Weak<Address>>>; SHARDS]>;

/// What one client address uses: an IPv4 address, or the /64 network of an IPv6 address.
#[derive(Debug)]
pub(super) struct Address {
    network: IpAddr,
    requests: AtomicUsize,
    /// The bytes of recorded request bodies.
    pub(super) replay_memory: AtomicUsize,
    table: Table,
}

/// Counts a request as in flight until dropped.
#[derive(Debug)]
pub(super) struct Counted<S: Borrow<InFlight>, A: Borrow<Address>> {
    in_flight: S,
    address: Option<A>,
}

impl InFlight {
    /// Creates counters with the limits in `limits`.
    pub fn new(limits: &Limits) -> Self {
        Self::limited(
            limits.requests_in_flight,
            limits.requests_in_flight_per_address,
        )
    }

    fn limited(all: usize, each: usize) -> Self {
        Self(Arc::new(State {
            requests: AtomicUsize::new(0),
            limit: AtomicUsize::new(all),
            address_limit: AtomicUsize::new(each),
            addresses: Arc::new(std::array::from_fn(|_| Mutex::default())),
        }))
    }

    /// Counters with these limits.
    #[cfg(test)]
    pub(super) fn for_test(all: usize, each: usize) -> Self {
        Self::limited(all, each)
    }

    /// Changes the limits. Requests in flight are not affected.
    pub fn set_limits(&self, limits: &Limits) {
        let (all, each) = (&self.0.limit, &self.0.address_limit);
        all.store(limits.requests_in_flight, Ordering::Relaxed);
        each.store(limits.requests_in_flight_per_address, Ordering::Relaxed);
    }

    /// Returns the number of requests in flight.
    pub fn requests(&self) -> usize {
        self.0.requests.load(Ordering::Relaxed)
    }

    /// Returns the counters of a client address. Takes a lock, so connections keep the result.
    pub(super) fn address(&self, client: IpAddr) -> Arc<Address> {
        let network = client_network(client);
        let mut shard = shard(&self.0.addresses, network);
        if let Some(address) = shard.get(&network).and_then(Weak::upgrade) {
            return address;
        }
        let address = Arc::new(Address {
            network,
            requests: AtomicUsize::new(0),
            replay_memory: AtomicUsize::new(0),
            table: Arc::clone(&self.0.addresses),
        });
        shard.insert(network, Arc::downgrade(&address));
        address
    }
}

impl<S: Borrow<InFlight>, A: Borrow<Address>> Counted<S, A> {
    /// Counts a request of `address`, if it has one.
    ///
    /// # Errors
    /// Returns 503 `overloaded` if a limit is reached. Such a request is not counted while it is
    /// being refused: otherwise callers that do not read the refusal could keep others out.
    pub(super) fn begin(in_flight: S, address: Option<A>) -> Result<Self, Rejection> {
        let state = &*in_flight.borrow().0;
        if let Some(address) = address.as_ref().map(Borrow::borrow)
            && !take(&address.requests, &state.address_limit)
        {
            return Err(overloaded("limits.requests_in_flight_per_address"));
        }
        if !take(&state.requests, &state.limit) {
            if let Some(address) = &address {
                release(&address.borrow().requests);
            }
            return Err(overloaded("limits.requests_in_flight"));
        }
        Ok(Self { in_flight, address })
    }
}

impl<S: Borrow<InFlight>, A: Borrow<Address>> Drop for Counted<S, A> {
    fn drop(&mut self) {
        release(&self.in_flight.borrow().0.requests);
        if let Some(address) = &self.address {
            release(&address.borrow().requests);
        }
    }
}

impl Drop for Address {
    fn drop(&mut self) {
        let mut shard = shard(&self.table, self.network);
        // The network may have new counters already.
        let gone = |counters: &Weak<Self>| counters.strong_count() == 0;
        if shard.get(&self.network).is_some_and(gone) {
            shard.remove(&self.network);
        }
    }
}

fn shard(table: &Table, network: IpAddr) -> MutexGuard<'_, HashMap<IpAddr, Weak<Address>>> {
    let bits = match network {
        IpAddr::V4(address) => u64::from(address.to_bits()),
        IpAddr::V6(address) => (address.to_bits() >> 64) as u64,
    };
    // Fibonacci hashing: the upper bits of the product depend on all bits of the address.
    let hash = bits.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let index = usize::try_from(hash).unwrap_or(0) % SHARDS;
    let shard = table[index].lock();
    shard.unwrap_or_else(PoisonError::into_inner)
}

/// Increments `count`, unless it has reached `limit`.
fn take(count: &AtomicUsize, limit: &AtomicUsize) -> bool {
    // Not a compare-and-exchange loop, which would be retried under contention. Near the limit, a
    // request may therefore be refused because of another one that is being refused.
    let taken = count.fetch_add(1, Ordering::Relaxed) < limit.load(Ordering::Relaxed);
    if !taken {
        release(count);
    }
    taken
}

fn release(count: &AtomicUsize) {
    count.fetch_sub(1, Ordering::Relaxed);
}

fn overloaded(key: &str) -> Rejection {
    Rejection::from(Reason::Overloaded).with_cause(format!("{key} is reached"))
}

#[cfg(test)]
mod tests {
    use super::*;

    type CountedRequest = Counted<InFlight, Arc<Address>>;

    fn begin(in_flight: &InFlight, client: &str) -> Result<CountedRequest, String> {
        let address = in_flight.address(client.parse().unwrap());
        Counted::begin(in_flight.clone(), Some(address)).map_err(|r| r.cause.unwrap())
    }

    fn entries(in_flight: &InFlight) -> usize {
        let shards = in_flight.0.addresses.iter();
        shards.map(|shard| shard.lock().unwrap().len()).sum()
    }

    #[test]
    fn one_address_cannot_take_the_places_of_others() {
        let in_flight = InFlight::for_test(4, 2);
        let held = ["192.0.2.1"; 2].map(|client| begin(&in_flight, client).unwrap());
        for _ in 0..100 {
            let cause = begin(&in_flight, "192.0.2.1").unwrap_err();
            assert_eq!(cause, "limits.requests_in_flight_per_address is reached");
        }
        assert_eq!(in_flight.requests(), 2, "refused requests do not count");
        let others = ["192.0.2.2", "192.0.2.3"].map(|client| begin(&in_flight, client).unwrap());
        let cause = begin(&in_flight, "192.0.2.4").unwrap_err();
        assert_eq!(cause, "limits.requests_in_flight is reached");
        drop(others);
        drop(held);
        assert_eq!(in_flight.requests(), 0);
        begin(&in_flight, "192.0.2.1").unwrap();
    }

    #[test]
    fn a_refusal_over_the_limit_of_all_leaves_the_address_its_share() {
        let in_flight = InFlight::for_test(1, 1);
        let held = begin(&in_flight, "192.0.2.1").unwrap();
        for _ in 0..3 {
            begin(&in_flight, "192.0.2.2").unwrap_err();
        }
        drop(held);
        begin(&in_flight, "192.0.2.2").unwrap();
    }

    #[test]
    fn an_ipv6_network_is_one_address() {
        let in_flight = InFlight::for_test(10, 1);
        let held = begin(&in_flight, "2001:db8::1").unwrap();
        begin(&in_flight, "2001:db8::ffff:2").unwrap_err();
        begin(&in_flight, "2001:db8:0:1::1").unwrap();
        drop(held);
        let held = begin(&in_flight, "::ffff:192.0.2.1").unwrap();
        begin(&in_flight, "192.0.2.1").unwrap_err();
        drop(held);
    }

    #[test]
    fn requests_without_an_address_count_towards_the_limit_of_all() {
        let in_flight = InFlight::for_test(2, 1);
        let begin = || Counted::<_, Arc<Address>>::begin(in_flight.clone(), None);
        let held = [begin().unwrap(), begin().unwrap()];
        assert_eq!(begin().unwrap_err().reason, Reason::Overloaded);
        drop(held);
        begin().unwrap();
    }

    #[test]
    fn the_table_holds_only_addresses_in_use() {
        let in_flight = InFlight::for_test(10_000, 10_000);
        for n in 0..1000_u32 {
            begin(&in_flight, &std::net::Ipv4Addr::from_bits(n).to_string()).unwrap();
            begin(
                &in_flight,
                &std::net::Ipv6Addr::from_bits(u128::from(n) << 70).to_string(),
            )
            .unwrap();
        }
        assert_eq!(entries(&in_flight), 0);
        let connection = in_flight.address([192, 0, 2, 1].into());
        let request = begin(&in_flight, "192.0.2.1").unwrap();
        drop(connection);
        assert_eq!(entries(&in_flight), 1);
        begin(&in_flight, "192.0.2.1").unwrap();
        drop(request);
        assert_eq!(entries(&in_flight), 0);
    }

    #[test]
    fn changed_limits_apply_to_the_next_request() {
        let in_flight = InFlight::for_test(1, 1);
        let _held = begin(&in_flight, "192.0.2.1").unwrap();
        in_flight.0.limit.store(2, Ordering::Relaxed);
        in_flight.0.address_limit.store(2, Ordering::Relaxed);
        let _second = begin(&in_flight, "192.0.2.1").unwrap();
        begin(&in_flight, "192.0.2.1").unwrap_err();
    }

    #[test]
    fn concurrent_requests_leave_no_count_behind() {
        let in_flight = InFlight::for_test(3, 2);
        std::thread::scope(|scope| {
            for n in 0..4_u8 {
                let in_flight = &in_flight;
                scope.spawn(move || {
                    for _ in 0..2000 {
                        let address = in_flight.address([192, 0, 2, n % 2].into());
                        let _counted = Counted::begin(in_flight, Some(&*address));
                    }
                });
            }
        });
        assert_eq!((in_flight.requests(), entries(&in_flight)), (0, 0));
    }
}
