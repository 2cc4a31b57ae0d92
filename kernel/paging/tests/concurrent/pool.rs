use crate::support::Live;
use paging::{Granule, PhysAddr, Tables};
use shuttle::sync::atomic::Ordering as CheckedOrdering;
use std::sync::atomic::Ordering as RealOrdering;

const POOL_AT: u64 = 0x40_0000_0000;

/// Shuttle's under the checker.
pub trait Word: Default + Send + Sync {
    type Lock: Default + Send + Sync;
    fn shared<R>(lock: &Self::Lock, work: impl FnOnce() -> R) -> R;
    fn alone<R>(lock: &Self::Lock, work: impl FnOnce() -> R) -> R;
    fn load(&self) -> u64;
    fn store(&self, value: u64);
    fn compare_exchange(&self, current: u64, new: u64) -> Result<u64, u64>;
}

macro_rules! word {
    ($atomic:ty, $ordering:ident, $lock:ty) => {
        impl Word for $atomic {
            type Lock = $lock;
            fn shared<R>(lock: &$lock, work: impl FnOnce() -> R) -> R {
                let _held = lock.read().expect("no panic under this lock");
                work()
            }
            fn alone<R>(lock: &$lock, work: impl FnOnce() -> R) -> R {
                let _held = lock.write().expect("no panic under this lock");
                work()
            }
            fn load(&self) -> u64 {
                self.load($ordering::Relaxed)
            }
            fn store(&self, value: u64) {
                self.store(value, $ordering::Relaxed);
            }
            fn compare_exchange(&self, current: u64, new: u64) -> Result<u64, u64> {
                self.compare_exchange(current, new, $ordering::AcqRel, $ordering::Acquire)
            }
        }
    };
}

word!(
    shuttle::sync::atomic::AtomicU64,
    CheckedOrdering,
    shuttle::sync::RwLock<()>
);

word!(std::sync::atomic::AtomicU64, RealOrdering, std::sync::RwLock<()>);

const FREE: u8 = 0;
const IN_USE: u8 = 1;
const UNLINKED: u8 = 2;

/// Freed tables stay readable, and wait for [`quiesce`](Self::quiesce).
pub struct Pool<W: Word> {
    /// Exclusive for `prune`.
    pub walks: W::Lock,
    words: Vec<W>,
    entries: usize,
    shift: u32,
    // A standard mutex adds no schedules.
    states: std::sync::Mutex<Vec<u8>>,
    at_once: bool,
}

impl<W: Word> Pool<W> {
    pub fn new<G: Granule>(tables: usize) -> Self {
        Self {
            walks: W::Lock::default(),
            words: (0..tables * G::ENTRIES).map(|_| W::default()).collect(),
            entries: G::ENTRIES,
            shift: G::PAGE_SHIFT,
            states: std::sync::Mutex::new(vec![FREE; tables]),
            at_once: false,
        }
    }

    pub fn at_once(self) -> Self {
        Self {
            at_once: true,
            ..self
        }
    }

    fn number(&self, table: PhysAddr) -> usize {
        let number = table
            .0
            .checked_sub(POOL_AT)
            .unwrap_or_else(|| panic!("{table:?} is no table"))
            >> self.shift;
        assert!(
            (number as usize) < self.words.len() / self.entries,
            "{table:?} is no table"
        );
        number as usize
    }

    fn word(&self, table: PhysAddr, index: usize) -> &W {
        assert!(index < self.entries);
        &self.words[self.number(table) * self.entries + index]
    }

    fn assert_writable(&self, table: PhysAddr) {
        let state = self.states.lock().expect("no panic under this lock")[self.number(table)];
        assert_eq!(state, IN_USE, "a store into {table:?}, which was freed");
    }

    pub fn quiesce(&self) {
        for state in self.states.lock().expect("no panic under this lock").iter_mut() {
            if *state == UNLINKED {
                *state = FREE;
            }
        }
    }
}

impl<W: Word> Live for &Pool<W> {
    fn live(&self) -> usize {
        self.states
            .lock()
            .expect("no panic under this lock")
            .iter()
            .filter(|state| **state == IN_USE)
            .count()
    }
}

// SAFETY: pages are zeroed, distinct, and not reused before `quiesce`; every access is atomic.
unsafe impl<W: Word> Tables for Pool<W> {
    fn alloc_table(&self) -> Option<PhysAddr> {
        let number = {
            let mut states = self.states.lock().expect("no panic under this lock");
            let number = states.iter().position(|state| *state == FREE)?;
            states[number] = IN_USE;
            number
        };
        let table = PhysAddr(POOL_AT + ((number as u64) << self.shift));
        (0..self.entries).for_each(|index| self.word(table, index).store(0));
        Some(table)
    }

    fn free_table(&self, table: PhysAddr) {
        let state = std::mem::replace(
            &mut self.states.lock().expect("no panic under this lock")[self.number(table)],
            if self.at_once { FREE } else { UNLINKED },
        );
        assert_eq!(state, IN_USE, "{table:?} is freed twice");
    }

    fn load(&self, table: PhysAddr, index: usize) -> u64 {
        self.word(table, index).load()
    }

    fn store(&self, table: PhysAddr, index: usize, value: u64) {
        self.assert_writable(table);
        self.word(table, index).store(value);
    }

    fn compare_exchange(&self, table: PhysAddr, index: usize, current: u64, new: u64) -> Result<(), u64> {
        self.word(table, index)
            .compare_exchange(current, new)
            .map(|_| self.assert_writable(table))
    }
}
