//! Trees of real machines, changed as the loader does, and read as the kernel does.

use std::fs;
use std::ops::Range;

use dtoolkit::fdt::Fdt;
use dtoolkit::model::DeviceTree;
use efi_loader::tree::{MAX_BANKS, banks, set_bootargs, set_memory};
use machine::device_tree::{self, Machine};
use machine::regions::PhysRegion;

const DTB: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../kernel/machine/tests/dtb");
const PAGE: u64 = 4096;

fn sample() -> Vec<(String, Vec<u8>)> {
    let files = fs::read_dir(DTB).unwrap().map(|entry| entry.unwrap().path());
    let trees = files.filter(|path| path.extension().is_some_and(|ending| ending == "dtb"));
    let trees = trees.map(|path| (path.display().to_string(), fs::read(&path).unwrap()));
    trees.collect()
}

fn read(blob: &[u8]) -> Machine<'_> {
    device_tree::read(blob, 0, 32).unwrap_or_else(|error| panic!("{error}"))
}

/// All that the kernel reads but RAM and boot arguments.
fn others(machine: &Machine<'_>) -> String {
    let cpus: Vec<_> = machine.cpus().collect();
    let Machine {
        reserved,
        initrd,
        console,
        unknown_stdout,
        rtc,
        ecam,
        psci,
        ..
    } = machine;
    format!("{reserved:?} {initrd:?} {console:?} {unknown_stdout:?} {rtc:?} {ecam:?} {psci:?} {cpus:?}")
}

fn regions(banks: &[Range<u64>]) -> Vec<PhysRegion> {
    banks
        .iter()
        .map(|bank| PhysRegion {
            start: bank.start,
            end: bank.end,
        })
        .collect()
}

#[test]
fn each_keeps_all_but_its_ram_and_its_boot_arguments() {
    let trees = sample();
    assert!(trees.len() >= 60);
    // Within 32 bits: some have one cell for an address.
    let left = [0x4000_0000..0x7c44_0000, 0x7c73_0000..0x7fc0_0000];
    for (name, blob) in &trees {
        let before = read(blob);
        let mut tree = DeviceTree::from_fdt(&Fdt::new(blob).unwrap());
        set_memory(&mut tree, &left);
        set_bootargs(&mut tree, "selftest=map.* seed=3");
        let written = tree.to_dtb();
        let after = read(&written);
        assert_eq!(after.memory.as_slice(), regions(&left), "{name}");
        assert_eq!(after.bootargs, "selftest=map.* seed=3", "{name}");
        assert_eq!(others(&after), others(&before), "{name}");
    }
}

#[test]
fn ram_beyond_the_cells_of_a_tree_is_left_out() {
    let mut tree = DeviceTree::new();
    // Without the properties, two cells for an address and one for a size.
    let left = [0x8000_0000..0x9000_0000, 0x1_0000_0000..0x3_0000_0000];
    set_memory(&mut tree, &left);
    let blob = tree.to_dtb();
    assert_eq!(read(&blob).memory.as_slice(), regions(&left[..1]));
}

#[test]
fn banks_are_joined_and_of_whole_pages() {
    let pieces = [
        (0x9000..0xf000, true),
        (0x4000..0x9000, true),
        (0xf000..0x1_0000, false),
        (0x1_0000..0x3_3000, true),
        (0x3_4000..0x3_5000, true),
    ];
    assert_eq!(
        banks(pieces.clone(), PAGE),
        [0x4000..0xf000, 0x1_0000..0x3_3000, 0x3_4000..0x3_5000]
    );
    assert_eq!(banks(pieces, 4 * PAGE), [0x4000..0xc000, 0x1_0000..0x3_0000]);
}

#[test]
fn the_largest_banks_are_kept_where_they_are_too_many() {
    let sizes = (0..MAX_BANKS as u64 + 10).map(|n| (n << 24, if n % 4 == 3 { PAGE } else { 16 * PAGE }));
    let all: Vec<Range<u64>> = sizes.map(|(start, size)| start..start + size).collect();
    let kept = banks(all.iter().cloned().map(|run| (run, true)), PAGE);
    let mut large = all.clone();
    large.retain(|run| run.end - run.start > PAGE);
    assert!(large.len() <= MAX_BANKS && kept.len() == MAX_BANKS);
    assert!(kept.is_sorted_by_key(|run| run.start));
    assert!(large.iter().all(|run| kept.contains(run)));
}
