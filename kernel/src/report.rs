use core::fmt;

use log::{info, warn};
use paging::{DisplaySize, Granule as _};

use super::layout::{
    FIXED_BASE, FIXED_END, Granule, IMAGE_BASE, IMAGE_END, LINEAR_BASE, LINEAR_END, NR_FIXED_SLOTS,
    PAGE_SIZE, VMALLOC_BASE, VMALLOC_END,
};
use crate::BootInfo;
use crate::arch::errata::Errata;
use crate::arch::features::Features;
use crate::arch::identity::{self, Override, Register};
use crate::arch::percpu::nr_cpus;
use crate::bootargs::Rodata;
use crate::drivers::device_tree::{Cpu, EnableMethod, Machine};
use crate::mm::{frames, image_outcome, linear_map_outcome, memory_plan, tables};

struct YesNo(bool);

impl fmt::Display for YesNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0 { "yes" } else { "no" })
    }
}

pub fn log_cpu(features: &Features, errata: Errata, overrides: &[Option<Override>]) {
    info!(
        "CPU MIDR {:#010x}: {}-bit PA, granules{}{}{}, TLBIRANGE {}, BBM level {}, HAFDBS {}, PAN {}, DC ZVA {} bytes, LSE {}",
        features.midr,
        features.pa_bits,
        if features.granule_4k { " 4K" } else { "" },
        if features.granule_16k { " 16K" } else { "" },
        if features.granule_64k { " 64K" } else { "" },
        YesNo(features.tlbi_range),
        features.bbm as u8,
        match (features.hardware_access_flag, features.hardware_dirty_state) {
            (false, _) => "no",
            (true, false) => "AF",
            (true, true) => "AF and dirty",
        },
        YesNo(features.pan),
        features.zva_size,
        YesNo(features.lse),
    );
    for (cpu, identity) in identity::cpus(overrides) {
        let midr = identity.get(Register::Midr);
        let own = Features::of(&identity);
        if (Features {
            midr: features.midr,
            ..own
        }) != *features
        {
            info!("CPU {cpu}, MIDR {midr:#010x}, differs: only what all CPUs have is used");
        }
        for erratum in Errata::matching(midr) {
            info!("erratum {} applies to CPU {cpu}, MIDR {midr:#010x}", erratum.name);
        }
    }
    for name in errata.names() {
        info!("errata policy: {name}");
    }
}

pub fn log_machine(machine: &Machine) {
    for bank in &machine.memory {
        info!("RAM {bank} {}", DisplaySize(bank.size()));
    }
    for reserved in &machine.reserved {
        let kind = if reserved.no_map { ", not to be mapped" } else { "" };
        info!("reserved {}{kind}", reserved.region);
    }
    if let Some(initrd) = machine.initrd {
        info!("initrd {initrd} ({} bytes)", initrd.size());
    }
    if let Some(node) = machine.unknown_stdout {
        warn!("stdout-path names {node}, which this kernel has no driver for");
    }
    let console = machine.console;
    for (name, region) in [
        (
            console.map_or("", |console| console.uart.model.name),
            console.map(|console| console.registers),
        ),
        ("PL031", machine.rtc),
        ("PCIe configuration space", machine.ecam),
    ] {
        if let Some(region) = region {
            info!("{name} {region} {}", DisplaySize(region.size()));
        }
    }
    info!("CPUs: {}", machine.nr_listed_cpus);
    if machine.nr_listed_cpus > nr_cpus() {
        warn!(
            "there is no room for {} of them",
            machine.nr_listed_cpus - nr_cpus()
        );
    }
    let by_psci = |cpu: Cpu| cpu.method == Some(EnableMethod::Psci);
    if machine.psci.is_none() && machine.other_cpus().any(by_psci) {
        warn!("the device tree does not say how PSCI is called");
    }
}

pub fn log_memory(info: &BootInfo, machine: &Machine, rodata: Rodata) {
    let plan = memory_plan();
    if plan.beyond != 0 {
        let limit = if plan.limit == (LINEAR_END - LINEAR_BASE) as u64 {
            "the linear map of this image"
        } else {
            "what this CPU can address"
        };
        warn!(
            "{} of RAM, from {:#x} on, are beyond {limit}: they are not used",
            DisplaySize(plan.beyond),
            plan.limit
        );
    }
    if plan.no_map != 0 {
        info!("{} of RAM must not be mapped", DisplaySize(plan.no_map));
    }
    if plan.initrd != machine.initrd {
        warn!("the initrd does not lie in RAM: it is not used");
    }
    let sections = &info.sections;
    info!(
        "address map (TTBR1, {} bits, {} granule)",
        Granule::VA_BITS,
        DisplaySize(PAGE_SIZE as u64)
    );
    let region = |name: &str, start: usize, end: usize, what: fmt::Arguments<'_>| {
        info!(
            "  {name:<8} {start:#018x}..{end:#018x} {:>5}  {what}",
            format_size(&DisplaySize((end - start) as u64))
        );
    };
    region(
        "linear",
        LINEAR_BASE,
        LINEAR_END,
        format_args!(
            "{} of RAM rw-, its text and constants {}: {}",
            DisplaySize(plan.ram.size()),
            match rodata {
                Rodata::Full => "r--",
                Rodata::On => "rw-",
            },
            linear_map_outcome().leaves.display::<Granule>()
        ),
    );
    region("vmalloc", VMALLOC_BASE, VMALLOC_END, format_args!("empty"));
    region(
        "fixed",
        FIXED_BASE,
        FIXED_END,
        format_args!(
            "{NR_FIXED_SLOTS} slots of {}, device tree r--",
            DisplaySize(PAGE_SIZE as u64)
        ),
    );
    region(
        "image",
        IMAGE_BASE,
        IMAGE_END,
        format_args!(
            "at PA {:#x}: {}",
            info.image.start,
            image_outcome().leaves.display::<Granule>()
        ),
    );
    for (name, range, permissions) in [
        ("text", &sections.text, "r-x"),
        ("rodata", &sections.rodata, "r--"),
        ("data+bss", &(sections.data.start..sections.bss.end), "rw-"),
        ("stack", &sections.boot_stack, "rw-"),
    ] {
        info!(
            "    {name:<8} {:#018x}..{:#018x} {:>4}K {permissions}",
            range.start,
            range.end,
            range.len() >> 10
        );
    }
    let stats = frames::stats();
    info!(
        "{} frames, {} free ({} MiB), {} with a state; {} table pages; heap {} KiB",
        stats.total,
        stats.free,
        (stats.free * PAGE_SIZE as u64) >> 20,
        frames::touched().now,
        tables::nr_tables(),
        crate::mm::heap::stats().size >> 10
    );
}

fn format_size(size: &DisplaySize) -> impl fmt::Display {
    use core::fmt::Write;
    let mut text = arrayvec::ArrayString::<24>::new();
    // Holds any u64 and its unit.
    let _ = write!(text, "{size}");
    text
}
