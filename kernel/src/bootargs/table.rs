use log::LevelFilter;

use super::{
    Argument, BootArgs, Choices, LinearLeaves, NR_OVERRIDES, Rodata, names, number, parse_number, pick,
};
use crate::arch::errata::Errata;
use crate::arch::identity::{Override, Register};
use crate::arch::percpu::MAX_CPUS;
use crate::boot_argument;

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

const RODATA: &Choices<Rodata> = &[("full", Rodata::Full), ("on", Rodata::On)];

fn overrides(list: &str) -> Option<[Option<Override>; NR_OVERRIDES]> {
    let mut overrides = [None; NR_OVERRIDES];
    for (i, text) in list.split(',').enumerate() {
        let (cpu, text) = text.split_once(':')?;
        let (register, value) = text.split_once(':')?;
        *overrides.get_mut(i)? = Some(Override {
            cpu: number(cpu, 0, MAX_CPUS as u64 - 1)? as usize,
            register: pick(Register::NAMES, register)?,
            value: parse_number(value)?,
        });
    }
    Some(overrides)
}

pub const ARGUMENTS: &[Argument<BootArgs>] = &[
    boot_argument!(
        "log",
        one of LEVELS,
        "the least severe messages that are printed (info)",
        |args, level| args.log = level
    ),
    boot_argument!(
        "linear",
        one of LINEAR,
        "the leaves of the linear map (largest)",
        |args, leaves| args.linear = leaves
    ),
    boot_argument!(
        "rodata",
        one of RODATA,
        "whether the linear map's alias of the kernel's text is read-only, too (full)",
        |args, rodata| args.rodata = rodata
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
        name: "id_override",
        values: |f| {
            f.write_str("CPU:")?;
            names(f, Register::NAMES)?;
            f.write_str(":VALUE[,...]")
        },
        what: "what up to 4 identification registers of CPUs are taken to hold for errata and features",
        set: |args, value| {
            args.overrides = overrides(value)?;
            Some(())
        },
    },
    boot_argument!(
        "fail_page_alloc",
        "1..4294967296",
        "one in how many allocations of frames fails, by chance, once the kernel is up (none does)",
        |args, value| args.fail_page_alloc = Some(number(value, 1, 1 << 32)?)
    ),
    boot_argument!(
        "masked",
        one of SWITCH,
        "whether sections with interrupts masked are measured, in a build with debug assertions (0; a suite of tests always does)",
        |args, measured| args.masked = measured
    ),
];
