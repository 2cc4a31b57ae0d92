mod table;

pub use table::ARGUMENTS;

pub const DEFAULT_SEED: u64 = 0x5eed_0001;

pub const CASES: u32 = 0x1f_1fff;

#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    pub selftest: Selection<'a>,
    pub seed: u64,
    pub planted: Option<Planted>,
    pub mode: Mode,
    pub bench: &'a str,
    /// Beside the engine.
    pub bench_walkers: &'a str,
    pub counters: CountedBy,
    /// MiB.
    pub evict: u64,
    pub test_vmalloc: TestVmalloc,
    pub lines_areas: u64,
    pub soak: u64,
    pub replay_fault: Option<ReplayFault>,
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
            counters: CountedBy::Instructions,
            evict: 32,
            test_vmalloc: TestVmalloc::DEFAULT,
            lines_areas: 0,
            soak: 1,
            replay_fault: None,
            ptdump: false,
        }
    }
}

/// What a bench counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CountedBy {
    /// Exactly, as under `-icount`.
    Instructions,
    /// All that this machine counts, many times.
    Pmu,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TestVmalloc {
    pub mask: u32,
    pub nr_pages: u64,
    pub use_huge: bool,
    pub loops: u64,
    pub threads: u64,
}

impl TestVmalloc {
    pub const DEFAULT: Self = Self {
        mask: CASES,
        nr_pages: 1,
        use_huge: false,
        loops: 20,
        threads: 1,
    };
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Selection<'a> {
    All,
    None,
    List,
    Globs(&'a str),
}

impl<'a> Selection<'a> {
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

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    Selftest,
    Shell,
    Bench,
    Lines,
    Replay,
}

macro_rules! planted {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Planted {
            $($(#[$doc])* $variant,)*
        }

        impl Planted {
            pub const ALL: &[(&str, Self)] = &[$(($name, Self::$variant),)*];

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
    /// Needs a linear map of pages: nothing else empties the TLB.
    SkipTlbi = "skip-tlbi",
    /// As above.
    StalePermission = "stale-permission",
    SkipDsb = "skip-dsb",
    WrongOutput = "wrong-output",
    MixedGroup = "mixed-group",
    WritableRodata = "writable-rodata",
    WritableText = "writable-text",
    NoGuard = "no-guard",
    LeakTable = "leak-table",
    LeakFrame = "leak-frame",
    UncountedTlbi = "uncounted-tlbi",
    WrongWalker = "wrong-walker",
    /// To the EL2 that the image was entered at.
    TrapToEl2 = "trap-to-el2",
    /// With debug assertions only.
    LockOrder = "lock-order",
    LongHold = "long-hold",
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReplayFault {
    Data,
    Protect,
    Frame,
    Area,
    Trace,
}
