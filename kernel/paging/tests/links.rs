//! Links to new tables, made by several CPUs at once, in every order that the C11 memory model
//! allows, at least as weak as Arm's here. The engine's own code runs on words of `loom`. A page
//! holds something else before it is handed out as a table.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering};
use paging::mmu::NoMmu;
use paging::{
    Attributes, Config, Granule, Half, LeafSet, PhysAddr, PhysRange, Tables, TinyGranule, Tree, VirtRange,
};
use std::panic::catch_unwind;
use std::sync::Mutex;

const POOL_AT: u64 = 0x40_0000_0000;
/// A link, or a page.
const LEFT_OVER: u64 = POOL_AT | 0b11;
/// A root, a table of each level below, and those of a second CPU.
const TABLES: usize = 5;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wrong {
    Nothing,
    RelaxedExchange,
    StoreForExchange,
    HiddenFailure,
}

struct Words {
    wrong: Wrong,
    words: [[AtomicU64; TinyGranule::ENTRIES]; TABLES],
    /// Loom lets no other CPU in here.
    used: Mutex<[bool; TABLES]>,
}

impl Words {
    fn new(wrong: Wrong) -> Self {
        Self {
            wrong,
            words: std::array::from_fn(|_| std::array::from_fn(|_| AtomicU64::new(LEFT_OVER))),
            used: Mutex::new([false; TABLES]),
        }
    }

    fn word(&self, table: PhysAddr, index: usize) -> &AtomicU64 {
        &self.words[((table.0 - POOL_AT) >> TinyGranule::PAGE_SHIFT) as usize][index]
    }

    fn nr_used(&self) -> usize {
        let used = self.used.lock().expect("no panic under this lock");
        used.iter().filter(|used| **used).count()
    }

    /// As hardware does: the address of each load comes from the one before, which orders them.
    fn walk(&self, root: PhysAddr, page: usize) -> u64 {
        let mut table = root;
        for _ in TinyGranule::ROOT_LEVEL..3 {
            let link = self.word(table, 0).load(Ordering::Acquire);
            if link & 1 == 0 {
                return 0;
            }
            table = PhysAddr(link & !0xfff);
        }
        self.word(table, page).load(Ordering::Relaxed)
    }
}

#[derive(Clone)]
struct Shared(Arc<Words>);

// SAFETY: what this memory does wrong is the test's purpose, and no hardware walks in it.
unsafe impl Tables for Shared {
    fn alloc_table(&self) -> Option<PhysAddr> {
        let mut used = self.0.used.lock().expect("no panic under this lock");
        let free = used.iter().position(|used| !used)?;
        used[free] = true;
        drop(used);
        let table = PhysAddr(POOL_AT + (free << TinyGranule::PAGE_SHIFT) as u64);
        (0..TinyGranule::ENTRIES).for_each(|i| self.store(table, i, 0));
        Some(table)
    }
    fn free_table(&self, table: PhysAddr) {
        let freed = ((table.0 - POOL_AT) >> TinyGranule::PAGE_SHIFT) as usize;
        let was = std::mem::replace(
            &mut self.0.used.lock().expect("no panic under this lock")[freed],
            false,
        );
        assert!(was, "{table:?} is freed twice");
    }
    fn load(&self, table: PhysAddr, index: usize) -> u64 {
        self.0.word(table, index).load(Ordering::Acquire)
    }
    fn store(&self, table: PhysAddr, index: usize, value: u64) {
        self.0.word(table, index).store(value, Ordering::Relaxed);
    }
    fn compare_exchange(&self, table: PhysAddr, index: usize, current: u64, new: u64) -> Result<(), u64> {
        let word = self.0.word(table, index);
        if self.0.wrong == Wrong::StoreForExchange {
            let found = word.load(Ordering::Acquire);
            if found != current {
                return Err(found);
            }
            word.store(new, Ordering::Release);
            return Ok(());
        }
        let order = if self.0.wrong == Wrong::RelaxedExchange {
            Ordering::Relaxed
        } else {
            Ordering::AcqRel
        };
        match word.compare_exchange(current, new, order, Ordering::Acquire) {
            Err(found) if self.0.wrong != Wrong::HiddenFailure => Err(found),
            _ => Ok(()),
        }
    }
}

const fn frame(page: usize) -> u64 {
    (0x1000 + page as u64) << TinyGranule::PAGE_SHIFT
}

/// CPUs map one page each below one missing table, while another one walks.
fn maps_below_one_table(wrong: Wrong) {
    let mut model = loom::model::Builder::new();
    // CPUs are held up at most twice.
    model.preemption_bound = Some(2);
    model.check(move || {
        let words = Arc::new(Words::new(wrong));
        let tables = Shared(words.clone());
        let root = tables.alloc_table().expect("a table");
        let mappers: Vec<_> = (0..2)
            .map(|page| {
                let tables = tables.clone();
                loom::thread::spawn(move || {
                    let tree: Tree<TinyGranule, _, _> =
                        Tree::new(root, Half::High, tables, NoMmu::default(), Config::default());
                    let start = tree.range().start.add((page << TinyGranule::PAGE_SHIFT) as u64);
                    let mut source = PhysRange::new(PhysAddr(frame(page)), 1);
                    let range = VirtRange::new(start, 1 << TinyGranule::PAGE_SHIFT);
                    tree.map(range, &mut source, Attributes::KERNEL_DATA, LeafSet::ALL)
                        .expect("tables suffice");
                })
            })
            .collect();
        let found = words.walk(root, 0);
        assert!(
            found == 0 || found & !0xfff & 0xffff_ffff_ffff == frame(0),
            "a walk finds {found:#x}"
        );
        mappers
            .into_iter()
            .for_each(|mapper| mapper.join().expect("mapped"));
        for page in 0..2 {
            let leaf = words.walk(root, page);
            assert_eq!(leaf & 0xffff_ffff_f000, frame(page), "page {page} is lost");
        }
        assert_eq!(words.nr_used(), 3, "a table that lost the race is kept");
    });
}

fn is_seen(wrong: Wrong) -> bool {
    catch_unwind(|| maps_below_one_table(wrong)).is_err()
}

#[test]
fn cpus_that_link_one_table_at_once_both_map_and_walks_find_it_zeroed() {
    maps_below_one_table(Wrong::Nothing);
}

#[test]
fn a_link_that_does_not_release_is_found_out() {
    assert!(is_seen(Wrong::RelaxedExchange));
}

#[test]
fn a_link_that_is_stored_over_another_is_found_out() {
    assert!(is_seen(Wrong::StoreForExchange));
}

#[test]
fn a_lost_race_that_is_not_noticed_is_found_out() {
    assert!(is_seen(Wrong::HiddenFailure));
}
