//! Identification registers, recorded by each CPU before anything depends on them (DESIGN rule 13).

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

use aarch64_cpu::registers::{
    ID_AA64DFR0_EL1, ID_AA64ISAR0_EL1, ID_AA64MMFR0_EL1, ID_AA64MMFR1_EL1, ID_AA64MMFR2_EL1, ID_AA64PFR0_EL1,
    MIDR_EL1, Readable,
};
use arch_policy::identity::NR_REGISTERS;
pub use arch_policy::identity::{Identity, Override, Register};

use super::percpu::nr_cpus;
use crate::per_cpu;

per_cpu! {
    /// MIDR_EL1 is written last; 0 before.
    static IDENTITY: [AtomicU64; NR_REGISTERS] = [const { AtomicU64::new(0) }; NR_REGISTERS];
}

#[must_use]
pub fn read() -> Identity {
    let dfr0 = ID_AA64DFR0_EL1.get();
    // PMUVer 0: none; 0xf: not Arm's.
    let pmcr = if matches!(dfr0 >> 8 & 0xf, 0 | 0xf) {
        0
    } else {
        let pmcr: u64;
        // SAFETY: a PMUv3 exists, and EL2 does not trap it.
        unsafe { asm!("mrs {}, pmcr_el0", out(reg) pmcr, options(nostack, nomem, preserves_flags)) };
        pmcr
    };
    let (ctr, dczid): (u64, u64);
    // SAFETY: identification register.
    unsafe { asm!("mrs {}, ctr_el0", out(reg) ctr, options(nostack, nomem, preserves_flags)) };
    // SAFETY: as above.
    unsafe { asm!("mrs {}, dczid_el0", out(reg) dczid, options(nostack, nomem, preserves_flags)) };
    let value = |register| match register {
        Register::Midr => MIDR_EL1.get(),
        Register::Pfr0 => ID_AA64PFR0_EL1.get(),
        Register::Dfr0 => dfr0,
        Register::Isar0 => ID_AA64ISAR0_EL1.get(),
        Register::Mmfr0 => ID_AA64MMFR0_EL1.get(),
        Register::Mmfr1 => ID_AA64MMFR1_EL1.get(),
        Register::Mmfr2 => ID_AA64MMFR2_EL1.get(),
        Register::Ctr => ctr,
        Register::Dczid => dczid,
        Register::Pmcr => pmcr,
    };
    Register::ALL
        .iter()
        .fold(Identity::default(), |identity, register| {
            identity.with(*register, value(*register))
        })
}

pub fn record(index: usize) {
    let identity = read();
    let place = IDENTITY.of(index);
    // Release: a reader of MIDR_EL1 sees the others.
    for register in Register::ALL.iter().rev() {
        place[*register as usize].store(identity.get(*register), Ordering::Release);
    }
}

#[must_use]
pub fn of_cpu(index: usize) -> Option<Identity> {
    let place = IDENTITY.get(index)?;
    let midr = place[Register::Midr as usize].load(Ordering::Acquire);
    (midr != 0).then(|| Identity(core::array::from_fn(|i| place[i].load(Ordering::Relaxed))))
}

/// Returns what CPUs recorded, with overrides.
pub fn cpus(overrides: &[Option<Override>]) -> impl Iterator<Item = (usize, Identity)> {
    (0..nr_cpus()).filter_map(move |cpu| {
        let overrides = overrides.iter().copied().flatten();
        Some((cpu, Override::applied(overrides, cpu, of_cpu(cpu)?)))
    })
}

const _: () = assert!(Register::Midr as usize == 0, "written last");
