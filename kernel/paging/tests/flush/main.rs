//! A sequence of events is a word: A table allocated, S store, s DSB ISHST, T TLBI, d DSB ISH, i
//! ISB, F table freed.

mod batches;
mod ranges;
mod strides;
use crate::support;
mod words;

use paging::mmu::MmuEvent;
use paging::{Config, Granule, VirtRange};
use support::Shape;
use support::corpus::base;
use support::ops::Op;
use support::traced::{Event, TracedTree, traced};

const DSB_ISHST: Event = Event::Mmu(MmuEvent::DsbIshst);
const DSB_ISH: Event = Event::Mmu(MmuEvent::DsbIsh);
const ISB: Event = Event::Mmu(MmuEvent::Isb);

fn tree<G: Granule>(tlbi_range: bool) -> TracedTree<G> {
    traced(Config::default(), tlbi_range)
}

fn prepared<G: Granule>(setup: &[Op], config: Config, tlbi_range: bool) -> TracedTree<G> {
    let tree = traced::<G>(config, tlbi_range);
    for op in setup {
        op.apply(&tree, base(&tree))
            .unwrap_or_else(|failure| panic!("{op:?}: {failure}"));
    }
    tree.tables().log.take();
    tree
}

fn events<G: Granule>(tree: &TracedTree<G>, op: &Op) -> Vec<Event> {
    tree.tables().log.take();
    op.apply(tree, base(tree))
        .unwrap_or_else(|failure| panic!("{op:?}: {failure}"));
    tree.tables().log.take()
}

fn tlbis(events: &[Event]) -> Vec<MmuEvent> {
    events
        .iter()
        .filter(|event| event.is_tlbi())
        .map(|event| match event {
            Event::Mmu(event) => *event,
            other => panic!("{other:?} is no TLBI"),
        })
        .collect()
}

/// Arm ARM C5.5, TLBI RVAE1IS.
fn decode<G: Granule>(operand: u64) -> (u64, u64) {
    assert_eq!(operand >> 48, 0, "an ASID in {operand:#x}");
    let granule = match operand >> 46 & 3 {
        1 => 12,
        2 => 14,
        3 => 16,
        reserved => panic!("TG {reserved} is reserved"),
    };
    assert_eq!(1 << granule, G::PAGE_SIZE, "TG");
    let (scale, num) = (operand >> 44 & 3, operand >> 39 & 31);
    assert_eq!(operand >> 37 & 3, 0, "TTL");
    // BaseADDR is VA[48 + (granule - 12):granule], sign-extended.
    let base = (operand & ((1 << 37) - 1)) << granule;
    let sign = 64 - (37 + granule);
    let va = if 37 + granule >= 64 {
        base
    } else {
        ((base << sign) as i64 >> sign) as u64
    };
    (va, (num + 1) * (1 << (5 * scale + 1)))
}

/// (First address, bytes); `None` for all.
fn covered<G: Granule>(tlbi: MmuEvent) -> Option<(u64, u64)> {
    match tlbi {
        MmuEvent::TlbiLastLevel(va) | MmuEvent::TlbiAllLevels(va) => Some((va.0, G::PAGE_SIZE)),
        MmuEvent::TlbiRangeLastLevel(range) | MmuEvent::TlbiRangeAllLevels(range) => {
            let (va, pages) = decode::<G>(range.operand::<G>());
            assert_eq!(va, range.start.0, "{range:?}");
            Some((va, pages << G::PAGE_SHIFT))
        }
        MmuEvent::TlbiAll => None,
        other => panic!("{other:?} is no TLBI"),
    }
}

fn is_all_levels(tlbi: MmuEvent) -> bool {
    matches!(
        tlbi,
        MmuEvent::TlbiAllLevels(_) | MmuEvent::TlbiRangeAllLevels(_) | MmuEvent::TlbiAll
    )
}

fn map(page: u64, pages: u64) -> Op {
    Op::map(page, Shape::Range((1 << 24) + page, pages))
}

fn unmap(page: u64, pages: u64) -> Op {
    Op::Unmap { page, pages }
}

fn range_of<G: Granule>(tree: &TracedTree<G>, page: u64, pages: u64) -> VirtRange {
    VirtRange::new(base(tree).add(page << G::PAGE_SHIFT), pages << G::PAGE_SHIFT)
}
