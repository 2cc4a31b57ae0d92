//! Self-tests, benches, replay of traces, and a shell.
#![no_std]

extern crate alloc;

mod bench;
mod glob;
mod handles;
mod measure;
mod options;
mod replay;
mod selftest;
mod shell;
mod test_vmalloc;
mod wrong_walkers;

use core::fmt;

use kernel::arch::features::Features;
use kernel::bootargs::{self, Argument, BootArgs, LinearLeaves, Rodata};
use kernel::{BootInfo, Init, print};
use options::{ARGUMENTS, CountedBy, Mode, Options, Planted, Selection};

static OPTIONS: spin::Once<Options<'static>> = spin::Once::new();

/// # Panics
/// Before the harness [runs](Init::run).
fn options() -> &'static Options<'static> {
    match OPTIONS.get() {
        Some(options) => options,
        None => panic!("the harness does not run yet"),
    }
}

pub type Harness = Options<'static>;

impl bootargs::Options for Harness {
    const ARGUMENTS: &'static [Argument<Self>] = ARGUMENTS;

    type Refusal = Refusal;

    fn check(&mut self, args: &mut BootArgs) -> Result<(), Refusal> {
        if let Selection::Globs(list) = self.selftest
            && let Some(glob) = list.split(',').find(|glob| !selftest::selects(glob))
        {
            return Err(Refusal::NoTest(glob));
        }
        if !bench::knows_walker(self.bench_walkers, self.planted == Some(Planted::WrongWalker)) {
            return Err(Refusal::NoWalker(self.bench_walkers, self.planted));
        }
        match self.planted {
            // Nothing else may empty the TLB.
            Some(Planted::SkipTlbi | Planted::StalePermission) => args.linear = LinearLeaves::Pages,
            Some(Planted::WritableText) => args.rodata = Rodata::On,
            _ => {}
        }
        args.masked |= self.mode == Mode::Selftest;
        args.timed = matches!(self.mode, Mode::Bench | Mode::Shell) && self.counters == CountedBy::Pmu;
        Ok(())
    }
}

impl Init for Harness {
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

#[derive(Clone, Copy, Debug)]
pub enum Refusal {
    NoTest(&'static str),
    NoWalker(&'static str, Option<Planted>),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTest(glob) => write!(
                f,
                "`selftest`: no test has a name that `{glob}` matches (selftest=list prints all)"
            ),
            Self::NoWalker(glob, planted) => {
                write!(f, "`bench.walkers={glob}`: expected none, or a glob over")?;
                let mut result = Ok(());
                bench::for_each_name(*planted == Some(Planted::WrongWalker), |name| {
                    result = result.and_then(|()| write!(f, " {name}"));
                });
                result
            }
        }
    }
}
