//! Barriers, TLB maintenance and address translation instructions, named as the architecture names
//! them, and [`KernelMmu`], which gives them to the engine.
//!
//! Each is one instruction, and orders nothing but what it is defined to order: which barrier goes
//! where is the engine's business (DESIGN rules 2 to 5). None is marked as free of memory effects,
//! so the compiler moves no access across them.

use core::arch::{asm, global_asm};
use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};

use aarch64_cpu::registers::{ReadWriteable, Readable, TCR_EL1, TTBR0_EL1, Writeable};
use arch_policy::flush;
use paging::{Mmu, TlbiRange, VirtAddr};

use super::errata::Errata;
use super::features::Features;
use super::interrupts;
use super::syndrome::FaultStatus;
use crate::layout::Granule;

/// DSB ISHST: earlier stores are complete for the inner shareable domain, its table walkers
/// included. Arm ARM, "Data Synchronization Barrier (DSB)"; "Ordering and completion of translation
/// table walks".
#[inline(always)]
pub fn dsb_ishst() {
    // SAFETY: a barrier.
    unsafe { asm!("dsb ishst", options(nostack, preserves_flags)) }
}

/// DSB ISH: earlier accesses and TLB maintenance are complete for the inner shareable domain. Arm
/// ARM, "TLB maintenance instructions", "Ordering and completion of TLB maintenance instructions".
#[inline(always)]
pub fn dsb_ish() {
    // SAFETY: a barrier.
    unsafe { asm!("dsb ish", options(nostack, preserves_flags)) }
}

/// DSB SY.
#[inline(always)]
pub fn dsb_sy() {
    // SAFETY: a barrier.
    unsafe { asm!("dsb sy", options(nostack, preserves_flags)) }
}

/// ISB: what this CPU has fetched or translated ahead is discarded. Arm ARM, "Instruction
/// Synchronization Barrier (ISB)".
#[inline(always)]
pub fn isb() {
    // SAFETY: a barrier.
    unsafe { asm!("isb", options(nostack, preserves_flags)) }
}

/// Returns the operand of a TLBI by VA: VA\[55:12\], any level, ASID 0 (ignored by the all-ASID
/// forms).
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
        // SAFETY: removes cached translations; what is removed is walked again from the tables.
        unsafe { asm!(concat!("tlbi ", $instruction, ", {}"), in(reg) $operand, options(nostack, preserves_flags)) }
    };
}

tlbi! {
    /// TLBI VAALE1IS: last-level entries for `va`, all ASIDs, inner shareable.
    tlbi_vaale1is, "vaale1is"
}
tlbi! {
    /// TLBI VAAE1IS: entries of all levels for `va`, all ASIDs, inner shareable.
    tlbi_vaae1is, "vaae1is"
}

/// TLBI VMALLE1IS: all entries of EL1&0, inner shareable.
#[inline(always)]
fn tlbi_vmalle1is() {
    // SAFETY: as for the forms by VA.
    unsafe { asm!("tlbi vmalle1is", options(nostack, preserves_flags)) }
}

/// TLBI RVAALE1IS with a ready operand. FEAT_TLBIRANGE only; written as SYS, since an assembler for
/// Armv8.0 has no name for it.
#[inline(always)]
fn tlbi_rvaale1is(operand: u64) {
    // SAFETY: as for the forms by VA.
    unsafe { asm!("sys #0, c8, c2, #7, {}", in(reg) operand, options(nostack, preserves_flags)) }
}

/// TLBI RVAAE1IS with a ready operand. FEAT_TLBIRANGE only.
#[inline(always)]
fn tlbi_rvaae1is(operand: u64) {
    // SAFETY: as for the forms by VA.
    unsafe { asm!("sys #0, c8, c2, #3, {}", in(reg) operand, options(nostack, preserves_flags)) }
}

/// [`Errata::repeat_tlbi`] of all CPUs.
static REPEAT_TLBI: AtomicBool = AtomicBool::new(false);

/// Takes note of what TLBIs need outside of the engine's trees.
pub fn init(errata: Errata) {
    REPEAT_TLBI.store(errata.repeat_tlbi, Ordering::Relaxed);
}

/// Returns whether each is repeated.
#[must_use]
pub fn repeats_tlbi() -> bool {
    REPEAT_TLBI.load(Ordering::Relaxed)
}

/// Completes the stores that made the descriptor of the page at `va` invalid, and removes what TLBs
/// and walk caches hold for it, on every CPU.
///
/// For what is no engine's tree. Before [`init`] no TLBI is repeated: no other CPU has run.
pub fn flush_page(va: usize) {
    flush::page(&KernelMmu::WITHOUT_RANGES, VirtAddr(va as u64), repeats_tlbi());
}

/// The same for everything that was made invalid.
pub fn flush_all() {
    flush::all(&KernelMmu::WITHOUT_RANGES, repeats_tlbi());
}

/// Turns TTBR0 off on this CPU: walks of the lower half fault (TCR_EL1.EPD0), and what it had
/// cached is gone.
pub fn disable_ttbr0() {
    TCR_EL1.modify(TCR_EL1::EPD0::DisableTTBR0Walks);
    TTBR0_EL1.set(0);
    // In effect before the invalidation, so that no walk caches anything after it.
    isb();
    // The identity map was global, so everything is invalidated, on this CPU only: each turns off
    // its own. SAFETY: removes cached translations; what is removed is walked again from the
    // tables.
    unsafe { asm!("tlbi vmalle1", "dsb nsh", options(nostack, preserves_flags)) };
    isb();
}

global_asm!(include_str!("mmu/replace_ttbr1.s"));

/// Makes `root` (the physical address of a level 0 table) this CPU's upper half.
///
/// The old and the new tables may map the same address with different leaf sizes, so the switch is
/// a break-before-make of everything (rule 3): it runs in the identity map, with walks of the upper
/// half disabled and the TLB emptied in between. TTBR0 is off afterwards.
///
/// # Safety
/// The new tables map the code, stack, data and vectors in use at the same addresses to the same
/// memory, and are complete (DSB ISHST has been done). Nothing that only the old tables map is used
/// any more.
pub unsafe fn replace_ttbr1(ttbr0_identity: u64, image_pa: impl Fn(usize) -> u64, root: u64) {
    unsafe extern "C" {
        fn replace_ttbr1_identity(root: u64, tcr_break: u64, tcr: u64);
    }
    // No exception can be taken while there is no upper half, and none is expected.
    let _masked = interrupts::mask_all();
    TTBR0_EL1.set(ttbr0_identity);
    let tcr = TCR_EL1.get() & !TCR_EL1::EPD0::SET.value;
    TCR_EL1.set(tcr);
    isb();
    let identity = image_pa(replace_ttbr1_identity as *const () as usize) as usize;
    // SAFETY: the same function where the identity map has it; it needs no relocation.
    let replace: unsafe extern "C" fn(u64, u64, u64) = unsafe { core::mem::transmute(identity) };
    // SAFETY: the caller's promise, and the identity map is on.
    unsafe { replace(root, tcr | TCR_EL1::EPD1::SET.value, tcr) };
    disable_ttbr0();
}

/// Which access an address translation instruction checks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// AT S1E1R.
    Read,
    /// AT S1E1W.
    Write,
}

/// What the MMU itself says about an address: PAR_EL1 after an AT that succeeded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Translation {
    /// The output address of `va` itself, page offset included.
    pub pa: u64,
    /// The attribute byte, as MAIR_EL1 has them.
    pub attribute: u8,
    /// SH: 0b00 non-shareable, 0b10 outer, 0b11 inner. Device and Normal non-cacheable memory
    /// always report 0b10.
    pub shareability: u8,
    /// PAR_EL1 as read.
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

/// Why the MMU does not translate an address: PAR_EL1 after an AT that aborted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Abort {
    /// PAR_EL1.FST.
    pub status: FaultStatus,
    /// PAR_EL1 as read.
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
/// What a read at EL1 would fault with.
pub fn at_s1e1r(va: usize) -> Result<Translation, Abort> {
    translate(va, Access::Read)
}

/// AT S1E1W.
///
/// # Errors
/// What a write at EL1 would fault with.
pub fn at_s1e1w(va: usize) -> Result<Translation, Abort> {
    translate(va, Access::Write)
}

/// Asks the MMU for the translation of `va`. Interrupts are masked between the AT and the read of
/// PAR_EL1, so that a handler that uses AT cannot come between.
///
/// DMB SY on both sides of the read, on every CPU: a Cortex-A77 (r0p0 to r1p0, erratum 1508412) can
/// deadlock on a load from Device or non-cacheable memory beside one, be it speculative. What that
/// needs beside store-exclusives is firmware's part.
///
/// # Errors
/// What such an access at EL1 would fault with.
pub fn translate(va: usize, access: Access) -> Result<Translation, Abort> {
    let par: u64;
    {
        let _masked = interrupts::mask_briefly();
        // The ISB makes the result visible to the read (Arm ARM, "Address translation
        // instructions").
        match access {
            Access::Read => {
                // SAFETY: a translation has no effect but on PAR_EL1; a fault on it is reported
                // there.
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

/// Arm ARM, PAR_EL1: F in bit 0; ATTR 63:56, PA 47:12, SH 8:7 or FST 6:1.
fn decode_par(va: usize, par: u64) -> Result<Translation, Abort> {
    if par & 1 == 0 {
        Ok(Translation {
            pa: par & 0x0000_ffff_ffff_f000 | va as u64 & 0xfff,
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

/// The EL1&0 regime of this machine, for the engine.
#[derive(Clone, Copy, Debug)]
pub struct KernelMmu {
    tlbi_range: bool,
}

impl KernelMmu {
    /// TLBIs by VA only.
    const WITHOUT_RANGES: Self = Self { tlbi_range: false };

    /// Returns what `features` has. A repeat that an erratum asks for is the engine's
    /// (`paging::Config`).
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
