use crate::support;

use paging::{
    Attributes, Config, Error, Extent, Granule, Granule4K, Granule16K, Granule64K, LeafSet, MemoryType, Pfn,
    TinyGranule, VirtAddr, VirtRange,
};
use support::{Naive, Rng, Shape, audit, expected_leaves, leaves_in, tree};

fn shape(rng: &mut Rng, max: u64) -> Shape {
    let pages = 1 + rng.below(max);
    let near = |rng: &mut Rng| {
        let align = 1 << rng.below(12);
        (1 + rng.below(64)) * 0x1000 / align * align + if rng.below(3) == 0 { rng.below(20) } else { 0 }
    };
    match rng.below(3) {
        0 => Shape::Range(near(rng), pages),
        1 => {
            let mut frames = Vec::new();
            while (frames.len() as u64) < pages {
                let start = near(rng);
                let run = 1 + if rng.below(2) == 0 {
                    rng.below(4)
                } else {
                    rng.below(max)
                };
                frames.extend((start..start + run).map(Pfn));
            }
            frames.truncate(pages as usize);
            Shape::Array(frames)
        }
        _ => {
            let mut extents = Vec::new();
            let mut total = 0;
            while total < pages {
                let run = rng.below(max / 2 + 2).min(pages - total);
                extents.push(Extent {
                    start: Pfn(near(rng)),
                    pages: run,
                });
                total += run;
            }
            Shape::Extents(extents)
        }
    }
}

fn run_sequence<G: Granule>(seed: u64, steps: usize, window: u64) {
    let mut rng = Rng(seed | 1);
    let leaves = if rng.below(4) == 0 {
        LeafSet::ALL.without_groups()
    } else {
        LeafSet::ALL
    };
    let config = Config {
        leaves,
        ..Config::default()
    };
    let tree = tree::<G>(config, rng.below(2) == 0);
    let base = tree.range().start.0
        + if G::VA_BITS > 20 {
            (rng.below(3) * G::size(2) / 2) & !(G::PAGE_SIZE - 1)
        } else {
            0
        };
    let mut naive = Naive::default();
    for step in 0..steps {
        let page = rng.below(window);
        let va = VirtAddr(base + (page << G::PAGE_SHIFT));
        let pages = (1 + rng.below(window - page)).min(if rng.below(2) == 0 { 40 } else { window });
        let range = VirtRange::new(va, pages << G::PAGE_SHIFT);
        let each = |f: &mut dyn FnMut(u64)| {
            for i in 0..pages {
                f(va.0 + (i << G::PAGE_SHIFT));
            }
        };
        match rng.below(8) {
            0..=2 => {
                let shape = shape(&mut rng, window - page);
                let attributes = match rng.below(3) {
                    0 => Attributes::KERNEL_DATA,
                    1 => Attributes::KERNEL_RODATA,
                    _ => Attributes::DEVICE,
                };
                let frames = shape.frames();
                let taken = (0..frames.len() as u64)
                    .map(|i| va.0 + (i << G::PAGE_SHIFT))
                    .find(|va| naive.0.contains_key(va));
                let mut result = shape.map(&tree, va, attributes, LeafSet::ALL);
                if matches!(result, Err(failure) if matches!(failure.error, Error::EmptyTable { .. })) {
                    support::prune(&tree);
                    result = shape.map(&tree, va, attributes, LeafSet::ALL);
                }
                match (taken, result) {
                    (None, Ok(outcome)) => {
                        let size = (frames.len() as u64) << G::PAGE_SHIFT;
                        let got = leaves_in(&tree, VirtRange::new(va, size));
                        let got: Vec<_> = got.iter().map(|l| (l.va.0, l.pa.0, l.size)).collect();
                        assert_eq!(
                            got,
                            expected_leaves::<G>(va, &frames, leaves),
                            "seed {seed} step {step}"
                        );
                        assert_eq!(outcome.leaves.pages::<G>(), frames.len() as u64);
                        for (i, frame) in frames.iter().enumerate() {
                            let offset = (i as u64) << G::PAGE_SHIFT;
                            naive
                                .0
                                .insert(va.0 + offset, (frame << G::PAGE_SHIFT, attributes, true));
                        }
                    }
                    (Some(at), Err(failure)) => {
                        let Error::Occupied { va, .. } = failure.error else {
                            panic!("seed {seed} step {step}: {failure:?}");
                        };
                        assert_eq!(va.0, at, "seed {seed} step {step}");
                    }
                    (taken, result) => panic!("seed {seed} step {step}: taken {taken:?}, {result:?}"),
                }
            }
            3 | 4 => {
                let mut batch = tree.batch();
                let outcome = tree.unmap(range, &mut batch).expect("memory suffices");
                batch.flush();
                let mut gone = 0;
                each(&mut |va| gone += u64::from(naive.0.remove(&va).is_some()));
                assert_eq!(outcome.leaves.pages::<G>(), gone, "seed {seed} step {step}");
            }
            5 => {
                let change: fn(Attributes) -> Attributes = match rng.below(3) {
                    0 => |a| a.read_only(),
                    1 => |a| a.writable(),
                    _ => |a| {
                        Attributes::kernel(if a.memory() == MemoryType::NORMAL {
                            MemoryType::NORMAL_NC
                        } else {
                            a.memory()
                        })
                    },
                };
                let mut holes = None;
                each(&mut |va| {
                    if !naive.0.contains_key(&va) {
                        holes = holes.or(Some(va));
                    }
                });
                let mut batch = tree.batch();
                let result = tree.protect(range, change, &mut batch);
                batch.flush();
                match (holes, result) {
                    (None, Ok(_)) => each(&mut |va| {
                        let page = naive.0.get_mut(&va).expect("no hole");
                        page.1 = change(page.1);
                    }),
                    (Some(va), Err(failure)) => assert_eq!(
                        failure.error,
                        Error::NotMapped(VirtAddr(va)),
                        "seed {seed} step {step}"
                    ),
                    (holes, result) => panic!("seed {seed} step {step}: {holes:?} {result:?}"),
                }
            }
            6 => {
                let valid = rng.below(2) == 0;
                let mut batch = tree.batch();
                let result = tree.set_valid(range, valid, &mut batch);
                batch.flush();
                if result.is_ok() {
                    each(&mut |va| naive.0.get_mut(&va).expect("no hole").2 = valid);
                }
            }
            _ => {
                let mut batch = tree.batch();
                if rng.below(2) == 0 {
                    tree.split(range, &mut batch).expect("memory suffices");
                    batch.flush();
                    for leaf in leaves_in(&tree, range) {
                        assert!(
                            leaf.range::<G>().start.0 >= range.start.0,
                            "seed {seed} step {step}"
                        );
                        assert!(
                            leaf.range::<G>().last().0 <= range.last().0,
                            "seed {seed} step {step}"
                        );
                    }
                } else {
                    tree.coalesce(range, &mut batch).expect("takes no memory");
                    batch.flush();
                }
            }
        }
        audit(&tree);
        assert_eq!(Naive::of(&tree), naive, "seed {seed} step {step}");
    }
    let mut batch = tree.batch();
    tree.unmap(tree.range(), &mut batch).expect("nothing to split");
    batch.flush();
    assert_eq!(tree.tables().live(), 1, "only the root is left");
}

#[test]
fn random_sequences_on_4k_equal_the_naive_map() {
    for seed in 1..60 {
        run_sequence::<Granule4K>(seed * 7919, 40, 1400);
    }
}

#[test]
fn random_sequences_on_16k_equal_the_naive_map() {
    for seed in 1..25 {
        run_sequence::<Granule16K>(seed * 104_729, 30, 5000);
    }
}

#[test]
fn random_sequences_on_64k_equal_the_naive_map() {
    for seed in 1..20 {
        run_sequence::<Granule64K>(seed * 1_299_709, 30, 9000);
    }
}

#[test]
fn random_sequences_on_the_tiny_granule_equal_the_naive_map() {
    for seed in 1..3000 {
        run_sequence::<TinyGranule>(seed * 15_485_863, 40, 64);
    }
}
