//! The boot arguments: words separated by white space in `/chosen/bootargs`, each `name=value`.
//!
//! What is not understood is refused: a test run that silently ignored a misspelt argument would prove something else than it says.
//! The last of two equal arguments counts, but for `errata=`, which adds up.

use core::fmt;

use log::LevelFilter;

use crate::arch::errata::{Errata, Pretence};
use crate::arch::percpu::MAX_CPUS;
use crate::selftest::shapes;
use crate::{bench, selftest};

/// The seed of the random sequences of the self-tests, unless `seed=` says another.
pub const DEFAULT_SEED: u64 = 0x5eed_0001;

/// What the boot arguments say.
#[derive(Clone, Copy, Debug)]
pub struct BootArgs<'a> {
    /// `selftest=GLOB[,GLOB]` or `selftest=none`.
    pub selftest: Selection<'a>,
    /// `seed=N`, decimal or with 0x.
    pub seed: u64,
    /// `log=off|error|warn|info|debug|trace`.
    pub log: LevelFilter,
    /// `linear=4k` or `linear=largest`.
    pub linear: LinearLeaves,
    /// `selftest.break=NAME`.
    pub planted: Option<Planted>,
    /// `mode=selftest|shell|bench|replay`.
    pub mode: Mode,
    /// `errata=none` or `errata=NAME[,NAME]`: forced on, beside what MIDR_EL1 says.
    pub errata: Errata,
    /// `errata.midr=CPU:MIDR`: what the MIDR_EL1 of one CPU is taken to be where errata are looked up.
    pub pretence: Option<Pretence>,
    /// `bench=GLOB`: which cases of `mode=bench` run. A blank in a name is a `?` here. `bench=list` prints their names.
    pub bench: &'a str,
    /// `bench.walkers=GLOB`: which walkers run beside the engine.
    pub bench_walkers: &'a str,
    /// `test_vmalloc=MASK nr_pages=N use_huge=0|1 loops=N threads=N`.
    pub test_vmalloc: TestVmalloc,
    /// `soak=N`: rounds of the stress test, instead of one.
    pub soak: u64,
    /// `replay.break=NAME`.
    pub replay_fault: Option<ReplayFault>,
    /// `ptdump=0|1`: whether the boot log shows all that is mapped.
    pub ptdump: bool,
}

/// Which cases of `lib/test_vmalloc.c`'s shapes run, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TestVmalloc {
    /// Their bits.
    pub mask: u32,
    /// Pages of a case whose size is fixed.
    pub nr_pages: u64,
    /// Whether these are asked for in large blocks.
    pub use_huge: bool,
    /// Loops of each case on each thread.
    pub loops: u64,
    /// Threads, each on a CPU of its own; no more than there are CPUs.
    pub threads: u64,
}

impl TestVmalloc {
    /// A few loops of everything.
    pub const DEFAULT: Self = Self {
        mask: shapes::MASK,
        nr_pages: 1,
        use_huge: false,
        loops: 20,
        threads: 1,
    };
}

/// Which self-tests run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Selection<'a> {
    /// All of them.
    All,
    /// None.
    None,
    /// Those that one of these globs, separated by commas, matches.
    Globs(&'a str),
}

/// Leaves of the linear map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LinearLeaves {
    /// The largest that the tables allow.
    Largest,
    /// 4 KiB pages only.
    Pages,
}

/// What the kernel does once it is up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Runs the self-tests and powers off.
    Selftest,
    /// A command line on the console.
    Shell,
    /// Runs the benches and powers off.
    Bench,
    /// Runs the calls whose cache lines are counted, and powers off.
    Lines,
    /// Replays the trace that is the initrd, and powers off.
    Replay,
}

macro_rules! planted {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// A fault that the kernel plants in itself, so that the suite can be seen to find it.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Planted {
            $($(#[$doc])* $variant,)*
        }

        impl Planted {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// As the boot argument names it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

planted! {
    /// An unmap is not followed by a TLBI. Needs a linear map of pages, so that nothing else empties the TLB.
    SkipTlbi = "skip-tlbi",
    /// A permission change is not followed by a TLBI. As above.
    StalePermission = "stale-permission",
    /// A map is not followed by a DSB.
    SkipDsb = "skip-dsb",
    /// One descriptor of a group has a wrong output address.
    WrongOutput = "wrong-output",
    /// One descriptor of a group lacks the contiguous bit.
    MixedGroup = "mixed-group",
    /// A read-only mapping is writable.
    WritableRodata = "writable-rodata",
    /// The linear map's alias of the kernel's text is writable.
    WritableText = "writable-text",
    /// The guard page behind an area is mapped.
    NoGuard = "no-guard",
    /// A table that an unmap takes out never goes back.
    LeakTable = "leak-table",
    /// A frame that a test is done with never goes back.
    LeakFrame = "leak-frame",
    /// One TLBI in four of the second subsystem is not entered where it is counted, as if it had not been issued.
    UncountedTlbi = "uncounted-tlbi",
    /// Beside the registered walkers there are some that map or unmap wrongly.
    WrongWalker = "wrong-walker",
    /// Two locks are taken in both orders. A build without debug assertions does not notice.
    LockOrder = "lock-order",
}

impl Planted {
    fn by_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|planted| planted.name() == name)
    }
}

/// A fault that a replay makes once, so that its checks can be seen to find it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReplayFault {
    /// A word of an area is overwritten before it is verified.
    Data,
    /// An area of code stays writable.
    Protect,
    /// A frame is taken and never given back.
    Frame,
    /// An area that the trace leaves is never ended.
    Area,
    /// A byte of the trace is overwritten.
    Trace,
}

impl ReplayFault {
    fn by_name(name: &str) -> Option<Self> {
        match name {
            "data" => Some(Self::Data),
            "protect" => Some(Self::Protect),
            "frame" => Some(Self::Frame),
            "area" => Some(Self::Area),
            "trace" => Some(Self::Trace),
            _ => None,
        }
    }
}

/// Why the boot arguments are refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BadArgument<'a> {
    /// The kernel knows no argument of this name.
    Unknown(&'a str),
    /// No self-test has a name that this glob matches.
    NoTest(&'a str),
    /// No walker has a name that this glob matches.
    NoWalker(&'a str, Option<Planted>),
    /// The value is none of those that there are.
    Value {
        /// The whole argument.
        argument: &'a str,
        /// What would be understood.
        expected: &'static str,
    },
}

impl fmt::Display for BadArgument<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(argument) => write!(f, "bad boot argument `{argument}`: no argument has this name"),
            Self::Value {
                argument,
                expected: "planted fault",
            } => {
                write!(f, "bad boot argument `{argument}`: expected one of")?;
                Planted::ALL
                    .iter()
                    .try_for_each(|planted| write!(f, " {}", planted.name()))
            }
            Self::Value { argument, expected } => {
                write!(f, "bad boot argument `{argument}`: expected {expected}")
            }
            Self::NoTest(glob) => write!(
                f,
                "bad boot argument `selftest`: no test has a name that `{glob}` matches"
            ),
            Self::NoWalker(glob, planted) => {
                write!(
                    f,
                    "bad boot argument `bench.walkers={glob}`: expected none, or a glob over"
                )?;
                let mut result = Ok(());
                bench::for_each_name(*planted == Some(Planted::WrongWalker), |name| {
                    result = result.and_then(|()| write!(f, " {name}"));
                });
                result
            }
        }
    }
}

impl Default for BootArgs<'_> {
    fn default() -> Self {
        Self {
            selftest: Selection::All,
            seed: DEFAULT_SEED,
            log: LevelFilter::Info,
            linear: LinearLeaves::Largest,
            planted: None,
            mode: Mode::Selftest,
            errata: Errata::default(),
            pretence: None,
            bench: "*",
            test_vmalloc: TestVmalloc::DEFAULT,
            soak: 1,
            bench_walkers: "*",
            replay_fault: None,
            ptdump: false,
        }
    }
}

impl<'a> BootArgs<'a> {
    /// Reads `line`.
    ///
    /// # Errors
    /// The first argument that is not understood.
    pub fn parse(line: &'a str) -> Result<Self, BadArgument<'a>> {
        let mut args = Self::default();
        for argument in line.split_ascii_whitespace() {
            let (name, value) = argument.split_once('=').ok_or(BadArgument::Unknown(argument))?;
            args.set(argument, name, value)?;
        }
        if let Selection::Globs(list) = args.selftest
            && let Some(glob) = list.split(',').find(|glob| !selftest::selects(glob))
        {
            return Err(BadArgument::NoTest(glob));
        }
        if !bench::knows_walker(args.bench_walkers, args.planted == Some(Planted::WrongWalker)) {
            return Err(BadArgument::NoWalker(args.bench_walkers, args.planted));
        }
        if matches!(args.planted, Some(Planted::SkipTlbi | Planted::StalePermission)) {
            args.linear = LinearLeaves::Pages;
        }
        Ok(args)
    }

    fn set(&mut self, argument: &'a str, name: &str, value: &'a str) -> Result<(), BadArgument<'a>> {
        let expected = |expected| BadArgument::Value { argument, expected };
        match name {
            "selftest" => {
                self.selftest = match value {
                    "none" => Selection::None,
                    globs if globs.split(',').all(|glob| !glob.is_empty()) => Selection::Globs(globs),
                    _ => return Err(expected("none, or globs separated by commas")),
                }
            }
            "seed" => self.seed = parse_number(value).ok_or(expected("a number below 2^64"))?,
            "log" => {
                self.log = value
                    .parse()
                    .map_err(|_| expected("off, error, warn, info, debug or trace"))?;
            }
            "linear" => {
                self.linear = match value {
                    "4k" => LinearLeaves::Pages,
                    "largest" => LinearLeaves::Largest,
                    _ => return Err(expected("4k or largest")),
                }
            }
            "selftest.break" => {
                self.planted = Some(Planted::by_name(value).ok_or(expected("planted fault"))?);
            }
            "mode" => {
                self.mode = match value {
                    "selftest" => Mode::Selftest,
                    "shell" => Mode::Shell,
                    "bench" => Mode::Bench,
                    "lines" => Mode::Lines,
                    "replay" => Mode::Replay,
                    _ => return Err(expected("selftest, shell, bench, lines or replay")),
                }
            }
            "replay.break" => {
                let fault = ReplayFault::by_name(value);
                self.replay_fault = Some(fault.ok_or(expected("data, protect, frame, area or trace"))?);
            }
            "ptdump" => {
                self.ptdump = match value {
                    "0" => false,
                    "1" => true,
                    _ => return Err(expected("0 or 1")),
                }
            }
            "errata" => {
                if value != "none" {
                    for erratum in value.split(',') {
                        let forced =
                            Errata::by_name(erratum).ok_or(expected("none, repeat-tlbi or no-cont"))?;
                        self.errata = self.errata.or(forced);
                    }
                }
            }
            "errata.midr" => {
                let pretence = value.split_once(':').and_then(|(cpu, midr)| {
                    let cpu = usize::try_from(parse_number(cpu)?).ok()?;
                    let midr = parse_number(midr).filter(|midr| *midr >> 32 == 0)?;
                    (cpu < MAX_CPUS).then_some(Pretence { cpu, midr })
                });
                self.pretence = Some(pretence.ok_or(expected("a CPU's number, a colon and 32 bits"))?);
            }
            "test_vmalloc" => {
                let mask = parse_number(value).and_then(|mask| u32::try_from(mask).ok());
                self.test_vmalloc.mask = mask
                    .filter(|mask| *mask != 0 && mask & !shapes::MASK == 0)
                    .ok_or(expected(
                        "a mask of powers of two from 1 to 4096 and from 0x10000 to 0x100000",
                    ))?;
            }
            "nr_pages" => {
                self.test_vmalloc.nr_pages = parse_number(value)
                    .filter(|pages| (1..=1 << 20).contains(pages))
                    .ok_or(expected("1 to 1048576 pages"))?;
            }
            "use_huge" => {
                self.test_vmalloc.use_huge = match value {
                    "0" => false,
                    "1" => true,
                    _ => return Err(expected("0 or 1")),
                }
            }
            "loops" | "threads" | "soak" => {
                let number = parse_number(value)
                    .filter(|number| (1..=1 << 32).contains(number))
                    .ok_or(expected("a number from 1 on"))?;
                match name {
                    "loops" => self.test_vmalloc.loops = number,
                    "threads" => self.test_vmalloc.threads = number,
                    _ => self.soak = number,
                }
            }
            "bench" if !value.is_empty() => self.bench = value,
            "bench.walkers" if !value.is_empty() => self.bench_walkers = value,
            "bench" | "bench.walkers" => return Err(expected("a glob")),
            _ => return Err(BadArgument::Unknown(argument)),
        }
        Ok(())
    }
}

/// A number, decimal or hexadecimal with 0x.
pub fn parse_number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        // `from_str_radix` would take a sign.
        Some(digits) if digits.bytes().all(|b| b.is_ascii_hexdigit()) => u64::from_str_radix(digits, 16).ok(),
        None if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok(),
        _ => None,
    }
}
