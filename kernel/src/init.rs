use crate::BootInfo;
use crate::arch::features::Features;
use crate::bootargs::Options;

/// What the kernel runs once it is up, on the boot stack, with its boot arguments.
pub trait Init: Options {
    /// Runs; the kernel then powers off.
    fn run(self, info: &'static BootInfo, features: &Features);
}

/// Only the boot log.
impl Init for () {
    fn run(self, _: &'static BootInfo, _: &Features) {
        crate::println!("vmwalk: done");
    }
}
