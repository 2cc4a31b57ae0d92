//! Barriers, TLBIs and address translations by their names, and [`KernelMmu`], which gives them to
//! the engine. Where each goes is the engine's part (DESIGN rules 2 to 5). No `nomem`: no access
//! moves across one.

use core::arch::{asm, global_asm};
use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};

use aarch64_cpu::registers::{ReadWriteable, Readable, TCR_EL1, TTBR0_EL1, Writeable};
use arch_policy::flush;
use paging::{Mmu, TlbiRange, VirtAddr};

use super::cpu::ttbr;
use super::errata::Errata;
use super::features::Features;
use super::interrupts;
use super::syndrome::FaultStatus;
use crate::layout::Granule;

/// DSB ISHST: completes earlier stores for the inner shareable domain with its walkers (Arm ARM,
/// "Data Synchronization Barrier (DSB)"; "Ordering and completion of translation table walks").
#[inline(always)]
pub fn dsb_ishst() {
    // SAFETY: a barrier.
    unsafe { asm!("dsb ishst", options(nostack, preserves_flags)) }
}

/// DSB ISH: completes earlier accesses and TLBIs for the inner shareable domain (Arm ARM, "Ordering
/// and completion of TLB maintenance instructions").
#[inline(always)]
pub fn dsb_ish() {
    // SAFETY: a barrier.
    unsafe { asm!("dsb ish", options(nostack, preserves_flags)) }
}

#[inline(always)]
pub fn dsb_sy() {
    // SAFETY: a barrier.
    unsafe { asm!("dsb sy", options(nostack, preserves_flags)) }
}

/// ISB: discards what this CPU has fetched or translated ahead (Arm ARM, "Instruction
/// Synchronization Barrier (ISB)").
#[inline(always)]
pub fn isb() {
    // SAFETY: a barrier.
    unsafe { asm!("isb", options(nostack, preserves_flags)) }
}

/// Returns VA\[55:12\], any level, ASID 0 (ignored by the all-ASID forms).
const fn va_operand(va: usize) -> u64 {
    va as u64 >> 12 & ((1 << 44) - 1)
}

macro_rules! tlbi {
    ($(#[$doc:meta])* $name:ident, $instruction:literal) => {
        $(#[$doc])*
        #[inline(always)]
        fn $name(va: usize) {
            tlbi!(@operand $instruction, va_operand(va));
        }
    };
    (@operand $instruction:literal, $operand:expr) => {
        // SAFETY: what is removed is walked again.
        unsafe { asm!(concat!("tlbi ", $instruction, ", {}"), in(reg) $operand, options(nostack, preserves_flags)) }
    };
}

tlbi! {
    /// Last level, all ASIDs, inner shareable.
    tlbi_vaale1is, "vaale1is"
}
tlbi! {
    /// All levels, all ASIDs, inner shareable.
    tlbi_vaae1is, "vaae1is"
}

/// All of EL1&0, inner shareable.
#[inline(always)]
fn tlbi_vmalle1is() {
    // SAFETY: as by VA.
    unsafe { asm!("tlbi vmalle1is", options(nostack, preserves_flags)) }
}

/// FEAT_TLBIRANGE; SYS, as Armv8.0 assemblers lack the name.
#[inline(always)]
fn tlbi_rvaale1is(operand: u64) {
    // SAFETY: as by VA.
    unsafe { asm!("sys #0, c8, c2, #7, {}", in(reg) operand, options(nostack, preserves_flags)) }
}

/// FEAT_TLBIRANGE.
#[inline(always)]
fn tlbi_rvaae1is(operand: u64) {
    // SAFETY: as by VA.
    unsafe { asm!("sys #0, c8, c2, #3, {}", in(reg) operand, options(nostack, preserves_flags)) }
}

/// Of all CPUs.
static REPEAT_TLBI: AtomicBool = AtomicBool::new(false);

pub fn init(errata: Errata) {
    REPEAT_TLBI.store(errata.repeat_tlbi, Ordering::Relaxed);
}

#[must_use]
pub fn repeats_tlbi() -> bool {
    REPEAT_TLBI.load(Ordering::Relaxed)
}

/// Invalidates the page at `va`, outside the engine's trees, whose descriptor was made invalid.
/// Before [`init`] there is no repeat, as no other CPU has run.
pub fn flush_page(va: usize) {
    flush::page(&KernelMmu::WITHOUT_RANGES, VirtAddr(va as u64), repeats_tlbi());
}

pub fn flush_all() {
    flush::all(&KernelMmu::WITHOUT_RANGES, repeats_tlbi());
}

/// Empties the TLB and the instruction cache of this CPU alone.
pub fn forget_translations_and_fetches() {
    // SAFETY: what is removed is walked, or fetched, again.
    unsafe {
        asm!(
            "ic iallu",
            "tlbi vmalle1",
            "dsb nsh",
            options(nostack, preserves_flags)
        )
    };
    isb();
}

/// Disables walks of the lower half on this CPU and empties its TLB.
pub fn disable_ttbr0() {
    TCR_EL1.modify(TCR_EL1::EPD0::DisableTTBR0Walks);
    TTBR0_EL1.set(0);
    // In effect before the TLBI: no walk caches anything after it.
    isb();
    // Everything, as the identity map was global; only this CPU's.
    // SAFETY: what is removed is walked again.
    unsafe { asm!("tlbi vmalle1", "dsb nsh", options(nostack, preserves_flags)) };
    isb();
}

global_asm!(include_str!("mmu/replace_ttbr1.s"));

/// Makes the root table at `root` this CPU's upper half.
///
/// Old and new tables may map an address with different leaf sizes, so this is a break-before-make
/// of everything (rule 3), in the identity map, with walks of the upper half disabled. TTBR0 is off
/// afterwards.
///
/// # Safety
/// The new tables map code, stack, data and vectors in use at the same addresses to the same
/// memory, and a DSB ISHST has completed them. Nothing that only the old tables map is used any
/// more.
pub unsafe fn replace_ttbr1(ttbr0_identity: u64, image_pa: impl Fn(usize) -> u64, root: u64) {
    unsafe extern "C" {
        fn replace_ttbr1_identity(root: u64, tcr_break: u64, tcr: u64);
    }
    // No exception can be taken without an upper half.
    let _masked = interrupts::mask_all();
    TTBR0_EL1.set(ttbr0_identity);
    let tcr = TCR_EL1.get() & !TCR_EL1::EPD0::SET.value;
    TCR_EL1.set(tcr);
    isb();
    let identity = image_pa(replace_ttbr1_identity as *const () as usize) as usize;
    // SAFETY: the same function in the identity map; it needs no relocation.
    let replace: unsafe extern "C" fn(u64, u64, u64) = unsafe { core::mem::transmute(identity) };
    // SAFETY: the caller's promise, and the identity map is on.
    unsafe { replace(ttbr(root), tcr | TCR_EL1::EPD1::SET.value, tcr) };
    disable_ttbr0();
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    Read,
    Write,
}

/// PAR_EL1 of a successful AT.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Translation {
    pub pa: u64,
    pub attribute: u8,
    /// SH: 0b00 non-shareable, 0b10 outer (always for Device and non-cacheable), 0b11 inner.
    pub shareability: u8,
    pub par: u64,
}

impl fmt::Debug for Translation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "PA {:#x} attribute {:#04x} SH {:#04b}",
            self.pa, self.attribute, self.shareability
        )
    }
}

/// PAR_EL1 of an AT that aborted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Abort {
    pub status: FaultStatus,
    pub par: u64,
}

impl fmt::Debug for Abort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status)
    }
}

/// AT S1E1R.
///
/// # Errors
/// As [`translate`].
pub fn at_s1e1r(va: usize) -> Result<Translation, Abort> {
    translate(va, Access::Read)
}

/// AT S1E1W.
///
/// # Errors
/// As [`translate`].
pub fn at_s1e1w(va: usize) -> Result<Translation, Abort> {
    translate(va, Access::Write)
}

/// Asks the MMU to translate `va`, interrupts masked so that no handler's AT overwrites PAR_EL1.
///
/// DMB SY around its read: Cortex-A77 (r0p0 to r1p0, erratum 1508412) can deadlock on a load from
/// Device or non-cacheable memory beside it. Store-exclusives are firmware's part.
///
/// # Errors
/// The fault of such an access at EL1.
pub fn translate(va: usize, access: Access) -> Result<Translation, Abort> {
    let par: u64;
    {
        let _masked = interrupts::mask_briefly();
        // ISB: the result is visible (Arm ARM, "Address translation instructions").
        match access {
            Access::Read => {
                // SAFETY: AT affects only PAR_EL1, faults included.
                unsafe {
                    asm!("at s1e1r, {va}", "isb", "dmb sy", "mrs {par}, par_el1", "dmb sy", va = in(reg) va, par = out(reg) par, options(nostack, preserves_flags))
                }
            }
            Access::Write => {
                // SAFETY: as above.
                unsafe {
                    asm!("at s1e1w, {va}", "isb", "dmb sy", "mrs {par}, par_el1", "dmb sy", va = in(reg) va, par = out(reg) par, options(nostack, preserves_flags))
                }
            }
        }
    }
    decode_par(va, par)
}

fn decode_par(va: usize, par: u64) -> Result<Translation, Abort> {
    if par & 1 == 0 {
        Ok(Translation {
            pa: par & 0x000f_ffff_ffff_f000 | va as u64 & 0xfff,
            attribute: (par >> 56) as u8,
            shareability: (par >> 7 & 0b11) as u8,
            par,
        })
    } else {
        Err(Abort {
            status: FaultStatus::from_fsc((par >> 1 & 0x3f) as u8),
            par,
        })
    }
}

#[derive(Clone, Copy, Debug)]
pub struct KernelMmu {
    tlbi_range: bool,
}

impl KernelMmu {
    const WITHOUT_RANGES: Self = Self { tlbi_range: false };

    #[must_use]
    pub fn new(features: &Features) -> Self {
        Self {
            tlbi_range: features.tlbi_range,
        }
    }
}

impl Mmu for KernelMmu {
    #[inline(always)]
    fn dsb_ishst(&self) {
        dsb_ishst();
    }
    #[inline(always)]
    fn dsb_ish(&self) {
        dsb_ish();
    }
    #[inline(always)]
    fn isb(&self) {
        isb();
    }
    #[inline(always)]
    fn tlbi_vaale1is(&self, va: VirtAddr) {
        tlbi_vaale1is(va.0 as usize);
    }
    #[inline(always)]
    fn tlbi_vaae1is(&self, va: VirtAddr) {
        tlbi_vaae1is(va.0 as usize);
    }
    #[inline(always)]
    fn tlbi_rvaale1is(&self, range: TlbiRange) {
        tlbi_rvaale1is(range.operand::<Granule>());
    }
    #[inline(always)]
    fn tlbi_rvaae1is(&self, range: TlbiRange) {
        tlbi_rvaae1is(range.operand::<Granule>());
    }
    #[inline(always)]
    fn tlbi_vmalle1is(&self) {
        tlbi_vmalle1is();
    }
    #[inline(always)]
    fn has_tlbi_range(&self) -> bool {
        self.tlbi_range
    }
    #[inline(always)]
    fn masked<R>(&self, f: impl FnOnce() -> R) -> R {
        let _masked = interrupts::mask();
        f()
    }
}
