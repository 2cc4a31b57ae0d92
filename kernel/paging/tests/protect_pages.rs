use crate::support;

use paging::{
    Attributes, Config, Granule, Granule4K, Granule64K, LeafSet, LeafSize, Outcome, Pfn, TinyGranule,
    VirtAddr, VirtRange,
};
use support::{HostTree, Rng, Shape, audit, tree};

const PAGES: [(Attributes, bool); 6] = [
    (Attributes::KERNEL_DATA, true),
    (Attributes::KERNEL_DATA, false),
    (Attributes::KERNEL_RODATA, true),
    (Attributes::KERNEL_TEXT, true),
    (Attributes::DEVICE, true),
    (Attributes::KERNEL_RODATA, false),
];

#[derive(Clone, Copy, Debug)]
enum Change {
    ReadOnly,
    Device,
    Invalid,
    Valid,
}

impl Change {
    const ALL: [Self; 4] = [Self::ReadOnly, Self::Device, Self::Invalid, Self::Valid];

    fn of(self, (attributes, valid): (Attributes, bool)) -> (Attributes, bool) {
        match self {
            Self::ReadOnly => (attributes.read_only(), valid),
            Self::Device => (Attributes::DEVICE, valid),
            Self::Invalid => (attributes, false),
            Self::Valid => (attributes, true),
        }
    }

    fn apply<G: Granule>(self, tree: &HostTree<G>, range: VirtRange) -> (Outcome, u64) {
        tree.mmu().take();
        let mut batch = tree.batch();
        let result = match self {
            Self::ReadOnly => tree.protect(range, Attributes::read_only, &mut batch),
            Self::Device => tree.protect(range, |_| Attributes::DEVICE, &mut batch),
            Self::Invalid => tree.set_valid(range, false, &mut batch),
            Self::Valid => tree.set_valid(range, true, &mut batch),
        };
        batch.flush();
        (result.expect("mapped"), tree.mmu().take().tlbi)
    }
}

fn mapped<G: Granule>(kinds: &[(Attributes, bool)]) -> (HostTree<G>, VirtAddr) {
    let tree = tree::<G>(Config::default(), false);
    let end = tree.range().start.add((1 << (G::VA_BITS - 2)) + G::size(2));
    let va = VirtAddr(end.0 - ((kinds.len() as u64 * 2 / 3) << G::PAGE_SHIFT));
    for (page, (attributes, valid)) in kinds.iter().enumerate() {
        let va = va.add((page as u64) << G::PAGE_SHIFT);
        Shape::Array(vec![Pfn(4096 + 3 * page as u64)])
            .map(&tree, va, *attributes, LeafSet::PAGES)
            .expect("vacant");
        if !valid {
            Change::Invalid.apply(&tree, VirtRange::new(va, G::PAGE_SIZE));
        }
    }
    (tree, va)
}

fn changed_as_page_by_page<G: Granule>(rounds: u64) {
    let mut rng = Rng(0x1d8b_22f1_7c05);
    for _ in 0..rounds {
        let mut kinds = Vec::new();
        while kinds.len() < 3 || rng.below(4) != 0 {
            let kind = PAGES[rng.below(6) as usize];
            kinds.extend((0..=rng.below(5)).map(|_| kind));
        }
        kinds.truncate(G::ENTRIES);
        let first = rng.below(kinds.len() as u64);
        let nr = 1 + rng.below(kinds.len() as u64 - first);
        for change in Change::ALL {
            let name = format!(
                "{}: {change:?} of {nr} from page {first} on of {kinds:?}",
                G::NAME
            );
            let (at_once, va) = mapped::<G>(&kinds);
            let (one_by_one, _) = mapped::<G>(&kinds);
            let page = |page: u64| va.add(page << G::PAGE_SHIFT);
            let done = change.apply(&at_once, VirtRange::new(page(first), nr << G::PAGE_SHIFT));
            let (mut outcome, mut tlbi) = (Outcome::default(), 0);
            for i in first..first + nr {
                let (one, flushed) = change.apply(&one_by_one, VirtRange::new(page(i), G::PAGE_SIZE));
                outcome.merge(&one);
                tlbi += flushed;
            }
            assert_eq!(done, (outcome, tlbi), "{name}");
            let same = at_once.tables().snapshot() == one_by_one.tables().snapshot();
            assert!(same, "other descriptors: {name}");
            audit(&at_once);
            let inside = &kinds[first as usize..][..nr as usize];
            let differ = inside.iter().filter(|kind| change.of(**kind) != **kind);
            assert_eq!(
                outcome.leaves.get(LeafSize::PAGE) as usize,
                differ.clone().count(),
                "{name}"
            );
            assert_eq!(
                tlbi as usize,
                differ.filter(|(_, valid)| *valid).count(),
                "{name}"
            );
        }
    }
}

#[test]
fn alike_pages_change_as_page_by_page() {
    changed_as_page_by_page::<Granule4K>(300);
    changed_as_page_by_page::<Granule64K>(5);
    changed_as_page_by_page::<TinyGranule>(100);
}
