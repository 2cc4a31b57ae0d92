use crate::common::{RW, Rig};
use mmu_model::{Access, Cpu, Features, Model, Rule};
use paging::{Granule4K, Mmu, Tables};

const A: u64 = 0x10_0000;

#[derive(Clone, Copy, Debug)]
enum Barrier {
    None,
    DmbIshst,
    DmbIsh,
    DsbIshst,
    DsbIsh,
}

use Barrier::{DmbIsh, DmbIshst, DsbIsh, DsbIshst};

const BARRIERS: [Barrier; 4] = [DmbIshst, DmbIsh, DsbIshst, DsbIsh];

impl Barrier {
    fn issue(self, cpu: Cpu<'_, Granule4K>) {
        match self {
            Self::None => {}
            DmbIshst => cpu.dmb_ishst(),
            DmbIsh => cpu.dmb_ish(),
            DsbIshst => cpu.dsb_ishst(),
            DsbIsh => cpu.dsb_ish(),
        }
    }
}

fn two_cpus() -> Model<Granule4K> {
    let features = Features {
        cpus: 2,
        ..Features::default()
    };
    Model::with_root(features).0
}

fn oldest(_: usize) -> usize {
    0
}

fn newest(nr: usize) -> usize {
    nr - 1
}

/// Returns the worst data that CPU 1 may read with the newest flag.
fn message_passed(between: Barrier, flag_with_release: bool) -> u64 {
    let model = two_cpus();
    let (data, flag) = (model.word(0), model.word(0));
    let (writer, reader) = (model.cpu(0), model.cpu(1));
    writer.store_plain(data, 1);
    between.issue(writer);
    if flag_with_release {
        writer.store_release(flag, 1);
    } else {
        writer.store_plain(flag, 1);
    }
    assert_eq!(reader.load_acquire(flag, newest), 1);
    reader.load_acquire(data, oldest)
}

#[test]
fn plain_stores_to_two_places_are_observed_in_any_order() {
    assert_eq!(message_passed(Barrier::None, false), 0);
}

#[test]
fn a_barrier_between_them_keeps_the_order() {
    for barrier in BARRIERS {
        assert_eq!(message_passed(barrier, false), 1, "{barrier:?}");
    }
}

#[test]
fn a_store_release_is_ordered_behind_all_that_is_before_it() {
    assert_eq!(message_passed(Barrier::None, true), 1);
}

#[test]
fn no_barrier_before_both_orders_one_behind_the_other() {
    let model = two_cpus();
    let (data, flag) = (model.word(0), model.word(0));
    let (writer, reader) = (model.cpu(0), model.cpu(1));
    writer.dmb_ish();
    writer.store_plain(data, 1);
    writer.store_plain(flag, 1);
    writer.dmb_ish();
    assert_eq!(reader.load_acquire(flag, newest), 1);
    assert_eq!(reader.load_acquire(data, oldest), 0);
}

fn counted_before(between: Barrier) -> u64 {
    let model = two_cpus();
    let (counter, flag) = (model.word(0), model.word(0));
    let (writer, reader) = (model.cpu(0), model.cpu(1));
    writer.fetch_add_acq_rel(counter, 1);
    between.issue(writer);
    writer.store_plain(flag, 1);
    assert_eq!(reader.load_acquire(flag, newest), 1);
    reader.load_acquire(counter, oldest)
}

#[test]
fn a_plain_store_may_be_observed_before_an_earlier_store_exclusive() {
    // The exclusives' acquire orders what follows behind the load only.
    assert_eq!(counted_before(Barrier::None), 0);
    for barrier in BARRIERS {
        assert_eq!(counted_before(barrier), 1, "{barrier:?}");
    }
}

#[test]
fn what_is_stored_after_a_load_acquire_is_ordered_behind_what_that_observed() {
    let (model, _) = Model::<Granule4K>::with_root(Features {
        cpus: 3,
        ..Features::default()
    });
    let (data, flag, passed_on) = (model.word(0), model.word(0), model.word(0));
    let [first, second, third] = [0, 1, 2].map(|cpu| model.cpu(cpu));
    first.store_plain(data, 1);
    first.store_release(flag, 1);
    assert_eq!(second.load_acquire(flag, newest), 1);
    second.store_plain(passed_on, 1);
    assert_eq!(third.load_acquire(passed_on, newest), 1);
    assert_eq!(third.load_acquire(data, oldest), 1);
}

#[test]
fn a_cpu_never_reads_an_older_value_than_it_has_read_or_stored() {
    let model = two_cpus();
    let word = model.word(0);
    let (writer, reader) = (model.cpu(0), model.cpu(1));
    for value in 1..=3 {
        writer.store_plain(word, value);
    }
    assert_eq!(writer.load_acquire(word, oldest), 3);
    assert_eq!(reader.load_acquire(word, |nr| nr - 2), 2);
    assert_eq!(reader.load_acquire(word, oldest), 2);
    assert_eq!(reader.load_acquire(word, newest), 3);
}

#[test]
fn adding_never_misses_what_another_has_added() {
    let model = two_cpus();
    let word = model.word(0);
    for cpu in [0, 1, 0, 1] {
        model.cpu(cpu).fetch_add_acq_rel(word, 1);
        model.cpu(cpu).fetch_add_release(word, 1 << 32);
    }
    assert_eq!(model.cpu(0).load_acquire(word, newest), 4 << 32 | 4);
}

fn counted_before_the_break(between: Barrier) -> u64 {
    let rig = Rig::<Granule4K>::smp(2);
    let va = rig.va(9);
    rig.map(3, va, A, RW);
    rig.cpu(1).isb();
    let counter = rig.model.word(0);
    rig.cpu(0).fetch_add_acq_rel(counter, 1);
    between.issue(rig.cpu(0));
    rig.put(0, 3, va, 0);
    let faulter = rig.cpu(1);
    assert!(faulter.at(va, Access::Read).is_err());
    faulter.load_acquire(counter, oldest)
}

#[test]
fn a_walk_that_finds_a_descriptor_invalid_has_observed_what_is_ordered_before() {
    assert_eq!(counted_before_the_break(Barrier::None), 0);
    for barrier in BARRIERS {
        assert_eq!(counted_before_the_break(barrier), 1, "{barrier:?}");
    }
}

#[test]
fn a_walk_that_misses_the_make_has_observed_the_break() {
    let rig = Rig::<Granule4K>::smp(2);
    let va = rig.va(9);
    rig.map(3, va, A, RW);
    rig.cpu(1).isb();
    let counter = rig.model.word(0);
    rig.cpu(0).fetch_add_acq_rel(counter, 1);
    rig.cpu(0).dmb_ishst();
    rig.put(0, 3, va, 0);
    rig.flush_leaves(va, 0x1000, 0x1000);
    rig.put(0, 3, va, rig.leaf(3, A, RW));
    let faulter = rig.cpu(1);
    assert!(
        faulter.at(va, Access::Read).is_err(),
        "nothing has completed the make"
    );
    assert_eq!(faulter.load_acquire(counter, oldest), 1);
    // What CPU 0 stored before is complete after a DSB of the CPU that knows.
    rig.cpu(0).fetch_add_release(counter, 1);
    assert_eq!(faulter.load_acquire(counter, newest), 2);
    faulter.dsb_ish();
    faulter.isb();
    assert!(faulter.at(va, Access::Read).is_ok());
}

fn linked_plainly(between: Barrier) -> Rig<Granule4K> {
    let rig = Rig::<Granule4K>::plain();
    let va = rig.va(0);
    rig.table(2, va);
    let table = rig.cpu(0).alloc_table().expect("a table");
    between.issue(rig.cpu(0));
    rig.put(0, 2, va, table.0 | 0b11);
    rig
}

#[test]
fn a_plain_link_needs_a_barrier_behind_the_zeroing_of_its_table() {
    linked_plainly(Barrier::None).assert_broken(&[Rule::LinkedTooEarly]);
    for barrier in BARRIERS {
        linked_plainly(barrier).model.assert_clean();
    }
}

fn mapped_below(link_released: bool, link_loaded: bool) -> Rig<Granule4K> {
    let rig = Rig::<Granule4K>::smp(2);
    let va = rig.va(0);
    let (parent, index) = rig.slot(2, va);
    let (owner, mapper) = (rig.cpu(0), rig.cpu(1));
    let table = owner.alloc_table().expect("a table");
    owner.dsb_ishst();
    let link = table.0 | 0b11;
    if link_released {
        owner.compare_exchange(parent, index, 0, link).expect("vacant");
    } else {
        owner.store(parent, index, link);
    }
    if link_loaded {
        assert_eq!(mapper.load(parent, index), link);
    }
    mapper.store(table, 0, rig.leaf(3, A, RW));
    mapper.dsb_ishst();
    mapper.isb();
    assert!(mapper.access(va, Access::Write).is_ok());
    rig
}

#[test]
fn a_page_may_be_mapped_below_a_link_that_another_cpu_is_still_to_complete() {
    mapped_below(true, true).model.assert_clean();
    mapped_below(true, false).assert_broken(&[Rule::StaleAccess]);
    mapped_below(false, true).assert_broken(&[Rule::StaleAccess]);
}

#[test]
fn everything_an_access_may_come_to() {
    let rig = Rig::<Granule4K>::smp(2);
    let va = rig.va(9);
    rig.map(3, va, A, RW);
    let possible = |cpu: usize| {
        let all = rig.cpu(cpu).possible(va, Access::Read);
        all.into_iter()
            .map(|may| may.map_or(0, |pa| pa.0))
            .collect::<Vec<_>>()
    };
    rig.cpu(1).isb();
    assert_eq!((possible(0), possible(1)), (vec![A], vec![A]));
    rig.put(0, 3, va, 0);
    assert_eq!(possible(1), [0, A]);
    rig.flush_leaves(va, 0x1000, 0x1000);
    assert_eq!(possible(1), [0]);
    rig.put(0, 3, va, rig.leaf(3, 2 * A, RW));
    assert_eq!(possible(1), [2 * A, 0]);
    rig.model.assert_clean();
}
