use core::sync::atomic::{AtomicU8, Ordering};

use smccc::{Hvc, Smc, psci};

pub use machine::device_tree::Conduit;
pub use smccc::psci::error::Error;

use super::{early_console, probe};

/// 0, or a [`Conduit`].
static CONDUIT: AtomicU8 = AtomicU8::new(0);

pub fn set_conduit(conduit: Conduit) {
    CONDUIT.store(conduit as u8, Ordering::Relaxed);
}

#[must_use]
pub fn conduit() -> Option<Conduit> {
    match CONDUIT.load(Ordering::Relaxed) {
        1 => Some(Conduit::Hvc),
        2 => Some(Conduit::Smc),
        _ => None,
    }
}

/// # Errors
/// What firmware answered.
pub fn cpu_on(conduit: Conduit, mpidr: u64, entry: u64, context: u64) -> Result<(), Error> {
    match conduit {
        Conduit::Hvc => psci::cpu_on::<Hvc>(mpidr, entry, context),
        Conduit::Smc => psci::cpu_on::<Smc>(mpidr, entry, context),
    }
}

/// Returns if firmware refuses.
pub fn cpu_off(conduit: Conduit) {
    let _ = match conduit {
        Conduit::Hvc => psci::cpu_off::<Hvc>(),
        Conduit::Smc => psci::cpu_off::<Smc>(),
    };
}

#[must_use]
pub fn is_off(conduit: Conduit, mpidr: u64) -> bool {
    let state = match conduit {
        Conduit::Hvc => psci::affinity_info::<Hvc>(mpidr, psci::LowestAffinityLevel::All),
        Conduit::Smc => psci::affinity_info::<Smc>(mpidr, psci::LowestAffinityLevel::All),
    };
    state == Ok(psci::AffinityState::Off)
}

/// Turns the machine off; without firmware or a console only stops this CPU, for a debugger.
pub fn system_off() -> ! {
    early_console::flush();
    if early_console::device().is_none() {
        park();
    }
    // Refused, or unknown: try both, under the exception table.
    let _ = match conduit() {
        Some(Conduit::Hvc) => psci::system_off::<Hvc>(),
        Some(Conduit::Smc) => psci::system_off::<Smc>(),
        None => Ok(()),
    };
    probe::try_system_off();
    park()
}

pub fn park() -> ! {
    let _masked = super::interrupts::mask();
    loop {
        aarch64_cpu::asm::wfe();
    }
}
