//! What the kernel runs once it is up.

use crate::BootInfo;
use crate::arch::features::Features;
use crate::bootargs::Options;

/// What the kernel runs once it is up, on the first CPU and its boot stack. The image chooses it,
/// as Linux's command line chooses an `init`. Its value is what the boot arguments say to it.
pub trait Init: Options {
    /// Runs. The kernel powers the machine off when it returns.
    fn run(self, info: &'static BootInfo, features: &Features);
}

/// Nothing: the kernel has reported what the machine is and what it has mapped, and powers off.
impl Init for () {
    fn run(self, _: &'static BootInfo, _: &Features) {
        crate::println!("vmwalk: done");
    }
}
