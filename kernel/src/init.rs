//! What the kernel runs once it is up.

use core::fmt;

use crate::BootInfo;
use crate::arch::features::Features;
use crate::bootargs::{Argument, BootArgs};

/// What the kernel runs once it is up, on the first CPU and its boot stack. The image chooses it,
/// as Linux's command line chooses an `init`. Its value is what the boot arguments say to it.
pub trait Init: Default + 'static {
    /// The boot arguments that are its own.
    const ARGUMENTS: &'static [Argument<Self>];

    /// Why it refuses the boot arguments: the name or all of one, between backquotes, and more.
    type Refusal: fmt::Display;

    /// Looks at all arguments once they are read, and may change how the kernel sets itself up.
    ///
    /// # Errors
    /// They do not go together, or name something that is not there.
    fn check(&mut self, args: &mut BootArgs) -> Result<(), Self::Refusal>;

    /// Runs. The kernel powers the machine off when it returns.
    fn run(self, info: &'static BootInfo, features: &Features);
}

/// Nothing: the kernel reports what the machine is and what it has mapped, and powers off.
impl Init for () {
    const ARGUMENTS: &'static [Argument<Self>] = &[];

    type Refusal = core::convert::Infallible;

    fn check(&mut self, _: &mut BootArgs) -> Result<(), Self::Refusal> {
        Ok(())
    }

    fn run(self, _: &'static BootInfo, _: &Features) {
        crate::println!("vmwalk: done");
    }
}
