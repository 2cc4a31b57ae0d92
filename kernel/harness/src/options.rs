//! What the boot arguments of the harness say.

mod table;

pub use table::ARGUMENTS;

/// The seed of the random sequences of the self-tests, unless `seed=` says another.
pub const DEFAULT_SEED: u64 = 0x5eed_0001;

/// The bits of all cases of `test_vmalloc=`.
pub const CASES: u32 = 0x1f_1fff;

/// What the boot arguments of the harness say. `ARGUMENTS` says how each is written.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// `selftest=`
    pub selftest: Selection<'a>,
    /// `seed=`
    pub seed: u64,
    /// `selftest.break=`
    pub planted: Option<Planted>,
    /// `mode=`
    pub mode: Mode,
    /// `bench=`: which cases of `mode=bench` run.
    pub bench: &'a str,
    /// `bench.walkers=`: which walkers run beside the engine.
    pub bench_walkers: &'a str,
    /// `test_vmalloc=`, and what goes with it.
    pub test_vmalloc: TestVmalloc,
    /// `lines.areas=`: areas that live while `mode=lines` counts.
    pub lines_areas: u64,
    /// `soak=`: rounds of the stress test, instead of one.
    pub soak: u64,
    /// `replay.break=`
    pub replay_fault: Option<ReplayFault>,
    /// `ptdump=`: whether the boot log shows all that is mapped.
    pub ptdump: bool,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self {
            selftest: Selection::All,
            seed: DEFAULT_SEED,
            planted: None,
            mode: Mode::Selftest,
            bench: "*",
            bench_walkers: "*",
            test_vmalloc: TestVmalloc::DEFAULT,
            lines_areas: 0,
            soak: 1,
            replay_fault: None,
            ptdump: false,
        }
    }
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
        mask: CASES,
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
    /// None: their names are printed.
    List,
    /// Those that one of these globs, separated by commas, matches.
    Globs(&'a str),
}

impl<'a> Selection<'a> {
    /// Returns what `text` asks for. `None` if a glob is missing.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        match text {
            "none" => Some(Self::None),
            "list" => Some(Self::List),
            globs => globs
                .split(',')
                .all(|glob| !glob.is_empty())
                .then_some(Self::Globs(globs)),
        }
    }
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
            /// All of them, with their names.
            pub const ALL: &[(&str, Self)] = &[$(($name, Self::$variant),)*];

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
    /// An unmap is not followed by a TLBI. Needs a linear map of pages, so that nothing else
    /// empties the TLB.
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
    /// One TLBI in four of the second subsystem is not entered where it is counted, as if it had
    /// not been issued.
    UncountedTlbi = "uncounted-tlbi",
    /// Beside the registered walkers there are some that map or unmap wrongly.
    WrongWalker = "wrong-walker",
    /// An instruction traps to the EL2 that the image was entered at and configured.
    TrapToEl2 = "trap-to-el2",
    /// Two locks are taken in both orders. A build without debug assertions does not notice.
    LockOrder = "lock-order",
    /// Interrupts are masked for longer than they may be.
    LongHold = "long-hold",
}

/// A fault that a replay makes once, so that its checks can be seen to find it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReplayFault {
    /// A word of an area is overwritten before it is verified.
    Data,
    /// An area of code stays writable.
    Protect,
    /// A frame is taken and never freed.
    Frame,
    /// An area that the trace leaves is never ended.
    Area,
    /// A byte of the trace is overwritten.
    Trace,
}
