//! What looks at the vmwalk kernel from the outside, once it is up: self-tests, benches, the replay
//! of traces, and a shell. The kernel knows none of it.
#![no_std]

extern crate alloc;

pub mod bench;
mod glob;
mod handles;
mod options;
mod replay;
mod selftest;
mod shell;

use kernel::arch::features::Features;
use kernel::bootargs::{Argument, BootArgs, LinearLeaves, Rodata};
use kernel::{BootInfo, Init, print};
use options::{ARGUMENTS, Mode, Options, Planted, Refusal};

static OPTIONS: spin::Once<Options<'static>> = spin::Once::new();

/// Returns what the boot arguments of the harness say.
///
/// # Panics
/// Before it [runs](Init::run).
fn options() -> &'static Options<'static> {
    match OPTIONS.get() {
        Some(options) => options,
        None => panic!("the harness does not run yet"),
    }
}

/// All of it. `mode=` says what runs.
pub type Harness = Options<'static>;

impl Init for Harness {
    const ARGUMENTS: &'static [Argument<Self>] = ARGUMENTS;

    type Refusal = Refusal;

    fn check(&mut self, args: &mut BootArgs) -> Result<(), Refusal> {
        self.names_exist()?;
        match self.planted {
            // So that nothing else empties the TLB.
            Some(Planted::SkipTlbi | Planted::StalePermission) => args.linear = LinearLeaves::Pages,
            Some(Planted::WritableText) => args.rodata = Rodata::On,
            _ => {}
        }
        Ok(())
    }

    fn run(self, info: &'static BootInfo, features: &Features) {
        let options = OPTIONS.call_once(|| self);
        if options.ptdump {
            shell::dump_all();
        }
        match options.mode {
            Mode::Selftest => selftest::run(info, options, features),
            Mode::Shell => shell::run(info, options, features),
            Mode::Bench => {
                if let Err(error) = bench::run(options, features) {
                    kernel::fail(format_args!("{error}"));
                }
            }
            Mode::Lines => {
                bench::lines::run(options);
                print!("vmwalk: done\n");
            }
            Mode::Replay => {
                if let Err(error) = replay::run(info, options, features) {
                    kernel::fail(format_args!("{error}"));
                }
            }
        }
    }
}
