use super::ring::{Ring, take_out};
use crate::atomic::{Missing, without};
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use std::panic::{AssertUnwindSafe, catch_unwind};

const BLOCKS: usize = 2;

struct Magazine {
    ring: Ring<BLOCKS>,
    contents: [UnsafeCell<u64>; BLOCKS],
}

// SAFETY: loom sees who touches contents that are not its own.
unsafe impl Sync for Magazine {}

impl Magazine {
    /// Loom takes the first use of a word for its making.
    fn new() -> Self {
        let magazine = Self {
            ring: Ring::new(),
            contents: std::array::from_fn(|_| UnsafeCell::new(0)),
        };
        (0..BLOCKS as u64).for_each(|block| magazine.ring.push(block));
        assert_eq!(magazine.ring.nr_blocks(), 2);
        (0..BLOCKS).for_each(|_| assert!(magazine.ring.pop().is_some()));
        magazine
    }

    fn write_to(&self, block: u64) {
        // SAFETY: the caller has the block, or loom says so.
        self.contents[block as usize].with_mut(|contents| unsafe { *contents += 1 });
    }
}

fn a_magazine_is_used_and_drained() {
    let magazine = Arc::new(Magazine::new());
    let short = {
        let magazine = magazine.clone();
        loom::thread::spawn(move || {
            let drained: Vec<u64> = magazine.ring.slots.iter().filter_map(take_out).collect();
            drained.iter().for_each(|block| magazine.write_to(*block));
            drained
        })
    };
    for block in 0..BLOCKS as u64 {
        magazine.write_to(block);
        magazine.ring.push(block);
    }
    let mut out = Vec::new();
    if let Some(block) = magazine.ring.pop() {
        magazine.write_to(block);
        out.push(block);
    }
    out.extend(short.join().expect("drained"));
    out.extend(magazine.ring.slots.iter().filter_map(take_out));
    out.sort_unstable();
    assert_eq!(out, [0, 1], "each block comes out once");
}

#[track_caller]
fn assert_found_out(missing: Missing) {
    let run = catch_unwind(AssertUnwindSafe(|| {
        let _without = without(missing);
        loom::model(a_magazine_is_used_and_drained);
    }));
    assert!(run.is_err(), "without {missing:?} nothing goes wrong");
}

#[test]
fn each_block_comes_out_once_as_its_last_holder_left_it() {
    loom::model(a_magazine_is_used_and_drained);
}

#[test]
fn a_block_that_is_put_in_without_release_is_found_out() {
    assert_found_out(Missing::Release);
}

#[test]
fn a_drain_without_acquire_is_found_out() {
    assert_found_out(Missing::Acquire);
}

#[test]
fn a_slot_that_is_emptied_without_an_exchange_is_found_out() {
    assert_found_out(Missing::Exchange);
}
