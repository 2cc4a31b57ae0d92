//! What runs in Rust before the MMU is on: it builds the first tables and computes the register
//! values they need.
//!
//! The rules of the crate's module comment hold here. Also, with the MMU off all data accesses are
//! Device-nGnRnE: they must be aligned (the target has `strict-align`), and exclusives are not
//! used.

pub mod el2;
mod tables;

pub use tables::fixed_tables;

use core::arch::asm;
use core::ffi::CStr;
use core::ptr::read_volatile;

use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::{ID_AA64MMFR0_EL1, ID_AA64MMFR2_EL1, Readable};
use kernel::arch::cpu;
use kernel::mm::layout::{DTB_MAX_SIZE, Granule, PAGE_SHIFT};
use paging::Granule as _;

/// The PL011 of QEMU's virt machine, for last words before the device tree is read.
pub const GUESSED_PL011: usize = 0x0900_0000;

/// What is known before the MMU is on, and what turns it on.
#[repr(C)]
pub struct Early {
    /// The identity map of the first 2 MiB of the image.
    pub ttbr0: u64,
    /// Image window and fixed slots.
    pub ttbr1: u64,
    pub tcr: u64,
    pub mair: u64,
    /// MMU on.
    pub sctlr: u64,
    /// Where the image was loaded.
    pub image_pa: u64,
    pub dtb_pa: u64,
    /// As its header says.
    pub dtb_size: u64,
    /// Of entry.
    pub entry_el: u64,
}

/// Written once by the first CPU with the MMU off.
pub static mut EARLY: Early = Early {
    ttbr0: 0,
    ttbr1: 0,
    tcr: 0,
    mair: 0,
    sctlr: 0,
    image_pa: 0,
    dtb_pa: 0,
    dtb_size: 0,
    entry_el: 0,
};

unsafe extern "C" {
    /// Says why on the guessed UART and ends. Uses no stack.
    fn early_fail(reason: *const core::ffi::c_char) -> !;
}

/// The caller names `reason` directly: its address is then PC-relative.
#[inline(always)]
fn fail(reason: &'static CStr) -> ! {
    // SAFETY: `reason` ends with NUL, and the routine has no other precondition.
    unsafe { early_fail(reason.as_ptr()) }
}

/// Checks the device tree's header, builds the first tables, and returns where [`EARLY`] physically
/// is.
///
/// # Safety
///
/// Called once, by the first CPU, at EL1 with the MMU off and .bss zeroed. `image_pa` is where the
/// image was loaded.
#[unsafe(link_section = ".boot.text")]
pub unsafe extern "C" fn early_setup(dtb_pa: u64, entry_el: u64, image_pa: u64) -> *const Early {
    check_granule();
    // Walks of TTBR0 begin with these bits of the address.
    if (image_pa + (16 << 20)) >> Granule::VA_BITS != 0 {
        fail(c"the image lies at a physical address of more bits than this kernel has in its virtual ones");
    }
    let dtb_size = check_device_tree(dtb_pa);
    // SAFETY: the caller's promise: called once, MMU off, tables zeroed with .bss.
    let (ttbr0, ttbr1) = unsafe { tables::build(image_pa, dtb_pa, dtb_size) };
    let early = &raw mut EARLY;
    // SAFETY: nothing else reads or writes it before the MMU is on.
    unsafe {
        early.write(Early {
            ttbr0,
            ttbr1,
            tcr: cpu::tcr_el1(),
            mair: cpu::MAIR_EL1,
            sctlr: cpu::SCTLR_EL1_MMU_ON,
            image_pa,
            dtb_pa,
            dtb_size,
            entry_el,
        });
    }
    early
}

/// Ends the start on a CPU that lacks the granule of this image, or its bits of address.
#[inline(always)]
fn check_granule() {
    // TGran4 and TGran64 are signed, and 0 or 1 where there is support. TGran16 is 0 for none.
    match PAGE_SHIFT {
        14 if ID_AA64MMFR0_EL1.read(ID_AA64MMFR0_EL1::TGran16) == 0 => {
            fail(c"this CPU has no 16 KiB granule")
        }
        16 if ID_AA64MMFR0_EL1.read(ID_AA64MMFR0_EL1::TGran64) == 0xf => {
            fail(c"this CPU has no 64 KiB granule")
        }
        12 if ID_AA64MMFR0_EL1.read(ID_AA64MMFR0_EL1::TGran4) == 0xf => {
            fail(c"this CPU has no 4 KiB granule")
        }
        _ => {}
    }
    if Granule::PA_BITS == 48 {
        return;
    }
    // TGran4 1 and TGran16 2: FEAT_LPA2. VARange 1: FEAT_LVA, PARange 6: FEAT_LPA.
    match PAGE_SHIFT {
        14 if ID_AA64MMFR0_EL1.read(ID_AA64MMFR0_EL1::TGran16) < 2 => {
            fail(c"this CPU has no 52-bit addresses with 16 KiB pages (FEAT_LPA2)")
        }
        16 if ID_AA64MMFR2_EL1.get() >> 16 & 0xf == 0
            || ID_AA64MMFR0_EL1.read(ID_AA64MMFR0_EL1::PARange) < 6 =>
        {
            fail(c"this CPU has no 52-bit addresses with 64 KiB pages (FEAT_LVA, FEAT_LPA)")
        }
        12 if ID_AA64MMFR0_EL1.read(ID_AA64MMFR0_EL1::TGran4) == 0 => {
            fail(c"this CPU has no 52-bit addresses with 4 KiB pages (FEAT_LPA2)")
        }
        _ => {}
    }
}

const HEADER_SIZE: u32 = 40;

/// Writes the lines of the header back to memory, where loads with the MMU off look: the boot
/// protocol has the loader clean the image only.
/// mended through a cache may be in memory as it was before.
#[inline(always)]
fn clean_header(dtb_pa: u64) {
    let ctr: u64;
    // SAFETY: reading an identification register.
    unsafe { asm!("mrs {}, ctr_el0", out(reg) ctr, options(nostack, nomem, preserves_flags)) };
    let line = 4 << (ctr >> 16 & 0xf); // DminLine: log2 of words
    let end = dtb_pa.wrapping_add(HEADER_SIZE as u64);
    let mut at = dtb_pa & !(line - 1_u64);
    while at < end {
        // SAFETY: changes no memory that a coherent observer could read differently.
        unsafe { asm!("dc civac, {}", in(reg) at, options(nostack, preserves_flags)) };
        at = at.wrapping_add(line);
    }
    barrier::dsb(barrier::SY);
}

#[inline(always)]
fn header_word(dtb_pa: u64, index: usize) -> u32 {
    let word = (dtb_pa as *const u32).wrapping_add(index);
    // SAFETY: aligned; the boot protocol says that a device tree is there. Where nothing is, the
    // early vectors end the start.
    u32::from_be(unsafe { read_volatile(word) })
}

/// Checks the header (Devicetree Specification, "Flattened Devicetree Format"), and returns the
/// size.
#[inline(always)]
fn check_device_tree(dtb_pa: u64) -> u64 {
    const MAGIC: u32 = 0xd00d_feed;
    if dtb_pa == 0 {
        fail(c"no device tree: x0 is 0, as where an ELF file is loaded; load the flat image");
    }
    if dtb_pa & 7 != 0 {
        fail(c"the device tree is not 8-byte aligned");
    }
    if dtb_pa >> Granule::PA_BITS != 0 {
        fail(c"the device tree is beyond the physical addresses of this image");
    }
    clean_header(dtb_pa);
    if header_word(dtb_pa, 0) != MAGIC {
        fail(c"what x0 points to is not a device tree (bad magic)");
    }
    let size = header_word(dtb_pa, 1);
    if size < HEADER_SIZE {
        fail(c"the device tree is shorter than its header");
    }
    if size as usize > DTB_MAX_SIZE {
        fail(c"the device tree is larger than 2 MiB");
    }
    let struct_offset = header_word(dtb_pa, 2);
    let strings_offset = header_word(dtb_pa, 3);
    let reserve_offset = header_word(dtb_pa, 4);
    if struct_offset >= size || strings_offset > size || reserve_offset >= size {
        fail(c"the device tree's blocks lie outside of it");
    }
    u64::from(size)
}
