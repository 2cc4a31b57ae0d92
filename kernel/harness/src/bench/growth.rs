//! Costs by number of live areas and by size of a mapping, and what lazy purge holds over time.

use alloc::vec::Vec;
use core::hint::black_box;

use kernel::layout;
use kernel::mm;
use kernel::mm::areas::KernelVmalloc;
use paging::{Attributes, Failure, LeafSet, Outcome, Pfn, VirtAddr, VirtRange};
use vmalloc::{FlushPolicy, VmArea};

use super::backend::{kernel_policy, subsystem};
use super::engine::nowhere;
use super::pages::{Pages, Random};
use super::report;
use super::{Bench, GIB, KIB};

const LIVE: &[usize] = &[0, 100, 1_000, 15_000, 100_000];
const PAIRS: u64 = 2_000;
const MOST_PAGES: u64 = 16;
const ONE_HOLE_IN: usize = 5;
const SEED: u64 = 0x5eed_0003;

const BY_LIVE_ADDRESSES: &str = "get_vm_area + free_vm_area of 1 to 16 pages, by live areas";
const BY_LIVE_AREAS: &str = "vmalloc + vfree of 1 page, by live areas";
const WORST_BY_LIVE: &str = "get_vm_area + free_vm_area, dearest of 2,000, by live areas";
const FIND_BY_LIVE: &str = "find_vm_area, by live areas";

/// # Panics
/// If a case fails.
pub fn run(bench: &Bench<'_>) {
    let by_live = [BY_LIVE_ADDRESSES, BY_LIVE_AREAS, WORST_BY_LIVE, FIND_BY_LIVE];
    if by_live.iter().filter(|name| bench.selects(name)).count() > 0 {
        by_live_areas(bench);
    }
    for (name, alignment) in [
        ("map + unmap of a range in 4K, per 1,000 pages", 4 * KIB),
        ("map + unmap of a range in 64K, per 1,000 pages", 64 * KIB),
        ("map + unmap of a range in 2M and more, per 1,000 pages", GIB),
    ] {
        by_pages(bench, name, alignment);
    }
    by_pages_of_array(bench, "map + unmap of an array in 4K, per 1,000 pages");
    lazy(bench, "KiB lazy, by areas of 1 to 100 pages freed");
}

fn by_live_areas(bench: &Bench<'_>) {
    bench.prune();
    let vm = subsystem(bench.region(), kernel_policy());
    let mut random = Random::new(SEED);
    let mut live: Vec<VirtAddr> = Vec::new();
    for &nr in LIVE {
        while live.len() < nr {
            let made = reserve(&vm, &mut random).into_raw();
            live.push(made);
            if live.len().is_multiple_of(ONE_HOLE_IN) {
                let gone = live.swap_remove(random.below(live.len() as u64) as usize);
                // SAFETY: raw, the bench's own, and nothing lies in it.
                let freed = unsafe { vm.free_vm_area(gone) };
                assert!(freed.is_ok(), "{gone}: {freed:?}");
                // Or the next area would make the same length again.
                live.push(reserve(&vm, &mut random).into_raw());
            }
        }
        measure_live(bench, &vm, &live, &mut random);
    }
    for va in live {
        // SAFETY: as above.
        let freed = unsafe { vm.free_vm_area(va) };
        assert!(freed.is_ok(), "{va}: {freed:?}");
    }
}

fn reserve<'v>(vm: &'v KernelVmalloc, random: &mut Random) -> VmArea<'v, kernel::mm::areas::KernelBackend> {
    let size = (1 + random.below(MOST_PAGES)) << 12;
    vm.get_vm_area(size, 4096)
        .unwrap_or_else(|error| panic!("an area of {size} bytes: {error}"))
}

fn measure_live(bench: &Bench<'_>, vm: &KernelVmalloc, live: &[VirtAddr], random: &mut Random) {
    let x = live.len() as u64;
    let (mut sum, mut most) = (0, 0);
    for _ in 0..PAIRS {
        let size = black_box((1 + random.below(MOST_PAGES)) << 12);
        let (done, taken) = bench
            .instrument
            .count(|| vm.get_vm_area(size, 4096).map(VmArea::free));
        assert!(done.is_ok(), "{BY_LIVE_ADDRESSES}: {done:?}");
        sum += u64::from(taken);
        most = most.max(u64::from(taken));
    }
    point(bench, BY_LIVE_ADDRESSES, x, sum / PAIRS);
    point(bench, WORST_BY_LIVE, x, most);
    let mut sum = 0;
    for _ in 0..PAIRS {
        let size = black_box(4096);
        let (done, taken) = bench.instrument.count(|| vm.vmalloc(size).map(VmArea::free));
        assert!(done.is_ok(), "{BY_LIVE_AREAS}: {done:?}");
        sum += u64::from(taken);
    }
    point(bench, BY_LIVE_AREAS, x, sum / PAIRS);
    if live.is_empty() {
        return;
    }
    let mut sum = 0;
    for _ in 0..PAIRS {
        let va = live[random.below(x) as usize];
        let (found, taken) = bench.instrument.count(|| vm.find_vm_area(va));
        assert!(found.is_some(), "{FIND_BY_LIVE}: nothing at {va}");
        sum += u64::from(taken);
    }
    point(bench, FIND_BY_LIVE, x, sum / PAIRS);
}

fn point(bench: &Bench<'_>, curve: &str, x: u64, y: u64) {
    if bench.selects(curve) {
        report::point(curve, x, y);
    }
}

fn unmap(tree: &mm::KernelTree, range: VirtRange) -> Result<Outcome, Failure> {
    let mut batch = tree.batch();
    let result = tree.unmap(range, &mut batch);
    batch.flush();
    result
}

fn sizes() -> impl Iterator<Item = u64> {
    (0..=18).step_by(2).map(|order| 1 << order)
}

/// At an odd multiple of `alignment`. Nothing beside it is mapped, so tables come and go.
fn by_pages(bench: &Bench<'_>, name: &str, alignment: u64) {
    if !bench.selects(name) {
        return;
    }
    let tree = mm::kernel_tree();
    let pa = nowhere().add(alignment);
    for pages in sizes() {
        bench.prune();
        let range = black_box(VirtRange::new(bench.va, pages << 12));
        let mut taken = 0;
        // The second time, what comes once is there.
        for _ in 0..2 {
            let (done, count) = bench.instrument.count(|| {
                paging::vmap_range_noflush(
                    tree,
                    range.start,
                    pa,
                    range.size,
                    Attributes::DEVICE,
                    LeafSet::ALL,
                )?;
                unmap(tree, range)
            });
            assert!(done.is_ok(), "{name}: {done:?}");
            taken = u64::from(count);
        }
        report::point(name, pages, per_thousand(taken, pages));
    }
}

fn by_pages_of_array(bench: &Bench<'_>, name: &str) {
    if !bench.selects(name) {
        return;
    }
    let most = (GIB >> 12) as usize;
    let first = nowhere().0 >> 12;
    // A permutation without neighbours.
    let scattered = |page: usize| first + (page as u64 * 0x9e37 % most as u64);
    let pages = Pages::elsewhere(most, scattered).unwrap_or_else(|| panic!("{name}: no memory"));
    let tree = mm::kernel_tree();
    for nr in sizes() {
        let frames: &[Pfn] = black_box(&pages.frames()[..nr as usize]);
        bench.prune();
        let range = VirtRange::new(bench.va, nr << 12);
        let mut taken = 0;
        for _ in 0..2 {
            let (done, count) = bench.instrument.count(|| {
                paging::vmap_pages_range_noflush_walk::<layout::Granule, _, _, _>(
                    tree,
                    range.start,
                    frames,
                    Attributes::KERNEL_DATA,
                    LeafSet::ALL,
                )?;
                unmap(tree, range)
            });
            assert!(done.is_ok(), "{name}: {done:?}");
            taken = u64::from(count);
        }
        report::point(name, nr, per_thousand(taken, nr));
    }
}

const fn per_thousand(taken: u64, pages: u64) -> u64 {
    (taken * 1_000).div_ceil(pages)
}

fn lazy(bench: &Bench<'_>, name: &str) {
    const AREAS: u64 = 1_500;
    const EVERY: u64 = 10;
    if !bench.selects(name) {
        return;
    }
    bench.prune();
    let vm = subsystem(bench.region(), kernel_policy());
    let mut random = Random::new(SEED);
    for nr in 0..=AREAS {
        let (areas, pages) = vm.usage().lazy;
        let bounded = match kernel_policy() {
            FlushPolicy::Lazy {
                areas: most,
                pages: most_pages,
            } => areas < most && pages < most_pages,
            _ => areas == 0,
        };
        assert!(bounded, "{name}: {areas} areas of {pages} pages are lazy");
        if nr.is_multiple_of(EVERY) {
            report::point(name, nr, pages * (4096 / KIB));
        }
        let made = vm.vmalloc((1 + random.below(100)) << 12);
        drop(made.unwrap_or_else(|error| panic!("{name}: {error}")));
    }
    vm.vm_unmap_aliases();
    let left = vm.usage().lazy.1;
    assert!(left == 0, "{name}: {left} pages are lazy after a purge");
}
