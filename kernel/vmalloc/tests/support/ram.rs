use std::collections::{BTreeMap, BTreeSet};

pub const MAX_ORDER: u32 = 3;
pub const FIRST: u64 = 0x4_0000;
pub const FRAMES: u64 = 64;

pub const POISON: u64 = 0xdead_dead_dead_dead;

pub struct Ram {
    free: BTreeSet<(u32, u64)>,
    given: BTreeMap<u64, u32>,
    words: BTreeMap<(u64, usize), u64>,
    pub largest: u32,
    pub refuse_every: Option<u64>,
    pub refuse_nodes_every: Option<u64>,
    asked: u64,
    nodes_asked: u64,
    pub refused: u64,
}

impl Ram {
    pub fn new() -> Self {
        Self {
            free: (0..FRAMES >> MAX_ORDER)
                .map(|block| (MAX_ORDER, FIRST + (block << MAX_ORDER)))
                .collect(),
            given: BTreeMap::new(),
            words: BTreeMap::new(),
            largest: MAX_ORDER,
            refuse_every: None,
            refuse_nodes_every: None,
            asked: 0,
            nodes_asked: 0,
            refused: 0,
        }
    }

    fn refuses(asked: &mut u64, every: Option<u64>) -> bool {
        *asked += 1;
        every.is_some_and(|every| asked.is_multiple_of(every))
    }

    pub fn refuses_node(&mut self) -> bool {
        let refused = Self::refuses(&mut self.nodes_asked, self.refuse_nodes_every);
        self.refused += u64::from(refused);
        refused
    }

    /// Freed ones are reused soon.
    pub fn alloc(&mut self, order: u32) -> Option<u64> {
        if Self::refuses(&mut self.asked, self.refuse_every) {
            self.refused += 1;
            return None;
        }
        if order > self.largest {
            return None;
        }
        let (mut have, first) = *self
            .free
            .iter()
            .filter(|(have, _)| *have >= order)
            .min_by_key(|(_, first)| *first)?;
        self.free.remove(&(have, first));
        while have > order {
            have -= 1;
            self.free.insert((have, first + (1 << have)));
        }
        self.given.insert(first, order);
        Some(first)
    }

    pub fn release(&mut self, first: u64, order: u32) {
        assert_eq!(
            self.given.remove(&first),
            Some(order),
            "frame {first:#x} is freed as it was given"
        );
        for frame in first..first + (1 << order) {
            self.words.retain(|(at, _), _| *at != frame);
        }
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

    fn assert_given(&self, frame: u64) {
        let before = self.given.range(..=frame).next_back();
        let given = before.is_some_and(|(first, order)| frame - first < 1 << order);
        assert!(given, "frame {frame:#x} is nobody's");
    }

    pub fn zero(&mut self, first: u64, order: u32) {
        for frame in first..first + (1 << order) {
            self.assert_given(frame);
            for index in 0..512 {
                self.words.insert((frame, index), 0);
            }
        }
    }

    pub fn write(&mut self, frame: u64, index: usize, value: u64) {
        self.assert_given(frame);
        self.words.insert((frame, index), value);
    }

    pub fn read(&self, frame: u64, index: usize) -> u64 {
        self.assert_given(frame);
        self.peek(frame, index)
    }

    pub fn peek(&self, frame: u64, index: usize) -> u64 {
        *self.words.get(&(frame, index)).unwrap_or(&POISON)
    }
}
