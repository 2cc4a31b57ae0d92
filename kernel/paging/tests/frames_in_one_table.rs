//! Frame numbers at once, one by one, and extents map alike, to the last barrier and error.

use crate::support;

use paging::{
    Attributes, Config, Error, Extent, Extents, Failure, FrameArray, Granule, Granule4K, Granule16K,
    Granule64K, LeafSet, LeafSize, Outcome, Pfn, PhysAddr, TinyGranule, VirtAddr, VirtRange,
    vmap_pages_range_noflush_walk,
};
use support::traced::{Event, TracedTree, traced, word};
use support::{Rng, audit};

const FIRST: u64 = 1 << 20;

fn with_table<G: Granule>(beside: bool) -> (TracedTree<G>, VirtAddr) {
    let tree = traced::<G>(Config::default(), false);
    let va = tree.range().start.add(1 << (G::VA_BITS - 2));
    if beside {
        let last = va.add(G::size(2) - G::PAGE_SIZE);
        map(&tree, last, &[Pfn(77)][..], LeafSet::ALL).expect("vacant");
    }
    tree.tables().log.take();
    (tree, va)
}

fn map<G: Granule, A: FrameArray + ?Sized>(
    tree: &TracedTree<G>,
    va: VirtAddr,
    frames: &A,
    leaves: LeafSet,
) -> Result<Outcome, Failure> {
    vmap_pages_range_noflush_walk(tree, va, frames, Attributes::KERNEL_DATA, leaves)
}

fn chunks<G: Granule>(rng: &mut Rng, pages: u64) -> Vec<Pfn> {
    let group = G::cont_entries(3) as u64;
    let mut frames = Vec::new();
    let mut next = FIRST;
    let wanted = 1 + rng.below(pages);
    while (frames.len() as u64) < wanted {
        let size = match rng.below(4) {
            0 => 1,
            1 => 1 + rng.below(group),
            2 => group,
            _ => 1 + rng.below(4 * group),
        };
        next += 2 * group - next % group;
        let offset = if rng.below(3) == 0 { rng.below(group) } else { 0 };
        let left = wanted - frames.len() as u64;
        frames.extend((0..size.min(left)).map(|i| Pfn(next + offset + i)));
        next += size;
    }
    frames
}

fn extents(frames: &[Pfn]) -> Vec<Extent> {
    let mut extents: Vec<Extent> = Vec::new();
    for (i, start) in frames.iter().copied().enumerate() {
        match extents.last_mut() {
            Some(last) if last.start.0.wrapping_add(last.pages) == start.0 && i % 11 != 0 => last.pages += 1,
            _ => extents.push(Extent { start, pages: 1 }),
        }
        if i % 23 == 0 {
            extents.push(Extent { start, pages: 0 });
        }
    }
    extents
}

#[derive(Clone, Copy)]
enum Told {
    AsNumbers,
    OneByOne,
    AsExtents,
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    None,
    Occupied(u64),
    Frame(u64),
    /// By itself.
    Beyond(u64),
}

fn by_all_ways<G: Granule>(frames: &[Pfn], at: u64, leaves: LeafSet, beside: bool, fault: Fault) {
    let mut frames = frames.to_vec();
    let name = format!(
        "{}, {frames:x?} at page {at}, {leaves:?}, {fault:?}, beside another: {beside}",
        G::NAME
    );
    let mut taken = None;
    match fault {
        Fault::None | Fault::Beyond(_) => {}
        Fault::Occupied(page) => taken = Some(page),
        Fault::Frame(page) if page % 2 == 0 => frames[page as usize].0 |= 1 << (63 - page % 11),
        Fault::Frame(page) => frames[page as usize].0 = 1 << (48 - G::PAGE_SHIFT),
    }
    let one_by_one: Vec<Option<Pfn>> = frames.iter().copied().map(Some).collect();
    let extents = extents(&frames);
    let run = |told: Told| {
        let (tree, table) = with_table::<G>(beside);
        let va = table.add(at << G::PAGE_SHIFT);
        if let Some(page) = taken {
            map(&tree, va.add(page << G::PAGE_SHIFT), &[Pfn(99)][..], LeafSet::ALL).expect("vacant");
        }
        let before = tree.tables().host.snapshot();
        tree.tables().log.take();
        let range = VirtRange::new(va, (frames.len() as u64) << G::PAGE_SHIFT);
        let result = match told {
            Told::AsNumbers => map(&tree, va, &frames[..], leaves),
            Told::OneByOne => map(&tree, va, &one_by_one[..], leaves),
            Told::AsExtents => tree.map(
                range,
                &mut Extents::new(&extents),
                Attributes::KERNEL_DATA,
                leaves,
            ),
        };
        let events = tree.tables().log.take();
        if result.is_err() {
            tree.prune(tree.range()).expect("the tree's own range");
            assert_eq!(tree.tables().host.snapshot(), before, "{name}");
        }
        audit(&tree);
        (
            result,
            tree.tables().host.snapshot(),
            events
                .iter()
                .filter(|e| matches!(e, Event::Mmu(_)))
                .copied()
                .collect::<Vec<_>>(),
        )
    };
    let found = run(Told::OneByOne);
    for (told, peer) in [
        ("numbers", run(Told::AsNumbers)),
        ("extents", run(Told::AsExtents)),
    ] {
        assert_eq!((&found.0, &found.2), (&peer.0, &peer.2), "as {told}: {name}");
        assert!(found.1 == peer.1, "other descriptors, as {told}: {name}");
    }
    let va = with_table::<G>(beside).1.add(at << G::PAGE_SHIFT);
    match (fault, found.0) {
        (Fault::None, Ok(outcome)) => {
            assert_eq!(outcome.leaves.pages::<G>(), frames.len() as u64, "{name}");
        }
        (
            Fault::Occupied(page),
            Err(Failure {
                error: Error::Occupied { va: found, .. },
                ..
            }),
        ) => {
            assert_eq!(found, va.add(page << G::PAGE_SHIFT), "{name}");
        }
        (
            Fault::Frame(page) | Fault::Beyond(page),
            Err(Failure {
                error: Error::PhysicalRange(pa),
                ..
            }),
        ) => {
            let wanted = PhysAddr(frames[page as usize].0.rotate_left(G::PAGE_SHIFT));
            assert_eq!(pa, wanted, "{name}");
        }
        (_, result) => panic!("{name}: {result:?}"),
    }
}

fn random_arrays<G: Granule>(rounds: u64) {
    let mut rng = Rng(0x51ed_270b_b4a1 + u64::from(G::PAGE_SHIFT));
    let room = G::ENTRIES as u64 - 1;
    for round in 0..rounds {
        let frames = chunks::<G>(&mut rng, room.min(3 + 8 * G::cont_entries(3) as u64));
        let nr = frames.len() as u64;
        let at = rng.below(room - nr + 1);
        let leaves = [LeafSet::ALL, LeafSet::ALL, LeafSet::PAGES][rng.below(3) as usize];
        let page = rng.below(nr);
        for fault in [Fault::None, Fault::Occupied(page), Fault::Frame(page)] {
            by_all_ways::<G>(&frames, at, leaves, round % 4 != 0, fault);
        }
    }
}

#[test]
fn what_comes_about_is_the_same_for_every_granule() {
    random_arrays::<Granule4K>(200);
    random_arrays::<Granule16K>(20);
    random_arrays::<Granule64K>(20);
    random_arrays::<TinyGranule>(200);
}

#[test]
fn each_descriptor_is_looked_at_before_any_is_written() {
    let scattered: Vec<_> = (0..40).map(|page| Pfn(FIRST + 2 * page + 1)).collect();
    let grouped: Vec<_> = (0..40).map(|page| Pfn(FIRST + page)).collect();
    for (frames, at) in [(&scattered, 5), (&scattered, 16), (&grouped, 16)] {
        for page in 0..40 {
            let (tree, table) = with_table::<Granule4K>(true);
            let va = table.add(at << 12);
            map(&tree, va.add(page << 12), &[Pfn(99)][..], LeafSet::ALL).expect("vacant");
            let before = tree.tables().host.snapshot();
            tree.tables().log.take();
            let failed = map(&tree, va, &frames[..], LeafSet::ALL).expect_err("it is taken");
            assert!(failed.levels.is_empty(), "nothing was written: {failed:?}");
            assert_eq!(tree.tables().host.snapshot(), before);
            let log = tree.tables().log.take();
            assert!(!log.iter().any(Event::is_tlbi), "{}", word(&log));
        }
    }
}

#[test]
fn each_frame_number_is_looked_at() {
    for order in [0, 1] {
        let frames: Vec<_> = (0..40).map(|page| Pfn(FIRST + (page << order))).collect();
        for page in 0..40 {
            by_all_ways::<Granule4K>(&frames, 16, LeafSet::ALL, true, Fault::Frame(page));
        }
    }
}

#[test]
fn a_run_may_end_beyond_the_last_address() {
    let end = 1 << (48 - 12);
    for before in [1, 16, 32, 40] {
        let frames: Vec<_> = (0..64).map(|page| Pfn(end - before + page)).collect();
        let at = 16 + frames[0].0 % 16;
        by_all_ways::<Granule4K>(&frames, at, LeafSet::ALL, true, Fault::Beyond(before));
    }
}

#[test]
fn it_is_a_store_for_each_page_and_two_barriers() {
    for (frames, groups) in [
        ((0..32).map(|page| Pfn(FIRST + page)).collect::<Vec<_>>(), 2),
        ((0..32).map(|page| Pfn(FIRST + 2 * page)).collect(), 0),
        ((0..32).map(|page| Pfn(FIRST + page + page / 31)).collect(), 1),
    ] {
        let (tree, va) = with_table::<Granule4K>(true);
        let outcome = map(&tree, va, &frames[..], LeafSet::ALL).expect("vacant");
        assert_eq!(outcome.leaves.get(LeafSize::PAGE_GROUP), groups);
        assert_eq!(outcome.leaves.get(LeafSize::PAGE), 32 - 16 * groups);
        let log = tree.tables().log.take();
        let stores = log.iter().filter(|event| matches!(event, Event::Store { .. }));
        assert_eq!(stores.count(), 32);
        assert!(word(&log).ends_with("Ssi"), "{}", word(&log));
        assert_eq!(word(&log).matches(['s', 'i', 'd', 'T']).count(), 2);
    }
}

#[test]
fn a_bad_request_is_refused_as_everywhere() {
    let (tree, va) = with_table::<Granule4K>(true);
    let frames: Vec<_> = (0..4).map(|page| Pfn(FIRST + page)).collect();
    let before = tree.tables().host.snapshot();
    let error = |va: VirtAddr, frames: &[Pfn], attributes: Attributes| {
        vmap_pages_range_noflush_walk(&tree, va, frames, attributes, LeafSet::ALL)
            .map_err(|failure| failure.error)
    };
    let data = Attributes::KERNEL_DATA;
    assert_eq!(error(va, &[], data), Err(Error::Empty(va)));
    assert_eq!(error(va.add(8), &frames, data), Err(Error::Misaligned(va.0 + 8)));
    assert_eq!(
        error(VirtAddr(0x4000), &frames, data),
        Err(Error::NonCanonical(VirtAddr(0x4000), 0x4000))
    );
    let both = Attributes::KERNEL_TEXT.writable();
    assert_eq!(error(va, &frames, both), Err(Error::WritableExecutable(va)));
    assert_eq!(tree.tables().host.snapshot(), before);
}
