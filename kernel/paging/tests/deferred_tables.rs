//! A table that is covered whole is unlinked with its descriptors in it.

use crate::support;

use paging::mmu::MmuEvent;
use paging::{Attributes, Config, Granule4K, LeafSet, PhysAddr, VirtAddr, VirtRange, vmap_range_noflush};
use support::traced::{Event, traced};

const VA: VirtAddr = VirtAddr(0xffff_8000_0020_0000);

fn tlbis(mapped: &[(u64, u64)], tlbi_range: bool) -> Vec<MmuEvent> {
    let tree = traced::<Granule4K>(Config::default(), tlbi_range);
    for (page, pages) in mapped {
        let va = VA.add(page << 12);
        let pa = PhysAddr(0x4000_1000 + (page << 12));
        vmap_range_noflush(&tree, va, pa, pages << 12, Attributes::KERNEL_DATA, LeafSet::ALL)
            .expect("vacant");
    }
    tree.tables().log.take();
    let mut batch = tree.batch();
    tree.unmap(VirtRange::new(VA, 0x20_0000), &mut batch)
        .expect("nothing to split");
    batch.flush();
    let events = tree.tables().log.take();
    let of_mmu = events.into_iter().filter_map(|event| match event {
        Event::Mmu(event) => Some(event),
        _ => None,
    });
    of_mmu.collect()
}

#[test]
fn every_leaf_of_a_table_unlinked_whole_is_invalidated_at_all_levels() {
    // Holes make one range per stretch. Through a walk cache entry the dead table's leaves could be
    // read again: the last level alone is not enough.
    let holes: &[(u64, u64)] = &[(0, 3), (7, 1), (100, 40), (511, 1)];
    for (mapped, nr) in [(holes, 45), (&[(0, 512)], 512)] {
        let events = tlbis(mapped, false);
        let all_levels = events
            .iter()
            .filter(|e| matches!(e, MmuEvent::TlbiAllLevels(_)))
            .count();
        let last_level = events
            .iter()
            .filter(|e| matches!(e, MmuEvent::TlbiLastLevel(_)))
            .count();
        assert_eq!((all_levels, last_level), (nr, 0), "{mapped:?}");
    }
}

#[test]
fn one_range_operation_at_all_levels_covers_a_table_unlinked_whole() {
    let events = tlbis(&[(0, 3), (7, 1), (511, 1)], true);
    let tlbis: Vec<_> = events
        .iter()
        .filter(|e| !matches!(e, MmuEvent::DsbIsh | MmuEvent::DsbIshst | MmuEvent::Isb))
        .collect();
    let [MmuEvent::TlbiRangeAllLevels(range)] = tlbis[..] else {
        panic!("{tlbis:?}");
    };
    assert_eq!((range.start, range.pages()), (VA, 512));
}
