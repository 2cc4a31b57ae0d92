use crate::common::{NC, RO, RW, Rig};
use mmu_model::descriptor as d;
use mmu_model::{Access, Features, Rule};
use paging::{Granule, Granule4K, Mmu, Tables};

fn levels<G: Granule>() -> Vec<i8> {
    (G::ROOT_LEVEL..=3)
        .filter(|level| G::cont_shift(*level) != 0)
        .collect()
}

for_granules! {
    fn a_whole_aligned_group_is_accepted_at_every_level_that_has_one<G>() {
        for level in levels::<G>() {
            let rig = Rig::<G>::plain();
            let va = rig.va(0);
            rig.map_group(level, va, rig.frames(0), RW);
            let last = va.add(d::group_size::<G>(level) - 8);
            let pa = rig.cpu(0).access(last, Access::Write).map(|pa| pa.0);
            assert_eq!(pa, Ok(rig.frames(0) + d::group_size::<G>(level) - 8));
            rig.model.assert_quiescent();
        }
    }

    fn a_group_with_a_member_missing_at_the_dsb_is_mixed<G>() {
        for level in levels::<G>() {
            let rig = Rig::<G>::plain();
            let va = rig.va(0);
            rig.table(level, va);
            rig.put_group(0, level, va, Some((rig.frames(0), RW)));
            rig.put(0, level, va.add(d::size::<G>(level)), 0);
            rig.cpu(0).dsb_ishst();
            rig.assert_broken(&[Rule::MixedGroup]);
        }
    }

    fn a_group_whose_frames_are_not_consecutive_is_mixed<G>() {
        for level in levels::<G>() {
            let rig = Rig::<G>::plain();
            let va = rig.va(0);
            rig.table(level, va);
            let (size, group) = (d::size::<G>(level), d::group_size::<G>(level));
            rig.put(0, level, va, rig.member(level, rig.frames(0), RW));
            rig.put(0, level, va.add(size), rig.member(level, rig.frames(0) + group + size, RW));
            rig.assert_broken(&[Rule::MixedGroup]);
        }
    }

    fn a_group_of_frames_that_are_not_aligned_to_it_is_refused<G>() {
        for level in levels::<G>() {
            let rig = Rig::<G>::plain();
            let va = rig.va(0);
            rig.table(level, va);
            rig.put_group(0, level, va, Some((rig.frames(0) + d::size::<G>(level), RW)));
            rig.made();
            rig.assert_broken(&[Rule::MisalignedGroup]);
        }
    }

    fn a_group_that_does_not_begin_at_a_multiple_of_its_length_is_refused<G>() {
        let rig = Rig::<G>::plain();
        let va = rig.va(1);
        rig.table(3, va);
        let (table, index) = rig.find(3, va);
        for i in 0..d::group_entries::<G>(3) {
            let pa = rig.frames(0) + i as u64 * G::PAGE_SIZE;
            rig.cpu(0).store(table, index + i, rig.member(3, pa, RW));
        }
        rig.made();
        let rules: Vec<_> = rig.model.violations().iter().map(|v| v.rule).collect();
        assert!(rules.contains(&Rule::MisalignedGroup) && rules.contains(&Rule::MixedGroup));
    }

    fn a_member_of_another_memory_type_makes_the_group_mixed<G>() {
        let rig = Rig::<G>::plain();
        let va = rig.va(0);
        rig.map_group(3, va, rig.frames(0), RW);
        rig.put(0, 3, va, rig.member(3, rig.frames(0), NC));
        rig.assert_broken(&[Rule::MixedGroup, Rule::BreakBeforeMake]);
    }

    fn a_single_page_beside_members_of_a_live_group_is_mixed<G>() {
        let rig = Rig::<G>::plain();
        let va = rig.va(0);
        rig.map_group(3, va, rig.frames(0), RW);
        rig.put(0, 3, va, 0);
        rig.put(0, 3, va, rig.leaf(3, rig.frames(0), RW));
        rig.assert_broken(&[Rule::MixedGroup, Rule::BreakBeforeMake]);
    }

    fn permissions_of_a_whole_group_may_change_in_place<G>() {
        for level in levels::<G>() {
            let rig = Rig::<G>::plain();
            let va = rig.va(0);
            rig.map_group(level, va, rig.frames(0), RW);
            rig.put_group(0, level, va, Some((rig.frames(0), RO)));
            rig.flush_leaves(va, d::group_size::<G>(level), d::size::<G>(level));
            assert!(rig.cpu(0).access(va, Access::Write).is_err());
            rig.model.assert_quiescent();
        }
    }

    fn permissions_of_part_of_a_group_may_not<G>() {
        for level in levels::<G>() {
            let rig = Rig::<G>::plain();
            let va = rig.va(0);
            rig.map_group(level, va, rig.frames(0), RW);
            rig.put(0, level, va, rig.member(level, rig.frames(0), RO));
            rig.flush_leaves(va, d::group_size::<G>(level), d::size::<G>(level));
            rig.assert_broken(&[Rule::MixedGroup]);
        }
    }

    fn part_of_a_group_goes_by_breaking_all_of_it<G>() {
        for level in levels::<G>() {
            let rig = Rig::<G>::plain();
            let va = rig.va(0);
            let (size, group) = (d::size::<G>(level), d::group_size::<G>(level));
            rig.map_group(level, va, rig.frames(0), RW);
            rig.put_group(0, level, va, None);
            rig.flush_leaves(va, group, size);
            for i in 1..d::group_entries::<G>(level) as u64 {
                rig.put(0, level, va.add(i * size), rig.leaf(level, rig.frames(0) + i * size, RW));
            }
            rig.made();
            assert!(rig.cpu(0).access(va, Access::Read).is_err());
            assert!(rig.cpu(0).access(va.add(size), Access::Read).is_ok());
            rig.model.assert_quiescent();
        }
    }

    fn taking_one_member_out_of_a_live_group_leaves_it_mixed<G>() {
        let rig = Rig::<G>::plain();
        let va = rig.va(0);
        rig.map_group(3, va, rig.frames(0), RW);
        rig.put(0, 3, va, 0);
        rig.flush_leaves(va, d::group_size::<G>(3), G::PAGE_SIZE);
        rig.assert_broken(&[Rule::MixedGroup]);
    }

    fn breaking_a_group_with_one_tlbi_leaves_the_other_members_held<G>() {
        for level in levels::<G>() {
            let rig = Rig::<G>::plain();
            let va = rig.va(0);
            let (size, group) = (d::size::<G>(level), d::group_size::<G>(level));
            rig.map_group(level, va, rig.frames(0), RW);
            rig.put_group(0, level, va, None);
            rig.flush_leaves(va, group, group);
            assert!(rig.cpu(0).access(va, Access::Read).is_err());
            rig.model.va_reused(paging::VirtRange::new(va, size));
            rig.model.assert_clean();
            rig.model.va_reused(paging::VirtRange::new(va.add(size), size));
            rig.assert_broken(&[Rule::VaReused]);
            let _ = rig.model.take_violations();
            let _ = rig.cpu(0).access(va.add(group - 8), Access::Read);
            rig.assert_broken(&[Rule::StaleAccess]);
            let _ = rig.model.take_violations();
            rig.model.frame_reused(paging::PhysAddr(rig.frames(0)), size);
            rig.model.assert_clean();
            rig.model.frame_reused(paging::PhysAddr(rig.frames(0) + group - 8), 8);
            rig.assert_broken(&[Rule::FrameReused]);
        }
    }

    fn a_member_that_was_never_written_is_reachable_by_the_entry_for_the_group<G>() {
        let rig = Rig::<G>::plain();
        let (va, next) = (rig.va(0), rig.va(1));
        rig.table(3, va);
        rig.put(0, 3, va, rig.member(3, rig.frames(0), RW));
        rig.put(0, 3, va, 0);
        rig.made();
        assert!(rig.cpu(0).access(next, Access::Read).is_err());
        rig.assert_broken(&[Rule::StaleAccess]);
        let _ = rig.model.take_violations();
        rig.model.va_reused(rig.page_range(next, 1));
        rig.assert_broken(&[Rule::VaReused]);
        let _ = rig.model.take_violations();
        rig.flush_leaves(next, G::PAGE_SIZE, G::PAGE_SIZE);
        assert!(rig.cpu(0).access(next, Access::Read).is_err());
        rig.model.assert_clean();
        assert!(rig.cpu(0).access(va, Access::Read).is_err());
        rig.assert_broken(&[Rule::StaleAccess]);
    }

    fn a_group_over_pages_that_may_still_be_held_is_a_conflict<G>() {
        for level in levels::<G>() {
            let rig = Rig::<G>::plain();
            let va = rig.va(0);
            let (size, group) = (d::size::<G>(level), d::group_size::<G>(level));
            let last = group - size;
            // Not invalidated.
            rig.map(level, va.add(last), rig.frames(0) + last, RW);
            rig.put(0, level, va.add(last), 0);
            rig.cpu(0).dsb_ishst();
            // Already the first member may be held as an entry for the group.
            rig.put(0, level, va, rig.member(level, rig.frames(0), RW));
            rig.assert_broken(&[Rule::BreakBeforeMake]);
        }
    }

    fn single_pages_over_a_group_held_as_one_entry_are_a_conflict<G>() {
        let rig = Rig::<G>::plain();
        let va = rig.va(0);
        rig.map_group(3, va, rig.frames(0), RW);
        rig.put_group(0, 3, va, None);
        rig.cpu(0).dsb_ishst();
        rig.put(0, 3, va.add(G::PAGE_SIZE), rig.leaf(3, rig.frames(0) + G::PAGE_SIZE, RW));
        rig.assert_broken(&[Rule::BreakBeforeMake]);
    }

    fn folding_pages_into_a_group_goes_by_break_before_make<G>() {
        for level in levels::<G>() {
            let rig = Rig::<G>::plain();
            let va = rig.va(0);
            let (size, group) = (d::size::<G>(level), d::group_size::<G>(level));
            let pages = (0..group).step_by(size as usize);
            for at in pages.clone() {
                rig.map(level, va.add(at), rig.frames(0) + at, RW);
            }
            for at in pages {
                rig.put(0, level, va.add(at), 0);
            }
            rig.flush_leaves(va, group, size);
            rig.put_group(0, level, va, Some((rig.frames(0), RW)));
            rig.made();
            rig.model.assert_quiescent();
        }
    }

    fn setting_the_contiguous_bit_on_live_pages_is_a_conflict<G>() {
        let rig = Rig::<G>::plain();
        let va = rig.va(0);
        for i in 0..d::group_entries::<G>(3) as u64 {
            rig.map(3, va.add(i * G::PAGE_SIZE), rig.frames(0) + i * G::PAGE_SIZE, RW);
        }
        rig.put_group(0, 3, va, Some((rig.frames(0), RW)));
        rig.flush_leaves(va, d::group_size::<G>(3), G::PAGE_SIZE);
        rig.assert_broken(&[Rule::BreakBeforeMake, Rule::MixedGroup]);
    }

    fn setting_it_in_place_is_accepted_where_the_cpu_tolerates_it<G>() {
        for level in levels::<G>() {
            let rig = Rig::<G>::new(Features { tolerates_size_change: true, ..Features::default() });
            let va = rig.va(0);
            let (size, group) = (d::size::<G>(level), d::group_size::<G>(level));
            for at in (0..group).step_by(size as usize) {
                rig.map(level, va.add(at), rig.frames(0) + at, RW);
            }
            rig.put_group(0, level, va, Some((rig.frames(0), RW)));
            rig.flush_leaves(va, group, size);
            rig.model.assert_quiescent();
        }
    }

    fn a_group_half_folded_in_place_is_mixed_even_then<G>() {
        let rig = Rig::<G>::new(Features { tolerates_size_change: true, ..Features::default() });
        let va = rig.va(0);
        for i in 0..d::group_entries::<G>(3) as u64 {
            rig.map(3, va.add(i * G::PAGE_SIZE), rig.frames(0) + i * G::PAGE_SIZE, RW);
        }
        rig.put(0, 3, va, rig.member(3, rig.frames(0), RW));
        rig.cpu(0).dsb_ishst();
        rig.assert_broken(&[Rule::MixedGroup]);
    }

    fn tolerating_a_size_change_does_not_tolerate_other_frames<G>() {
        let rig = Rig::<G>::new(Features { tolerates_size_change: true, ..Features::default() });
        let va = rig.va(0);
        rig.map(3, va, rig.frames(1), RW);
        rig.put_group(0, 3, va, Some((rig.frames(0), RW)));
        rig.made();
        rig.assert_broken(&[Rule::BreakBeforeMake]);
    }
}

#[test]
fn a_table_among_the_members_of_a_group_of_blocks_is_mixed() {
    let rig = Rig::<Granule4K>::plain();
    let va = rig.va(0);
    rig.map_group(2, va, rig.frames(0), RW);
    let (table, index) = rig.find(2, va);
    let cpu = rig.cpu(0);
    cpu.store(table, index, 0);
    rig.flush_leaves(va, 32 << 20, 2 << 20);
    let _ = rig.model.take_violations();
    let child = cpu.alloc_table().expect("a table");
    assert!(cpu.compare_exchange(table, index, 0, child.0 | 0b11).is_ok());
    rig.assert_broken(&[Rule::MixedGroup]);
}

#[test]
fn a_range_tlbi_removes_all_members_of_a_group() {
    let rig = Rig::<Granule4K>::new(Features {
        tlbi_range: true,
        ..Features::default()
    });
    let va = rig.va(0x40);
    rig.map_group(3, va, rig.frames(0), RW);
    rig.put_group(0, 3, va, None);
    rig.cpu(0).dsb_ishst();
    rig.cpu(0).tlbi_rvaale1is(paging::TlbiRange {
        start: va,
        scale: 0,
        num: 7,
    });
    rig.cpu(0).dsb_ish();
    rig.cpu(0).isb();
    rig.model.assert_quiescent();
}

#[test]
fn a_range_tlbi_one_unit_short_leaves_the_last_two_members() {
    let rig = Rig::<Granule4K>::new(Features {
        tlbi_range: true,
        ..Features::default()
    });
    let va = rig.va(0x40);
    rig.map_group(3, va, rig.frames(0), RW);
    rig.put_group(0, 3, va, None);
    rig.cpu(0).dsb_ishst();
    rig.cpu(0).tlbi_rvaale1is(paging::TlbiRange {
        start: va,
        scale: 0,
        num: 6,
    });
    rig.cpu(0).dsb_ish();
    rig.cpu(0).isb();
    rig.model.va_reused(rig.page_range(va, 14));
    rig.model.assert_clean();
    rig.model.va_reused(rig.page_range(va.add(14 << 12), 1));
    rig.assert_broken(&[Rule::VaReused]);
}
