//! Entry of the CPUs, in assembly: what has to happen before Rust has a stack, and around the
//! moment when the MMU goes on. `image.s` is the header and the early vectors and failure path,
//! `entry.s` the way to [`crate::high::start_high`].

use core::arch::global_asm;
use core::mem::offset_of;

use kernel::mm::layout::Granule;
use kernel::smp::{Pen, SecondaryArgs};
use paging::Granule as _;

use crate::early::Early;

/// The page size in the header of the image: 1 for 4 KiB, 2 for 16, 3 for 64.
const PAGE_SIZE_FLAG: u32 = (kernel::mm::layout::PAGE_SHIFT - 10) / 2;

/// Field of ID_AA64MMFR0_EL1 (TGran4, TGran16, TGran64), and the least that it is, plus one. For 52
/// bits of address, with FEAT_LPA2.
const GRANULE_FIELD: (u32, u32) = match (kernel::mm::layout::PAGE_SHIFT, Granule::DS) {
    (12, wide) => (28, 1 + wide as u32),
    (14, wide) => (20, 2 + wide as u32),
    _ => (24, 1),
};
/// Of ID_AA64MMFR2_EL1.VARange: pages of 64 KiB have 52 bits of address with FEAT_LVA.
const VA_RANGE_LEAST: u32 = (Granule::VA_BITS == 52 && !Granule::DS) as u32;

global_asm!(include_str!("head/image.s"), guessed_uart = const crate::early::GUESSED_PL011, page_size = const PAGE_SIZE_FLAG);
global_asm!(
    include_str!("head/entry.s"),
    early_ttbr0 = const offset_of!(Early, ttbr0),
    early_ttbr1 = const offset_of!(Early, ttbr1),
    early_tcr = const offset_of!(Early, tcr),
    early_mair = const offset_of!(Early, mair),
    early_sctlr = const offset_of!(Early, sctlr),
    args_ttbr0 = const offset_of!(SecondaryArgs, ttbr0),
    args_ttbr1 = const offset_of!(SecondaryArgs, ttbr1),
    args_tcr = const offset_of!(SecondaryArgs, tcr),
    args_mair = const offset_of!(SecondaryArgs, mair),
    args_sctlr = const offset_of!(SecondaryArgs, sctlr),
    args_stack_top = const offset_of!(SecondaryArgs, stack_top),
    args_entry = const offset_of!(SecondaryArgs, entry),
    args_argument = const offset_of!(SecondaryArgs, argument),
    args_size = const size_of::<SecondaryArgs>(),
    pen = sym kernel::smp::PEN,
    pen_context = const offset_of!(Pen, context),
    affinity = const kernel::arch::percpu::AFFINITY,
    granule_field = const GRANULE_FIELD.0,
    granule_least = const GRANULE_FIELD.1,
    va_range_least = const VA_RANGE_LEAST,
    most_ips = const kernel::arch::cpu::MOST_IPS,
    sctlr_mmu_off = const kernel::arch::cpu::SCTLR_EL1_MMU_OFF,
    start_high = sym crate::high::start_high,
    early = sym crate::early::EARLY,
    early_setup = sym crate::early::early_setup,
    configure_el2 = sym crate::early::el2::configure_el2,
);
