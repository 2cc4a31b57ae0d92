//! The tables at the end name the test of each variant of [`Error`] and [`va::Error`], without a
//! wildcard.

mod addresses;
mod requests;
mod space;

use super::*;
use crate::va::Error as SpaceError;
use addresses::*;
use requests::*;
use space::the_space_refuses;
use std::collections::BTreeSet;
use std::format;
use std::string::String;

#[derive(Default)]
struct Seen(BTreeSet<&'static str>);

fn everything(vm: &Vm) -> String {
    vm.backend().tree().prune(vm.range()).expect("pruned");
    let mut areas = String::new();
    vm.vmallocinfo(|area| areas += &format!("{area}\n"));
    let usage = Usage {
        cached: (0, 0),
        pieces: 0,
        ..vm.usage()
    };
    let ram = vm.backend().ram().used();
    let model = vm.backend().model;
    format!(
        "{usage:?} {ram} {} {:?} {areas}",
        model.nr_tables(),
        model.leaves()
    )
}

impl Seen {
    fn refused<T>(&mut self, vm: &Vm, expected: Error, call: impl FnOnce() -> Result<T, Error>) {
        let before = everything(vm);
        let Err(error) = call() else {
            panic!("not refused: {expected}");
        };
        assert_eq!(error, expected, "{error}; expected: {expected}");
        assert_eq!(everything(vm), before, "{error}");
        assert_consistent(vm);
        self.0.insert(variant(&error));
    }

    fn refused_by_the_space<T>(&mut self, result: Result<T, va::Error>, expected: va::Error) {
        assert_eq!(result.err(), Some(expected));
        self.0.insert(va_variant(&expected));
    }
}

fn frame() -> [Pfn; 1] {
    [Pfn(RAM / PAGE)]
}

const DEVICE: PhysAddr = PhysAddr(0x900_0000);

macro_rules! names {
    ($name:ident, $error:ident: $($variant:ident),* $(,)?) => {
        fn $name(error: &$error) -> &'static str {
            match error {
                $($error::$variant { .. } => stringify!($variant),)*
            }
        }
    };
}

macro_rules! produced {
    ($($variant:ident by $test:ident),* $(,)?) => {
        names! { variant, Error: $($variant),* }

        mod refused {
            $(#[test]
            fn $test() {
                let mut seen = super::Seen::default();
                super::$test(&mut seen);
                assert!(seen.0.contains(stringify!($variant)), "it is produced no more");
            })*
        }
    };
}

produced! {
    Empty by nothing_is_asked_for,
    TooLarge by more_than_there_is,
    BadAlignment by an_alignment_is_no_power_of_two,
    BadPhysical by a_physical_range_ends_beyond_all,
    Ram by ram_is_asked_for_as_a_device,
    MemoryType by memory_of_its_own_is_asked_for_uncached,
    OutOfSpace by no_addresses_are_left,
    OutOfFrames by no_frames_are_left,
    NotToBeTakenOver by a_page_is_not_to_be_taken_over,
    OutOfNodes by no_nodes_are_left,
    Map by the_walker_refuses,
    Misaligned by an_address_is_between_pages,
    Outside by an_address_is_foreign,
    NotMapped by nothing_is_mapped_there,
    NoArea by no_area_is_there,
    Interior by an_address_is_inside_an_area,
    Guard by an_address_is_a_guards,
    Owned by a_handle_has_it,
    WrongKind by it_is_of_another_kind,
    Freed by it_was_freed_before,
    WrongLength by it_has_another_length,
    PermissionsChanged by its_permissions_were_changed,
    WouldBlock by a_lock_is_taken,
    TooManyDeferred by too_many_are_put_off,
    OutOfBounds by a_part_is_not_in_the_area,
}

macro_rules! produced_by_the_space {
    ($($variant:ident),* $(,)?) => {
        names! { va_variant, SpaceError: $($variant),* }

        #[test]
        fn the_space_refuses_in_every_way_there_is() {
            let mut seen = Seen::default();
            the_space_refuses(&mut seen);
            let all = BTreeSet::from([$(stringify!($variant)),*]);
            assert_eq!(seen.0, all);
        }
    };
}

produced_by_the_space! {
    Empty, BadAlignment, BadPhase, TooLarge, NoSpace, NoAlignedSpace, NoNodes,
}

#[test]
fn duplicate_pages_are_legal_where_they_are_somebody_elses() {
    let vm = vm();
    let owner = vm.backend().alloc_frames(0).unwrap();
    let area = vm.vmap(&[owner; 20][..]).unwrap();
    assert_maps(&area, &vm, |_| PhysAddr(owner.0 * PAGE));
    drop(area);
    let ram = vm.vm_map_ram(&[owner; 5][..]).unwrap();
    vm.raw().vm_unmap_ram(ram, 5).unwrap();
    vm.backend().free_frames(owner, 0);
    vm.shrink();
    assert_empty(&vm);
}
