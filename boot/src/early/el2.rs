//! From EL2: hands the whole machine to EL1, with nothing trapped, no second stage, and timers and
//! PMU open.

use core::arch::asm;

use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::*;
use arch_policy::el2::e2h_is_res1;
use kernel::arch::cpu::SCTLR_EL1_MMU_OFF;

/// A register that has no accessor. A macro, since the name is part of the instruction.
macro_rules! write_register {
    ($name:literal, $value:expr) => {{
        let value: u64 = $value;
        // SAFETY: a control register of EL2 or below that the caller checked to exist; EL1 does not
        // run yet.
        unsafe { asm!(concat!("msr ", $name, ", {}"), in(reg) value, options(nostack)) }
    }};
}

macro_rules! read_register {
    ($name:literal) => {{
        let value: u64;
        // SAFETY: reading has no side effect.
        unsafe { asm!(concat!("mrs {}, ", $name), out(reg) value, options(nostack, nomem)) };
        value
    }};
}

#[inline(always)]
const fn field(value: u64, shift: u32) -> u64 {
    value >> shift & 0xf
}

/// Writes HCR_EL2, and makes it so for what follows (Arm ARM, HCR_EL2.E2H).
///
/// Erratum AC04_CPU_23 of AmpereOne: the write can corrupt translations of accesses that are under
/// way: DSB before it, ISB behind it.
#[inline(always)]
fn write_hcr_el2(value: u64) {
    // SAFETY: barriers, and a control register of EL2; EL1 does not run yet.
    unsafe { asm!("dsb sy", "msr hcr_el2, {}", "isb", in(reg) value, options(nostack)) }
}

/// Returns whether the name FAR_EL1 reaches FAR_EL2, as it does with HCR_EL2.E2H at 1. Nothing is
/// kept in either yet.
#[inline(always)]
fn far_el1_is_far_el2() -> bool {
    const MARK: u64 = 1 << 12;
    write_register!("far_el2", 0);
    barrier::isb(barrier::SY);
    write_register!("far_el1", MARK);
    // By another name a register is in order only by this.
    barrier::isb(barrier::SY);
    read_register!("far_el2") == MARK
}

/// Gives EL1 the machine to itself. Runs on every CPU, at EL2 with the MMU off.
#[unsafe(link_section = ".boot.text")]
pub extern "C" fn configure_el2() {
    let pfr0 = ID_AA64PFR0_EL1.get();
    let mmfr1 = ID_AA64MMFR1_EL1.get();
    let dfr0 = ID_AA64DFR0_EL1.get();

    // EL1 is AArch64; everything else off: no stage 2, no traps, no routing, and TGE clear. E2H is
    // clear, too, where it can be: the registers below then have their plain EL2 format. What
    // HCR_EL2 reads back as does not say: where E2H is RES1 it may hold what was written, and a
    // hypervisor that nests this EL2 may keep the register in memory.
    let mut e2h = e2h_is_res1(read_register!("s3_0_c0_c7_4")); // ID_AA64MMFR4_EL1
    if !e2h {
        write_hcr_el2(HCR_EL2::RW::EL1IsAarch64.value);
        e2h = far_el1_is_far_el2();
    }
    if e2h {
        write_hcr_el2(HCR_EL2::RW::EL1IsAarch64.value | HCR_EL2::E2H::SET.value);
    }

    // Virtual counter equals physical counter; EL1 may read it and use the physical timer.
    CNTVOFF_EL2.set(0);
    if e2h {
        write_register!("cnthctl_el2", 0b11 << 10); // EL1PCTEN, EL1PTEN
    } else {
        CNTHCTL_EL2.write(CNTHCTL_EL2::EL1PCEN::SET + CNTHCTL_EL2::EL1PCTEN::SET);
    }

    // CPACR_EL1 decides at EL1. Bits 13, 12, 9 and 7:0 are RES1 in the plain format, and bit 8 (TZ)
    // is too where SVE is not implemented.
    if e2h {
        write_register!("cptr_el2", 0b11 << 20 | 0b11 << 16); // FPEN, ZEN
    } else if ID_AA64PFR0_EL1.read(ID_AA64PFR0_EL1::SVE) != 0 {
        CPTR_EL2.set(0x32ff);
    } else {
        CPTR_EL2.set(0x33ff);
    }
    write_register!("hstr_el2", 0);

    // All event counters belong to EL1, none of their registers traps, nor do those of debug. HPMN
    // may not be 0 and has to be what there is (Arm ARM, MDCR_EL2.HPMN). PMUVer 0xf is not Arm's.
    let pmu = field(dfr0, 8);
    let counters = if pmu != 0 && pmu != 0xf {
        read_register!("pmcr_el0") >> 11 & 0x1f
    } else {
        0
    };
    MDCR_EL2.set(counters);

    // VMID 0; EL1 sees the real identity of this CPU.
    VTTBR_EL2.set(0);
    VTCR_EL2.set(0);
    write_register!("vpidr_el2", MIDR_EL1.get());
    VMPIDR_EL2.set(MPIDR_EL1.get());

    // Fine-grained traps would trap even TLBI and AT (FEAT_FGT), and are UNKNOWN out of reset.
    if field(ID_AA64MMFR0_EL1.get(), 56) != 0 {
        HFGRTR_EL2.set(0);
        HFGWTR_EL2.set(0);
        HFGITR_EL2.set(0);
        HDFGRTR_EL2.set(0);
        HDFGWTR_EL2.set(0);
        if field(pfr0, 44) != 0 {
            HAFGRTR_EL2.set(0); // with the activity monitors only
        }
    }
    // FEAT_HCX: so TCR2_EL1 and SCTLR2_EL1 count as 0, regardless of their contents.
    if field(mmfr1, 40) != 0 {
        write_register!("s3_4_c1_c2_2", 0); // HCRX_EL2
    }

    // A GICv3's system registers may be implemented and yet held off by EL3: then SRE reads as 0,
    // and the virtual interface control must not be touched.
    if field(pfr0, 24) != 0 {
        ICC_SRE_EL2.modify(ICC_SRE_EL2::SRE::SET + ICC_SRE_EL2::ENABLE::SET);
        barrier::isb(barrier::SY);
        if ICC_SRE_EL2.is_set(ICC_SRE_EL2::SRE) {
            ICH_HCR_EL2.set(0);
        }
    }

    // With E2H stuck at 1 the plain name means SCTLR_EL2, and the other encoding is the EL1
    // register.
    if e2h {
        write_register!("s3_5_c1_c0_0", SCTLR_EL1_MMU_OFF); // SCTLR_EL12
    } else {
        SCTLR_EL1.set(SCTLR_EL1_MMU_OFF);
    }

    let vectors: u64;
    // SAFETY: an address is computed, PC-relative.
    unsafe {
        asm!("adrp {v}, el2_vectors", "add {v}, {v}, :lo12:el2_vectors", v = out(reg) vectors, options(nostack, nomem));
    }
    VBAR_EL2.set(vectors);
    barrier::isb(barrier::SY);
}
