use paging::{
    Granule, Granule4K, Granule4K39, Granule4K52, Granule16K, Granule16K47, Granule16K52, Granule64K,
    Granule64K42, Granule64K52, LeafSet, LeafSize, Level, PhysAddr, TinyGranule, VirtAddr,
};
use proptest::prelude::*;

const K: u64 = 1 << 10;
const M: u64 = 1 << 20;
const G: u64 = 1 << 30;
const T: u64 = 1 << 40;

/// From the table of Arm ARM D8.6.1, not from the engine.
fn sizes<Gr: Granule>() -> Vec<(LeafSize, u64)> {
    use LeafSize as L;
    match Gr::NAME {
        // Arm ARM D8.3.1, "Block descriptor and Page descriptor formats".
        "4K, 52 bits" => [vec![(L::BLOCK0, 512 * G)], sizes::<Granule4K>()].concat(),
        "16K, 52 bits" => [vec![(L::BLOCK1, 64 * G)], sizes::<Granule16K>()].concat(),
        "64K, 52 bits" => [vec![(L::BLOCK1, 4 * T)], sizes::<Granule64K>()].concat(),
        "4K, 39 bits" => sizes::<Granule4K>(),
        "16K, 47 bits" => sizes::<Granule16K>(),
        "64K, 42 bits" => sizes::<Granule64K>(),
        "4K" => vec![
            (L::BLOCK1_GROUP, 16 * G),
            (L::BLOCK1, G),
            (L::BLOCK2_GROUP, 32 * M),
            (L::BLOCK2, 2 * M),
            (L::PAGE_GROUP, 64 * K),
            (L::PAGE, 4 * K),
        ],
        "16K" => vec![
            (L::BLOCK2_GROUP, G),
            (L::BLOCK2, 32 * M),
            (L::PAGE_GROUP, 2 * M),
            (L::PAGE, 16 * K),
        ],
        "64K" => vec![
            (L::BLOCK2_GROUP, 16 * G),
            (L::BLOCK2, 512 * M),
            (L::PAGE_GROUP, 2 * M),
            (L::PAGE, 64 * K),
        ],
        "tiny" => vec![
            (L::BLOCK1_GROUP, 128 * K),
            (L::BLOCK1, 64 * K),
            (L::BLOCK2_GROUP, 32 * K),
            (L::BLOCK2, 16 * K),
            (L::PAGE_GROUP, 8 * K),
            (L::PAGE, 4 * K),
        ],
        name => panic!("granule {name} has no table here"),
    }
}

fn subset(bits: u8) -> LeafSet {
    let sizes: Vec<_> = (0..6)
        .filter(|i| bits >> i & 1 == 1)
        .map(|i| LeafSize::ALL[i])
        .collect();
    LeafSet::of(&sizes)
}

fn pages() -> impl Strategy<Value = u64> {
    (0u32..28, 0u64..64, 0u64..3).prop_map(|(shift, n, odd)| ((n << shift) + odd) & ((1 << 35) - 1))
}

fn check<Gr: Granule>(va: u64, pa: u64, size: u64, bits: u8) -> Result<(), TestCaseError> {
    let page = Gr::PAGE_SIZE;
    let (va, mut pa) = (va * page, pa * page % (1 << 48));
    if Gr::PA_BITS == 52 {
        // The first address that has bits out of their place in a descriptor.
        pa += (1 << Gr::PLAIN_BITS) - 4 * T;
    }
    let size = size.max(1) * page;
    let allowed = subset(bits);
    let leaves = Gr::leaves(VirtAddr(va), PhysAddr(pa), size, allowed);
    let within = leaves.bytes::<Gr>();
    prop_assert!(within != 0 && within <= size, "{leaves:?} of {size:#x}");
    let table = Gr::table_span(leaves.level);
    prop_assert!(
        va % table + within <= table,
        "{leaves:?} at {va:#x} reach over the end of their table"
    );
    let mut done = 0;
    let tail = leaves.nr - leaves.head - leaves.grouped;
    for (nr, contiguous) in [(leaves.head, false), (leaves.grouped, true), (tail, false)] {
        let leaf = LeafSize::new(leaves.level, contiguous);
        let each = leaf.descriptors::<Gr>();
        prop_assert_eq!(nr % each, 0, "{:?}", leaves);
        for i in [0, (nr / each).saturating_sub(1)].into_iter().take(nr) {
            let at = done + i as u64 * leaf.bytes::<Gr>();
            check_leaf::<Gr>(leaf, va + at, pa + at, size - at, allowed)?;
        }
        done += (nr as u64) << Gr::shift(leaves.level);
    }
    Ok(())
}

fn check_leaf<Gr: Granule>(
    chosen: LeafSize,
    va: u64,
    pa: u64,
    left: u64,
    allowed: LeafSet,
) -> Result<(), TestCaseError> {
    let legal = |size: u64| va % size == 0 && pa % size == 0 && left >= size;
    let bytes = sizes::<Gr>()
        .iter()
        .find(|(size, _)| *size == chosen)
        .map(|(_, bytes)| *bytes);
    prop_assert!(bytes.is_some(), "{} has no {chosen:?}", Gr::NAME);
    let bytes = bytes.unwrap_or(0);
    prop_assert!(legal(bytes), "{chosen:?} at {va:#x} for {pa:#x}, {left:#x} left");
    prop_assert!(allowed.contains(chosen));
    for (larger, size) in sizes::<Gr>() {
        if size > bytes && allowed.contains(larger) {
            prop_assert!(!legal(size), "{larger:?} was legal and {chosen:?} chosen");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        cases: 8192,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_leaf_chosen_is_legal_and_none_larger_is_on_4k(
        va in pages(), pa in pages(), size in pages(), bits in 0u8..64
    ) {
        check::<Granule4K>(va, pa, size, bits)?;
    }

    #[test]
    fn the_leaf_chosen_is_legal_and_none_larger_is_on_4k_with_52_bits(
        va in pages(), pa in pages(), size in pages(), bits in 0u8..64
    ) {
        check::<Granule4K52>(va, pa, size, bits)?;
    }

    #[test]
    fn the_leaf_chosen_is_legal_and_none_larger_is_on_16k_with_52_bits(
        va in pages(), pa in pages(), size in pages(), bits in 0u8..64
    ) {
        check::<Granule16K52>(va, pa, size, bits)?;
    }

    #[test]
    fn the_leaf_chosen_is_legal_and_none_larger_is_on_64k_with_52_bits(
        va in pages(), pa in pages(), size in pages(), bits in 0u8..64
    ) {
        check::<Granule64K52>(va, pa, size, bits)?;
    }

    #[test]
    fn the_leaf_chosen_is_legal_and_none_larger_is_on_16k(
        va in pages(), pa in pages(), size in pages(), bits in 0u8..64
    ) {
        check::<Granule16K>(va, pa, size, bits)?;
    }

    #[test]
    fn the_leaf_chosen_is_legal_and_none_larger_is_on_64k(
        va in pages(), pa in pages(), size in pages(), bits in 0u8..64
    ) {
        check::<Granule64K>(va, pa, size, bits)?;
    }
}

#[test]
fn the_leaf_chosen_is_legal_and_none_larger_is_for_every_argument_of_the_tiny_granule() {
    for va in 0..32 {
        for pa in 0..32 {
            for size in 1..=33 {
                for bits in 0..64 {
                    check::<TinyGranule>(va, pa, size, bits).expect("legal and largest");
                }
            }
        }
    }
}

#[test]
fn every_leaf_size_has_the_bytes_and_descriptors_of_the_architecture() {
    fn granule<Gr: Granule>(pages_in_group: &[(LeafSize, usize)]) {
        let all = sizes::<Gr>();
        for size in LeafSize::ALL {
            let bytes = all.iter().find(|(s, _)| *s == size).map(|(_, bytes)| *bytes);
            assert_eq!(size.exists::<Gr>(), bytes.is_some(), "{} {size:?}", Gr::NAME);
            if let Some(bytes) = bytes {
                assert_eq!(size.bytes::<Gr>(), bytes, "{} {size:?}", Gr::NAME);
            }
        }
        for (size, descriptors) in pages_in_group {
            assert_eq!(size.descriptors::<Gr>(), *descriptors, "{} {size:?}", Gr::NAME);
        }
    }
    granule::<Granule4K>(&[
        (LeafSize::PAGE, 1),
        (LeafSize::BLOCK1, 1),
        (LeafSize::PAGE_GROUP, 16),
        (LeafSize::BLOCK2_GROUP, 16),
        (LeafSize::BLOCK1_GROUP, 16),
    ]);
    granule::<Granule16K>(&[(LeafSize::PAGE_GROUP, 128), (LeafSize::BLOCK2_GROUP, 32)]);
    granule::<Granule64K>(&[(LeafSize::PAGE_GROUP, 32), (LeafSize::BLOCK2_GROUP, 32)]);
    granule::<Granule4K52>(&[(LeafSize::BLOCK0, 1), (LeafSize::BLOCK1_GROUP, 16)]);
    granule::<Granule16K52>(&[(LeafSize::BLOCK1, 1), (LeafSize::BLOCK2_GROUP, 32)]);
    granule::<Granule64K52>(&[(LeafSize::BLOCK1, 1), (LeafSize::BLOCK2_GROUP, 32)]);
    granule::<Granule4K39>(&[(LeafSize::BLOCK1, 1), (LeafSize::BLOCK1_GROUP, 16)]);
    granule::<Granule16K47>(&[(LeafSize::PAGE_GROUP, 128), (LeafSize::BLOCK2_GROUP, 32)]);
    granule::<Granule64K42>(&[(LeafSize::PAGE_GROUP, 32), (LeafSize::BLOCK2_GROUP, 32)]);
    granule::<TinyGranule>(&[(LeafSize::PAGE_GROUP, 2), (LeafSize::BLOCK1_GROUP, 2)]);
}

#[test]
fn a_walk_of_fewer_bits_begins_one_level_lower() {
    fn root<Fewer: Granule, Usual: Granule>(level: Level, entries: usize) {
        assert_eq!(Fewer::ROOT_LEVEL, level, "{}", Fewer::NAME);
        assert_eq!(Fewer::ROOT_LEVEL, Usual::ROOT_LEVEL + 1, "{}", Fewer::NAME);
        assert_eq!(
            Fewer::root_entries_at(level),
            entries,
            "a whole table: {}",
            Fewer::NAME
        );
        assert_eq!(Fewer::ENTRIES, entries, "{}", Fewer::NAME);
    }
    root::<Granule4K39, Granule4K>(1, 512);
    root::<Granule16K47, Granule16K>(1, 2048);
    root::<Granule64K42, Granule64K>(2, 8192);
}

fn members(set: LeafSet) -> Vec<LeafSize> {
    LeafSize::ALL
        .into_iter()
        .filter(|size| set.contains(*size))
        .collect()
}

#[test]
fn a_leaf_set_holds_what_it_was_made_of_and_the_page() {
    for bits in 0..64u8 {
        for (i, size) in LeafSize::ALL.into_iter().enumerate() {
            let wanted = bits >> i & 1 == 1 || size == LeafSize::PAGE;
            assert_eq!(subset(bits).contains(size), wanted, "{bits:#b} {size:?}");
        }
    }
    assert_eq!(members(LeafSet::ALL), LeafSize::ALL);
    assert_eq!(members(LeafSet::PAGES), [LeafSize::PAGE]);
}

#[test]
fn leaf_sets_intersect_member_by_member() {
    for a in 0..64u8 {
        for b in 0..64u8 {
            let both = members(subset(a))
                .into_iter()
                .filter(|size| subset(b).contains(*size))
                .collect::<Vec<_>>();
            assert_eq!(members(subset(a).intersection(subset(b))), both);
        }
    }
}

#[test]
fn a_leaf_set_without_groups_keeps_all_else() {
    for bits in 0..64u8 {
        let singles: Vec<_> = members(subset(bits))
            .into_iter()
            .filter(|size| !size.is_contiguous())
            .collect();
        assert_eq!(members(subset(bits).without_groups()), singles);
    }
}

#[test]
fn at_most_keeps_what_is_no_larger_and_always_the_page() {
    for bits in 0..64u8 {
        for (i, largest) in LeafSize::ALL.into_iter().enumerate() {
            let kept: Vec<_> = LeafSize::ALL[i..]
                .iter()
                .copied()
                .filter(|size| subset(bits).contains(*size))
                .collect();
            assert_eq!(
                members(subset(bits).at_most(largest)),
                kept,
                "{bits:#b} at most {largest:?}"
            );
        }
    }
}

#[test]
fn a_leaf_set_shows_its_members() {
    let set = LeafSet::of(&[LeafSize::BLOCK2, LeafSize::PAGE_GROUP]);
    assert_eq!(format!("{set:?}"), "{L2, L3C, L3}");
}
