use super::locks::WITHOUT_WAITING;
use super::machine::{PAGE, RAM, RAM_SIZE};
use paging::Pfn;
use std::collections::{BTreeMap, BTreeSet};

pub struct Ram {
    free: BTreeSet<(u32, u64)>,
    pub given: BTreeMap<u64, u32>,
    pub taken_over: BTreeSet<u64>,
    pub words: BTreeMap<(u64, usize), u64>,
    pub zeroed: BTreeSet<u64>,
    pub refused: u64,
    pub largest: u32,
    pub budget: Option<u64>,
    pub node_budget: Option<u64>,
    /// Only waiting calls get frames.
    pub locked: bool,
}

pub const MAX_ORDER: u32 = 13;

impl Ram {
    pub fn new() -> Self {
        let pages = RAM_SIZE / PAGE;
        let mut free = BTreeSet::new();
        for first in (0..pages).step_by(1 << MAX_ORDER) {
            free.insert((MAX_ORDER, RAM / PAGE + first));
        }
        Self {
            free,
            given: BTreeMap::new(),
            taken_over: BTreeSet::new(),
            words: BTreeMap::new(),
            zeroed: BTreeSet::new(),
            refused: 0,
            largest: MAX_ORDER,
            budget: None,
            node_budget: None,
            locked: false,
        }
    }

    pub fn spend(budget: &mut Option<u64>) -> bool {
        match budget {
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
            None => true,
        }
    }

    pub fn alloc(&mut self, order: u32) -> Option<u64> {
        if self.locked && WITHOUT_WAITING.get() {
            return None;
        }
        if order > self.largest || !Self::spend(&mut self.budget) {
            self.refused += 1;
            return None;
        }
        let (mut have, first) = *self.free.range((order, 0)..).next()?;
        self.free.remove(&(have, first));
        while have > order {
            have -= 1;
            self.free.insert((have, first + (1 << have)));
        }
        self.given.insert(first, order);
        for page in first..first + (1 << order) {
            self.zeroed.remove(&page);
        }
        Some(first)
    }

    pub fn release(&mut self, first: u64, order: u32) {
        assert_eq!(
            self.given.remove(&first),
            Some(order),
            "frame {first:#x} as given"
        );
        assert!(!self.taken_over.contains(&first), "frame {first:#x} is an area's");
        let (mut first, mut order) = (first, order);
        while order < MAX_ORDER && self.free.remove(&(order, first ^ (1 << order))) {
            first &= !(1 << order);
            order += 1;
        }
        self.free.insert((order, first));
    }

    pub fn used(&self) -> u64 {
        self.given.values().map(|order| 1 << order).sum()
    }

    pub fn is_zeroed(&self, frame: Pfn) -> bool {
        self.zeroed.contains(&frame.0)
    }

    pub fn is_given(&self, frame: Pfn) -> bool {
        self.given
            .range(..=frame.0)
            .next_back()
            .is_some_and(|(first, order)| frame.0 - first < 1 << order)
    }
}
