use kernel::boot_argument;
use kernel::bootargs::{Argument, Choices, number, parse_number};

use super::{CASES, CountedBy, Mode, Options, Planted, ReplayFault, Selection};

const MODES: &Choices<Mode> = &[
    ("selftest", Mode::Selftest),
    ("shell", Mode::Shell),
    ("bench", Mode::Bench),
    ("lines", Mode::Lines),
    ("replay", Mode::Replay),
];

const COUNTERS: &Choices<CountedBy> = &[("instructions", CountedBy::Instructions), ("pmu", CountedBy::Pmu)];

const SWITCH: &Choices<bool> = &[("0", false), ("1", true)];

const REPLAY_FAULTS: &Choices<ReplayFault> = &[
    ("data", ReplayFault::Data),
    ("protect", ReplayFault::Protect),
    ("frame", ReplayFault::Frame),
    ("area", ReplayFault::Area),
    ("trace", ReplayFault::Trace),
];

fn cases(value: &str) -> Option<u32> {
    let mask = u32::try_from(parse_number(value)?).ok()?;
    (mask != 0 && mask & !CASES == 0).then_some(mask)
}

pub const ARGUMENTS: &[Argument<Options<'static>>] = &[
    boot_argument!(
        "mode",
        one of MODES,
        "what the kernel does when it is up (selftest)",
        |args, mode| args.mode = mode
    ),
    boot_argument!(
        "selftest",
        "none|list|GLOB[,GLOB...]",
        "the self-tests that run (all); list prints their names",
        |args, value| args.selftest = Selection::parse(value)?
    ),
    boot_argument!(
        "seed",
        "N",
        "what the random sequences of the self-tests begin with (0x5eed0001)",
        |args, value| args.seed = parse_number(value)?
    ),
    boot_argument!(
        "ptdump",
        one of SWITCH,
        "whether the boot log shows all that is mapped (0)",
        |args, shown| args.ptdump = shown
    ),
    boot_argument!(
        "selftest.break",
        one of Planted::ALL,
        "a fault that the kernel plants in itself, and the self-tests have to find",
        |args, planted| args.planted = Some(planted)
    ),
    boot_argument!(
        "soak",
        "1..4294967296",
        "rounds of the stress on all CPUs (1)",
        |args, value| args.soak = number(value, 1, 1 << 32)?
    ),
    boot_argument!(
        "test_vmalloc",
        "MASK",
        "the cases of test_vmalloc that run (all): bits 1 to 0x1000 are Linux's, 0x10000 to 0x100000 the kernel's own",
        |args, value| args.test_vmalloc.mask = cases(value)?
    ),
    boot_argument!(
        "nr_pages",
        "1..1048576",
        "for test_vmalloc: the pages of an area (1)",
        |args, value| args.test_vmalloc.nr_pages = number(value, 1, 1 << 20)?
    ),
    boot_argument!(
        "use_huge",
        one of SWITCH,
        "for test_vmalloc: whether they are asked for in large blocks (0)",
        |args, huge| args.test_vmalloc.use_huge = huge
    ),
    boot_argument!(
        "loops",
        "1..4294967296",
        "for test_vmalloc: loops of each case on each CPU (20)",
        |args, value| args.test_vmalloc.loops = number(value, 1, 1 << 32)?
    ),
    boot_argument!(
        "threads",
        "1..4294967296",
        "for test_vmalloc: the CPUs that run each case, as many as there are at most (1)",
        |args, value| args.test_vmalloc.threads = number(value, 1, 1 << 32)?
    ),
    boot_argument!(
        "bench",
        "list|GLOB",
        "for mode=bench: the cases that run (all), a ? for a blank in a name; list prints their names",
        |args, value| args.bench = some(value)?
    ),
    boot_argument!(
        "bench.walkers",
        "none|GLOB",
        "the walkers that run beside the engine in mode=bench and in the self-test of walkers (all)",
        |args, value| args.bench_walkers = some(value)?
    ),
    boot_argument!(
        "bench.counters",
        one of COUNTERS,
        "for mode=bench: what is counted (instructions, exact under -icount); pmu: time, cycles and events, warm and cold",
        |args, counters| args.counters = counters
    ),
    boot_argument!(
        "bench.evict",
        "0..65536",
        "for bench.counters=pmu: MiB that are read before each cold call (32), twice the largest cache",
        |args, value| args.evict = number(value, 0, 1 << 16)?
    ),
    boot_argument!(
        "lines.areas",
        "0..4294967296",
        "for mode=lines: areas that are there beside those of the calls (0), made by all CPUs in equal shares",
        |args, value| args.lines_areas = number(value, 0, 1 << 32)?
    ),
    boot_argument!(
        "replay.break",
        one of REPLAY_FAULTS,
        "for mode=replay: a fault that it makes, and has to find",
        |args, fault| args.replay_fault = Some(fault)
    ),
];

fn some(value: &str) -> Option<&str> {
    (!value.is_empty()).then_some(value)
}
