//! The table of boot arguments.

use core::fmt;

use log::LevelFilter;

use super::{BootArgs, LinearLeaves, Mode, NR_PRETENCES, Planted, ReplayFault, Selection, parse_number};
use crate::arch::errata::Errata;
use crate::arch::identity::{Pretence, Register};
use crate::arch::percpu::MAX_CPUS;
use crate::selftest::shapes;

/// A boot argument.
pub struct Argument {
    /// Its name.
    pub name: &'static str,
    /// Writes what may stand behind the `=`.
    values: fn(&mut fmt::Formatter<'_>) -> fmt::Result,
    /// What it is for.
    what: &'static str,
    /// Notes a value. `None` if it is not understood.
    pub set: for<'a> fn(&mut BootArgs<'a>, &'a str) -> Option<()>,
}

/// How it is written, and what it is for.
impl fmt::Display for Argument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}=", self.name)?;
        (self.values)(f)?;
        write!(f, ": {}", self.what)
    }
}

impl fmt::Debug for Argument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Values by their names.
type Choices<T> = [(&'static str, T)];

const MODES: &Choices<Mode> = &[
    ("selftest", Mode::Selftest),
    ("shell", Mode::Shell),
    ("bench", Mode::Bench),
    ("lines", Mode::Lines),
    ("replay", Mode::Replay),
];

const LEVELS: &Choices<LevelFilter> = &[
    ("off", LevelFilter::Off),
    ("error", LevelFilter::Error),
    ("warn", LevelFilter::Warn),
    ("info", LevelFilter::Info),
    ("debug", LevelFilter::Debug),
    ("trace", LevelFilter::Trace),
];

const LINEAR: &Choices<LinearLeaves> = &[("largest", LinearLeaves::Largest), ("4k", LinearLeaves::Pages)];

const SWITCH: &Choices<bool> = &[("0", false), ("1", true)];

const REPLAY_FAULTS: &Choices<ReplayFault> = &[
    ("data", ReplayFault::Data),
    ("protect", ReplayFault::Protect),
    ("frame", ReplayFault::Frame),
    ("area", ReplayFault::Area),
    ("trace", ReplayFault::Trace),
];

fn names<T>(f: &mut fmt::Formatter<'_>, choices: &Choices<T>) -> fmt::Result {
    let mut separator = "";
    for (name, _) in choices {
        write!(f, "{separator}{name}")?;
        separator = "|";
    }
    Ok(())
}

fn pick<T: Copy>(choices: &Choices<T>, value: &str) -> Option<T> {
    let found = choices.iter().find(|(name, _)| *name == value);
    found.map(|(_, choice)| *choice)
}

/// Returns a number of a range.
fn number(value: &str, least: u64, most: u64) -> Option<u64> {
    parse_number(value).filter(|number| (least..=most).contains(number))
}

fn pretences(list: &str) -> Option<[Option<Pretence>; NR_PRETENCES]> {
    let mut pretences = [None; NR_PRETENCES];
    for (i, text) in list.split(',').enumerate() {
        let (cpu, text) = text.split_once(':')?;
        let (register, value) = text.split_once(':')?;
        *pretences.get_mut(i)? = Some(Pretence {
            cpu: number(cpu, 0, MAX_CPUS as u64 - 1)? as usize,
            register: pick(Register::NAMES, register)?,
            value: parse_number(value)?,
        });
    }
    Some(pretences)
}

fn cases(value: &str) -> Option<u32> {
    let mask = u32::try_from(parse_number(value)?).ok()?;
    (mask != 0 && mask & !shapes::MASK == 0).then_some(mask)
}

/// An argument whose values are names.
macro_rules! choice {
    ($name:literal, $choices:expr, $what:literal, |$args:ident, $chosen:ident| $note:expr) => {
        Argument {
            name: $name,
            values: |f| names(f, $choices),
            what: $what,
            set: |$args, value| {
                let $chosen = pick($choices, value)?;
                $note;
                Some(())
            },
        }
    };
}

/// Any other argument: its values as they are shown, and what reads one.
macro_rules! argument {
    ($name:literal, $values:literal, $what:literal, |$args:ident, $value:ident| $note:expr) => {
        Argument {
            name: $name,
            values: |f| f.write_str($values),
            what: $what,
            set: |$args, $value| {
                $note;
                Some(())
            },
        }
    };
}

/// All arguments but `help`.
pub const ARGUMENTS: &[Argument] = &[
    choice!(
        "mode",
        MODES,
        "what the kernel does when it is up (selftest)",
        |args, mode| { args.mode = mode }
    ),
    argument!(
        "selftest",
        "none|list|GLOB[,GLOB...]",
        "the self-tests that run (all); list prints their names",
        |args, value| args.selftest = Selection::parse(value)?
    ),
    argument!(
        "seed",
        "N",
        "what the random sequences of the self-tests begin with (0x5eed0001)",
        |args, value| args.seed = parse_number(value)?
    ),
    choice!(
        "log",
        LEVELS,
        "the least severe messages that are printed (info)",
        |args, level| { args.log = level }
    ),
    choice!(
        "linear",
        LINEAR,
        "the leaves of the linear map (largest)",
        |args, leaves| { args.linear = leaves }
    ),
    choice!(
        "ptdump",
        SWITCH,
        "whether the boot log shows all that is mapped (0)",
        |args, shown| { args.ptdump = shown }
    ),
    Argument {
        name: "errata",
        values: |f| {
            f.write_str("none|")?;
            names(f, Errata::SWITCHES)?;
            f.write_str("[,NAME...]")
        },
        what: "workarounds that are on though no CPU needs them (none)",
        set: |args, value| {
            if value != "none" {
                for name in value.split(',') {
                    args.errata = args.errata.or(pick(Errata::SWITCHES, name)?);
                }
            }
            Some(())
        },
    },
    Argument {
        name: "pretend",
        values: |f| {
            f.write_str("CPU:")?;
            names(f, Register::NAMES)?;
            f.write_str(":VALUE[,...]")
        },
        what: "what up to 4 identification registers of CPUs are taken to hold for errata and features",
        set: |args, value| {
            args.pretences = pretences(value)?;
            Some(())
        },
    },
    choice!(
        "selftest.break",
        Planted::ALL,
        "a fault that the kernel plants in itself, and the self-tests have to find",
        |args, planted| args.planted = Some(planted)
    ),
    argument!(
        "soak",
        "1..4294967296",
        "rounds of the stress on all CPUs (1)",
        |args, value| args.soak = number(value, 1, 1 << 32)?
    ),
    argument!(
        "test_vmalloc",
        "MASK",
        "the cases of test_vmalloc that run (all): bits 1 to 0x1000 are Linux's, 0x10000 to 0x100000 the kernel's own",
        |args, value| args.test_vmalloc.mask = cases(value)?
    ),
    argument!(
        "nr_pages",
        "1..1048576",
        "for test_vmalloc: the pages of an area (1)",
        |args, value| args.test_vmalloc.nr_pages = number(value, 1, 1 << 20)?
    ),
    choice!(
        "use_huge",
        SWITCH,
        "for test_vmalloc: whether they are asked for in large blocks (0)",
        |args, huge| args.test_vmalloc.use_huge = huge
    ),
    argument!(
        "loops",
        "1..4294967296",
        "for test_vmalloc: loops of each case on each CPU (20)",
        |args, value| args.test_vmalloc.loops = number(value, 1, 1 << 32)?
    ),
    argument!(
        "threads",
        "1..4294967296",
        "for test_vmalloc: the CPUs that run each case, as many as there are at most (1)",
        |args, value| args.test_vmalloc.threads = number(value, 1, 1 << 32)?
    ),
    argument!(
        "bench",
        "list|GLOB",
        "for mode=bench: the cases that run (all), a ? for a blank in a name; list prints their names",
        |args, value| args.bench = glob(value)?
    ),
    argument!(
        "bench.walkers",
        "none|GLOB",
        "the walkers that run beside the engine in mode=bench and in the self-test of walkers (all)",
        |args, value| args.bench_walkers = glob(value)?
    ),
    choice!(
        "replay.break",
        REPLAY_FAULTS,
        "for mode=replay: a fault that it makes, and has to find",
        |args, fault| args.replay_fault = Some(fault)
    ),
];

fn glob(value: &str) -> Option<&str> {
    (!value.is_empty()).then_some(value)
}
