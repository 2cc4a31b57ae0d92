use crate::BootInfo;
use crate::arch::features::Features;
use crate::bootargs::Options;

/// What the kernel runs once it is up, on the boot CPU and its boot stack; chosen by the image. The
/// value holds its boot arguments.
pub trait Init: Options {
    /// Runs; then the kernel powers off.
    fn run(self, info: &'static BootInfo, features: &Features);
}

/// Nothing: powers off after the boot log.
impl Init for () {
    fn run(self, _: &'static BootInfo, _: &Features) {
        crate::println!("vmwalk: done");
    }
}
