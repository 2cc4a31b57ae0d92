//! System registers for translation, the same on every CPU. Computed with the MMU off: no memory
//! accesses.

use aarch64_cpu::registers::{ID_AA64MMFR0_EL1, Readable, TCR_EL1};
use tock_registers::fields::FieldValue;

use paging::Granule as _;

use crate::layout::{Granule, PAGE_SHIFT};

/// Indices into MAIR_EL1.
pub mod memory_type {
    pub const DEVICE_NGNRNE: u64 = 0;
    pub const DEVICE_NGNRE: u64 = 1;
    pub const NORMAL_NC: u64 = 2;
    /// Write-back.
    pub const NORMAL: u64 = 3;
    /// Write-through.
    pub const NORMAL_WT: u64 = 4;
}

/// By [`memory_type`] (Arm ARM, MAIR_EL1, "Attr\<n\>").
pub const MAIR_EL1: u64 = 0x00 << (8 * memory_type::DEVICE_NGNRNE)
    | 0x04 << (8 * memory_type::DEVICE_NGNRE)
    | 0x44 << (8 * memory_type::NORMAL_NC)
    | 0xff << (8 * memory_type::NORMAL)
    | 0xbb << (8 * memory_type::NORMAL_WT);

/// RES1 or Armv8.0 behaviour: LSMAOE, nTLSMD, SPAN, EIS, TSCXT, EOS, SED, ITD.
const SCTLR_EL1_RES1: u64 = 1 << 29 | 1 << 28 | 1 << 23 | 1 << 22 | 1 << 20 | 1 << 11 | 1 << 8 | 1 << 7;

/// Little endian, MMU and caches off.
pub const SCTLR_EL1_MMU_OFF: u64 = SCTLR_EL1_RES1;

/// M, C, I; SA, SA0; WXN (rule 10); nTWE, nTWI.
pub const SCTLR_EL1_MMU_ON: u64 =
    SCTLR_EL1_RES1 | 1 << 19 | 1 << 18 | 1 << 16 | 1 << 12 | 1 << 4 | 1 << 3 | 1 << 2 | 1 << 0;

#[inline(always)]
fn tg0() -> FieldValue<u64, TCR_EL1::Register> {
    match PAGE_SHIFT {
        14 => TCR_EL1::TG0::KiB_16,
        16 => TCR_EL1::TG0::KiB_64,
        _ => TCR_EL1::TG0::KiB_4,
    }
}

#[inline(always)]
fn tg1() -> FieldValue<u64, TCR_EL1::Register> {
    match PAGE_SHIFT {
        14 => TCR_EL1::TG1::KiB_16,
        16 => TCR_EL1::TG1::KiB_64,
        _ => TCR_EL1::TG1::KiB_4,
    }
}

/// What descriptors have room for.
pub const MOST_IPS: u64 = if Granule::PA_BITS == 52 { 6 } else { 5 };

/// FEAT_LPA2: shareability is SH0's and SH1's.
const DS: u64 = 1 << 59;

/// Returns a TTBR: BADDR\[51:48\] are its bits 5:2 where the output size is 52 bits.
#[inline(always)]
#[must_use]
pub const fn ttbr(root: u64) -> u64 {
    root & ((1 << 48) - 1) | root >> 48 << 2
}

/// Returns the table of a TTBR.
#[inline(always)]
#[must_use]
pub const fn root_of(ttbr: u64) -> u64 {
    let high = if Granule::PA_BITS == 52 {
        ttbr >> 2 & 0xf
    } else {
        0
    };
    ttbr & ((1 << 48) - 1) & !(Granule::PAGE_SIZE - 1) | high << 48
}

/// Returns TCR_EL1. No HA and HD: only software changes descriptors.
#[inline(always)]
#[must_use]
pub fn tcr_el1() -> u64 {
    let range = ID_AA64MMFR0_EL1.read(ID_AA64MMFR0_EL1::PARange);
    let ips = if range > MOST_IPS { MOST_IPS } else { range };
    const SIZE: u64 = 64 - Granule::VA_BITS as u64;
    // Before the MMU is on nothing may be called: not optimised, `val` is a function.
    let fields: FieldValue<u64, TCR_EL1::Register> = const { TCR_EL1::T0SZ.val(SIZE) }
        + TCR_EL1::IRGN0::WriteBack_ReadAlloc_WriteAlloc_Cacheable
        + TCR_EL1::ORGN0::WriteBack_ReadAlloc_WriteAlloc_Cacheable
        + TCR_EL1::SH0::Inner
        + tg0()
        + const { TCR_EL1::T1SZ.val(SIZE) }
        + TCR_EL1::IRGN1::WriteBack_ReadAlloc_WriteAlloc_Cacheable
        + TCR_EL1::ORGN1::WriteBack_ReadAlloc_WriteAlloc_Cacheable
        + TCR_EL1::SH1::Inner
        + tg1();
    fields.value | ips << TCR_EL1::IPS.shift | if Granule::DS { DS } else { 0 }
}
