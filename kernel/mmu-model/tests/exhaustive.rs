//! Every sequence of the engine's operations, up to a depth, on the smallest geometry: 64 pages, leaves of 1, 2, 4, 8, 16
//! and 32 pages, three levels.
//!
//! A breadth-first search. A state is what the model's memory and TLBs are; states that no walk can tell apart are visited
//! once. After each operation and its flush: no rule of the model is broken, nothing stale is left, no table is leaked, and
//! the model's own walker finds exactly what a `BTreeMap` from pages to frames and attributes says. An operation that must
//! fail leaves the state as it was; so does each that is refused its k-th table page, for every k.
//!
//! `MMU_MODEL_DEPTH` adds to the depth of every search: 0 by default, for half a minute on two CPUs; 1 for some minutes.

use mmu_model::{Cpu, Features, Model, ModelState, descriptor as d};
use paging::{
    Attributes, BreakPolicy, Config, Error, Extent, Extents, Failure, FlushBatch, Half, LeafSet, PageArray,
    Pfn, PhysAddr, PhysRange, TinyGranule, Tree, VirtAddr, VirtRange,
};
use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

type TinyTree<'a> = Tree<TinyGranule, Cpu<'a, TinyGranule>, Cpu<'a, TinyGranule>>;

type TinyBatch<'t, 'a> = FlushBatch<'t, TinyGranule, Cpu<'a, TinyGranule>, Cpu<'a, TinyGranule>>;

const PAGE: u64 = 1 << 12;
const BASE: u64 = 0u64.wrapping_sub(64 * PAGE);

/// What should be mapped: page to frame and attribute bits. Told by someone who knows nothing of leaves.
type Naive = BTreeMap<u64, (u64, u64)>;

/// Where the frames of a map come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Source {
    /// One physical range, congruent to the pages: the largest leaves.
    Congruent,
    /// The same, one frame off: single pages.
    OddPhase,
    /// The same, two frames off: groups of two.
    EvenPhase,
    /// An array that happens to be congruent throughout.
    Array,
    /// An array whose second half lies elsewhere.
    BrokenArray,
    /// Physical runs: one page, then the rest, consecutive; then a page far away.
    Runs,
}

const SOURCES: [Source; 6] = [
    Source::Congruent,
    Source::OddPhase,
    Source::EvenPhase,
    Source::Array,
    Source::BrokenArray,
    Source::Runs,
];

impl Source {
    fn frames(self, start: u64, pages: u64) -> Vec<u64> {
        let from = |base: u64| (0..pages).map(move |i| base + start + i);
        match self {
            Self::Congruent | Self::Array => from(0x100).collect(),
            Self::OddPhase => from(0x201).collect(),
            Self::EvenPhase => from(0x302).collect(),
            Self::BrokenArray => (0..pages)
                .map(|i| start + i + if i < pages / 2 { 0x400 } else { 0x500 })
                .collect(),
            Self::Runs => (0..pages)
                .map(|i| start + i + if i + 1 < pages { 0x600 } else { 0x700 })
                .collect(),
        }
    }
}

/// What a protect makes of the attributes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Change {
    ReadOnly,
    Writable,
    Uncached,
}

impl Change {
    fn apply(self, old: Attributes) -> Attributes {
        match self {
            Self::ReadOnly => old.read_only(),
            Self::Writable => old.writable(),
            Self::Uncached => {
                let new = Attributes::kernel(paging::MemoryType::NORMAL_NC);
                if old.is_writable() { new.writable() } else { new }
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum What {
    Map(Source),
    Unmap,
    Protect(Change),
    Split,
    Coalesce,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Op {
    what: What,
    start: u64,
    pages: u64,
}

impl Op {
    fn range(self) -> VirtRange {
        VirtRange::new(VirtAddr(BASE + self.start * PAGE), self.pages * PAGE)
    }

    fn pages(self) -> std::ops::Range<u64> {
        self.start..self.start + self.pages
    }

    /// On the naive map: the new one, or the error that the engine must give.
    fn expected(self, before: &Naive) -> Result<Naive, Error> {
        let mut after = before.clone();
        match self.what {
            What::Map(source) => {
                if let Some(page) = self.pages().find(|page| before.contains_key(page)) {
                    // Where, the caller compares; at which level and what, is the engine's business.
                    return Err(Error::NotMapped(VirtAddr(BASE + page * PAGE)));
                }
                let frames = source.frames(self.start, self.pages);
                let bits = Attributes::KERNEL_DATA.bits();
                after.extend(
                    self.pages()
                        .zip(frames)
                        .map(|(page, frame)| (page, (frame, bits))),
                );
            }
            What::Unmap => self.pages().for_each(|page| {
                after.remove(&page);
            }),
            What::Protect(change) => {
                for page in self.pages() {
                    match after.get_mut(&page) {
                        Some((_, bits)) => *bits = change.apply(Attributes::from_bits(*bits)).bits(),
                        None => return Err(Error::NotMapped(VirtAddr(BASE + page * PAGE))),
                    }
                }
            }
            What::Split | What::Coalesce => {}
        }
        Ok(after)
    }

    /// On the engine, with the flush that belongs to it.
    fn run(self, tree: &TinyTree<'_>) -> Result<(), Failure> {
        let mut batch = tree.batch();
        self.run_in(tree, &mut batch)?;
        batch.flush();
        Ok(())
    }

    /// On the engine; what is to be flushed goes into `batch`.
    fn run_in<'t, 'a>(self, tree: &'t TinyTree<'a>, batch: &mut TinyBatch<'t, 'a>) -> Result<(), Failure> {
        let range = self.range();
        match self.what {
            What::Map(source) => {
                let frames = source.frames(self.start, self.pages);
                let attributes = Attributes::KERNEL_DATA;
                match source {
                    Source::Congruent | Source::OddPhase | Source::EvenPhase => {
                        let mut source = PhysRange::new(PhysAddr(frames[0] * PAGE), self.pages);
                        tree.map(range, &mut source, attributes, LeafSet::ALL)?;
                    }
                    Source::Array | Source::BrokenArray => {
                        let frames: Vec<_> = frames.into_iter().map(Pfn).collect();
                        let mut source = PageArray::new(frames.as_slice());
                        tree.map(range, &mut source, attributes, LeafSet::ALL)?;
                    }
                    Source::Runs => {
                        let cuts = [0, 1.min(self.pages - 1), self.pages - 1, self.pages];
                        let runs: Vec<_> = cuts
                            .windows(2)
                            .filter(|cut| cut[0] != cut[1])
                            .map(|cut| Extent {
                                start: Pfn(frames[cut[0] as usize]),
                                pages: cut[1] - cut[0],
                            })
                            .collect();
                        tree.map(range, &mut Extents::new(&runs), attributes, LeafSet::ALL)?;
                    }
                }
            }
            What::Unmap => {
                tree.unmap(range, batch)?;
            }
            What::Protect(change) => {
                tree.protect(range, |old| change.apply(old), batch)?;
            }
            What::Split => {
                tree.split(range, batch)?;
            }
            What::Coalesce => {
                tree.coalesce(range, batch)?;
            }
        }
        Ok(())
    }
}

/// What the model's walker finds, page by page.
fn found(model: &Model<TinyGranule>) -> Naive {
    let mut naive = Naive::new();
    for (va, leaf) in model.leaves() {
        let pages = d::size::<TinyGranule>(leaf.level) / PAGE;
        let bits = leaf.descriptor & !(d::ADDRESS | d::CONTIGUOUS | 0b11);
        let first = (va.0 - BASE) / PAGE;
        naive.extend((0..pages).map(|i| (first + i, (leaf.pa / PAGE + i, bits))));
    }
    naive
}

fn key(model: &Model<TinyGranule>) -> u128 {
    let words = model.canonical();
    let half = |salt: u64| {
        let mut hasher = DefaultHasher::new();
        (salt, &words).hash(&mut hasher);
        u128::from(hasher.finish())
    };
    half(0) << 64 | half(1)
}

/// A set that several threads insert into.
struct Visited([Mutex<HashSet<u128>>; 64]);

impl Visited {
    fn new() -> Self {
        Self(std::array::from_fn(|_| Mutex::default()))
    }

    fn insert(&self, key: u128) -> bool {
        let shard = &self.0[(key % 64) as usize];
        shard.lock().expect("no panic inside").insert(key)
    }

    fn len(&self) -> usize {
        let sizes = self.0.iter().map(|shard| shard.lock().map_or(0, |set| set.len()));
        sizes.sum()
    }
}

/// A state of the search, and how it was come by.
struct Node {
    state: ModelState,
    path: Vec<Op>,
}

struct Search {
    config: Config,
    features: Features,
    /// The operations tried at each depth; the last is tried at all further ones.
    ops: Vec<Vec<Op>>,
    depth: usize,
}

impl Search {
    fn new(ops: Vec<Vec<Op>>) -> Self {
        Self {
            config: Config::default(),
            features: Features {
                log_events: 0,
                pool_pages: 64,
                tlbi_range: true,
                ..Features::default()
            },
            depth: ops.len() + depth_from_environment(),
            ops,
        }
    }

    /// The same on this thread alone, so that a panic is this thread's.
    fn run_here(&self) -> (usize, u64) {
        self.run_on(0)
    }

    /// Runs to the end. Gives the numbers of states and of operations tried.
    fn run(&self) -> (usize, u64) {
        self.run_on(std::thread::available_parallelism().map_or(1, usize::from))
    }

    fn run_on(&self, threads: usize) -> (usize, u64) {
        let (model, root) = Model::<TinyGranule>::with_root(self.features.clone());
        let visited = Visited::new();
        visited.insert(key(&model));
        let tried = AtomicU64::new(0);
        let mut frontier = vec![Node {
            state: model.state(),
            path: Vec::new(),
        }];
        for depth in 0..self.depth {
            let ops = &self.ops[depth.min(self.ops.len() - 1)];
            // The states of the last depth are judged, but nothing follows from them.
            let keep = depth + 1 < self.depth;
            let next = Mutex::new(Vec::new());
            let at = AtomicUsize::new(0);
            let work = || {
                let model = model.clone();
                let mut mine = Vec::new();
                while let Some(node) = frontier.get(at.fetch_add(1, Ordering::Relaxed)) {
                    tried.fetch_add(ops.len() as u64, Ordering::Relaxed);
                    self.expand(&model, root, node, ops, &visited, keep, &mut mine);
                }
                next.lock().expect("no panic inside").append(&mut mine);
            };
            if threads == 0 {
                work();
            } else {
                std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
            }
            frontier = next.into_inner().expect("no panic inside");
        }
        (visited.len(), tried.into_inner())
    }

    #[allow(clippy::too_many_arguments, reason = "one call")]
    fn expand(
        &self,
        model: &Model<TinyGranule>,
        root: PhysAddr,
        node: &Node,
        ops: &[Op],
        visited: &Visited,
        keep: bool,
        next: &mut Vec<Node>,
    ) {
        model.restore(&node.state);
        let before = found(model);
        let before_key = key(model);
        for op in ops {
            model.restore(&node.state);
            let tree = Tree::new(root, Half::High, model.cpu(0), model.cpu(0), self.config);
            let story = || format!("{op:?} after {:?}", node.path);
            let allocs = model.counters().allocs;
            let result = op.run(&tree);
            // Nobody walks: what a map took out goes back at once.
            tree.reclaim();
            let allocs = model.counters().allocs - allocs;
            self.assert_finished(model, root, node, op, None);
            match (op.expected(&before), result) {
                (Ok(after), Ok(())) => assert_eq!(found(model), after, "{}", story()),
                (Err(Error::NotMapped(at)), Err(failure)) => {
                    let place = match failure.error {
                        Error::NotMapped(va) | Error::Occupied { va, .. } => Some(va),
                        _ => None,
                    };
                    assert_eq!(place, Some(at), "{failure:?} from {}", story());
                    assert_eq!(key(model), before_key, "{}", story());
                    continue;
                }
                (expected, result) => panic!("{result:?} in place of {expected:?} from {}", story()),
            }
            let key = key(model);
            let new = visited.insert(key);
            if new && keep {
                let path = [node.path.as_slice(), &[*op]].concat();
                next.push(Node {
                    state: model.state(),
                    path,
                });
            }
            for k in 0..allocs {
                self.refuse(model, root, node, op, k, before_key);
            }
        }
    }

    /// The same with its `k`th table page refused: fails, and nothing has changed.
    fn refuse(&self, model: &Model<TinyGranule>, root: PhysAddr, node: &Node, op: &Op, k: u64, before: u128) {
        model.restore(&node.state);
        model.fail_alloc_after(k);
        let tree = Tree::new(root, Half::High, model.cpu(0), model.cpu(0), self.config);
        let result = op.run(&tree);
        tree.reclaim();
        assert!(
            matches!(
                result,
                Err(Failure {
                    error: Error::OutOfTables(_),
                    ..
                })
            ),
            "{result:?} from {op:?} without its table {k} after {:?}",
            node.path
        );
        self.assert_finished(model, root, node, op, Some(k));
        assert_eq!(
            key(model),
            before,
            "{op:?} without its table {k} after {:?}",
            node.path
        );
    }

    /// No rule is broken, nothing is left to do, nothing is leaked.
    fn assert_finished(
        &self,
        model: &Model<TinyGranule>,
        root: PhysAddr,
        node: &Node,
        op: &Op,
        refused: Option<u64>,
    ) {
        let leaked = model.nr_tables() - model.nr_linked_tables();
        if model.violations().is_empty() && model.is_settled() && leaked == 0 {
            return;
        }
        // Once more from the start, with a log.
        let features = Features {
            log_events: 300,
            ..self.features.clone()
        };
        let (again, again_root) = Model::with_root(features);
        assert_eq!(again_root, root);
        let tree = Tree::new(root, Half::High, again.cpu(0), again.cpu(0), self.config);
        for op in &node.path {
            let _ = op.run(&tree);
            tree.reclaim();
        }
        if let Some(k) = refused {
            again.fail_alloc_after(k);
        }
        let result = op.run(&tree);
        tree.reclaim();
        println!(
            "{op:?} after {:?}, table refused: {refused:?}: {result:?}",
            node.path
        );
        again.assert_settled();
        panic!(
            "{leaked} tables leaked, {:?}, settled {}: {op:?} after {:?} (not when replayed)",
            model.violations(),
            model.is_settled(),
            node.path
        );
    }
}

fn depth_from_environment() -> usize {
    let Ok(more) = std::env::var("MMU_MODEL_DEPTH") else {
        return 0;
    };
    let parsed = more.parse();
    parsed.unwrap_or_else(|_| panic!("MMU_MODEL_DEPTH={more} is no number"))
}

/// All ranges that begin and end at two of `edges`.
fn ranges(edges: &[u64]) -> Vec<(u64, u64)> {
    let pairs = edges
        .iter()
        .flat_map(|start| edges.iter().map(move |end| (*start, *end)));
    pairs
        .filter(|(start, end)| start < end)
        .map(|(start, end)| (start, end - start))
        .collect()
}

fn ops(ranges: &[(u64, u64)], what: &[What]) -> Vec<Op> {
    let all = what.iter().flat_map(|what| {
        ranges.iter().map(|(start, pages)| Op {
            what: *what,
            start: *start,
            pages: *pages,
        })
    });
    all.collect()
}

const EDITS: [What; 6] = [
    What::Unmap,
    What::Protect(Change::ReadOnly),
    What::Protect(Change::Writable),
    What::Protect(Change::Uncached),
    What::Split,
    What::Coalesce,
];

fn maps() -> Vec<What> {
    SOURCES.into_iter().map(What::Map).collect()
}

fn everything() -> Vec<What> {
    [maps().as_slice(), &EDITS].concat()
}

#[track_caller]
fn assert_searched(name: &str, search: &Search, states: usize) {
    let (found, tried) = search.run();
    println!(
        "{name}: {found} states, {tried} operations, depth {}",
        search.depth
    );
    assert!(found >= states, "{name}: only {found} states");
}

/// Edges that cut every size of leaf at its middle, beside it and at its border.
const EDGES: [u64; 11] = [0, 1, 2, 4, 7, 16, 24, 32, 33, 48, 64];
/// Fewer, for the last step of a longer sequence.
const FEW_EDGES: [u64; 6] = [0, 2, 17, 32, 56, 64];
/// Edges in the first two last-level tables.
const EIGHT_PAGES: [u64; 7] = [0, 1, 2, 3, 4, 6, 8];

#[test]
fn every_sequence_of_three_operations_over_the_whole_space() {
    let all = ops(&ranges(&EDGES), &everything());
    let last = ops(&ranges(&FEW_EDGES), &everything());
    assert_searched("whole space", &Search::new(vec![all.clone(), all, last]), 50_000);
}

#[test]
fn every_edit_of_every_edit_of_the_whole_space_mapped_with_the_largest_leaves() {
    let map = ops(&[(0, 64), (1, 63)], &[What::Map(Source::Congruent)]);
    let edits = ops(&ranges(&EDGES), &EDITS);
    let search = Search::new(vec![map, edits.clone(), edits]);
    assert_searched("largest leaves", &search, 10_000);
}

#[test]
fn every_sequence_of_four_operations_on_eight_pages() {
    let all = ops(&ranges(&EIGHT_PAGES), &everything());
    let last = ops(&[(0, 8), (0, 2), (1, 1), (1, 6), (2, 2), (4, 4)], &everything());
    let search = Search::new(vec![all.clone(), all.clone(), all, last]);
    assert_searched("eight pages", &search, 100_000);
}

/// Two steps are enough to meet every path that depends on the policy.
fn with_policy(name: &str, change: impl Fn(&mut Search)) {
    let map = ops(&ranges(&FEW_EDGES), &maps());
    let edits = ops(&ranges(&EDGES), &everything());
    let mut search = Search::new(vec![map, edits.clone()]);
    change(&mut search);
    assert_searched(name, &search, 1000);
    let map = ops(&[(0, 64), (1, 63)], &[What::Map(Source::Congruent)]);
    search.ops = vec![map, edits.clone(), ops(&ranges(&FEW_EDGES), &everything())];
    search.depth += 1;
    assert_searched(name, &search, 1000);
}

#[test]
fn without_range_tlbis() {
    with_policy("by VA", |search| search.features.tlbi_range = false);
}

#[test]
fn where_more_than_two_tlbis_become_one_for_all() {
    with_policy("flush all", |search| search.config.flush_all_above = 2);
    with_policy("flush all, by VA", |search| {
        search.config.flush_all_above = 2;
        search.features.tlbi_range = false;
    });
}

#[test]
fn where_every_tlbi_is_repeated() {
    with_policy("repeat TLBI", |search| search.config.repeat_tlbi = true);
}

#[test]
fn without_contiguous_groups() {
    with_policy("no groups", |search| {
        search.config.leaves = LeafSet::ALL.without_groups()
    });
}

#[test]
fn in_place_on_a_cpu_that_tolerates_it() {
    with_policy("in place", |search| {
        search.config.break_policy = BreakPolicy::InPlace;
        search.features.tolerates_size_change = true;
    });
}

#[test]
#[should_panic(expected = "BreakBeforeMake")]
fn in_place_on_a_cpu_that_does_not_tolerate_it_is_found_out() {
    let mut search = Search::new(vec![
        ops(&[(0, 64)], &[What::Map(Source::Congruent)]),
        ops(&[(1, 1)], &[What::Unmap]),
    ]);
    search.config.break_policy = BreakPolicy::InPlace;
    let _ = search.run_here();
}

/// Two operations on ranges that share no page, one flush: nothing is lost between them.
#[test]
fn two_operations_may_share_a_flush() {
    let (model, root) = Model::<TinyGranule>::with_root(Features {
        log_events: 300,
        tlbi_range: true,
        ..Features::default()
    });
    let empty = model.state();
    let tree = Tree::new(root, Half::High, model.cpu(0), model.cpu(0), Config::default());
    let edits = ops(&ranges(&[0, 1, 4, 7, 16, 32, 33, 64]), &EDITS);
    for source in SOURCES {
        let map = Op {
            what: What::Map(source),
            start: 0,
            pages: 64,
        };
        model.restore(&empty);
        map.run(&tree).expect("memory suffices");
        let mapped = model.state();
        let before = found(&model);
        for first in &edits {
            for second in edits
                .iter()
                .filter(|second| !first.range().overlaps(second.range()))
            {
                model.restore(&mapped);
                let mut batch = tree.batch();
                let results = [first, second].map(|op| op.run_in(&tree, &mut batch));
                batch.flush();
                assert_eq!(results, [Ok(()), Ok(())], "{first:?}, {second:?}");
                if !model.is_settled() || !model.violations().is_empty() {
                    println!("{first:?}, {second:?} after {map:?}");
                    model.assert_settled();
                }
                let after = first.expected(&before).and_then(|naive| second.expected(&naive));
                assert_eq!(Ok(found(&model)), after, "{first:?}, {second:?} after {map:?}");
            }
        }
    }
}
