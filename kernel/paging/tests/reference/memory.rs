use paging::{Granule, PhysAddr, Tables};
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

/// No table is at address 0.
pub struct Memory {
    entries: usize,
    shift: u32,
    pages: RefCell<Vec<Vec<u64>>>,
    free: RefCell<BTreeSet<usize>>,
    pub budget: Cell<usize>,
    pub stores: Cell<u64>,
}

impl Memory {
    pub fn new<Gr: Granule>() -> Self {
        Self {
            entries: Gr::ENTRIES,
            shift: Gr::PAGE_SHIFT,
            pages: RefCell::default(),
            free: RefCell::default(),
            budget: Cell::new(usize::MAX),
            stores: Cell::new(0),
        }
    }

    fn page(&self, table: PhysAddr) -> usize {
        assert!(table.is_aligned(1 << self.shift), "table at {table:?}");
        let page = (table.0 >> self.shift) as usize - 1;
        assert!(!self.free.borrow().contains(&page), "{table:?} is free");
        page
    }

    pub fn in_use(&self) -> usize {
        self.pages.borrow().len() - self.free.borrow().len()
    }
}

// SAFETY: pages are zeroed and distinct; no TLB exists; one thread makes accesses atomic and
// ordered; no bulk operation is overridden.
unsafe impl Tables for Memory {
    fn alloc_table(&self) -> Option<PhysAddr> {
        self.budget.set(self.budget.get().checked_sub(1)?);
        let mut pages = self.pages.borrow_mut();
        let page = self.free.borrow_mut().pop_first().unwrap_or(pages.len());
        if page == pages.len() {
            pages.push(Vec::new());
        }
        pages[page] = vec![0; self.entries];
        Some(PhysAddr((page as u64 + 1) << self.shift))
    }

    fn free_table(&self, table: PhysAddr) {
        let page = self.page(table);
        assert!(self.free.borrow_mut().insert(page));
    }

    fn load(&self, table: PhysAddr, index: usize) -> u64 {
        self.pages.borrow()[self.page(table)][index]
    }

    fn store(&self, table: PhysAddr, index: usize, value: u64) {
        self.stores.set(self.stores.get() + 1);
        self.pages.borrow_mut()[self.page(table)][index] = value;
    }

    fn compare_exchange(&self, table: PhysAddr, index: usize, current: u64, new: u64) -> Result<(), u64> {
        let found = self.load(table, index);
        if found != current {
            return Err(found);
        }
        self.store(table, index, new);
        Ok(())
    }
}
