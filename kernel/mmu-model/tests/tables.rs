use crate::common::{RW, Rig};
use mmu_model::descriptor as d;
use mmu_model::{Access, Features, Model, Rule};
use paging::{Granule, Granule4K, Mmu, PhysAddr, Tables, VirtAddr};

for_granules! {
    fn a_table_linked_by_compare_exchange_needs_no_barrier_for_its_zeroing<G>() {
        let rig = Rig::<G>::plain();
        let va = rig.va(0);
        rig.table(2, va);
        let (table, index) = rig.find(2, va);
        let cpu = rig.cpu(0);
        let child = cpu.alloc_table().expect("a table");
        assert!(cpu.compare_exchange(table, index, 0, child.0 | 0b11).is_ok());
        cpu.store(child, 0, rig.leaf(3, rig.frames(0), RW));
        rig.made();
        assert!(cpu.access(va, Access::Write).is_ok());
        rig.model.assert_quiescent();
    }

    fn a_table_linked_by_a_plain_store_needs_a_dsb_after_its_zeroing<G>() {
        for dsb in [false, true] {
            let rig = Rig::<G>::plain();
            let va = rig.va(0);
            rig.table(2, va);
            let (table, index) = rig.find(2, va);
            let cpu = rig.cpu(0);
            let child = cpu.alloc_table().expect("a table");
            if dsb {
                cpu.dsb_ishst();
            }
            cpu.store(table, index, child.0 | 0b11);
            rig.assert_broken(if dsb { &[] } else { &[Rule::LinkedTooEarly] });
        }
    }

    fn a_private_subtree_is_judged_when_its_top_is_linked<G>() {
        for release in [false, true] {
            let rig = Rig::<G>::plain();
            let cpu = rig.cpu(0);
            let top = cpu.alloc_table().expect("a table");
            cpu.dsb_ishst();
            let below = cpu.alloc_table().expect("a table");
            cpu.store(top, 0, below.0 | 0b11);
            rig.model.assert_clean();
            let (index, link) = (d::index::<G>(G::ROOT_LEVEL, rig.va(0).0), top.0 | 0b11);
            if release {
                assert!(cpu.compare_exchange(rig.root, index, 0, link).is_ok());
                rig.model.assert_clean();
            } else {
                cpu.store(rig.root, index, link);
                rig.assert_broken(&[Rule::LinkedTooEarly]);
            }
        }
    }

    fn zeroed_by_one_cpu_and_linked_by_another_needs_a_hand_over<G>() {
        for handed_over in [false, true] {
            let rig = Rig::<G>::smp(2);
            let va = rig.va(0);
            rig.table(2, va);
            let (table, index) = rig.find(2, va);
            let child = rig.cpu(0).alloc_table().expect("a table");
            if handed_over {
                rig.model.hand_over(0, 1);
            }
            assert!(rig.cpu(1).compare_exchange(table, index, 0, child.0 | 0b11).is_ok());
            rig.assert_broken(if handed_over { &[] } else { &[Rule::LinkedTooEarly] });
        }
    }

    fn a_table_freed_after_an_all_levels_tlbi_is_sound<G>() {
        let rig = unlinked::<G>(|rig, va| rig.cpu(0).tlbi_vaae1is(va), true);
        rig.model.assert_quiescent();
    }

    fn a_table_freed_after_a_last_level_tlbi_is_reused_too_early<G>() {
        let rig = unlinked::<G>(|rig, va| rig.cpu(0).tlbi_vaale1is(va), true);
        rig.assert_broken(&[Rule::TableReused]);
        rig.assert_told("was for the last level only");
    }

    fn a_table_freed_before_the_trailing_dsb_is_reused_too_early<G>() {
        let rig = unlinked::<G>(|rig, va| rig.cpu(0).tlbi_vaae1is(va), false);
        rig.assert_broken(&[Rule::TableReused]);
        rig.assert_told("waits for a DSB ISH");
    }

    fn a_table_freed_without_any_tlbi_is_reused_too_early<G>() {
        let rig = Rig::<G>::plain();
        let va = rig.va(0);
        let child = rig.table(3, va);
        rig.put(0, 2, va, 0);
        rig.made();
        rig.cpu(0).free_table(child);
        rig.assert_broken(&[Rule::TableReused]);
    }

    fn a_table_freed_while_it_is_linked_is_an_error<G>() {
        let rig = Rig::<G>::plain();
        let child = rig.table(3, rig.va(0));
        rig.cpu(0).free_table(child);
        rig.assert_broken(&[Rule::TableReused]);
        rig.assert_told("which is linked");
    }

    fn a_table_freed_twice_is_an_error<G>() {
        let rig = Rig::<G>::plain();
        let table = rig.cpu(0).alloc_table().expect("a table");
        rig.cpu(0).free_table(table);
        rig.model.assert_clean();
        rig.cpu(0).free_table(table);
        rig.assert_broken(&[Rule::BadTable]);
    }

    fn a_local_tlbi_does_not_free_a_table_for_all<G>() {
        let rig = Rig::<G>::smp(2);
        let va = rig.va(0);
        let child = rig.table(3, va);
        rig.put(0, 2, va, 0);
        let cpu = rig.cpu(0);
        cpu.dsb_ishst();
        cpu.tlbi_vmalle1();
        cpu.dsb_ish();
        cpu.free_table(child);
        rig.assert_broken(&[Rule::TableReused]);
    }

    fn tables_below_an_unlinked_one_need_a_tlbi_of_their_own_span<G>() {
        let rig = Rig::<G>::plain();
        let va = rig.va(0);
        let beside = va.add(d::size::<G>(2));
        rig.map(3, va, rig.frames(0), RW);
        rig.map(3, beside, rig.frames(1), RW);
        let (first, second) = (rig.find(3, va).0, rig.find(3, beside).0);
        let top = rig.find(G::ROOT_LEVEL + 1, va).0;
        rig.put(0, G::ROOT_LEVEL, va, 0);
        let cpu = rig.cpu(0);
        cpu.dsb_ishst();
        cpu.tlbi_vaae1is(va);
        cpu.dsb_ish();
        cpu.isb();
        cpu.free_table(first);
        cpu.free_table(top);
        rig.model.assert_clean();
        cpu.free_table(second);
        rig.assert_broken(&[Rule::TableReused]);
    }

    fn what_a_held_link_leads_to_comes_back_after_a_last_level_tlbi<G>() {
        // After a last-level TLBI, a held link brings the page back until an all-levels TLBI.
        for cleared in [false, true] {
            let rig = Rig::<G>::plain();
            let (va, other) = (rig.va(2), rig.va(3));
            rig.map(3, va, rig.frames(0), RW);
            if cleared {
                rig.put(0, 3, va, 0);
            }
            rig.put(0, 2, va, 0);
            let cpu = rig.cpu(0);
            cpu.dsb_ishst();
            cpu.tlbi_vaale1is(va);
            cpu.tlbi_vaae1is(other);
            cpu.dsb_ish();
            cpu.isb();
            rig.model.va_reused(rig.page_range(va, 1));
            rig.assert_broken(if cleared { &[] } else { &[Rule::VaReused] });
            if !cleared {
                rig.assert_told("was for the last level only");
                let _ = rig.model.take_violations();
                cpu.tlbi_vaale1is(va);
                cpu.dsb_ish();
                cpu.isb();
            }
            rig.model.assert_quiescent();
        }
    }

    fn a_page_of_a_table_that_was_cut_off_is_reachable_until_its_own_tlbi<G>() {
        let rig = Rig::<G>::plain();
        let (va, other) = (rig.va(2), rig.va(3));
        rig.map(3, va, rig.frames(0), RW);
        rig.map(3, other, rig.frames(1), RW);
        rig.put(0, 2, va, 0);
        let cpu = rig.cpu(0);
        cpu.dsb_ishst();
        cpu.tlbi_vaae1is(va);
        cpu.dsb_ish();
        cpu.isb();
        rig.model.frame_reused(PhysAddr(rig.frames(0)), G::PAGE_SIZE);
        rig.model.assert_clean();
        rig.model.frame_reused(PhysAddr(rig.frames(1)), G::PAGE_SIZE);
        rig.assert_broken(&[Rule::FrameReused]);
        let _ = rig.model.take_violations();
        let _ = cpu.access(other, Access::Write);
        rig.assert_broken(&[Rule::StaleAccess]);
    }

    fn a_cut_off_table_that_is_linked_again_where_it_was_is_as_before<G>() {
        let rig = Rig::<G>::plain();
        let va = rig.va(0);
        rig.map(3, va, rig.frames(0), RW);
        let (table, index) = rig.find(2, va);
        let link = rig.cpu(0).load(table, index);
        rig.put(0, 2, va, 0);
        rig.put(0, 2, va, link);
        rig.flush_leaves(va, G::PAGE_SIZE, G::PAGE_SIZE);
        rig.model.assert_clean();
        rig.cpu(0).tlbi_vaae1is(va);
        rig.cpu(0).dsb_ish();
        rig.cpu(0).isb();
        assert!(rig.cpu(0).access(va, Access::Write).is_ok());
        rig.model.assert_quiescent();
    }

    fn no_other_table_comes_where_one_was_cut_off_before_the_flush<G>() {
        for flushed in [false, true] {
            let rig = Rig::<G>::plain();
            let va = rig.va(0);
            rig.table(3, va);
            rig.put(0, 2, va, 0);
            let cpu = rig.cpu(0);
            if flushed {
                cpu.dsb_ishst();
                cpu.tlbi_vaae1is(va);
                cpu.dsb_ish();
            }
            rig.map(3, rig.va(1), rig.frames(0), RW);
            let _ = cpu.access(rig.va(1), Access::Read);
            rig.assert_broken(if flushed { &[] } else { &[Rule::BreakBeforeMake, Rule::StaleAccess] });
        }
    }

    fn one_table_at_two_places_is_an_error<G>() {
        let rig = Rig::<G>::plain();
        let va = rig.va(0);
        let child = rig.table(3, va);
        rig.put(0, 2, va.add(d::size::<G>(2)), child.0 | 0b11);
        rig.assert_broken(&[Rule::LinkedTwice]);
    }

    fn a_table_moved_to_another_place_must_be_out_of_every_walk_cache<G>() {
        for flushed in [false, true] {
            let rig = Rig::<G>::plain();
            let va = rig.va(0);
            let child = rig.table(3, va);
            rig.put(0, 2, va, 0);
            let cpu = rig.cpu(0);
            cpu.dsb_ishst();
            if flushed {
                cpu.tlbi_vaae1is(va);
                cpu.dsb_ish();
            }
            rig.put(0, 2, va.add(d::size::<G>(2)), child.0 | 0b11);
            rig.made();
            rig.assert_broken(if flushed { &[] } else { &[Rule::LinkedTwice] });
        }
    }

    fn a_link_to_memory_that_is_no_table_is_an_error<G>() {
        let rig = Rig::<G>::plain();
        let va = rig.va(0);
        rig.table(2, va);
        rig.put(0, 2, va, rig.frames(4) | 0b11);
        rig.assert_broken(&[Rule::NotATable]);
    }

    fn a_table_freed_frees_its_page_lowest_first<G>() {
        let rig = Rig::<G>::plain();
        let cpu = rig.cpu(0);
        let (a, b) = (cpu.alloc_table(), cpu.alloc_table());
        assert_eq!(rig.model.nr_tables(), 3);
        cpu.free_table(a.expect("a table"));
        assert_eq!(cpu.alloc_table(), a);
        assert_ne!(a, b);
    }
}

fn unlinked<G: Granule>(tlbi: impl Fn(&Rig<G>, VirtAddr), trailing: bool) -> Rig<G> {
    let rig = Rig::<G>::plain();
    let va = rig.va(0);
    rig.map(3, va, rig.frames(0), RW);
    let (child, _) = rig.find(3, va);
    rig.put(0, 3, va, 0);
    rig.put(0, 2, va, 0);
    let cpu = rig.cpu(0);
    cpu.dsb_ishst();
    tlbi(&rig, va);
    if trailing {
        cpu.dsb_ish();
        cpu.isb();
    }
    cpu.free_table(child);
    rig
}

#[test]
fn a_frame_is_reused_only_after_its_translation_is_gone_everywhere() {
    let rig = Rig::<Granule4K>::plain();
    let va = rig.va(9);
    rig.map(3, va, 0x7000, RW);
    let frame = PhysAddr(0x7000);
    rig.put(0, 3, va, 0);
    rig.model.frame_reused(frame, 0x1000);
    rig.assert_broken(&[Rule::FrameReused]);
    rig.assert_told("which no DSB has completed");
    let _ = rig.model.take_violations();
    rig.model.frame_reused(PhysAddr(0x8000), 0x1000);
    rig.model.assert_clean();
    rig.flush_leaves(va, 0x1000, 0x1000);
    rig.model.frame_reused(frame, 0x1000);
    rig.model.assert_quiescent();
}

#[test]
fn a_range_is_reused_only_after_everything_in_it_is_gone_links_included() {
    let rig = Rig::<Granule4K>::plain();
    let va = rig.va(0);
    rig.table(3, va);
    rig.put(0, 2, va, 0);
    rig.cpu(0).dsb_ishst();
    rig.model.va_reused(rig.page_range(rig.va(511), 1));
    rig.assert_broken(&[Rule::VaReused]);
    let _ = rig.model.take_violations();
    rig.model.va_reused(rig.page_range(rig.va(512), 1));
    rig.model.assert_clean();
}

#[test]
fn the_kth_allocation_fails_once() {
    let rig = Rig::<Granule4K>::plain();
    let cpu = rig.cpu(0);
    rig.model.fail_alloc_after(2);
    let got: Vec<_> = (0..4).map(|_| cpu.alloc_table().is_some()).collect();
    assert_eq!(got, [true, true, false, true]);
    rig.model.fail_alloc_after(0);
    assert!(rig.model.cancel_alloc_failure());
    assert!(cpu.alloc_table().is_some());
    assert!(!rig.model.cancel_alloc_failure());
}

#[test]
fn a_pool_runs_out() {
    let (model, _) = Model::<Granule4K>::with_root(Features {
        pool_pages: 2,
        ..Features::default()
    });
    let table = model.cpu(0).alloc_table().expect("a table");
    assert_eq!(model.cpu(0).alloc_table(), None);
    model.cpu(0).free_table(table);
    assert!(model.cpu(0).alloc_table().is_some());
}

fn rig_in_linear_map() -> (Rig<Granule4K>, VirtAddr) {
    let base = 0u64.wrapping_sub(1 << 48);
    let rig = Rig::<Granule4K>::new(Features {
        pool_base: 0x20_0000,
        linear_map: Some(base),
        ..Features::default()
    });
    (rig, VirtAddr(base))
}

#[test]
fn a_linear_map_that_holds_the_tables_is_not_broken_under_their_feet() {
    for fixed_slot in [false, true] {
        let (rig, base) = rig_in_linear_map();
        let boot = rig.cpu(0);
        let own = base.add(0x20_0000);
        let tables = [rig.root, PhysAddr(0x20_1000), PhysAddr(0x20_2000)];
        boot.enter_break(base, 0, &tables);
        let (table, index) = rig.slot(2, own);
        boot.store(table, index, rig.leaf(2, 0x20_0000, RW));
        rig.made();
        boot.exit_break();
        rig.model.assert_clean();
        if fixed_slot {
            boot.enter_break(own, 2 << 20, &[table]);
        }
        boot.store(table, index, 0);
        rig.model.assert_clean();
        boot.dsb_ishst();
        boot.tlbi_vaale1is(own);
        boot.dsb_ish();
        boot.store(table, index, rig.leaf(2, 0x20_0000, RW));
        boot.dsb_ishst();
        boot.isb();
        boot.exit_break();
        rig.assert_broken(if fixed_slot { &[] } else { &[Rule::TableOutOfReach] });
    }
}

#[test]
fn a_state_is_put_back_and_the_canonical_form_knows_it_again() {
    let rig = Rig::<Granule4K>::plain();
    let va = rig.va(0);
    rig.table(3, va);
    let empty = rig.model.canonical();
    let state = rig.model.state();
    rig.map(3, va, 0x5000, RW);
    assert_ne!(rig.model.canonical(), empty);
    rig.put(0, 3, va, 0);
    assert_ne!(rig.model.canonical(), empty);
    rig.flush_leaves(va, 0x1000, 0x1000);
    assert_eq!(rig.model.canonical(), empty);
    rig.map(3, va, 0x5000, RW);
    rig.model.restore(&state);
    assert_eq!(rig.model.canonical(), empty);
    assert_eq!(rig.model.translate(va), None);
}

#[test]
fn what_is_not_finished_is_not_quiescent() {
    let rig = Rig::<Granule4K>::plain();
    let va = rig.va(0);
    assert!(rig.model.is_quiescent());
    rig.table(3, va);
    rig.put(0, 3, va, rig.leaf(3, 0x5000, RW));
    assert!(!rig.model.is_quiescent());
    rig.made();
    assert!(rig.model.is_quiescent());
    rig.cpu(0).tlbi_vaale1is(va);
    assert!(!rig.model.is_quiescent());
    rig.cpu(0).dsb_ish();
    assert!(rig.model.is_quiescent());
    rig.put(0, 3, va, 0);
    rig.made();
    assert!(!rig.model.is_quiescent());
}

#[test]
#[should_panic(expected = "TableReused")]
fn a_panicking_model_stops_at_the_first_violation() {
    let rig = Rig::<Granule4K>::new(Features {
        panics: true,
        ..Features::default()
    });
    let child = rig.table(3, rig.va(0));
    rig.cpu(0).free_table(child);
}
