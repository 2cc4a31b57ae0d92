//! For random tests and the fuzzer.

use super::ops::{Change, Expected, Op};
use super::{Live, Naive, Shape, expected_leaves, leaves_in, pa_bits};
use mmu_model::{Cpu, Features, Model};
use paging::{
    Attributes, BreakPolicy, Config, Error, Extent, Granule, Half, LeafSet, LeafSize, MemoryType, Pfn,
    PhysAddr, Tables, Tree, VirtAddr,
};
use std::collections::{BTreeMap, BTreeSet};

impl<G: Granule> Live for Cpu<'_, G> {
    fn live(&self) -> usize {
        self.model().nr_tables()
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RawOp {
    pub kind: u8,
    pub page: u16,
    pub pages: u16,
    pub choice: u8,
    pub seed: u32,
}

impl RawOp {
    pub const BYTES: usize = 10;

    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::BYTES] = bytes.try_into().ok()?;
        Some(Self {
            kind: bytes[0],
            page: u16::from_le_bytes([bytes[1], bytes[2]]),
            pages: u16::from_le_bytes([bytes[3], bytes[4]]),
            choice: bytes[5],
            seed: u32::from_le_bytes([bytes[6], bytes[7], bytes[8], bytes[9]]),
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Setup(pub u8);

impl Setup {
    fn bit(self, bit: u8) -> bool {
        self.0 >> bit & 1 == 1
    }

    pub fn features<G: Granule>(self) -> Features {
        Features {
            pa_bits: pa_bits::<G>(),
            pool_base: if G::PA_BITS == 52 { 0xa << 48 } else { 0x80 << 32 },
            cpus: 2,
            tlbi_range: self.bit(0),
            ets2: self.bit(1),
            tolerates_size_change: self.bit(2),
            table_res0_ignored: false,
            log_events: 60,
            ..Features::default()
        }
    }

    pub fn config<G: Granule>(self) -> Config {
        Config {
            pa_bits: pa_bits::<G>(),
            leaves: if self.bit(3) {
                LeafSet::ALL.without_groups()
            } else {
                LeafSet::ALL
            },
            break_policy: if self.bit(2) {
                BreakPolicy::InPlace
            } else {
                BreakPolicy::BreakBeforeMake
            },
            repeat_tlbi: self.bit(4),
            break_executable: self.bit(6),
            flush_all_above: if self.bit(5) { 8 } else { 512 },
        }
    }
}

fn window<G: Granule>() -> u64 {
    7 * (1 << G::INDEX_BITS) / 2
}

fn shape<G: Granule>(page: u64, pages: u64, choice: u8, seed: u32) -> Shape {
    let mut rng = super::Rng(u64::from(seed) << 8 | 1);
    let block = 1u64 << G::INDEX_BITS;
    // On both sides of the first address that has bits out of their place.
    let least = if G::PA_BITS == 52 {
        (1 << (G::PLAIN_BITS - G::PAGE_SHIFT)) - 10 * block
    } else {
        0
    };
    let first = |rng: &mut super::Rng, at: u64| {
        least
            + match rng.below(4) {
                0 | 1 => (4 + rng.below(12)) * block + at % block,
                2 => (4 + rng.below(12)) * block + rng.below(block),
                _ => 4 * block + (rng.below(8 * block) & !(G::cont_entries(3) as u64 - 1)),
            }
    };
    match choice % 3 {
        0 => Shape::Range(first(&mut rng, page), pages),
        kind => {
            let mut extents = Vec::new();
            let mut done = 0;
            while done < pages {
                let run = match rng.below(3) {
                    0 => 1 + rng.below(5),
                    1 => 1 + rng.below(G::cont_entries(3) as u64 * 2),
                    _ => 1 + rng.below(2 * block),
                };
                let run = run.min(pages - done);
                extents.push(Extent {
                    start: Pfn(first(&mut rng, page + done)),
                    pages: run,
                });
                done += run;
            }
            if kind == 1 {
                Shape::Extents(extents)
            } else {
                let frames = extents
                    .iter()
                    .flat_map(|extent| (extent.start.0..extent.start.0 + extent.pages).map(Pfn));
                Shape::Array(frames.collect())
            }
        }
    }
}

pub fn decode<G: Granule>(raw: RawOp) -> Op {
    let window = window::<G>();
    let group = G::cont_entries(3) as u64;
    let block = 1u64 << G::INDEX_BITS;
    let page = u64::from(raw.page) % window;
    let page = match raw.choice >> 4 & 3 {
        0 => page,
        1 => page & !(group - 1),
        2 => page & !(block - 1),
        _ => (page & !(group - 1)) + 1,
    };
    let most = window - page;
    let pages = match raw.choice >> 6 {
        0 => u64::from(raw.pages) % 40,
        1 => u64::from(raw.pages) % most,
        2 => (u64::from(raw.pages) % (4 * group)) & !(group - 1),
        _ => block,
    };
    let pages = if raw.pages == u16::MAX {
        0
    } else {
        pages.clamp(1, most)
    };
    match raw.kind % 12 {
        0..=3 => Op::Map {
            page,
            shape: shape::<G>(page, pages, raw.choice, raw.seed),
            attributes: match raw.seed % 7 {
                0 => Attributes::KERNEL_RODATA,
                1 => Attributes::DEVICE,
                2 => Attributes::KERNEL_RODATA.executable(),
                3 if raw.choice == 77 => Attributes::KERNEL_DATA.executable(),
                _ => Attributes::KERNEL_DATA,
            },
            allowed: match raw.seed >> 8 & 7 {
                0 => LeafSet::PAGES,
                1 => LeafSet::ALL.at_most(LeafSize::PAGE_GROUP),
                _ => LeafSet::ALL,
            },
        },
        4 => Op::Unmap { page, pages },
        5 => Op::UnmapLater { page, pages },
        6 => Op::Prune { page, pages },
        7 | 8 => Op::Protect {
            page,
            pages,
            change: match raw.seed % 8 {
                0 | 1 => Change::ReadOnly,
                2 => Change::Writable,
                3 => Change::ReadOnlyExecutable,
                4 => Change::Executable,
                5 => Change::Software(raw.choice & 15),
                6 => Change::Memory(MemoryType::NORMAL_NC),
                _ => Change::Memory(MemoryType::NORMAL),
            },
        },
        9 => Op::SetValid {
            page,
            pages,
            valid: raw.seed % 2 == 0,
        },
        10 => Op::Split { page, pages },
        _ => Op::Coalesce { page, pages },
    }
}

fn walked<G: Granule>(model: &Model<G>) -> BTreeMap<u64, u64> {
    let mut pages = BTreeMap::new();
    for (va, leaf) in model.leaves() {
        let nr = 1u64 << (G::INDEX_BITS * (3 - leaf.level) as u32);
        for page in 0..nr {
            pages.insert(va.0 + (page << G::PAGE_SHIFT), leaf.pa + (page << G::PAGE_SHIFT));
        }
    }
    pages
}

/// Compares with a naive map after each operation and flush.
///
/// # Panics
/// With the story, if a rule is broken or the tables differ.
pub fn run<G: Granule>(setup: Setup, ops: &[RawOp]) {
    let (model, root) = Model::<G>::with_root(Features {
        one_memory_type: 0..0,
        ..setup.features::<G>()
    });
    let cpu = model.cpu(0);
    let tree = Tree::<G, _, _>::new(root, Half::High, cpu, cpu, setup.config::<G>());
    let base = tree.range().start.add(1 << (G::VA_BITS - 2));
    let mut naive = Naive::default();
    for (step, raw) in ops.iter().enumerate() {
        let op = decode::<G>(*raw);
        let what = || format!("step {step} of {}, {setup:?}: {op:x?}", G::NAME);
        let short = raw.seed >> 24 & 7 == 7;
        if short {
            model.fail_alloc_after(u64::from(raw.seed >> 28));
        }
        let before = naive.clone();
        let expected = op.apply_naively::<G>(&mut naive, base);
        let result = op.apply(&tree, base);
        let failed = short && !model.cancel_alloc_failure();
        if failed && matches!(result, Err(failure) if matches!(failure.error, Error::OutOfTables(_))) {
            naive = before.clone();
        } else {
            assert!(
                expected.is_met_by(&result),
                "{}: {result:?}, expected {expected:?}",
                what()
            );
        }
        let violations = model.violations();
        assert!(
            violations.is_empty(),
            "{}\n{}\n{}",
            what(),
            violations[0],
            model.log()
        );
        assert!(
            model.is_quiescent(),
            "{}: something is not flushed\n{}",
            what(),
            model.log()
        );
        assert_eq!(Naive::of(&tree), naive, "{}", what());
        let valid: BTreeMap<_, _> = naive
            .0
            .iter()
            .filter(|(_, page)| page.2)
            .map(|(va, page)| (*va, page.0))
            .collect();
        assert_eq!(walked(&model), valid, "{}", what());
        let mut seen = BTreeSet::new();
        let report = tree.check(|table, _| seen.insert(table), |_| true);
        let report = report.unwrap_or_else(|error| panic!("{}: {error}", what()));
        assert_eq!(
            report.tables as usize,
            model.nr_tables(),
            "{}: tables are leaked",
            what()
        );
        if let (Op::Map { shape, allowed, .. }, Ok(outcome)) = (&op, &result) {
            let range = op.range::<G>(base);
            let leaves = setup.config::<G>().leaves.intersection(*allowed);
            let got: Vec<_> = leaves_in(&tree, range)
                .iter()
                .map(|leaf| (leaf.va.0, leaf.pa.0, leaf.size))
                .collect();
            assert_eq!(
                got,
                expected_leaves::<G>(range.start, &shape.frames(), leaves),
                "{}",
                what()
            );
            assert_eq!(outcome.leaves.pages::<G>(), shape.pages(), "{}", what());
        }
        for (va, (pa, _, valid)) in &before.0 {
            if *valid && !naive.0.contains_key(va) {
                model.frame_reused(PhysAddr(*pa), G::PAGE_SIZE);
            }
        }
        let unmaps = matches!(op, Op::Unmap { .. } | Op::UnmapLater { .. });
        if expected == Expected::Done && unmaps {
            model.va_reused(op.range::<G>(base));
        }
        for offset in [0, 1, 17, 600] {
            let va = VirtAddr(base.0 + (((u64::from(raw.page) + offset) % window::<G>()) << G::PAGE_SHIFT));
            let may = model.cpu(1).access_with_retry(va, mmu_model::Access::Read);
            let there = naive
                .0
                .get(&va.0)
                .filter(|page| page.2)
                .map(|page| PhysAddr(page.0));
            assert_eq!(may.ok(), there, "{}: access to {va:?}", what());
        }
        let violations = model.violations();
        assert!(
            violations.is_empty(),
            "{}, afterwards\n{}\n{}",
            what(),
            violations[0],
            model.log()
        );
    }
    let mut batch = tree.batch();
    tree.unmap(tree.range(), &mut batch).expect("nothing to split");
    batch.flush();
    model.assert_quiescent();
    assert_eq!(model.nr_tables(), 1, "only the root is left");
}

/// The granule, the setup, then operations.
pub fn run_bytes(bytes: &[u8]) {
    let [granule, setup, rest @ ..] = bytes else {
        return;
    };
    let ops: Vec<_> = rest
        .chunks(RawOp::BYTES)
        .filter_map(RawOp::from_bytes)
        .take(64)
        .collect();
    match granule % 4 {
        0 => run::<paging::Granule16K>(Setup(*setup), &ops),
        1 => run::<paging::Granule64K>(Setup(*setup), &ops),
        _ => run::<paging::Granule4K>(Setup(*setup), &ops),
    }
}
