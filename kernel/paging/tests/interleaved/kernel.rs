//! A kernel around the engine, on one CPU: it hands frames and addresses on after the flush, keeps
//! walks out where required, and retries faults of break windows.

use crate::interleaved::BASE;
use crate::interleaved::seat::Seat;
use mmu_model::{Access, Released};
use paging::{
    Attributes, Config, Error, FlushBatch, Half, LeafSet, Mmu, Pending, PhysAddr, PhysRange, TinyGranule,
    Tree, VirtAddr, VirtRange,
};
use std::sync::{Arc, Mutex, PoisonError};

const PAGE: u64 = 1 << 12;
const DATA: Attributes = Attributes::KERNEL_DATA;

/// Every leaf is possible.
pub fn frame(page: u64) -> PhysAddr {
    PhysAddr((0x1000 + page) * PAGE)
}

pub fn range(page: u64, pages: u64) -> VirtRange {
    VirtRange::new(VirtAddr(BASE + page * PAGE), pages * PAGE)
}

/// From the release of a lock to the next holder.
#[derive(Default)]
struct Knowledge(Mutex<Released>);

impl Knowledge {
    fn acquire(&self, seat: &Seat) {
        let released = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seat.model.acquire(seat.number, &released);
    }

    fn release(&self, seat: &Seat) {
        let mut released = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        released.join(&seat.model.release(seat.number));
    }
}

#[derive(Default)]
pub struct Shared {
    /// Exclusive for unlinking tables that others may walk.
    walks: (shuttle::sync::RwLock<()>, Knowledge),
    lazy: (shuttle::sync::Mutex<Vec<Unflushed>>, Knowledge),
}

struct Left {
    page: u64,
    pages: u64,
    frames: Vec<PhysAddr>,
}

type Unflushed = (Left, Pending<TinyGranule>);
type Batch<'t> = FlushBatch<'t, TinyGranule, Seat, Seat>;

#[derive(Clone)]
pub struct Kernel {
    pub seat: Seat,
    pub tree: Arc<Tree<TinyGranule, Seat, Seat>>,
    shared: Arc<Shared>,
}

impl Kernel {
    pub fn new(seat: Seat, root: PhysAddr, shared: Arc<Shared>) -> Self {
        let tree = Tree::new(root, Half::High, seat.clone(), seat.clone(), Config::default());
        Self {
            seat,
            tree: Arc::new(tree),
            shared,
        }
    }

    pub fn on(&self, number: usize) -> Self {
        Self::new(self.seat.other(number), self.tree.root(), self.shared.clone())
    }

    pub fn beside_walks<R>(&self, work: impl FnOnce() -> R) -> R {
        let (lock, knowledge) = &self.shared.walks;
        let _reading = lock.read().expect("no panic under this lock");
        knowledge.acquire(&self.seat);
        let result = work();
        knowledge.release(&self.seat);
        result
    }

    pub fn without_walks<R>(&self, work: impl FnOnce() -> R) -> R {
        let (lock, knowledge) = &self.shared.walks;
        let _alone = lock.write().expect("no panic under this lock");
        knowledge.acquire(&self.seat);
        let result = work();
        knowledge.release(&self.seat);
        result
    }

    pub fn try_map(&self, page: u64, pages: u64) -> Result<(), Error> {
        let mut source = PhysRange::new(frame(page), pages);
        let mapped = self.tree.map(range(page, pages), &mut source, DATA, LeafSet::ALL);
        mapped.map(|_| ()).map_err(|failure| failure.error)
    }

    pub fn map(&self, page: u64, pages: u64) {
        self.try_map(page, pages)
            .unwrap_or_else(|error| panic!("map of {pages} pages at {page}: {error}"));
        self.assert_reaches(page, pages);
    }

    pub fn map_page(&self, page: u64, to: u64) {
        let mut source = PhysRange::new(frame(to), 1);
        self.tree
            .map(range(page, 1), &mut source, DATA, LeafSet::ALL)
            .expect("vacant, and memory suffices");
        assert_eq!(
            self.seat.cpu().access(range(page, 1).start, Access::Write),
            Ok(frame(to))
        );
    }

    pub fn unmap(&self, page: u64, pages: u64) {
        let mut batch = self.tree.batch();
        let left = self.unmap_into(page, pages, &mut batch);
        batch.flush();
        self.give_away(&left);
    }

    fn unmap_into(&self, page: u64, pages: u64, batch: &mut Batch<'_>) -> Left {
        let frames = (page..page + pages)
            .filter_map(|page| self.seat.model.translate(range(page, 1).start))
            .map(|leaf| PhysAddr(leaf.pa))
            .collect();
        let range = range(page, pages);
        self.tree.unmap(range, batch).expect("memory suffices");
        Left { page, pages, frames }
    }

    fn give_away(&self, left: &Left) {
        let model = &self.seat.model;
        model.va_reused(range(left.page, left.pages));
        for frame in &left.frames {
            model.frame_reused(*frame, PAGE);
        }
        for page in left.page..left.page + left.pages {
            for cpu in 0..crate::interleaved::CPUS {
                let access = model.cpu(cpu).access(range(page, 1).start, Access::Read);
                assert!(access.is_err(), "page {page} is still mapped");
            }
        }
    }

    /// To any CPU.
    pub fn unmap_lazily(&self, page: u64, pages: u64) {
        let mut batch = self.tree.batch();
        let left = self.unmap_into(page, pages, &mut batch);
        let mut pending = Pending::new();
        batch.defer_to(&mut pending);
        let (lock, knowledge) = &self.shared.lazy;
        let mut lazy = lock.lock().expect("no panic under this lock");
        lazy.push((left, pending));
        knowledge.release(&self.seat);
    }

    /// Returns the pages. `foreign` false is a defect.
    pub fn purge(&self, foreign: bool) -> Vec<(u64, u64)> {
        let (lock, knowledge) = &self.shared.lazy;
        let waiting = {
            let mut lazy = lock.lock().expect("no panic under this lock");
            knowledge.acquire(&self.seat);
            std::mem::take(&mut *lazy)
        };
        let mut all = Pending::new();
        let mut given = Vec::new();
        for (left, mut pending) in waiting {
            self.tree.defer_all(&mut pending, &mut all);
            given.push(left);
        }
        self.tree.flush(all, foreign);
        given.iter().for_each(|left| self.give_away(left));
        given.iter().map(|left| (left.page, left.pages)).collect()
    }

    pub fn prune(&self) {
        self.tree.prune(self.tree.range()).expect("the tree's own range");
    }

    pub fn assert_reaches(&self, page: u64, pages: u64) {
        for page in page..page + pages {
            let reached = self.seat.cpu().access(range(page, 1).start, Access::Write);
            assert_eq!(reached, Ok(frame(page)), "page {page}");
        }
    }

    /// The page's leaf is split, folded and protected meanwhile. It reads right, or faults until
    /// the handler asks again.
    pub fn read_beside_edits(&self, page: u64) {
        let va = range(page, 1).start;
        let cpu = self.seat.turn();
        let mut faults = false;
        for may in cpu.possible(va, Access::Read) {
            match may {
                Ok(pa) => assert_eq!(pa, frame(page), "page {page}"),
                Err(_) => faults = true,
            }
        }
        assert!(
            !faults || self.translates(page),
            "a fault on page {page} that no break window explains"
        );
    }

    /// Whether the page is there, now or when no window is open.
    pub fn translates(&self, page: u64) -> bool {
        let va = range(page, 1).start;
        // Exception entry is a context synchronisation.
        self.seat.isb();
        let asks = || self.seat.turn().at(va, Access::Read).is_ok();
        let wait = |_| {
            self.seat.turn();
        };
        self.seat.windows.translates(self.seat.number, asks, wait)
    }

    pub fn assert_translates(&self, page: u64) {
        let found = self.beside_walks(|| self.tree.translate(range(page, 1).start));
        let pa = found.map(|leaf| leaf.translate(range(page, 1).start));
        assert_eq!(pa, Some(frame(page)), "page {page}");
    }
}
