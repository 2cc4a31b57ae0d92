//! Many CPUs in one region, on schedules that a model checker chooses, judged by the model of the MMU.
//!
//! Each claim is a [`Scenario`]; beside it stand the machines on which it must fail ([`Plant`]), so that a claim which
//! cannot fail is none. `SHUTTLE_SCHEDULES` sets how many schedules are tried.

mod support;

use mmu_model::Access;
use paging::{LeafSet, Pfn, VirtAddr, VirtRange};
use support::{Area, CheckedLock, PAGE, POISON, Plant, Rig, Scenario, Schedules, me};
use vmalloc::{Backend, Config, Error, FlushPolicy, Lock};

const STRICT: Config = Config {
    leaves: LeafSet::ALL,
    flush: FlushPolicy::Strict,
    cached_areas: 2,
};

const LAZY: Config = Config {
    flush: FlushPolicy::Lazy { areas: 3, pages: 64 },
    ..STRICT
};

/// Whoever flushes a range keeps it: nobody else maps anything there.
const ROOMY: Config = Config {
    cached_areas: 64,
    ..LAZY
};

/// Nothing is flushed before somebody asks.
const LAZIEST: Config = Config {
    flush: FlushPolicy::Lazy {
        areas: 1000,
        pages: 1000,
    },
    ..STRICT
};

const fn scenario(config: Config, schedules: usize, body: fn(&Rig)) -> Scenario {
    Scenario {
        config,
        schedules,
        body,
    }
}

/// What the model calls it when something is used again too early.
const REUSED: &[&str] = &[
    "FrameReused",
    "VaReused",
    "TableReused",
    "TlbiBeforeDsb",
    "StaleAccess",
];

// Lazy purge.

const PURGE: Scenario = scenario(LAZY, 2000, |rig| {
    let churn = |rig: &Rig| {
        for round in 0..3 {
            let area = rig.filled(1 + round, me() as u64);
            rig.check_and_free(area, me() as u64);
        }
    };
    let purge = |rig: &Rig| {
        rig.vm.vm_unmap_aliases();
        rig.vm.vm_unmap_aliases();
    };
    rig.at_once(&[&churn, &churn, &purge]);
});

#[test]
fn neither_frames_nor_tables_nor_addresses_are_used_again_before_the_flush() {
    PURGE.holds();
    Scenario {
        config: LAZIEST,
        ..PURGE
    }
    .holds();
    Scenario {
        config: STRICT,
        ..PURGE
    }
    .holds();
}

#[test]
fn a_purge_without_its_leading_barrier_is_noticed() {
    PURGE.catches(Plant::NoLeadingDsb, REUSED);
}

#[test]
fn a_purge_without_its_trailing_barrier_is_noticed() {
    PURGE.catches(Plant::NoTrailingDsb, REUSED);
}

#[test]
fn a_purge_without_its_invalidations_is_noticed() {
    PURGE.catches(Plant::NoTlbi, REUSED);
}

#[test]
fn a_purge_that_does_not_see_what_others_stored_is_noticed() {
    PURGE.catches(Plant::LocksDoNotOrder, REUSED);
}

/// What [`vm_unmap_aliases`](vmalloc::Vmalloc::vm_unmap_aliases) promises, also while another CPU is about to flush the same.
const ALIASES: Scenario = scenario(ROOMY, 2000, |rig| {
    let churn = |rig: &Rig| {
        let areas: Vec<_> = (0..2).map(|_| rig.filled(1, me() as u64)).collect();
        for area in areas {
            rig.check_and_free(area, me() as u64);
        }
    };
    let wants = |rig: &Rig| {
        let area = rig.filled(2, me() as u64);
        let range = area.range();
        rig.check_and_free(area, me() as u64);
        rig.vm.vm_unmap_aliases();
        rig.assert_forgotten(range);
    };
    rig.at_once(&[&churn, &churn, &wants]);
});

#[test]
fn whoever_asks_for_a_flush_has_it_when_the_call_returns() {
    ALIASES.holds();
}

#[test]
fn a_flush_that_was_asked_for_and_does_nothing_is_noticed() {
    ALIASES.catches(Plant::NoTlbi, REUSED);
}

/// The same for an area that its owner could not wait for, and that another CPU is giving back in his place.
const DEFERRED: Scenario = scenario(ROOMY, 2000, |rig| {
    let settle = |rig: &Rig| {
        for _ in 0..2 {
            // Nothing is ever mapped in it.
            drop(rig.vm.get_vm_area(3 * PAGE, PAGE).expect("addresses suffice"));
        }
    };
    let raw = rig.filled(1, 9);
    let at = raw.range();
    let va = raw.into_inner().into_raw();
    let gives = |rig: &Rig| {
        let area = rig.filled(2, me() as u64);
        let ranges = [area.range(), at];
        rig.given_back(ranges[0]);
        rig.given_back(ranges[1]);
        area.into_inner().free_atomic().expect("its frames are its own");
        rig.vm.vfree_atomic(va).expect("it is raw");
        rig.vm.vm_unmap_aliases();
        for range in ranges {
            for page in 0..range.size / PAGE {
                let at = range.start.add(page * PAGE);
                assert!(rig.vm.vmalloc_to_pfn(at).is_err(), "{at} is still mapped");
            }
            rig.assert_forgotten(range);
        }
        assert_eq!(rig.machine().ram().used(), 0, "frames are still withheld");
    };
    rig.at_once(&[&settle, &settle, &gives]);
});

#[test]
fn whoever_asks_for_a_flush_has_it_of_what_was_deferred_too() {
    DEFERRED.holds();
    Scenario {
        config: STRICT,
        ..DEFERRED
    }
    .holds();
}

#[test]
fn a_deferred_area_whose_flush_does_nothing_is_noticed() {
    DEFERRED.catches(Plant::NoTlbi, REUSED);
}

/// RAM that two CPUs together have enough of, if each waits for what the other is giving back.
const PRESSURE: Scenario = scenario(LAZIEST, 2000, |rig| {
    let churn = |rig: &Rig| {
        for _ in 0..3 {
            let area = rig.filled(28, me() as u64);
            rig.check_and_free(area, me() as u64);
        }
    };
    rig.at_once(&[&churn, &churn]);
});

#[test]
fn memory_on_its_way_back_is_waited_for_before_there_is_none() {
    PRESSURE.holds();
}

#[test]
fn memory_that_is_lost_on_its_way_back_is_noticed() {
    PRESSURE.catches(Plant::FramesLeak, &["memory suffices", "frames leaked"]);
}

/// One CPU wants nearly all addresses, so that what is kept for the next of its size is given up, again and again.
const BUG_16: Scenario = scenario(STRICT, 1500, |rig| {
    let churn = |rig: &Rig| {
        for pages in [1, 2, 1] {
            let area = rig.filled(pages, me() as u64);
            rig.check_and_free(area, me() as u64);
        }
    };
    let drain = |rig: &Rig| {
        let region = rig.vm.range().size;
        for _ in 0..2 {
            match rig.vm.get_vm_area(region - 32 * PAGE, PAGE) {
                Ok(area) => drop(area),
                Err(Error::OutOfSpace(_)) => {}
                Err(other) => panic!("{other}"),
            }
        }
    };
    rig.at_once(&[&churn, &churn, &drain]);
});

#[test]
fn bug_16_kept_ranges_are_dropped_and_given_out_on_all_cpus() {
    BUG_16.holds();
    Scenario {
        config: LAZY,
        ..BUG_16
    }
    .holds();
}

#[test]
fn kept_ranges_that_are_given_out_before_they_are_flushed_are_noticed() {
    BUG_16.catches(Plant::NoTlbi, REUSED);
}

// Tables.

/// Areas that cover tables whole, beside areas in part of one and readers of both.
const TABLES: Scenario = scenario(LAZY, 1000, |rig| {
    rig.machine().ram().largest = 0;
    let whole = |rig: &Rig| {
        let request = vmalloc::Request::new(8 * PAGE).aligned(8 * PAGE);
        for _ in 0..2 {
            let area = Area::from(rig.vm.allocate(&request).expect("memory suffices"));
            rig.fill(&area, me() as u64);
            rig.check_and_free(area, me() as u64);
        }
    };
    let part = |rig: &Rig| {
        for _ in 0..2 {
            let area = rig.filled(1, me() as u64);
            rig.check_and_free(area, me() as u64);
            rig.vm.vm_unmap_aliases();
        }
    };
    let reader = |rig: &Rig| {
        for page in 0..12 {
            let va = rig.vm.range().start.add(page * PAGE);
            let _ = rig.vm.vmalloc_to_pfn(va);
        }
    };
    rig.at_once(&[&whole, &part, &reader]);
});

#[test]
fn nobody_reads_or_writes_a_table_that_was_given_back() {
    TABLES.holds();
}

#[test]
fn a_walk_that_keeps_nobody_out_is_noticed() {
    TABLES.catches_on(Schedules::Priorities, Plant::WalksDoNotExclude, &["BadTable"]);
}

/// The addresses of one area of pages are those of an area of blocks next: the table between them goes while others read.
const BUG_1: Scenario = scenario(STRICT, 1000, |rig| {
    let request = vmalloc::Request::new(8 * PAGE).aligned(8 * PAGE);
    let keep = rig.filled(1, 99);
    let replace = |rig: &Rig| {
        for largest in [0, 3, 0, 3] {
            rig.machine().ram().largest = largest;
            let area = Area::from(rig.vm.allocate(&request).expect("memory suffices"));
            assert_eq!(area.outcome().leaves.get(paging::LeafSize::BLOCK2), largest / 3);
            rig.fill(&area, me() as u64);
            rig.check_and_free(area, me() as u64);
        }
    };
    let prune = |rig: &Rig| rig.vm.vm_unmap_aliases();
    let reader = |rig: &Rig| {
        for page in 0..24 {
            let va = rig.vm.range().start.add(page * PAGE);
            let _ = rig.vm.vmalloc_to_pfn(va);
        }
        rig.vm.vmallocinfo(|_| ());
    };
    rig.at_once(&[&replace, &prune, &reader]);
    rig.check_and_free(keep, 99);
});

#[test]
fn bug_1_nobody_walks_a_table_that_a_block_replaces() {
    BUG_1.holds();
}

#[test]
fn a_table_that_a_block_replaces_under_a_walker_is_noticed() {
    BUG_1.catches_on(Schedules::Priorities, Plant::WalksDoNotExclude, &["BadTable"]);
}

// Readers.

/// One area stays; others come and go around it; readers see it whole, and of the others nothing that is not so.
const READERS: Scenario = scenario(LAZY, 1000, |rig| {
    let stays = rig.filled(2, 99);
    let stays_at = stays.range();
    let frames: Vec<_> = (0..2)
        .map(|page| {
            let at = stays_at.start.add(page * PAGE);
            rig.vm.vmalloc_to_pfn(at).expect("mapped")
        })
        .collect();
    let churn = |rig: &Rig| {
        for _ in 0..2 {
            // In a table of its own, which goes with it.
            let apart = vmalloc::Request::new(2 * PAGE).aligned(64 * PAGE);
            let area = Area::from(rig.vm.allocate(&apart).expect("memory suffices"));
            rig.fill(&area, me() as u64);
            rig.check_and_free(area, me() as u64);
            rig.vm.vm_unmap_aliases();
        }
    };
    let reader = |rig: &Rig| {
        for (page, frame) in frames.iter().enumerate() {
            let at = stays_at.start.add(page as u64 * PAGE);
            assert_eq!(rig.vm.vmalloc_to_pfn(at), Ok(*frame));
        }
        let info = rig.vm.find_vm_area(stays_at.start).expect("it stays");
        assert_eq!((info.va, info.size), (stays_at.start, 2 * PAGE));
        let mut word = [0; 8];
        assert_eq!(rig.vm.vread(stays_at.start.add(PAGE), &mut word), Ok(8));
        assert_eq!(u64::from_le_bytes(word), 99 << 16 | 1);
        let mut listed = Vec::new();
        rig.vm.vmallocinfo(|area| listed.push(*area));
        assert!(listed.is_sorted_by_key(|area| area.range.start));
        assert!(listed.windows(2).all(|two| !two[0].range.overlaps(two[1].range)));
        let found = listed
            .iter()
            .find(|area| area.range == stays_at)
            .expect("it stays");
        assert_eq!(found.leaves.pages::<support::Small>(), 2);
        let mut at = rig.vm.range().start;
        let mut met = false;
        while let Some(area) = rig.vm.next_vm_area(at) {
            met |= area.va == stays_at.start;
            at = area.va.add(1);
        }
        assert!(met, "it stays");
    };
    rig.at_once(&[&churn, &churn, &reader]);
    rig.check_and_free(stays, 99);
});

#[test]
fn readers_see_what_stays_while_others_come_and_go() {
    READERS.holds();
}

#[test]
fn readers_of_tables_that_go_are_noticed() {
    // A table goes between two steps of a reader: he is held up for long.
    READERS.catches_on(Schedules::Priorities, Plant::WalksDoNotExclude, &["BadTable"]);
}

/// A reader of an area that is given back meanwhile, and whose frames another area has next.
const VREAD: Scenario = scenario(STRICT, 1500, |rig| {
    let goes = rig.filled(1, 77);
    let at = goes.range().start;
    let goes = std::sync::Mutex::new(Some(goes));
    let reader = |rig: &Rig| {
        for _ in 0..2 {
            let mut word = [0xff; 8];
            let copied = rig.vm.vread(at, &mut word).expect("in the region");
            let found = u64::from_le_bytes(word);
            match copied {
                0 => assert_eq!(found, 0, "nothing was there"),
                // The area, or what took its addresses meanwhile, before anything was written or after.
                _ => assert!(
                    [77 << 16, 2 << 16, POISON].contains(&found),
                    "read {found:#x} at an address that never had it"
                ),
            }
        }
    };
    let freer = |rig: &Rig| {
        let area = goes
            .lock()
            .expect("no panic under this lock")
            .take()
            .expect("once");
        rig.check_and_free(area, 77);
        // The same frame, at another address.
        let elsewhere = vmalloc::Request::new(PAGE).aligned(64 * PAGE);
        let keep = rig.filled(1, me() as u64);
        let area = Area::from(rig.vm.allocate(&elsewhere).expect("memory suffices"));
        rig.fill(&area, 55);
        rig.check_and_free(area, 55);
        rig.check_and_free(keep, me() as u64);
    };
    rig.at_once(&[&reader, &freer]);
});

#[test]
fn vread_never_gives_what_came_after() {
    VREAD.holds();
}

// Areas that change hands.

const HANDED_OVER: Scenario = scenario(LAZY, 1500, |rig| {
    let given: CheckedLock<Vec<(VirtRange, u64)>> = Lock::new(Vec::new());
    let maker = |rig: &Rig| {
        for pages in [1, 3, 2] {
            let key = 10 * me() as u64 + pages;
            let area = rig.filled(pages, key);
            let range = area.range();
            area.into_inner().into_raw();
            given.lock().push((range, key));
        }
    };
    let freer = |rig: &Rig| {
        let mut left = 3;
        while left != 0 {
            let next = given.lock().pop();
            let Some((range, key)) = next else {
                shuttle::thread::yield_now();
                continue;
            };
            rig.assert_filled(range, key);
            rig.given_back(range);
            rig.vm.vfree(range.start).expect("it is raw");
            left -= 1;
        }
    };
    rig.at_once(&[&maker, &freer, &maker, &freer]);
});

#[test]
fn what_one_cpu_makes_another_may_free() {
    HANDED_OVER.holds();
}

#[test]
fn a_hand_over_that_orders_nothing_is_noticed() {
    HANDED_OVER.catches(Plant::LocksDoNotOrder, REUSED);
}

const FREED_TWICE: Scenario = scenario(LAZY, 1500, |rig| {
    let area = rig.filled(2, 5);
    let range = area.range();
    rig.given_back(range);
    let va = area.into_inner().into_raw();
    let freed = std::sync::atomic::AtomicUsize::new(0);
    let free = |rig: &Rig| match rig.vm.vfree(va) {
        Ok(()) => {
            freed.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        Err(Error::Freed(freed)) => assert_eq!(freed.area.va, va),
        // The other has it in hand.
        Err(Error::Owned(area)) => assert_eq!(area.va, va),
        Err(other) => panic!("{other}"),
    };
    rig.at_once(&[&free, &free, &|rig| rig.vm.vm_unmap_aliases()]);
    assert_eq!(freed.into_inner(), 1, "one of them frees it");
});

#[test]
fn of_two_who_free_the_same_area_one_does_and_the_other_is_told() {
    FREED_TWICE.holds();
}

#[test]
fn an_area_freed_twice_before_its_flush_is_noticed() {
    FREED_TWICE.catches(Plant::NoTlbi, REUSED);
}

// vm_map_ram.

const MAP_RAM: Scenario = scenario(LAZY, 1500, |rig| {
    let given: CheckedLock<Vec<(VirtAddr, Vec<Pfn>)>> = Lock::new(Vec::new());
    let ram = |rig: &Rig, nr: u64| -> Vec<Pfn> {
        let frame = || rig.machine().alloc_frames(0).expect("memory suffices");
        (0..nr).map(|_| frame()).collect()
    };
    // Whoever unmaps may use the pages for anything at once.
    let unmap = |rig: &Rig, va: VirtAddr, frames: &[Pfn]| {
        for (page, frame) in frames.iter().enumerate() {
            let at = va.add(page as u64 * PAGE);
            assert_eq!(rig.machine().load(at), frame.0, "page {page} at {va}");
        }
        rig.given_back(VirtRange::new(va, frames.len() as u64 * PAGE));
        rig.vm.vm_unmap_ram(va, frames.len() as u64).expect("mapped");
        for frame in frames {
            rig.machine().free_frames(*frame, 0);
        }
    };
    let map = |rig: &Rig, nr: u64| {
        let frames = ram(rig, nr);
        let va = rig.vm.vm_map_ram(&frames[..]).expect("memory suffices");
        rig.taken_without_guard(VirtRange::new(va, nr * PAGE), me() as u64);
        for (page, frame) in frames.iter().enumerate() {
            rig.machine().store(va.add(page as u64 * PAGE), frame.0);
        }
        (va, frames)
    };
    let own = |rig: &Rig| {
        for nr in [2, 1] {
            let (va, frames) = map(rig, nr);
            unmap(rig, va, &frames);
        }
    };
    let maker = |rig: &Rig| {
        let mapping = map(rig, 3);
        given.lock().push(mapping);
        rig.vm.vm_unmap_aliases();
    };
    rig.at_once(&[&own, &own, &maker]);
    let rest = std::mem::take(&mut *given.lock());
    for (va, frames) in rest {
        unmap(rig, va, &frames);
    }
});

#[test]
fn pages_mapped_for_a_short_while_are_free_when_the_unmap_returns() {
    MAP_RAM.holds();
    Scenario {
        config: STRICT,
        ..MAP_RAM
    }
    .holds();
}

#[test]
fn pages_that_are_not_flushed_when_the_unmap_returns_are_noticed() {
    MAP_RAM.catches(Plant::NoTlbi, REUSED);
}

#[test]
fn pages_whose_flush_is_not_complete_when_the_unmap_returns_are_noticed() {
    MAP_RAM.catches(Plant::NoTrailingDsb, REUSED);
}

const UNMAPPED_TWICE: Scenario = scenario(STRICT, 1000, |rig| {
    let frame = rig.machine().alloc_frames(0).expect("memory suffices");
    let va = rig.vm.vm_map_ram(&[frame][..]).expect("memory suffices");
    let ended = std::sync::atomic::AtomicUsize::new(0);
    let unmap = |rig: &Rig| match rig.vm.vm_unmap_ram(va, 1) {
        Ok(()) => {
            ended.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        Err(Error::NotMapped(at)) => assert_eq!(at, va),
        // Its block went with it.
        Err(Error::Freed(_) | Error::Owned(_)) => {}
        Err(other) => panic!("{other}"),
    };
    rig.at_once(&[&unmap, &unmap, &|rig| rig.vm.vm_unmap_aliases()]);
    assert_eq!(ended.into_inner(), 1, "one of them ends it");
    rig.machine().free_frames(frame, 0);
});

#[test]
fn of_two_who_unmap_the_same_pages_one_does_and_the_other_is_told() {
    UNMAPPED_TWICE.holds();
}

#[test]
fn pages_unmapped_twice_before_their_flush_are_noticed() {
    UNMAPPED_TWICE.catches(Plant::NoTlbi, REUSED);
}

// Permissions.

/// Parts of areas become read-only and back, with the linear map cut and folded, while others read through both.
const PERMISSIONS: Scenario = scenario(LAZY, 600, |rig| {
    let stays = rig.filled(2, 99);
    let stays_at = stays.range();
    let alias = |rig: &Rig, va: VirtAddr| {
        let frame = rig.vm.vmalloc_to_pfn(va).expect("mapped");
        rig.machine().alias(frame)
    };
    let changer = |rig: &Rig| {
        let area = rig.filled(4, me() as u64);
        let at = area.range().start.add(PAGE);
        area.set_memory_ro(PAGE, PAGE).expect("tables suffice");
        for va in [at, alias(rig, at)] {
            let cpu = rig.machine().model().cpu(me());
            assert!(cpu.access_with_retry(va, Access::Read).is_ok());
            assert!(
                cpu.access_with_retry(va, Access::Write).is_err(),
                "{va} is writable"
            );
        }
        // What is beside it is as it was.
        rig.machine().store(at.add(PAGE), (me() as u64) << 16 | 2);
        area.set_memory_rw(PAGE, PAGE).expect("tables suffice");
        rig.machine().store(at, (me() as u64) << 16 | 1);
        area.set_memory_invalid(2 * PAGE, PAGE).expect("tables suffice");
        area.set_memory_valid(2 * PAGE, PAGE).expect("tables suffice");
        rig.check_and_free(area, me() as u64);
    };
    let reader = |rig: &Rig| {
        for _ in 0..2 {
            for page in 0..2 {
                let at = stays_at.start.add(page * PAGE);
                let mut word = [0; 8];
                // By the linear map, with the walk lock held: nobody breaks it meanwhile.
                assert_eq!(rig.vm.vread(at, &mut word), Ok(8));
                assert_eq!(u64::from_le_bytes(word), 99 << 16 | page);
                // By the linear map, without: it may be broken, and the fault handler waits for it to be made.
                let found = rig.machine().load_through_breaks(alias(rig, at));
                assert_eq!(found, 99 << 16 | page);
            }
        }
    };
    rig.at_once(&[&changer, &changer, &reader]);
    rig.check_and_free(stays, 99);
});

#[test]
fn permissions_change_under_readers_of_the_area_and_of_its_alias() {
    PERMISSIONS.holds();
}

#[test]
fn a_linear_map_that_is_broken_under_readers_is_noticed() {
    PERMISSIONS.catches(
        Plant::WalksDoNotExclude,
        &["loads from", "StaleAccess", "BadTable", "BreakBeforeMake"],
    );
}

#[test]
fn an_alias_that_keeps_its_rights_is_noticed() {
    PERMISSIONS.catches(Plant::AliasIsForgotten, &["is writable"]);
}

#[test]
fn rights_that_outlive_their_flush_are_noticed() {
    PERMISSIONS.catches(Plant::NoTlbi, &["StaleAccess", "BreakBeforeMake"]);
}

// Growing.

const GROWTH: Scenario = scenario(LAZY, 800, |rig| {
    let grow = |rig: &Rig| {
        let key = me() as u64;
        let mut area = rig.filled(1, key);
        for pages in [2, 5] {
            let old = area.range();
            rig.given_back(old);
            area.vrealloc(pages * PAGE).expect("memory suffices");
            rig.assert_filled(VirtRange::new(area.range().start, old.size), key);
            rig.fill(&area, key);
        }
        rig.check_and_free(area, key);
    };
    let churn = |rig: &Rig| {
        for _ in 0..2 {
            let area = rig.filled(2, me() as u64);
            rig.check_and_free(area, me() as u64);
        }
    };
    rig.at_once(&[&grow, &grow, &churn]);
});

#[test]
fn an_area_that_grows_keeps_its_pages_and_gives_up_its_addresses() {
    GROWTH.holds();
}

#[test]
fn addresses_given_up_before_they_are_flushed_are_noticed() {
    GROWTH.catches(Plant::NoTlbi, REUSED);
}

// Whoever cannot wait.

/// Memory asked for and given back where nothing can be waited for, beside those who wait, purge, and deal with what was deferred. Locks
/// are found taken, so that all ways of it are gone.
const NOWAIT: Scenario = scenario(LAZY, 1500, |rig| {
    let handler = |rig: &Rig| {
        let key = me() as u64;
        for pages in [1, 2, 9] {
            match rig.vm.allocate(&vmalloc::Request::new(pages * PAGE).nowait()) {
                Ok(area) => {
                    let area = Area::from(area);
                    rig.fill(&area, key);
                    rig.assert_filled(area.range(), key);
                    rig.given_back(area.range());
                    if pages == 1 {
                        area.into_inner().free_atomic().expect("its frames are its own");
                    } else {
                        let va = area.into_inner().into_raw();
                        rig.vm.vfree_atomic(va).expect("it is raw");
                    }
                }
                Err(Error::WouldBlock) => {}
                Err(other) => panic!("{other}"),
            }
        }
    };
    let waits = |rig: &Rig| {
        for pages in [1, 9] {
            let area = rig.filled(pages, me() as u64);
            rig.check_and_free(area, me() as u64);
        }
        rig.vm.vm_unmap_aliases();
    };
    rig.at_once(&[&handler, &handler, &waits]);
});

#[test]
fn who_cannot_wait_and_who_waits_are_in_each_others_way_and_no_more() {
    NOWAIT.holds_where_some_spin();
    Scenario {
        config: STRICT,
        ..NOWAIT
    }
    .holds_where_some_spin();
}

#[test]
fn memory_given_back_without_waiting_and_never_flushed_is_noticed() {
    NOWAIT.catches(Plant::NoTlbi, REUSED);
}

#[test]
fn frames_lost_where_nothing_was_waited_for_are_noticed() {
    NOWAIT.catches(Plant::FramesLeak, &["frames leaked"]);
}

/// The same address given back twice by handlers that may not look: one frees it, and whoever deals with the other is told.
const FREED_TWICE_ATOMIC: Scenario = scenario(LAZY, 1500, |rig| {
    let area = rig.filled(2, 5);
    let range = area.range();
    rig.given_back(range);
    let va = area.into_inner().into_raw();
    let told = std::sync::atomic::AtomicUsize::new(0);
    let free = |rig: &Rig| match rig.vm.vfree_atomic(va) {
        Ok(()) => {}
        Err(Error::Freed(_) | Error::Owned(_)) => {
            told.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        Err(other) => panic!("{other}"),
    };
    rig.at_once(&[&free, &free, &|rig| rig.vm.vm_unmap_aliases()]);
    rig.vm.vm_unmap_aliases();
    let told = told.into_inner() + rig.vm.usage().refused;
    assert_eq!(told, 1, "one of them frees it, the other is told, now or later");
});

#[test]
fn of_two_who_free_the_same_area_without_waiting_one_does() {
    FREED_TWICE_ATOMIC.holds();
}

// Failures.

const FAILURES: Scenario = scenario(LAZY, 1500, |rig| {
    {
        let mut ram = rig.machine().ram();
        ram.refuse_every = Some(4);
        ram.refuse_nodes_every = Some(2);
    }
    rig.machine().refuse_tables(Some(3));
    let churn = |rig: &Rig| {
        let key = me() as u64;
        for pages in [1, 9, 3] {
            match rig.vm.vmalloc(pages * PAGE) {
                Ok(area) => {
                    let area = Area::from(area);
                    rig.fill(&area, key);
                    rig.check_and_free(area, key);
                }
                Err(Error::OutOfFrames { size }) => assert_eq!(size, pages * PAGE),
                Err(Error::OutOfNodes | Error::Map(paging::Error::OutOfTables(_))) => {}
                Err(other) => panic!("{other}"),
            }
        }
    };
    let map = |rig: &Rig| {
        let frames: Vec<_> = (0..2).filter_map(|_| rig.machine().alloc_frames(0)).collect();
        match rig.vm.vm_map_ram(&frames[..]) {
            Ok(va) => rig.vm.vm_unmap_ram(va, frames.len() as u64).expect("mapped"),
            Err(Error::Empty) => assert!(frames.is_empty()),
            Err(Error::OutOfNodes | Error::Map(paging::Error::OutOfTables(_))) => {}
            Err(other) => panic!("{other}"),
        }
        for frame in frames {
            rig.machine().free_frames(frame, 0);
        }
    };
    rig.at_once(&[&churn, &churn, &map]);
    let mut ram = rig.machine().ram();
    ram.refuse_every = None;
    ram.refuse_nodes_every = None;
    drop(ram);
    rig.machine().refuse_tables(None);
});

#[test]
fn whatever_fails_beside_others_leaves_nothing_behind() {
    FAILURES.holds_where_some_spin();
}

#[test]
fn a_frame_that_is_lost_is_noticed() {
    FAILURES.catches(Plant::FramesLeak, &["frames leaked"]);
}

/// Readers of the tables that a failing map made and takes back.
const FAILED_MAPS: Scenario = scenario(LAZY, 1500, |rig| {
    rig.machine().refuse_tables(Some(2));
    let fail = |rig: &Rig| {
        for _ in 0..3 {
            if let Ok(area) = rig.vm.vmalloc(PAGE) {
                drop(area);
            }
        }
    };
    let reader = |rig: &Rig| {
        for page in 0..6 {
            let va = rig.vm.range().start.add(page * PAGE);
            let _ = rig.vm.vmalloc_to_pfn(va);
        }
    };
    rig.at_once(&[&fail, &fail, &reader]);
    rig.machine().refuse_tables(None);
});

#[test]
fn a_map_that_fails_gives_no_table_back_that_somebody_reads() {
    FAILED_MAPS.holds_where_some_spin();
}
