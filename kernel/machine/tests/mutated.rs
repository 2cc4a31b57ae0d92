#[path = "support/described.rs"]
mod described;

use std::panic::catch_unwind;
use std::{env, fs};

use described::described;
use fastrand::Rng;
use machine::device_tree;
use machine::plan::Plan;
use machine::regions::PhysRegion;

const DTB: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/dtb");

const MUTANTS: u64 = 40;

const CELLS: [u32; 14] = [
    0,
    1,
    2,
    3,
    4,
    5,
    9,
    0x7f,
    0x1000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_fff0,
    0xffff_ffff,
    0xd00d_feed,
];

fn word(blob: &[u8], at: usize) -> usize {
    u32::from_be_bytes(blob[at..at + 4].try_into().unwrap()) as usize
}

fn values_of(blob: &[u8], name: &str) -> Vec<usize> {
    let strings = word(blob, 12);
    let property = |at: &usize| {
        let from = strings + word(blob, at + 8);
        let ends = from + name.len();
        word(blob, *at) == 3 && blob.get(from..ends) == Some(name.as_bytes()) && blob.get(ends) == Some(&0)
    };
    let cells = (word(blob, 8)..strings.saturating_sub(16)).step_by(4);
    cells.filter(property).map(|at| at + 12).collect()
}

const NAMES: [&str; 6] = [
    "#address-cells",
    "#size-cells",
    "reg",
    "ranges",
    "stdout-path",
    "status",
];

fn mutate(blob: &mut Vec<u8>, values: &[usize], rng: &mut Rng) {
    let cell = |rng: &mut Rng| CELLS[rng.usize(..CELLS.len())].to_be_bytes();
    let header = |rng: &mut Rng| 4 * rng.usize(..10);
    match rng.u8(..6) {
        0 => {
            let at = rng.usize(..blob.len());
            blob[at] ^= 1 << rng.u8(..8);
        }
        1 => {
            let at = 4 * rng.usize(..blob.len() / 4);
            let cell = cell(rng);
            blob[at..at + 4].copy_from_slice(&cell);
        }
        2 => {
            let at = header(rng);
            let cell = cell(rng);
            blob[at..at + 4].copy_from_slice(&cell);
        }
        3 => {
            let at = header(rng) + 3;
            blob[at] = rng.u8(..);
        }
        4 => {
            let size = rng.usize(40..=blob.len());
            blob.truncate(size);
            blob[4..8].copy_from_slice(&(size as u32).to_be_bytes());
        }
        _ => {
            // A mutant may be shorter.
            let at = values[rng.usize(..values.len())];
            let cell = cell(rng);
            if let Some(value) = blob.get_mut(at..at + 4) {
                value.copy_from_slice(&cell);
            }
        }
    }
}

fn read_all(blob: &[u8]) -> bool {
    let read = described(blob).is_ok();
    if let Ok(machine) = device_tree::read(blob, 0, 32) {
        let image = PhysRegion {
            start: 2 << 20,
            end: 6 << 20,
        };
        let tree = PhysRegion {
            start: 6 << 20,
            end: 7 << 20,
        };
        assert!(machine.nr_cpus() <= 32);
        let _ = Plan::new(&machine, image, tree, 1 << 47, 4096);
    }
    read
}

#[test]
fn no_mutant_ends_the_reader() {
    let rounds = env::var("SOAK").map_or(1, |soak| soak.parse().unwrap());
    let mut rng = Rng::with_seed(0x00d7_b0d7);
    let (mut read, mut refused) = (0, 0);
    let files = fs::read_dir(DTB).unwrap().map(|entry| entry.unwrap().path());
    let mut trees: Vec<_> = files
        .filter(|path| path.extension().is_some_and(|ending| ending == "dtb"))
        .collect();
    trees.sort();
    for path in trees {
        let tree = fs::read(&path).unwrap();
        let values: Vec<usize> = NAMES.iter().flat_map(|name| values_of(&tree, name)).collect();
        for _ in 0..rounds * MUTANTS {
            let mut mutant = tree.clone();
            for _ in 0..rng.u8(1..=4) {
                mutate(&mut mutant, &values, &mut rng);
            }
            match catch_unwind(|| read_all(&mutant)) {
                Ok(true) => read += 1,
                Ok(false) => refused += 1,
                Err(_) => {
                    let kept = env::temp_dir().join("vmwalk-mutant.dtb");
                    fs::write(&kept, &mutant).unwrap();
                    panic!(
                        "a mutant of {} ends the reader: {}",
                        path.display(),
                        kept.display()
                    );
                }
            }
        }
    }
    // Else the mutations were too mild, or too wild.
    assert!(read > 200 && refused > 200, "{read} read, {refused} refused");
}
