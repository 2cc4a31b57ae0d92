//! Real device trees (`tests/dtb/README.md`).

#[path = "support/described.rs"]
mod described;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use described::described;
use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::{Node, Property};
use machine::device_tree::{self, EnableMethod, Machine};
use machine::plan::{self, Plan};
use machine::regions::PhysRegion;
use serde_json::Value;

const DTB: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/dtb");
const PAGE: u64 = 4096;

fn sample() -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(DTB).unwrap().map(|entry| entry.unwrap().path());
    let trees = files.filter(|path| path.extension().is_some_and(|ending| ending == "dtb"));
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    trees
        .map(|path| (name(&path), fs::read(&path).unwrap()))
        .collect()
}

fn read(blob: &[u8]) -> Machine<'_> {
    device_tree::read(blob, 0, 32).unwrap_or_else(|error| panic!("{error}"))
}

fn plan_of(machine: &Machine<'_>) -> Result<Plan, plan::Error> {
    let bank = machine.memory.iter().copied().max_by_key(PhysRegion::size);
    let start = bank.map_or(0, |bank| bank.start) + (2 << 20);
    let image = PhysRegion::new(start, 4 << 20).unwrap();
    let tree = PhysRegion::new(image.end, 64 << 10).unwrap();
    Plan::new(machine, image, tree, 1 << 47, PAGE)
}

#[test]
fn each_reads_as_libfdt_reads_it() {
    let expected = fs::read_to_string(format!("{DTB}/expected.json")).unwrap();
    let expected: BTreeMap<String, Value> = serde_json::from_str(&expected).unwrap();
    let trees = sample();
    assert!(trees.len() >= 60);
    assert!(trees.keys().eq(expected.keys()));
    for (name, blob) in &trees {
        assert_eq!(described(blob).as_ref(), Ok(&expected[name]), "{name}");
    }
}

#[test]
fn every_kind_is_in_the_sample() {
    fn has_long_name(node: FdtNode<'_>) -> bool {
        node.name_without_address().len() > 31
            || node.properties().any(|property| property.name().len() > 31)
            || node.children().any(has_long_name)
    }
    let trees = sample();
    let all: Vec<(Fdt<'_>, Machine<'_>)> = trees
        .values()
        .map(|blob| (Fdt::new(blob).unwrap(), read(blob)))
        .collect();
    let expect = |kind: &str, is: &dyn Fn(&Fdt<'_>, &Machine<'_>) -> bool| {
        assert!(all.iter().any(|(tree, machine)| is(tree, machine)), "no {kind}");
    };
    let compatible = |tree: &Fdt<'_>, with: &str| {
        device_tree::stdout(*tree).is_some_and(|stdout| {
            let property = stdout.node().property("compatible").unwrap();
            property
                .value()
                .split(|byte| *byte == 0)
                .any(|name| name == with.as_bytes())
        })
    };
    let enabled_by = |tree: &Fdt<'_>, method: &[u8]| {
        let cpus = tree.find_node("/cpus").unwrap();
        cpus.children().any(|cpu| {
            cpu.property("enable-method")
                .is_some_and(|property| property.value() == method)
        })
    };
    expect("name of more than 31 characters", &|tree, _| {
        has_long_name(tree.root())
    });
    expect("PSCI under /firmware", &|tree, machine| {
        tree.find_node("/firmware/psci").is_some() && machine.psci.is_some()
    });
    expect("machine without PSCI", &|_, machine| machine.psci.is_none());
    expect("tree without memory", &|_, machine| machine.memory.is_empty());
    expect("memory at 0", &|_, machine| {
        machine.memory.iter().any(|bank| bank.start == 0)
    });
    expect("several banks", &|_, machine| machine.memory.len() > 2);
    expect("no-map", &|_, machine| {
        machine.reserved.iter().any(|reserved| reserved.no_map)
    });
    expect("reservation block", &|tree, _| {
        tree.memory_reservations().next().is_some()
    });
    expect("PL011", &|tree, machine| {
        machine.console.is_some() && compatible(tree, "arm,pl011")
    });
    expect("8250", &|tree, machine| {
        machine.console.is_some() && compatible(tree, "ns16550a")
    });
    expect("stdout that is not known", &|_, machine| {
        machine.unknown_stdout.is_some() && machine.console.is_none()
    });
    expect("PL031", &|_, machine| machine.rtc.is_some());
    expect("ECAM", &|_, machine| machine.ecam.is_some());
    expect("spin-table", &|tree, machine| {
        enabled_by(tree, b"spin-table\0")
            && machine
                .cpus()
                .all(|cpu| matches!(cpu.method, Some(EnableMethod::SpinTable(_))))
    });
    expect("tree without stdout-path", &|tree, _| {
        device_tree::stdout(*tree).is_none()
    });
}

#[test]
fn nine_of_ten_whose_stdout_resolves_can_print() {
    let trees = sample();
    let mut silent = Vec::new();
    let mut nr = 0;
    for (name, blob) in &trees {
        if device_tree::stdout(Fdt::new(blob).unwrap()).is_some() {
            nr += 1;
            if read(blob).console.is_none() {
                silent.push(name);
            }
        }
    }
    assert!(nr > 40 && silent.len() * 10 <= nr, "{silent:?} of {nr}");
}

#[test]
fn the_console_is_that_of_stdout_and_no_other_uart() {
    let trees = sample();
    let of = |name: &str| read(&trees[name]).console.unwrap();
    // Its PL011 is wired to a radio.
    let console = of("bcm2837-rpi-zero-2-w.dtb");
    assert_eq!(console.uart.model.name, "8250");
    assert_eq!(console.registers, PhysRegion::new(0x3f21_5040, 0x40).unwrap());
}

#[test]
fn a_tree_without_memory_says_that_the_loader_must_fill_it_in() {
    let trees = sample();
    let machines = trees.values().map(|blob| read(blob));
    let without: Vec<_> = machines.filter(|machine| machine.memory.is_empty()).collect();
    assert!(!without.is_empty());
    for machine in without {
        let error = plan_of(&machine).unwrap_err();
        assert_eq!(error, plan::Error::NoMemory);
        assert!(error.to_string().contains("its loader must fill in"));
    }
}

#[test]
fn where_cpus_wait_in_a_spin_table_is_mapped_and_never_given_out() {
    let trees = sample();
    let mut nr = 0;
    for (name, blob) in &trees {
        let machine = read(blob);
        let Ok(plan) = plan_of(&machine) else { continue };
        for cpu in machine.cpus() {
            if let Some(EnableMethod::SpinTable(release)) = cpu.method {
                let at = PhysRegion::new(release, 8).unwrap();
                assert!(
                    !plan
                        .free
                        .iter()
                        .any(|free| free.start < at.end && at.start < free.end)
                );
                nr += usize::from(plan.ram.contains(&at));
                assert!(release % 8 == 0, "{name}");
            }
        }
    }
    assert!(nr > 4, "{nr}");
}

#[test]
fn the_page_at_0_is_mapped_and_never_given_out() {
    let trees = sample();
    let first = PhysRegion { start: 0, end: PAGE };
    let mut nr = 0;
    for (name, blob) in &trees {
        let machine = read(blob);
        if !machine.memory.iter().any(|bank| bank.start == 0) {
            continue;
        }
        let mut plan = plan_of(&machine).unwrap_or_else(|error| panic!("{name}: {error}"));
        let no_map = |reserved: &device_tree::Reserved| reserved.no_map && reserved.region.start == 0;
        assert_eq!(
            plan.ram.contains(&first),
            !machine.reserved.iter().any(no_map),
            "{name}"
        );
        assert_ne!(plan.free.take(PAGE), Some(0), "{name}");
        nr += 1;
    }
    assert!(nr > 1);
}

#[test]
fn a_page_that_is_taken_in_part_is_not_free() {
    let mut partly = 0;
    for (name, blob) in &sample() {
        let machine = read(blob);
        let Some(bank) = machine.memory.iter().copied().max_by_key(PhysRegion::size) else {
            continue;
        };
        let image = PhysRegion::new(bank.start + (2 << 20), 4 << 20).unwrap();
        // As UEFI and U-Boot have it: no larger than it is.
        let tree = PhysRegion::new(image.end, blob.len() as u64).unwrap();
        for page in [PAGE, 4 * PAGE, 16 * PAGE] {
            let Ok(plan) = Plan::new(&machine, image, tree, 1 << 47, page) else {
                continue;
            };
            let whole =
                |region: &PhysRegion| region.start.is_multiple_of(page) && region.end.is_multiple_of(page);
            assert!(
                plan.ram.iter().all(whole) && plan.free.iter().all(whole),
                "{name}, {page}"
            );
            partly += usize::from(!tree.end.is_multiple_of(page));
        }
    }
    assert!(partly > 20, "{partly}");
}
