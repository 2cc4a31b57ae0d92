//! A granule with another leaf rule maps by it.

use crate::support;

use paging::{
    Attributes, Config, Extent, Granule, Granule4K, LeafSet, LeafSize, Leaves, Pfn, PhysAddr, VirtAddr,
    VirtRange, Visit, leaf,
};
use support::{Shape, tree};

/// Groups of pages only at every other 64K, and no block in the second half of a gigabyte.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
struct Odd;

impl Granule for Odd {
    const NAME: &'static str = "4K, with a rule of its own";
    const PAGE_SHIFT: u32 = 12;
    const VA_BITS: u32 = 48;

    fn leaves(va: VirtAddr, pa: PhysAddr, size: u64, allowed: LeafSet) -> Leaves {
        let in_second_half = pa.0 >> 29 & 1 == 1;
        let allowed = if in_second_half {
            allowed.at_most(LeafSize::PAGE_GROUP)
        } else {
            allowed
        };
        let allowed = if pa.0 >> 16 & 1 == 1 {
            allowed.without_groups()
        } else {
            allowed
        };
        let most = if leaf::largest::<Self>(va, pa, size, allowed).level == 3 {
            1 << 16
        } else {
            2 << 20
        };
        leaf::largest::<Self>(va, pa, size.min(most - (pa.0 & (most - 1))), allowed)
    }
}

fn by_the_rule(va: VirtAddr, first: u64, pages: u64) -> Vec<(u64, u64, LeafSize)> {
    let (mut done, size) = (0, pages << 12);
    let mut found = Vec::new();
    while done < size {
        let (at, pa) = (va.add(done), PhysAddr((first << 12) + done));
        let leaf = Odd::leaves(at, pa, size - done, LeafSet::ALL).first();
        found.push((at.0, pa.0, leaf));
        done += leaf.bytes::<Odd>();
    }
    found
}

#[test]
fn another_rule_decides_every_leaf_of_every_source() {
    let (first, pages) = ((1 << 18) + (1 << 17) - 1024 - 37, 4096 + 99);
    let shapes = [
        Shape::Range(first, pages),
        Shape::Array((first..first + pages).map(Pfn).collect()),
        Shape::Extents(vec![
            Extent {
                start: Pfn(first),
                pages: 1000,
            },
            Extent {
                start: Pfn(first + 1000),
                pages: pages - 1000,
            },
        ]),
    ];
    for shape in shapes {
        let tree = tree::<Odd>(Config::default(), true);
        let va = tree
            .range()
            .start
            .add((1 << 46) + (first << 12 & ((1 << 30) - 1)));
        let outcome = shape
            .map(&tree, va, Attributes::KERNEL_DATA, LeafSet::ALL)
            .expect("vacant");
        let mut found = Vec::new();
        tree.visit(VirtRange::new(va, pages << 12), |leaf| {
            found.push((leaf.va.0, leaf.translate(leaf.va).0, leaf.size));
            Visit::Continue
        })
        .expect("a range of the tree");
        let expected = by_the_rule(va, first, pages);
        assert_eq!(found, expected, "{shape:?}");
        let counted: u32 = LeafSize::ALL.iter().map(|size| outcome.leaves.get(*size)).sum();
        assert_eq!(counted as usize, expected.len());
        let usual = Granule4K::leaves(VirtAddr(1 << 16), PhysAddr(1 << 16), 1 << 16, LeafSet::ALL).first();
        assert_eq!(usual, LeafSize::PAGE_GROUP);
        let sizes = |size| found.iter().filter(|leaf| leaf.2 == size).count();
        assert!(
            sizes(LeafSize::PAGE) > 1024 && sizes(LeafSize::PAGE_GROUP) > 50 && sizes(LeafSize::BLOCK2) > 0
        );
    }
}

#[test]
fn a_place_is_chosen_for_the_largest_leaf_that_the_rule_makes() {
    let largest = |pa, pages| leaf::largest_within::<Odd>(PhysAddr(pa), pages, LeafSet::ALL);
    assert_eq!(largest(1 << 30, 512), LeafSize::BLOCK2);
    assert_eq!(largest((1 << 30) + (1 << 29), 512), LeafSize::PAGE_GROUP);
    assert_eq!(largest(1 << 16, 16), LeafSize::PAGE);
    assert_eq!(
        leaf::largest_within::<Granule4K>(PhysAddr(1 << 16), 16, LeafSet::ALL),
        LeafSize::PAGE_GROUP
    );
}
