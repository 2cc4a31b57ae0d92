use crate::concurrent::DATA;
use crate::concurrent::pool::{Pool, Word};
use crate::support::{Live, audit};
use paging::mmu::NoMmu;
use paging::{Config, Error, Granule, Half, LeafSet, PhysAddr, PhysRange, Tables, Tree, VirtRange};
use std::collections::BTreeSet;

type Shared<'p, G, W> = Tree<G, &'p Pool<W>, NoMmu>;

pub fn tree<G: Granule, W: Word>(pool: &Pool<W>) -> Shared<'_, G, W> {
    let root = pool.alloc_table().expect("memory");
    Tree::new(root, Half::High, pool, NoMmu::default(), Config::default())
}

pub struct Handle<G: Granule, W: Word + 'static>(pub &'static Shared<'static, G, W>);

impl<G: Granule, W: Word> Clone for Handle<G, W> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<G: Granule, W: Word> Copy for Handle<G, W> {}

impl<G: Granule, W: Word> Handle<G, W> {
    pub fn range(self, page: u64, pages: u64) -> VirtRange {
        VirtRange::new(
            self.0.range().start.add(page << G::PAGE_SHIFT),
            pages << G::PAGE_SHIFT,
        )
    }

    pub fn frame(page: u64) -> PhysAddr {
        PhysAddr((0x1000 + page) << G::PAGE_SHIFT)
    }

    pub fn try_map(self, page: u64, pages: u64) -> Result<(), Error> {
        let mut source = PhysRange::new(Self::frame(page), pages);
        let range = self.range(page, pages);
        self.shared(|tree| tree.map(range, &mut source, DATA, LeafSet::ALL))
            .map(|outcome| assert_eq!(outcome.leaves.pages::<G>(), pages))
            .map_err(|failure| failure.error)
    }

    pub fn map(self, page: u64, pages: u64) {
        self.try_map(page, pages)
            .unwrap_or_else(|error| panic!("map of {pages} pages at {page}: {error}"));
    }

    pub fn map_after_prunes(self, page: u64, pages: u64) {
        loop {
            match self.try_map(page, pages) {
                Err(Error::EmptyTable { .. }) => self.prune(),
                done => break done.expect("vacant"),
            }
        }
    }

    pub fn unmap(self, page: u64, pages: u64) -> u64 {
        let mut batch = self.0.batch();
        let range = self.range(page, pages);
        let outcome = self
            .shared(|tree| tree.unmap(range, &mut batch))
            .expect("nothing to split");
        batch.flush();
        outcome.leaves.pages::<G>()
    }

    pub fn shared<R>(self, work: impl FnOnce(&Shared<'static, G, W>) -> R) -> R {
        W::shared(&self.0.tables().walks, || work(self.0))
    }

    pub fn prune(self) {
        let pruned = W::alone(&self.0.tables().walks, || self.0.prune(self.0.range()));
        pruned.expect("the tree's own range");
    }

    pub fn assert_maps(self, page: u64, pages: u64) {
        for page in page..page + pages {
            let va = self.range(page, 1).start;
            let leaf = self
                .shared(|tree| tree.translate(va))
                .unwrap_or_else(|| panic!("page {page} is not mapped"));
            assert_eq!(leaf.translate(va), Self::frame(page), "page {page}");
        }
    }

    pub fn assert_vacant(self, page: u64, pages: u64) {
        for page in page..page + pages {
            let va = self.range(page, 1).start;
            assert_eq!(self.shared(|tree| tree.translate(va)), None, "page {page}");
        }
    }

    pub fn assert_sound(self) {
        self.prune();
        let mut seen = BTreeSet::new();
        self.0
            .check(|table, _| seen.insert(table), |_| true)
            .unwrap_or_else(|error| panic!("{error}"));
        audit(self.0);
        self.unmap(0, 1 << (G::VA_BITS - G::PAGE_SHIFT));
        self.prune();
        assert_eq!(self.0.tables().live(), 1, "only the root is left");
    }
}
