//! The architecture's sequences: accepted, and rejected with any step dropped.

use crate::common::{RO, RW, Rig};
use mmu_model::{Access, Fault, Features, Rule};
use paging::{Granule4K, Mmu, VirtAddr};

const A: u64 = 0x10_0000;
const B: u64 = 0x20_0000;

fn mapped(cpus: usize, attributes: u64) -> (Rig<Granule4K>, VirtAddr) {
    let rig = Rig::smp(cpus);
    let va = rig.va(0x123);
    rig.map(3, va, A, attributes);
    (rig, va)
}

/// Row 1.
fn unmap_and_load(ishst: bool, tlbi: bool, ish: bool, isb: bool) -> Rig<Granule4K> {
    let (rig, va) = mapped(1, RW);
    let cpu = rig.cpu(0);
    rig.put(0, 3, va, 0);
    if ishst {
        cpu.dsb_ishst();
    }
    if tlbi {
        cpu.tlbi_vaale1is(va);
    }
    if ish {
        cpu.dsb_ish();
    }
    if isb {
        cpu.isb();
    }
    assert_eq!(cpu.access(va, Access::Read), Err(Fault::Translation(3)));
    rig
}

#[test]
fn row_1_unmap_with_all_four_steps_must_fault() {
    unmap_and_load(true, true, true, true).model.assert_quiescent();
}

#[test]
fn row_1_without_the_leading_dsb_may_hit() {
    let rig = unmap_and_load(false, true, true, true);
    rig.assert_broken(&[Rule::TlbiBeforeDsb, Rule::StaleAccess]);
    rig.assert_told("came before a DSB");
}

#[test]
fn row_1_without_the_tlbi_may_hit() {
    let rig = unmap_and_load(true, false, true, true);
    rig.assert_broken(&[Rule::StaleAccess]);
    rig.assert_told("no TLBI has matched it");
}

#[test]
fn row_1_without_the_trailing_dsb_may_hit() {
    let rig = unmap_and_load(true, true, false, true);
    rig.assert_broken(&[Rule::StaleAccess]);
    rig.assert_told("waits for a DSB ISH of CPU 0");
}

#[test]
fn row_1_without_the_isb_may_hit_on_the_same_cpu() {
    let rig = unmap_and_load(true, true, true, false);
    rig.assert_broken(&[Rule::StaleAccess]);
    rig.assert_told("has had no ISB since");
}

#[test]
fn row_1_with_dsb_ishst_in_place_of_the_trailing_dsb_ish_may_hit() {
    let (rig, va) = mapped(1, RW);
    let cpu = rig.cpu(0);
    rig.put(0, 3, va, 0);
    cpu.dsb_ishst();
    cpu.tlbi_vaale1is(va);
    cpu.dsb_ishst();
    cpu.isb();
    let _ = cpu.access(va, Access::Read);
    rig.assert_broken(&[Rule::StaleAccess]);
}

#[test]
fn row_1_with_the_isb_before_the_trailing_dsb_may_hit() {
    let (rig, va) = mapped(1, RW);
    let cpu = rig.cpu(0);
    rig.put(0, 3, va, 0);
    cpu.dsb_ishst();
    cpu.tlbi_vaale1is(va);
    cpu.isb();
    cpu.dsb_ish();
    let _ = cpu.access(va, Access::Read);
    rig.assert_broken(&[Rule::StaleAccess]);
}

#[test]
fn row_1_with_a_tlbi_for_the_neighbour_may_hit() {
    let (rig, va) = mapped(1, RW);
    rig.put(0, 3, va, 0);
    rig.flush_leaves(va.add(0x1000), 0x1000, 0x1000);
    let _ = rig.cpu(0).access(va, Access::Read);
    rig.assert_broken(&[Rule::StaleAccess]);
}

fn unmap_and_hand_over(tlbi: impl Fn(&Rig<Granule4K>, VirtAddr)) -> Rig<Granule4K> {
    let (rig, va) = mapped(2, RW);
    rig.model.hand_over(0, 1);
    rig.cpu(1).isb();
    let cpu = rig.cpu(0);
    rig.put(0, 3, va, 0);
    cpu.dsb_ishst();
    tlbi(&rig, va);
    cpu.dsb_ish();
    cpu.isb();
    rig.model.hand_over(0, 1);
    assert_eq!(rig.cpu(1).access(va, Access::Read), Err(Fault::Translation(3)));
    rig
}

#[test]
fn row_2_after_an_inner_shareable_tlbi_the_other_cpu_must_fault() {
    unmap_and_hand_over(|rig, va| rig.cpu(0).tlbi_vaale1is(va))
        .model
        .assert_quiescent();
}

#[test]
fn row_2_after_a_local_tlbi_the_other_cpu_may_hit() {
    for local in [
        |rig: &Rig<Granule4K>, va| rig.cpu(0).tlbi_vaale1(va),
        |rig: &Rig<Granule4K>, va| rig.cpu(0).tlbi_vaae1(va),
        |rig: &Rig<Granule4K>, _| rig.cpu(0).tlbi_vmalle1(),
    ] {
        let rig = unmap_and_hand_over(local);
        rig.assert_broken(&[Rule::StaleAccess]);
        rig.assert_told("was local to its CPU");
    }
}

#[test]
fn row_2_after_no_tlbi_the_other_cpu_may_hit() {
    unmap_and_hand_over(|_, _| ()).assert_broken(&[Rule::StaleAccess]);
}

#[test]
fn a_local_tlbi_is_enough_for_the_cpu_that_issues_it() {
    let (rig, va) = mapped(2, RW);
    let cpu = rig.cpu(0);
    rig.put(0, 3, va, 0);
    cpu.dsb_ishst();
    cpu.tlbi_vaale1(va);
    cpu.dsb_ish();
    cpu.isb();
    assert!(cpu.access(va, Access::Read).is_err());
    rig.model.assert_clean();
}

/// Row 3.
fn map_and_load(dsb: bool, isb: bool, ets2: bool) -> Rig<Granule4K> {
    let rig = Rig::new(Features {
        ets2,
        ..Features::default()
    });
    let va = rig.va(0x123);
    rig.table(3, va);
    rig.put(0, 3, va, rig.leaf(3, A, RW));
    if dsb {
        rig.cpu(0).dsb_ishst();
    }
    if isb {
        rig.cpu(0).isb();
    }
    assert_eq!(
        rig.cpu(0).access(va.add(8), Access::Read).map(|pa| pa.0),
        Ok(A + 8)
    );
    rig
}

#[test]
fn row_3_a_fresh_map_with_dsb_and_isb_never_faults() {
    map_and_load(true, true, false).model.assert_quiescent();
}

#[test]
fn row_3_without_the_isb_it_may_fault() {
    map_and_load(true, false, false).assert_broken(&[Rule::StaleAccess]);
}

#[test]
fn row_3_without_the_isb_it_never_faults_on_a_cpu_with_ets2() {
    map_and_load(true, false, true).model.assert_quiescent();
}

#[test]
fn row_3_without_the_dsb_it_may_fault_on_every_cpu() {
    map_and_load(false, true, false).assert_broken(&[Rule::StaleAccess]);
    map_and_load(false, true, true).assert_broken(&[Rule::StaleAccess]);
    map_and_load(false, false, false).assert_broken(&[Rule::StaleAccess]);
}

#[test]
fn row_3_a_handler_that_retries_needs_no_isb() {
    let rig = Rig::<Granule4K>::smp(2);
    let va = rig.va(5);
    rig.table(3, va);
    rig.put(0, 3, va, rig.leaf(3, A, RW));
    rig.cpu(0).dsb_ishst();
    rig.model.hand_over(0, 1);
    assert!(rig.cpu(1).access_with_retry(va, Access::Write).is_ok());
    rig.model.assert_quiescent();
    assert!(rig.cpu(1).access(va, Access::Write).is_ok());
    rig.assert_broken(&[Rule::StaleAccess]);
}

#[test]
fn row_4_another_output_address_in_place_is_unsound_even_with_a_tlbi_after() {
    let (rig, va) = mapped(1, RW);
    rig.put(0, 3, va, rig.leaf(3, B, RW));
    rig.flush_leaves(va, 0x1000, 0x1000);
    rig.assert_broken(&[Rule::BreakBeforeMake]);
}

/// Row 5.
fn break_and_make(ishst: bool, tlbi: bool, ish: bool) -> Rig<Granule4K> {
    let (rig, va) = mapped(1, RW);
    let cpu = rig.cpu(0);
    rig.put(0, 3, va, 0);
    if ishst {
        cpu.dsb_ishst();
    }
    if tlbi {
        cpu.tlbi_vaale1is(va);
    }
    if ish {
        cpu.dsb_ish();
    }
    rig.put(0, 3, va, rig.leaf(3, B, RW));
    rig.made();
    let _ = cpu.access(va, Access::Write);
    rig
}

#[test]
fn row_5_through_invalid_dsb_tlbi_dsb_is_sound() {
    break_and_make(true, true, true).model.assert_quiescent();
}

#[test]
fn row_5_without_the_first_dsb_is_unsound() {
    break_and_make(false, true, true).assert_broken(&[
        Rule::TlbiBeforeDsb,
        Rule::BreakBeforeMake,
        Rule::StaleAccess,
    ]);
}

#[test]
fn row_5_without_the_tlbi_is_unsound() {
    break_and_make(true, false, true).assert_broken(&[Rule::BreakBeforeMake, Rule::StaleAccess]);
}

#[test]
fn row_5_without_the_second_dsb_is_unsound() {
    break_and_make(true, true, false).assert_broken(&[Rule::BreakBeforeMake, Rule::StaleAccess]);
}

#[test]
fn row_6_read_only_in_place_needs_no_break() {
    let (rig, va) = mapped(2, RW);
    rig.model.hand_over(0, 1);
    rig.cpu(1).isb();
    rig.put(0, 3, va, rig.leaf(3, A, RO));
    rig.flush_leaves(va, 0x1000, 0x1000);
    rig.model.hand_over(0, 1);
    for cpu in 0..2 {
        assert_eq!(rig.cpu(cpu).access(va, Access::Write), Err(Fault::Permission(3)));
        assert!(rig.cpu(cpu).access(va, Access::Read).is_ok());
    }
    rig.model.assert_quiescent();
}

#[test]
fn row_6_read_only_in_place_without_the_tlbi_may_still_write() {
    let (rig, va) = mapped(2, RW);
    rig.put(0, 3, va, rig.leaf(3, A, RO));
    rig.made();
    rig.model.hand_over(0, 1);
    rig.cpu(1).isb();
    assert!(rig.cpu(1).access(va, Access::Read).is_ok());
    rig.model.assert_clean();
    let _ = rig.cpu(1).access(va, Access::Write);
    rig.assert_broken(&[Rule::StaleAccess]);
}

#[test]
fn writable_in_place_without_the_tlbi_may_still_fault() {
    let (rig, va) = mapped(1, RO);
    rig.put(0, 3, va, rig.leaf(3, A, RW));
    rig.made();
    assert!(rig.cpu(0).access_with_retry(va, Access::Write).is_ok());
    rig.model.assert_clean();
    assert!(rig.cpu(0).access(va, Access::Write).is_ok());
    rig.assert_broken(&[Rule::StaleAccess]);
}

fn lazy_purge(
    storer: impl Fn(&Rig<Granule4K>),
    acquire: bool,
    leading: impl Fn(&Rig<Granule4K>),
) -> Rig<Granule4K> {
    let (rig, va) = mapped(3, RW);
    rig.put(0, 3, va, 0);
    storer(&rig);
    if acquire {
        rig.model.hand_over(0, 1);
    }
    leading(&rig);
    rig.cpu(1).tlbi_vaale1is(va);
    rig.cpu(1).dsb_ish();
    rig.model.hand_over(1, 2);
    let _ = rig.cpu(2).access(va, Access::Read);
    rig
}

#[test]
fn row_7_a_lazy_purge_by_another_cpu_is_sound_without_a_dsb_of_the_storer() {
    lazy_purge(|_| (), true, |rig| rig.cpu(1).dsb_ish())
        .model
        .assert_quiescent();
}

#[test]
fn row_7_without_the_purgers_leading_dsb_it_may_hit() {
    lazy_purge(|_| (), true, |_| ()).assert_broken(&[Rule::StaleAccess]);
}

#[test]
fn row_7_a_leading_dsb_ishst_of_the_purger_does_not_cover_the_storers_store() {
    lazy_purge(|_| (), true, |rig| rig.cpu(1).dsb_ishst()).assert_broken(&[Rule::StaleAccess]);
}

#[test]
fn row_7_without_acquire_the_purger_knows_nothing_of_the_store() {
    lazy_purge(|_| (), false, |rig| rig.cpu(1).dsb_ish()).assert_broken(&[Rule::StaleAccess]);
}

#[test]
fn row_7_a_dsb_of_the_storer_does_not_order_the_purgers_tlbi() {
    // Only a DSB of the purger that waits for loads orders the TLBI after the acquire.
    lazy_purge(|rig| rig.cpu(0).dsb_ish(), true, |_| ()).assert_broken(&[Rule::StaleAccess]);
}

#[test]
fn row_7_what_the_storer_did_after_the_release_is_not_acquired() {
    for late in [false, true] {
        let (rig, va) = mapped(2, RW);
        let before = rig.model.release(0);
        rig.put(0, 3, va, 0);
        let mut released = rig.model.release(0);
        if late {
            released = before;
        } else {
            released.join(&before);
        }
        rig.model.acquire(1, &released);
        let cpu = rig.cpu(1);
        cpu.dsb_ish();
        cpu.tlbi_vaale1is(va);
        cpu.dsb_ish();
        cpu.isb();
        assert!(cpu.access(va, Access::Read).is_err());
        if late {
            rig.assert_broken(&[Rule::StaleAccess]);
        } else {
            rig.model.assert_quiescent();
        }
    }
}

#[test]
fn a_later_store_to_the_same_descriptor_completes_the_ones_before_it() {
    // CPU 0 issues no DSB; CPU 1 unmaps, with a DSB for its own store. A walk that must find the
    // second store cannot find what preceded the first.
    let (rig, va) = mapped(2, RW);
    rig.put(0, 3, va, rig.leaf(3, A, RO));
    rig.model.hand_over(0, 1);
    rig.put(1, 3, va, 0);
    let cpu = rig.cpu(1);
    cpu.dsb_ishst();
    cpu.tlbi_vaale1is(va);
    cpu.dsb_ish();
    cpu.isb();
    assert!(cpu.access(va, Access::Write).is_err());
    rig.model.frame_reused(paging::PhysAddr(A), 0x1000);
    rig.model.assert_clean();
}

#[test]
fn an_instruction_fetched_by_another_cpu_outlives_the_tlbi_until_its_isb() {
    let (rig, va) = mapped(2, crate::common::RX);
    rig.model.hand_over(0, 1);
    rig.cpu(1).isb();
    rig.put(0, 3, va, 0);
    rig.flush_leaves(va, 0x1000, 0x1000);
    rig.model.hand_over(0, 1);
    assert!(rig.cpu(1).access(va, Access::Read).is_err());
    rig.model.assert_clean();
    assert!(rig.cpu(1).access(va, Access::Execute).is_err());
    rig.assert_broken(&[Rule::StaleAccess]);
}

#[test]
fn after_its_isb_the_other_cpu_cannot_execute_either() {
    let (rig, va) = mapped(2, crate::common::RX);
    rig.model.hand_over(0, 1);
    rig.put(0, 3, va, 0);
    rig.flush_leaves(va, 0x1000, 0x1000);
    rig.model.hand_over(0, 1);
    rig.cpu(1).isb();
    assert!(rig.cpu(1).access(va, Access::Execute).is_err());
    rig.model.assert_quiescent();
}
