//! Replicas that share their credentials through a store in memory.

use super::*;
use crate::shared_store::{FleetKeys, InMemoryStore, SharedStore as _, StoreError};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

struct FleetFixture {
    store: Arc<InMemoryStore>,
    clock: Arc<ManualClock>,
    replicas: Vec<Fixture>,
    /// Delivers events to every replica.
    deliver: tokio::sync::broadcast::Receiver<StoreEvent>,
}

fn keys(current: u8, previous: Option<u8>) -> Arc<FleetKeys> {
    let key = |first: u8| {
        let bytes: Vec<u8> = (first..first + 32).collect();
        SecretString::new(STANDARD.encode(bytes))
    };
    let previous = previous.map(key);
    Arc::new(FleetKeys::new(&key(current), previous.as_ref()).unwrap())
}

impl FleetFixture {
    fn new(replicas: usize) -> Self {
        let clock = ManualClock::at(START);
        let store = Arc::new(InMemoryStore::new(clock.clone()));
        let deliver = store.events();
        let mut fixture = Self {
            store,
            clock,
            replicas: Vec::new(),
            deliver,
        };
        for _ in 0..replicas {
            fixture.join(keys(1, None), b"section");
        }
        fixture
    }

    /// One more replica.
    fn join(&mut self, keys: Arc<FleetKeys>, section: &[u8]) {
        let (sender, calls) = mpsc::unbounded_channel();
        let epoch = Arc::new(AtomicU64::new(0));
        let inner = Arc::new(ScriptedSource {
            calls: sender,
            bearer_bound: false,
            epoch: Arc::clone(&epoch),
        });
        let fleet = Fleet {
            store: self.store.clone(),
            keys,
        };
        let source = CachedSource::with_jitter(
            "login".into(),
            inner,
            options(),
            self.clock.clone(),
            Jitter::Fixed(0.0),
        );
        let source = source.unwrap().sharing(&fleet, section).unwrap();
        self.replicas.push(Fixture {
            source: Arc::new(source),
            clock: Arc::clone(&self.clock),
            calls,
            epoch,
        });
    }

    /// Hands the events of until now to every replica.
    async fn deliver(&mut self) {
        run_pending_tasks().await;
        while let Ok(event) = self.deliver.try_recv() {
            for replica in &self.replicas {
                replica.source.on_event(&event);
            }
        }
        run_pending_tasks().await;
    }

    fn assert_no_exchange(&mut self) {
        for replica in &mut self.replicas {
            assert!(replica.calls.try_recv().is_err());
        }
    }
}

/// A credential that expires `life` seconds after the start.
#[allow(clippy::unnecessary_wraps)]
fn issued(text: &str, life: u64) -> FetchResult {
    Ok(Issued {
        credential: Credential::Bearer(SecretString::from(text)),
        expires_at: Some(START.plus(Duration::from_secs(life))),
        original: None,
    })
}

#[tokio::test(start_paused = true)]
async fn one_replica_fetches_and_the_others_find_it() {
    let mut fleet = FleetFixture::new(3);
    let ann = user("ann");
    let waiting: Vec<_> = fleet.replicas.iter().map(|r| r.lease(&ann)).collect();
    run_pending_tasks().await;
    let mut calls = Vec::new();
    for replica in &mut fleet.replicas {
        calls.extend(replica.calls.try_recv());
    }
    assert_eq!(calls.len(), 1, "one exchange at a time");
    calls.pop().unwrap().respond(issued("a", 900));
    fleet.deliver().await;
    let mut lookups = Vec::new();
    for leased in waiting {
        let leased = leased.await.unwrap().unwrap();
        assert_eq!(text(&leased), "a");
        let until = START.plus(Duration::from_secs(895));
        let early = Duration::from_secs(5);
        assert!((until.minus(early)..=until).contains(&leased.lease.usable_until()));
        lookups.push(leased.lookup);
    }
    lookups.sort_by_key(|lookup| *lookup as usize);
    assert_eq!(lookups, [Lookup::Fetched, Lookup::Shared, Lookup::Shared]);
    // A replica that starts later, as after a restart.
    fleet.join(keys(1, None), b"section");
    let late = fleet.replicas[3].lease(&ann).await.unwrap().unwrap();
    assert_eq!((text(&late), late.lookup), ("a", Lookup::Shared));
    fleet.assert_no_exchange();
}

#[tokio::test(start_paused = true)]
async fn users_and_configurations_do_not_share() {
    let mut fleet = FleetFixture::new(1);
    fleet.join(keys(1, None), b"another section");
    fleet.join(keys(2, None), b"section");
    let first = fleet.replicas[0].lease(&user("ann"));
    run_pending_tasks().await;
    fleet.replicas[0].call().await.respond(issued("a", 900));
    first.await.unwrap().unwrap();
    for (replica, name) in [(0, "bob"), (1, "ann"), (2, "ann")] {
        let leased = fleet.replicas[replica].lease(&user(name));
        let call = fleet.replicas[replica].call().await;
        call.respond(issued("other", 900));
        assert_eq!(text(&leased.await.unwrap().unwrap()), "other");
    }
}

#[tokio::test(start_paused = true)]
async fn a_rejected_generation_is_dropped_everywhere_and_fetched_once() {
    let mut fleet = FleetFixture::new(2);
    let ann = user("ann");
    let first = fleet.replicas[0].lease(&ann);
    fleet.replicas[0].call().await.respond(issued("a", 900));
    let on_a = first.await.unwrap().unwrap();
    let on_b = fleet.replicas[1].lease(&ann).await.unwrap().unwrap();
    assert_eq!(text(&on_b), "a");

    let source = Arc::clone(&fleet.replicas[0].source);
    let (again, rejected) = (ann.clone(), on_a.lease.clone());
    let replaced = tokio::spawn(async move { source.replace(&again, &rejected).await });
    let call = fleet.replicas[0].call().await;
    fleet.deliver().await;
    // B has learnt of it, and waits for what A fetches.
    let waiting = fleet.replicas[1].lease(&ann);
    run_pending_tasks().await;
    assert!(!waiting.is_finished());
    call.respond(issued("b", 900));
    let Replacement::New(new) = replaced.await.unwrap().unwrap() else {
        panic!("not replaced");
    };
    assert_eq!(text(&new), "b");
    fleet.deliver().await;
    assert_eq!(text(&waiting.await.unwrap().unwrap()), "b");

    // A 401 to the old one, on its way on B all the time, costs no exchange.
    let replaced = fleet.replicas[1].source.replace(&ann, &on_b.lease).await;
    let Ok(Replacement::New(leased)) = replaced else {
        panic!("not replaced");
    };
    assert_eq!(text(&leased), "b");
    // Nor does the message about it drop the new one anywhere.
    fleet.deliver().await;
    for replica in &fleet.replicas {
        let leased = replica.lease(&ann).await.unwrap().unwrap();
        assert_eq!((text(&leased), leased.lookup), ("b", Lookup::Hit));
    }
    fleet.assert_no_exchange();
}

#[tokio::test(start_paused = true)]
async fn without_the_message_another_replica_heals_by_its_own_401() {
    let mut fleet = FleetFixture::new(2);
    let ann = user("ann");
    let first = fleet.replicas[0].lease(&ann);
    fleet.replicas[0].call().await.respond(issued("a", 900));
    let on_a = first.await.unwrap().unwrap();
    let on_b = fleet.replicas[1].lease(&ann).await.unwrap().unwrap();
    fleet.replicas[0].source.invalidate(&ann, &on_a.lease);
    run_pending_tasks().await;
    assert_eq!(fleet.store.values(), 0, "the store gives it to nobody");
    let source = Arc::clone(&fleet.replicas[1].source);
    let again = ann.clone();
    let replaced = tokio::spawn(async move { source.replace(&again, &on_b.lease).await });
    fleet.replicas[1].call().await.respond(issued("b", 900));
    replaced.await.unwrap().unwrap();
    // And A takes it from there.
    let leased = fleet.replicas[0].lease(&ann).await.unwrap().unwrap();
    assert_eq!((text(&leased), leased.lookup), ("b", Lookup::Shared));
}

#[tokio::test(start_paused = true)]
async fn a_renewal_is_made_once_for_all() {
    let mut fleet = FleetFixture::new(2);
    let ann = user("ann");
    let first = fleet.replicas[0].fetched(&ann, issued("a", 900));
    first.await.unwrap();
    fleet.replicas[1].lease(&ann).await.unwrap().unwrap();
    fleet.deliver().await;
    fleet.clock.advance(Duration::from_mins(14));
    let kept = fleet.replicas[0].lease(&ann).await.unwrap().unwrap();
    assert_eq!(text(&kept), "a");
    fleet.replicas[0].call().await.respond(issued("b", 1800));
    run_pending_tasks().await;
    let kept = fleet.replicas[1].lease(&ann).await.unwrap().unwrap();
    assert_eq!(text(&kept), "a");
    fleet.deliver().await;
    for replica in &fleet.replicas {
        let leased = replica.lease(&ann).await.unwrap().unwrap();
        assert_eq!((text(&leased), leased.lookup), ("b", Lookup::Hit));
    }
    fleet.assert_no_exchange();
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_dies_is_followed_when_its_lease_ends() {
    let mut fleet = FleetFixture::new(2);
    let ann = user("ann");
    let _first = fleet.replicas[0].lease(&ann);
    let _never_answered = fleet.replicas[0].call().await;
    let second = fleet.replicas[1].lease(&ann);
    run_pending_tasks().await;
    assert!(fleet.replicas[1].calls.try_recv().is_err());
    // No message tells that it ended.
    fleet.clock.advance(crate::shared_store::LEASE);
    fleet.replicas[1].call().await.respond(issued("b", 900));
    assert_eq!(text(&second.await.unwrap().unwrap()), "b");
}

#[tokio::test(start_paused = true)]
async fn a_slow_holder_that_lost_its_lease_overwrites_nothing_and_loses_nothing() {
    let mut fleet = FleetFixture::new(2);
    let ann = user("ann");
    let first = fleet.replicas[0].lease(&ann);
    let slow = fleet.replicas[0].call().await;
    // Stopped for longer than its lease; the store's clock goes on.
    fleet.clock.advance(crate::shared_store::LEASE);
    let second = fleet.replicas[1].lease(&ann);
    fleet.replicas[1].call().await.respond(issued("b", 900));
    assert_eq!(text(&second.await.unwrap().unwrap()), "b");
    slow.respond(issued("a", 900));
    assert_eq!(text(&first.await.unwrap().unwrap()), "a");
    fleet.join(keys(1, None), b"section");
    let third = fleet.replicas[2].lease(&ann).await.unwrap().unwrap();
    assert_eq!(text(&third), "b");
}

#[tokio::test(start_paused = true)]
async fn a_failed_exchange_lets_the_next_replica_try_at_once() {
    let mut fleet = FleetFixture::new(2);
    let ann = user("ann");
    let first = fleet.replicas[0].lease(&ann);
    let call = fleet.replicas[0].call().await;
    let second = fleet.replicas[1].lease(&ann);
    run_pending_tasks().await;
    call.respond(Err(FetchError::Refused("no".into())));
    assert!(first.await.unwrap().is_err());
    fleet.deliver().await;
    fleet.replicas[1].call().await.respond(issued("b", 900));
    assert_eq!(text(&second.await.unwrap().unwrap()), "b");
}

#[tokio::test(start_paused = true)]
async fn whatever_the_store_does_requests_are_served() {
    type Fault = fn(&InMemoryStore);
    let faults: [(&str, Fault); 4] = [
        ("unreachable", |store| {
            store.fail(Some(StoreError::Unreachable("refused".into())));
        }),
        ("read-only", |store| {
            store.fail(Some(StoreError::Answer("READONLY".into())));
        }),
        ("cleared", InMemoryStore::clear),
        ("garbage", |store| store.corrupt(b"garbage")),
    ];
    for (fault, cause) in faults {
        let mut fleet = FleetFixture::new(2);
        let ann = user("ann");
        let first = fleet.replicas[0].lease(&ann);
        fleet.replicas[0].call().await.respond(issued("a", 900));
        first.await.unwrap().unwrap();
        cause(&fleet.store);
        let leased = fleet.replicas[0].lease(&ann).await.unwrap().unwrap();
        assert_eq!(
            (text(&leased), leased.lookup),
            ("a", Lookup::Hit),
            "{fault}"
        );
        let second = fleet.replicas[1].lease(&ann);
        fleet.replicas[1].call().await.respond(issued("b", 900));
        let second = second.await.unwrap().unwrap();
        assert_eq!(
            (text(&second), second.lookup),
            ("b", Lookup::Fetched),
            "{fault}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_value_of_another_user_is_no_value() {
    let mut fleet = FleetFixture::new(2);
    for name in ["ann", "bob"] {
        let leased = fleet.replicas[0].lease(&user(name));
        fleet.replicas[0].call().await.respond(issued(name, 900));
        leased.await.unwrap().unwrap();
    }
    // One who can write to the store exchanges their values.
    fleet.store.swap_values();
    for name in ["ann", "bob"] {
        let leased = fleet.replicas[1].lease(&user(name));
        fleet.replicas[1].call().await.respond(issued("fresh", 900));
        assert_eq!(text(&leased.await.unwrap().unwrap()), "fresh");
    }
}

#[tokio::test(start_paused = true)]
async fn the_key_is_rotated_without_an_exchange() {
    let mut fleet = FleetFixture::new(0);
    fleet.join(keys(1, None), b"section");
    let ann = user("ann");
    let first = fleet.replicas[0].fetched(&ann, issued("a", 900));
    first.await.unwrap();
    // The new key comes second at first, then first, then the old one goes.
    for (current, previous) in [(1, Some(2)), (2, Some(1)), (2, None)] {
        fleet.join(keys(current, previous), b"section");
        let leased = fleet.replicas.last().unwrap().lease(&ann);
        let leased = leased.await.unwrap().unwrap();
        assert_eq!((text(&leased), leased.lookup), ("a", Lookup::Shared));
    }
    fleet.assert_no_exchange();
}

#[tokio::test(start_paused = true)]
async fn a_credential_whose_message_overtook_it_is_not_used() {
    let mut fleet = FleetFixture::new(2);
    let ann = user("ann");
    let first = fleet.replicas[0].lease(&ann);
    fleet.replicas[0].call().await.respond(issued("a", 900));
    let on_a = first.await.unwrap().unwrap();
    let name = on_a.lease.0.shared_name().unwrap();
    // B hears of the rejection, but the store still answers with it.
    fleet.replicas[1].source.on_event(&StoreEvent::Rejected {
        key: name.key,
        generation: name.generation,
    });
    let second = fleet.replicas[1].lease(&ann);
    fleet.replicas[1].call().await.respond(issued("b", 900));
    assert_eq!(text(&second.await.unwrap().unwrap()), "b");
}

#[tokio::test(start_paused = true)]
async fn a_newer_generation_replaces_the_older_one_on_every_replica_without_an_exchange() {
    let mut fleet = FleetFixture::new(2);
    let ann = user("ann");
    let first = fleet.replicas[0].fetched(&ann, issued("a", 900));
    first.await.unwrap();
    fleet.replicas[1].lease(&ann).await.unwrap().unwrap();
    fleet.deliver().await;
    fleet.clock.advance(Duration::from_mins(14));
    fleet.replicas[0].lease(&ann).await.unwrap().unwrap();
    fleet.replicas[0].call().await.respond(issued("b", 1800));
    fleet.deliver().await;
    let leased = fleet.replicas[1].lease(&ann).await.unwrap().unwrap();
    assert_eq!((text(&leased), leased.lookup), ("b", Lookup::Shared));
    fleet.assert_no_exchange();
}

#[tokio::test(start_paused = true)]
async fn after_missed_messages_each_credential_is_looked_up_once() {
    let mut fleet = FleetFixture::new(1);
    let ann = user("ann");
    let first = fleet.replicas[0].fetched(&ann, issued("a", 900));
    first.await.unwrap();
    let number = fleet.replicas[0].cached(&ann).await.unwrap();
    let number = number.lease.generation();
    for store_is_there in [true, false] {
        if !store_is_there {
            fleet.store.fail(Some(StoreError::Down));
        }
        fleet.store.tell(StoreEvent::Interrupted);
        fleet.deliver().await;
        let leased = fleet.replicas[0].lease(&ann).await.unwrap().unwrap();
        assert_eq!((text(&leased), leased.lookup), ("a", Lookup::Hit));
        assert_eq!(leased.lease.generation(), number, "it is the same one");
    }
    fleet.assert_no_exchange();
}

#[tokio::test(start_paused = true)]
async fn a_401_during_a_look_up_is_healed() {
    let mut fleet = FleetFixture::new(1);
    let ann = user("ann");
    let first = fleet.replicas[0].fetched(&ann, issued("a", 900));
    let rejected = first.await.unwrap().lease;
    fleet.store.tell(StoreEvent::Interrupted);
    fleet.deliver().await;
    // The first request looks in the store, and the second one joins it.
    let looking = fleet.replicas[0].lease(&ann);
    let replaced = fleet.replicas[0].replace(&ann, &rejected);
    fleet.replicas[0].call().await.respond(issued("b", 900));
    assert_eq!(text(&replaced.await.unwrap().unwrap()), "b");
    looking.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_credential_that_expires_during_a_look_up_is_fetched() {
    let mut fleet = FleetFixture::new(1);
    let ann = user("ann");
    let first = fleet.replicas[0].fetched(&ann, issued("a", 900));
    first.await.unwrap();
    fleet.store.clear();
    fleet.store.tell(StoreEvent::Interrupted);
    fleet.deliver().await;
    let waiting = fleet.replicas[0].lease(&ann);
    // Runs before the look-up, which the task above starts.
    let clock = Arc::clone(&fleet.clock);
    tokio::spawn(async move { clock.advance(Duration::from_mins(15)) });
    fleet.replicas[0].call().await.respond(issued("b", 1800));
    assert_eq!(text(&waiting.await.unwrap().unwrap()), "b");
}

#[tokio::test(start_paused = true)]
async fn what_was_evicted_and_read_again_is_no_replacement_for_itself() {
    for replay in [true, false] {
        let mut fleet = FleetFixture::new(1);
        let ann = user("ann");
        let first = fleet.replicas[0].fetched(&ann, issued("a", 900));
        let rejected = first.await.unwrap().lease;
        fleet.replicas[0].source.coordinator.evict_all();
        let again = fleet.replicas[0].cached(&ann).await.unwrap();
        assert_eq!((text(&again), again.lookup), ("a", Lookup::Shared));
        let replaced = if replay {
            fleet.replicas[0].replace(&ann, &rejected)
        } else {
            fleet.replicas[0].source.invalidate(&ann, &rejected);
            fleet.replicas[0].lease(&ann)
        };
        fleet.replicas[0].call().await.respond(issued("b", 900));
        assert_eq!(text(&replaced.await.unwrap().unwrap()), "b");
    }
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_backs_off_replaces_a_rejected_credential_by_what_others_fetched() {
    let mut fleet = FleetFixture::new(2);
    let ann = user("ann");
    let first = fleet.replicas[0].fetched(&ann, issued("a", 900));
    let on_a = first.await.unwrap().lease;
    fleet.replicas[1].cached(&ann).await.unwrap();
    fleet.clock.advance(Duration::from_mins(14));
    fleet.store.fail(Some(StoreError::Answer("BUSY".into())));
    fleet.replicas[1].lease(&ann).await.unwrap().unwrap();
    fleet.replicas[1]
        .call()
        .await
        .respond(unavailable(Some(60)));
    run_pending_tasks().await;
    fleet.store.fail(None);
    let replaced = fleet.replicas[0].replace(&ann, &on_a);
    fleet.replicas[0].call().await.respond(issued("b", 1800));
    let on_a = replaced.await.unwrap().unwrap().lease;
    fleet.deliver().await;
    let leased = fleet.replicas[1].cached(&ann).await.unwrap();
    assert_eq!((text(&leased), leased.lookup), ("b", Lookup::Shared));
    // With nothing newer there, it stays in use, as without a store.
    fleet.replicas[0].source.accepted(&ann);
    fleet.replicas[0].source.invalidate(&ann, &on_a);
    fleet.deliver().await;
    let leased = fleet.replicas[1].cached(&ann).await.unwrap();
    assert_eq!((text(&leased), leased.lookup), ("b", Lookup::Stale));
}

#[tokio::test(start_paused = true)]
async fn a_user_who_is_refused_while_the_store_fails_does_not_get_the_old_credential_from_it() {
    let mut fleet = FleetFixture::new(1);
    let ann = user("ann");
    let first = fleet.replicas[0].fetched(&ann, issued("a", 900));
    first.await.unwrap();
    fleet.clock.advance(Duration::from_mins(14));
    fleet.store.fail(Some(StoreError::Answer("BUSY".into())));
    fleet.replicas[0].lease(&ann).await.unwrap().unwrap();
    let call = fleet.replicas[0].call().await;
    fleet.store.fail(None);
    call.respond(Err(FetchError::Refused("revoked".into())));
    fleet.deliver().await;
    assert_eq!(fleet.store.values(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_lies_about_what_is_wanted_is_left_alone() {
    let mut fleet = FleetFixture::new(1);
    let ann = user("ann");
    let first = fleet.replicas[0].fetched(&ann, issued("a", 900));
    let rejected = first.await.unwrap().lease;
    fleet.store.lie(true);
    let replaced = fleet.replicas[0].replace(&ann, &rejected);
    fleet.replicas[0].call().await.respond(issued("b", 900));
    assert_eq!(text(&replaced.await.unwrap().unwrap()), "b");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_keeps_a_value_for_too_long_does_not_prolong_a_credential() {
    let mut fleet = FleetFixture::new(2);
    let ann = user("ann");
    // It never expires, so `max_age` is its end.
    let endless = Issued {
        expires_at: None,
        ..issued("a", 0).unwrap()
    };
    let first = fleet.replicas[0].fetched(&ann, Ok(endless));
    first.await.unwrap();
    fleet.store.lie(true);
    fleet.clock.advance(options().limits.max_age);
    let second = fleet.replicas[1].lease(&ann);
    fleet.replicas[1].call().await.respond(issued("b", 7200));
    assert_eq!(text(&second.await.unwrap().unwrap()), "b");
}

#[tokio::test(start_paused = true)]
async fn with_an_open_circuit_what_other_replicas_fetched_is_used() {
    let mut fleet = FleetFixture::new(2);
    fleet.replicas[1].open_circuit(Some(60)).await;
    assert!(fleet.replicas[1].source.is_circuit_open());
    // The first may probe the source; the other has failed before, and may only look in the store.
    for name in ["ann", "bad0"] {
        let request = user(name);
        let fetched = fleet.replicas[0].fetched(&request, issued(name, 900));
        fetched.await.unwrap();
        let leased = fleet.replicas[1].lease(&request).await.unwrap().unwrap();
        assert_eq!((text(&leased), leased.lookup), (name, Lookup::Shared));
    }
    fleet.assert_no_exchange();
}

#[tokio::test(start_paused = true)]
async fn a_user_who_is_refused_a_renewal_loses_the_credential_everywhere() {
    let mut fleet = FleetFixture::new(2);
    let ann = user("ann");
    let first = fleet.replicas[0].fetched(&ann, issued("a", 900));
    first.await.unwrap();
    fleet.replicas[1].lease(&ann).await.unwrap().unwrap();
    fleet.deliver().await;
    fleet.clock.advance(Duration::from_mins(14));
    fleet.replicas[0].lease(&ann).await.unwrap().unwrap();
    let call = fleet.replicas[0].call().await;
    call.respond(Err(FetchError::Refused("revoked".into())));
    fleet.deliver().await;
    assert_eq!(fleet.store.values(), 0);
    // The other replica asks for itself, because a refusal is not shared.
    let second = fleet.replicas[1].lease(&ann);
    let call = fleet.replicas[1].call().await;
    call.respond(Err(FetchError::Refused("revoked".into())));
    assert!(second.await.unwrap().is_err());
    assert!(fleet.replicas[0].lease(&ann).await.unwrap().is_err());
    fleet.assert_no_exchange();
}
