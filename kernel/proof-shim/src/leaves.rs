use paging::{Granule, Granule4K, Granule16K, Granule64K, LeafSet, Leaves, PhysAddr, VirtAddr, leaf};

use crate::shim;

/// Level, descriptors, those in groups, single ones before them.
pub(crate) type Answer = [u64; 4];

pub(crate) fn answer(leaves: Leaves) -> Answer {
    [
        leaves.level as u64,
        leaves.nr as u64,
        leaves.grouped as u64,
        leaves.head as u64,
    ]
}

pub(crate) fn set(bits: u8) -> LeafSet {
    const _: () = assert!(size_of::<LeafSet>() == 1);
    // SAFETY: one byte, and every value is valid.
    unsafe { core::mem::transmute(bits) }
}

fn rule<G: Granule>(va: u64, pa: u64, size: u64, allowed: u8) -> Answer {
    answer(G::leaves(VirtAddr(va), PhysAddr(pa), size, set(allowed)))
}

fn divide<G: Granule>(level: i8, va: u64, pa: u64, nr: usize, groups: bool) -> Answer {
    answer(Leaves::divide::<G>(level, VirtAddr(va), PhysAddr(pa), nr, groups))
}

fn within<G: Granule>(pa: u64, pages: u64, allowed: u8) -> u64 {
    let size = leaf::largest_within::<G>(PhysAddr(pa), pages, set(allowed));
    (size.level() as u64) << 8 | u64::from(size.is_contiguous())
}

shim! {
    fn shim_leaves_4k(va: u64, pa: u64, size: u64, allowed: u8, out: &mut Answer) {
        *out = rule::<Granule4K>(va, pa, size, allowed);
    }
    fn shim_leaves_16k(va: u64, pa: u64, size: u64, allowed: u8, out: &mut Answer) {
        *out = rule::<Granule16K>(va, pa, size, allowed);
    }
    fn shim_leaves_64k(va: u64, pa: u64, size: u64, allowed: u8, out: &mut Answer) {
        *out = rule::<Granule64K>(va, pa, size, allowed);
    }
    fn shim_divide_4k(level: i8, va: u64, pa: u64, nr: usize, groups: bool, out: &mut Answer) {
        *out = divide::<Granule4K>(level, va, pa, nr, groups);
    }
    fn shim_divide_16k(level: i8, va: u64, pa: u64, nr: usize, groups: bool, out: &mut Answer) {
        *out = divide::<Granule16K>(level, va, pa, nr, groups);
    }
    fn shim_divide_64k(level: i8, va: u64, pa: u64, nr: usize, groups: bool, out: &mut Answer) {
        *out = divide::<Granule64K>(level, va, pa, nr, groups);
    }
    fn shim_within_4k(pa: u64, pages: u64, allowed: u8) -> u64 {
        within::<Granule4K>(pa, pages, allowed)
    }
    fn shim_within_16k(pa: u64, pages: u64, allowed: u8) -> u64 {
        within::<Granule16K>(pa, pages, allowed)
    }
    fn shim_within_64k(pa: u64, pages: u64, allowed: u8) -> u64 {
        within::<Granule64K>(pa, pages, allowed)
    }
}
