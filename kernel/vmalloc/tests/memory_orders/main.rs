//! What is deferred without a lock, in every order that the C11 memory model allows, at least as
//! weak as Arm's here. `deferred.rs` and `va/deferred_list.rs` are compiled with loom's atomics
//! ([`atomic`]) and cells, which see two accesses that nothing orders.

mod atomic;
#[path = "../../src/deferred.rs"]
#[allow(dead_code, reason = "counts are for other callers")]
mod deferred;
mod va;

mod error {
    #[derive(Debug)]
    pub enum Error {
        TooManyDeferred {
            #[allow(dead_code, reason = "told to people")]
            va: paging::VirtAddr,
        },
    }
}

mod record {
    pub const WORDS: usize = 1;
    pub type Area = crate::va::Area<WORDS>;
}

use atomic::Missing;
use core::panic::Location;
use deferred::{Addresses, DeferredAreas, Slot};
use loom::sync::Arc;
use paging::VirtAddr;
use record::Area;
use std::panic::{AssertUnwindSafe, catch_unwind};

fn in_every_order(body: fn()) {
    loom::model::Builder::new().check(body);
}

#[track_caller]
fn assert_found_out(missing: Missing, body: fn()) {
    let run = catch_unwind(AssertUnwindSafe(|| {
        let _without = atomic::without(missing);
        in_every_order(body);
    }));
    assert!(run.is_err(), "without {missing:?} nothing goes wrong");
}

fn numbers(list: va::List<{ record::WORDS }>) -> Vec<u64> {
    list.map(|area| area.reserved()).collect()
}

fn areas_are_pushed_and_taken() {
    let list = Arc::new(DeferredAreas::new());
    // loom takes the first use of a word for its making.
    assert!(list.new.take_all().next().is_none() && list.usage() == (0, 0));
    let pushers = [1, 2].map(|number| {
        let list = list.clone();
        loom::thread::spawn(move || {
            let area = Area::numbered(number);
            let pages = area.reserved();
            list.push(area, pages);
        })
    });
    let mut taken = numbers(list.new.take_all());
    pushers
        .into_iter()
        .for_each(|pusher| pusher.join().expect("pushed"));
    taken.extend(numbers(list.new.take_all()));
    taken.sort_unstable();
    assert_eq!(taken, [1, 2], "each is taken once");
}

#[test]
fn each_area_is_taken_once_as_its_last_holder_left_it() {
    in_every_order(areas_are_pushed_and_taken);
}

#[test]
fn a_push_that_does_not_release_is_found_out() {
    assert_found_out(Missing::Release, areas_are_pushed_and_taken);
}

#[test]
fn a_taker_that_does_not_acquire_is_found_out() {
    assert_found_out(Missing::Acquire, areas_are_pushed_and_taken);
}

const FIRST: VirtAddr = VirtAddr(0x1000);
const SECOND: VirtAddr = VirtAddr(0x2000);

type Caller = &'static Location<'static>;

#[track_caller]
fn caller() -> Caller {
    Location::caller()
}

fn drained(slots: &[Slot]) -> Vec<(u64, Caller)> {
    let taken = slots.iter().filter_map(|slot| {
        let va = slot.address()?;
        slot.take(va).map(|by| (va.0, by))
    });
    taken.collect()
}

fn used_queue() -> Arc<Addresses> {
    let queue = Addresses::new();
    let before = caller();
    queue.push(FIRST, before).expect("room");
    queue.push(SECOND, before).expect("room");
    assert_eq!(drained(&queue.slots[..2]).len(), 2);
    Arc::new(queue)
}

fn addresses_are_queued_and_drained() {
    let callers = [caller(), caller()];
    let queue = used_queue();
    let pusher = {
        let queue = queue.clone();
        loom::thread::spawn(move || {
            queue.push(FIRST, callers[0]).expect("room");
            queue.push(SECOND, callers[1]).expect("room");
        })
    };
    let mut taken = drained(&queue.slots[..2]);
    pusher.join().expect("queued");
    taken.extend(drained(&queue.slots[..2]));
    taken.sort_unstable_by_key(|(va, _)| *va);
    assert_eq!(taken, [(FIRST.0, callers[0]), (SECOND.0, callers[1])]);
}

#[test]
fn each_address_is_taken_once_with_its_caller() {
    in_every_order(addresses_are_queued_and_drained);
}

#[test]
fn an_address_that_is_stored_without_release_is_found_out() {
    assert_found_out(Missing::Release, addresses_are_queued_and_drained);
}

#[test]
fn an_address_that_is_taken_without_acquire_is_found_out() {
    assert_found_out(Missing::Acquire, addresses_are_queued_and_drained);
}

fn two_drain_the_same() {
    let by = caller();
    let queue = used_queue();
    queue.push(FIRST, by).expect("room");
    let other = {
        let queue = queue.clone();
        loom::thread::spawn(move || drained(&queue.slots[..1]))
    };
    let mut taken = drained(&queue.slots[..1]);
    taken.extend(other.join().expect("drained"));
    assert_eq!(taken, [(FIRST.0, by)], "one of them has it");
}

#[test]
fn of_two_that_drain_one_takes_an_address() {
    in_every_order(two_drain_the_same);
}

#[test]
fn a_take_that_does_not_look_whether_it_was_first_is_found_out() {
    assert_found_out(Missing::Exchange, two_drain_the_same);
}
