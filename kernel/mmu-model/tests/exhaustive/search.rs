use super::ops::Op;
use super::{BASE, Naive, PAGE};
use mmu_model::{Features, Model, ModelState, descriptor as d};
use paging::{Config, Error, Failure, Half, PhysAddr, TinyGranule, Tree};
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

pub fn found(model: &Model<TinyGranule>) -> Naive {
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

struct Visited([Mutex<HashSet<u128>>; 64]);

impl Visited {
    pub fn new() -> Self {
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

struct Node {
    pub state: ModelState,
    path: Vec<Op>,
}

pub struct Search {
    pub config: Config,
    pub features: Features,
    /// The last one repeats.
    pub ops: Vec<Vec<Op>>,
    pub depth: usize,
}

impl Search {
    pub fn new(ops: Vec<Vec<Op>>) -> Self {
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

    pub fn run_here(&self) -> (usize, u64) {
        self.run_on(0)
    }

    pub fn run(&self) -> (usize, u64) {
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
            // No walk is under way: prune may free tables.
            tree.prune(tree.range()).expect("the tree's own range");
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

    fn refuse(&self, model: &Model<TinyGranule>, root: PhysAddr, node: &Node, op: &Op, k: u64, before: u128) {
        model.restore(&node.state);
        model.fail_alloc_after(k);
        let tree = Tree::new(root, Half::High, model.cpu(0), model.cpu(0), self.config);
        let result = op.run(&tree);
        tree.prune(tree.range()).expect("the tree's own range");
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

    fn assert_finished(
        &self,
        model: &Model<TinyGranule>,
        root: PhysAddr,
        node: &Node,
        op: &Op,
        refused: Option<u64>,
    ) {
        let leaked = model.nr_tables() - model.nr_linked_tables();
        if model.violations().is_empty() && model.is_quiescent() && leaked == 0 {
            return;
        }
        let features = Features {
            log_events: 300,
            ..self.features.clone()
        };
        let (again, again_root) = Model::with_root(features);
        assert_eq!(again_root, root);
        let tree = Tree::new(root, Half::High, again.cpu(0), again.cpu(0), self.config);
        for op in &node.path {
            let _ = op.run(&tree);
            tree.prune(tree.range()).expect("the tree's own range");
        }
        if let Some(k) = refused {
            again.fail_alloc_after(k);
        }
        let result = op.run(&tree);
        tree.prune(tree.range()).expect("the tree's own range");
        println!(
            "{op:?} after {:?}, table refused: {refused:?}: {result:?}",
            node.path
        );
        again.assert_quiescent();
        panic!(
            "{leaked} tables leaked, {:?}, quiescent {}: {op:?} after {:?} (not when replayed)",
            model.violations(),
            model.is_quiescent(),
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
