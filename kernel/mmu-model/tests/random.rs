//! Random operations on real granules: several to a flush, flushes by another CPU, refused tables.

use crate::common::Rig;
use mmu_model::{Access, Cpu, Features, descriptor as d};
use paging::{
    Attributes, Config, Failure, Granule, Half, LeafSet, MemoryType, Mmu, PageArray, Pending, Pfn, PhysAddr,
    PhysRange, Tree, VirtAddr, VirtRange,
};
use std::collections::BTreeMap;

struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

struct Run<'a, G: Granule> {
    rig: &'a Rig<G>,
    rng: Rng,
    trees: Vec<Tree<G, Cpu<'a, G>, Cpu<'a, G>>>,
    naive: BTreeMap<u64, (u64, Attributes)>,
    lazy: Vec<u64>,
    pending: Pending<G>,
    cpu: usize,
    base: u64,
    pages: u64,
    steps: u64,
    maps: u64,
}

impl<'a, G: Granule> Run<'a, G> {
    fn new(rig: &'a Rig<G>, seed: u64, config: Config) -> Self {
        let block = 1 << G::INDEX_BITS;
        let trees = (0..2)
            .map(|cpu| Tree::new(rig.root, Half::High, rig.cpu(cpu), rig.cpu(cpu), config))
            .collect();
        Self {
            rig,
            rng: Rng(seed),
            trees,
            naive: BTreeMap::new(),
            lazy: Vec::new(),
            pending: Pending::new(),
            cpu: 0,
            base: block << G::INDEX_BITS,
            pages: 3 * block,
            steps: 0,
            maps: 0,
        }
    }

    fn tree(&self) -> &Tree<G, Cpu<'a, G>, Cpu<'a, G>> {
        &self.trees[self.cpu]
    }

    fn va(&self, page: u64) -> VirtAddr {
        self.rig.va(self.base - self.pages / 2 + page)
    }

    fn range(&self, page: u64, pages: u64) -> VirtRange {
        VirtRange::new(self.va(page), pages << G::PAGE_SHIFT)
    }

    fn some_range(&mut self) -> (u64, u64) {
        let most = self.pages;
        let most = if self.rng.one_in(2) { 70 } else { most };
        let align = 1 << [0, 0, G::cont_shift(3), G::INDEX_BITS][self.rng.below(4) as usize];
        let page = self.rng.below(self.pages) / align * align;
        let pages = 1 + self.rng.below(most.min(self.pages - page));
        let pages = pages.next_multiple_of(align).min(self.pages - page);
        (page, pages)
    }

    fn map(&mut self) {
        let (page, pages) = self.some_range();
        let attributes = if self.rng.one_in(2) {
            Attributes::KERNEL_DATA
        } else {
            Attributes::KERNEL_RODATA
        };
        let taken = (page..page + pages).any(|page| self.naive.contains_key(&page));
        // The caller's rules: addresses may be held, and walk caches may hold links.
        let reused = |gone: &u64| (page..page + pages).contains(gone);
        if self.pending.nr_dead_tables() != 0 || self.lazy.iter().any(reused) {
            self.flush();
        }
        let block = 1u64 << G::INDEX_BITS;
        let phase = [0, 0, 1, 1 << G::cont_shift(3)][self.rng.below(4) as usize];
        let first = (self.base - self.pages / 2 + page) % (block << 6) + (block << 6) + phase;
        let broken = self.rng.below(2 * pages);
        let frames: Vec<_> = (0..pages)
            .map(|i| Pfn(first + i + if i >= broken { block << 7 } else { 0 }))
            .collect();
        let range = self.range(page, pages);
        let tree = self.tree();
        let result = if broken >= pages {
            let mut source = PhysRange::new(PhysAddr(first << G::PAGE_SHIFT), pages);
            tree.map(range, &mut source, attributes, LeafSet::ALL)
        } else {
            tree.map(
                range,
                &mut PageArray::new(frames.as_slice()),
                attributes,
                LeafSet::ALL,
            )
        };
        match result {
            Ok(_) => {
                assert!(!taken, "mapped over something at {range:?}");
                self.maps += 1;
                let new = frames.iter().enumerate();
                self.naive
                    .extend(new.map(|(i, frame)| (page + i as u64, (frame.0, attributes))));
            }
            Err(failure) => assert!(taken || is_out_of_tables(&failure), "{failure:?} at {range:?}"),
        }
    }

    fn edit(&mut self) {
        let (page, pages) = self.some_range();
        let range = self.range(page, pages);
        let which = self.rng.below(6);
        let mut batch = self.trees[self.cpu].batch();
        let tree = self.tree();
        let read_only: fn(Attributes) -> Attributes = Attributes::read_only;
        let writable: fn(Attributes) -> Attributes = Attributes::writable;
        let uncached: fn(Attributes) -> Attributes = |_| Attributes::kernel(MemoryType::NORMAL_NC);
        let change = match which {
            2 => Some(read_only),
            3 => Some(writable),
            4 => Some(uncached),
            _ => None,
        };
        let result = match (which, change) {
            (_, Some(change)) => tree.protect(range, change, &mut batch),
            (0 | 1, _) => tree.unmap(range, &mut batch),
            _ if page % 2 == 0 => tree.split(range, &mut batch),
            _ => tree.coalesce(range, &mut batch),
        };
        let mut pending = Pending::new();
        batch.defer_to(&mut pending);
        let tables = *self.tree().tables();
        self.pending.merge(&tables, pending);
        match (result, which, change) {
            (Ok(_), _, Some(change)) => {
                for page in page..page + pages {
                    let (_, attributes) = self.naive.get_mut(&page).expect("no hole was accepted");
                    *attributes = change(*attributes);
                }
            }
            (Ok(_), 0 | 1, _) => {
                for page in page..page + pages {
                    if self.naive.remove(&page).is_some() {
                        self.lazy.push(page);
                    }
                }
            }
            (Ok(_), ..) => {}
            (Err(failure), _, Some(_)) => {
                let hole = (page..page + pages).any(|page| !self.naive.contains_key(&page));
                assert!(hole || is_out_of_tables(&failure), "{failure:?} at {range:?}");
            }
            (Err(failure), ..) => assert!(is_out_of_tables(&failure), "{failure:?} at {range:?}"),
        }
    }

    fn flush(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        self.tree().flush(pending, true);
        for page in std::mem::take(&mut self.lazy) {
            self.rig.model.va_reused(self.range(page, 1));
        }
        self.rig.model.assert_quiescent();
        for tree in &self.trees {
            // No walk is under way: prune may free tables.
            tree.prune(tree.range()).expect("the tree's own range");
        }
        let leaked = self.rig.model.nr_tables() - self.rig.model.nr_linked_tables();
        assert_eq!(leaked, 0, "leaked tables");
    }

    fn compare(&self) {
        let mut found = BTreeMap::new();
        let first = self.va(0);
        for (va, leaf) in self.rig.model.leaves() {
            let page = va.offset_from(first) >> G::PAGE_SHIFT;
            let bits = leaf.descriptor & !(d::ADDRESS | d::CONTIGUOUS | 0b11);
            for i in 0..d::size::<G>(leaf.level) >> G::PAGE_SHIFT {
                found.insert(
                    page + i,
                    ((leaf.pa >> G::PAGE_SHIFT) + i, Attributes::from_bits(bits)),
                );
            }
        }
        assert!(
            found == self.naive,
            "not what was mapped, after {} steps",
            self.steps
        );
    }

    fn step(&mut self) {
        self.steps += 1;
        if self.rng.one_in(3) {
            let next = 1 - self.cpu;
            self.rig.model.hand_over(self.cpu, next);
            self.cpu = next;
        }
        if self.rng.one_in(8) {
            self.rig.model.fail_alloc_after(self.rng.below(3));
        }
        if self.rng.one_in(2) {
            self.map();
        } else {
            self.edit();
        }
        let _ = self.rig.model.cancel_alloc_failure();
        if self.rng.one_in(3) {
            self.flush();
            let page = self.rng.below(self.pages);
            let expected = self
                .naive
                .get(&page)
                .map(|(frame, _)| PhysAddr(frame << G::PAGE_SHIFT));
            let cpu = self.rig.cpu(self.cpu);
            // The other CPU may have flushed, and its ISB does not count.
            cpu.isb();
            assert_eq!(cpu.access_with_retry(self.va(page), Access::Read).ok(), expected);
        }
        self.rig.model.assert_clean();
        self.compare();
    }
}

fn is_out_of_tables(failure: &Failure) -> bool {
    matches!(failure.error, paging::Error::OutOfTables(_))
}

fn run<G: Granule>(seeds: u64, steps: u64) {
    let times = std::env::var("MMU_MODEL_SEEDS").map_or(1, |times| {
        times
            .parse()
            .unwrap_or_else(|_| panic!("MMU_MODEL_SEEDS={times} is no number"))
    });
    let mut maps = 0;
    for seed in 0..seeds * times {
        println!("{} pages, seed {seed}", G::NAME);
        let rig = Rig::<G>::new(Features {
            cpus: 2,
            tlbi_range: seed % 2 == 0,
            ..Features::default()
        });
        let config = Config {
            flush_all_above: if seed % 3 == 0 { 20 } else { 512 },
            leaves: if seed % 5 == 4 {
                LeafSet::ALL.without_groups()
            } else {
                LeafSet::ALL
            },
            ..Config::default()
        };
        let mut run = Run::new(&rig, seed + 1, config);
        (0..steps).for_each(|_| run.step());
        run.flush();
        let all = run.range(0, run.pages);
        let mut batch = run.trees[0].batch();
        rig.model.hand_over(run.cpu, 0);
        run.trees[0].unmap(all, &mut batch).expect("nothing to split");
        batch.flush();
        run.trees[0]
            .prune(all)
            .expect("the range of the tree that is used");
        rig.model.assert_quiescent();
        assert_eq!(rig.model.nr_tables(), 1, "only the root is left");
        maps += run.maps;
    }
    assert!(maps > seeds * steps / 10, "only {maps} maps succeeded");
}

#[test]
fn random_operations_with_4k_pages() {
    run::<paging::Granule4K>(200, 60);
}

#[test]
fn random_operations_with_16k_pages() {
    run::<paging::Granule16K>(40, 60);
}

#[test]
fn random_operations_with_64k_pages() {
    run::<paging::Granule64K>(12, 60);
}
